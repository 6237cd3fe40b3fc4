"""What would mend a failure: the change of a site's output at one position, found by gradient.

Source: Meng et al., NeurIPS 2022 (ROME), section 3.1, step 2, equation 4; how large a change may be
is as in its code. (That code holds on to what the model says right behind the subject; here, as in
the paper, it is what is said behind "SUBJECT is a".) All facts are optimised beside each other, on
hidden states that the frozen part of the model gave once, and of each row only what stands from
that position on is run again (``saledit.forward.tails``); a fact whose loss is low enough is done
and its rows are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from saledit.cache.bank import Bank
from saledit.editors.descent import Adam
from saledit.editors.locating import FactSpec
from saledit.errors import JobError
from saledit.forward.places import touched
from saledit.forward.rows import Rows, join
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
    """Rows with the positions that are looked at: R that are asked, then those that are to stay.

    Attributes:
        bank: cached samples, the first R of which are asked.
        places: positions in all rows.
        of: which fact each of all is of.
        n_asked: R.
        stays: cached samples that say what is to stay, each first; None for none.
    """

    bank: Bank
    places: Tensor
    of: Tensor
    n_asked: int
    stays: Bank | None = None

    def first(self, n: int) -> Prompts:
        """The first n rows alone, of those that are asked."""
        return Prompts(self.bank, self.places[:n], self.of[:n], n)

    def rows(self, index: Tensor) -> Rows:
        """Gather rows (B,), in ascending order."""
        asked, others = self.split(index)
        rows = self.bank.rows(asked)
        if self.stays is None or not len(others):
            return rows
        parts = [rows, self.stays.rows(others)]
        width = self._width(asked, others)
        # Beyond a row's end its last entry is repeated, as in a bank.
        parts = [
            replace(part, at=part.at[:, torch.arange(width).clamp_max(part.at.shape[1] - 1)])
            for part in parts
            if part.at is not None
        ]
        return join(parts, 1, [len(asked), len(others)])

    def targets(self, index: Tensor) -> Tensor:
        """Targets of rows (B,), in ascending order; of those that are to stay only the first."""
        asked, others = self.split(index)
        targets = self.bank.targets_of(asked)
        if self.stays is None or not len(others):
            return targets
        own = self.stays.targets_of(others)
        # A decoder that is told how to begin is asked for nothing there.
        own = own.masked_fill((own != IGNORED).cumsum(1) > 1, IGNORED)
        width = self._width(asked, others)
        return torch.cat([pad(t, (0, width - t.shape[1]), value=IGNORED) for t in (targets, own)])

    def split(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Positions among those that are asked, and among those that are to stay."""
        n = int((index < self.n_asked).sum())
        return index[:n], index[n:] - self.n_asked

    def _width(self, asked: Tensor, others: Tensor) -> int:
        assert self.stays is not None
        return max(self.bank.width(asked), self.stays.width(others))


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
        self._base, self._task, self._prompts = base, task, prompts
        self._module = base.model.get_submodule(site.name)
        place = torch.full((1 + int(max(prompts.of.max(), facts.max())),), -1)
        place[facts] = torch.arange(len(facts))
        of = place[prompts.of]
        index = (of >= 0).nonzero().squeeze(1)  # of the prompts' rows
        self._of = of[index]  # position of each row's fact among the facts
        asked, self._others = prompts.split(index)
        self._n_asked = len(asked)
        self._targets = prompts.targets(index)
        rows, places = prompts.rows(index), prompts.places[index]
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
        targets = self._targets[chosen.to(self._targets.device)]
        logits = task.logits(base, outputs, targets)
        # Those that are to stay come last.
        n = int((chosen < self._n_asked).sum())
        cut = n if targets.dim() == 1 else int((targets[:n] != IGNORED).sum())
        found = task.losses(base, logits[:cut], targets[:n]).to(leaf)
        count = torch.bincount(number[:n], minlength=len(leaf)).to(leaf)
        total = leaf.new_zeros(len(leaf)).index_add(0, number[:n], found) / count
        if n == len(chosen):
            return total
        drift = reverse_kl(self._before[chosen[n:] - self._n_asked], logits[cut:])
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
        stays = self._prompts.stays
        if stays is None or not len(self._others):
            return torch.empty(0)
        outputs = stays.outputs(self._others)
        targets = self._targets[self._n_asked :, : outputs.shape[1]]
        return self._task.logits(self._base, outputs, targets).float()
