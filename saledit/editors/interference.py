"""Interference between the terms of one edit, and a solve that takes it out."""

from __future__ import annotations

import torch
from torch import Tensor

from saledit.delta import LowRank
from saledit.widths import wide

#: Squared size, relative to the responses', that what the solve adds is held to.
RIDGE = 0.03


def decouple(
    delta: LowRank, inputs: Tensor, strength: float, ridge: float = RIDGE,
    owners: Tensor | None = None,
) -> LowRank:  # fmt: skip
    """Let each term of a delta act on its own input and less on those of the others.

    A sum of terms v_j u_j^T made one by one changes the output at input x_i by
    sum_j r_ij v_j, r_ij = u_j . x_i: its own share r_ii v_i and, where inputs are alike, those of
    all other failures, some of which want another answer. With D the diagonal of r and
    N = D + s (r - D), the terms v' for which N v' = D v give back, at s = 1, its own share alone
    to every input. That is the least-squares view of many edits at once (MALMEN, Tan et al., ICLR
    2024, eq. 3; MEMIT, Meng et al., 2023, eq. 14), here inside one low-rank delta and damped by
    s < 1. What a network makes of the inputs may read its own input with no or the wrong sign, and
    then nothing sensible solves this; so it is solved by least squares,

        min |N v' - D v|^2 + ridge rho^2 |v' - v|^2,    rho^2 = |r|^2 / R,

    which is the same where N is far from singular, and which never makes terms large. One term
    alone is returned as it is. Terms of one failure (``owners``) are no rivals: D holds the
    responses between them as well, so that what a failure gets back is what all its terms give.

    Args:
        delta: u (..., R, D_in), v (..., R, D_out).
        inputs: x (..., R, D_in), the input that each term was made for, of any length; rows
            of zeros are padding.
        strength: s in [0, 1]; 0 does nothing.
        ridge: of the least squares; 0 for N v' = D v.
        owners: which failure each term is of (..., R); None where each is one's own.

    Returns:
        The delta with the same u.

    Example:
        >>> inputs = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), dim=-1)
        >>> delta = LowRank(inputs, torch.tensor([[1.0], [-1.0]]))  # alike inputs, opposite wishes
        >>> [round(float(y), 2) for y in delta(inputs)]
        [0.29, -0.29]
        >>> apart = decouple(delta, inputs, strength=1.0, ridge=0.0)
        >>> [round(float(y), 2) for y in apart(inputs)]
        [1.0, -1.0]
    """
    if strength == 0 or delta.rank == 1:
        return delta
    # Products that autocast would make in half precision, which no solve takes and no Gram matrix
    # can spare.
    with torch.autocast(inputs.device.type, enabled=False):
        return LowRank(delta.u, _solved(delta, inputs, strength, ridge, owners).to(delta.v.dtype))


def _solved(
    delta: LowRank, inputs: Tensor, strength: float, ridge: float, owners: Tensor | None
) -> Tensor:
    """The v' (..., R, D_out) of ``decouple``, at least in single precision."""
    x, u, v = wide(inputs), wide(delta.u), wide(delta.v)
    # (..., i, j): what term j reads of input i.
    responses = torch.nn.functional.normalize(x, dim=-1) @ u.mT
    real = (inputs != 0).any(-1)
    responses = responses * (real.unsqueeze(-1) & real.unsqueeze(-2))
    if owners is None:
        own = torch.diag_embed(responses.diagonal(dim1=-2, dim2=-1))
    else:
        own = responses * (owners.unsqueeze(-1) == owners.unsqueeze(-2))
    between = strength * (responses - own)
    n = own + between
    # Of v' - v: N^T N + ridge rho^2 on the left, what is still missing at each input on the right.
    size = responses.square().sum((-2, -1)) / real.sum(-1).clamp_min(1)
    size = ridge * size + torch.finfo(size.dtype).tiny
    gram = n.mT @ n + size[..., None, None] * torch.eye(delta.rank, dtype=n.dtype, device=n.device)
    missing = n.mT @ (between @ v)
    solved: Tensor = v - torch.linalg.solve(gram, missing)
    return solved
