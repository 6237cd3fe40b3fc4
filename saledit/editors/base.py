"""What an editor is: failures of a model in, edits out."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from saledit.delta import Edits, LowRank
from saledit.editors.request import Request
from saledit.site import Site


class Editor(nn.Module, ABC):
    """An editor of one or more sites.

    Everything that it learns or measures is a parameter or a buffer, so that its
    ``state_dict`` is the whole editor. One without parameters is not trained: ``fit`` primes and
    calibrates it.

    Args:
        sites: the sites it changes, in the order in which factors are given.

    Attributes:
        needs_gradients: True where it looks at the gradients of failures. Where it does not, none
            are taken, and those of its requests are of no terms; it looks by itself, then.
        needs_moments: True where ``prime`` wants second moments of sites' inputs
            (``moment_sites``).
        needs_full_rank: True where they must be over as many tokens as a site has inputs, at least.
        has_resident: True where the editor changes the model before any edit (``resident``).
        needs_held: True where requests must say what an edit does to pass samples.
        needs_text: True where requests must say what the failures are
            (``saledit.data.conditions``); it is given the size of the model's embeddings as
            ``embedding_size``.
        needs_anchor: True where edits are routed by what a row is about
            (``saledit.delta.anchor``); it is given that size, too. (Of the data
            ``needs_subjects`` may ask for more.)
        needs_calibration: True where the size of the first step is to be found by trial.
        is_trained: True where there is anything to learn; of the class, as it is asked before there
            is an editor.
        looks_by_itself: True where the editor sees, while it makes an edit, what has come of it;
            ``editor.looks`` is for all others.
        log_rate: logarithm of the size of steps, a parameter or a buffer; where it is calibrated.
    """

    needs_gradients: bool = True
    needs_moments: bool = False
    needs_full_rank: bool = False
    has_resident: bool = False
    needs_held: bool = False
    needs_text: bool = False
    needs_anchor: bool = False
    needs_calibration: bool = True
    is_trained: bool = True
    looks_by_itself: bool = False
    log_rate: Tensor

    def __init__(self, sites: Sequence[Site]) -> None:
        super().__init__()
        self.sites = tuple(sites)

    @abstractmethod
    def forward(self, request: Request) -> Edits:
        """Make the edits that are asked for.

        Args:
            request: E edits; see ``Request``.

        Returns:
            Edits with batch shape (E,), in training differentiable in the editor's parameters;
            what is ``resident`` is not in them.
        """

    def prime(self, gradients: Sequence[LowRank], moments: Sequence[Tensor] | None) -> None:
        """Measure statistics before training; an editor without any leaves this as it is.

        Args:
            gradients: as in ``Request``.
            moments: mean of x x^T (D_in, D_in) over the inputs of each of ``moment_sites``, where
                needed; sites that read one input may share it.
        """

    def remember(self, request: Request, edits: Edits) -> Mapping[str, Tensor]:
        """What the next step of a sequence has to know; most need nothing.

        It is rows: each step puts its own below those that were there, so that those of a step that
        is taken back can be left out.

        Args:
            request: the one that this step's edits were made of, with the memory before it.
            edits: this step's edits (E,).
        """
        del request, edits
        return {}

    @torch.no_grad()
    def scale_rate(self, factor: float) -> None:
        """Multiply the size of steps, exp(``log_rate``); used to calibrate the first one."""
        self.log_rate.add_(math.log(factor))

    @property
    def resident(self) -> Edits:
        """A change of the model that is there before any edit, unbatched, and is judged with it.

        For editors that prepare the model to be edited; most leave it as it is.
        """
        return Edits({})

    @classmethod
    def moment_sites(cls, sites: Sequence[Site]) -> tuple[Site, ...]:
        """Those of a layer's sites whose inputs' second moments ``prime`` is given: all of them.

        Args:
            sites: the layer's.
        """
        return tuple(sites)

    @classmethod
    def check(cls, settings: dict[str, object]) -> None:
        """Refuse settings before anything is loaded.

        Args:
            settings: the arguments of the constructor, besides the sites.

        Raises:
            ConfigError: a setting that the editor does not have.
        """

    @classmethod
    def needs_subjects(cls, settings: dict[str, object]) -> bool:
        """True where failures must name what they are about, as it stands in their texts.

        Unlike other needs it is one of the data, so it is told before anything is loaded.

        Args:
            settings: as above.
        """
        del settings
        return False

    @classmethod
    def check_failures(cls, settings: dict[str, object], k: int) -> None:
        """Refuse more failures an edit than the editor takes, before anything is loaded.

        Args:
            settings: as above.
            k: failures an edit.

        Raises:
            ConfigError: too many.
        """
