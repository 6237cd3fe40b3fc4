"""The guard of ``saledit fix``: bounds on an edit, and the largest part that keeps them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from saledit.delta import Edits
from saledit.errors import UserError

_LENGTHS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an edit has to keep.

    Attributes:
        max_drawdown: the largest drawdown on the check set; None for any.
        min_fixed: the least share of the failures that it mends; None for one failure at least,
            as an edit that mends nothing can only break something.
    """

    max_drawdown: float | None = None
    min_fixed: float | None = None

    def check(self) -> None:
        """Refuse numbers that are no bounds.

        Raises:
            UserError: a bound is not between 0 and 1.
        """
        for flag, value in (("max-drawdown", self.max_drawdown), ("min-fixed", self.min_fixed)):
            if value is not None and not 0 <= value <= 1:
                raise UserError(f"--{flag}: expected a share between 0 and 1, got {value}")

    def misses(self, fixed: float, drawdown: float) -> dict[str, float]:
        """By how much an edit misses each bound that it misses; NaN misses all."""
        found = {}
        if self.max_drawdown is not None and not drawdown <= self.max_drawdown:
            found["drawdown_above"] = drawdown - self.max_drawdown
        if self.min_fixed is not None and not fixed >= self.min_fixed:
            found["fixed_below"] = self.min_fixed - fixed
        if self.min_fixed is None and not fixed > 0:
            found["nothing_fixed"] = True
        return found


@dataclass(frozen=True, slots=True)
class Part:
    """A part of an edit, and what it does.

    Attributes:
        steps: its edits.
        step: their length, in lengths of the whole edit.
        kept: which of the edit's steps are in it.
        n_fixed: failures that it mends.
        drawdown: on the check set.
    """

    steps: Edits
    step: float
    kept: Sequence[int]
    n_fixed: int
    drawdown: float

    def as_json(self) -> dict[str, Any]:
        """All but the edits."""
        return {
            "step": self.step, "n_steps": len(self.kept), "n_fixed": self.n_fixed,
            "drawdown": self.drawdown,
        }  # fmt: skip


#: How many failures edits mend, and their drawdown on the check set.
Measure = Callable[[Edits], tuple[int, float]]


def largest_part(steps: Sequence[Edits], measure: Measure, max_drawdown: float) -> Part | None:
    """The part of an edit that mends most within a drawdown.

    Two kinds are looked through: all steps at a shorter length, and some of the steps in full. The
    latter are put together by halves: a half that breaks too much is tried in halves of its own.

    Args:
        steps: the edits of each group of failures, in order; they add up.
        measure: asks the model.
        max_drawdown: on the check set.

    Returns:
        The part; None where none mends anything within the bound.
    """
    whole, n = reduce(Edits.__add__, steps), len(steps)
    parts = [Part(whole * s, s, range(n), *measure(whole * s)) for s in _LENGTHS]
    if n > 1:
        kept = _kept(list(range(n)), [], steps, measure, max_drawdown)
        if kept:
            some = _sum(kept, steps)
            parts.append(Part(some, 1.0, kept, *measure(some)))
    held = [part for part in parts if part.drawdown <= max_drawdown and part.n_fixed]
    # Of two that mend as many the one that breaks less.
    return max(held, key=lambda part: (part.n_fixed, -part.drawdown), default=None)


def _kept(
    group: list[int], before: list[int], steps: Sequence[Edits], measure: Measure, bound: float
) -> list[int]:
    """Which of a group's steps can be added to those before."""
    if measure(_sum([*before, *group], steps))[1] <= bound:
        return group
    if len(group) == 1:
        return []
    half = len(group) // 2
    first = _kept(group[:half], before, steps, measure, bound)
    return first + _kept(group[half:], [*before, *first], steps, measure, bound)


def _sum(chosen: Sequence[int], steps: Sequence[Edits]) -> Edits:
    return reduce(Edits.__add__, (steps[i] for i in chosen))
