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
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from saledit import __version__
from saledit.errors import JobError, UserError, did_you_mean

if TYPE_CHECKING:
    from saledit.report import Ui

    _Call = Callable[[Any, argparse.Namespace, Ui], dict[str, Any]]

_FORMATS = ("delta",)
_COMMON = {
    "--json": "print the result as JSON, nothing else",
    "--quiet": "show no progress on stderr",
    "--debug": "show the traceback of an error",
}


class _Argument:
    """The arguments of ``ArgumentParser.add_argument``."""

    def __init__(self, name: str, help: str, **options: Any) -> None:
        self.name, self.options = name, {"help": help, **options}


@dataclass(frozen=True)
class _Verb:
    """One verb: its help, its arguments, and what it does."""

    summary: str
    examples: tuple[str, ...]
    arguments: tuple[_Argument, ...]
    # Gets the module saledit.run, which is imported late; None for `config`, which needs no run.
    call: _Call | None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see: {self.prog} --help")


_CONFIG_HELP = "a YAML file, or the name of a bundled configuration such as nli/worldfacts"
_SET_HELP = "key=value set over the file, e.g. seed=1 train.epochs=5 (see: saledit config)"
_SHOW_HELP = f"{_CONFIG_HELP}; without one the defaults are shown. {_SET_HELP}"
_CONFIG = _Argument("config", _CONFIG_HELP, metavar="CONFIG")
_SET = _Argument("overrides", _SET_HELP, metavar="key=value", nargs="*", default=[])

_VERBS = {
    "quickstart": _Verb(
        "the whole story on bundled data: failures, layer, editor, test, fix",
        ("saledit quickstart", "saledit quickstart --out /tmp/story"),
        (
            _Argument("--out", "where runs and caches go (default: as configured)", metavar="DIR"),
            _Argument("--task", "which story (default: nli)", metavar="TASK", default="nli"),
        ),
        lambda run, args, ui: run.quickstart(args.out, args.task, ui),
    ),
    "fit": _Verb(
        "pick the layer and train an editor",
        (
            "saledit fit nli/worldfacts",
            "saledit fit my.yaml name=deeper site.select=fixed site.layer=4",
            "saledit fit my.yaml --resume",
        ),
        (
            _CONFIG,
            _SET,
            _Argument("--resume", "go on with a run that was cut off", action="store_true"),
        ),
        lambda run, args, ui: run.fit(args.loaded, args.resume, ui),
    ),
    "test": _Verb(
        "edit accuracy, drawdown and locality of a trained editor on the test split",
        (
            "saledit test checkpoints/worldfacts",
            "saledit test checkpoints/worldfacts schedule.batch_size=1 --json",
        ),
        (
            _Argument("target", "a run's folder, or its configuration", metavar="RUN_OR_CONFIG"),
            _SET,
        ),
        lambda run, args, ui: run.test(args.target, args.overrides, ui),
    ),
    "saliency": _Verb(
        "score every layer and say which one would be edited",
        ("saledit saliency nli/worldfacts", "saledit saliency my.yaml site.select=gradient"),
        (_CONFIG, _SET),
        lambda run, args, ui: run.saliency(args.loaded, ui),
    ),
    "compare": _Verb(
        "several editors on the same splits, model and budget, in one table",
        (
            "saledit compare nli/worldfacts --editors salem mend step ft",
            "saledit compare my.yaml --editors salem enn mine.yaml --seeds 0 1 2 --seconds 300",
        ),
        (
            _CONFIG,
            _SET,
            _Argument(
                "--editors", "names of configs/editors, or files", metavar="E", nargs="+",
                required=True,
            ),
            _Argument("--seeds", "(default: 0)", metavar="N", nargs="+", type=int, default=[0]),
            _Argument(
                "--edits", "edits that each is trained on (default: as configured)", metavar="N",
                type=int, default=0,
            ),
            _Argument(
                "--seconds", "instead: wall clock that each is trained for", metavar="S",
                type=float, default=0.0,
            ),
        ),
        lambda run, args, ui: run.compare(
            args.config, args.editors, args.seeds, args.overrides, ui, args.edits, args.seconds
        ),
    ),
    "fix": _Verb(
        "turn new failures into an edit, checked before and after",
        ("saledit fix checkpoints/worldfacts --failures wrong.jsonl --out my-fix",),
        (
            _Argument("run", "the run's folder with the trained editor", metavar="RUN"),
            _Argument("--failures", "records, right answers in them", metavar="F", required=True),
            _Argument("--out", "where the edit is written", metavar="DIR", required=True),
            _Argument("--check", "records to keep right (default: some kept by fit)", metavar="F"),
            _Argument("--format", "of the edit: delta", metavar="FORMAT", default="delta"),
        ),
        lambda run, args, ui: run.fix(args.run, args.failures, args.out, args.check, ui),
    ),
    "config": _Verb(
        "show a configuration, resolved and with comments",
        ("saledit config", "saledit config nli/worldfacts seed=1 > my.yaml"),
        (_Argument("overrides", _SHOW_HELP, metavar="CONFIG key=value", nargs="*", default=[]),),
        None,
    ),
}


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
    if name not in _VERBS:
        if name.startswith("-"):
            raise UserError(f"unknown option '{name}' before the verb; see: saledit --help")
        raise UserError(f"unknown verb '{name}'; {did_you_mean(name, _VERBS)}")
    verb = _VERBS[name]
    try:
        args = _parse(_parser(name, verb), [*common, *words[1:]])
    except SystemExit:  # argparse has printed the help
        return 0
    return _show_config(args) if verb.call is None else _run(name, verb.call, args)


