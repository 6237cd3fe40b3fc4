"""Facts as values: how they are found, and what closed-form edits are solved from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from saledit.delta import Edits


@dataclass(frozen=True, slots=True)
class FactSpec:
    """How facts are found.

    Attributes:
        at: "subject", the last token of each failure's subject, or "last", the last token of the
            prompt (of a classifier what its head reads).
        contexts: how many beginnings are put before a prompt of text
            (``saledit.facts.contexts``); keys are means over them and the bare prompt, all alike
            (MEMIT's code weighs the bare prompt as much as all beginnings together), and the
            answer is made likely behind each.
        steps: steps of Adam at most; ROME's and MEMIT's codes take one less than they name, as they
            end before the last.
        rate: its learning rate.
        kl: weight of KL(changed || base) of what follows "SUBJECT is a", of text at its subjects;
            it is the text itself, without the task's template.
        decay: weight of |delta| / |measure|^2.
        clamp: largest |delta| / |measure|.
        measure: "output", of the map that is edited (ROME's code), or "block", what its block hands
            on (the codes of MEMIT, EMMET and AlphaEdit), several times as large.
        enough: loss at which a fact is done.
    """

    at: str
    contexts: int
    steps: int
    rate: float
    kl: float
    decay: float
    clamp: float
    measure: str = "output"
    enough: float = 5e-2  # as in ROME's code


@dataclass(frozen=True, slots=True)
class Facts:
    """What edits (E,) of K facts each are solved from.

    Attributes:
        keys: (..., K, D_in) inputs of the site at the subject, a mean over contexts.
        residuals: (..., K, D_out) what the site's outputs at these keys lack.
        bare_keys: (..., K, D_in) the same of the prompts alone.
        bare_residuals: (..., K, D_out) what the outputs at those lack.
    """

    keys: Tensor
    residuals: Tensor
    bare_keys: Tensor
    bare_residuals: Tensor

    def view(self, *batch: int) -> Facts:
        """The same facts in another batch shape."""
        parts = (self.keys, self.residuals, self.bare_keys, self.bare_residuals)
        return Facts(*(part.view(*batch, part.shape[-1]) for part in parts))


class FactSource(Protocol):
    """The failures of a request as facts, at the sites that were asked for."""

    @property
    def n_facts(self) -> int:
        """K, which is known before any is sought."""
        ...

    def at(self, number: int, edits: Edits) -> Facts:
        """The facts (E, K) at one of the sites, under what is changed (E,) below it."""
        ...
