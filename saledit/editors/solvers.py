"""Closed-form edits: the least change of what must stay that gives keys new values.

One view of ROME, r-ROME, MEMIT, EMMET and AlphaEdit (Gupta et al., 2024, "A unified framework for
model editing", arXiv 2403.14236). With rows k_i of K (K, D_in) the inputs that stand for facts,
rows r_i of R (K, D_out) what their outputs lack, and C the second moment of inputs that must keep
their outputs, all of them are

    dW = R^T U,     U = (ridge I + K C^-1 K^T)^-1 K C^-1        rows of (K, D_in)

- ridge -> 0: dW k_i = r_i exactly, at the least tr(dW C dW^T): ROME of one fact, EMMET of several;
- ridge = lambda: the least |dW K^T - R^T|^2 + lambda tr(dW C dW^T): MEMIT, as the Woodbury form of
  R^T K (lambda C + K^T K)^-1;
- C the unit matrix and the keys of earlier edits, in the null space of what must stay: AlphaEdit.

The solves are K x K, by Cholesky in double precision, and the change is
low-rank: a term a fact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType

import torch
from torch import Tensor

from saledit.delta import LowRank
from saledit.editors.locating import Facts
from saledit.editors.nullspace import NullSpace
from saledit.errors import ModelError, UserError
from saledit.moments import typical


@dataclass(frozen=True)
class Preserved:
    """What an edit must leave as it is; what it takes to solve with it is worked out once.

    Attributes:
        moment: C (D_in, D_in), mean of x x^T over inputs of the site that must keep their outputs.
        shrink: what is added to its diagonal before it is inverted, in what is typical of it
            (``saledit.moments.typical``): C over few inputs is not of full rank.
    """

    moment: Tensor
    shrink: float = 0.0
    _spaces: dict[float, NullSpace] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def factor(self) -> Tensor:
        """Cholesky factor of C with what is added, in double precision.

        Raises:
            ModelError: that is singular.
        """
        wide = self.moment.double().clone()  # a double one would be changed itself
        wide.diagonal().add_(self.shrink * typical(wide))
        return _factor(wide)

    def null_space(self, threshold: float) -> NullSpace:
        """The eigenvectors of C itself whose eigenvalues are below a threshold.

        Raises:
            ModelError: none is, so nothing may change.
        """
        if threshold not in self._spaces:
            values, vectors = torch.linalg.eigh(self.moment.double())
            own = vectors[:, values < threshold]
            if not own.shape[1]:
                raise ModelError(
                    "editor.locate.threshold: expected some eigenvalues of the second moment below "
                    f"it, got {threshold:g} and the smallest {float(values.min()):.2g}; raise it"
                )
            self._spaces[threshold] = NullSpace(own)
        return self._spaces[threshold]


@dataclass(frozen=True, slots=True)
class SolverSettings:
    """Numbers of the solvers; see ``LocateConfig``."""

    weight: float
    ridge: float
    threshold: float
    norm: float


#: Facts (E, K), what must stay, the keys (n, D_in) of earlier edits, which few look at, and numbers
#: -> the change of each edit.
Solver = Callable[[Facts, Preserved, Tensor | None, SolverSettings], LowRank]


def rome(
    facts: Facts, preserved: Preserved, _past: Tensor | None, _settings: SolverSettings
) -> LowRank:
    """One fact exactly, as ROME's code does it (Meng et al., 2022, eq. 2).

    Its direction is of the mean key over contexts, k* C^-1, but it is the bare prompt's output that
    is set: (W + dW) k = v with k the bare key. Where the two keys lie apart the denominator can be
    nearly nothing, and such an edit disables the model (Gupta et al., 2024, arXiv 2403.07175); see
    ``r_rome``.
    """
    read = _whitened(facts.keys, preserved.factor)
    return _scaled(read, facts.bare_keys, facts.bare_residuals)


def r_rome(
    facts: Facts, preserved: Preserved, _past: Tensor | None, _settings: SolverSettings
) -> LowRank:
    """One fact exactly, with one key throughout: (W + dW) k* = v (Gupta et al., 2403.07175).

    Example:
        >>> key, lacks = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0, 2.0]])
        >>> numbers = SolverSettings(weight=15000.0, ridge=0.1, threshold=0.02, norm=10.0)
        >>> moment = torch.tensor([[2.0, 0.5], [0.5, 1.0]])
        >>> delta = r_rome(Facts(key, lacks, key, lacks), Preserved(moment), None, numbers)
        >>> torch.allclose(delta(key), lacks)
        True
    """
    read = _whitened(facts.keys, preserved.factor)
    return _scaled(read, facts.keys, facts.residuals)


def memit(
    facts: Facts, preserved: Preserved, _past: Tensor | None, settings: SolverSettings
) -> LowRank:
    """All facts in least squares, beside ``weight`` C (Meng et al., 2023, eq. 14).

    Example:
        The heavier what must stay, the less of what a key lacks is put in.

        >>> keys, lacks = torch.eye(2), torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
        >>> facts, stays = Facts(keys, lacks, keys, lacks), Preserved(torch.eye(2))
        >>> for weight in (1e-6, 1.0):
        ...     numbers = SolverSettings(weight, ridge=0.1, threshold=0.02, norm=10.0)
        ...     delta = memit(facts, stays, None, numbers)
        ...     print(round(float(delta(keys)[1, 1]), 4))
        2.0
        1.0
    """
    return _together(facts, _whitened(facts.keys, preserved.factor), settings.weight)


def emmet(
    facts: Facts, preserved: Preserved, _past: Tensor | None, settings: SolverSettings
) -> LowRank:
    """All facts exactly (Gupta et al., 2403.14236, eq. 11); with its code's ridge where several."""
    ridge = settings.ridge if facts.keys.shape[-2] > 1 else 0.0
    return _together(facts, _whitened(facts.keys, preserved.factor), ridge)


