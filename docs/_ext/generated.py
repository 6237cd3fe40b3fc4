"""Pages, or parts of them, that are made from the code whenever the site is built.

A page asks for a part by a comment of its own, ``<!-- generated: verbs -->``.
"""

from __future__ import annotations

import re
from typing import Any

from saledit.cli import _COMMON
from saledit.verbs import VERBS, Argument

_SECTIONS = {
    f"{name}:" for name in ("Args", "Attributes", "Example", "Raises", "Returns", "Yields")
}
_PLACE = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)


def verbs() -> str:
    """Every verb: what it does, how it is called, its arguments."""
    return "\n\n".join(_verb(name) for name in VERBS)


def common() -> str:
    """The options that every verb has."""
    rows = [(f"`{flag}`", what) for flag, what in _COMMON.items()]
    rows.append(("`--threads N`", "processor threads to use"))
    return _table(("option", "does"), rows)


def registry() -> str:
    """The names that a configuration may use, and where their code is."""
    from saledit.registry import EDITORS, PICKERS, TASKS

    rows = []
    for key, table in (("editor.name", EDITORS), ("site.select", PICKERS), ("task.name", TASKS)):
        rows += [(f"`{key}`", f"`{name}`", f"`{place}`") for name, place in table.items()]
    return _table(("key", "name", "code"), rows)


def settings() -> str:
    """Every key of a configuration with its default and its comment."""
    from saledit import config

    return _table(
        ("key", "default", "what it is"),
        [
            (f"`{key}`", f"`{_shown(value)}`", _text(what))
            for key, value, what in config.describe(config.RunConfig())
        ],
    )


PARTS = {"verbs": verbs, "common": common, "registry": registry, "settings": settings}


def filled(text: str) -> str:
    """A page's text with the parts that it asks for.

    Raises:
        KeyError: there is no such part.
    """
    return _PLACE.sub(lambda match: PARTS[match.group(1)](), text)


def _verb(name: str) -> str:
    verb = VERBS[name]
    words = " ".join(_usage(argument) for argument in verb.arguments)
    examples = "\n".join(f"$ {example}" for example in verb.examples)
    rows = [(f"`{_name(a)}`", _text(a.options["help"])) for a in verb.arguments]
    arguments = _table(("argument", "what it is"), rows)
    summary = f"{verb.summary[:1].upper()}{verb.summary[1:]}."
    usage = f"```text\nsaledit {name} {words}".rstrip() + "\n```"
    return f"## {name}\n\n{summary}\n\n{usage}\n\n{arguments}\n\n```console\n{examples}\n```"


def _name(argument: Argument) -> str:
    options = argument.options
    if not argument.name.startswith("-"):
        return str(options.get("metavar", argument.name))
    metavar = options.get("metavar")
    several = " …" if "item" in options or options.get("nargs") in ("+", "*") else ""
    several = several or (" …" if _takes_several(options) else "")
    return argument.name if metavar is None else f"{argument.name} {metavar}{several}"


def _takes_several(options: dict[str, Any]) -> bool:
    return getattr(options.get("action"), "__name__", "") == "Several"


def _usage(argument: Argument) -> str:
    name, options = _name(argument), argument.options
    if argument.name.startswith("-"):
        return name if options.get("required") else f"[{name}]"
    if options.get("nargs") == "*":
        return f"[{name} …]"
    return f"[{name}]" if options.get("nargs") == "?" else name


def _shown(value: Any) -> str:
    return "''" if value == "" else str(value).replace("\n", "\\n")


def _text(text: str) -> str:
    """Plain text for a cell of a table: nothing in it is markup."""
    for sign in "\\<>*_|[]{}`$":
        text = text.replace(sign, f"\\{sign}")
    return text


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _as_text(_app: Any, _what: str, _name: str, _it: Any, _opts: Any, lines: list[str]) -> None:
    """Docstrings are read as text in a terminal: formulas stay as they stand, |x| is a norm.

    To reStructuredText |x| is the name of something to be put there, and what is indented a quote.
    """
    out: list[str] = []
    in_section = literal = False
    for line in lines:
        if line.strip() and not line.startswith("  "):
            in_section, literal = line in _SECTIONS, False
        elif line.startswith("    ") and not in_section and not literal:
            out += ["", "::", ""]
            literal = True
        plain = literal or "``" in line or line.lstrip().startswith((">>>", "..."))
        out.append(line if plain else line.replace("|", r"\|"))
    lines[:] = out


def setup(app: Any) -> dict[str, Any]:
    """Fill pages in as they are read."""

    def fill(_app: Any, _page: str, source: list[str]) -> None:
        source[0] = filled(source[0])

    app.connect("source-read", fill)
    app.connect("autodoc-process-docstring", _as_text, priority=400)  # before napoleon
    return {"version": "1", "parallel_read_safe": True}
