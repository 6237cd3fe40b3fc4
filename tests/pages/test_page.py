"""Pages of results: nothing from outside gets in, every number is that of the files."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from shown import shown
from whole_runs import FakeUi

from saledit.errors import UserError
from saledit.files import write_json, write_jsonl, write_text
from saledit.report import Ui, render, saliency_figure
from saledit.report.bootstrap import wilson
from saledit.report.page import (
    Answers,
    Page,
    RunFiles,
    Section,
    Table,
    Tile,
    compare_page,
    fixes_page,
    model,
    render_page,
    run_page,
)
from saledit.report.page.model import state_of
from saledit.report.page.parts import share_tiles
from saledit.report.plots import svg
from saledit.run import report

NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & \"'{{ 7 * 7 }}"
PART = {"fail": 2, "adapt": 2, "pass": 10, "adapt_kinds": {"wording": 2}, "made": 0}
LAYERS = [{"layer": i, "score": 0.1 * i, "error": 0.01} for i in range(4)]
SALIENCY = {
    "method": "trial-step", "pick": 3, "layers": LAYERS, "forward_passes": 12,
    "backward_passes": 4, "seconds": 1.5,
}  # fmt: skip
FIT = {
    "run": "x", "layer": 3, "n_layers": 4, "sites": ["a"], "saliency": None,
    "base_model": {"name": NASTY, "fingerprint": "0" * 32},
    "splits": {"train": PART, "validation": PART, "test": PART},
    "epochs": 2, "train_seconds": 3.0, "edits_per_second": 10.0, "editor_parameters": 1000,
    "validation": {"edit_accuracy": 0.5, "drawdown": 0.1},
    "environment": {"command": "saledit fit 'a b.yaml'", "platform": "here"},
}  # fmt: skip
RESULTS = {
    "task": "nli", "editor": "mend", "base_model": FIT["base_model"], "layer": 3,
    "schedule": {"mode": "batch", "batch_size": 1}, "n_edits": 2,
    "metrics": {"fail_accuracy": 0.5, "edit_accuracy": 0.75, "drawdown": 0.1, "locality_kl": 0.03},
    "unedited": {"fail_accuracy": 0.0, "edit_accuracy": 0.25},
    "per_edit": {
        "fail": [1, 0], "fail_of": [1, 1], "adapt": [1, 1], "adapt_of": [1, 1],
        "lost": [1, 0], "lost_of": [5, 5],
    },
    "adapt_by_kind": {NASTY: {"accuracy": 1.0, "n": 2}}, "counts": PART,
    "timing": {"test_seconds": 1.0}, "memory": {"peak_rss_mb": 100.0},
    "versions": {"saledit": "0"}, "environment": {"command": "saledit test x"}, "seed": 0,
}  # fmt: skip


def answer(part: str, was: bool, now: bool, text: str = "a") -> dict[str, Any]:
    return {
        "edit": 0, "part": part, "id": "i", "inputs": [text, "b"], "target": "yes",
        "before": "yes" if was else "no", "after": "yes" if now else "no",
        "was_right": was, "is_right": now,
    }  # fmt: skip


ANSWERS = [
    answer("fail", False, True, NASTY), answer("fail", False, False),
    answer("adapt", True, True), answer("adapt", True, False), answer("pass", True, False),
]  # fmt: skip


class Seen(HTMLParser):
    """Tags with their attributes, and the texts of scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.lasttag == "script" and self.scripts:
            self.scripts[-1] += data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's folder."""
    run = tmp_path / "my run"
    write_text(run / "config.yaml", f"name: x  # {NASTY}\n")
    write_json(run / "fit.json", FIT)
    write_json(run / "saliency.json", SALIENCY)
    write_json(run / "results.json", RESULTS)
    write_jsonl(run / "answers.jsonl", ANSWERS)
    write_text(run / "metrics.csv", "step,train/loss,val/score\n0,1.5,\n1,,0.25\n")
    return run


