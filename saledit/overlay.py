"""The overlay: a model with edits, for as long as a ``with`` block lasts.

The deltas act on activations, ``y + delta(x)``, through forward hooks. The base
weights are never written to, so they stay bit-identical; autograd reaches the
deltas' factors; ``generate()`` and offloaded weights work as without edits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from saledit.delta import Delta, Edits
from saledit.delta.anchor import Anchors
from saledit.delta.routed import Routed
from saledit.errors import UserError
from saledit.site import Site


def _hook(
    given: Delta, anchors: Anchors | None
) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]:
    def add(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        x: Tensor = args[0]
        # Edits read from disk lie in main memory, and where a model is only its inputs say.
        delta = given if given.device == x.device else given.to(x.device)
        if not delta.batch_shape:
            return output + _act(delta, x, anchors).to(output.dtype)
        if x.shape[0] % delta.batch_shape.numel():
            raise ValueError(
                f"applied: {x.shape[0]} rows cannot be shared evenly by a batch of "
                f"{delta.batch_shape.numel()} edits"
            )
        # E deltas in one batch: the rows of an edit lie side by side, so one
        # reshape groups them, and every product is a batched one.
        grouped = x.reshape(*delta.batch_shape, -1, x.shape[-1])  # (E, N, D_in)
        return output + _act(delta, grouped, anchors, x).reshape(output.shape).to(output.dtype)

    return add


def _act(delta: Delta, x: Tensor, anchors: Anchors | None, rows: Tensor | None = None) -> Tensor:
    """What a delta adds at inputs x, which may be ``rows`` (B, T, D_in) in groups."""
    if not isinstance(delta, Routed):
        return delta(x.to(delta.dtype))
    assert anchors is not None
    anchor = anchors.beside(x if rows is None else rows)
    return delta(x.to(delta.dtype), anchor.reshape(*x.shape[:-1], -1).to(delta.dtype))


@contextmanager
def applied(model: nn.Module, edits: Edits) -> Iterator[nn.Module]:
    """Apply edits to a model inside a ``with`` block.

    With batched deltas (leading shape (E,)) the rows of the input are taken as E
    groups of equal size, in order: rows [i*S, (i+1)*S) see delta i. Blocks may be
    nested; their deltas add up.

    Args:
        model: the model; any module that holds the sites by their names.
        edits: what to add.

    Yields:
        The same model.

    Raises:
        AttributeError: the model has no module of a site's name.
        ValueError: inside, on a forward pass whose rows do not fall into E equal groups; or edits
            are routed and the model does not show its tokens.

    Example:
        >>> from saledit.delta import LowRank
        >>> model, x = nn.Sequential(nn.Identity(), nn.Linear(2, 2)), torch.ones(1, 2)
        >>> edit = LowRank(u=torch.tensor([[1.0, 0.0]]), v=torch.tensor([[0.0, 5.0]]))
        >>> before = model(x)
        >>> with applied(model, Edits({Site("1", 2, 2): edit})):
        ...     after = model(x)
        >>> torch.allclose(after - before, torch.tensor([[0.0, 5.0]]))
        True
        >>> torch.equal(model(x), before)
        True
    """
    with ExitStack() as hooks:
        anchors = Anchors(model) if edits.are_routed else None
        for handle in anchors.register() if anchors is not None else ():
            hooks.callback(handle.remove)
        for site, delta in edits.items():
            module = model.get_submodule(site.name)
            hooks.callback(module.register_forward_hook(_hook(delta, anchors)).remove)
        yield model


class Snapshot:
    """The weights that a merge replaced, kept to take it back bit for bit."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self._weights = weights

    @torch.no_grad()
    def restore(self, model: nn.Module) -> None:
        """Put the old weights back."""
        for name, weight in self._weights.items():
            _weight(model, name).copy_(weight)


def _weight(model: nn.Module, name: str) -> Tensor:
    weight = model.get_submodule(name).weight
    assert isinstance(weight, Tensor)
    if weight.is_meta:
        raise UserError(
            f"merge: expected a model in memory, got one whose {name} is offloaded (model.stream); "
            "load it, or keep the edit as it is: --format delta or lora"
        )
    return weight


def _stored(site: Site, delta: Delta) -> Tensor:
    dense = delta.dense()
    return dense.mT if site.transposed else dense


@torch.no_grad()
def merge(model: nn.Module, edits: Edits) -> Snapshot:
    """Write edits into the weights, once, on request.

    Args:
        model: the model; its weights change.
        edits: unbatched edits.

    Returns:
        A snapshot whose ``restore`` undoes the merge exactly.

    Raises:
        ValueError: the edits are a batch of several.
        UserError: the edits are routed, or the model's weights are offloaded.

    Example:
        >>> from saledit.delta import LowRank
        >>> model = nn.Sequential(nn.Linear(2, 2))
        >>> weight = model[0].weight.clone()
        >>> edit = LowRank(u=torch.tensor([[1.0, 0.0]]), v=torch.tensor([[0.0, 5.0]]))
        >>> snapshot = merge(model, Edits({Site("0", 2, 2): edit}))
        >>> torch.equal(model[0].weight, weight)
        False
        >>> snapshot.restore(model)
        >>> torch.equal(model[0].weight, weight)
        True
    """
    if edits.batch_shape:
        raise ValueError(f"merge: expected one edit, got a batch of {tuple(edits.batch_shape)}")
    changes = {site: _stored(site, delta) for site, delta in edits.items()}  # all, or nothing
    kept = {site.name: _weight(model, site.name).clone() for site in edits}
    for site, change in changes.items():
        weight = _weight(model, site.name)
        # Summed in the wider dtype, rounded once.
        weight.copy_(weight + change.to(weight.device))
    return Snapshot(kept)
