"""The rule-based rewriter as a step of the split: rewordings checked by an embedding model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import torch

from saledit.config import AdaptConfig
from saledit.data.paraphrase import EmbeddingSimilarity, reword_all
from saledit.errors import ModelError
from saledit.files import known_hash
from saledit.models import find_weights, model_files
from saledit.records import Sample
from saledit.tasks.base import Task

_Similarity = Callable[[Sequence[str], Sequence[str]], Sequence[float]]


def by_rules(config: AdaptConfig, task: Task) -> bool:
    """Whether rules reword a task's samples.

    They know statements and pairs of them, not questions or unfinished sentences.
    """
    return config.rewrite and not task.generates


class RuleRewriter:
    """Rewords samples by rule and keeps what an embedding model calls equivalent.

    Args:
        config: how many, how similar, judged by which model.
        device: where that model runs.
    """

    def __init__(self, config: AdaptConfig, device: str | torch.device = "cpu") -> None:
        self._config, self._device = config, device
        self._similarity: _Similarity | None = None
        self.name = f"rules-1 {_mark(config)} {config.threshold} {config.per_failure}"

    def __call__(
        self, samples: Sequence[Sample]
    ) -> Sequence[Sequence[tuple[tuple[str, ...], str]]]:
        """(inputs, kind) pairs for each sample.

        Raises:
            ModelError: the embedding model is not there.
        """
        c = self._config
        if c.similarity_model and self._similarity is None:
            self._similarity = EmbeddingSimilarity(
                find_weights(c.similarity_model), device=self._device
            )
        # One seed for all runs: a text has the same rewordings whatever the run's seed.
        return reword_all(
            [sample.inputs for sample in samples],
            limit=c.per_failure,
            seed=0,
            similarity=self._similarity,
            threshold=c.threshold,
        )


def _mark(config: AdaptConfig) -> str:
    """The embedding model by its files; by its name where there are none."""
    found = []
    if config.similarity_model:
        with suppress(ModelError):  # said where it is needed
            found = model_files(find_weights(config.similarity_model))
    # Each part of a run has a rewriter, and they have one model.
    return "-".join(known_hash(path)[:16] for path in found) or config.similarity_model
