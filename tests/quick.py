"""Which parameters of a test ``make test`` runs; ``make test-long`` runs the others."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any

import pytest
from _pytest.mark.structures import ParameterSet


def quick(few: Container[Any], values: Mapping[str, Any] | Iterable[Any]) -> list[ParameterSet]:
    """Parameters of which all but a few are marked long; of a mapping, named by its keys."""
    if isinstance(values, Mapping):
        return [
            pytest.param(value, id=name, marks=() if name in few else pytest.mark.long)
            for name, value in values.items()
        ]
    return [pytest.param(value, marks=() if value in few else pytest.mark.long) for value in values]
