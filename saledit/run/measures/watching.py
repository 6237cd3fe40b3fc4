"""What is watched beside the edits while these pile up: text, and what else the model can do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from saledit.cache.bank import Bank
from saledit.cache.opening import Opener
from saledit.data.choices import Choice
from saledit.delta import Edits
from saledit.judging.banked import bank_batches
from saledit.judging.counts import EditMetrics
from saledit.metrics import Mean
from saledit.models import TaskModel
from saledit.records import TEXT, Sample
from saledit.tasks.base import Task, WordTask

_LENGTH = 512  # tokens of a prompt at most


class Watched(Protocol):
    """Something that is looked at again and again."""

    def look(self, edits: Edits) -> dict[str, Any]:
        """What there is to note under some edits, unbatched."""
        ...


class Passages:
    """The perplexity of running text.

    Args:
        base: the task model.
        task: scores passages.
        texts: passages.
        opened: gives its bank, at the edited layer.
    """

    def __init__(self, base: TaskModel, task: Task, texts: Sequence[str], opened: Opener) -> None:
        self._base, self._task = base, task
        samples = [Sample(f"text-{i}", ("",), t, TEXT) for i, t in enumerate(texts)]
        self._bank = opened(task, samples)

    def look(self, edits: Edits) -> dict[str, Any]:
        """``perplexity``."""
        return {"perplexity": perplexity(self._base, self._task, self._bank, edits)}


def perplexity(base: TaskModel, task: Task, bank: Bank, edits: Edits) -> float:
    """Perplexity of a bank's passages under edits."""
    counted = EditMetrics()
    for index, logits in bank_batches(base, task, bank, edits):
        targets = bank.targets_of(index)
        losses = task.losses(base, logits, targets)
        counted.count_texts(losses, losses, targets)
    return counted.compute_texts()["perplexity_after"]


class Abilities:
    """How often the right answer of several is the likeliest, by kind of prompt.

    An answer's likelihood is the geometric mean of its tokens', so long answers do not lose for
    their length.

    Args:
        base: the task model.
        task: of text; neither its template nor its stop rule is used.
        choices: prompts with their answers.
        opened: gives its bank, at the edited layer.
    """

    def __init__(
        self, base: TaskModel, task: WordTask, choices: Sequence[Choice], opened: Opener
    ) -> None:
        self._base, self._task = base, task.bare(min(_LENGTH, base.max_length))
        self._kinds = [choice.kind for choice in choices]
        samples = [
            Sample(f"{c.id}|{i}", (c.prompt,), answer)
            for c in choices
            for i, answer in enumerate(c.answers)
        ]
        self._of = torch.tensor([i for i, c in enumerate(choices) for _ in c.answers])
        self._right = torch.tensor([i == 0 for c in choices for i, _ in enumerate(c.answers)])
        self._bank = opened(self._task, samples)

    def look(self, edits: Edits) -> dict[str, Any]:
        """``abilities``: for each kind the share that is answered right."""
        losses = torch.zeros(len(self._of), dtype=torch.double)
        for index, logits in bank_batches(self._base, self._task, self._bank, edits):
            found = self._task.losses(self._base, logits, self._bank.targets_of(index))
            losses[index.cpu()] = found.double().cpu()
        shares: dict[str, Mean] = {}
        for kind, right in zip(self._kinds, self._are_right(losses).tolist(), strict=True):
            shares.setdefault(kind, Mean()).update(torch.tensor([right], dtype=torch.double))
        return {"abilities": {kind: float(mean.compute()) for kind, mean in shares.items()}}

    def _are_right(self, losses: Tensor) -> Tensor:
        """Whether the right answer of each prompt has the least loss: bool (n,)."""
        n = len(self._kinds)
        others = losses.masked_fill(self._right, float("inf"))
        least = losses.new_full((n,), float("inf")).scatter_reduce(0, self._of, others, "amin")
        return losses[self._right] < least  # a tie or a NaN is not right
