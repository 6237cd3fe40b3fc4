"""Fluency: whether an edited model still writes varied text, or says one thing over and over."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from torch import Tensor, float64

from saledit.decoding import continue_freely
from saledit.delta import Edits
from saledit.metrics import Mean
from saledit.models import TaskModel
from saledit.records import Sample
from saledit.tasks.text import TextTask

_TOKENS = 100  # of a continuation, as in the CounterFact evaluation
_WEIGHTS = {2: 2 / 3, 3: 4 / 3}  # of the entropies of n-grams


def ngram_entropy(text: str) -> float:
    """Weighted mean of the entropies of a text's 2- and 3-grams of words, in bits.

    Source: generation entropy GE of Meng et al., NeurIPS 2022 (ROME), whose tables print it times
    100. 0 for a text of fewer than two words.
    """
    words = text.split()
    total = 0.0
    for n, weight in _WEIGHTS.items():
        grams = Counter(zip(*(words[i:] for i in range(n)), strict=False))
        count = sum(grams.values())
        total += weight * -sum(m / count * math.log2(m / count) for m in grams.values())
    return total / len(_WEIGHTS)


class Fluency:
    """Mean n-gram entropy of free continuations of prompts, without and with edits.

    Args:
        base: the task model.
        task: makes the prompts.
        most: prompts to look at; 0 for none.
    """

    def __init__(self, base: TaskModel, task: TextTask, most: int) -> None:
        self._base, self._task, self._room = base, task, most
        self._before, self._after = Mean(), Mean()

    def count(self, samples: Sequence[Sample], edits: Edits, which: Tensor) -> None:
        """Let the model go on with prompts, each under its edit of a batch (E,)."""
        chosen = samples[: self._room]
        self._room -= len(chosen)
        if not chosen:
            return
        for mean, own in ((self._before, None), (self._after, edits)):
            texts = continue_freely(
                self._base, self._task, chosen, own, which[: len(chosen)], _TOKENS
            )
            mean.update(which.new_tensor([ngram_entropy(t) for t in texts], dtype=float64))

    def compute(self) -> dict[str, float]:
        """The two means; nothing where nothing was counted."""
        if not self._before.total:
            return {}
        values = {"before": self._before, "after": self._after}
        return {f"fluency_{name}": float(mean.compute()) for name, mean in values.items()}
