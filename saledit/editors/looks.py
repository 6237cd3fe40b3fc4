"""Edits of a request: an editor's steps, each from the model as those before have left it.

An editor makes one step from the gradients of the model that is to be edited. What that leaves
wrong it does not see. So it may look again: at the gradients of the model with the edit so far, of
the edits that have not mended their failures yet, and step once more.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saledit.delta import Edits
from saledit.editors.base import Editor
from saledit.editors.request import Request
from saledit.editors.stepping import StepSearch


def edits_for(editor: Editor, request: Request, search: StepSearch | None = None) -> Edits:
    """The edits (E,) that an editor makes, and its own change of the model.

    Args:
        editor: makes them.
        request: E edits.
        search: how far and how often each goes; None for the editor's own first step.
    """
    return editor.resident.expand(request.n_edits) + steps_for(editor, request, search)


def steps_for(editor: Editor, request: Request, search: StepSearch | None = None) -> Edits:
    """As ``edits_for``, without what is there before any edit.

    After each look but the last, edits whose failures still lose more than ``search.enough`` have
    another. One that leaves them more than it found is not made, and ends its edit.
    """
    steps = _step(editor, request, search)
    if search is None or search.looks == 1:
        return steps
    resident = editor.resident.detach()
    with torch.no_grad():
        losses = request.losses(resident.expand(request.n_edits) + steps)
        going = torch.ones_like(losses, dtype=torch.bool)
    for _ in range(search.looks - 1):
        # What is no number is looked at no more: it has no gradients.
        going = request.agreed(going & (losses > search.enough) & losses.isfinite())
        index = going.nonzero()[:, 0]
        if not len(index):
            break
        before = steps.map(lambda part, own=index: part[own])  # type: ignore[misc]
        present = resident.expand(len(index)) + before
        again = request.again(editor.sites, present, index).on_top(before)
        more = _step(editor, again, search)
        with torch.no_grad():
            left = again.losses(resident.expand(len(index)) + more)
        better = left < losses[index]
        steps = steps + _spread(more, index[better], request.n_edits, better)
        losses = losses.index_put((index,), torch.where(better, left, losses[index]))
        going = going.index_put((index,), better)
    return steps


def edits_of_look(editor: Editor, request: Request, look: int) -> Edits:
    """The edits (E,) that an editor makes in a look, differentiable in its step there.

    What training is on. The looks before it are made as the editor makes them now, without search
    and without graph, for all edits alike.

    Args:
        editor: makes them, in the mode in which it is.
        request: E edits.
        look: 0 for the first.
    """
    before, seen = None, request
    resident, every = editor.resident, torch.arange(request.n_edits)
    was_training = editor.training
    for _ in range(look):
        editor.eval()
        with torch.no_grad():
            step = editor(seen)
        editor.train(was_training)
        before = step if before is None else before + step
        present = resident.detach().expand(request.n_edits) + before
        seen = request.again(editor.sites, present, every).on_top(before)
    last: Edits = editor(seen)
    return resident.expand(request.n_edits) + (last if before is None else before + last)


def _step(editor: Editor, request: Request, search: StepSearch | None) -> Edits:
    """One look's edits (E,), at the lengths that are searched."""
    steps: Edits = editor(request)
    if search is None or search.is_off:
        return steps
    resident = editor.resident.expand(request.n_edits)
    return search(
        steps, lambda tried: request.losses(resident + tried),
        lambda tried: request.damage(resident + tried), request.agreed,
    )  # fmt: skip


def _spread(edits: Edits, places: Tensor, n: int, kept: Tensor) -> Edits:
    """Those edits that are kept, bool (E',), at their places (E'',) among n; zeros elsewhere."""

    def spread(part: Tensor) -> Tensor:
        at, own = places.to(part.device), kept.to(part.device)
        return part.new_zeros(n, *part.shape[1:]).index_copy(0, at, part[own])

    return edits.map(spread)
