"""Which parameters of a test ``make test`` runs; ``make test-long`` runs the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from _pytest.mark.structures import ParameterSet


def quick(few: Iterable[Any], values: Mapping[str, Any] | Iterable[Any]) -> list[ParameterSet]:
    """Parameters of which all but a few are marked long.

    Those of a mapping are named by its keys; a tuple there is one value for each argument.
    """
    names = {str(value) for value in few}
    if not isinstance(values, Mapping):
        values = {str(value): value for value in values}
    return [
        pytest.param(
            *(value if isinstance(value, tuple) else (value,)),
            id=name,
            marks=() if name in names else pytest.mark.long,
        )
        for name, value in values.items()
    ]
