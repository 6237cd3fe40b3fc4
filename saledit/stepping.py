"""How far an edit goes: the shortest of a few steps that mends the edit's own failures.

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


@dataclass(frozen=True, slots=True)
class StepSearch:
    """What lengths are tried, and what is enough.

    Attributes:
        factors: lengths in units of the editor's own step, from short to long; (1.0,) tries none.
        enough: mean loss of an edit's failures, in nats an answer, at which they count as mended.
    """

    factors: tuple[float, ...] = (1.0,)
    enough: float = 0.3

    @property
    def is_off(self) -> bool:
        """Whether there is nothing to choose from but the editor's own step."""
        return self.factors == (1.0,)

    @torch.no_grad()
    def __call__(self, edits: Edits, losses: PerEdit) -> Edits:
        """Choose each edit's length.

        Args:
            edits: batch shape (E,).
            losses: mean loss of each edit's own failures.

        Returns:
            The edits (E,), each times the first factor that mends its failures, or where none
            does, times the one that leaves them the least loss.

        Example:
            >>> from saledit.delta import LowRank
            >>> from saledit.site import Site
            >>> edits = Edits({Site("0", 1, 1): LowRank(torch.ones(2, 1, 1), torch.ones(2, 1, 1))})
            >>> search = StepSearch((1.0, 1.5, 2.0), enough=0.3)
            >>> longer = search(edits, lambda tried: torch.tensor([1.2, 2.2]) - tried.norm())
            >>> longer.norm()  # the first edit mends its failures, the second comes near it
            tensor([1., 2.])
        """
        if self.is_off:
            return edits
        tried = torch.stack([losses(edits * factor) for factor in self.factors])  # (F, E)
        tried = tried.masked_fill(tried.isnan(), torch.inf)
        mended = tried <= self.enough
        chosen = torch.where(mended.any(0), mended.int().argmax(0), tried.argmin(0))
        return edits * tried.new_tensor(self.factors)[chosen]
