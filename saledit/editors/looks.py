"""Edits of a request: an editor's steps, each from the model as those before have left it.

An editor makes one step from the gradients of the model that is to be edited. What that leaves
wrong it does not see. So it may look again: at the gradients of the model with the edit so far, of
the edits that have not mended their failures yet, and step once more.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from saledit.delta import Edits, LowRank
from saledit.editors.base import Editor
from saledit.editors.request import Request
from saledit.editors.stepping import StepSearch

_GOLDEN = (5**0.5 - 1) / 2


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
    steps, left = _step(editor, request, search)
    if search is None or search.looks == 1 or editor.looks_by_itself:
        return steps
    resident = editor.resident.detach()
    losses = _losses(request, resident, steps) if left is None else left
    going = torch.ones_like(losses, dtype=torch.bool)
    for _ in range(search.looks - 1):
        # What is no number is looked at no more: it has no gradients.
        going = request.broadcast(going & (losses > search.enough) & losses.isfinite())
        index = going.nonzero()[:, 0]
        if not len(index):
            break
        before = steps.map(lambda part, own=index: part[own])  # type: ignore[misc]
        present = resident.expand(len(index)) + before
        again = request.again(editor.sites, present, index).on_top(before)
        more, left = _step(editor, again, search)
        left = _losses(again, resident, more) if left is None else left
        better = left < losses[index]
        if bool(better.any()):
            steps = steps + _spread(more, index[better], request.n_edits, better)
        losses = losses.index_put((index,), torch.where(better, left, losses[index]))
        going = going.index_put((index,), better)
    return steps


def turn(step: int, looks: int) -> int:
    """Which look a step of training is on: each as often, in no rhythm.

    By the golden section, so that what is counted every few steps is not always of the same look;
    and by the step's number alone, so that a run that was cut off goes on as it would have.
    """
    return int((step + 1) * _GOLDEN % 1 * looks)


def edits_of_look(
    editor: Editor, request: Request, look: int, enough: float = 0.0, earlier: Edits | None = None
) -> Edits:
    """The edits (E,) that an editor makes in a look, differentiable in its step there.

    What training is on. The looks before it are made as the editor makes them now, without search
    and without graph; an edit that has mended its failures by then stays as it is.

    Args:
        editor: makes them, in the mode in which it is.
        request: E edits.
        look: 0 for the first.
        enough: mean loss of an edit's failures at which it has no further look.
        earlier: edits (E,) on top of which they are made, and which are among them.
    """
    look, n = 0 if editor.looks_by_itself else look, request.n_edits
    resident, before, going = editor.resident, earlier or Edits({}), None
    seen = upon(editor, request, before)
    was_training = editor.training
    for _ in range(look):
        editor.eval()
        with torch.no_grad():
            before = before + _of_those(editor(seen), going)
            present = resident.detach().expand(n) + before
            going = request.losses(present) > enough
        editor.train(was_training)
        seen = _of_those_alone(upon(editor, request, before), going)
    if look:
        # Weights that autocast has cast without a graph would stay without one.
        torch.clear_autocast_cache()
    return resident.expand(n) + before + _of_those(editor(seen), going)


def upon(editor: Editor, request: Request, before: Edits) -> Request:
    """A request as it is of the model with edits (E,) that are made already.

    What an edit may cost (``editor.bound``) is counted with what those before have cost; a session
    counts each alone.

    Args:
        editor: what looks at it.
        request: E edits, of the model without these.
        before: the edits; none leave it as it is.
    """
    if not before:
        return request
    if editor.looks_by_itself:  # at no gradients but those that it takes
        return request.on_top(before)
    n = request.n_edits
    present = editor.resident.detach().expand(n) + before
    return request.again(editor.sites, present, torch.arange(n)).on_top(before)


def _of_those(edits: Edits, going: Tensor | None) -> Edits:
    """The same edits (E,), with nothing of those that do not go on, bool (E,)."""
    return edits if going is None else edits * going.to(edits.tensors()[0].dtype)


def _of_those_alone(request: Request, going: Tensor) -> Request:
    """The same request without gradients of edits that end: no statistics learn of these."""
    on = going.to(request.gradients[0].u)[:, None, None]
    pairs = [LowRank(pair.u * on, pair.v * on) for pair in request.gradients]
    return replace(request, gradients=pairs)


def _step(
    editor: Editor, request: Request, search: StepSearch | None
) -> tuple[Edits, Tensor | None]:
    """One look's edits (E,), at the lengths that are searched; what they leave, if it was seen."""
    steps: Edits = editor(request)
    if search is None or search.is_off:
        return steps, None
    resident = editor.resident.expand(request.n_edits)
    return search.searched(
        steps, lambda tried: request.losses(resident + tried),
        lambda tried: request.damage(resident + tried), request.broadcast,
    )  # fmt: skip


@torch.no_grad()
def _losses(request: Request, resident: Edits, steps: Edits) -> Tensor:
    """Mean losses (E,) of the failures under what is there before any edit, and steps (E,)."""
    return request.losses(resident.expand(request.n_edits) + steps)


def _spread(edits: Edits, places: Tensor, n: int, kept: Tensor) -> Edits:
    """Those edits that are kept, bool (E',), at their places (E'',) among n; zeros elsewhere."""

    def spread(part: Tensor) -> Tensor:
        at, own = places.to(part.device), kept.to(part.device)
        return part.new_zeros(n, *part.shape[1:]).index_copy(0, at, part[own])

    return edits.map(spread)
