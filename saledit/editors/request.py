"""What an editor may look at when it makes edits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from saledit.delta import Edits, LowRank
from saledit.editors.locating import FactSource, FactSpec
from saledit.editors.stepping import PerEdit, as_it_is
from saledit.site import Site


def _not_there(_edits: Edits) -> Tensor:
    raise AssertionError("this request holds gradients alone")


def _no_facts(_sites: tuple[Site, ...], _spec: FactSpec) -> FactSource:
    raise AssertionError("this request has no facts")


def _no_more(_sites: tuple[Site, ...], _edits: Edits, _index: Tensor) -> Request:
    raise AssertionError("this request cannot be looked at again")


def _no_text() -> tuple[Tensor, Tensor]:
    raise AssertionError("this request has no text")


@dataclass(frozen=True, slots=True)
class Request:
    """E edits that are asked for, of K failures each.

    Attributes:
        gradients: for each site the factors u (E, R, D_in), v (E, R, D_out) of the
            aggregated gradient of the failures' losses; terms of zeros are padding. There are none
            (R = 0) for an editor that does not look at them (``Editor.needs_gradients``).
        losses: mean loss of each edit's own failures, in nats an answer.
        damage: mean KL(base || edited) over the pass samples that lie beside the editor
            (``Editor.needs_held``), which are none of those that an edit is judged by.
        condition: what the failures are (``Editor.needs_text``): the model's embeddings of their
            tokens (E, K, T, D), and bool (E, K, T), which of them are real.
        facts: the failures as facts (E, K) at a site of each block, found as is asked for; the
            same question has the same answer and is worked out once.
        again: a request for some of the edits, places (E',), whose gradients are those of the model
            under given edits (E',) of the sites. Measures and conditions are as they are here (what
            the model said is what it said before any look); facts and memory are not of it.
        broadcast: gives what the first process has, of what decides how often the model is run.
        memory: what the editor wanted to be remembered of the step before (``Editor.remember``).
        owners: which of an edit's failures each term is of, (E, R); None where each is one's own.
    """

    gradients: Sequence[LowRank]
    losses: PerEdit = _not_there
    damage: PerEdit = _not_there
    condition: Callable[[], tuple[Tensor, Tensor]] = _no_text
    facts: Callable[[tuple[Site, ...], FactSpec], FactSource] = _no_facts
    again: Callable[[tuple[Site, ...], Edits, Tensor], Request] = _no_more
    broadcast: Callable[[Tensor], Tensor] = as_it_is
    memory: Mapping[str, Tensor] = field(default_factory=dict)
    owners: Tensor | None = None

    @property
    def n_edits(self) -> int:
        """E."""
        return self.gradients[0].u.shape[0]

    def on_top(self, before: Edits) -> Request:
        """The same, measured and looked at again together with edits (E,) that are made already."""

        def again(sites: tuple[Site, ...], edits: Edits, index: Tensor) -> Request:
            own = before.map(lambda part: part[index.to(part.device)])
            return self.again(sites, own + edits, index).on_top(own)

        return replace(
            self,
            losses=lambda edits: self.losses(before + edits),
            damage=lambda edits: self.damage(before + edits),
            again=again,
        )
