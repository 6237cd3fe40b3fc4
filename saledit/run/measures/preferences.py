"""Edits as the field reports them: is the right answer likelier than its rival?

Source: Meng et al., NeurIPS 2022 (CounterFact), and the code of MEMIT
(``experiments/py/eval_utils_counterfact.py``, ``experiments/summarize.py``). An answer's
probability is the geometric mean of its tokens'; its end is not part of it, but of an
encoder-decoder. Records count alike, however many prompts of a kind they have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from saledit.cache.opening import Opener
from saledit.data.splits import Part
from saledit.delta import Edits
from saledit.forward.rows import run_edits
from saledit.metrics import Mean
from saledit.models import TaskModel
from saledit.records import Sample
from saledit.report import look
from saledit.tasks.base import WordTask

#: Failures, their rewordings, and the samples of other matters that their records bring.
KINDS = look.KINDS
PAIRS = "answers and rivals"  # what is cached, in words
_ROWS = 512  # rows a run


@dataclass(frozen=True, slots=True)
class Pairs:
    """Right answers and their rivals.

    Attributes:
        samples: rows 2i and 2i + 1 are a right answer and its rival.
        kinds: of each pair (``KINDS``).
        own: for each failure its pairs.
    """

    samples: Sequence[Sample]
    kinds: Sequence[int]
    own: Sequence[Sequence[int]]

    @property
    def weights(self) -> list[float]:
        """Of each pair: one over how many of its kind its failure has."""
        weights = [0.0] * len(self.kinds)
        for pairs in self.own:
            many = Counter(self.kinds[pair] for pair in pairs)
            for pair in pairs:
                weights[pair] = 1 / many[self.kinds[pair]]
        return weights

    @property
    def have_all_kinds(self) -> bool:
        """Whether there are failures, rewordings and other matters among them, as S needs."""
        return set(self.kinds) == set(range(len(KINDS)))


def pairs_of(part: Part, only: Collection[int] | None = None) -> Pairs:
    """The pairs of samples that have a rival.

    Args:
        part: failures, their rewordings and the other matters of their records.
        only: positions of the failures that are looked at; None for all.
    """
    samples: list[Sample] = []
    kinds: list[int] = []
    own: list[list[int]] = [[] for _ in part.fail]
    groups = ([(sample,) for sample in part.fail], part.adapt, part.near)
    for kind, group in enumerate(groups):
        for owner, some in enumerate(group):
            for sample in some if only is None or owner in only else ():
                if sample.rival and sample.target and sample.rival != sample.target:
                    own[owner].append(len(kinds))
                    kinds.append(kind)
                    samples += [sample, _with(sample, sample.rival)]
    return Pairs(samples, kinds, own)


class Preferences:
    """Counts how often, and by how much, the right answer is likelier than its rival.

    Args:
        base: the task model.
        task: the task; ends of answers are left out.
        pairs: what is compared.
        opened: gives the bank of their samples, at the edited layer.
    """

    def __init__(self, base: TaskModel, task: WordTask, pairs: Pairs, opened: Opener) -> None:
        self._base, self._task = base, task.unended()
        self._kinds, self._own = torch.tensor(pairs.kinds, dtype=torch.long), pairs.own
        self._weights = torch.tensor(pairs.weights, dtype=torch.double)
        self._bank = opened(self._task, pairs.samples) if pairs.samples else None
        self._counts = _Counts()

    def count(self, members: Tensor, edits: Edits) -> None:
        """Count the pairs of failures (E, K), each under its edit (E,)."""
        if self._bank is None:
            return
        lists = [[p for i in own for p in self._own[i]] for own in members.tolist()]
        width = max(map(len, lists))
        if not width:
            return
        at_once = max(1, _ROWS // 2 // len(lists))
        for start in range(0, width, at_once):
            part = [own[start : start + at_once] for own in lists]
            size = max(map(len, part))
            real = torch.tensor([[i < len(own) for i in range(size)] for own in part])
            filled = torch.tensor([[*own, *[0] * (size - len(own))] for own in part])
            weights = self._weights[filled] * real
            self._counts.update(self._kinds[filled], weights, self._likelihoods(filled, edits))

    def _likelihoods(self, pairs: Tensor, edits: Edits | None) -> Tensor:
        """Probabilities (E, n, 2) of both answers of pairs (E, n)."""
        bank = self._bank
        assert bank is not None
        rows = torch.stack([2 * pairs, 2 * pairs + 1], -1)  # (E, n, 2)
        targets = bank.targets_of(rows)
        if edits is None:
            outputs = bank.outputs(rows)
        else:
            outputs = run_edits(self._base, bank.entry, bank.rows(rows.flatten()), edits)
            outputs = outputs.view(*rows.shape, *outputs.shape[2:])
        logits = self._task.logits(self._base, outputs, targets)
        return (-self._task.losses(self._base, logits, targets)).exp().cpu()

    def metrics(self) -> dict[str, float]:
        """Shares, mean leads, ``score``, the harmonic mean of all three; {} without rivals."""
        return self._counts.metrics()

    def unedited(self) -> dict[str, float]:
        """The same of the model as it is."""
        counts = _Counts()
        for some in torch.split(torch.arange(len(self._kinds)), _ROWS // 2):
            if len(some):
                counts.update(self._kinds[some], self._weights[some], self._likelihoods(some, None))
        return counts.metrics()


class _Counts:
    """Shares and leads by kind."""

    def __init__(self) -> None:
        self._share = {kind: Mean() for kind in KINDS}
        self._lead = {kind: Mean() for kind in KINDS}

    def update(self, kinds: Tensor, weights: Tensor, likely: Tensor) -> None:
        """Count pairs (...) of kinds, each by its weight, 0 for a filler: probabilities (..., 2).

        Of a pair that gives no numbers nothing is preferred, and it has no lead.
        """
        lead = (likely[..., 0] - likely[..., 1]).double()
        for number, kind in enumerate(KINDS):
            weight = weights.double() * (kinds == number)
            self._share[kind].update((lead > 0).double(), weight)
            self._lead[kind].update(lead, weight * lead.isfinite())

    def metrics(self) -> dict[str, float]:
        share = {k: float(m.compute()) for k, m in self._share.items() if m.count()}
        lead = {f"{k}_lead": float(m.compute()) for k, m in self._lead.items() if m.count()}
        # S is of all three kinds: of fewer it would be another number by the same name.
        whole = {"score": _harmonic([*share.values()])} if len(share) == len(KINDS) else {}
        return share | lead | whole


def _with(sample: Sample, target: str) -> Sample:
    return Sample(f"{sample.id}|", sample.inputs, target, sample.kind, (), sample.subject)


def _harmonic(shares: Sequence[float]) -> float:
    """Harmonic mean; 0 where one of them is."""
    return len(shares) / sum(1 / share for share in shares) if all(shares) else 0.0
