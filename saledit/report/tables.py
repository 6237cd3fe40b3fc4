"""Results as tables: what ``fit``, ``test``, ``saliency`` and ``fix`` found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from saledit.report.look import (
    Look,
    clean,
    count,
    duration,
    heading,
    line,
    number,
    percent,
    points,
    widest,
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
    "spoken_fail_accuracy": ("fail accuracy, generated", percent),
    "spoken_adapt_accuracy": ("adapt accuracy, generated", percent),
    "spoken_edit_accuracy": ("edit accuracy, generated", percent),
    "spoken_drawdown": ("drawdown, generated", points),
}
_COLUMN_NAMES = {
    "mean_abs": "mean |grad|",
    "frobenius": "Frobenius",
    "weight_norm": "weight norm",
    "mended": "mended",
    "locality_kl": "KL on pass",
}
_PERCENT_COLUMNS = frozenset({"mended"})
_SPLITS = ("train", "validation", "test")
_MAX_ROWS = 10
_MAX_BROKEN = 5


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
    schedule = result["schedule"]
    where = f", layer {result['layer']}" if "layer" in result else ""
    yield line(
        heading(f"{result['editor']} on {result['base_model']['name']}"),
        f" ({result['task']}{where}): {count(result['n_edits'], 'edit')}, "
        f"{count(schedule['batch_size'], 'failure')} each, schedule {schedule['mode']}",
    )
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
            points(values.get("drawdown")),
            number(values.get("locality_kl")),
            style="bold",
        )
    yield table
    if "perplexity_before" in metrics:
        pair = [number(metrics.get(f"perplexity_{when}")) for when in ("before", "after")]
        yield line(
            "Perplexity of pass texts: ",
            f" {look.arrow} ".join(pair),
            f" ({percent(metrics.get('drawdown'))} more).",
        )
    if "fluency_before" in metrics:
        pair = [number(metrics.get(f"fluency_{when}")) for when in ("before", "after")]
        yield line("Fluency (n-gram entropy, bits): ", f" {look.arrow} ".join(pair), ".")
    yield from _by_kind(result.get("adapt_by_kind") or {}, look)
    yield from _costs(result)


def saliency_tables(result: Mapping[str, Any], look: Look) -> Iterator[RenderableType]:
    """What ``Saliency.as_json`` holds."""
    layers: Sequence[Mapping[str, Any]] = result["layers"]
    details = [key for key in layers[0] if key not in {"layer", "score", "final"}]
    uncertain = any(row.get("error") for row in layers)
    if not uncertain:
        details = [key for key in details if key != "error"]
    # The published score appears twice: as the score and as one of the details.
    details = [k for k in details if any(row.get(k) != row["score"] for row in layers)]
    rule = (
        "the top layer that is not clearly below the highest score is picked"
        if uncertain
        else "the highest score is picked"
    )
    yield line(heading("Layers"), f" by {result['method']}; {rule}")
    table = look.table("layer", "", "score", "", *(_COLUMN_NAMES.get(k, k) for k in details),
                       left=(1, 3))  # fmt: skip
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
            look.bar(share, columns, "green" if picked else "cyan"),
            *((percent if k in _PERCENT_COLUMNS else number)(row.get(k)) for k in details),
            style="bold" if picked else "",
        )
    yield table
    if any(not row.get("final", True) for row in layers):
        yield line("Rough: tried on a few failures only, and left out of the pick.")
    yield line(
        f"Cost: {number(round(result['forward_passes']))} forward and "
        f"{number(round(result['backward_passes']))} backward passes of one sample, "
        f"{duration(result['seconds'])}."
    )


def fix_tables(result: Mapping[str, Any], look: Look) -> Iterator[RenderableType]:
    """What ``run.fix`` returns."""
    fixed, wrong, n = result["n_fixed"], result["n_wrong_before"], result["n_failures"]
    yield line(
        heading(f"{fixed:,} of {count(wrong, 'failure')} fixed"),
        f" by an edit of layer {result['layer']}, {duration(result['seconds'])} in all.",
        f" {count(n - wrong, 'record was', 'records were')} right already." if n > wrong else "",
    )
    yield from before_after(result["rows"], look)
    check = result.get("check")
    if check is None:
        yield line("What else changed was not checked: name samples that must stay right, --check.")
    else:
        yield from _broken(check, look)
    yield line("The edit: ", Text(clean(result["out"]), style="bold"))


def before_after(
    rows: Sequence[Mapping[str, Any]], look: Look, most: int = _MAX_ROWS
) -> Iterator[RenderableType]:
    """Failures before and after the edit; where many, those that stay wrong are among them."""
    wrong = [row for row in rows if not was_right(row)] or list(rows)
    stay = {id(row) for row in [r for r in wrong if not r["fixed"]][: most // 2]}
    room = most - len(stay)
    shown = []
    for row in wrong:
        if id(row) in stay:
            shown.append(row)
        elif room > 0:
            shown.append(row)
            room -= 1
    shown = shown[:most]
    yield _answers(shown, look, [look.mark(bool(row["fixed"])) for row in shown])
    if len(wrong) > len(shown):
        yield line(f"... and {len(wrong) - len(shown):,} more (--json lists all).")
        yield line("")


def _answers(
    rows: Sequence[Mapping[str, Any]], look: Look, marks: Sequence[Text]
) -> RenderableType:
    """Inputs, right answer, answers before and after, and a mark."""
    keys = {"target": "right", "before": "before", "after": "after"}
    cap = max(8, (look.width - 34) // 3)
    widths = {k: widest([row[k] for row in rows], len(name), cap) for k, name in keys.items()}
    room = max(16, look.width - sum(widths.values()) - (8 if look.fancy else 10) - 3 * 4)
    table = look.table("input", *keys.values(), "", left=range(5))
    for row, mark in zip(rows, marks, strict=True):
        cells = [Text(look.cut(row[k], widths[k])) for k in keys]
        cells[1].stylize("green" if was_right(row) else "red")
        cells[2].stylize("green" if is_right(row) else "red")
        table.add_row(Text(look.inputs(row["inputs"], room)), *cells, mark)
    return table


def was_right(row: Mapping[str, Any]) -> bool:
    """Whether the answer before the edit was right; words may be right in other words."""
    return bool(row.get("was_right", row["before"] == row["target"]))


def is_right(row: Mapping[str, Any]) -> bool:
    """Whether the answer after the edit is right."""
    return bool(row.get("is_right", row["after"] == row["target"]))


def _broken(check: Mapping[str, Any], look: Look) -> Iterator[RenderableType]:
    if "perplexity_before" in check:
        texts = [number(check[f"perplexity_{when}"]) for when in ("before", "after")]
        yield line(
            heading("Check set"),
            f" of {count(check['n'], 'text')}: perplexity {f' {look.arrow} '.join(texts)}, "
            f"{percent(check['drawdown'])} more.",
        )
        return
    pair = f"{percent(check['accuracy_before'])} {look.arrow} {percent(check['accuracy_after'])}"
    yield line(
        heading("Check set"),
        f" of {count(check['n'], 'sample')}: accuracy {pair}, "
        f"drawdown {points(check['drawdown'])}.",
    )
    changed: Sequence[Mapping[str, Any]] = check["changed"]
    broken = [row for row in changed if was_right(row) and not is_right(row)]
    mended = sum(is_right(row) and not was_right(row) for row in changed)
    if mended:
        yield line(f"{count(mended, 'answer')} there became right.")
    if not broken:
        yield line("Nothing that was right broke.")
        return
    yield line(f"{count(len(broken), 'answer')} broke there (right before, wrong now):")
    shown = broken[:_MAX_BROKEN]
    yield _answers(shown, look, [Text("")] * len(shown))
    if len(broken) > len(shown):
        yield line(f"... and {len(broken) - len(shown):,} more (--json lists all).")


def _validation(values: Mapping[str, float], look: Look) -> RenderableType:
    table = look.table("metric", "value")
    names = [*(k for k in _METRICS if k in values), *(k for k in values if k not in _METRICS)]
    for name in names:
        title, shown = _METRICS.get(name, (name, number))
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
        parts.append(f"peak memory {number(round(memory['peak_rss_mb']))} MB")
    parts.append(f"seed {result['seed']}")
    text = "; ".join(parts)
    yield line(text[:1].upper() + text[1:] + ".")
