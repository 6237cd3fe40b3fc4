"""The course of a sequence of edits: what holds, what is forgotten, what else it costs.

Source: Gupta et al., Findings of ACL 2024 (arXiv 2401.07453): whether the current edits succeed,
what becomes of earlier ones, and what of everything else, after every so many edits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from saledit.data.part_banks import PartBanks
from saledit.data.splits import Part
from saledit.data.views import Flat
from saledit.delta import Edits
from saledit.judging.banked import bank_batches, bank_heard
from saledit.judging.judged import Heard
from saledit.metrics import Mean, numbers_of
from saledit.models import TaskModel
from saledit.run.measures.said import ADAPT, FAIL, PASS
from saledit.run.measures.spoken import said_freely
from saledit.run.measures.watching import Watched, perplexity
from saledit.site import Layer
from saledit.tasks.base import Task, in_words
from saledit.tasks.decoding import has_others

#: A model has collapsed where it answers less than half of what it did, or is ten times as
#: perplexed by text.
_LEAST, _MOST = 0.5, 10.0


class Course:
    """Looks at a model again and again as edits pile up.

    Right is, for text, what free generation gives: its target to the letter (``WordTask.spoken``),
    or another answer that is accepted. For that alone something is generated, so that a look does
    not cost a generation of all that is forgotten: where a record has one answer, another spelling
    of it, which a test counts at its end, does not count.

    Args:
        base: the task model.
        task: says what is right.
        part: the failures in the order in which they are edited, rewordings and pass samples.
        banks: their caches.
        layer: the edited layer.
        watched: what else is looked at.
    """

    def __init__(
        self, base: TaskModel, task: Task, part: Part, banks: PartBanks, layer: Layer,
        watched: Sequence[Watched] = (),
    ) -> None:  # fmt: skip
        self._base, self._task, self._banks = base, task, banks
        self._samples = {FAIL: part.fail, ADAPT: Flat(part.adapt), PASS: part.passing}
        counts = [len(group) for group in part.adapt]
        self._ends = torch.tensor([0, *counts]).cumsum(0).tolist()  # of rewordings, by failure
        self._watched = watched
        self._sizes = {
            site: float(_norm(base.weight(f"{site.name}.weight"))) for site in layer.sites
        }
        self.points: list[dict[str, Any]] = []

    def look(self, edits: Edits, done: int, since: int) -> None:
        """Note how things stand.

        Args:
            edits: all edits so far, unbatched.
            done: failures that have been edited.
            since: how many had been at the look before.
        """
        point: dict[str, Any] = {"n_failures": done}
        if done:
            point["current"] = self._share(FAIL, range(since, done), edits)
        if since:
            point["earlier"] = self._share(FAIL, range(since), edits)
        if self._ends[done]:
            point["adapt"] = self._share(ADAPT, range(self._ends[done]), edits)
        point |= self._others(edits)
        if len(edits) and not edits.are_routed:  # those are no matrices
            point["delta_norm"] = float(edits.norm())
            point["weight_norm"] = math.hypot(*(self._sizes[site] for site in edits))
        point["collapsed"] = self._has_collapsed(point)
        self.points.append(numbers_of(point))

    def _share(self, part: str, which: range, edits: Edits) -> float:
        """Share of some samples of a part that are right."""
        bank = self._banks.fail if part == FAIL else self._banks.adapt
        assert bank is not None
        index = torch.tensor(list(which))
        draft = bank_heard(self._base, self._task, bank, edits, index).spoken
        return self._right(part, index, draft[0], edits)

    def _right(self, part: str, index: Tensor, draft: Tensor, edits: Edits) -> float:
        """Share of samples at positions (n,) that are right.

        Args:
            part: whose positions.
            index: the positions.
            draft: whether their targets are spoken (n,).
            edits: all edits so far.
        """
        base, task, samples, right = self._base, self._task, self._samples[part], Mean()
        if in_words(task):
            draft = base.weights.broadcast(draft)
            others = [has_others(task, samples[i]) for i in index.tolist()]
            is_open = ~draft & torch.tensor(others)
            found = said_freely(base, task, samples, index[None], is_open[None], edits.expand(1))
            for (_, i), answer in found.items():
                draft[i] = answer.right
        right.update(draft.double())
        return float(right.compute())

    def _others(self, edits: Edits) -> dict[str, Any]:
        """Pass samples that are still right, their KL, and what else is watched."""
        base, task, bank = self._base, self._task, self._banks.passing
        kl, places, kept = Mean(), list[Tensor](), list[Tensor]()
        pairs = (bank_batches(base, task, bank, given) for given in (None, edits))
        for (index, before), (_, after) in zip(*pairs, strict=True):
            targets = bank.targets_of(index)
            kl.update(task.divergence(before, after, targets).double())
            if not task.by_perplexity:
                places.append(index.cpu())
                kept.append(Heard.of(base, task, after, targets).spoken.cpu())
        out: dict[str, Any] = {"locality_kl": float(kl.compute())}
        if not task.by_perplexity:
            out["pass_accuracy"] = self._right(PASS, torch.cat(places), torch.cat(kept), edits)
        else:
            out["perplexity"] = perplexity(base, task, bank, edits)
        for watched in self._watched:
            out |= watched.look(edits)
        return out

    def _has_collapsed(self, point: dict[str, Any]) -> bool:
        if not self.points:
            return False
        first, bad = self.points[0], not math.isfinite(point.get("locality_kl", 0.0))
        if "pass_accuracy" in point:
            bad |= not point["pass_accuracy"] >= _LEAST * first["pass_accuracy"]
        if "perplexity" in point:
            bad |= not point["perplexity"] <= _MOST * first["perplexity"]
        return bad

    def said(self) -> str:
        """The last look in a few words, for whoever waits; "" before the first edit."""
        point = self.points[-1] if self.points else {}
        shown = {"current": "current", "earlier": "earlier", "pass_accuracy": "still right"}
        words = [f"{word} {point[name]:.2f}" for name, word in shown.items() if name in point]
        if "perplexity" in point:
            words.append(f"perplexity {point['perplexity']:.4g}")
        if self.collapse is not None:
            words.append(f"collapsed after {self.collapse}")
        return ", ".join(words) if point.get("n_failures") else ""

    @property
    def is_lost(self) -> bool:
        """Whether the model gave no numbers at the last look: there is nothing left to edit."""
        return bool(self.points) and "locality_kl" not in self.points[-1]

    @property
    def collapse(self) -> int | None:
        """After how many failures the model was first found collapsed; None where it never was."""
        return next((int(p["n_failures"]) for p in self.points if p["collapsed"]), None)


def _norm(weight: object) -> Tensor:
    assert isinstance(weight, Tensor)
    norm: Tensor = weight.detach().float().norm()
    return norm
