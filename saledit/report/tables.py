"""Results as tables: what ``fit``, ``test``, ``saliency`` and ``fix`` found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from saledit.report.look import (
    KINDS,
    PREFERENCES,
    Look,
    clean,
    count,
    drawdown,
    duration,
    heading,
    line,
    not_made,
    number,
    of_text,
    percent,
    points,
    sizes,
)

_METRICS = {
    "fail_accuracy": ("fail accuracy", percent),
    "adapt_accuracy": ("adapt accuracy", percent),
    "edit_accuracy": ("edit accuracy", percent),
    "pass_accuracy_before": ("pass accuracy before", percent),
    "pass_accuracy_after": ("pass accuracy after", percent),
    "drawdown": ("drawdown", points),
    "locality_kl": ("locality KL", number),
    "perplexity_before": ("perplexity before", number),
    "perplexity_after": ("perplexity after", number),
    "perplexity_rise": ("perplexity rise", number),
    "generated_fail_accuracy": ("fail accuracy, generated", percent),
    "generated_adapt_accuracy": ("adapt accuracy, generated", percent),
    "generated_edit_accuracy": ("edit accuracy, generated", percent),
    "generated_drawdown": ("drawdown, generated", points),
}
_COLUMN_NAMES = {
    "mean_abs": "mean |grad|",
    "frobenius": "Frobenius",
    "weight_norm": "weight norm",
    "mended": "mended",
    "locality_kl": "KL on pass",
    "edit_accuracy": "edit",
    **{name: PREFERENCES[name] for name in KINDS},
    "preference": "S",
}
_SHOWN = {
    **dict.fromkeys(("mended", "edit_accuracy", *KINDS, "preference"), percent),
    "drawdown": points,
}
_BESIDE_BARS = 4  # columns that leave room for bars
_SPLITS = ("train", "validation", "test")


def fit_tables(result: Mapping[str, Any], look: Look) -> Iterator[RenderableType]:
    """What ``run.fit`` returns."""
    splits = result["splits"]
    yield heading("Samples")
    table = look.table("split", "fail", "adapt", "pass")
    for name in (*_SPLITS, *(n for n in splits if n not in _SPLITS)):
        if name in splits:
            table.add_row(name, *(number(splits[name].get(k)) for k in ("fail", "adapt", "pass")))
    yield table
    yield from _kinds(splits, look)
    if result.get("saliency"):
        yield from saliency_tables(result["saliency"], look)
        yield line("")
    sites = look.cut(", ".join(result["sites"]), 2 * look.width)
    where = f" layer {result['layer']} (of 0 to {result['n_layers'] - 1}): {sites}"
    yield line(heading("Edited"), where)
    yield line("")
    if result["validation"]:
        yield heading("Validation, with the best editor")
        yield _validation(result["validation"], look)
    yield line(
        f"Trained {count(result['epochs'], 'epoch')} in {duration(result['train_seconds'])}, ",
        f"{number(round(result['edits_per_second'], 1))} edits/s; ",
        f"the editor has {count(result['editor_parameters'], 'parameter')}.",
    )
    yield line("Run folder: ", Text(clean(result["run"]), style="bold"))
    yield line("Next: ", Text(f"saledit test {clean(result['run'])}", style="cyan"))


def test_tables(result: Mapping[str, Any], look: Look) -> Iterator[RenderableType]:
    """What ``results.json`` holds."""
    metrics, bare = result["metrics"], result.get("unedited", {})
    where = f", layer {result['layer']}" if "layer" in result else ""
    yield line(
        heading(f"{result['editor']} on {result['base_model']['name']}"),
        f" ({result['task']}{where}): {sizes(result)}, schedule {result['schedule']['mode']}",
    )
    if told := not_made(result):
        yield Text(told, style="yellow")
    table = look.table("", "fail", "adapt", "edit", "pass", "drawdown", "locality KL")
    before = metrics.get("pass_accuracy_before", bare.get("pass_accuracy"))
    shares = ("fail_accuracy", "adapt_accuracy", "edit_accuracy")
    table.add_row("unedited", *(percent(bare.get(k)) for k in shares), percent(before), "-", "-")
    rows = {"edited": metrics}
    if isinstance(metrics.get("generated"), Mapping):
        rows["edited, generated"] = metrics["generated"]
    for name, values in rows.items():
        table.add_row(
            name,
            *(percent(values.get(k)) for k in (*shares, "pass_accuracy_after")),
            drawdown(values.get("drawdown"), of_text(values)),
            number(values.get("locality_kl")),
            style="bold",
        )
    yield table
    judged = rows.get("edited, generated", metrics)
    if "drawdown_decided" in judged:
        yield line(
            f"Of the pass samples {percent(judged['share_decided'])} are decided by more than a "
            f"tenth of a nat; drawdown among them: {points(judged['drawdown_decided'])}."
        )
    if "perplexity_before" in metrics:
        pair = [number(metrics.get(f"perplexity_{when}")) for when in ("before", "after")]
        yield line(
            "Perplexity of pass texts: ",
            f" {look.arrow} ".join(pair),
            f" ({drawdown(metrics.get('drawdown'), True)}).",
        )
    if "fluency_before" in metrics:
        pair = [number(metrics.get(f"fluency_{when}")) for when in ("before", "after")]
        yield line("Fluency (n-gram entropy, bits): ", f" {look.arrow} ".join(pair), ".")
    if "consistency_before" in metrics:
        pair = [number(metrics.get(f"consistency_{when}")) for when in ("before", "after")]
        yield line("Likeness to the references (tf-idf): ", f" {look.arrow} ".join(pair), ".")
    if "preference" in metrics:
        yield from _preferences(bare.get("preference") or {}, metrics["preference"], look)
    yield from _by_kind(result.get("adapt_by_kind") or {}, look)
    yield from _costs(result)


def report_tables(result: Mapping[str, Any], look: Look) -> Iterator[RenderableType]:
    """What ``run.report`` returns."""
    del look
    size = number(round(result["megabytes"], 2))
    yield line(heading(clean(result["title"])), f": one page of {size} MB, open it in a browser")
    yield line("Page: ", Text(clean(result["page"]), style="bold"))
    if result["plots"]:
        yield line("Figures: ", ", ".join(result["plots"]))


def _preferences(
    bare: Mapping[str, Any], found: Mapping[str, Any], look: Look
) -> Iterator[RenderableType]:
    names = [name for name in PREFERENCES if name in found]
    table = look.table("likelier than its rival", *(PREFERENCES[name] for name in names))
    for label, values in (("unedited", bare), ("edited", found)):
        table.add_row(label, *(percent(values.get(name)) for name in names))
    yield table


def saliency_tables(result: Mapping[str, Any], look: Look) -> Iterator[RenderableType]:
    """What ``Saliency.as_json`` holds."""
    layers: Sequence[Mapping[str, Any]] = result["layers"]
    details = [key for key in layers[0] if key not in {"layer", "score", "final"}]
    uncertain = any(row.get("error") for row in layers)
    if not uncertain:
        details = [key for key in details if key != "error"]
    # The published score appears twice: as the score and as one of the details.
    details = [k for k in details if any(row.get(k) != row["score"] for row in layers)]
    # An editor that is not trained has as many steps everywhere.
    if len({row.get("steps") for row in layers}) == 1:
        details = [k for k in details if k != "steps"]
    rule = (
        "the top layer that is not clearly below the highest score is picked"
        if uncertain
        else "the highest score is picked"
    )
    yield line(heading("Layers"), f" by {result['method']}; {rule}")
    has_bars = len(details) <= _BESIDE_BARS
    bars = ("",) if has_bars else ()
    names = (_COLUMN_NAMES.get(k, k) for k in details)
    table = look.table("layer", "", "score", *bars, *names, left=(1, 3) if has_bars else (1,))
    scores = [row["score"] for row in layers]
    top, low = max(scores), min(scores)
    # Scores below zero get no bar, unless all of them are.
    floor = 0.0 if top > 0 else low
    columns = max(8, min(24, look.width - 30 - 13 * len(details)))
    for row in layers:
        picked = row["layer"] == result["pick"]
        rough = not row.get("final", True)
        share = (row["score"] - floor) / (top - floor) if top > floor else 0.0
        table.add_row(
            str(row["layer"]),
            Text("◀ picked" if look.fancy else "picked", style="bold green")
            if picked
            else Text("rough" if rough else "", style="dim"),
            number(row["score"]),
            *([look.bar(share, columns, "green" if picked else "cyan")] if has_bars else []),
            *(_SHOWN.get(k, number)(row.get(k)) for k in details),
            style="bold" if picked else "",
        )
    yield table
    if any(not row.get("final", True) for row in layers):
        tried = (
            "trained for fewer steps" if "steps" in layers[0] else "tried on a few failures only"
        )
        yield line(f"Rough: {tried}, and left out of the pick.")
    yield line(
        f"Cost: {number(round(result['forward_passes']))} forward and "
        f"{number(round(result['backward_passes']))} backward passes of one sample, "
        f"{duration(result['seconds'])}."
    )


def _validation(values: Mapping[str, float], look: Look) -> RenderableType:
    table = look.table("metric", "value")
    names = [*(k for k in _METRICS if k in values), *(k for k in values if k not in _METRICS)]
    for name in names:
        title, shown = _METRICS.get(name, (name, number))
        if shown is points:
            shown = partial(drawdown, text=of_text(values))
        table.add_row(clean(title), shown(values[name]))
    return table


def _kinds(splits: Mapping[str, Any], look: Look) -> Iterator[RenderableType]:
    present = [name for name in _SPLITS if name in splits]
    kinds = sorted({kind for name in present for kind in splits[name].get("adapt_kinds") or {}})
    if not kinds:
        return
    yield heading("Rewordings (adapt) by kind")
    table = look.table("kind", *present)
    for kind in kinds:
        table.add_row(
            Text(look.cut(kind, 32)),
            *(number((splits[name].get("adapt_kinds") or {}).get(kind, 0)) for name in present),
        )
    yield table


def _by_kind(kinds: Mapping[str, Mapping[str, float]], look: Look) -> Iterator[RenderableType]:
    if not kinds:
        return
    yield heading("Rewordings by kind, after the edit")
    table = look.table("kind", "accuracy", "n", "", left=(0, 3))
    for kind, row in kinds.items():
        bar = look.bar(row["accuracy"], 24)
        table.add_row(Text(look.cut(kind, 32)), percent(row["accuracy"]), number(row["n"]), bar)
    yield table


def _costs(result: Mapping[str, Any]) -> Iterator[RenderableType]:
    timing, memory = result.get("timing") or {}, result.get("memory") or {}
    parts = []
    if "train_seconds" in timing:
        speed = timing.get("edits_per_second")
        rate = f" at {number(round(speed, 1))} edits/s" if speed is not None else ""
        parts.append(f"trained in {duration(timing['train_seconds'])}{rate}")
    if "fix_seconds_per_edit" in timing:
        parts.append(f"{duration(timing['fix_seconds_per_edit'])} for one edit")
    if "peak_rss_mb" in memory:
        shared = memory.get("setup_rss_mb")
        before = "" if shared is None else f" ({number(round(shared))} MB to set up)"
        parts.append(f"peak memory {number(round(memory['peak_rss_mb']))} MB{before}")
    parts.append(f"seed {result['seed']}")
    text = "; ".join(parts)
    yield line(text[:1].upper() + text[1:] + ".")
