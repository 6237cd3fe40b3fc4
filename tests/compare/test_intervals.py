"""Bootstrap intervals of a comparison, and how its table is shown."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from whole_runs import FakeUi, compared

from saledit.report import render
from saledit.report.bootstrap import SHARES, Resampled, interval, wilson
from saledit.report.look import sizes
from saledit.report.page.parts import share_tiles
from saledit.report.schedules import schedules_figure
from saledit.run import report
from saledit.run.cells.done import _judged
from saledit.run.cells.notes import notes_of
from saledit.run.cells.summing import summary
from saledit.run.cells.table import write_table


def edits(right: list[int], lost: list[int]) -> dict[str, list[int]]:
    n = len(right)
    return {
        "fail": right, "fail_of": [2] * n, "adapt": right, "adapt_of": [2] * n,
        "lost": lost, "lost_of": [10] * n,
    }  # fmt: skip


def test_an_interval_holds_the_mean_and_shrinks_with_the_edits() -> None:
    widths = []
    for n in (20, 2000):
        right = [2, 0] * (n // 2)
        drawn = Resampled([n])
        found = interval(drawn.shares([edits(right, [1] * n)], "edit_accuracy"))
        assert found.mean == pytest.approx(0.5)
        assert found.low < 0.5 < found.high
        widths.append(found.high - found.low)
        still = interval(drawn.shares([edits(right, [1] * n)], "drawdown"))
        assert (still.mean, still.low, still.high) == pytest.approx((0.1, 0.1, 0.1))
    # A share of n fair coins has a standard error of .5 / sqrt(n).
    assert widths[1] == pytest.approx(2 * 1.96 * 0.5 / 2000**0.5, rel=0.1)
    assert widths[0] > 5 * widths[1]


def test_a_difference_on_the_same_edits_has_no_noise_of_their_own() -> None:
    right = torch.randint(2, (200,), generator=torch.Generator().manual_seed(1)).tolist()
    better = [value + 1 for value in right]
    drawn = Resampled([200])
    a, b = (drawn.shares([edits(r, [0] * 200)], "fail_accuracy") for r in (better, right))
    found = interval(a - b)
    assert (found.low, found.high) == pytest.approx((0.5, 0.5))
    with pytest.raises(ValueError, match="expected 200 edits, got 3"):
        drawn.shares([edits([1, 1, 1], [0, 0, 0])], "fail_accuracy")
    nothing = Resampled([0]).shares([edits([], [])], "drawdown")
    assert nothing.isnan().all()


def test_seeds_of_the_same_failures_are_no_further_failures() -> None:
    right = torch.randint(3, (45,), generator=torch.Generator().manual_seed(2)).tolist()
    own = edits(right, [1, 0, 2] * 15)
    for share in SHARES:
        once = interval(Resampled([45]).shares([own], share))
        thrice = interval(Resampled([45] * 3, ["the same"] * 3).shares([own] * 3, share))
        assert thrice.as_json() == pytest.approx(once.as_json())
        apart = interval(Resampled([45] * 3).shares([own] * 3, share))
        shorter = (apart.high - apart.low) / (once.high - once.low)
        assert shorter == pytest.approx(3**-0.5, rel=0.15)
    # Of the same name, but not as many edits: the seeds have not the same ones.
    mixed = Resampled([45, 44, 45], ["the same"] * 3)._index
    assert mixed[0] is mixed[2]
    assert mixed[1].shape == (2000, 44)
    apart = Resampled([45, 45], [None, None])._index
    assert not torch.equal(*apart)


def cell_of(editor: str, seed: int, right: list[int], **facts: Any) -> dict[str, Any]:
    """A row of a comparison, as far as it is summed up."""
    return {
        "editor": editor, "seed": seed, "per_edit": edits(right, [0] * len(right)),
        "metrics": {}, "timing": {}, **facts,
    }  # fmt: skip


@pytest.mark.parametrize("told", [{"failures": "x"}, {"failures": None, "test": "test.jsonl"}])
def test_intervals_of_seeds_of_one_test_file_are_those_of_one_seed(told: dict[str, Any]) -> None:
    right = {name: [0, 1, 2, step] * 12 for step, name in enumerate(("a", "b"))}
    rows = [cell_of(name, seed, right[name], **told) for name in ("a", "b") for seed in range(3)]
    one = summary("b", [row for row in rows if not row["seed"]], "a", [0])
    three = summary("b", rows, "a", [0, 1, 2])
    for shares in (three, three["beside"]):
        same = one if shares is three else one["beside"]
        for name in ("fail_accuracy", "edit_accuracy"):
            for key in ("mean", "low", "high"):
                assert shares[name][key] == pytest.approx(same[name][key])
    apart = [row | {"failures": str(row["seed"])} for row in rows]
    found = summary("b", apart, "a", [0, 1, 2])["beside"]["fail_accuracy"]
    held = three["beside"]["fail_accuracy"]
    assert found["high"] - found["low"] < 0.75 * (held["high"] - held["low"])
    others = [row | {"failures": row["editor"]} for row in rows]
    assert "beside" not in summary("b", others, "a", [0, 1, 2]), "the edits are of other failures"


def between(found: dict[str, Any], share: str) -> tuple[float | None, float | None]:
    return found[share]["low"], found[share]["high"]


def test_edits_of_one_outcome_have_the_interval_that_the_page_of_the_run_has(
    tmp_path: Path,
) -> None:
    shares = {"fail_accuracy": 0.5, "adapt_accuracy": 0.25, "edit_accuracy": 0.3, "drawdown": 0.02}
    facts = {
        "metrics": shares, "counts": {"fail": 200, "adapt": 90, "pass": 400}, "peak_rss_mb": 1.0,
        "editor_mb": 1.0, "schedule": {"mode": "sequential", "batch_size": 1},
    }  # fmt: skip
    rows = [cell_of(name, seed, [], **facts) for name in "ab" for seed in range(3)]
    one = summary("a", rows[:1], "a", [0])
    notes = {tile.label: tile.note for tile in share_tiles(rows[0])}
    for share, label, unit in (
        ("fail_accuracy", "failures fixed", "%"), ("edit_accuracy", "edit accuracy", "%"),
        ("adapt_accuracy", "rewordings right", "%"), ("drawdown", "drawdown", " pt"),
    ):  # fmt: skip
        low, high = between(one, share)
        assert notes[label] == f"95%: {100 * low:.1f} to {100 * high:.1f}{unit}"
    said = " ".join(shown(rows[:1], tmp_path)[0].split())
    assert "Wilson's over the failures" in said
    # Seeds of other failures are further ones.
    apart = summary("a", rows[:3], "a", [0, 1, 2])
    assert between(apart, "edit_accuracy") == pytest.approx(wilson(0.3, 600))
    assert between(apart, "drawdown") == pytest.approx(wilson(0.02, 1200))
    alike = [row | {"failures": "x"} for row in rows]
    same = summary("a", alike[:3], "a", [0, 1, 2])
    assert between(same, "edit_accuracy") == between(one, "edit_accuracy")
    assert between(summary("b", rows, "a", [0])["beside"], "drawdown") == (None, None)


def test_what_has_no_interval_is_said_to_have_none(tmp_path: Path) -> None:
    row = cell_of("a", 0, [1], peak_rss_mb=1.0, editor_mb=1.0)  # of an unknown number of failures
    assert between(summary("a", [row], "a", [0]), "edit_accuracy") == (None, None)
    text = of_texts("a", 0, 0.2) | {"counts": {"fail": 9, "pass": 9}}
    found = summary("a", [text], "a", [0])
    assert between(found, "drawdown") == (None, None), "a rise of perplexity is no share"
    assert between(found, "edit_accuracy") == pytest.approx(wilson(0.5, 9))
    for cell, words in ((row, False), (text, True)):
        said, page, _ = shown([cell], tmp_path)
        assert ("Intervals:" in said) == ("Intervals:" in page) == words


def shown(rows: list[dict[str, Any]], tmp_path: Path) -> tuple[str, str, list[dict[str, str]]]:
    """A comparison of such cells on a terminal, as a page, and in compare.csv."""
    names, seeds = (list(dict.fromkeys(row[key] for row in rows)) for key in ("editor", "seed"))
    table = {
        "schema": 1, "config": "c", "task": "qa", "command": "",
        "schedule": {"batch_size": 10, "cumulative": False},
        "editors": [summary(name, rows, names[0], seeds) for name in names], "cells": rows,
        "notes": notes_of(rows),
    }  # fmt: skip
    write_table(tmp_path, table)
    page = Path(report(str(tmp_path), None, FakeUi())["page"]).read_text()  # type: ignore[arg-type]
    return render("compare", table, io.StringIO()), page, compared(tmp_path)[1]


def test_editors_of_other_schedules_say_so(tmp_path: Path) -> None:
    ten, one, sequence = (
        {"schedule": {"mode": mode, "batch_size": k}, "peak_rss_mb": 1.0, "editor_mb": 1.0}
        for mode, k in (("batch", 10), ("batch", 1), ("sequential-batched", 64))
    )
    said, page, cells = shown([cell_of("mend", 0, [1], **ten)], tmp_path)
    assert "10 failures an edit" in said
    assert "10 failures an edit" in page
    assert "| k " not in said
    rows = [cell_of("mend", 0, [1], **ten), cell_of("rome", 0, [2], **one)]
    said, page, cells = shown(rows, tmp_path)
    assert "10 failures an edit" not in said + page
    assert re.search(r"\| editor +\| +k +\| seeds", said)
    assert re.search(r"\| rome +\| +1 +\| +1 ", said)
    assert re.search(r"<td>rome</td>\s*<td[^>]*>1</td>", page)
    assert [(row["mode"], row["batch_size"]) for row in cells] == [("batch", "10"), ("batch", "1")]
    assert "k failures an edit" in said
    said, page, _ = shown([*rows, cell_of("memit", 0, [2], **sequence)], tmp_path)
    for text in (said, page):
        told = "k failures an edit; batch: mend, rome; sequential-batched: memit"
        assert told in " ".join(text.split())
    said, page, _ = shown([cell_of("memit", 0, [2], **sequence)], tmp_path)
    assert "64 failures an edit; sequential-batched" in said
    assert "64 failures an edit; sequential-batched" in page


def test_what_was_not_made_is_told_beside_the_numbers(tmp_path: Path) -> None:
    facts = {
        "schedule": {"mode": "batch", "batch_size": 10}, "peak_rss_mb": 1.0, "editor_mb": 1.0,
        "counts": {"fail": 1000}, "n_edits": 100, "n_refused": 0,
    }  # fmt: skip
    said, page, cells = shown([cell_of("a", 0, [1], **facts)], tmp_path)
    assert "NaN" not in said + page
    rows = [cell_of("a", 0, [1], **facts | {"n_refused": 30}),
            cell_of("b", 0, [1], **facts | {"stopped": 40, "n_edits": 4})]  # fmt: skip
    said, page, cells = shown(rows, tmp_path)
    for text in (said, page):
        words = " ".join(text.split())
        assert "a, seed 0" in words
        assert "30 edits gave NaN or infinity and counted as the model without an edit" in words
        assert "The sequence ended after 40 failures of 1,000" in words
    assert [(row["n_edits"], row["n_refused"], row["stopped"]) for row in cells] == [
        ("100", "30", ""), ("4", "0", "40"),
    ]  # fmt: skip


def test_cells_that_were_made_with_something_else_are_named(tmp_path: Path) -> None:
    usual = {"saledit": "0.1.0", "torch": "2.8.0", "device": "cpu", "threads": 2}
    facts = {
        "schedule": {"mode": "batch", "batch_size": 10}, "peak_rss_mb": 1.0, "editor_mb": 1.0,
    }  # fmt: skip
    pairs = {"a": (usual, usual), "b": (usual | {"threads": 1}, usual), "c": (usual, usual)}
    rows = [
        cell_of(name, 0, [1], **facts, made_with={"training": training, "test": test})
        for name, (training, test) in pairs.items()
    ]
    said, page, _ = shown([rows[0], rows[2]], tmp_path)
    assert "Made otherwise" not in said + page
    other = {"training": usual | {"torch": "2.7"}, "test": usual | {"torch": "2.7"}}
    said, page, _ = shown([*rows, cell_of("d", 0, [1], **facts, made_with=other)], tmp_path)
    for text in (said, page):
        assert (
            "Made otherwise than the other cells: b, seed 0 (threads 1 in training); "
            "d, seed 0 (torch 2.7 in training and test)." in " ".join(text.split())
        )


def test_peaks_of_whole_processes_are_told_as_such(tmp_path: Path) -> None:
    facts = {
        "schedule": {"mode": "batch", "batch_size": 10}, "peak_rss_mb": 1.0, "editor_mb": 1.0,
    }  # fmt: skip
    for setup, is_told in ((None, True), (3.0, False)):
        rows = [cell_of("a", 0, [1], **facts, setup_rss_mb=setup)]
        said, page, cells = shown(rows, tmp_path)
        for text in (said, page):
            assert ("of whole processes" in text) == is_told
        assert cells[0]["setup_rss_mb"] == ("" if setup is None else "3.0")


def test_what_picking_the_layer_took_is_told_beside_the_training(tmp_path: Path) -> None:
    facts = {
        "schedule": {"mode": "batch", "batch_size": 10}, "peak_rss_mb": 1.0, "editor_mb": 1.0,
        "picking_seconds": None,
    }  # fmt: skip
    fixed = cell_of("fixed", 0, [1], **facts)
    told = {"seconds": 400.0, "forward_passes": 900.0, "backward_passes": 300.0}
    swept = cell_of("swept", 0, [1], **facts | {f"picking_{n}": v for n, v in told.items()})
    said, page, cells = shown([fixed], tmp_path)
    assert "picked" not in said + page
    said, page, cells = shown([fixed, swept], tmp_path)
    for text in (said, page):
        assert "picked in" in text
        assert "6 min 40 s" in text
        assert "beside any budget of it" in text
    assert [[row[f"picking_{name}"] for name in told] for row in cells] == [
        ["", "", ""], ["400.0", "900.0", "300.0"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("k", "failures", "n", "words"),
    [
        (1, 5, 5, "5 edits, 1 failure each"),
        (64, 100, 2, "2 edits, 64 failures each, the last of 36"),
        (1024, 100, 1, "1 edit of 100 failures (fewer than the 1,024 asked for)"),
        (10, 100, 10, "10 edits, 10 failures each"),
        (10, 25, 1, "1 edit, 10 failures each"),  # ended early
        (10, 25, 3, "3 edits, 10 failures each, the last of 5"),
    ],
)
def test_how_many_failures_an_edit_was_of(k: int, failures: int, n: int, words: str) -> None:
    results = {"n_edits": n, "schedule": {"batch_size": k}, "counts": {"fail": failures}}
    assert sizes(results) == words


def test_schedules_are_drawn_where_their_edits_are(tmp_path: Path) -> None:
    facts = {"peak_rss_mb": 1.0, "editor_mb": 1.0, "counts": {"fail": 100}}
    rows = [
        cell_of("a", 0, [1], **facts, schedule={"mode": "batch", "batch_size": k})
        for k in (64, 1024)
    ]
    table = {"editors": [summary("a", [row], "a", [0]) for row in rows]}
    for row in table["editors"]:
        row["preset"] = "a"
    ticks = schedules_figure(table).axes[-1].get_xticklabels()
    assert [tick.get_text() for tick in ticks] == ["64", "100"]


def test_the_measures_of_the_field_are_shown_where_there_are_any(tmp_path: Path) -> None:
    facts = {
        "schedule": {"mode": "batch", "batch_size": 1}, "peak_rss_mb": 1.0, "editor_mb": 1.0,
    }  # fmt: skip
    rows = [cell_of("rome", 0, [1], **facts), cell_of("mend", 0, [1], **facts)]
    said, page, cells = shown(rows, tmp_path)
    assert "rivals" not in said + page
    assert "efficacy" not in cells[0]
    found = {"efficacy": 0.987, "neighborhood": 0.75, "score": 0.852, "efficacy_lead": 0.5}
    rows[0]["metrics"] = {"preference": found}
    said, page, cells = shown(rows, tmp_path)
    assert re.search(r"\| editor +\| +ES +\| +NS +\| +S +\|", said), "without rewordings, no PS"
    assert re.search(r"\| rome +\| 98\.7% \| 75\.0% \| 85\.2% \|", said)
    assert "<td>rome</td>" in page
    assert "98.7%" in page
    assert {name: cells[0][name] for name in ("efficacy", "neighborhood", "score")} == {
        "efficacy": "0.987", "neighborhood": "0.75", "score": "0.852",
    }  # fmt: skip
    assert cells[1]["efficacy"] == ""
    assert "paraphrase" not in cells[0]


def test_beside_says_by_how_much_an_editor_is_better() -> None:
    rows = [cell_of("a", 0, [0, 1] * 10), cell_of("b", 0, [1, 2] * 10)]  # of 2 each
    found = summary("b", rows, "a", [0])["beside"]
    assert found["editor"] == "a"
    for share in ("fail_accuracy", "edit_accuracy"):
        held = (found[share][key] for key in ("mean", "low", "high"))
        assert tuple(held) == pytest.approx((0.5, 0.5, 0.5))


def test_a_share_that_no_edit_counts_is_the_difference_of_the_metrics() -> None:
    rows = [cell_of("a", s, [], metrics={"drawdown": 0.1 + s}) for s in (0, 1)]
    rows += [cell_of("b", s, [], metrics={"drawdown": 0.4 + 2 * s}) for s in (0, 1)]
    found = summary("b", rows, "a", [0, 1])
    assert found["drawdown"]["mean"] == pytest.approx(1.4)
    assert between(found, "drawdown") == (None, None)
    assert found["drawdown"]["by_seed"] == {"0": 0.4, "1": 2.4}
    assert found["beside"]["drawdown"]["mean"] == pytest.approx(1.4 - 0.6)
    assert found["beside"]["drawdown"]["by_seed"] == pytest.approx({"0": 0.3, "1": 1.3})


def test_costs_and_kl_are_means_over_seeds() -> None:
    def own(s: int) -> dict[str, Any]:
        return {
            "timing": {"train_seconds": 10.0 * s}, "peak_rss_mb": 100.0 * s,
            "metrics": {"locality_kl": s / 10},
        }  # fmt: skip

    found = summary("a", [cell_of("a", s, [1, 1], **own(s)) for s in (1, 2, 6)], "a", [1, 2, 6])
    assert found["train_seconds"] == 30
    assert found["peak_rss_mb"] == 300
    assert found["locality_kl"] == pytest.approx(0.3)


@pytest.mark.parametrize("key", ["fail_of", "adapt_of", "lost_of"])
def test_edits_out_of_other_numbers_are_not_compared(key: str) -> None:
    rows = [cell_of(name, 0, [1] * 4) for name in "ab"]
    assert "beside" in summary("b", rows, "a", [0])
    rows[1]["per_edit"][key] = [3] * 4
    assert "beside" not in summary("b", rows, "a", [0])


def test_text_is_compared_as_it_is_spoken() -> None:
    told = {
        "edit_accuracy": 0.9,
        "drawdown": 0.0,
        "locality_kl": 0.1,
        "generated": {"edit_accuracy": 0.4, "drawdown": 0.2},
    }
    assert _judged(told) == {"edit_accuracy": 0.4, "drawdown": 0.2, "locality_kl": 0.1}


def test_seeds_are_told_apart_and_marked_where_they_disagree(tmp_path: Path) -> None:
    facts = {
        "schedule": {"mode": "batch", "batch_size": 1}, "peak_rss_mb": 1.0, "editor_mb": 1.0,
    }  # fmt: skip
    right = {"a": ([1, 1], [1, 1], [2, 1]), "b": ([2, 2], [1, 2], [0, 1]), "c": ([2, 2],) * 3}
    rows = [
        cell_of(n, s, own, **facts) for n, seeds in right.items() for s, own in enumerate(seeds)
    ]
    found = summary("b", rows, "a", [0, 1, 2])
    share, above = found["edit_accuracy"], found["beside"]["edit_accuracy"]
    assert share["by_seed"] == {"0": 1.0, "1": 0.75, "2": 0.25}
    assert (share["min"], share["max"]) == (0.25, 1.0)
    assert share["std"] == pytest.approx(0.381881)
    assert above["by_seed"] == {"0": 0.5, "1": 0.25, "2": -0.5}
    assert above["std"] == pytest.approx(0.520416)
    alone = summary("b", rows[:4], "a", [0])["edit_accuracy"]
    assert alone.keys() == {"mean", "low", "high", "by_seed"}
    said, page, _ = shown(rows, tmp_path)
    assert re.search(r"\| b +\| +25\.0 to 100\.0 \| +38\.2 \|", said)
    assert re.search(r"\| b +\| +8\.3 pt \* \|", said)
    assert re.search(r"\| c +\| +41\.7 pt \|", said), "all of its seeds say more"
    for text in (said, page):
        assert "Over seeds" in text
        assert text.count("* some seeds say more, others less") == 1
    said, page, _ = shown([row for row in rows if row["seed"] == 0], tmp_path)
    assert "seeds say" not in said + page
    assert "Over seeds" not in said + page


def of_texts(editor: str, seed: int, rise: float) -> dict[str, Any]:
    """A cell whose edits are beside texts."""
    costs = {"peak_rss_mb": 1.0, "editor_mb": 1.0, "schedule": {"mode": "batch", "batch_size": 1}}
    metrics = {"drawdown": rise, "perplexity_before": 10.0, "perplexity_after": 10 * (1 + rise)}
    row = cell_of(editor, seed, [1], **costs, metrics=metrics)
    row["per_edit"]["lost_of"] = [0]
    return row


def test_beside_another_editor_texts_have_so_much_more_perplexity(tmp_path: Path) -> None:
    rows = [of_texts("a", 0, 0.5), of_texts("b", 0, 2.0), of_texts("c", 0, 0.2)]
    above = [summary(name, rows, "a", [0])["beside"]["drawdown"]["mean"] for name in "bc"]
    assert above == pytest.approx([1.0, -0.2])  # 30 and 12, where a leaves 15
    said, page, _ = shown(rows, tmp_path)
    for text in (said.partition("Beside a")[2], page.partition("Beside a")[2]):
        assert "100.0% more" in text
        assert "20.0% less" in text
    none = [of_texts("a", 0, -1.0), of_texts("b", 0, 2.0)]  # which only a broken file says
    assert summary("b", none, "a", [0])["beside"]["drawdown"]["mean"] is None


def test_texts_of_a_broken_model_are_told_in_few_digits(tmp_path: Path) -> None:
    rows = [of_texts("a", 0, 0.5), of_texts("ft", 0, 1e298), of_texts("mend", 0, 12.5)]
    said, page, _ = shown(rows, tmp_path)
    page = re.sub(r"<svg.*?</svg>", "", page, flags=re.S)
    for text in (said, page):
        assert "1e+300% more" in text
        assert "1,250% more" in text
        assert not re.search(r"\d{12}", text)
