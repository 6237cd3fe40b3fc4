"""The tap: gradient factors of sites, without ever building a weight gradient.

For y = W x the gradient of a loss with respect to W is g^T u, with u the inputs
(tokens, D_in) and g the gradients at the outputs (tokens, D_out). The tap records
u in the forward pass and asks autograd for g alone, so nothing is written to any
``.grad`` and, with a frozen base, nothing below the lowest site is differentiated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from saledit.delta import LowRank
from saledit.site import Site


class Tape:
    """What a tap recorded in one forward pass."""

    def __init__(self, sites: Sequence[Site], n_rows: int = 0) -> None:
        self.sites, self._n_rows = tuple(sites), n_rows
        self.inputs: dict[Site, Tensor] = {}
        self.outputs: dict[Site, Tensor] = {}
        self._is_full = False

    def record(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """Keep a site's input; make its output a point that gradients reach."""
        # Below the lowest site everything is frozen, so y has no graph there: it
        # becomes a leaf. Above it y is part of the graph and is only remembered.
        if not y.requires_grad and torch.is_grad_enabled():
            y = y.detach().requires_grad_()
        # A block that runs again in the backward pass gives the same once more, with its graph.
        if not self._is_full:
            self.inputs[site], self.outputs[site] = self._by_row(x.detach()), y
        return y

    def _by_row(self, x: Tensor) -> Tensor:
        # OPT's blocks put all tokens of a batch into one dimension.
        return x.view(self._n_rows, -1, x.shape[-1]) if self._n_rows and x.dim() == 2 else x

    def factors(self, loss: Tensor, *, retain_graph: bool = False) -> dict[Site, LowRank]:
        """Gradient factors of a loss at every tapped site.

        Args:
            loss: scalar; a *sum* over rows gives each row its own gradient.
            retain_graph: keep the graph for a second call.

        Returns:
            For each site the pair u (B, T, D_in), v = g (B, T, D_out), whose product
            g^T u is the gradient of each row's loss.
        """
        self._is_full = True
        grads = torch.autograd.grad(
            loss, [self.outputs[site] for site in self.sites], retain_graph=retain_graph
        )
        return {
            site: LowRank(self.inputs[site], self._by_row(grad))
            for site, grad in zip(self.sites, grads, strict=True)
        }


@contextmanager
def tap(model: nn.Module, sites: Sequence[Site], n_rows: int = 0) -> Iterator[Tape]:
    """Record inputs and outputs of sites inside a ``with`` block.

    Args:
        model: the model, its parameters frozen (``requires_grad_(False)``).
        sites: where.
        n_rows: rows B of the batch, for models that flatten it; 0 where none does.

    Yields:
        The tape; after a forward pass call ``tape.factors(loss)``.
    """
    tape = Tape(sites, n_rows)

    def hook_for(site: Site) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]:
        return lambda _module, args, output: tape.record(site, args[0], output)

    with ExitStack() as hooks:
        for site in sites:
            module = model.get_submodule(site.name)
            hooks.callback(module.register_forward_hook(hook_for(site)).remove)
        yield tape
