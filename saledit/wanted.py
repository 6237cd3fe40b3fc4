"""What would mend a failure: the change of a site's output at one position, found by gradient.

Source: Meng et al., NeurIPS 2022 (ROME), section 3.1, step 2, equation 4, and its code. All facts
are optimised beside each other, on hidden states that the frozen part of the model gave once, and
of each row only what stands from that position on is run again (``saledit.tails``); a fact whose
loss is low enough is done and its rows are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saledit.bank import IGNORED, Bank
from saledit.editors.descent import Adam
from saledit.editors.locating import FactSpec
from saledit.models import TaskModel
from saledit.places import touched
from saledit.site import Site
from saledit.suffix import entry_for
from saledit.tails import Tails, tails_of
from saledit.tasks.base import Task

_LOGITS = 50_000_000  # numbers that the rows of one step may give


@dataclass(frozen=True, slots=True)
class Prompts:
    """Rows of a bank with the positions that are looked at.

    Attributes:
        bank: R cached samples.
        places: positions (R,) in them.
        of: (R,) which fact each row is of.
    """

    bank: Bank
    places: Tensor
    of: Tensor


def facts_at_once(base: TaskModel, read: Prompts, n: int) -> int:
    """How many of n facts can be optimised beside each other, so that their logits fit."""
    width = 1 if read.bank.answer_lengths is None else int(read.bank.answer_lengths.max())
    a_fact = len(read.places) // n * width * base.vocabulary
    return max(1, _LOGITS // a_fact)


def wanted_change(
    base: TaskModel, task: Task, site: Site, block: int, prompts: Prompts, essence: Prompts | None,
    outputs: Tensor, facts: Tensor, spec: FactSpec,
) -> Tensor:  # fmt: skip
    """What to add (n, D_out) to the outputs of some facts, all optimised at once.

    Each fact has its own loss, its own moments of Adam and its own end, so it comes out the same
    whatever stands beside it.

    Args:
        base: the task model, with whatever edits are applied to it.
        task: scores.
        site: whose output is changed.
        block: index of its block.
        prompts: rows in which the right answers are to become likely.
        essence: rows in which what is said first is to stay; None for none.
        outputs: the site's outputs (n, D_out) at the bare prompts.
        facts: which facts (n,).
        spec: how they are found.
    """
    size = outputs.norm(dim=1, keepdim=True)  # (n, 1)
    delta = torch.zeros_like(outputs)
    adam = Adam([delta], spec.rate)
    going = torch.ones(len(facts), dtype=torch.bool, device=delta.device)
    asked = _Asked(base, site, block, prompts, facts)
    about = None if essence is None else _Asked(base, site, block, essence, facts, first_only=True)
    before = None if about is None else about.told(task)
    for _ in range(spec.steps):
        active = going
        with torch.enable_grad():
            leaf = delta[active].requires_grad_()
            losses = asked.losses(task, leaf, active)
            if about is not None and before is not None:
                losses = losses + spec.kl * about.drift(task, before, leaf, active)
            norm = (leaf.square().sum(1) + 1e-24).sqrt()
            losses = losses + spec.decay * norm / size[active].squeeze(1) ** 2
            (slope,) = torch.autograd.grad(losses.sum(), leaf)
        going = active.clone()
        going[active] = losses.detach() >= spec.enough
        going = base.weights.agreed(going)
        if not going.any():
            break
        adam.step([delta], [torch.zeros_like(delta).index_put_((active,), slope)], going)
        shrink = spec.clamp * size / delta.norm(dim=1, keepdim=True).clamp_min(1e-12)
        delta.mul_(shrink.clamp(max=1.0))
    return delta


class _Asked:
    """The rows of some facts, run again and again with another change of each fact.

    Args:
        base: the task model.
        site: whose output is changed.
        block: index of its block.
        prompts: rows of all facts.
        facts: which facts (n,).
        first_only: whether of each answer the first token alone is scored.
    """

    def __init__(
        self, base: TaskModel, site: Site, block: int, prompts: Prompts, facts: Tensor,
        first_only: bool = False,
    ) -> None:  # fmt: skip
        self._base, self._bank = base, prompts.bank
        self._module = base.model.get_submodule(site.name)
        place = torch.full((1 + int(max(prompts.of.max(), facts.max())),), -1)
        place[facts] = torch.arange(len(facts))
        of = place[prompts.of]
        self._index = (of >= 0).nonzero().squeeze(1)  # rows of the bank
        self._of = of[self._index]  # position of each row's fact among the facts
        self._tails: Tails | None = None
        if len(self._index):
            rows, places = prompts.bank.rows(self._index), prompts.places[self._index]
            higher = entry_for(base, block, (site.name,))
            self._tails = tails_of(base, prompts.bank.entry, higher, rows, places)
        self._first_only = first_only

    def losses(self, task: Task, leaf: Tensor, active: Tensor) -> Tensor:
        """Mean loss (a,) of the right answers over the rows of each active fact (n,)."""
        outputs, chosen, number = self._run(leaf, active)
        targets = self._targets(chosen)
        found = task.losses(self._base, task.logits(self._base, outputs, targets), targets)
        count = torch.bincount(number, minlength=len(leaf)).to(leaf)
        return leaf.new_zeros(len(leaf)).index_add(0, number, found.to(leaf)) / count

    def drift(self, task: Task, before: Tensor, leaf: Tensor, active: Tensor) -> Tensor:
        """KL (a,) of what the rows of each active fact say; 0 where it has none."""
        if not bool(active.cpu()[self._of].any()):
            return leaf.new_zeros(len(leaf))
        outputs, chosen, number = self._run(leaf, active)
        targets = self._targets(chosen)
        after = task.logits(self._base, outputs, targets)
        found = task.divergence(before[chosen], after, targets)
        return leaf.new_zeros(len(leaf)).index_add(0, number, found.to(leaf))

    @torch.no_grad()
    def told(self, task: Task) -> Tensor:
        """Logits of the rows, before any change."""
        every = torch.arange(len(self._index))
        return task.logits(self._base, self._bank.outputs(self._index), self._targets(every))

    def _run(self, leaf: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs, which rows they are of, and the position of each one's fact in the leaf."""
        assert self._tails is not None
        active = active.cpu()
        chosen = active[self._of].nonzero().squeeze(1)
        number = (active.cumsum(0) - 1)[self._of[chosen]].to(leaf.device)
        tails = self._tails.pick(chosen)
        with touched(self._module, tails.places, lambda _x, _y: leaf[number], tails.rows.at):
            return tails.outputs(self._base), chosen, number

    def _targets(self, chosen: Tensor) -> Tensor:
        targets = self._bank.targets_of(self._index[chosen])
        return _first_scored(targets) if self._first_only else targets


def _first_scored(targets: Tensor) -> Tensor:
    """Targets of which only the first position is scored."""
    if targets.dim() == 1:
        return targets
    return torch.cat([targets[:, :1], torch.full_like(targets[:, 1:], IGNORED)], 1)
