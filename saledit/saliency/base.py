"""What every layer picker returns: one score a layer, the pick, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from saledit.config import SiteConfig
from saledit.errors import ConfigError, did_you_mean
from saledit.models import TaskModel
from saledit.records import Sample
from saledit.site import Layer
from saledit.tasks.base import Task

TABLE = "saliency.json"  # the table of a run, in its folder


@dataclass(frozen=True, slots=True)
class LayerScore:
    """The score of one layer.

    Attributes:
        layer: block index.
        score: what the pick is made by; higher is picked.
        details: further numbers for the table, by column name.
        error: standard error of the score over failures; 0 where it is taken as exact.
        final: False where the layer was left out after a first, rough round.
    """

    layer: int
    score: float
    details: dict[str, float] = field(default_factory=dict)
    error: float = 0.0
    final: bool = True


@dataclass(frozen=True, slots=True)
class Saliency:
    """The table of a layer picker.

    Attributes:
        method: the picker and its settings in words.
        scores: one a layer, from the input up.
        forward_passes: forward passes of the whole model that it cost, a sample each;
            a suffix run counts by its share of blocks.
        backward_passes: full backward passes, a sample each.
        seconds: wall-clock time.
        tolerance: how far below the highest a score may be and still count as equal.
    """

    method: str
    scores: tuple[LayerScore, ...]
    forward_passes: float
    backward_passes: float
    seconds: float
    tolerance: float = 0.0

    @property
    def pick(self) -> int:
        """The top layer among those whose score is not clearly below the highest.

        Clearly is by more than the standard error of the highest, and by more than
        ``tolerance``. Scores so close say nothing about which layer is better, and the nearer a
        layer is to the output, the fewer blocks an edit has to run (of the choices that are as
        good as the best, the cheapest: the one-standard-error rule of Breiman et al., 1984).

        Example:
            >>> scores = LayerScore(0, 0.90), LayerScore(1, 0.95), LayerScore(2, 0.93)
            >>> Saliency("a picker", scores, 0, 0, 0).pick
            1
            >>> Saliency("a picker", scores, 0, 0, 0, tolerance=0.05).pick
            2
        """
        finalists = [s for s in self.scores if s.final]
        best = max(finalists, key=lambda s: s.score)
        least = best.score - max(self.tolerance, best.error)
        return max(s.layer for s in finalists if s.score >= least)

    def as_json(self) -> dict[str, Any]:
        """For ``saliency.json``."""
        return {
            "schema": 1,
            "method": self.method,
            "pick": self.pick,
            "layers": [
                {
                    "layer": s.layer,
                    "score": s.score,
                    "error": s.error,
                    "final": s.final,
                    **s.details,
                }
                for s in self.scores
            ],
            "forward_passes": self.forward_passes,
            "backward_passes": self.backward_passes,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True)
class Probes:
    """Samples that a picker reads.

    Attributes:
        fail: failures.
        adapt: one rewording of each failure, in order; a failure without one stands for itself.
        passing: pass samples.
        background: further pass samples for statistics of a layer's inputs; none: ``passing``.
    """

    fail: Sequence[Sample]
    adapt: Sequence[Sample]
    passing: Sequence[Sample]
    background: Sequence[Sample] = ()


class Picker(Protocol):
    """A layer picker."""

    @classmethod
    def of(cls, config: SiteConfig, dtype: torch.dtype | None = None) -> Picker:
        """The picker that a configuration describes.

        Args:
            config: the site's settings.
            dtype: type that suffix runs are cast to, by a picker that casts; None for the weights'.

        Raises:
            ConfigError: a setting that this picker does not have.
        """
        ...

    def readable(self, passing: Sequence[Sample]) -> Sequence[Sample]:
        """Those pass samples that it can read.

        Raises:
            DataError: it can read none of them.
        """
        ...

    def __call__(
        self, base: TaskModel, task: Task, layers: Sequence[Layer], probes: Probes
    ) -> Saliency:
        """Score every layer."""
        ...


def check_name(key: str, name: str, known: Sequence[str]) -> None:
    """Refuse what a setting does not know.

    Raises:
        ConfigError: the name is none of these.
    """
    if name not in known:
        raise ConfigError(f"{key}: unknown name '{name}'; {did_you_mean(name, known)}")
