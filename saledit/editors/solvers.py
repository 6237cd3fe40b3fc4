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

The solves are K x K, by Cholesky or symmetric solves in double precision, and the change is
low-rank: a term a fact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor

from saledit.delta import LowRank
from saledit.editors.locating import Facts
from saledit.errors import ModelError


@dataclass(frozen=True, slots=True)
class Preserved:
    """What an edit must leave as it is.

    Attributes:
        moment: C (D_in, D_in), mean of x x^T over inputs of the site that must keep their outputs.
        past: P (D_in, D_in), sum of k k^T over keys of earlier edits; only AlphaEdit adds to it.
    """

    moment: Tensor
    past: Tensor | None = None


@dataclass(frozen=True, slots=True)
class SolverSettings:
    """Numbers of the solvers; see ``LocateConfig``."""

    weight: float = 15000.0
    ridge: float = 0.1
    threshold: float = 2e-2
    norm: float = 10.0


#: Facts (E, K), what must stay, numbers -> the change of each edit, and what must stay after it.
Solver = Callable[[Facts, Preserved, SolverSettings], tuple[LowRank, Preserved]]


def rome(
    facts: Facts, preserved: Preserved, _settings: SolverSettings
) -> tuple[LowRank, Preserved]:
    """One fact exactly, as ROME's code does it (Meng et al., 2022, eq. 2).

    Its direction is of the mean key over contexts, k* C^-1, but it is the bare prompt's output that
    is set: (W + dW) k = v with k the bare key. Where the two keys lie apart the denominator can be
    nearly nothing, and such an edit disables the model (Gupta et al., 2024, arXiv 2403.07175); see
    ``r_rome``.
    """
    read = _whitened(facts.keys, preserved.moment)
    return _scaled(read, facts.bare_keys, facts.bare_residuals), preserved


def r_rome(
    facts: Facts, preserved: Preserved, _settings: SolverSettings
) -> tuple[LowRank, Preserved]:
    """One fact exactly, with one key throughout: (W + dW) k* = v (Gupta et al., 2403.07175)."""
    read = _whitened(facts.keys, preserved.moment)
    return _scaled(read, facts.keys, facts.residuals), preserved


def memit(
    facts: Facts, preserved: Preserved, settings: SolverSettings
) -> tuple[LowRank, Preserved]:
    """All facts in least squares, beside ``weight`` C (Meng et al., 2023, eq. 14)."""
    return _together(facts, preserved.moment, settings.weight), preserved


def emmet(
    facts: Facts, preserved: Preserved, settings: SolverSettings
) -> tuple[LowRank, Preserved]:
    """All facts exactly (Gupta et al., 2403.14236, eq. 11); with its code's ridge where several."""
    ridge = settings.ridge if facts.keys.shape[-2] > 1 else 0.0
    return _together(facts, preserved.moment, ridge), preserved


def alphaedit(
    facts: Facts, preserved: Preserved, settings: SolverSettings
) -> tuple[LowRank, Preserved]:
    """All facts in least squares, within the null space of what must stay.

    With Q (D_in, m) the eigenvectors of C whose eigenvalues are below ``threshold``, and the
    projector Q Q^T (Fang et al., ICLR 2025, eq. 14),

        dW = R^T K Q (Q^T (P + K^T K) Q + norm I)^-1 Q^T,

    where P are the keys of earlier edits, which keep what they were given.
    """
    values, vectors = torch.linalg.eigh(preserved.moment.double())
    space = vectors[:, values < settings.threshold]  # (D_in, m)
    keys = facts.keys.double() @ space  # (..., K, m)
    metric = settings.norm * torch.eye(space.shape[1], dtype=torch.double, device=space.device)
    if preserved.past is not None:
        metric = metric + space.mT @ preserved.past.double() @ space
    inside = replace(facts, keys=keys)
    change = _together(inside, metric, 1.0, keep=torch.double)
    own = facts.keys.double().flatten(0, -2)
    past = own.mT @ own + (0 if preserved.past is None else preserved.past.double())
    delta = LowRank((change.u @ space.mT).to(facts.keys.dtype), facts.residuals)
    return delta, replace(preserved, past=past.to(preserved.moment.dtype))


SOLVERS: MappingProxyType[str, Solver] = MappingProxyType(
    {"rome": rome, "r-rome": r_rome, "memit": memit, "emmet": emmet, "alphaedit": alphaedit}
)
#: Those that solve for a single fact.
SINGLE = ("rome", "r-rome")


def _whitened(keys: Tensor, moment: Tensor) -> Tensor:
    """K C^-1 in double precision.

    Raises:
        ModelError: the second moment is singular.
    """
    factor, failed = torch.linalg.cholesky_ex(moment.double())
    if bool(failed):
        raise ModelError(
            f"covariance: expected one of full rank ({len(moment)}), got a singular one; "
            "gather it over more text (editor.locate.tokens)"
        )
    solved: Tensor = torch.cholesky_solve(keys.double().mT, factor).mT
    return solved


def _scaled(read: Tensor, keys: Tensor, residuals: Tensor) -> LowRank:
    """The change of one term that reads along ``read`` and gives ``residuals`` at ``keys``."""
    share = (read * keys.double()).sum(-1, keepdim=True)
    return LowRank((read / share).to(keys.dtype), residuals)


def _together(
    facts: Facts, moment: Tensor, ridge: float, keep: torch.dtype | None = None
) -> LowRank:
    """U of the module's equation, beside the residuals."""
    read = _whitened(facts.keys, moment)
    gram = facts.keys.double() @ read.mT  # (..., K, K)
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    return LowRank(
        torch.linalg.solve((gram + gram.mT) / 2 + ridge * eye, read).to(keep or facts.keys.dtype),
        facts.residuals if keep is None else facts.residuals.to(keep),
    )
