"""Edits on top of edits: an editor that is trained for a sequence, without running one.

A model that was edited before is another one: its failures lose other amounts, along other
gradients, and what is spent on pass samples has been spent already. An editor that has only seen
the bare model makes steps there that grow from edit to edit. So the edits of a training batch are
laid on each other: each is made on top of some of the others, and is judged by what it leaves of
theirs as well as by its own.
"""

from __future__ import annotations

import torch

from saledit.delta import Edits
from saledit.editors.base import Editor
from saledit.editors.looks import steps_for, upon
from saledit.editors.request import Request
from saledit.editors.stepping import StepSearch

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


def laid(editor: Editor, request: Request, n: int, search: StepSearch | None = None) -> Edits:
    """For each of a request's edits the n before it, in a circle, made one after the other.

    As a sequence makes them: each on top of those before it, as far and in as many looks as the
    search goes, without graph. All that are the i-th of some sequence are made at once.

    Args:
        editor: makes them, in the mode in which it is.
        request: E edits.
        n: edits beneath each, less than E.
        search: how far and how often each goes; None for the editor's own first step.

    Returns:
        Edits (E,).
    """
    assert 0 <= n < request.n_edits
    if not n:
        return Edits({})
    was_training, below = editor.training, Edits({})
    editor.eval()
    with torch.no_grad():
        for _ in range(n):
            steps = steps_for(editor, upon(editor, request, below), search)
            below = turned(below + steps.without(~steps.finite()), 1)  # what broke is not made
    editor.train(was_training)
    # Weights that autocast has cast without a graph would stay without one.
    torch.clear_autocast_cache()
    return below


def turned(edits: Edits, by: int) -> Edits:
    """Edits (E,), each at the place that is so many behind its own, in a circle."""
    return edits.map(lambda part: part.roll(by, 0))
