"""A growth curve: what is measured against which size, and how it is shown."""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from growth_points import Job


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        key: of a point's values.
        head: above it.
        show: how a number is written.
        scale: what it is multiplied by.
        is_fitted: whether its exponent is of interest.
    """

    key: str
    head: str
    show: str = ".2f"
    scale: float = 1.0
    is_fitted: bool = True


class Curve(ABC):
    """A cost against a size.

    Args:
        args: the command line.
        work: an empty folder.

    Attributes:
        x: key of the size.
        x_label: of the axis.
        columns: of the table; what it begins with is not fitted.
        panels: for each panel of the plot the label of its axis, and what is drawn: key, name.
    """

    x: str
    x_label: str
    columns: ClassVar[tuple[Column, ...]]
    panels: ClassVar[Mapping[str, Mapping[str, str]]]

    def __init__(self, args: argparse.Namespace, work: Path) -> None:
        self.args, self.work = args, work

    @abstractmethod
    def points(self) -> list[dict[str, Any]]:
        """What is to be measured: for each point all that its numbers depend on, but the code."""

    @abstractmethod
    def measure(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Measure a point: ``values`` that tables and plots are made of, and more."""

    def tick(self, x: float) -> str:
        """How a size is written at the axis."""
        return f"{x:,.0f}"

    def common(self, shared: Sequence[str]) -> dict[str, Any]:
        """What all points of a curve have."""
        a = self.args
        shared = (*shared, *a.set)
        return {"curve": a.curve, "settings": [*shared], "threads": a.threads, "clock": a.clock}

    def job(
        self, what: str, config: str | None, settings: Iterable[str], name: str, steps: int = 1,
        fixes: int = 1,
    ) -> Job:  # fmt: skip
        """A job; its result lies in the folder of the work."""
        a, result = self.args, self.work / f"{name}-{what}.json"
        return Job(what, config, (*settings,), steps, fixes, a.threads, a.clock, str(result))
