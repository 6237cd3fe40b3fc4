"""Rows of a data set of the hub."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from saledit.data.readers import Row, dataset_rows
from saledit.errors import DataError
from saledit.files import reason

HUB = re.compile(
    r"(?P<name>\w[\w.-]*(?:/\w[\w.-]*)?)"
    r"(?:@(?P<config>[^@:\[]+)|:(?P<split>[^@:\[]+(?:\[[^\]]*\])?))*"
)


def hub_rows(source: str, files: Sequence[str], streaming: bool = False) -> Iterator[Row]:
    """Read a data set.

    Args:
        source: ``name``, ``org/name``, ``org/name@config:split``; see ``HUB``.
        files: names of files here that may have been meant.
        streaming: fetch rows as they are read, in the same order; otherwise all of them are
            downloaded first, and kept. Without a network both read what was downloaded before.

    Yields:
        (place, fields) per row.

    Raises:
        DataError: the hub does not give it, or stops to.
    """
    import datasets

    match = HUB.fullmatch(source)
    assert match
    name, config, split = match["name"], match["config"], match["split"] or "train"
    options: dict[str, Any] = {"split": split}
    if streaming and "[" not in split:  # a part of a split is known when all of it is there
        options["streaming"] = True
    try:
        if hasattr(datasets.packaged_modules, name):  # "csv" would read the current folder
            raise ValueError(f"'{name}' is a file format")
        data = datasets.load_dataset(name, config, **options)
    except Exception as error:  # of the hub libraries, http, Arrow, or built in
        offline = isinstance(error, ConnectionError)
        fault = "the hub could not be reached" if offline else "the hub did not give it"
        remedy = "name a file, or go online (unset HF_HUB_OFFLINE)" if offline else "check the name"
        close = difflib.get_close_matches(name, files, n=1, cutoff=0.5)
        raise DataError(
            f"{source}: expected a data file or a hub data set, got no local file of that name, "
            f"and {fault} ({reason(error)}); "
            + (f"did you mean the file '{close[0]}'?" if close else remedy)
        ) from error
    read = 0
    try:
        for row in dataset_rows(data, source):
            yield row
            read += 1
    except Exception as error:  # of the same ones
        raise DataError(
            f"{source}:{read + 1}: expected a row of a hub data set, got an error "
            f"({reason(error):.300}); check the connection, and start it again"
        ) from error
