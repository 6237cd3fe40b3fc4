"""Low-rank and dense changes of a site, and edits: one change for each site."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from saledit.delta.parts import Parts
from saledit.delta.routed import Routed
from saledit.errors import UserError
from saledit.site import Site


@dataclass(frozen=True, slots=True, eq=False)
class LowRank(Parts):
    """A low-rank change dW = v^T u, or E of them at once.

    Attributes:
        u: (..., R, D_in) directions that the site's input is read along.
        v: (..., R, D_out) directions that are added to its output.

    Example:
        >>> delta = LowRank(u=torch.tensor([[1.0, 0.0]]), v=torch.tensor([[0.0, 2.0, 0.0]]))
        >>> delta(torch.tensor([[3.0, 5.0]]))
        tensor([[0., 6., 0.]])
        >>> delta.dense().shape, (delta + delta).rank, float(delta.norm())
        (torch.Size([3, 2]), 2, 2.0)
    """

    u: Tensor
    v: Tensor

    def __post_init__(self) -> None:
        """Check that the two factors belong together."""
        if self.u.shape[:-1] != self.v.shape[:-1]:
            raise ValueError(
                f"LowRank: expected factors of equal batch and rank, got u {tuple(self.u.shape)} "
                f"and v {tuple(self.v.shape)}"
            )

    @property
    def rank(self) -> int:
        """Number of rank-one terms R (the true rank may be lower)."""
        return self.u.shape[-2]

    def __call__(self, x: Tensor) -> Tensor:
        """Apply to inputs: (..., N, D_in) -> (..., N, D_out)."""
        return (x @ self.u.mT) @ self.v

    def __add__(self, other: LowRank) -> LowRank:
        """Sum of two deltas: their terms side by side, rank R1 + R2."""
        return LowRank(torch.cat([self.u, other.u], -2), torch.cat([self.v, other.v], -2))

    def __mul__(self, scale: float | Tensor) -> LowRank:
        """Scale by a number, or by one number a delta of shape (E, 1, 1)."""
        return LowRank(self.u, self.v * scale)

    __rmul__ = __mul__

    def dense(self) -> Tensor:
        """The change as a matrix (..., D_out, D_in); for tests and merging."""
        return self.v.mT @ self.u

    def norm(self) -> Tensor:
        """Frobenius norm (...), from the R x R Gram matrices alone."""
        gram = (self.u @ self.u.mT) * (self.v @ self.v.mT)  # (..., R, R)
        return gram.sum((-2, -1)).clamp_min(0).sqrt()

    def compress(self, rank: int) -> LowRank:
        """Best approximation of a lower rank, by an SVD through QR of both factors.

        The matrix (D_out, D_in) is never built: with u^T = Q_u R_u and v^T = Q_v R_v
        the SVD is taken of R_v R_u^T, of size R x R at most. Each singular value is
        shared evenly between its two factors. The sign of each pair, which the SVD
        leaves open, is fixed so that the pair's u points along the mean of the old u.
        Terms below rounding are set to exact zeros, so that they are not taken for real.

        Args:
            rank: terms to keep; a delta that has no more is still brought to this form.

        Returns:
            The delta of rank min(rank, R, D_in, D_out), terms by falling singular value.

        Example:
            >>> term = LowRank(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 1.0, 0.0]]))
            >>> one = (term + term).compress(1)  # the same matrix, in one term
            >>> one.rank, torch.allclose(one.dense(), 2 * term.dense())
            (1, True)
        """
        q_u, r_u = torch.linalg.qr(self.u.mT)  # (..., D_in, r), (..., r, R)
        q_v, r_v = torch.linalg.qr(self.v.mT)
        left, sigma, right = torch.linalg.svd(r_v @ r_u.mT, full_matrices=False)
        rounding = torch.finfo(sigma.dtype).eps * max(self.rank, sigma.shape[-1])
        sigma = sigma.masked_fill(sigma <= rounding * sigma[..., :1], 0)
        keep = min(rank, sigma.shape[-1])
        root = sigma[..., :keep].sqrt().unsqueeze(-1)  # (..., keep, 1)
        u = (right[..., :keep, :] @ q_u.mT) * root
        v = (left[..., :keep].mT @ q_v.mT) * root
        along = (u * self.u.mean(-2, keepdim=True)).sum(-1, keepdim=True)
        sign = torch.where(along < 0, -1.0, 1.0).to(u.dtype)
        return LowRank(u * sign, v * sign)


@dataclass(frozen=True, slots=True, eq=False)
class Dense(Parts):
    """A change of full rank, for editors that have no factors.

    Attributes:
        w: (..., D_out, D_in).
    """

    w: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Apply to inputs: (..., N, D_in) -> (..., N, D_out)."""
        return x @ self.w.mT

    def __add__(self, other: Delta) -> Dense:
        """Sum with any delta."""
        return Dense(self.w + other.dense())

    def __mul__(self, scale: float | Tensor) -> Dense:
        """Scale by a number, or by one number a delta of shape (E, 1, 1)."""
        return Dense(self.w * scale)

    __rmul__ = __mul__

    def dense(self) -> Tensor:
        """The change itself."""
        return self.w

    def norm(self) -> Tensor:
        """Frobenius norm (...)."""
        norm: Tensor = torch.linalg.matrix_norm(self.w)
        return norm