def test_a_page_holds_all_it_needs_and_no_text_gets_out_of_its_place(folder: Path) -> None:
    made = report(str(folder), None, FakeUi())  # type: ignore[arg-type]
    html = Path(made["page"]).read_text(encoding="utf-8")
    seen = Seen(html)
    assert len(seen.scripts) == 2  # the answers and ours
    assert not [tag for tag, _ in seen.tags if tag in {"img", "link", "iframe", "object", "base"}]
    assert not [1 for _, attrs in seen.tags if any(name.startswith("on") for name in attrs)]
    targets = [
        value or "" for _, attrs in seen.tags for name, value in attrs.items()
        if name in {"src", "href", "xlink:href", "action"}
    ]  # fmt: skip
    assert targets
    assert all(value.startswith("#") for value in targets)
    policy = next(a["content"] for t, a in seen.tags if t == "meta" and "http-equiv" in a)
    assert policy
    assert policy.startswith("default-src 'none'")
    data = json.loads(seen.scripts[0])
    assert data["rows"][0][data["columns"].index("inputs")] == [NASTY, "b"]
    assert [row[0] for row in data["rows"]] == ["fixed", "still wrong", "kept", "broken", "broken"]
    assert "49" not in re.sub(r"<svg.*?</svg>|<style>.*?</style>", "", html, flags=re.S)
    ids = [attrs["id"] for _, attrs in seen.tags if attrs.get("id")]
    assert not [name for name in set(ids) if name.startswith("s") and ids.count(name) > 1]
    plots = {Path(plot).name for plot in made["plots"]}
    assert plots == {f"{n}.{kind}" for n in ("saliency", "training") for kind in ("png", "svg")}
    assert all(Path(plot).stat().st_size > 500 for plot in made["plots"])
    said = shown("report", made)
    assert "my run: one page of" in said
    assert all(name in said.replace("\n", "") for name in plots)  # a long path is folded


def test_what_is_shown_is_what_the_files_say(folder: Path) -> None:
    made = report(str(folder), str(folder.parent / "elsewhere" / "p.html"), FakeUi())  # type: ignore[arg-type]
    html = Path(made["page"]).read_text(encoding="utf-8")
    assert not (folder / "report.html").exists()
    # Two edits of two samples each: between .5 and 1 of them are right in any resample.
    assert "75.0%" in html
    assert "95%: 50.0 to 100.0%; unedited 25.0%" in html
    assert "10.0 pt" in html
    assert "saledit fit &#39;a b.yaml&#39;" in html
    assert "trial-step picks layer 3" in html


def test_ids_are_of_one_thing_each_and_references_find_theirs(folder: Path) -> None:
    """A page has several figures, and matplotlib numbers the parts of each from 1."""
    html = Path(report(str(folder), None, FakeUi())["page"]).read_text()  # type: ignore[arg-type]
    seen = Seen(html)
    ids = [attrs["id"] for _, attrs in seen.tags if "id" in attrs]
    assert sorted(set(ids)) == sorted(ids)
    assert {"saliency-figure_1", "training-figure_1"} <= set(ids)
    used = {
        value.removeprefix("#") for _, attrs in seen.tags for name, value in attrs.items()
        if name in {"href", "xlink:href"} and value
    } | set(re.findall(r"url\(#([^)]*)\)", html))  # fmt: skip
    assert any(name.startswith("training-p") for name in used), "clip paths"
    assert used <= set(ids)


def test_texts_of_a_figure_that_look_like_ids_stay_as_they_are() -> None:
    figure = saliency_figure(SALIENCY | {"method": '> id="x" href="#y" url(#z)'})
    assert 'id="x" href="#y" url(#z)' in svg(figure, "a")


def test_a_page_is_used_without_eyes_or_mouse(folder: Path) -> None:
    html = Path(report(str(folder), None, FakeUi())["page"]).read_text()  # type: ignore[arg-type]
    tags = Seen(html).tags
    assert not re.search(r"<th[^>]*></th>", html)
    (theme,) = [attrs for tag, attrs in tags if attrs.get("id") == "theme"]
    assert theme["aria-label"] == "light or dark"
    wide = [attrs for _, attrs in tags if attrs.get("class") == "wide"]
    assert len(wide) == html.count("<table>")
    for attrs in wide:
        assert (attrs["tabindex"], attrs["role"]) == ("0", "region")
        assert attrs["aria-label"]


def of_tiles(results: dict[str, Any]) -> dict[str, str]:
    return {tile.label: tile.note for tile in share_tiles(results)}


def test_one_outcome_has_the_interval_of_its_failures(folder: Path) -> None:
    """Resamples of one edit are all that edit, and rewordings of a failure no further failures."""
    counts = {"fail": 200, "adapt": 800, "pass": 400}
    shares = ("fail_accuracy", "adapt_accuracy", "edit_accuracy", "drawdown")
    metrics = {**RESULTS["metrics"], **dict.fromkeys(shares, 0.6)}
    one = {name: [1.0] for name in RESULTS["per_edit"]}
    for per_edit in (one, {}):
        notes = of_tiles({"metrics": metrics, "counts": counts, "per_edit": per_edit})
        for label in ("failures fixed", "rewordings right", "edit accuracy"):
            assert "95%: 53.1 to 66.5%" in notes[label]  # of 200
        assert "95%: 55.1 to 64.7 pt" in notes["drawdown"]  # of 400 pass samples


