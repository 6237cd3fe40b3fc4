"""The size of an editor's first steps, found by trial."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from saledit.data.episodes import EditBatch
from saledit.delta import Edits
from saledit.editors.looks import edits_for
from saledit.module import EditModule
from saledit.outcomes import n_parts

RATES = tuple(0.1 * 2**i for i in range(11))  # 0.1 ... 102


@torch.no_grad()
def calibrate(
    module: EditModule,
    batches: Iterable[EditBatch],
    grid: Iterable[float] = RATES,
    told: Callable[[int], None] = lambda done: None,
) -> float:
    """Set the editor's first edit rate by trial steps.

    The step that mends a failure differs by an order of magnitude between layers, and
    an overshoot ruins both the fix and the locality. So the untrained editor is tried at several
    rates, and the one with the least training loss is kept.

    Args:
        module: holds the primed editor; its rate is changed in place.
        batches: a few training batches.
        grid: factors on the present rate.
        told: given how many of them have been tried, after each.

    Returns:
        The chosen factor.
    """
    module.eval()
    grid, batches = list(grid), list(batches)
    losses, so_far = [], 1.0
    for done, factor in enumerate(grid, start=1):
        module.editor.scale_rate(factor / so_far)
        so_far = factor
        tried = [edits_for(module.editor, module.request(batch)) for batch in batches]
        seen = [_loss(module, e, b) for e, b in zip(tried, batches, strict=True)]
        losses.append(torch.stack(seen).mean())
        told(done)
    best = grid[int(torch.stack(losses).nan_to_num(torch.inf).argmin())]
    module.editor.scale_rate(best / so_far)
    module.train()
    return best


def _loss(module: EditModule, edits: Edits, batch: EditBatch) -> Tensor:
    """The loss of edits, gone through in parts where training would be."""
    n = n_parts(module.base, batch)
    if n == 1:
        return module.loss_of(edits, batch)[0]
    parts = [
        module.loss_of(edits, cut.batch, cut.share, cut.pass_share)[0] for cut in batch.parts(n)
    ]
    return torch.stack(parts).sum()
