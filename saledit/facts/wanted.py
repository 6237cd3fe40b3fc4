"""What would mend a failure: the change of a site's output at one position, found by gradient.

Source: Meng et al., NeurIPS 2022 (ROME), section 3.1, step 2, equation 4; how large a change may be
is as in its code. (That code holds on to what the model says right behind the subject; here, as in
the paper, it is what is said behind "SUBJECT is a".) All facts are optimised beside each other, on
hidden states that the frozen part of the model gave once, and of each row only what stands from
that position on is run again (``saledit.forward.tails``); a fact whose loss is low enough is done
and its rows are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saledit.cache.bank import Bank
from saledit.editors.descent import Adam
from saledit.editors.locating import FactSpec
from saledit.errors import JobError
from saledit.forward.places import touched
from saledit.forward.suffix import entry_for
from saledit.forward.tails import tails_of
from saledit.losses import reverse_kl
from saledit.models import TaskModel
from saledit.site import Site
from saledit.tasks.base import Task
from saledit.tasks.batching import tight_groups
from saledit.tasks.prompts import IGNORED

_LOGITS = 50_000_000  # numbers that the rows of one step may give
#: Padded tokens that a further run costs as much as: on a processor it reads all weights once more,
#: and on an accelerator its calls have to be queued.
_A_RUN, _A_LAUNCH = {"cpu": 64}, 1024


@dataclass(frozen=True, slots=True)
class Prompts:
    """Rows of a bank with the positions that are looked at.

    Attributes:
        bank: cached samples; the first R of them are asked, any others say what is to stay.
        places: positions in all of them.
        of: which fact each of all is of.
        n_asked: R.
    """

    bank: Bank
    places: Tensor
    of: Tensor
    n_asked: int

    @property
    def asked(self) -> Prompts:
        """The first R rows alone."""
        n = self.n_asked
        return Prompts(self.bank, self.places[:n], self.of[:n], n)


def facts_at_once(base: TaskModel, read: Prompts, n: int) -> int:
    """How many of n facts can be optimised beside each other, so that their logits fit."""
    width = 1 if read.bank.answer_lengths is None else int(read.bank.answer_lengths.max())
    a_fact = -(-len(read.places) // n) * width * base.vocabulary
    return max(1, _LOGITS // a_fact)


def wanted_change(
    base: TaskModel, task: Task, site: Site, block: int, prompts: Prompts, outputs: Tensor,
    measure: Tensor, facts: Tensor, spec: FactSpec, edited: bool = False,
) -> Tensor:  # fmt: skip
    """What to add (n, D_out) to the outputs of some facts, all optimised at once.

    Each fact has its own loss, its own moments of Adam and its own end, so it comes out the same
    whatever stands beside it.

    Args:
        base: the task model, with whatever edits are applied to it.
        task: scores.
        site: whose output is changed.
        block: index of its block.
        prompts: rows in which the right answers are to become likely, and behind them those in
            which what is said first is to stay.
        outputs: the site's outputs (n, D_out) at the bare prompts.
        measure: what a change's size is measured by (n,).
        facts: which facts (n,).
        spec: how they are found.
        edited: whether edits are applied to the model. Such a model may be broken, and to see that
            is what sequences are for; a bare one may not.

    Raises:
        JobError: the bare model's loss of a fact is not finite.
    """
    size = measure[:, None]
    delta = torch.zeros_like(outputs)
    adam = Adam([delta], spec.rate)
    going = torch.ones(len(facts), dtype=torch.bool, device=delta.device)
    rows = _Rows(base, task, site, block, prompts, facts)
    for step in range(spec.steps):
        active = going
        with torch.enable_grad():
            leaf = delta[active].requires_grad_()
            losses = rows.losses(leaf, active, spec.kl)
            norm = (leaf.square().sum(1) + 1e-24).sqrt()
            losses = losses + spec.decay * norm / size[active].squeeze(1) ** 2
            (slope,) = torch.autograd.grad(losses.sum(), leaf)
        # One that is not finite is as good as done: its last change stays.
        lost = base.weights.broadcast(not bool(losses.isfinite().all()))
        if lost and step == 0 and not edited:
            raise JobError(
                "editor.locate: expected a finite loss of a fact's value, got one that is not; "
                "load the model in single precision (model.dtype)"
            )
        going = active.clone()
        going[active] = losses.detach() >= spec.enough
        going = base.weights.broadcast(going)
        if not going.any():
            break
        adam.step([delta], [torch.zeros_like(delta).index_put_((active,), slope)], going)
        shrink = spec.clamp * size / delta.norm(dim=1, keepdim=True).clamp_min(1e-12)
        delta.mul_(shrink.clamp(max=1.0))
    return delta


class _Rows:
    """The rows of some facts, run again and again with another change of each fact.

    Rows that are asked and rows that are to stay go in one run: beside few rows what takes the time
    is to read the weights.

    Args:
        base: the task model.
        task: scores.
        site: whose output is changed.
        block: index of its block.
        prompts: rows of all facts.
        facts: which facts (n,).
    """

    def __init__(
        self, base: TaskModel, task: Task, site: Site, block: int, prompts: Prompts, facts: Tensor
    ) -> None:
        self._base, self._task, self._bank = base, task, prompts.bank
        self._module = base.model.get_submodule(site.name)
        place = torch.full((1 + int(max(prompts.of.max(), facts.max())),), -1)
        place[facts] = torch.arange(len(facts))
        of = place[prompts.of]
        self._index = (of >= 0).nonzero().squeeze(1)  # rows of the bank
        self._of = of[self._index]  # position of each row's fact among the facts
        self._n_asked = prompts.n_asked
        self._first_kept = int((self._index < prompts.n_asked).sum())
        rows, places = prompts.bank.rows(self._index), prompts.places[self._index]
        higher = entry_for(base, block, (site.name,))
        self._tails = tails_of(base, prompts.bank.entry, higher, rows, places)
        self._before = self._told()

    def losses(self, leaf: Tensor, active: Tensor, kl: float) -> Tensor:
        """Mean loss (a,) of the right answers over the asked rows of each active fact (n,).

        Args:
            leaf: what is added (a, D_out) for each active fact.
            active: which facts.
            kl: weight of KL(changed || base) of what is said first in the rows that are to stay.
        """
        active = active.cpu()
        chosen = active[self._of].nonzero().squeeze(1)
        number = (active.cumsum(0) - 1)[self._of[chosen]].to(leaf.device)
        base, task = self._base, self._task
        outputs = self._outputs(chosen, leaf[number])
        targets = self._targets(chosen)
        logits = task.logits(base, outputs, targets)
        # Those that are to stay come last.
        n = int((self._index[chosen] < self._n_asked).sum())
        cut = n if targets.dim() == 1 else int((targets[:n] != IGNORED).sum())
        found = task.losses(base, logits[:cut], targets[:n]).to(leaf)
        count = torch.bincount(number[:n], minlength=len(leaf)).to(leaf)
        total = leaf.new_zeros(len(leaf)).index_add(0, number[:n], found) / count
        if n == len(chosen):
            return total
        drift = reverse_kl(self._before[chosen[n:] - self._first_kept], logits[cut:])
        return total.index_add(0, number[n:], kl * drift.to(leaf))

    def _outputs(self, chosen: Tensor, added: Tensor) -> Tensor:
        """What the head reads (R, ...) of rows with something added (R, D_out) to their place."""
        parts: list[Tensor] = []
        order: list[int] = []
        a_run = _A_RUN.get(added.device.type, _A_LAUNCH)
        for some in tight_groups(self._tails.lengths[chosen].tolist(), a_run):
            index = torch.tensor(some)
            parts.append(self._run(chosen[index], added[index.to(added.device)]))
            order += some
        return torch.cat(parts)[torch.tensor(order, device=parts[0].device).argsort()]

    def _run(self, rows: Tensor, added: Tensor) -> Tensor:
        tails = self._tails.pick(rows)
        with touched(self._module, tails.places, lambda _x, _y: added, tails.rows):
            return tails.outputs(self._base)

    @torch.no_grad()
    def _told(self) -> Tensor:
        """Logits (R, C) of what the rows that are to stay say first, before any change."""
        rows = torch.arange(self._first_kept, len(self._index))
        if not len(rows):
            return torch.empty(0)
        outputs = self._bank.outputs(self._index[rows])
        return self._task.logits(self._base, outputs, self._targets(rows)).float()

    def _targets(self, rows: Tensor) -> Tensor:
        """The rows' targets; of those that are to stay only the first that counts is scored."""
        index = self._index[rows]
        targets = self._bank.targets_of(index)
        stays = (index >= self._n_asked).to(targets.device)
        if targets.dim() == 1 or not bool(stays.any()):
            return targets
        # A decoder that is told how to begin is asked for nothing there.
        later = (targets != IGNORED).cumsum(1) > 1
        return targets.masked_fill(stays[:, None] & later, IGNORED)
