"""Interference between the terms of one edit, and a solve that takes it out."""

from __future__ import annotations

import torch
from torch import Tensor

from saledit.delta import LowRank

_LEAST_GAIN = 0.05  # of a term on its own input, relative to its length; keeps the solve sane


def decouple(delta: LowRank, inputs: Tensor, strength: float) -> LowRank:
    """Let each term of a delta act on its own input and less on those of the others.

    A sum of terms v_j u_j^T made one by one changes the output at input x_i by
    sum_j (u_j . x_i) v_j: its own share and, where inputs are alike, those of all other
    failures, some of which want another answer. With A_ij = (u_j . x_i) / (u_i . x_i) the
    terms v' that solve ((1 - s) I + s A) v' = v give back, at s = 1, its own share alone
    to every input. That is the least-squares view of many edits at once (MALMEN, Tan et al.,
    ICLR 2024, eq. 3; MEMIT, Meng et al., 2023, eq. 14), here inside one low-rank delta and
    damped by s < 1. One term alone is returned as it is.

    Args:
        delta: u (..., R, D_in), v (..., R, D_out).
        inputs: x (..., R, D_in), the input that each term was made for, of any length; rows
            of zeros are padding.
        strength: s in [0, 1]; 0 does nothing.

    Returns:
        The delta with the same u.

    Example:
        >>> inputs = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), dim=-1)
        >>> delta = LowRank(inputs, torch.tensor([[1.0], [-1.0]]))  # alike inputs, opposite wishes
        >>> [round(float(y), 2) for y in delta(inputs)]
        [0.29, -0.29]
        >>> [round(float(y), 2) for y in decouple(delta, inputs, strength=1.0)(inputs)]
        [1.0, -1.0]
    """
    if strength == 0 or delta.rank == 1:
        return delta
    x = torch.nn.functional.normalize(inputs, dim=-1)
    # (..., i, j): what term j reads of input i; a solve has no half precision, which autocast
    # would hand it.
    responses = x @ delta.u.mT
    responses = responses.to(torch.promote_types(responses.dtype, torch.float32))
    own = responses.diagonal(dim1=-2, dim2=-1)
    least = (_LEAST_GAIN * delta.u.norm(dim=-1)).to(own.dtype) + torch.finfo(own.dtype).tiny
    own = torch.where(own < 0, -1.0, 1.0) * own.abs().maximum(least)
    real = (inputs != 0).any(-1)
    eye = torch.eye(delta.rank, dtype=own.dtype, device=own.device)
    others = responses / own.unsqueeze(-1) * (1 - eye)
    others = others * (real.unsqueeze(-1) & real.unsqueeze(-2))
    v = torch.linalg.solve(eye + strength * others, delta.v.to(own.dtype))
    return LowRank(delta.u, v.to(delta.v.dtype))
