"""Bootstrap intervals of edit accuracy and drawdown, and of their difference between editors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_RESAMPLES, _LEVEL = 2000, 0.95
#: What an edit counts: right or lost, and out of how many.
PER_EDIT = ("fail", "fail_of", "adapt", "adapt_of", "lost", "lost_of")
#: Shares, each of counts: (right or lost, out of).
SHARES = {
    "fail_accuracy": (("fail", "fail_of"),),
    "adapt_accuracy": (("adapt", "adapt_of"),),
    "edit_accuracy": (("fail", "fail_of"), ("adapt", "adapt_of")),
    "drawdown": (("lost", "lost_of"),),
}


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and where 95% of its resamples lie."""

    mean: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        """For a JSON file."""
        return {"mean": self.mean, "low": self.low, "high": self.high}


class Resampled:
    """Resamples of the edits of some seeds, the same for every editor that made the same edits.

    Edits are drawn with replacement within each seed (Efron and Tibshirani, 1993, chapter 6): seeds
    are few, and what a seed decides (the split, the initial weights) is not resampled. So the
    interval is of these trained editors on other failures of the same kind. Seeds whose edits are
    of the same failures share one draw: they are no further failures, and drawn apart three seeds
    would make an interval shorter by the root of three.

    Args:
        counts: for each seed how many edits there are.
        about: for each seed what its edits are of; those of the same count and of the same share a
            draw, None shares with no other. () for all of them None.
    """

    def __init__(self, counts: Sequence[int], about: Sequence[object] = ()) -> None:
        draws = torch.Generator().manual_seed(0)
        self._counts, self._index = tuple(counts), list[Tensor]()
        shared: dict[tuple[int, object], Tensor] = {}
        for n, of in zip(counts, about or [None] * len(counts), strict=True):
            index = shared.get((n, of))
            if index is None:
                index = torch.randint(max(1, n), (_RESAMPLES, n), generator=draws)
            if of is not None:
                shared[n, of] = index
            self._index.append(index)

    def shares(self, edits: Sequence[Mapping[str, Sequence[float]]], name: str) -> Tensor:
        """A share in each resample; the first entry is that of the edits as they are.

        Args:
            edits: for each seed what its edits count (``results.json``: ``per_edit``).
            name: one of ``SHARES``.

        Returns:
            (1 + resamples,), NaN where nothing was counted.

        Raises:
            ValueError: other numbers of edits than the resamples are of.
        """
        parts = SHARES[name]
        whole = torch.zeros(2, _RESAMPLES + 1, dtype=torch.float64)
        for own, n, index in zip(edits, self._counts, self._index, strict=True):
            for row, keys in enumerate(zip(*parts, strict=True)):
                values = torch.tensor([own[key] for key in keys], dtype=torch.float64).sum(0)
                if len(values) != n:
                    raise ValueError(f"bootstrap: expected {n} edits, got {len(values)}")
                whole[row, 0] += values.sum()
                whole[row, 1:] += values[index].sum(1)
        return torch.where(whole[1] > 0, whole[0] / whole[1], torch.nan)


def interval(shares: Tensor) -> Interval:
    """The 95% percentile interval of what ``Resampled.shares`` gives, or of a difference."""
    tail = (1 - _LEVEL) / 2
    low, high = shares[1:].nanquantile(shares.new_tensor([tail, 1 - tail])).tolist()
    return Interval(float(shares[0]), low, high)


def of_outcome(name: str, share: float, counts: Mapping[str, int]) -> tuple[float, float] | None:
    """The 95% interval of edits that have one outcome: those that pile up, or one edit.

    Wilson's over the failures (a failure's rewordings are no further ones), of the drawdown over
    the pass samples.

    Args:
        name: one of ``SHARES``.
        share: what it is; a rise of perplexity is none.
        counts: samples of the test, ``fail``, ``adapt`` and ``pass``.

    Returns:
        None where nothing was counted.
    """
    size = counts.get("pass" if name == "drawdown" else "fail", 0)
    if name == "adapt_accuracy":
        size = min(size, counts.get("adapt", 0))
    return wilson(share, size) if size > 0 and 0 <= share <= 1 else None


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95% score interval of a share of n independent samples (Wilson, 1927, JASA 22).

    Args:
        share: between 0 and 1.
        n: samples, above 0.
    """
    z = 1.959964
    middle = share + z * z / (2 * n)
    reach = z * math.sqrt((share * (1 - share) + z * z / (4 * n)) / n)
    whole = 1 + z * z / n
    return max(0.0, (middle - reach) / whole), min(1.0, (middle + reach) / whole)
