"""Running moments of tensors, all state in buffers so that it survives a resume."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from saledit import distributed
from saledit.site import Layer

_FAR = 30.0  # deviations, beyond which no unit that has spoken before is
_ROOM = 1 << 30  # bytes of second moments that are summed up beside each other


class Normalizer(nn.Module):
    """Zero mean and unit variance per dimension, over everything seen so far.

    Source: MEND (Mitchell et al., ICLR 2022), section 3.2; the update of batches is that
    of Chan et al. (1979), exact in any order of batches up to rounding.

    Args:
        size: number of dimensions D.
        eps: added to the standard deviation, relative to its mean over dimensions.
    """

    count: Tensor
    mean: Tensor
    m2: Tensor

    def __init__(self, size: int, eps: float = 1e-4) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("m2", torch.zeros(size))

    @torch.no_grad()
    def update(self, x: Tensor, is_share: bool = False) -> None:
        """Take in rows (n, D).

        Args:
            x: the rows.
            is_share: they are this process's share of a batch, and the other processes' rows are
                taken in as well.
        """
        n = x.shape[0]
        mean = x.sum(0) / max(n, 1)
        own = torch.cat([x.new_full((1,), n), mean, ((x - mean) ** 2).sum(0)])
        for part in distributed.all_gather(own) if is_share else [own]:
            self._merge(part[0], *torch.split(part[1:], len(self.mean)))

    def _merge(self, n: Tensor, mean: Tensor, m2: Tensor) -> None:
        """Take in n rows of a mean (D,) and a sum of squares about it (D,)."""
        if n == 0:
            return
        total = self.count + n
        delta = mean - self.mean
        share = (n / total).to(mean.dtype)
        self.m2 += m2 + delta**2 * (self.count.to(mean.dtype) * share)
        self.mean += delta * share
        self.count.copy_(total)

    @property
    def std(self) -> Tensor:
        """Standard deviation (D,), floored so that a constant dimension divides by no zero."""
        std = (self.m2 / self.count.clamp_min(1).to(self.m2.dtype)).sqrt()
        return std + self.eps * std.mean() + 1e-12

    def rms(self) -> Tensor:
        """Root mean square of each dimension (D,); ones before the first update."""
        if self.count == 0:
            return torch.ones_like(self.mean)
        return (self.m2 / self.count.to(self.m2.dtype) + self.mean**2).sqrt()

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (..., D), to ``_FAR`` deviations at most; the identity before any update.

        A unit that was silent in all rows seen so far, as those of ReLU are, has next to no
        deviation, and the first row in which it speaks would be a thousand of them.
        """
        if self.count == 0:
            return x
        return ((x - self.mean) / self.std).clamp(-_FAR, _FAR)


def whitened(u: Tensor, matrix: Tensor | None) -> Tensor:
    """Inputs (..., D) times a whitening matrix (D, D); as they are where there is none.

    At their own precision, also in a training that casts: what cancels here is what all inputs
    share, which may be a hundred times as large as what is left.
    """
    if matrix is None:
        return u
    with torch.autocast(u.device.type, enabled=False):
        return u @ matrix


def whitener(moment: Tensor, ridge: float) -> Tensor:
    """The matrix that maps an input to the direction that reads it apart from others.

    It is c (M + c I)^-1 with M the second moment of the site's inputs and c = ridge times
    the mean eigenvalue of M: directions that most inputs share shrink, rare ones stay.
    This is the C^-1 k of ROME's closed form (Meng et al., 2022, eq. 2), regularised.

    The mean it is, unlike in ``typical``: presets and results have ridges that were tuned in it.

    Args:
        moment: M (D, D), symmetric and positive semi-definite.
        ridge: relative ridge; larger is milder.

    Returns:
        (D, D), symmetric, eigenvalues in (0, 1].

    Example:
        >>> moment = torch.diag(torch.tensor([100.0, 1.0]))  # most inputs lie along the first axis
        >>> [round(float(x), 3) for x in whitener(moment, ridge=0.1).diagonal()]
        [0.048, 0.835]
    """
    wide = moment.double()
    c = ridge * wide.diagonal().mean()
    eye = torch.eye(len(wide), dtype=wide.dtype, device=wide.device)
    factor = torch.linalg.cholesky(wide + c * eye)
    return (c * torch.cholesky_solve(eye, factor)).to(moment.dtype)


def typical(moment: Tensor) -> Tensor:
    """What a square of an input comes to, (): the median of a second moment's diagonal.

    A few tokens whose inputs are hundreds of times as large as all others' (attention sinks) make
    the mean thousands of times the median. Inputs that are always 0, as those of ReLU can be, do
    not count.

    Args:
        moment: (D, D).

    Example:
        >>> float(typical(torch.diag(torch.tensor([2.0, 0.0, 1e6, 3.0]))))
        3.0
    """
    diagonal = moment.diagonal().double()
    seen = diagonal[diagonal > 0]
    return seen.median() if len(seen) else diagonal.new_zeros(())


def layers_at_once(layers: Sequence[Layer]) -> Iterator[list[Layer]]:
    """Layers, in order, in groups whose second moments fit beside each other; one at least."""
    some: list[Layer] = []
    size = 0
    for layer in layers:
        own = sum(8 * site.d_in**2 for site in layer.sites)  # double precision
        if some and size + own > _ROOM:
            yield some
            some, size = [], 0
        some.append(layer)
        size += own
    if some:
        yield some
