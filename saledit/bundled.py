"""Where the files that come with saledit lie: in a wheel, or in a checkout."""

from __future__ import annotations

from pathlib import Path

from saledit.errors import UserError

PREFIX = "bundled:"


def bundled(path: str) -> Path:
    """Find a file that comes with saledit.

    Args:
        path: relative to the bundled files, with or without ``bundled:`` before it, e.g.
            ``bundled:data/worldfacts/train.jsonl.gz``.

    Returns:
        The absolute path; whether there is such a file is for the caller to see.

    Raises:
        UserError: the path, symbolic links followed, leads out of the bundled files.
    """
    package = Path(__file__).resolve().parent
    # A wheel carries the files inside the package; a checkout has them beside it.
    root = package / "_bundled"
    if not root.is_dir():
        root = package.parent
    try:
        found = (root / path.removeprefix(PREFIX)).resolve()
        inside = found.is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError):  # a circle of links, a null byte
        inside = False
    if not inside:
        raise UserError(
            f"{path}: expected a file that comes with saledit, got a path that leads elsewhere; "
            "name a file of your own without 'bundled:'"
        )
    return found