def test_texts_that_a_broken_model_gives_no_number_for() -> None:
    metrics = {"fail_accuracy": 0.5, "perplexity_before": 20.0}
    tiles = {t.label: t for t in share_tiles({"metrics": metrics, "counts": {"fail": 9}})}
    assert tiles["drawdown"].note == "perplexity of pass texts 20 to -"


def test_a_sequence_that_ended_early_is_told(folder: Path) -> None:
    ended = {**RESULTS, "stopped": 6, "counts": {"fail": 1000, "adapt": 0, "pass": 5}}
    write_json(folder / "results.json", ended)
    made = report(str(folder), None, FakeUi())  # type: ignore[arg-type]
    html = Path(made["page"]).read_text(encoding="utf-8")
    assert "The sequence ended after 6 failures of 1,000" in html


def test_a_run_that_has_only_begun_has_a_page_too(tmp_path: Path) -> None:
    write_text(tmp_path / "config.yaml", "name: x\n")
    html = Path(report(str(tmp_path), None, FakeUi())["page"]).read_text()  # type: ignore[arg-type]
    assert "not trained yet" in html


def test_the_scores_are_those_that_the_run_was_picked_by(folder: Path) -> None:
    other = {**SALIENCY, "method": "another-picker"}
    write_json(folder / "saliency.json", other)  # of a `saledit saliency` with the run's name
    html = Path(report(str(folder), None, FakeUi())["page"]).read_text()  # type: ignore[arg-type]
    assert "another-picker picks" in html  # the run's layer was fixed
    write_json(folder / "fit.json", {**FIT, "saliency": SALIENCY})
    html = Path(report(str(folder), None, FakeUi())["page"]).read_text()  # type: ignore[arg-type]
    assert "another-picker" not in html
    assert f"{SALIENCY['method']} picks" in html


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("results.json", "{", "results"),
        ("results.json", "[]", "got a list"),
        ("results.json", "{}", "expected files as saledit writes them"),
        ("fit.json", '{"splits": 3}', "expected files as saledit writes them"),
        ("answers.jsonl", "{\n", "expected"),
        ("answers.jsonl", '{"is_right": true}\n', "expected files"),
        ("metrics.csv", "step,train/loss\nx,1\n", "metrics of a run"),
        ("saliency.json", '{"method": 3}', "expected files"),
    ],
)
def test_a_broken_file_is_named_and_no_page_is_written(
    folder: Path, name: str, text: str, said: str
) -> None:
    (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=said) as error:
        report(str(folder), None, FakeUi())  # type: ignore[arg-type]
    assert str(folder) in str(error.value)
    assert not (folder / "report.html").exists()


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected the folder of a run"):
        report(str(tmp_path), None, Ui(quiet=True))


