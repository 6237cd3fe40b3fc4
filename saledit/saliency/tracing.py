"""Causal tracing: which layer an answer hangs on, by breaking runs and mending them.

Two procedures go by this name.

``rome`` (Meng et al., NeurIPS 2022, section 2.1, and ``causal_trace.py`` of its code): noise of
three standard deviations is added to the embeddings of what the text is about, and then what a
window of layers gave in the clean run is put back at one token. The layer whose restoring brings
back most of the answer's probability, the indirect effect, is picked.

``masking`` is what SaLEM's article says of causal tracing for classifiers: the text is read token
by token (1, 1-2, 1-3, ...), and again with one layer masked, for every layer. The layer whose
masking takes most of the answer's probability is picked.

Both read samples that are answered well. What is corrupted is the subject, as published, where a
sample names one that stands in its text; of others, and what is read token by token, is the text
itself: all its tokens but the special ones, of a causal model those of the prompt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch
from torch import Tensor

from saledit.config import SiteConfig
from saledit.errors import ConfigError
from saledit.forward.places import changed
from saledit.forward.scoring import forward
from saledit.models import SEQ2SEQ, TaskModel
from saledit.saliency.base import LayerScore, Probes, Saliency, check_name
from saledit.saliency.interventions import (
    about,
    beginning,
    content,
    embedding_spread,
    noised,
    rows_of,
)
from saledit.site import Layer
from saledit.tasks.base import Encoded, Task
from saledit.tasks.batching import batches_by_length

PROTOCOLS = ("rome", "masking")
WHAT = ("mlp", "state")
AT = ("last", "all")
CORRUPT = ("subject", "text")
_BLOCKS, _WINDOW = 48, 10  # GPT-2 XL, and the window that it was traced with
_TOKENS = 8192  # padded tokens a run

#: Changes what a layer gives, (R, T, D) -> (R, T, D), by its number.
_Change = Callable[[int, Tensor], Tensor]


class CausalTracing:
    """Scores layers by what they do for answers that are right.

    Args:
        protocol: ``rome`` or ``masking``.
        what: of ``rome``: what is put back, "mlp" (what the layer's last map gives) or "state"
            (what the block gives).
        at: of ``rome``: where, at the "last" corrupted token (as published) or at "all" tokens of
            the row; in the decoder of an encoder-decoder the first scored position, or all.
        noise: of ``rome``: standard deviations of the corrupted tokens' embeddings.
        draws: of ``rome``: draws of the noise.
        window: of ``rome``: layers restored together, about the scored one; 0 for the published
            share of the model (10 of 48), 1 for "state".
        corrupt: of ``rome``: "subject", where a sample names one, or all of its "text".
    """

    def __init__(
        self, protocol: str = "rome", what: str = "mlp", at: str = "last", noise: float = 3.0,
        draws: int = 10, window: int = 0, corrupt: str = "subject",
    ) -> None:  # fmt: skip
        self._protocol, self._what, self._at = protocol, what, at
        self._noise, self._draws, self._window = noise, draws, window
        self._corrupt = corrupt

    @classmethod
    def of(cls, config: SiteConfig, dtype: torch.dtype | None = None) -> CausalTracing:
        """See ``Picker.of``; runs are never cast."""
        trace = config.trace
        names = {"protocol": PROTOCOLS, "what": WHAT, "at": AT, "corrupt": CORRUPT}
        for key, known in names.items():
            check_name(f"site.trace.{key}", getattr(trace, key), known)
        for key, least in (("draws", 1), ("window", 0)):
            if (value := getattr(trace, key)) < least:
                raise ConfigError(f"site.trace.{key}: expected at least {least}, got {value}")
        if not trace.noise > 0:
            raise ConfigError(f"site.trace.noise: expected a number above 0, got {trace.noise:g}")
        return cls(**asdict(trace))

    @torch.no_grad()
    def __call__(
        self, base: TaskModel, task: Task, layers: Sequence[Layer], probes: Probes
    ) -> Saliency:
        """Score every layer on the pass samples."""
        began = time.perf_counter()
        samples = list(probes.passing)
        if self._corrupt == "text":
            samples = [replace(sample, subject="") for sample in samples]
        effects = torch.zeros(len(samples), len(layers))
        clean, broken = torch.zeros(len(samples)), torch.zeros(len(samples))
        tracing = _Tracing(base, task, layers, (self._protocol, self._what) == ("rome", "state"))
        spread = self._noise * embedding_spread(base, task, samples, _TOKENS)
        passes = 0
        rows = len(layers) + 1
        for batch in batches_by_length(task, base, samples, max(1, _TOKENS // rows)):
            seen = batch.encoded
            places = torch.tensor(batch.index)
            if self._protocol == "rome":
                clean[places] = tracing.clean(seen)
                draws = _Draws(spread, self._draws, batch.index)
                own = about(base, task, [samples[i] for i in batch.index], seen)
                found = tracing.restored(seen, own, draws, self._width(base), self._at)
                passes += len(batch.index)
            else:
                found = tracing.masked(seen)
                clean[places] = torch.stack([one[-1, 0] for one in found])
            for i, one in zip(batch.index, found, strict=True):  # (V, 1 + L)
                change = one[:, 1:] - one[:, :1]
                effects[i] = (change if self._protocol == "rome" else -change).mean(0)
                broken[i] = one[:, 0].mean()
                passes += one.numel()
        errors = effects.std(0, unbiased=False) / max(1, len(samples)) ** 0.5
        # Published picks are those of the highest mean; the error is shown and has no say.
        means = effects.mean(0).tolist()
        scores = tuple(
            LayerScore(layer.index, mean, {"standard_error": error})
            for layer, mean, error in zip(layers, means, errors.tolist(), strict=True)
        )
        how = "with noise" if self._protocol == "rome" else "while the text grows"
        return Saliency(
            f"{self._name(base)}; probability {clean.mean():.3f}, {broken.mean():.3f} {how}",
            scores, float(passes), 0.0, time.perf_counter() - began,
        )  # fmt: skip

    def _name(self, base: TaskModel) -> str:
        if self._protocol == "masking":
            return "causal tracing, masking"
        return (
            f"causal tracing, rome: {self._what} of {self._width(base)} at {self._at}, "
            f"{self._draws} x noise {self._noise:g}"
        )

    def _width(self, base: TaskModel) -> int:
        if self._window:
            return self._window
        return 1 if self._what == "state" else max(1, round(base.n_blocks * _WINDOW / _BLOCKS))


@dataclass(frozen=True, slots=True)
class _Draws:
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


class _Tracing:
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
        self, seen: Encoded, own: Tensor, draws: _Draws, window: int, at: str
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
        for part in torch.split(rows, max(1, _TOKENS // own.shape[1])):
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
        for part in torch.split(rows, max(1, _TOKENS // own.shape[1])):
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
