"""What would mend a failure: the change of a site's output at one position, found by gradient.

Source: Meng et al., NeurIPS 2022 (ROME), section 3.1, step 2, equation 4, and its code. All facts
are optimised beside each other, on hidden states that the frozen part of the model gave once; a
fact whose loss is low enough is done and its rows are left out.
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
from saledit.suffix import run
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
    base: TaskModel, task: Task, site: Site, prompts: Prompts, essence: Prompts | None,
    outputs: Tensor, facts: Tensor, spec: FactSpec,
) -> Tensor:  # fmt: skip
    """What to add (n, D_out) to the outputs of some facts, all optimised at once.

    Each fact has its own loss, its own moments of Adam and its own end, so it comes out the same
    whatever stands beside it.

    Args:
        base: the task model, with whatever edits are applied to it.
        task: scores.
        site: whose output is changed.
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
    before = None if essence is None else _told(base, task, essence)
    for _ in range(spec.steps):
        active, asked = facts[going.cpu()], going
        with torch.enable_grad():
            leaf = delta[asked].requires_grad_()
            losses = _losses(base, task, site, prompts, leaf, active)
            if essence is not None and before is not None:
                losses = losses + spec.kl * _drift(base, task, site, essence, before, leaf, active)
            norm = (leaf.square().sum(1) + 1e-24).sqrt()
            losses = losses + spec.decay * norm / size[asked].squeeze(1) ** 2
            (slope,) = torch.autograd.grad(losses.sum(), leaf)
        going = asked.clone()
        going[asked] = losses.detach() >= spec.enough
        if not going.any():
            break
        adam.step([delta], [torch.zeros_like(delta).index_put_((asked,), slope)], going)
        shrink = spec.clamp * size / delta.norm(dim=1, keepdim=True).clamp_min(1e-12)
        delta.mul_(shrink.clamp(max=1.0))
    return delta


def _losses(
    base: TaskModel, task: Task, site: Site, prompts: Prompts, leaf: Tensor, active: Tensor
) -> Tensor:
    """Mean loss (a,) of the right answers over the variants of some facts."""
    chosen, number = _rows_of(prompts, active)
    part, targets = prompts.bank.rows(chosen), prompts.bank.targets_of(chosen)
    module = base.model.get_submodule(site.name)
    with touched(module, prompts.places[chosen], lambda _x, _y: leaf[number], part.at):
        outputs = run(base, prompts.bank.entry, part.states, part.inputs, part.at)
    found = task.losses(base, task.logits(base, outputs, targets), targets).to(leaf.dtype)
    count = torch.bincount(number, minlength=len(active)).to(found)
    return leaf.new_zeros(len(active)).index_add(0, number, found) / count


def _first_scored(targets: Tensor) -> Tensor:
    """Targets of which only the first position is scored."""
    if targets.dim() == 1:
        return targets
    return torch.cat([targets[:, :1], torch.full_like(targets[:, 1:], IGNORED)], 1)


@torch.no_grad()
def _told(base: TaskModel, task: Task, essence: Prompts) -> Tensor:
    """Logits behind the essence prompts, before any change."""
    index = torch.arange(len(essence.places))
    targets = _first_scored(essence.bank.targets_of(index))
    return task.logits(base, essence.bank.outputs(index), targets)


def _drift(
    base: TaskModel, task: Task, site: Site, essence: Prompts, before: Tensor, leaf: Tensor,
    active: Tensor,
) -> Tensor:  # fmt: skip
    """KL (a,) of what follows the essence prompts of some facts."""
    chosen, number = _rows_of(essence, active)
    if not len(chosen):
        return leaf.new_zeros(len(active))
    part, targets = essence.bank.rows(chosen), essence.bank.targets_of(chosen)
    targets = _first_scored(targets)
    module = base.model.get_submodule(site.name)
    with touched(module, essence.places[chosen], lambda _x, _y: leaf[number], part.at):
        outputs = run(base, essence.bank.entry, part.states, part.inputs, part.at)
    found = task.divergence(before[chosen], task.logits(base, outputs, targets), targets)
    return leaf.new_zeros(len(active)).index_add(0, number, found.to(leaf.dtype))


def _rows_of(read: Prompts, active: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of some facts, and for each row the fact's position among them."""
    table = torch.full((int(max(read.of.max(), active.max())) + 1,), -1)
    table[active] = torch.arange(len(active))
    number = table[read.of]
    rows = (number >= 0).nonzero().squeeze(1)
    return rows, number[rows]
