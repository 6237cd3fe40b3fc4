"""``site.select: sweep``: the configured editor, trained for a short time at every layer."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback

from saledit.artifact import REVISION
from saledit.building import make_editor
from saledit.config import RunConfig, SiteConfig, TestConfig, TrainConfig
from saledit.data.datamodule import dealt_failures
from saledit.errors import ArtifactError, ConfigError, DivergedError, SiteError
from saledit.files import keep_json, kept_json
from saledit.models import TaskModel
from saledit.run.measures.preferences import PAIRS, Pairs, Preferences, pairs_of
from saledit.run.measures.validating import MEASURES, Preferred, S
from saledit.run.resuming import LAST
from saledit.run.setup.caching import (
    banks_at,
    learned_by,
    opener,
    plain_banks,
    sum_moments,
    takes_moments,
)
from saledit.run.setup.origins import corpus_digest
from saledit.run.setup.placing import place as put
from saledit.run.setup.prepare import Prepared
from saledit.run.training import train_at
from saledit.saliency.base import LayerScore, Saliency
from saledit.site import Layer
from saledit.tasks.base import in_words

_FOREVER = 1_000_000  # rounds without a better state; none is stopped early
_SHARES = ("edit_accuracy", "drawdown")
_JUDGES = {"validation": "score", "preference": S}  # which metric of a validation they read
JUDGES = tuple(_JUDGES)
_READ = ("train", "validation")  # parts of the data


def sweep(prepared: Prepared, layers: Sequence[Layer]) -> Saliency:
    """Train the configured editor at each layer; the one that validates best is picked.

    Successive halving (Jamieson and Talwalkar, AISTATS 2016): in the first round an editor of every
    layer trains for ``site.rung`` steps; the better half goes on, from where it stands, until it
    has trained for twice as long, and so on until two are left. A layer's score is that of the
    validation that training goes by, edit accuracy - 4 x drawdown - KL, or S of the same edits
    (``site.judge``), which is shown where records name rivals; the test split is never
    read. An editor that is not trained (``locate``, ``step``) has one round, which is its
    validation at every layer; what it searches or fits itself is in the seconds, not among the
    passes. Rates do not decay: rounds would differ in it. Rounds that have ended are not run again
    after an interruption.

    With ``site.span`` above 1 a layer is that many blocks, and goes by the number of the top one.

    Args:
        prepared: the task model and its samples.
        layers: the layers, from the input up, see ``swept_layers``.

    Returns:
        The table. Layers that a later round left out are rough, and one that the editor cannot
        edit is not in it.

    Raises:
        ConfigError: layers are to be judged by S, and records have no rivals for it.
        SiteError: the editor can edit none of them.
    """
    began = time.perf_counter()
    site = prepared.config.site
    place = _place(prepared)
    _ = prepared.learned_from  # once for the runs of all layers
    kept, scores, trained, judged = list(layers), dict[int, LayerScore](), 0.0, 0.0
    editor = make_editor(prepared.config.editor, layers[0].sites, prepared.base.embedding_size)
    # One that is not trained is the same after every round.
    rounds = n_rounds(len(layers)) if editor.is_trained else 1
    compared = _Compared(prepared)
    # The samples of all layers in one pass, which each layer's training then finds.
    moments = takes_moments(prepared, editor)
    banks_at(prepared, learned_by(prepared, editor), layers, editor, moments)
    banks_at(prepared, prepared.validation, layers, editor)
    if editor.needs_moments:
        sum_moments(prepared, layers, editor)
    compared.fill(layers)
    for number in range(rounds):
        for layer in list(kept):
            top = layer.index + site.span - 1
            try:
                found = _round(prepared, place, layer, number, compared)
            except (SiteError, DivergedError) as error:  # where it cannot edit there is no pick
                kept.remove(layer)
                if not kept:
                    raise
                put(prepared.base, prepared.config.trainer)  # a trainer that fails takes it back
                prepared.ui.stage(f"layer {top} is left out: {error}")
                continue
            steps = site.rung * 2**number
            details = {"steps": float(steps), **_details(found)}
            score = compared.score(found)
            scores[layer.index] = LayerScore(top, score, details, final=False)
            before = steps // 2 if number else 0
            share = (prepared.base.n_blocks - layer.index) / prepared.base.n_blocks
            trained += share * (steps - before) * editor.is_trained * _rows_a_step(prepared)
            judged += share * (_rows_a_validation(prepared) + compared.n_rows)
        if site.halving and number + 1 < rounds:
            # S is a share of few answers: of equal layers the top one goes on, as it is picked.
            kept.sort(key=lambda layer: (scores[layer.index].score, layer.index), reverse=True)
            kept = kept[: math.ceil(len(kept) / 2)]
    for layer in kept:
        scores[layer.index] = replace(scores[layer.index], final=True)
    name = "sweep, every layer tried once"
    if editor.is_trained:
        name = (
            f"sweep, {'halving' if site.halving else 'full'}, {site.rung} steps in the first round"
        )
    if site.judge == "preference":
        name += ", by S"
    rows = tuple(scores[layer.index] for layer in layers if layer.index in scores)
    return Saliency(name, rows, trained + judged, trained, time.perf_counter() - began)


def swept_layers(base: TaskModel, site: SiteConfig) -> tuple[Layer, ...]:
    """What a sweep tries: every run of ``site.span`` blocks, from the input up.

    Raises:
        SiteError: there are not so many blocks.
    """
    lowest = min(site.span, base.n_blocks) - 1
    return tuple(base.layer(i, site.maps, site.span) for i in range(lowest, base.n_blocks))


def _round(
    prepared: Prepared, place: Path, layer: Layer, number: int, compared: _Compared
) -> dict[str, float]:
    """The validation of a layer at the end of a round, which is kept for an interrupted sweep."""
    config = _config(prepared.config, place, layer, number)
    kept, own = config.folder / f"round-{number}.json", prepared.of(config)
    with suppress(ArtifactError):
        known: dict[str, float] = kept_json(kept, "the validation of a layer")
        return known
    further: dict[str, Any] = {"callbacks": compared.at(layer), "parts": _READ}
    try:
        result = train_at(own, layer, (config.folder / LAST).exists(), **further)
    except ArtifactError:  # what was cut off cannot be gone on with
        result = train_at(own, layer, False, **further)
    found: dict[str, float] = result["validation"]
    keep_json(kept, found)
    return found


def forget(prepared: Prepared) -> None:
    """Take away the editors of a sweep whose table is kept."""
    shutil.rmtree(_place(prepared), ignore_errors=True)


def _place(prepared: Prepared) -> Path:
    return prepared.config.cache / f"sweep-{sweep_key(prepared)}"


class _Compared:
    """Measures the validation edits of layers against rivals, where samples name any.

    Args:
        prepared: the task model and its samples.

    Raises:
        ConfigError: layers are to be judged by S, and the samples have no rivals for it.

    Attributes:
        n_rows: rows that are run for a layer.
    """

    def __init__(self, prepared: Prepared) -> None:
        self._prepared, config = prepared, prepared.config
        part = prepared.validation
        k, n = config.schedule.batch_size, config.train.validation_edits
        self._pairs, self.n_rows = Pairs([], [], []), 0
        if in_words(prepared.task):
            dealt = dealt_failures(len(part.fail), k, n, config.seed)
            self._pairs = pairs_of(part, {*dealt})
            self.n_rows = sum(2 * len(self._pairs.own[i]) for i in dealt)
        self._metric = _JUDGES[config.site.judge]
        if self._metric == S and not self._pairs.have_all_kinds:
            raise self._refused()

    def _refused(self) -> ConfigError:
        return ConfigError(
            "site.judge: expected failures, rewordings and locality prompts with a rival for "
            f"'preference', got none of some in {self._prepared.config.data.train}; name the "
            "fields in task.fields, or set site.judge=validation"
        )

    def fill(self, layers: Sequence[Layer]) -> None:
        """Get the samples of all layers ready in one pass."""
        task = self._prepared.task
        if in_words(task) and self._pairs.samples:
            plain_banks(self._prepared, task.unended(), self._pairs.samples, layers, PAIRS)

    def at(self, layer: Layer) -> list[Callback]:
        """What a trainer needs for it."""
        p, task = self._prepared, self._prepared.task
        if not self.n_rows or not in_words(task):
            return []
        return [Preferred(Preferences(p.base, task, self._pairs, opener(p, layer, PAIRS)))]

    def score(self, found: Mapping[str, float]) -> float:
        """What a layer is judged by, of its validation.

        Raises:
            ConfigError: S is not among it, as no answer of some kind was asked.
        """
        if self._metric not in found:
            raise self._refused()
        return found[self._metric]


def _details(found: Mapping[str, float]) -> dict[str, float]:
    """Of a validation, for the table: of text as spoken freely, as its score is."""
    shares = {name: found.get(f"generated_{name}", found[name]) for name in _SHARES}
    return shares | {name: found[name] for name in MEASURES if name in found}


def n_rounds(n_layers: int) -> int:
    """Rounds until two layers are left."""
    return max(1, math.ceil(math.log2(n_layers)))


def sweep_key(prepared: Prepared) -> str:
    """Fingerprint of what a sweep depends on: the settings, the model, and the samples."""
    config = prepared.config
    # Which layer a fixed choice names says nothing about the scores, nor does how long the run
    # trains in the end: one that is gone on with for longer finds them.
    # Nothing is tested, no edit comes on top of another, and where caches lie in changes no number.
    plain = replace(
        config, site=replace(config.site, layer=0), train=_rounds(config, 0),
        trainer=_without_end(config), model=replace(config.model, stream=False), test=TestConfig(),
        schedule=replace(config.schedule, cumulative=False),
        caches=replace(config.caches, memory_mb=0),
    )  # fmt: skip
    samples = prepared.fingerprint(plain, prepared.train, prepared.validation)
    parts = (str(REVISION), samples, corpus_digest(config.editor.moments))
    return "-".join(filter(None, parts))


def _config(config: RunConfig, place: Path, layer: Layer, number: int) -> RunConfig:
    """The run of a layer up to the end of a round."""
    top = layer.index + config.site.span - 1
    site = replace(config.site, select="fixed", layer=top)
    # Below the cache, and with the same cache: what has been made for all layers is found there.
    name = str(place.relative_to(config.output) / f"layer-{layer.index}")
    return replace(
        config, name=name, site=site, train=_rounds(config, number), trainer=_without_end(config)
    )


def _rounds(config: RunConfig, number: int) -> TrainConfig:
    """How a layer is trained up to the end of a round."""
    # A round ends with a validation, and so does each one before it.
    return replace(
        config.train, epochs=2**number, steps_per_epoch=config.site.rung, seconds=0.0,
        decay=False, patience=_FOREVER,
    )  # fmt: skip


def _without_end(config: RunConfig) -> dict[str, Any]:
    return {name: value for name, value in config.trainer.items() if name != "max_steps"}


def _rows_a_step(prepared: Prepared) -> int:
    train, k = prepared.config.train, prepared.config.schedule.batch_size
    return train.edits(k) * (2 * k + train.passes_per_edit)


def _rows_a_validation(prepared: Prepared) -> int:
    train, k = prepared.config.train, prepared.config.schedule.batch_size
    total = len(prepared.validation.passing)
    return train.validation_edits * (2 * k + min(train.validation_passes or total, total))
