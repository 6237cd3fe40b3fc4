"""Edits on top of edits: an editor that is trained for a sequence, without running one.

A model that was edited before is another one: its failures lose other amounts, along other
gradients, and what is spent on pass samples has been spent already. An editor that has only seen
the bare model makes steps there that grow from edit to edit. So the edits of a training batch are
laid on each other: each is made on top of some of the others, and is judged by what it leaves of
theirs as well as by its own.
"""

from __future__ import annotations

from functools import reduce

import torch

from saledit.delta import Edits
from saledit.editors.base import Editor
from saledit.editors.request import Request

# Shares of a step's number that run through all counts in no rhythm, nor in that of `looks.turn`.
_HOW_MANY, _WHICH = 2**0.5, 3**0.5


def n_earlier(step: int, most: int) -> int:
    """How many edits those of a step are on top of: each number up to the most as often.

    By the step's number alone, so that a run that was cut off goes on as it would have.
    """
    return int((step + 1) * _HOW_MANY % 1 * (most + 1))


def one_of(step: int, n: int) -> int:
    """Which of the n edits below it an edit is judged by, too, counted from the last, 1 to n."""
    return 1 + int((step + 1) * _WHICH % 1 * n)


def laid(editor: Editor, request: Request, n: int) -> Edits:
    """For each of a request's edits the sum of the n before it, in a circle: Edits (E,).

    As the editor makes them now of the bare model, each in one look, without search and graph.

    Args:
        editor: makes them, in the mode in which it is.
        request: E edits.
        n: edits beneath each, less than E.
    """
    assert 0 <= n < request.n_edits
    if not n:
        return Edits({})
    was_training = editor.training
    editor.eval()
    with torch.no_grad():
        steps: Edits = editor(request)
    editor.train(was_training)
    # Weights that autocast has cast without a graph would stay without one.
    torch.clear_autocast_cache()
    return reduce(Edits.__add__, (turned(steps, by) for by in range(1, n + 1)))


def turned(edits: Edits, by: int) -> Edits:
    """Edits (E,), each at the place that is so many behind its own, in a circle."""
    return edits.map(lambda part: part.roll(by, 0))


def upon(editor: Editor, request: Request, before: Edits) -> Request:
    """A request as it is of the model with edits (E,) that are made already.

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
