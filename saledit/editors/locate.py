"""Locate, then solve: ROME, r-ROME, MEMIT, EMMET and AlphaEdit."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from saledit.delta import Edits
from saledit.editors.base import Editor
from saledit.editors.locating import FactSource, FactSpec
from saledit.editors.request import Request
from saledit.editors.solvers import (
    REMEMBERING,
    SINGLE,
    SOLVERS,
    Preserved,
    SolverSettings,
)
from saledit.errors import ArtifactError, ConfigError, UserError, did_you_mean
from saledit.site import Site

_PLACES, _MEASURES = ("subject", "last"), ("output", "block")
_MOMENT = "raw_moment_{}"  # of a site's inputs, to which nothing has been added
_KEYS = "keys_{}"  # of earlier edits at a site
_BLOCK = re.compile(r"\.\d+\.")


class Locate(Editor):
    """A closed-form edit of the map that each block's MLP ends with; nothing is learned.

    Each failure is a fact: a key, the map's input at the last token of its subject, and an output
    there that makes the right answer likely (``saledit.facts.found``). The solver
    (``saledit.editors.solvers``) gives the keys these outputs and changes what must stay as little
    as it can, by the second moment of the map's inputs. Of several blocks (``site.span``) each gets
    its share of what is still missing at the top, from the lowest up (MEMIT). It solves nothing
    before it has been given second moments (``prime``), which are saved with it.

    Args:
        sites: the sites of the layer; the last of each block is edited.
        solver: "rome", "r-rome", "memit", "emmet" or "alphaedit".
        at, contexts, value_steps, value_rate, kl, decay, clamp, measure: how facts are found; see
            ``FactSpec``.
        weight: of ``memit``: lambda, the weight of what must stay.
        ridge: of ``emmet`` with several facts: added to their Gram matrix.
        threshold: of ``alphaedit``: eigenvalues below it are taken for nothing.
        norm: of ``alphaedit``: weight of the change's own norm.
        shrink: added to the second moment's diagonal where it is inverted, in medians of it; see
            ``Preserved``.
    """

    needs_moments = True
    needs_full_rank = True  # inputs that were never seen would be free to be changed
    needs_calibration = False
    is_trained = False
    needs_gradients = False
    looks_by_itself = True

    def __init__(
        self, sites: Sequence[Site], solver: str = "memit", at: str = "subject",
        contexts: int = 5, value_steps: int = 20, value_rate: float = 0.5, kl: float = 0.0625,
        decay: float = 0.5, clamp: float = 4.0, measure: str = "output", weight: float = 15000.0,
        ridge: float = 0.1, threshold: float = 2e-2, norm: float = 10.0, shrink: float = 1e-4,
    ) -> None:  # fmt: skip
        super().__init__(sites)
        self._name, self._shrink = solver, shrink
        self._ends = tuple(map(self.sites.index, self.moment_sites(self.sites)))
        self._solve = SOLVERS[solver]
        self._spec = FactSpec(at, contexts, value_steps, value_rate, kl, decay, clamp, measure)
        self._numbers = SolverSettings(weight, ridge, threshold, norm)
        self._known: dict[int, tuple[int, Preserved]] = {}
        for i in self._ends:
            # Of no input: what has not been primed yet is told by it, also behind a file.
            size = self.sites[i].d_in
            self.register_buffer(_MOMENT.format(i), torch.zeros(size, size))

    @torch.no_grad()
    def forward(self, request: Request) -> Edits:
        """Edits (E,) of the last map of each block.

        Raises:
            UserError: the editor has not been primed, or the solver takes one failure only.
            ArtifactError: what is remembered is of other sites.
        """
        preserved = [self._preserved(i) for i in self._ends]  # refused before facts are looked for
        sites, found = self._facts(request)
        if found.n_facts > 1 and self._name in SINGLE:
            raise UserError(_only_one(self._name, found.n_facts))
        past = self._past(request.memory)
        edits = Edits({})
        for number, (i, site) in enumerate(zip(self._ends, sites, strict=True)):
            facts = found.at(number, edits)
            delta = self._solve(facts, preserved[number], past.get(i), self._numbers)
            edits = edits + Edits({site: delta})
        return edits

    def remember(self, request: Request, edits: Edits) -> dict[str, Tensor]:
        """With AlphaEdit's keys, at each block; of the other solvers' none are added.

        An edit that was given up has none: what its keys give is not to be kept.
        """
        if self._name not in REMEMBERING or not any(bool(t.any()) for t in edits.tensors()):
            return dict(request.memory)
        sites, found = self._facts(request)
        past, out = self._past(request.memory), {}
        for number, i in enumerate(self._ends):
            below = Edits({site: edits[site] for site in sites[:number]})
            keys = found.at(number, below).keys.flatten(0, -2)
            out[_KEYS.format(i)] = torch.cat([past[i], keys]) if i in past else keys
        return out

    def _past(self, memory: Mapping[str, Tensor]) -> dict[int, Tensor]:
        """The keys (n, D_in) of earlier edits by their sites' places.

        Raises:
            ArtifactError: what is remembered is something else.
        """
        if self._name not in REMEMBERING:  # it is another solver's
            return {}
        places = {_KEYS.format(i): i for i in self._ends}
        for name, keys in memory.items():
            size = self.sites[places[name]].d_in if name in places else 0
            if keys.dim() != 2 or keys.shape[1] != size:
                raise ArtifactError(
                    f"the editor remembers {name} of {tuple(keys.shape)} numbers, expected keys of "
                    f"earlier edits at {', '.join(self.sites[i].name for i in self._ends)}: those "
                    "are of other sites or by an earlier version; give another folder (--out)"
                )
        return {places[name]: keys for name, keys in memory.items()}

    def _facts(self, request: Request) -> tuple[tuple[Site, ...], FactSource]:
        sites = tuple(self.sites[i] for i in self._ends)
        return sites, request.facts(sites, self._spec)

    def _preserved(self, i: int) -> Preserved:
        """What must stay at a site, with the factors that were worked out before."""
        moment, known = self._moment(i), self._known.get(i)
        # Loading and priming write into the tensor, which counts its versions.
        if known is None or known[0] != moment._version or known[1].moment is not moment:
            if not bool(moment.any()):
                raise UserError(
                    "editor.locate: expected an editor that knows the second moment of the inputs "
                    f"of {self.sites[i].name}, got none; give it moments with prime(), as saledit "
                    "fit does"
                )
            known = self._known[i] = (moment._version, Preserved(moment, self._shrink))
        return known[1]

    def _moment(self, i: int) -> Tensor:
        return self.get_buffer(_MOMENT.format(i))

    @torch.no_grad()
    def prime(self, gradients: Sequence[object], moments: Sequence[Tensor] | None) -> None:
        """Take over the second moments of the edited sites' inputs."""
        if moments is not None:
            for i, moment in zip(self._ends, moments, strict=True):
                self._moment(i).copy_(moment)

    @classmethod
    def moment_sites(cls, sites: Sequence[Site]) -> tuple[Site, ...]:
        """The last map of each block."""
        return tuple(site for site in sites if _is_like(site, sites[-1]))

    @classmethod
    def needs_subjects(cls, settings: dict[str, object]) -> bool:
        """Where facts stand at their subjects."""
        return settings["at"] == "subject"

    @classmethod
    def check_failures(cls, settings: dict[str, object], k: int) -> None:
        """Refuse more failures an edit than the solver takes.

        Raises:
            ConfigError: several, of a solver for one.
        """
        if k > 1 and settings["solver"] in SINGLE:
            raise ConfigError(_only_one(str(settings["solver"]), k))

    @classmethod
    def check(cls, settings: dict[str, object]) -> None:
        """Refuse names and numbers that no edit can be made of.

        Raises:
            ConfigError: an unknown solver or place, or a number out of its range.
        """
        for name, known in (("solver", tuple(SOLVERS)), ("at", _PLACES), ("measure", _MEASURES)):
            value = str(settings[name])
            if value not in known:
                raise ConfigError(
                    f"editor.locate.{name}: unknown name '{value}'; {did_you_mean(value, known)}"
                )
        least = {"contexts": 0, "value_steps": 1, "kl": 0, "decay": 0, "ridge": 0, "shrink": 0}
        for name, low in least.items():
            number = float(str(settings[name]))
            if not low <= number < math.inf:
                raise ConfigError(f"editor.locate.{name}: expected at least {low}, got {number:g}")
        for name in ("value_rate", "clamp", "weight", "threshold", "norm"):
            number = float(str(settings[name]))
            if not 0 < number < math.inf:
                raise ConfigError(f"editor.locate.{name}: expected above 0, got {number:g}")


def _only_one(solver: str, k: int) -> str:
    return (
        f"schedule.batch_size: {solver} solves for one failure at a time, expected 1, got {k}; "
        "use editor.locate.solver=emmet for several"
    )


def _is_like(site: Site, other: Site) -> bool:
    """Whether two sites are the same map, of one block or of two."""
    return _BLOCK.sub(".#.", site.name) == _BLOCK.sub(".#.", other.name)
