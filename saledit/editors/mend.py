"""MEND's editor; with one layer, picked by saliency, it is SaLEM's.

Source: Mitchell et al., Fast Model Editing at Scale, ICLR 2022 (MEND); Mishra et al.,
Findings of EACL 2024 (SaLEM: one layer, gradients of a batch aggregated).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from saledit.delta import Delta, Edits, LowRank
from saledit.editors.base import Editor
from saledit.editors.hypernet import Hypernet
from saledit.editors.interference import decouple
from saledit.editors.request import Request
from saledit.errors import ConfigError, did_you_mean
from saledit.moments import Normalizer, whitened, whitener
from saledit.site import Site

STYLES = ("bottleneck", "published")


class Mend(Editor):
    """Transforms each term (u, g) of the gradient and sums the transformed terms.

    With x = [W u; g], each of its two parts divided by its running root mean square, z the
    same terms normalised per dimension, and

        [u~; g~] = x + (hypernet(z) - z)

    the delta of a site is

        dW = - rate / sqrt(D_in D_out) * sum over terms of g~ u~^T.

    The network reads z and writes a correction of x, so an untrained editor steps down the
    gradient itself; MEND writes a correction of z (``style="published"``: [u~; g~] =
    hypernet(z)), whose start is turned away from the gradient by every dimension's own scale.

    The minus sign is the editor's: g points up the loss, and at the identity start the
    delta is a step *down* the normalised gradient. (MEND's published code adds a
    positive rate times the raw gradient factors and has to learn the sign.) ``rate`` is
    learned per site as exp(log_rate), so it stays positive. W is the identity, or with
    ``whiten`` > 0 the regularised inverse second moment of the site's inputs, which
    makes the step local from the start. Terms of one edit are kept out of each other's way
    by ``decouple``.

    Args:
        sites: the sites to edit; those of equal shape share a hypernetwork.
        rank: rank of the hypernetwork's blocks.
        n_blocks: number of blocks.
        style: ``bottleneck`` or ``published``, see ``Block``.
        whiten: relative ridge of the whitening; 0 turns it off.
        decouple: strength of the solve between the terms of an edit, in [0, 1]; 0 for none
            (as published: a plain sum).
        rate: first edit rate, about the Frobenius norm of a one-term delta over all sites (of
            each site where the style is ``published``).
    """

    name = "mend"

    def __init__(
        self,
        sites: Sequence[Site],
        rank: int = 256,
        n_blocks: int = 2,
        style: str = "bottleneck",
        whiten: float = 0.1,
        decouple: float = 0.5,
        rate: float = 0.5,
    ) -> None:
        super().__init__(sites)
        self.needs_moments = whiten > 0
        self._ridge = whiten
        self._decouple, self._style, self._rate = decouple, style, rate
        shapes = [(site.d_in, site.d_out) for site in self.sites]
        self._shared = [f"{d_in}x{d_out}" for d_in, d_out in shapes]
        # Position of each site among the sites that share its hypernetwork.
        self._place = [self._shared[:i].count(key) for i, key in enumerate(self._shared)]
        self.nets = nn.ModuleDict(
            {
                key: Hypernet(sum(shape), rank, n_blocks, self._shared.count(key), style)
                for key, shape in dict(zip(self._shared, shapes, strict=True)).items()
            }
        )
        self.normalizers = nn.ModuleList(Normalizer(sum(shape)) for shape in shapes)
        self.log_rate = nn.Parameter(torch.full((len(shapes),), math.log(rate)))
        for i, (d_in, _) in enumerate(shapes):
            self.register_buffer(f"whitener_{i}", torch.eye(d_in) if self.needs_moments else None)

    def forward(self, request: Request) -> Edits:
        """Edits (E,) from gradients (E, R, .) alone; in training the normaliser learns too."""
        deltas: dict[Site, Delta] = {}
        for i, (site, pair) in enumerate(zip(self.sites, request.gradients, strict=True)):
            x, real = self._terms(i, pair)
            if self.training:
                self._normalizer(i).update(x.detach()[real], is_share=True)
            u, g = self._transformed(i, site, x)
            rate = self.log_rate[i].exp() / math.sqrt(site.d_in * site.d_out)
            terms = LowRank(u, g * (-rate * real.unsqueeze(-1)))
            deltas[site] = self._together(i, terms, pair.u * real.unsqueeze(-1), request.owners)
        return Edits(deltas)

    def _together(self, i: int, terms: LowRank, inputs: Tensor, owners: Tensor | None) -> Delta:
        """A site's delta from its terms (E, R, .), their inputs (E, R, D_in) and whose they are."""
        return decouple(terms, inputs, self._decouple, owners=owners)

    def _transformed(self, i: int, site: Site, x: Tensor) -> tuple[Tensor, Tensor]:
        """u~ (E, R, D_in) and g~ (E, R, D_out) of terms x (E, R, D_in + D_out)."""
        normalizer, sizes = self._normalizer(i), [site.d_in, site.d_out]
        z = normalizer(x)
        out: Tensor = self.nets[self._shared[i]](z, self._place[i])
        if self._style == "published":
            u, g = torch.split(out, sizes, -1)
            return u, g
        (x_u, x_g), (to_u, to_g) = torch.split(x, sizes, -1), torch.split(out - z, sizes, -1)
        rms_u, rms_g = self._rms(i)
        return x_u / rms_u + to_u, x_g / rms_g + to_g

    def _rms(self, i: int) -> list[Tensor]:
        """Root mean square of the two parts of a site's terms."""
        site = self.sites[i]
        parts = torch.split(self._normalizer(i).rms(), [site.d_in, site.d_out])
        return [part.square().mean().sqrt() + 1e-12 for part in parts]

    def _normalizer(self, i: int) -> Normalizer:
        found = self.normalizers[i]
        assert isinstance(found, Normalizer)
        return found

    def _terms(self, i: int, pair: LowRank) -> tuple[Tensor, Tensor]:
        """Terms [W u; g] (E, R, D) and which of them are real, not padding: bool (E, R)."""
        real = (pair.v != 0).any(-1)
        u = whitened(pair.u, getattr(self, f"whitener_{i}"))
        return torch.cat([u, pair.v], -1), real

    @torch.no_grad()
    def prime(self, gradients: Sequence[LowRank], moments: Sequence[Tensor] | None) -> None:
        """Compute the whitening and take the first statistics."""
        for i, pair in enumerate(gradients):
            if moments is not None and self.needs_moments:
                getattr(self, f"whitener_{i}").copy_(whitener(moments[i], self._ridge))
            x, real = self._terms(i, pair)
            self._normalizer(i).update(x[real])
        if self._style != "published":
            # Sites share a step as they share the gradient: x is divided by its size at each
            # site, the first rates give the sizes back.
            sizes = torch.stack([torch.stack(self._rms(i)).prod() for i in range(len(self.sites))])
            shapes = [site.d_in * site.d_out for site in self.sites]
            sizes = sizes * sizes.new_tensor(shapes).sqrt()
            self.log_rate.copy_((self._rate * sizes / sizes.norm()).log())

    @classmethod
    def check(cls, settings: dict[str, object]) -> None:
        """Refuse a style that there is not.

        Raises:
            ConfigError: no such style.
        """
        style = str(settings["style"])
        if style not in STYLES:
            raise ConfigError(
                f"editor.{cls.name}.style: unknown name '{style}'; {did_you_mean(style, STYLES)}"
            )
