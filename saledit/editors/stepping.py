"""How far a step of an edit goes: the shortest of a few steps that mends the edit's own failures.

An editor makes steps of about the length that is best on average. Some failures need more than
that; a longer step for all would disturb what needs none. What an edit is made for is at hand when
it is made, so a few lengths are tried on it, without gradients: Armijo's backtracking line search,
forward.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from saledit.delta import Edits

#: A number for each edit (E,), given edits (E,); differentiable in them.
PerEdit = Callable[[Edits], Tensor]


_HALVINGS = 5  # of a length that costs too much, before the edit is given up


def as_it_is(value: Tensor) -> Tensor:
    """The value: what one process goes by is its own."""
    return value


@dataclass(frozen=True, slots=True)
class StepSearch:
    """What lengths are tried, what is enough, and what is too much.

    Attributes:
        factors: lengths in units of the editor's own step, from short to long; (1.0,) tries none.
        enough: mean loss of an edit's failures, in nats an answer, at which they count as mended.
        bound: KL on held pass samples that an edit may cost, in nats; 0 for no bound.
        looks: steps that an edit has at most, each from the model as those before have left it
            (``saledit.editors.looks``); this search is made in each.
    """

    factors: tuple[float, ...] = (1.0,)
    enough: float = 0.3
    bound: float = 0.0
    looks: int = 1

    @property
    def is_off(self) -> bool:
        """Whether no length is to be chosen: the editor's own it is."""
        return self.factors == (1.0,) and not self.needs_held

    @property
    def needs_held(self) -> bool:
        """Whether it has to be known what edits do to pass samples."""
        return self.bound > 0

    @torch.no_grad()
    def __call__(
        self, edits: Edits, losses: PerEdit, damage: PerEdit | None = None,
        broadcast: Callable[[Tensor], Tensor] = as_it_is,
    ) -> Edits:  # fmt: skip
        """Choose each edit's length.

        Args:
            edits: batch shape (E,).
            losses: mean loss of each edit's own failures.
            damage: KL on held pass samples, for the bound.
            broadcast: gives what the first process has, of what decides how often the model is run.

        Returns:
            The edits (E,), each times the first factor that mends its failures, or where none
            does, times the one that leaves them the least loss. With a bound, lengths that cost
            more are halved until they do not; what costs more at a thirty-second is not made.

        Example:
            >>> from saledit.delta import LowRank
            >>> from saledit.site import Site
            >>> edits = Edits({Site("0", 1, 1): LowRank(torch.ones(2, 1, 1), torch.ones(2, 1, 1))})
            >>> search = StepSearch((1.0, 1.5, 2.0), enough=0.3)
            >>> longer = search(edits, lambda tried: torch.tensor([1.2, 2.2]) - tried.norm())
            >>> longer.norm()  # the first edit mends its failures, the second comes near it
            tensor([1., 2.])
        """
        return self.searched(edits, losses, damage, broadcast)[0]

    @torch.no_grad()
    def searched(
        self, edits: Edits, losses: PerEdit, damage: PerEdit | None = None,
        broadcast: Callable[[Tensor], Tensor] = as_it_is,
    ) -> tuple[Edits, Tensor | None]:  # fmt: skip
        """As a call, with the losses (E,) that the edits leave, where the search has seen them."""
        if self.is_off:
            return edits, None
        left = None
        if len(self.factors) == 1:
            length = edits.tensors()[0].new_full((edits.batch_shape.numel(),), self.factors[0])
        else:
            tried = self._tried(edits, losses, broadcast)
            mended = tried <= self.enough
            chosen = torch.where(mended.any(0), mended.int().argmax(0), tried.argmin(0))
            length = tried.new_tensor(self.factors)[chosen]
            left = tried.gather(0, chosen[None])[0]
        if self.needs_held:
            assert damage is not None
            wanted, length = length, self._within(edits, length, damage, broadcast)
            if not torch.equal(wanted, length):
                left = None
            dropped = length == 0
            if bool(dropped.any()):  # what is no number is none at a length of zero either
                edits = edits.without(dropped)
        return edits * length, left

    def _tried(
        self, edits: Edits, losses: PerEdit, broadcast: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Losses (F', E) at the first lengths, up to the one by which all edits have mended."""
        tried: list[Tensor] = []
        for factor in self.factors:
            found = losses(edits * factor)
            tried.append(found.masked_fill(found.isnan(), torch.inf))
            if bool(broadcast((torch.stack(tried) <= self.enough).any(0).all())):
                break
        return torch.stack(tried)

    def _within(
        self, edits: Edits, length: Tensor, damage: PerEdit,
        broadcast: Callable[[Tensor], Tensor],
    ) -> Tensor:  # fmt: skip
        """Lengths (E,) that cost no more than the bound."""
        for _ in range(_HALVINGS + 1):
            # A KL that is no number is too much.
            over = broadcast(~(damage(edits * length) <= self.bound))
            if not bool(over.any()):
                return length
            length = torch.where(over.to(length.device), length / 2, length)
        return torch.where(over.to(length.device), 0.0, length)
