"""What is right under free greedy generation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from saledit.data.episodes import EditBatch
from saledit.data.part_banks import PartBanks
from saledit.data.splits import Part
from saledit.delta import Edits
from saledit.judging.banked import bank_heard
from saledit.judging.counts import EditMetrics
from saledit.judging.judged import Judged
from saledit.metrics import Accuracy, Mean
from saledit.models import TaskModel
from saledit.records import Answer, Sample
from saledit.run.measures.said import ADAPT, FAIL, PASS, Seen
from saledit.tasks.base import WordTask
from saledit.tasks.decoding import generate


def said_freely(
    base: TaskModel, task: WordTask, samples: Sequence[Sample], index: Tensor, is_open: Tensor,
    edits: Edits,
) -> dict[tuple[int, int], Answer]:  # fmt: skip
    """Generate what a draft leaves open.

    Args:
        base: the task model.
        task: says what is right.
        samples: those of a part.
        index: positions in it (E, n).
        is_open: which of them are asked, bool (E, n).
        edits: of each row (E,).

    Returns:
        Their answers, by place.
    """
    places = is_open.nonzero()
    if not len(places):
        return {}
    asked = [samples[int(index[e, i])] for e, i in places.tolist()]
    found = generate(base, task, asked, edits, places[:, 0])
    return {(e, i): answer for (e, i), answer in zip(places.tolist(), found, strict=True)}


class Spoken:
    """Counts what is right under free greedy generation.

    A known answer needs no generation: greedy decoding gives it if and only if its words are the
    likeliest one after another (``WordTask.spoken``). So what an edit leaves as it was, and
    what it mends to the letter, is known already; only the other samples are generated.

    Args:
        base: the task model.
        task: says what is right.
        part: the samples.
        banks: their caches.
        samples: those of each part, by its name.
        before: what the rewordings are answered without any edit.
    """

    def __init__(
        self, base: TaskModel, task: WordTask, part: Part, banks: PartBanks,
        samples: Mapping[str, Sequence[Sample]], before: Sequence[Answer] = (),
    ) -> None:  # fmt: skip
        self._base, self._task, self._part, self._banks = base, task, part, banks
        self._metrics, self._before = EditMetrics(), before
        self._f1 = {name: Mean() for name in (FAIL, ADAPT, PASS)}
        self._samples = samples
        self._generated = Accuracy()  # of all that is asked

    def count_batch(self, batch: EditBatch, seen: Judged, edits: Edits) -> list[Seen]:
        """Count a batch.

        Returns:
            What failures (E, K), rewordings (E, K m) and, but of texts, pass samples (E, n) are
            answered.
        """
        k = batch.n_fail
        fail, adapt, passing = batch.members
        draft, weights = seen.edit.spoken, batch.weights
        found = [
            self._judged(FAIL, fail, draft[:, :k], weights[:, :k], edits),
            self._judged(ADAPT, adapt, draft[:, k:], weights[:, k:], edits),
        ]
        self._metrics.count_edits(found[0].right, found[1].right, weights)
        if not self._task.by_perplexity:
            kept = seen.passing.spoken
            found.append(self._judged(PASS, passing, kept, torch.ones_like(kept).double(), edits))
            self._count_kept(found[2].right)
        return found

    def count_final(self, edits: Edits) -> list[Seen]:
        """Count one edit of everything; returns as ``count_batch``, with E = 1."""
        banks, batched = self._banks, edits.expand(1)  # (E=1,)
        groups = {FAIL: banks.fail, ADAPT: banks.adapt}
        if not self._task.by_perplexity:
            groups[PASS] = banks.passing
        found = []
        for name, bank in groups.items():
            draft = torch.zeros(1, 0, dtype=torch.bool)
            if bank is not None:
                draft = bank_heard(self._base, self._task, bank, edits).spoken
            draft = draft[:, : len(self._samples[name])]
            index = torch.arange(draft.shape[1])[None]
            found.append(self._judged(name, index, draft, torch.ones(index.shape), batched))
        fail, adapt = found[0].right, found[1].right
        self._metrics.count_edits(fail, adapt, torch.ones(1, fail.shape[1] + adapt.shape[1]))
        if not self._task.by_perplexity:
            self._count_kept(found[2].right)
        return found

    def _judged(
        self, part: str, index: Tensor, draft: Tensor, weights: Tensor, edits: Edits
    ) -> Seen:
        """Samples at positions (E, n), each under its row's edit."""
        draft = self._base.weights.broadcast(draft)
        is_open = (~draft) & (weights > 0)
        right, f1 = draft.clone(), draft.double()
        words: dict[tuple[int, int], str] = {}
        self._generated.update(is_open, (weights > 0).double())
        found = said_freely(self._base, self._task, self._samples[part], index, is_open, edits)
        for place, answer in found.items():
            right[place], f1[place], words[place] = answer.right, answer.f1, answer.text
        self._f1[part].update(f1, weights)
        return Seen(part, index, right, words, weights)

    def _count_kept(self, kept: Tensor) -> None:
        # Pass samples are what the base answers right in its own words.
        self._metrics.count_passes(torch.ones_like(kept), kept)

    def metrics(self) -> dict[str, float]:
        """The shares, mean F1, and which share of the answers had to be generated."""
        found = self._metrics.compute()
        if self._task.by_perplexity:
            del found["drawdown"]
        f1 = {f"{n}_f1": float(m.compute()) for n, m in self._f1.items() if m.count()}
        return found | f1 | {"share_generated": float(self._generated.compute())}

    def unedited(self) -> dict[str, float]:
        """The same without edits: failures are wrong by choice, rewordings need not be."""
        out = {"fail_accuracy": 0.0}
        if self._before:
            right = sum(answer.right for answer in self._before)
            out["adapt_accuracy"] = right / len(self._before)
            out["edit_accuracy"] = right / (len(self._before) + len(self._part.fail))
        return out
