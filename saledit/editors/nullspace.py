"""The directions in which nothing must stay, and the keys of earlier edits inside them (AlphaEdit).

A sequence remembers the key of every fact. To project all of them and to factor what they come to
takes longer than everything else that an edit is solved with, and all but the last few are those of
the edit before. So what has been worked out of them is kept, and further keys are added to it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saledit.errors import ModelError

_MOST = 1.5  # rows to directions, before the rows become as many as there are directions


class NullSpace:
    """Directions in which nothing must stay, and a metric on them.

    Args:
        basis: Q (D_in, m), orthonormal, in double precision.
    """

    def __init__(self, basis: Tensor) -> None:
        self.basis = basis
        self._forget(basis.new_zeros(0, len(basis)), 1.0)

    def _forget(self, like: Tensor, norm: float) -> None:
        self._norm, self._keys = norm, like[:0]
        self._rows = self.basis.new_zeros(0, self.basis.shape[1])
        self._factor = self.basis.new_zeros(0, 0)

    def solved(self, x: Tensor, past: Tensor | None, norm: float) -> Tensor:
        """Multiply by (norm I + Q^T P Q)^-1, P the sum of k k^T over remembered keys k.

        By Woodbury's identity, with the rows X = K Q of the n keys K: the solve is n x n, by a
        Cholesky factor of norm I + X X^T, to which each further key adds a row.

        Args:
            x: rows in the coordinates of the basis, (..., K, m), in double precision.
            past: K (n, D_in); None for none. Those of the call before, and more, are taken up from
                there.
            norm: above 0.

        Raises:
            ModelError: the norm is nothing beside the keys.
        """
        if past is None or not len(past):
            return x / norm
        self._take_in(past, norm)
        inner = torch.cholesky_solve(self._rows @ x.mT, self._factor)  # (..., n, K)
        return (x - inner.mT @ self._rows) / norm

    def _take_in(self, past: Tensor, norm: float) -> None:
        n = len(self._keys)
        if norm != self._norm or not torch.equal(past[:n], self._keys):
            self._forget(past, norm)
            n = 0
        if len(past) == n:
            return
        new = past[n:].double() @ self.basis  # (n', m)
        rows, known = torch.cat([self._rows, new]), self._factor
        if len(rows) > _MOST * rows.shape[1]:
            # As many rows as there are directions, with the same sum of products.
            rows = torch.linalg.qr(rows, mode="r").R
            new, known = rows, known[:0, :0]
        old = rows[: len(known)]
        cross = torch.linalg.solve_triangular(known, old @ new.mT, upper=False)
        own = new @ new.mT - cross.mT @ cross
        own.diagonal().add_(norm)
        corner, failed = torch.linalg.cholesky_ex(own)
        if bool(failed):
            raise ModelError(
                f"editor.locate.norm: expected more beside the keys of {len(past)} earlier facts, "
                f"got {norm:g}, which is lost in rounding; raise it"
            )
        factor = rows.new_zeros(len(rows), len(rows))
        factor[: len(known), : len(known)] = known
        factor[len(known) :, : len(known)] = cross.mT
        factor[len(known) :, len(known) :] = corner
        self._keys, self._rows, self._factor = past, rows, factor
