"""Where data comes from: a file, one that comes with saledit, or a data set of the hub."""

from __future__ import annotations

import difflib
import random
import re
from array import array
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from saledit.bundled import PREFIX, bundled
from saledit.data.hashes import Known, number
from saledit.data.hub import HUB, hub_rows
from saledit.data.readers import Row, file_rows, kind_of, silent
from saledit.data.spool import Spool, records_in
from saledit.errors import DataError, UserError, did_you_mean
from saledit.files import file_hash, reason
from saledit.files.reading import check_regular
from saledit.records import Record
from saledit.tasks.base import Task
from saledit.tasks.fields import text_of

_SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".parquet")
# A hub name may hold a dot, but with one of these endings a file is meant.
_OTHER_FILES = frozenset(
    f".{ending}"
    for ending in (
        *("arrow", "bz2", "gz", "json", "pkl", "pt", "py", "tar", "tgz"),
        *("tsv", "txt", "xlsx", "xml", "xz", "yaml", "yml", "zip", "zst"),
    )
)


def load_rows(source: str, *, limit: int = 0, root: Path | None = None) -> list[Row]:
    """Read the rows of a data file or of a hub data set.

    Args:
        source: a .jsonl, .csv (each also .gz) or .parquet file, ``bundled:`` and a file that comes
            with saledit, or a hub data set as ``name``, ``org/name``, ``org/name@config:split``
            (split ``train`` if none is named).
        limit: give no more rows than this, drawn from all of them, the same ones every time; 0
            gives all. (The first ones of a file that is in any order would be of one kind.)
        root: where relative paths start; the current folder if None.

    Returns:
        (place, fields) per row. The place is ``file:line``, counting blank lines and a CSV header;
        in Parquet files and hub data sets the line is the number of the row, from 1.

    Raises:
        DataError: no such source, or a broken one.
    """
    with closing(_rows(source, limit, root)) as rows:
        return list(rows)


def _rows(source: str, limit: int, root: Path | None) -> Generator[Row, None, None]:
    """The rows, as they are read where all are wanted: the first that is wrong is the last read."""
    assert limit >= 0
    path, n = _locate(source, root), 0
    with silent():
        chosen = _drawn(_read(path, source), limit) if limit else None
        for i, row in enumerate(_read(path, source)):
            if chosen is not None and n == len(chosen):
                break
            if chosen is None or chosen[n] == i:
                n += 1
                yield row
    if not n:
        raise _empty(source)


def _empty(source: str) -> DataError:
    return DataError(f"{source}: expected at least one record, got none; name data with records")


def _read(path: Path | None, source: str, streaming: bool = False) -> Iterator[Row]:
    if path is not None:
        return file_rows(path, source)
    return hub_rows(source, _files(Path(), re.split("[@:]", source)[0]), streaming)


def stream_texts(source: str, field: str = "text") -> Iterator[str]:
    """The texts of a source, one after another, nothing kept; of the hub as they are read.

    (Of a part of a hub data set's split, ``train[:5]``, the whole split comes first.)

    Args:
        source: as in `load_rows`.
        field: which field holds them.

    Raises:
        DataError: no such source, a broken one, or a row without text in this field.
    """
    path = _locate(source, None)
    rows = _read(path, source, streaming=True)
    while True:
        with silent():  # not for whoever reads on in between
            found = next(rows, None)
        if found is None:
            return
        where, row = found
        yield text_of(row, field, where)


def check_texts(source: str, field: str = "text") -> None:
    """Refuse a data file that `stream_texts` cannot read, by its first record.

    A hub data set is not looked into: it may be large, and what was summed up over it lies in the
    cache, so that it need not be here.

    Args:
        source: as in `load_rows`.
        field: which field holds the texts.

    Raises:
        DataError: no such file, a broken one, or one without a text at its beginning.
    """
    if _locate(source, None) is not None and next(stream_texts(source, field), None) is None:
        raise _empty(source)


def source_files(source: str) -> list[Path]:
    """The file that a source is; none of a hub data set.

    Raises:
        DataError: it names neither.
    """
    path = _locate(source, None)
    return [] if path is None else [path]


def source_digest(source: str) -> str:
    """Fingerprint of a source: of a file's bytes, of a hub data set its name."""
    return next(map(file_hash, source_files(source)), source)


def _drawn(rows: Iterable[Row], limit: int) -> Sequence[int]:
    """At most ``limit`` rows by number, each set of them as likely (Vitter's algorithm R)."""
    kept, draws = array("q"), random.Random(0)
    for i, _ in enumerate(rows):
        if i < limit:
            kept.append(i)
        elif (place := draws.randrange(i + 1)) < limit:
            kept[place] = i
    return array("q", sorted(kept))


