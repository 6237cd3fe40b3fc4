"""Failures as facts: the key that stands for each at a site, and the output that would mend it.

The key is the site's input at one position, the last token of the subject (or of the prompt). The
wanted output is found by gradient: what has to be added to the site's output there for the right
answer to become likely (Meng et al., NeurIPS 2022, section 3.1, step 2). All facts are optimised
beside each other, on hidden states that the frozen part of the model gave once; a fact whose loss
is low enough is done and its rows are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from saledit.bank import IGNORED, Bank, BankSpec
from saledit.cache import memory_bank
from saledit.editors.locating import Facts, FactSpec
from saledit.models import CAUSAL, CLASSIFIER, SEQ2SEQ, TaskModel
from saledit.places import touched
from saledit.records import Sample
from saledit.site import Layer, Site
from saledit.suffix import run
from saledit.tasks.base import Task

_LOGITS = 50_000_000  # numbers that the rows of one step may give
_ROWS = 512
_BETAS, _EPS = (0.9, 0.999), 1e-8  # Adam's own


@dataclass(frozen=True, slots=True)
class _Read:
    """Rows of a bank with the positions that are looked at."""

    bank: Bank
    places: Tensor  # (R,)
    of: Tensor  # (R,) which fact

    def pick(self, rows: Tensor) -> _Read:
        return replace(self, places=self.places[rows], of=self.of[rows])


def find_facts(
    base: TaskModel, task: Task, block: int, site: Site, samples: Sequence[Sample],
    spec: FactSpec, contexts: Sequence[str] = (),
) -> Facts:  # fmt: skip
    """The facts of N failures.

    Args:
        base: the task model, with whatever edits are applied to it.
        task: encodes and scores.
        block: where suffix runs enter, the site's block or one below it.
        site: the linear map whose output is changed.
        samples: the failures, with their right answers.
        spec: how they are found.
        contexts: what is put before the prompts.

    Returns:
        Keys (N, D_in) and residuals (N, D_out).

    Raises:
        DataError: the subject of a failure cannot be found in its text.
    """
    layer = Layer(block, (site,))
    variants, of = _variants(samples, contexts)
    prompts = _read(base, task, layer, variants, of, spec.at)
    keys, outputs = _states(base, prompts, site)
    n = len(samples)
    bare = torch.arange(n)  # the bare prompts stand first
    count = torch.bincount(of, minlength=n).to(keys)[:, None]
    mean = keys.new_zeros(n, keys.shape[1]).index_add_(0, of.to(keys.device), keys) / count
    given = outputs.new_zeros(n, outputs.shape[1]).index_add_(0, of.to(outputs.device), outputs)
    essence = None
    about = [i for i, s in enumerate(samples) if s.subject]
    if spec.kl > 0 and about and task.generates and spec.at == "subject":
        essence = _essence(base, task, layer, samples, about)
    delta = torch.zeros_like(outputs[bare])
    for some in torch.split(bare, _facts_at_once(base, prompts, n)):
        delta[some] = _optimised(base, task, site, prompts, essence, outputs[some], some, spec)
    wanted = outputs[bare] + delta
    return Facts(mean, wanted - given / count, keys[bare], delta)


def _variants(samples: Sequence[Sample], contexts: Sequence[str]) -> tuple[list[Sample], Tensor]:
    """The bare samples, then each behind each context; and which sample each is of."""
    n = len(samples)
    out = list(samples)
    for i, context in enumerate(contexts):
        for sample in samples:
            first = f"{context} {sample.inputs[0]}"
            out.append(replace(sample, id=f"{sample.id}<{i}", inputs=(first, *sample.inputs[1:])))
    return out, torch.arange(n).repeat(1 + len(contexts))


def _read(
    base: TaskModel, task: Task, layer: Layer, samples: Sequence[Sample], of: Tensor, at: str
) -> _Read:
    bank = memory_bank(base, task, samples, BankSpec(layer))
    if at == "subject":
        places = torch.tensor(task.subject_places(base, samples))
    else:
        places = last_places(base, bank)
    return _Read(bank, places.to(base.device), of)


def last_places(base: TaskModel, bank: Bank) -> Tensor:
    """The last token of each prompt, of a classifier the one that its head reads."""
    index = torch.arange(len(bank))
    if base.kind == CAUSAL or (base.kind == SEQ2SEQ and not base.in_encoder):
        at = bank.rows(index).at
        assert at is not None
        return at[:, 0]
    if base.kind == CLASSIFIER and not base.family.generates:
        return torch.zeros(len(bank), dtype=torch.long)
    return bank.lengths - 1


def _essence(
    base: TaskModel, task: Task, layer: Layer, samples: Sequence[Sample], about: Sequence[int]
) -> _Read:
    """What the model says of the subject at large, behind "SUBJECT is a": it is to stay."""
    asked = [
        replace(samples[i], id=f"{samples[i].id}<is", inputs=(f"{samples[i].subject} is a",))
        for i in about
    ]
    return _read(base, task, layer, asked, torch.tensor(about), "subject")


@torch.no_grad()
def _states(base: TaskModel, read: _Read, site: Site) -> tuple[Tensor, Tensor]:
    """What the site is given (R, D_in) and gives (R, D_out) at the positions."""
    module = base.model.get_submodule(site.name)
    keys, outputs = [], []

    def keep(x: Tensor, y: Tensor) -> None:
        keys.append(x.clone())
        outputs.append(y.clone())

    for rows in torch.split(torch.arange(len(read.places)), _ROWS):
        part = read.bank.rows(rows)
        with touched(module, read.places[rows], keep, part.at):
            run(base, read.bank.entry, part.states, part.inputs, part.at)
    # Of a model in half precision, too, facts are found in single precision.
    wide = torch.promote_types(keys[0].dtype, torch.float32)
    return torch.cat(keys).to(wide), torch.cat(outputs).to(wide)


def _facts_at_once(base: TaskModel, read: _Read, n: int) -> int:
    width = 1 if read.bank.answer_lengths is None else int(read.bank.answer_lengths.max())
    a_fact = len(read.places) // n * width * base.vocabulary
    return max(1, _LOGITS // a_fact)


def _optimised(
    base: TaskModel, task: Task, site: Site, prompts: _Read, essence: _Read | None,
    outputs: Tensor, facts: Tensor, spec: FactSpec,
) -> Tensor:  # fmt: skip
    """What to add (n, D_out) to the outputs (n, D_out) of some facts, all optimised at once.

    Each fact has its own loss, its own moments of Adam and its own end, so it comes out the same
    whatever stands beside it.
    """
    size = outputs.norm(dim=1, keepdim=True)  # (n, 1)
    delta = torch.zeros_like(outputs)
    first, second = torch.zeros_like(outputs), torch.zeros_like(outputs)
    open_ = torch.ones(len(facts), dtype=torch.bool)
    before = None if essence is None else _told(base, task, essence)
    for step in range(1, spec.steps + 1):
        active = facts[open_]
        with torch.enable_grad():
            leaf = delta[open_].clone().requires_grad_()
            losses = _losses(base, task, site, prompts, leaf, active)
            if essence is not None and before is not None:
                losses = losses + spec.kl * _drift(base, task, site, essence, before, leaf, active)
            norm = (leaf.square().sum(1) + 1e-24).sqrt()
            losses = losses + spec.decay * norm / size[open_].squeeze(1) ** 2
            (slope,) = torch.autograd.grad(losses.sum(), leaf)
        goes_on = losses.detach() >= spec.enough
        rows = open_.nonzero().squeeze(1)[goes_on.cpu()]
        if not len(rows):
            break
        slope = slope[goes_on]
        first[rows] = _BETAS[0] * first[rows] + (1 - _BETAS[0]) * slope
        second[rows] = _BETAS[1] * second[rows] + (1 - _BETAS[1]) * slope.square()
        m, v = first[rows] / (1 - _BETAS[0] ** step), second[rows] / (1 - _BETAS[1] ** step)
        moved = delta[rows] - spec.rate * m / (v.sqrt() + _EPS)
        limit = spec.clamp * size[rows]
        delta[rows] = moved * (limit / moved.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp(
            max=1.0
        )
        open_ = torch.zeros_like(open_).index_fill_(0, rows.cpu(), True)
    return delta


def _losses(
    base: TaskModel, task: Task, site: Site, prompts: _Read, leaf: Tensor, active: Tensor
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
def _told(base: TaskModel, task: Task, essence: _Read) -> Tensor:
    """Logits behind the essence prompts, before any change."""
    index = torch.arange(len(essence.places))
    targets = _first_scored(essence.bank.targets_of(index))
    return task.logits(base, essence.bank.outputs(index), targets)


def _drift(
    base: TaskModel, task: Task, site: Site, essence: _Read, before: Tensor, leaf: Tensor,
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


def _rows_of(read: _Read, active: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of some facts, and for each row the fact's position among them."""
    table = torch.full((int(max(read.of.max(), active.max())) + 1,), -1)
    table[active] = torch.arange(len(active))
    number = table[read.of]
    rows = (number >= 0).nonzero().squeeze(1)
    return rows, number[rows]
