"""Sites: the weight matrices that an edit may change.

A ``Site`` names one linear map of a model and says how it is oriented; a ``Layer``
is the set of sites of one block that an editor changes together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from saledit.errors import SiteError, did_you_mean


@dataclass(frozen=True, slots=True, order=True)
class Site:
    """One weight matrix, y = W x with W of shape (d_out, d_in).

    Attributes:
        name: dotted module name inside the model, as ``named_modules`` gives it.
        d_in: size of x.
        d_out: size of y.
        transposed: True where the module stores W as (d_in, d_out) (GPT-2's ``Conv1D``).

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> list(list_sites(model))[0]
        Site(name='0', d_in=4, d_out=3, transposed=False)
    """

    name: str
    d_in: int
    d_out: int
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class Layer:
    """The editable matrices of one block, or of a few that lie on each other.

    Attributes:
        index: position of the block, the lowest of several, counted from 0 at the input.
        sites: its sites, in the order in which the forward pass calls them.
    """

    index: int
    sites: tuple[Site, ...]

    @property
    def n_parameters(self) -> int:
        """Number of weights in the layer's sites."""
        return sum(site.d_in * site.d_out for site in self.sites)


#: What a file tells of a site.
IN_A_FILE = {"name": str, "d_in": int, "d_out": int, "transposed": bool}
LARGEST = 1 << 24  # size of a site


def are_possible(sites: Sequence[Mapping[str, Any]]) -> bool:
    """Whether there are sites, as a file tells of them, and all are of sizes that one can have."""
    sizes = [n for site in sites for n in (site["d_in"], site["d_out"])]
    return bool(sizes) and all(0 < n < LARGEST for n in sizes)


def _as_site(name: str, module: nn.Module) -> Site | None:
    if isinstance(module, nn.Linear):
        return Site(name, module.in_features, module.out_features)
    if isinstance(module, Conv1D):
        return Site(name, module.nx, module.nf, transposed=True)
    return None


def list_sites(model: nn.Module) -> Iterator[Site]:
    """Yield every linear map of a model, in the order of ``named_modules``."""
    for name, module in model.named_modules():
        site = _as_site(name, module)
        if site is not None:
            yield site


def resolve(model: nn.Module, name: str) -> Site:
    """Find a site by its module name.

    Args:
        model: the model.
        name: dotted module name, e.g. ``bert.encoder.layer.5.output.dense``.

    Returns:
        The site.

    Raises:
        SiteError: no such module, or it is not a linear map.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> resolve(model, "2")
        Site(name='2', d_in=3, d_out=2, transposed=False)
        >>> resolve(model, "1")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        saledit.errors.SiteError: site '1': expected nn.Linear or Conv1D, got ReLU; ...
    """
    try:
        module = model.get_submodule(name)
    except AttributeError:
        known = [site.name for site in list_sites(model)]
        raise SiteError(
            f"site '{name}': expected a linear map of the model, got no such module; "
            + did_you_mean(name, known)
        ) from None
    site = _as_site(name, module)
    if site is None:
        raise SiteError(
            f"site '{name}': expected nn.Linear or Conv1D, got {type(module).__name__}; "
            "name one of its linear maps"
        )
    return site
