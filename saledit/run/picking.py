"""Picking the layer: the first step of ``saledit fit``, and all of ``saledit saliency``."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from saledit import distributed
from saledit.cache.bank import BankSpec
from saledit.cache.opening import bank_key
from saledit.config import SiteConfig, TrainConfig
from saledit.errors import ArtifactError, ConfigError, did_you_mean
from saledit.files import keep_json, kept_json, write_json
from saledit.models.precision import precision_here
from saledit.registry import PICKERS, look_up
from saledit.report import saliency_figure, write_plot
from saledit.run.setup.placing import device_of
from saledit.run.setup.prepare import Prepared
from saledit.run.sweeping import JUDGES, forget, sweep, sweep_key, swept_layers
from saledit.saliency.base import TABLE, Picker, Probes, Saliency, check_name
from saledit.site import Layer

SWEEP = "sweep"  # trains editors, where the others read samples
_SCHEMA = 9  # of cached scores; to be raised with what a picker computes and how it picks
_MIXED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}  # Lightning's words
_BACKGROUND = 4  # pass samples for statistics, to one of each kind that is scored


def make_picker(config: SiteConfig, dtype: torch.dtype | None = None) -> Picker:
    """The layer picker that a configuration names.

    Args:
        config: the picker.
        dtype: type that trial steps are cast to; None for the weights' own.

    Raises:
        ConfigError: no such picker, or a setting that it does not have.
    """
    known = (*PICKERS, SWEEP, "fixed")
    if config.select not in known:
        raise ConfigError(
            f"site.select: unknown name '{config.select}'; {did_you_mean(config.select, known)}"
        )
    picker: Picker = look_up(PICKERS, config.select, "site.select").of(config, dtype)
    return picker


def check_site(config: SiteConfig, edits: int) -> None:
    """Refuse unknown names before anything is loaded.

    Args:
        config: the picker.
        edits: those of a validation, by which a sweep judges.

    Raises:
        ConfigError: no such picker or score, a layer beside a picker, or a sweep without edits.
    """
    if config.select == "fixed":
        return
    if config.select == SWEEP:
        if config.rung < 1:
            raise ConfigError(f"site.rung: expected at least 1 step, got {config.rung}")
        if edits < 1:
            raise ConfigError(
                f"train.validation_edits: expected at least 1, as site.select={SWEEP} judges "
                f"layers by them, got {edits}; e.g. {TrainConfig().validation_edits}"
            )
        check_name("site.judge", config.judge, JUDGES)
    else:
        make_picker(config)
    if config.layer != SiteConfig.layer:
        raise ConfigError(
            f"site.layer: expected none beside site.select={config.select}, got {config.layer}; "
            f"add site.select=fixed to edit layer {config.layer}, or leave site.layer out"
        )


def score_layers(prepared: Prepared) -> dict[str, Any]:
    """Score every layer on the training part, or by editors that are trained on it.

    What decides the scores is fingerprinted, so runs that share it share one table in the cache:
    of pickers that read samples the frozen base and the samples, whatever k, editor and loss.

    Returns:
        The table, see ``Saliency.as_json``; times are those of the call that made it.
    """
    site = prepared.config.site
    if site.select == "fixed":  # asked for by `saledit saliency` alone
        site = replace(site, select="trial-step")
    by_training = site.select == SWEEP
    key, score = (_swept if by_training else _probed)(prepared, site)
    kept = prepared.config.cache / f"layers-{key}.json"
    weights = prepared.base.weights
    with distributed.one_run_at_a_time(
        kept, in_step=weights.is_divided
    ):  # others wait for its table
        with contextlib.suppress(ArtifactError):
            table: dict[str, Any] = kept_json(kept, "layer scores")
            return table
        prepared.ui.stage(f"scoring {prepared.base.n_blocks} layers: {site.select}")
        table = weights.broadcast(score().as_json())
        if weights.writes:
            keep_json(kept, table)
            if by_training:
                forget(prepared)
    return table


#: A fingerprint, and what computes the scores that it stands for.
_Scoring = tuple[str, Callable[[], Saliency]]


def _swept(prepared: Prepared, site: SiteConfig) -> _Scoring:
    """Scores by training an editor at every layer."""
    layers = swept_layers(prepared.base, site)
    return sweep_key(prepared), lambda: sweep(prepared, layers)


def _probed(prepared: Prepared, site: SiteConfig) -> _Scoring:
    """Scores by a picker that reads a few samples of the training part."""
    trainer = prepared.config.trainer
    dtype = _MIXED.get(str(precision_here(trainer.get("precision"), device_of(trainer).type)))
    picker = make_picker(site, dtype)
    part, draws = prepared.train, torch.Generator().manual_seed(prepared.config.seed)
    passing = picker.readable(part.passing)
    fail = _draw(range(len(part.fail)), site.samples, draws)
    probes = Probes(
        [part.fail[i] for i in fail],
        [part.adapt[i][0] if part.adapt[i] else part.fail[i] for i in fail],
        _draw(passing, site.samples, draws),
        _draw(passing, _BACKGROUND * site.samples, draws),
    )
    layers = prepared.base.layers(site.maps)
    key = _key(prepared, site, layers, probes, dtype)
    return key, lambda: picker(prepared.base, prepared.task, layers, probes)


def _key(
    prepared: Prepared, config: SiteConfig, layers: Sequence[Layer], probes: Probes,
    dtype: torch.dtype | None,
) -> str:  # fmt: skip
    """Fingerprint of everything that the scores depend on."""
    kinds = (probes.fail, probes.adapt, probes.passing, probes.background)
    # Which layer a fixed choice names says nothing about the scores.
    settings = asdict(replace(config, layer=0, span=1, rung=0, halving=False))
    del settings["judge"]  # of sweeps
    head = [_SCHEMA, settings, str(dtype), [s.name for layer in layers for s in layer.sites]]
    spec = BankSpec(layers[0])
    head += [bank_key(prepared.base, prepared.task, samples, spec) for samples in kinds]
    # A picker may read what no bank holds: causal tracing corrupts subjects.
    head += [[sample.subject for sample in samples] for samples in kinds]
    return hashlib.blake2b(json.dumps(head).encode(), digest_size=16).hexdigest()


def pick_layer(prepared: Prepared) -> tuple[Layer, dict[str, Any] | None]:
    """The layer to edit, and the table it was picked from (None where it is fixed).

    The table is written into the run's folder. A resumed run finds the scores in the cache: the
    folder's table may be of a ``saledit saliency`` with other settings.

    Args:
        prepared: the task model and its samples.
    """
    config = prepared.config.site
    if config.select == "fixed":
        return prepared.base.layer(config.layer, config.maps, config.span), None
    table = score_layers(prepared)
    if distributed.is_main():
        save_saliency(prepared, table)
    distributed.barrier()
    # A pick near the input has fewer blocks below it.
    pick = int(table["pick"])
    return prepared.base.layer(pick, config.maps, min(config.span, pick + 1)), table


def save_saliency(prepared: Prepared, table: dict[str, Any]) -> None:
    """Write the table and its bar chart."""
    folder = prepared.config.folder
    write_plot(saliency_figure(table), folder / "saliency.png")
    write_json(folder / TABLE, table)  # the last: a run that finds it does not score again


def _draw(items: Sequence[Any] | range, count: int, draws: torch.Generator) -> list[Any]:
    order: list[int] = torch.randperm(len(items), generator=draws)[:count].tolist()
    return [items[i] for i in order]
