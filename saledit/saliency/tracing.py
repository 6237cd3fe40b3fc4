"""Causal tracing: which layer an answer hangs on, by breaking runs and mending them.

Two procedures go by this name.

``rome`` (Meng et al., NeurIPS 2022, section 2.1, and ``causal_trace.py`` of its code): noise of
three standard deviations is added to the embeddings of what the text is about, and then what a
window of layers gave in the clean run is put back at one token. The layer whose restoring brings
back most of the answer's probability, the indirect effect, is picked.

``masking`` is what SaLEM's article says of causal tracing for classifiers: the text is read token
by token (1, 1-2, 1-3, ...), and again with one layer masked, for every layer. The layer whose
masking takes most of the answer's probability is picked.

Both read questions that are answered rightly, and where these are few also what the model says to
others: of counterfactual data what it knows is never right. What is corrupted is the subject, as
published, where samples name one that stands in their text, and then no others are read; without
any, and what is read token by token, it is the text itself: all its tokens but the special ones, of
a causal model those of the prompt. An answer's probability is the geometric mean of its tokens',
without its end.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace

import torch

from saledit.config import SiteConfig
from saledit.errors import ConfigError, DataError
from saledit.models import TaskModel
from saledit.records import OWN, TEXT, Sample
from saledit.saliency.base import LayerScore, Probes, Saliency, check_name
from saledit.saliency.interventions import about, embedding_spread
from saledit.saliency.traced import TOKENS, Draws, Traced
from saledit.site import Layer
from saledit.tasks.base import Task, in_words
from saledit.tasks.batching import batches_by_length
from saledit.tasks.subjects import stands_in

PROTOCOLS = ("rome", "masking")
WHAT = ("mlp", "state")
AT = ("last", "all")
CORRUPT = ("subject", "text")
_BLOCKS, _WINDOW = 48, 10  # GPT-2 XL, and the window that it was traced with


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
        enough: right answers that suffice; with fewer the model's own words are read as well.
    """

    def __init__(
        self, protocol: str = "rome", what: str = "mlp", at: str = "last", noise: float = 3.0,
        draws: int = 10, window: int = 0, corrupt: str = "subject", enough: int = 32,
    ) -> None:  # fmt: skip
        self._protocol, self._what, self._at = protocol, what, at
        self._noise, self._draws, self._window = noise, draws, window
        self._corrupt, self._enough = corrupt, enough

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
        return cls(**asdict(trace), enough=config.samples)

    def readable(self, passing: Sequence[Sample]) -> Sequence[Sample]:
        """Questions, with a subject where it is what is corrupted; see ``Picker.readable``."""
        asked = [sample for sample in passing if sample.kind != TEXT]
        if not asked:
            raise DataError(
                "site.select: expected questions that are answered for causal-tracing, got "
                f"{len(passing)} passages; pick by trial-step, or name questions in data.locality"
            )
        if (self._protocol, self._corrupt) == ("rome", "subject"):
            asked = [s for s in asked if stands_in(s.subject, s.inputs)] or asked
        right = [sample for sample in asked if sample.kind != OWN]
        return right if len(right) >= self._enough else asked

    @torch.no_grad()
    def __call__(
        self, base: TaskModel, task: Task, layers: Sequence[Layer], probes: Probes
    ) -> Saliency:
        """Score every layer on the pass samples."""
        began = time.perf_counter()
        samples = list(probes.passing)
        if in_words(task):
            task = task.unended()  # the probability of an answer, as published, not of its end too
        if self._corrupt == "text":
            samples = [replace(sample, subject="") for sample in samples]
        effects = torch.zeros(len(samples), len(layers))
        clean, broken = torch.zeros(len(samples)), torch.zeros(len(samples))
        tracing = Traced(base, task, layers, (self._protocol, self._what) == ("rome", "state"))
        rome = self._protocol == "rome"
        spread = self._noise * embedding_spread(base, task, samples, TOKENS) if rome else 0.0
        passes = subjects = 0
        rows = len(layers) + 1
        for batch in batches_by_length(task, base, samples, max(1, TOKENS // rows)):
            seen = batch.encoded
            places = torch.tensor(batch.index)
            if rome:
                clean[places] = tracing.clean(seen)
                draws = Draws(spread, self._draws, batch.index)
                own, named = about(base, task, [samples[i] for i in batch.index], seen)
                subjects += named
                found = tracing.restored(seen, own, draws, self._width(base), self._at)
                passes += len(batch.index)
            else:
                found = tracing.masked(seen)
                clean[places] = torch.stack([one[-1, 0] for one in found])
            for i, one in zip(batch.index, found, strict=True):  # (V, 1 + L)
                change = one[:, 1:] - one[:, :1]
                effects[i] = (change if rome else -change).mean(0)
                broken[i] = one[:, 0].mean()
                passes += one.numel()
        errors = effects.std(0, unbiased=False) / max(1, len(samples)) ** 0.5
        # Published picks are those of the highest mean; the error is shown and has no say.
        means = effects.mean(0).tolist()
        scores = tuple(
            LayerScore(layer.index, mean, {"standard_error": error})
            for layer, mean, error in zip(layers, means, errors.tolist(), strict=True)
        )
        how = "while the text grows"
        if rome:
            texts = len(samples) - subjects
            where = ((subjects, "subjects"), (texts, "whole texts"))
            how = "with noise on " + " and ".join(f"{n} {what}" for n, what in where if n)
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
