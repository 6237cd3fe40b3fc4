"""Rows of one data file, each with its place, as a stream of ``datasets``.

Lines of text are parsed here, and ``datasets`` streams the rows. Its own JSON and CSV readers would
change what is written: a column of "2020-01-01" becomes dates, "None" becomes nothing, short CSV
rows are filled up, a field that first appears after 10 MB fails, and no fault names its line.
Streaming leaves no Arrow cache.
"""

from __future__ import annotations

import csv
import glob
import gzip
import itertools
import json
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from saledit.errors import DataError
from saledit.files import open_regular, parse_json, reason

Row = tuple[str, dict[str, Any]]

_LINE = 16 << 20  # bytes of a line at most
# A gzip file may hold this many times its own size, and this many bytes whatever its size. Text is
# packed to a tenth or so; a file made to fill memory to a thousandth.
_PACKED, _UNPACKED = 100, 16 << 20

_KINDS = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
    type(None): "nothing",
}


def kind_of(value: object) -> str:
    """What a value is called in messages."""
    return _KINDS.get(type(value), type(value).__name__)


@contextmanager
def silent() -> Iterator[None]:
    """No progress bars, log lines or warnings of ``datasets`` and the hub library inside."""
    import datasets.utils
    import huggingface_hub.utils

    libraries: list[Any] = [datasets.utils, huggingface_hub.utils]
    before = [(lib.are_progress_bars_disabled(), lib.logging.get_verbosity()) for lib in libraries]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for library in libraries:
                library.disable_progress_bars()
                library.logging.set_verbosity(library.logging.CRITICAL)
            yield
        finally:
            for library, (disabled, verbosity) in zip(libraries, before, strict=True):
                if not disabled:
                    library.enable_progress_bars()
                library.logging.set_verbosity(verbosity)


def file_rows(path: Path, source: str) -> Iterator[Row]:
    """Read a file of a known suffix.

    Args:
        path: the file: .parquet, .csv, .csv.gz, or else JSON lines.
        source: what messages call it.

    Yields:
        (place, fields) per row.

    Raises:
        DataError: the file or one of its lines is broken.
    """
    from datasets import IterableDataset

    if path.name.lower().endswith(".parquet"):
        yield from _parquet_rows(path, source)
    else:
        # Not where a link leads to: its own name says the format.
        place = {"path": str(path.absolute()), "source": source}
        try:
            items = IterableDataset.from_generator(_text_rows, gen_kwargs=place)
        except OSError as error:  # nothing is read yet, but datasets takes a lock
            raise DataError(
                f"{source}: expected a cache folder that can be written, got an error "
                f"({reason(error)}); point HF_DATASETS_CACHE to a folder of yours"
            ) from error
        for item in items:
            yield item["where"], item["row"]


def dataset_rows(data: Any, source: str) -> Iterator[Row]:
    """Number the rows of a ``datasets`` data set and turn class numbers into their names.

    Args:
        data: a ``Dataset`` or ``IterableDataset``.
        source: what messages call it.

    Yields:
        (place, fields) per row. A class number of -1 stands for "no label" and becomes None.
    """
    features = data.features or {}
    classes = {field: kind for field, kind in features.items() if hasattr(kind, "int2str")}
    for number, row in enumerate(data, start=1):
        for field, kind in classes.items():
            value = row[field]
            row[field] = None if value is None or value < 0 else kind.int2str(value)
        yield f"{source}:{number}", row


def _text_rows(path: str, source: str) -> Iterator[dict[str, Any]]:
    # No features are declared, so datasets passes the rows on as they are.
    is_csv = path.lower().endswith((".csv", ".csv.gz"))
    for where, row in (_csv_rows if is_csv else _json_rows)(Path(path), source):
        yield {"where": where, "row": row}


def _lines(path: Path, source: str) -> Iterator[tuple[str, str]]:
    """(place, line with its end) for every line, blank ones too."""
    zipped = path.name.lower().endswith(".gz")
    try:
        with open_regular(path) as file, _unzipped(file) if zipped else file as stream:
            most = max(_UNPACKED, _PACKED * path.stat().st_size)
            number, read = 0, 0
            while line := stream.readline(_LINE + 1):
                number, read = number + 1, read + len(line)
                where = f"{source}:{number}"
                if len(line) > _LINE:
                    raise DataError(
                        f"{where}: expected a line of at most {_LINE >> 20} MiB, got a longer one; "
                        "write one record a line"
                    )
                if read > most:
                    raise DataError(
                        f"{where}: expected text that gzip has packed, got over {_PACKED} times "
                        "the file's size; unpack it yourself if it is meant"
                    )
                yield where, _decoded(line, where, "utf-8-sig" if number == 1 else "utf-8")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        fault = "one that ends too early" if isinstance(error, EOFError) else "a broken one"
        raise DataError(
            f"{source}: expected a whole gzip file, got {fault} ({reason(error)}); "
            "copy it once more"
        ) from error
    except OSError as error:
        raise DataError(
            f"{source}: expected a readable file, got an error ({error.strerror or error}); "
            "check the file and its rights"
        ) from error


