"""``site.select: sweep``: the configured editor, trained for a short time at every layer."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from saledit.artifact import make_editor
from saledit.config import RunConfig
from saledit.run.caching import banks_at, sum_moments, takes_moments
from saledit.run.prepare import Prepared
from saledit.run.training import LAST, train_at
from saledit.saliency.base import LayerScore, Saliency
from saledit.site import Layer

_SCHEMA = 1  # of cached scores; to be raised with what a sweep does
_FOREVER = 1_000_000  # rounds without a better state; none is stopped early


def sweep(prepared: Prepared, layers: Sequence[Layer]) -> Saliency:
    """Train the configured editor at each layer; the one that validates best is picked.

    Successive halving (Jamieson and Talwalkar, AISTATS 2016): in the first round an editor of every
    layer trains for ``site.rung`` steps; the better half goes on, from where it stands, until it
    has trained for twice as long, and so on until two are left. A layer's score is that of the
    validation that training goes by, edit accuracy - 4 x drawdown - KL; the test split is never
    read. An editor that is not trained (``locate``, ``step``) has one round, which is its
    validation at every layer. Rates do not decay: rounds would differ in it. Rounds that have ended
    are not run again after an interruption.

    Args:
        prepared: the task model and its samples.
        layers: the layers, from the input up.

    Returns:
        The table. Layers that a later round left out are rough.
    """
    began = time.perf_counter()
    site = prepared.config.site
    place = prepared.config.cache / f"sweep-{sweep_key(prepared)}"
    kept, scores, trained, judged = list(layers), dict[int, LayerScore](), 0.0, 0.0
    editor = make_editor(prepared.config.editor, layers[0].sites, prepared.base.embedding_size)
    # One that is not trained is the same after every round.
    rounds = n_rounds(len(layers)) if editor.is_trained else 1
    # The samples of all layers in one pass, which each layer's training then finds.
    moments = takes_moments(prepared, editor)
    banks_at(prepared, prepared.train, layers, moments, editor.needs_text)
    banks_at(prepared, prepared.validation, layers, texts=editor.needs_text)
    if editor.needs_moments:
        sum_moments(prepared, layers)
    for number in range(rounds):
        for layer in kept:
            config = _config(prepared.config, place, layer, number)
            resume = (config.folder / LAST).exists()
            found = train_at(prepared.of(config), layer, resume)["validation"]
            details = {name: found[name] for name in ("edit_accuracy", "drawdown")}
            steps = site.rung * 2**number
            scores[layer.index] = LayerScore(
                layer.index, found["score"], {"steps": float(steps), **details}, final=False
            )
            before = steps // 2 if number else 0
            share = (prepared.base.n_blocks - layer.index) / prepared.base.n_blocks
            trained += share * (steps - before) * editor.is_trained * _rows_a_step(prepared)
            judged += share * _rows_a_validation(prepared)
        if site.halving and number + 1 < rounds:
            kept.sort(key=lambda layer: scores[layer.index].score, reverse=True)
            kept = kept[: math.ceil(len(kept) / 2)]
    for layer in kept:
        scores[layer.index] = replace(scores[layer.index], final=True)
    shutil.rmtree(place, ignore_errors=True)
    name = f"sweep, {'halving' if site.halving else 'full'}, {site.rung} steps in the first round"
    return Saliency(
        name, tuple(scores[layer.index] for layer in layers), trained + judged, trained,
        time.perf_counter() - began,
    )  # fmt: skip


def n_rounds(n_layers: int) -> int:
    """Rounds until two layers are left."""
    return max(1, math.ceil(math.log2(n_layers)))


def sweep_key(prepared: Prepared) -> str:
    """Fingerprint of what a sweep depends on: the settings, the model, and the samples."""
    config = prepared.config
    # Which layer a fixed choice names says nothing about the scores.
    plain = replace(config, site=replace(config.site, layer=0, span=1))
    return f"{_SCHEMA}-{prepared.fingerprint(plain, prepared.train, prepared.validation)}"


def _config(config: RunConfig, place: Path, layer: Layer, number: int) -> RunConfig:
    """The run of a layer up to the end of a round."""
    # A round ends with a validation, and so does each one before it.
    train = replace(
        config.train, epochs=2**number, steps_per_epoch=config.site.rung, seconds=0.0,
        decay=False, patience=_FOREVER,
    )  # fmt: skip
    site = replace(config.site, select="fixed", layer=layer.index, span=1)
    # Below the cache, and with the same cache: what has been made for all layers is found there.
    name = str(place.relative_to(config.output) / f"layer-{layer.index}")
    trainer = {name: value for name, value in config.trainer.items() if name != "max_steps"}
    return replace(config, name=name, site=site, train=train, trainer=trainer)


def _rows_a_step(prepared: Prepared) -> int:
    train, k = prepared.config.train, prepared.config.schedule.batch_size
    return train.edits(k) * (2 * k + train.passes_per_edit)


def _rows_a_validation(prepared: Prepared) -> int:
    train, k = prepared.config.train, prepared.config.schedule.batch_size
    return train.validation_edits * (2 * k + train.validation_passes)