def test_a_misspelt_folder_is_guessed(folder: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'my run'"):
        report(str(folder.parent / "my rum"), None, Ui(quiet=True))


def test_a_folder_of_fixes_with_one_taken_back() -> None:
    base = {"name": "m", "fingerprint": "f"}
    metrics = {"n_fixed": 1, "n_wrong_before": 2, "drawdown": 0.25, "n": 8}
    entries = [
        {"id": i, "time": "2026-01-01T00:00:00+00:00", "action": "fix", "in_force": i != 1,
         "undone_by": 2 if i == 1 else None, "editor": {"name": "mend"}, "metrics": metrics}
        for i in (1, 3, 4)
    ]  # fmt: skip
    undo = {"id": 2, "time": "2026-01-01T00:00:01+00:00", "action": "undo", "in_force": False,
            "undone_by": None, "of": 1}  # fmt: skip
    entries.insert(1, undo)
    log = {"out": "x", "base_model": base, "layer": 1, "format": "delta", "entries": entries}
    changed = [answer("pass", True, False), answer("pass", True, True), answer("pass", False, True)]
    told = {
        1: {"failures": [answer("fail", False, True)], "changed": changed},
        3: {"failures": [{"id": "a", "inputs": ["b"], "target": "c"}]},  # of an older version
        4: {"failures": [answer("fail", False, False)], "environment": {"command": "saledit fix"}},
    }
    page = fixes_page("my-fix", log, told)
    html = render_page(page)
    assert "undone by 2" in html
    assert "undo of 1" in html
    assert page.tiles[0].value == "2 of 3"
    assert page.tiles[1].value == "50.0%"
    assert page.tiles[2].value == "25.0 pt"
    data = json.loads(Seen(html).scripts[0])
    assert [(row[0], row[1], row[2]) for row in data["rows"]] == [
        ("fixed", "fail", 1), ("broken", "pass", 1), ("still wrong", "fail", 4),
    ]  # fmt: skip
    assert "Of 3 no answers were kept." in html
    assert page.commands == ["saledit fix"]
    none = fixes_page("old", {**log, "entries": entries[:3]}, {1: {}, 3: {}})
    assert "no answers were kept" in render_page(none)
    assert 'class="answers"' not in render_page(none)


def test_drawdown_of_text_is_a_rise_of_perplexity() -> None:
    texts = {"perplexity_before": 10.0, "perplexity_after": 12.0, "drawdown": 0.2}
    results = {**RESULTS, "metrics": {"edit_accuracy": 0.5, **texts}}
    page = run_page(RunFiles("x", "", {}, {}, [], {"results.json": results}, {}))
    tile = next(tile for tile in page.tiles if tile.label == "drawdown")
    assert tile.value == "20.0% more"
    assert "10 to 12" in tile.note
    assert " pt" not in "".join(tile.value + tile.note for tile in page.tiles)


@pytest.mark.parametrize("text", [True, False])
def test_a_comparison_tells_what_its_drawdown_is(text: bool) -> None:
    share = {"mean": 0.2, "low": 0.1, "high": 0.3}
    row = {
        "editor": "mend", "seeds": [0], "locality_kl": 0.1, "train_seconds": 1.0,
        "edits_per_second": 2.0, "fix_seconds_per_edit": None, "peak_rss_mb": 9.0,
        "editor_mb": 1.0, "fail_accuracy": share, "adapt_accuracy": share,
        "edit_accuracy": share, "drawdown": share,
    }  # fmt: skip
    metrics = {"drawdown": 0.2} | ({"perplexity_before": 5.0} if text else {})
    cell = {"editor": "mend", "seed": 0, "metrics": metrics}
    table = {
        "config": "c", "task": "t", "schedule": {"batch_size": 1}, "editors": [row],
        "cells": [cell],
    }  # fmt: skip
    shown = "20.0% more" if text else "20.0 pt"
    html = render_page(compare_page(table))
    assert re.search(f"<td[^>]*>{shown}</td>\\s*<td[^>]*>10.0 to 30.0</td>", html)
    assert ("more perplexity" in html) == text
    assert shown in render("compare", table, io.StringIO())


def test_few_edits_with_rewordings_have_an_interval_too(folder: Path) -> None:
    n = 20
    per_edit = {
        "fail": [1] * n, "fail_of": [1] * n, "adapt": [1, *[0] * (n - 1)],
        "adapt_of": [1, *[0] * (n - 1)], "lost": [0] * n, "lost_of": [1] * n,
    }  # fmt: skip
    metrics = {"adapt_accuracy": 1.0, "edit_accuracy": 1.0}
    write_json(folder / "results.json", {**RESULTS, "per_edit": per_edit, "metrics": metrics})
    html = Path(report(str(folder), None, FakeUi())["page"]).read_text()  # type: ignore[arg-type]
    assert "nan" not in re.sub(r"<svg.*?</svg>|<style>.*?</style>", "", html, flags=re.S)


@pytest.mark.parametrize("out", [".", "config.yaml", "page"])
def test_other_names_of_a_page_are_refused_before_anything_is_written(
    folder: Path, out: str
) -> None:
    before = sorted(folder.rglob("*"))
    with pytest.raises(UserError, match="the name of a page"):
        report(str(folder), str(folder / out), FakeUi())  # type: ignore[arg-type]
    assert sorted(folder.rglob("*")) == before


def test_the_states_of_an_answer() -> None:
    states = {(was, now): state_of(answer("fail", was, now)) for was in (0, 1) for now in (0, 1)}
    assert states == {
        (0, 0): "still wrong", (0, 1): "fixed", (1, 0): "broken", (1, 1): "kept",
    }  # fmt: skip


def test_more_answers_than_a_page_takes_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "MOST", 10)
    many = Answers.of(iter([answer("fail", False, True)] * 30), "answers.jsonl")
    assert len(many.compact()["rows"]) == 10
    assert many.compact()["total"] == 30
    html = render_page(Page("t", "s", [Tile("a", "b")], [Section("x", [many])]))
    assert "The first 10 of 30 are on this page; all are in answers.jsonl." in html


def test_columns_of_numbers_are_told_from_words() -> None:
    table = Table(("a", "b"), [["<x>", "1"]])
    html = render_page(Page("t", "s", [], [Section("x", [table])]))
    assert '<td>&lt;x&gt;</td><td class="number">1</td>' in html


def test_pages_are_the_same_every_time() -> None:
    files = RunFiles("x", "", FIT, SALIENCY, [], {"results.json": RESULTS}, {})
    assert render_page(run_page(files)) == render_page(run_page(files))


def test_a_score_interval() -> None:
    # Newcombe, 1998 (Statistics in Medicine 17, table I): 81 of 263, and 0 of 20.
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0.0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    low, high = wilson(0.3, 10)
    assert low < 0.3 < high
    narrow = wilson(0.3, 1000)
    assert low < narrow[0] < 0.3 < narrow[1] < high
