"""The command line: ``saledit VERB …``.

Nothing heavy is imported before a verb needs it, so that ``--help`` is there at once.
Exit status: 0 done; 1 the job ran and failed; 2 the input is wrong; 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from saledit import __version__, distributed
from saledit.errors import JobError, UserError, did_you_mean
from saledit.verbs import FORMATS, VERBS, Verb, positive

if TYPE_CHECKING:
    from saledit.verbs import Call

_COMMON = {
    "--json": "print the result as JSON, nothing else",
    "--quiet": "show no progress on stderr",
    "--debug": "show the traceback of an error",
}


_SEEN_BY_ALL = (2, 130)  # exit statuses: wrong input, Ctrl-C
_SHARED = ("fit", "test")  # verbs that several processes run together


#: An option as argparse knows one: neither a negative number nor a dash alone.
_OPTION = re.compile(r"-(?![\d.])\S")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see: {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the words after the program's name; those of the process where None is given.

    Returns:
        The exit status.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _dispatch(words)
        sys.stdout.flush()
    except BaseException as error:
        if "--debug" in words and not isinstance(
            error, KeyboardInterrupt | BrokenPipeError | SystemExit
        ):
            import traceback

            traceback.print_exc()
        from saledit.report.failures import explain

        message, status = explain(error, words)
        # What all processes see is said by the first; a fault may be of one alone.
        if status not in _SEEN_BY_ALL or not distributed.was_launched_beside():
            _say(message)
    _close_stdout()
    return status


def _dispatch(words: list[str]) -> int:
    # Options that every verb has may also stand before it.
    common = list(itertools.takewhile(_COMMON.__contains__, words))
    words = words[len(common) :]
    if words[:1] == ["help"]:
        words = [*words[1:2], "--help"]
    name = words[0] if words else "--help"
    if name in {"-h", "--help"}:
        print(_overview(), end="")
        return 0
    if name in {"-V", "--version"}:
        print(f"saledit {__version__}")
        return 0
    if name not in VERBS:
        if name.startswith("-"):
            raise UserError(f"unknown option '{name}' before the verb; see: saledit --help")
        raise UserError(f"unknown verb '{name}'; {did_you_mean(name, VERBS)}")
    verb = VERBS[name]
    try:
        args = _parse(_parser(name, verb), [*common, *words[1:]])
    except SystemExit:  # argparse has printed the help
        return 0
    return _show_config(args) if verb.call is None else _run(name, verb.call, args, words)


def _parser(name: str, verb: Verb) -> _Parser:
    parser = _Parser(
        prog=f"saledit {name}",
        description=f"{verb.summary[:1].upper()}{verb.summary[1:]}.",
        epilog="examples:\n" + "".join(f"  {example}\n" for example in verb.examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for argument in verb.arguments:
        parser.add_argument(argument.name, **argument.options)
    for flag, what in _COMMON.items():
        parser.add_argument(flag, action="store_true", help=what)
    parser.add_argument("--threads", type=positive, metavar="N", help="processor threads to use")
    return parser


def _parse(parser: _Parser, words: list[str]) -> argparse.Namespace:
    # Before argparse, which would only say that the option meant is missing.
    options = [option for action in parser._actions for option in action.option_strings]
    for word in itertools.takewhile(lambda word: word != "--", words):
        option = word.partition("=")[0]
        if option not in options and _OPTION.match(option):
            raise UserError(f"unknown option '{option}'; {did_you_mean(option, options)}")
    # Intermixed, so that options may stand between and before `key=value` words.
    args, rest = parser.parse_known_intermixed_args(words)
    if settings := getattr(args, "settings", None):  # behind an option that takes several words
        args.overrides = [*args.overrides, *settings]
    if rest:
        raise UserError(f"unexpected '{rest[0]}'; see: {parser.prog} --help")
    return args


def _overview() -> str:
    verbs = "".join(f"  {name:<12}{verb.summary}\n" for name, verb in VERBS.items())
    return (
        "usage: saledit VERB [options]\n\n"
        "Fixes what a fine-tuned language model gets wrong by training an editor.\n\n"
        f"verbs:\n{verbs}\n"
        "Each verb takes --json, --quiet, --debug, --threads N; saledit VERB --help says more.\n"
        "saledit --version prints the version. Start with: saledit quickstart\n"
    )


def _run(name: str, call: Call, args: argparse.Namespace, words: Sequence[str]) -> int:
    # What is wrong in the arguments is found before the slow imports.
    if getattr(args, "format", None) not in (None, *FORMATS):
        remedy = did_you_mean(args.format, FORMATS)
        raise UserError(f"--format: unknown format '{args.format}'; {remedy}")
    if "config" in args:
        from saledit import config

        args.loaded = config.load(args.config, args.overrides)
    from saledit import report

    # What libraries write to stdout goes to stderr: stdout holds the result alone.
    with (
        report.Ui(args.quiet, command=shlex.join(["saledit", *words]), debug=args.debug) as ui,
        contextlib.redirect_stdout(ui.foreign()),
    ):
        report.quiet_libraries()
        if args.threads is not None:
            report.use_threads(args.threads)
        if name not in _SHARED and distributed.was_launched_beside():
            _say(f"saledit {name}: this process leaves it to the first one of its launcher")
            return 0
        from saledit import run

        result = call(run, args, ui)
    if not distributed.is_main():
        return 0
    if args.json:
        _print_json(result)
    else:
        print(report.render(name, result, sys.stdout), end="")
    # A fix that does not keep its bounds has run, and has failed; so has a cell of a comparison.
    failed = any("error" in cell for cell in result.get("cells", ()))
    return 1 if failed or result.get("refused") else 0


def _show_config(args: argparse.Namespace) -> int:
    from saledit import config

    given = list(args.overrides)
    path = given.pop(0) if given and "=" not in given[0] else None
    loaded = config.load(path, given)
    if args.json:
        from dataclasses import asdict

        _print_json(asdict(loaded))
    else:
        from saledit.report.results import annotated_yaml

        text, encoding = annotated_yaml(loaded), sys.stdout.encoding or "utf-8"
        print(text.encode(encoding, "replace").decode(encoding), end="")
    return 0


def _print_json(value: dict[str, Any]) -> None:
    try:
        print(json.dumps(value, indent=2, allow_nan=False))
    except ValueError as error:
        raise JobError("a result is NaN or infinite; --debug shows where") from error


def _say(text: str) -> None:
    """One line on stderr, whatever is in it; nothing for an empty text."""
    line = "".join(c if c.isprintable() else " " for c in " ".join(text.split()))
    with contextlib.suppress(OSError, ValueError):
        print(line, end="\n" if line else "", file=sys.stderr, flush=True)


def _close_stdout() -> None:
    """Keep Python from failing at exit on a stdout that is closed or full."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        return
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