def load_records(
    task: Task, source: str, *, limit: int = 0, folder: Path | None = None
) -> Sequence[Record]:
    """Read records.

    Args:
        task: parses the rows.
        source: as in `load_rows`.
        limit: as in `load_rows`.
        folder: where the records lie from then on, in a file without a name; None for memory.

    Returns:
        The records in the order of the data. One without an ``id`` gets ``stem:line``.

    Raises:
        DataError: no such source, a broken one, a wrong field, or an id that comes twice.
        JobError: the folder cannot be written.

    Example:
        >>> from saledit.tasks.qa import Qa
        >>> file = "bundled:data/worldfacts/completions_test.jsonl.gz"
        >>> first = load_records(Qa(), file)[0]
        >>> first.sample.inputs, first.sample.target, len(first.rewordings)
        (('The name of the country with Asunción as its capital is',), 'Paraguay', 4)
    """
    stem = _stem(source)
    records: list[Record] | Spool[Record] = [] if folder is None else records_in(folder)
    ids, owners, lines = array("Q"), array("q"), array("q")
    name = ""

    def check() -> None:
        """Raises where an id has come twice so far."""
        if (twice := Known(ids).twice()) is None:
            return
        later, first = (owners[i] for i in twice)
        samples = (records[later].sample, *records[later].rewordings)
        same = next(sample.id for sample in samples if number(sample.id) == ids[twice[0]])
        raise DataError(
            f"{name}:{lines[later]}: expected a unique 'id', got '{same}' as on line "
            f"{lines[first]}; rename one of them, or leave 'id' out"
        )

    try:
        with closing(_rows(source, limit, None)) as rows:
            for where, row in rows:
                name, _, line = where.rpartition(":")
                record = task.parse(row | {"id": _id(row, where) or f"{stem}:{line}"}, where)
                for sample in (record.sample, *record.rewordings):
                    ids.append(number(sample.id))
                    owners.append(len(records))
                lines.append(int(line))
                records.append(record)
    except DataError:
        check()  # of the faults of a file the first one is told
        raise
    check()
    return records


def _id(row: dict[str, Any], where: str) -> str:
    value = row.get("id")
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(
            f"{where}: expected text or a number in 'id', got {kind_of(value)}; "
            "write it as text, or leave it out"
        )
    return str(value)


def _stem(source: str) -> str:
    """What the ids of records without one begin with: a file's bare name, or a data set's."""
    name = re.split(r"[/\\]", source)[-1]
    ending = next((s for s in _SUFFIXES if name.lower().endswith(s)), "")
    return name[: -len(ending)] if ending else re.sub(r"[@:]", "-", name)


def _locate(source: str, root: Path | None) -> Path | None:
    """The file that is meant, or None for a hub data set."""
    try:
        if source.startswith(PREFIX):
            path = bundled(source)
        else:
            path = (root or Path()) / Path(source).expanduser()
        folder, there = path.is_dir(), path.exists()
        if there and not folder:
            check_regular(path.stat().st_mode)
    except UserError as error:
        raise DataError(str(error)) from None
    # Too long a name, no rights, no home folder, a null byte, a pipe.
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(
            f"{source:.300}: expected a data file, got a path that cannot be followed "
            f"({reason(error)}); check the path"
        ) from error
    if folder:
        inside = ", ".join(_files(path)) or "it has none"
        raise DataError(
            f"{source}: expected a data file, got a folder; name a data file in it ({inside})"
        )
    known = path.name.lower().endswith(_SUFFIXES)
    if there and not known:
        raise DataError(
            f"{source}: expected a file that ends in {', '.join(_SUFFIXES)}, got '{path.name}'; "
            "convert the file or give it its right name"
        )
    if there:
        return path
    if not known and path.suffix.lower() not in _OTHER_FILES and HUB.fullmatch(source):
        return None
    if not path.parent.is_dir():
        raise DataError(
            f"{source}: expected a data file, got no such folder '{path.parent}'; check the path"
        )
    near = _files(path.parent, path.name)
    remedy = (
        did_you_mean(path.name, near)
        if near
        else f"check the path, '{path.parent}' has no data files"
    )
    raise DataError(f"{source}: expected a data file, got no such file; {remedy}")


def _files(folder: Path, like: str = "") -> list[str]:
    """Names of up to eight data files of a folder; with ``like`` the most similar ones."""
    try:
        names = sorted(p.name for p in folder.iterdir() if p.name.lower().endswith(_SUFFIXES))
    except OSError:
        return []
    return difflib.get_close_matches(like, names, n=8, cutoff=0.0) if like else names[:8]