def _unzipped(file: BinaryIO) -> BinaryIO:
    return cast(BinaryIO, gzip.GzipFile(fileobj=file))


def _decoded(line: bytes, where: str, encoding: str) -> str:
    try:
        return line.decode(encoding)
    except UnicodeDecodeError as error:
        fault = "a gzip file" if line.startswith(b"\x1f\x8b") else f"byte 0x{line[error.start]:02x}"
        remedy = "name it .gz" if line.startswith(b"\x1f\x8b") else "convert the file to UTF-8"
        raise DataError(f"{where}: expected UTF-8 text, got {fault}; {remedy}") from None


def _json_rows(path: Path, source: str) -> Iterator[Row]:
    kinds: dict[str, tuple[str, str]] = {}  # field -> (kind, place of its first value)
    for where, line in _lines(path, source):
        if not line.strip():
            continue
        row = _parsed(line, where)
        for field, value in row.items():
            if value is None:
                continue
            kind, first = kinds.setdefault(field, (kind_of(value), where))
            if kind != kind_of(value):
                raise DataError(
                    f"{where}: expected {kind} in '{field}' as on line "
                    f"{first.rpartition(':')[2]}, got {kind_of(value)}; use one type for a field"
                )
        yield where, row


def _parsed(line: str, where: str) -> dict[str, Any]:
    remedy = "write one whole object a line"
    try:
        row = parse_json(line.rstrip("\r\n"))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: expected a JSON object, got broken JSON "
            f"({error.msg}, column {error.colno}); {remedy}"
        ) from error
    except ValueError as error:  # no text, no finite number, a key that comes twice, too deep
        raise DataError(
            f"{where}: expected a JSON object, got one that cannot be used "
            f"({reason(error)}); {remedy}"
        ) from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected a JSON object, got {kind_of(row)}; {remedy}")
    return row


#: What may stand between the columns of a CSV file: the first of these that its header holds.
#: (Spreadsheets write semicolons where decimals have commas, and tabs when asked.)
_MARKS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}


def _csv_rows(path: Path, source: str) -> Iterator[Row]:
    lines, head = (line for _, line in _lines(path, source)), list[str]()
    while not "".join(head).strip() and (line := next(lines, None)) is not None:
        head.append(line)  # and blank ones above it
    mark = next((mark for mark in _MARKS if mark in "".join(head)), ",")
    reader = csv.reader(itertools.chain(head, lines), strict=True, delimiter=mark)
    header: list[str] = []
    while True:
        where = f"{source}:{reader.line_num + 1}"  # where the row begins; it may span lines
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(
                f"{where}: expected a CSV row, got a broken one ({error}); "
                'close every quote, and write "" for a quote inside one'
            ) from error
        if cells is None:
            return
        if not cells or (len(cells) == 1 and not cells[0].strip()):
            continue
        if not header:
            header = [cell.strip() for cell in cells]
            if len(set(header)) < len(header) or "" in header[1:]:
                raise DataError(
                    f"{where}: expected a header of different names, got {', '.join(cells)}; "
                    "name each column once"
                )
            continue
        if len(cells) != len(header):
            raise DataError(
                f"{where}: expected {len(header)} columns ({', '.join(header)}), got {len(cells)}; "
                f"quote a text that holds {_MARKS[mark]}"
            )
        # A first column without a name is the index that pandas writes.
        yield where, {name: cell for name, cell in zip(header, cells, strict=True) if name}


def _parquet_rows(path: Path, source: str) -> Iterator[Row]:
    from datasets import load_dataset

    # The name is taken for a pattern, so it has to be escaped. Without a batch size a file of no
    # rows fails.
    options = {"split": "train", "streaming": True, "batch_size": 1024}
    try:
        open_regular(path).close()
        data = load_dataset("parquet", data_files=[glob.escape(str(path.resolve()))], **options)
        # Pictures and sounds stay as they are: decoding opens whatever file or address a row names.
        yield from dataset_rows(data.decode(False), source)
    except DataError:
        raise
    except Exception as error:  # of Arrow, datasets, or built in
        raise DataError(
            f"{source}: expected a Parquet file, got one that cannot be read "
            f"({reason(error):.300}); write it once more"
        ) from error
