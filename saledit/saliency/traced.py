"""Runs of which each row is changed in its own way, and what probability answers have in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from saledit.forward.places import changed
from saledit.forward.scoring import forward
from saledit.models import SEQ2SEQ, TaskModel
from saledit.saliency.interventions import beginning, content, noised, rows_of
from saledit.site import Layer
from saledit.tasks.base import Encoded, Task

TOKENS = 8192  # padded tokens a run

#: Changes what a layer gives, (R, T, D) -> (R, T, D), by its number.
_Change = Callable[[int, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Draws:
    """Draws of the noise, for each text its own, so that it is the same whatever the batches are.

    Attributes:
        spread: their standard deviation.
        count: draws V of a text.
        seeds: of the texts (B,).
    """

    spread: float
    count: int
    seeds: Sequence[int]

    def of(self, number: int, tokens: int, size: int) -> Tensor:
        """The draws of a text (V, tokens, size)."""
        generator = torch.Generator().manual_seed(self.seeds[number])
        return self.spread * torch.randn((self.count, tokens, size), generator=generator)


class Traced:
    """Probabilities of right answers in runs of which each row is changed in its own way."""

    def __init__(
        self, base: TaskModel, task: Task, layers: Sequence[Layer], of_blocks: bool
    ) -> None:
        self.base, self._task, self._layers = base, task, layers
        names = [
            base.block_name(layer.index) if of_blocks else layer.sites[-1].name for layer in layers
        ]
        self._modules = [base.model.get_submodule(name) for name in names]

    def clean(self, seen: Encoded) -> Tensor:
        """Probabilities (B,) in an ordinary run, whose states are kept for ``restored``."""
        self._kept: list[Tensor] = [torch.empty(0)] * len(self._layers)

        def keep(layer: int, x: Tensor) -> Tensor:
            self._kept[layer] = x
            return x

        return self._run(seen, keep)

    def restored(
        self, seen: Encoded, own: Tensor, draws: Draws, window: int, at: str
    ) -> list[Tensor]:
        """Probabilities under noise, and with a window of layers put back.

        Args:
            seen: B samples, of which ``clean`` was run.
            own: what is corrupted, bool (B, T).
            draws: of the noise on each text.
            window: layers put back together.
            at: "last" or "all".

        Returns:
            For each sample (V, 1 + L): with nothing restored, and about each layer.
        """
        places = self._places(seen, own, at)  # (B, T of the stack)
        n_layers, n_draws, size = len(self._layers), draws.count, self.base.embedding_size
        noise = [draws.of(b, n, size) for b, n in enumerate(own.sum(1).tolist())]
        numbers = torch.arange(n_layers)
        low = (numbers - window // 2)[:, None]
        covered = (numbers >= low) & (numbers < low + window)  # (scored, restored)
        covered = torch.cat([covered.new_zeros(1, n_layers), covered])  # nothing, then each
        rows = torch.cartesian_prod(
            torch.arange(len(own)), torch.arange(n_draws), torch.arange(n_layers + 1)
        )
        found = []
        for part in torch.split(rows, max(1, TOKENS // own.shape[1])):
            of, draw, scored = part.unbind(1)
            picked = rows_of(seen, of)
            added = torch.zeros(*picked.inputs["input_ids"].shape, size)
            added[own[of].cpu()] = torch.cat(
                [noise[b][v] for b, v in zip(of.tolist(), draw.tolist(), strict=True)]
            )
            here, back = places[of], covered[scored]

            def restore(
                layer: int, x: Tensor, of: Tensor = of, here: Tensor = here, back: Tensor = back
            ) -> Tensor:
                chosen = here & back[:, layer, None].to(here.device)
                return torch.where(chosen[..., None], self._kept[layer][of], x)

            with noised(self.base, added.to(self.base.device)):
                found.append(self._run(picked, restore))
        together = torch.cat(found).view(len(own), n_draws, n_layers + 1)
        return list(together)

    def masked(self, seen: Encoded) -> list[Tensor]:
        """Probabilities of growing beginnings of the text, and of the same without each layer.

        Returns:
            For each sample (V, 1 + L), V tokens: with all layers, and without each.
        """
        own = content(self.base, seen)
        lengths = own.sum(1).tolist()
        n_layers = len(self._layers)
        rows = torch.cat(
            [
                torch.cartesian_prod(
                    torch.tensor([b]), torch.arange(1, n + 1), torch.arange(n_layers + 1)
                )
                for b, n in enumerate(lengths)
            ]
        )
        found = []
        for part in torch.split(rows, max(1, TOKENS // own.shape[1])):
            of, length, without = part.unbind(1)
            read = beginning(self.base, rows_of(seen, of), own[of], length.to(own.device))

            def mask(layer: int, x: Tensor, without: Tensor = without) -> Tensor:
                left_out = (without == layer + 1).to(x.device)[:, None, None]
                return x.masked_fill(left_out, 0.0)

            found.append(self._run(read, mask))
        parts = torch.split(torch.cat(found), [n * (n_layers + 1) for n in lengths])
        return [part.view(-1, n_layers + 1) for part in parts]

    def _places(self, seen: Encoded, own: Tensor, at: str) -> Tensor:
        """Where something is put back: bool (B, T of the edited stack)."""
        if self.base.kind == SEQ2SEQ and not self.base.in_encoder:
            assert seen.at is not None
            shown = torch.ones_like(seen.inputs["decoder_input_ids"], dtype=torch.bool)
            if at == "all":
                return shown
            return torch.arange(shown.shape[1], device=shown.device) == seen.at[:, :1]
        if at == "all":
            return seen.inputs["attention_mask"].bool()
        numbers = torch.arange(own.shape[1], device=own.device)
        return numbers == (own * numbers).amax(1, keepdim=True)

    def _run(self, seen: Encoded, change: _Change) -> Tensor:
        """Probability (R,) of each row's answer, of text the geometric mean of its tokens'."""
        with ExitStack() as hooks:
            for number, module in enumerate(self._modules):
                own = partial(_at_layer, change, number)
                hooks.enter_context(changed(module, len(seen.targets), own))
            outputs = forward(self.base, seen.inputs, seen.at)
        logits = self._task.logits(self.base, outputs, seen.targets)
        return (-self._task.losses(self.base, logits, seen.targets)).exp().float().cpu()


def _at_layer(change: _Change, number: int, _given: Tensor, gives: Tensor) -> Tensor:
    return change(number, gives)