Delta = LowRank | Dense | Routed


class Edits(Mapping[Site, Delta]):
    """What an editor returns: a delta for each site it changes. Immutable.

    Args:
        deltas: the changes; all with the same batch shape.

    Example:
        >>> delta = LowRank(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]]))
        >>> one = Edits({Site("encoder.0", d_in=2, d_out=3): delta})
        >>> both = one + 0.5 * one  # edits are values: sums and multiples are edits, too
        >>> len(both), float(both.norm())
        (1, 3.0)
    """

    def __init__(self, deltas: Mapping[Site, Delta]) -> None:
        shapes = {delta.batch_shape for delta in deltas.values()}
        if len(shapes) > 1:
            raise ValueError(f"Edits: expected deltas of one batch shape, got {sorted(shapes)}")
        self._deltas = dict(deltas)

    def __getitem__(self, site: Site) -> Delta:
        """The delta of a site."""
        return self._deltas[site]

    def __iter__(self) -> Iterator[Site]:
        """Iterate over the sites."""
        return iter(self._deltas)

    def __len__(self) -> int:
        """Number of sites."""
        return len(self._deltas)

    def __repr__(self) -> str:
        """Sites and norms, short enough for a terminal."""
        inside = ", ".join(f"{site.name}: {delta!r:.40}" for site, delta in self.items())
        return f"Edits({inside})"

    def __add__(self, other: Edits) -> Edits:
        """Accumulate: both changes act together."""
        merged: dict[Site, Delta] = dict(self._deltas)
        for site, delta in other.items():
            mine = merged.get(site)
            merged[site] = delta if mine is None else _add(mine, delta)
        return Edits(merged)

    def __mul__(self, scale: float | Tensor) -> Edits:
        """Scale every delta, by a number or of a batch by one number an edit (E,)."""
        if isinstance(scale, Tensor):
            each = scale[:, None, None]
            return Edits({site: delta * each.to(delta.dtype) for site, delta in self.items()})
        return Edits({site: delta * scale for site, delta in self.items()})

    __rmul__ = __mul__

    @property
    def batch_shape(self) -> torch.Size:
        """Leading shape shared by all deltas; () where there is no delta."""
        return next((d.batch_shape for d in self._deltas.values()), torch.Size())

    def expand(self, n: int) -> Edits:
        """A batch (n,) of this one edit, without copies; no deltas stay none."""
        return Edits({site: delta.expand(n) for site, delta in self.items()})

    def norm(self) -> Tensor:
        """Frobenius norm over all sites together, shape of the batch."""
        return torch.stack([delta.norm() ** 2 for delta in self.values()]).sum(0).sqrt()

    def finite(self) -> Tensor:
        """Which edits of a batch are made of numbers alone, bool (E,) on the CPU."""
        parts = [tensor.isfinite().flatten(1).all(1).cpu() for tensor in self.tensors()]
        return torch.stack(parts).all(0) if parts else torch.ones(self.batch_shape).bool()

    def without(self, dropped: Tensor) -> Edits:
        """The same batch with zeros in the place of some edits, bool (E,), whatever they hold."""

        def zeroed(part: Tensor) -> Tensor:
            places = dropped.view(-1, *[1] * (part.dim() - 1)).to(part.device)
            return part.masked_fill(places, 0)

        return self.map(zeroed)

    @property
    def are_routed(self) -> bool:
        """Whether any delta asks what its row is about (``saledit.delta.anchor``)."""
        return any(isinstance(delta, Routed) for delta in self.values())

    def tensors(self) -> list[Tensor]:
        """What all deltas are made of, in order."""
        return [tensor for delta in self.values() for tensor in delta.tensors()]

    def map(self, function: Callable[[Tensor], Tensor]) -> Edits:
        """The same edits of other tensors."""
        return Edits({site: delta.map(function) for site, delta in self.items()})

    def detach(self) -> Edits:
        """The same values without a graph."""
        return self.map(Tensor.detach)

    def compress(self, rank: int) -> Edits:
        """Bring every low-rank delta down to a rank; others stay."""
        return Edits(
            {s: d.compress(rank) if isinstance(d, LowRank) else d for s, d in self.items()}
        )


def _add(a: Delta, b: Delta) -> Delta:
    if isinstance(a, Routed):
        return a + _routed(b, a)
    if isinstance(b, Routed):
        return _routed(a, b) + b
    if isinstance(a, LowRank) and isinstance(b, LowRank):
        total = a + b
        d_in, d_out = total.u.shape[-1], total.v.shape[-1]
        # Beyond this rank the factors hold more numbers than the matrix itself.
        if total.rank * (d_in + d_out) <= d_in * d_out:
            return total
        return Dense(total.dense())
    return Dense(a.dense() + b.dense())


def _routed(delta: Delta, other: Routed) -> Routed:
    """A delta in the form in which it can be added to a routed one."""
    if isinstance(delta, Routed):
        return delta
    if isinstance(delta, LowRank):
        return other.beside(delta.u, delta.v)
    raise UserError(
        "a routed edit (editor: memoe) does not add to a dense one; "
        "apply one inside the other's `with saledit.applied(...)`"
    )