def alphaedit(
    facts: Facts, preserved: Preserved, past: Tensor | None, settings: SolverSettings
) -> LowRank:
    """All facts in least squares, within the null space of what must stay.

    With Q (D_in, m) the eigenvectors of C whose eigenvalues are below ``threshold``, and the
    projector Q Q^T (Fang et al., ICLR 2025, eq. 14),

        dW = R^T K Q (Q^T (P + K^T K) Q + norm I)^-1 Q^T,

    where P (D_in, D_in) is the sum of k k^T over the keys of earlier edits: they keep what they
    were given.

    Raises:
        ModelError: no eigenvalue is below the threshold, so nothing may change.
    """
    space = preserved.null_space(settings.threshold)
    keys = facts.keys.double() @ space.basis  # (..., K, m)
    read = space.solved(keys, past, settings.norm)
    inside = _together(replace(facts, keys=keys), read, 1.0)
    return LowRank((inside.u @ space.basis.mT).to(facts.keys.dtype), inside.v)


SOLVERS: MappingProxyType[str, Solver] = MappingProxyType(
    {"rome": rome, "r-rome": r_rome, "memit": memit, "emmet": emmet, "alphaedit": alphaedit}
)
#: Those that solve for a single fact.
SINGLE = ("rome", "r-rome")
#: Those that remember the keys of a sequence.
REMEMBERING = ("alphaedit",)


def _factor(moment: Tensor) -> Tensor:
    """Cholesky factor in double precision.

    Raises:
        ModelError: the matrix is singular.
    """
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(moment.double())
    if bool(failed):
        raise ModelError(
            f"covariance: expected one of full rank ({len(moment)}), got a singular one; "
            "take it over more text (editor.moments.corpus), or raise editor.locate.shrink"
        )
    return factor


def _whitened(keys: Tensor, factor: Tensor) -> Tensor:
    """K C^-1 in double precision, of the Cholesky factor of C."""
    solved: Tensor = torch.cholesky_solve(keys.double().mT, factor).mT
    return solved


def _scaled(read: Tensor, keys: Tensor, residuals: Tensor) -> LowRank:
    """The change of one term that reads along ``read`` and gives ``residuals`` at ``keys``."""
    share = (read * keys.double()).sum(-1, keepdim=True)
    return LowRank((read / share).to(keys.dtype), residuals)


def _together(facts: Facts, read: Tensor, ridge: float) -> LowRank:
    """U of the module's equation, beside the residuals, of K C^-1.

    Raises:
        UserError: keys that are linearly dependent, and no ridge.
    """
    gram = facts.keys.double() @ read.mT  # (..., K, K)
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    factor, failed = torch.linalg.cholesky_ex((gram + gram.mT) / 2 + ridge * eye)
    if bool(failed.any()):
        raise UserError(
            "editor.locate: expected failures whose keys differ, got some that are the same or "
            "depend on each other, which no exact edit tells apart; give them in edits of their "
            "own, or raise editor.locate.ridge"
        )
    solved: Tensor = torch.cholesky_solve(read, factor)
    # As in the codes of all three: mean keys, and what the bare prompts' outputs lack.
    return LowRank(solved.to(facts.keys.dtype), facts.bare_residuals)
