"""Gradient descent on what an edit is made of, at edit time: nothing is learned beforehand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from saledit.delta import Edits
from saledit.editors.request import Request

_BETAS, _EPSILON = (0.9, 0.999), 1e-8


def _as_they_are(_values: Sequence[Tensor]) -> None:
    """No projection."""


@dataclass(frozen=True, slots=True)
class Descent:
    """Adam on edits, each from its start and by itself.

    Each edit minimises the mean loss of its own failures, plus ``kl`` times KL(base || edited) on
    held pass samples, and ends when that loss is ``enough``, or after ``steps``. All edits of a
    request go side by side.

    Attributes:
        steps: steps at most.
        rate: learning rate.
        kl: weight of the KL; above 0 the request must hold pass samples.
        enough: mean loss in nats at which an edit ends.
    """

    steps: int
    rate: float
    kl: float
    enough: float

    def __call__(
        self,
        request: Request,
        start: Sequence[Tensor],
        make: Callable[[Sequence[Tensor]], Edits],
        project: Callable[[Sequence[Tensor]], None] = _as_they_are,
    ) -> Edits:
        """Make the edits that are asked for.

        Args:
            request: E edits.
            start: what they begin from, (E, ...) each, edits that change nothing; changed in place.
            make: edits (E,) of such values.
            project: brings values back to where they may be, in place, after each step.

        Returns:
            Edits (E,), without gradient.
        """
        values = [value.requires_grad_() for value in start]
        with torch.enable_grad():
            adam = Adam(values, self.rate)
            for step in range(self.steps):
                # An autocast of the caller's keeps casts of values, which are changed in place.
                torch.clear_autocast_cache()
                edits = make(values)
                losses = request.losses(edits)
                going = request.broadcast(losses.detach() > self.enough)
                if not going.any():
                    break
                # Where nothing is changed the KL is at its least. What its gradient would be there
                # is rounding, of which Adam makes whole steps wherever the failures give none.
                restrained = self.kl > 0 and step > 0
                total = losses + self.kl * request.damage(edits) if restrained else losses
                gradients = torch.autograd.grad(total.sum(), values)
                with torch.no_grad():
                    adam.step(values, gradients, going)
                    project(values)
        return make([value.detach() for value in values])


class Adam:
    """Adam (Kingma and Ba, ICLR 2015) on tensors (E, ...), whose edits may end one by one.

    torch's own would go on moving an edit that has ended, by its moments.
    """

    def __init__(self, values: Sequence[Tensor], rate: float) -> None:
        self._rate, self._count = rate, 0
        self._first = [torch.zeros_like(value) for value in values]
        self._second = [torch.zeros_like(value) for value in values]

    def step(self, values: Sequence[Tensor], gradients: Sequence[Tensor], going: Tensor) -> None:
        """One step, in place, of the edits that go on: bool (E,).

        An edit that has ended stays where it is, whatever its gradient has come to.
        """
        self._count += 1
        (a, b), n = _BETAS, self._count
        for value, gradient, first, second in zip(
            values, gradients, self._first, self._second, strict=True
        ):
            first.lerp_(gradient, 1 - a)
            second.lerp_(gradient.square(), 1 - b)
            size = (second / (1 - b**n)).sqrt_().add_(_EPSILON)
            step = first / (1 - a**n) / size * -self._rate
            on = going.view(-1, *(1,) * (value.dim() - 1))
            value.add_(step.masked_fill(~on, 0))  # a product with 0 would keep a nan