def _parser(name: str, verb: _Verb) -> _Parser:
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
    parser.add_argument("--threads", type=_positive, metavar="N", help="processor threads to use")
    return parser


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got '{text}'")
    return number


def _parse(parser: _Parser, words: list[str]) -> argparse.Namespace:
    # Intermixed, so that options may stand between and before `key=value` words.
    args, rest = parser.parse_known_intermixed_args(words)
    if rest and rest[0].startswith("-"):
        options = [option for action in parser._actions for option in action.option_strings]
        raise UserError(f"unknown option '{rest[0]}'; {did_you_mean(rest[0], options)}")
    if rest:
        raise UserError(f"unexpected '{rest[0]}'; see: {parser.prog} --help")
    return args


def _overview() -> str:
    verbs = "".join(f"  {name:<12}{verb.summary}\n" for name, verb in _VERBS.items())
    return (
        "usage: saledit VERB [options]\n\n"
        "Fixes what a fine-tuned language model gets wrong by training an editor.\n\n"
        f"verbs:\n{verbs}\n"
        "Each verb takes --json, --quiet, --debug, --threads N; saledit VERB --help says more.\n"
        "saledit --version prints the version. Start with: saledit quickstart\n"
    )


def _run(name: str, call: _Call, args: argparse.Namespace) -> int:
    # What is wrong in the arguments is found before the slow imports.
    if "format" in args and args.format not in _FORMATS:
        remedy = did_you_mean(args.format, _FORMATS)
        raise UserError(f"--format: unknown format '{args.format}'; {remedy}")
    if "config" in args:
        from saledit import config

        args.loaded = config.load(args.config, args.overrides)
    from saledit import report

    # What libraries write to stdout goes to stderr: stdout holds the result alone.
    with report.Ui(args.quiet) as ui, contextlib.redirect_stdout(ui.foreign()):
        report.quiet_libraries()
        if args.threads is not None:
            report.use_threads(args.threads)
        from saledit import run

        result = call(run, args, ui)
    if args.json:
        _print_json(result)
    else:
        print(report.render(name, result, sys.stdout), end="")
    return 0


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
