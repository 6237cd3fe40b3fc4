"""The newcomer's story: what ``saledit quickstart`` did and found, in a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from saledit.report.fixes import before_after, is_right, was_right
from saledit.report.look import Look, clean, count, duration, heading, line, number, percent, points

_FILES = (
    ("editor.safetensors", "the trained editor"),
    ("results.json", "all numbers of the test"),
    ("saliency.png", "the score of every layer"),
    ("config.yaml", "what was run, to change and run again"),
    ("failures.jsonl", "the failures above, as an example of the format"),
    ("fixed", "the edit that mends them"),
)


def quickstart_story(result: Mapping[str, Any], look: Look) -> Iterator[RenderableType]:
    """What ``run.quickstart`` returns."""
    fitted, tested, fixed = result["fit"], result["test"], result["fix"]
    name, counts = clean(fitted["base_model"]["name"]), tested.get("counts") or {}
    n_fail = counts.get("fail", fitted["splits"]["test"]["fail"])
    yield line("")
    yield line(heading("1. The failures"))
    yield line(
        f"{name} gets some answers wrong. {n_fail:,} of its failures were kept apart for the "
        "test; the editor was trained on others. "
        f"Here are {fixed['n_wrong_before']:,} of them, before and after an edit:"
    )
    yield from before_after(fixed["rows"], look)
    yield line(
        f"{fixed['n_fixed']} of {fixed['n_wrong_before']} are fixed. ", _check(fixed.get("check"))
    )
    yield line("")
    yield line(heading("2. Where it was edited"))
    yield line(layer_sentence(fitted))
    yield line("")
    yield line(heading("3. What it mends, what it breaks"))
    yield _numbers(tested, look)
    yield line(_edit_sentence(tested))
    yield line(_drawdown_sentence(tested))
    yield line("")
    yield line(heading("4. Where the files are"))
    folder = PurePath(fitted["run"])
    yield line("In ", Text(clean(folder), style="bold"), ":")
    for file, what in _FILES:
        yield Text(f"  {file:<20}", style="cyan").append(what, style="default")
    yield line("")
    yield line(heading("5. What to try next"))
    for command in result["next"]:
        yield Text("  " + clean(command), style="cyan", no_wrap=True, overflow="ignore")
    yield line("")
    yield line(
        f"All in {duration(result['seconds'])}, of which {duration(fitted['train_seconds'])} was "
        f"training ({number(round(fitted['edits_per_second'], 1))} edits/s).",
    )


def layer_sentence(fitted: Mapping[str, Any]) -> str:
    """Which layer was edited, and why, in one sentence.

    Args:
        fitted: what ``run.fit`` returns.
    """
    table = fitted.get("saliency")
    layer = table["pick"] if table else fitted["layer"]  # the top one of several blocks
    start = f"Layer {layer} (of 0 to {fitted['n_layers'] - 1}, from the input up)"
    if not table:
        return f"{start} was edited because the configuration says so (site.layer)."
    rows: Sequence[Mapping[str, Any]] = table["layers"]
    own = next(row for row in rows if row["layer"] == layer)
    others = sorted((r for r in rows if r["layer"] != layer), key=lambda r: -float(r["score"]))
    second = (
        f"; next is layer {others[0]['layer']} with {number(others[0]['score'])}" if others else ""
    )
    if "mended" in own:
        if any(float(row["score"]) > float(own["score"]) for row in others):
            better = f"layer {others[0]['layer']} scores {number(others[0]['score'])}"
            return (
                f"{start} was edited: one trial step there mends {percent(own['mended'])} of "
                f"sampled failures and rewordings and moves other answers by only "
                f"{number(own['locality_kl'])} nats (score {number(own['score'])}); {better}, "
                f"not clearly more, and the layer nearest the output is the cheapest."
            )
        return (
            f"{start} was edited: one trial step there mends {percent(own['mended'])} of sampled "
            f"failures and rewordings and moves other answers by only "
            f"{number(own['locality_kl'])} nats, the best balance of all layers "
            f"(score {number(own['score'])}{second})."
        )
    score = f"(score {number(own['score'])}{second})."
    if "weight_norm" in own:
        why = "the gradient of the loss on sampled answers is the largest there"
    else:
        why = f"it is what {table['method'].partition(',')[0]} picks"
    return f"{start} was edited: {why} {score}"


def _numbers(tested: Mapping[str, Any], look: Look) -> RenderableType:
    after, bare = _judged(tested)
    table = look.table("accuracy on the test samples", "unedited", "edited", "", left=(0, 3))
    rows = [
        ("failures", "fail_accuracy", bare.get("fail_accuracy"), after.get("fail_accuracy")),
        ("their rewordings", "adapt", bare.get("adapt_accuracy"), after.get("adapt_accuracy")),
        ("both (edit accuracy)", "edit", bare.get("edit_accuracy"), after.get("edit_accuracy")),
        (
            "what was right before",
            "pass",
            after.get("pass_accuracy_before", bare.get("pass_accuracy")),
            after.get("pass_accuracy_after"),
        ),
    ]
    for what, _, before, now in rows:
        if now is not None:
            table.add_row(what, percent(before), percent(now), look.bar(now, 20))
    return table


def _judged(tested: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Numbers with and without edits; of words those of free generation."""
    after, bare = tested["metrics"], tested.get("unedited") or {}
    return after.get("generated") or after, bare.get("generated") or bare


def _edit_sentence(tested: Mapping[str, Any]) -> str:
    after, before = _judged(tested)
    now = after.get("edit_accuracy")
    k = tested["schedule"]["batch_size"]
    return (
        f"Edit accuracy {percent(now)} (unedited {percent(before.get('edit_accuracy'))}): the "
        f"share of failures and rewordings that are right after an edit, made from "
        f"{count(k, 'failure')} at a time."
    )


def _drawdown_sentence(tested: Mapping[str, Any]) -> str:
    metrics, _ = _judged(tested)
    return (
        f"Drawdown {points(metrics.get('drawdown'))}: what accuracy falls by on samples that the "
        "model answered right before, on average over the edits."
    )


def _check(check: Mapping[str, Any] | None) -> str:
    if check is None:
        return ""
    if "accuracy_before" not in check:
        return ""
    broken = sum(was_right(row) and not is_right(row) for row in check["changed"])
    return (
        f"Of {count(check['n'], 'other answer')} that were checked, {broken:,} "
        f"{'was' if broken == 1 else 'were'} right before and "
        f"{'is' if broken == 1 else 'are'} wrong now."
    )
