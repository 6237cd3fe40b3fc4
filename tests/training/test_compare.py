"""``saledit compare``: cells, what is kept, what fails, and intervals."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import build, samples, save
from whole_runs import FakeUi, rows, ui

from saledit import config as configuration
from saledit.config import RunConfig
from saledit.errors import ConfigError, JobError, UserError
from saledit.files import alone, one_at_a_time, write_jsonl
from saledit.report import render
from saledit.report.bootstrap import SHARES, Resampled, interval
from saledit.run import compare, fit, report
from saledit.run.budget import budgeted
from saledit.run.cells import crew
from saledit.run.cells.cell import run_cell
from saledit.run.cells.crew import OwnProcess, run_all
from saledit.run.cells.done import facts_of, failures_of
from saledit.run.cells.summing import summary
from saledit.run.comparing import _write


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
            assert shares[name] == pytest.approx(same[name])
    apart = [row | {"failures": str(row["seed"])} for row in rows]
    found = summary("b", apart, "a", [0, 1, 2])["beside"]["fail_accuracy"]
    held = three["beside"]["fail_accuracy"]
    assert found["high"] - found["low"] < 0.75 * (held["high"] - held["low"])
    others = [row | {"failures": row["editor"]} for row in rows]
    assert "beside" not in summary("b", others, "a", [0, 1, 2]), "the edits are of other failures"


def test_one_edit_has_no_interval() -> None:
    found = summary("a", [cell_of("a", 0, [1])], "a", [0])["edit_accuracy"]
    assert found == {"mean": 0.5, "low": None, "high": None}


def shown(rows: list[dict[str, Any]], tmp_path: Path) -> tuple[str, str, list[dict[str, str]]]:
    """A comparison of such cells on a terminal, as a page, and in compare.csv."""
    names = list(dict.fromkeys(row["editor"] for row in rows))
    table = {
        "schema": 1, "config": "c", "task": "qa", "command": "",
        "schedule": {"batch_size": 10, "cumulative": False},
        "editors": [summary(name, rows, names[0], [0]) for name in names], "cells": rows,
    }  # fmt: skip
    _write(tmp_path, table)
    page = Path(report(str(tmp_path), None, FakeUi())["page"]).read_text()  # type: ignore[arg-type]
    return render("compare", table, io.StringIO()), page, read(tmp_path)[1]


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


def read(folder: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    with (folder / "compare.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return json.loads((folder / "compare.json").read_text(encoding="utf-8")), rows


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration of a tiny model, and everything that it names."""
    folder = tmp_path_factory.mktemp("compare")
    base = build("bert")
    save(base, folder / "model")
    write_jsonl(folder / "data.jsonl", rows(base, samples(150)))
    others = [row | {"id": f"t{row['id']}"} for row in rows(base, samples(60, seed=7))]
    write_jsonl(folder / "test.jsonl", others)
    settings = [
        f"output={folder}",
        "name=tiny",
        f"model.name={folder / 'model'}",
        f"data.train={folder / 'data.jsonl'}",
        "data.adapt.rewrite=false",
        "data.adapt.similarity_model=''",
        "site.select=fixed",
        "site.layer=1",
        "schedule.batch_size=2",
        "train.epochs=2",
        "train.steps_per_epoch=3",
        "train.edits_per_step=4",
        "train.validation_edits=4",
        "train.validation_passes=8",
        "data.max_test_failures=24",
        "test.passes_per_edit=20",
        "trainer.accelerator=cpu",
    ]
    path = folder / "tiny.yaml"
    path.write_text(configuration.to_yaml(configuration.load(None, settings)), encoding="utf-8")
    return path


def test_every_editor_gets_a_row_and_a_failing_one_takes_no_other_down(shared: Path) -> None:
    names = ["salem", "ft", "mend", "step", "lora-ft"]
    ran: list[str] = []

    def runner(path: Path) -> None:
        config = configuration.load(path)
        ran.append(config.name)
        if "-ft-" in config.name:
            raise JobError("killed by SIGKILL, out of memory?")
        here(path)

    settings = ["site.layer=2"]
    table = compare(str(shared), names, [0], settings, FakeUi(), edits=20, runner=runner)  # type: ignore[arg-type]
    folder = Path(table["folder"])
    found, cells = read(folder)
    assert len(cells) == len(names)
    assert (folder / "compare.png").stat().st_size > 1000
    for row, cell, name in zip(found["editors"], found["cells"], names, strict=True):
        assert row["editor"] == cell["editor"] == name
        if name in ("ft", "lora-ft"):
            assert row["seeds"] == []
            assert "SIGKILL" in cell["error"]
            continue
        results = json.loads((Path(cell["run"]) / "results.json").read_text(encoding="utf-8"))
        assert row["edit_accuracy"]["mean"] == pytest.approx(results["metrics"]["edit_accuracy"])
        assert row["drawdown"]["mean"] == pytest.approx(results["metrics"]["drawdown"])
        assert row["edit_accuracy"]["low"] <= row["edit_accuracy"]["mean"]
        assert cell["schedule"] == row["schedule"] == {"mode": "batch", "batch_size": 2}
        assert ("beside" in row) == (name != "salem")
        if name in ("salem", "mend"):  # the others are not trained
            state = torch.load(Path(cell["run"]) / "last.ckpt", weights_only=True)
            assert state["global_step"] == 5  # of 4 edits: 20
        assert len(results["sites"]) == (6 if name == "mend" else 2)
    assert "mend" in render("compare", table, io.StringIO())
    page = Path(report(str(folder), None, FakeUi())["page"]).read_text()  # type: ignore[arg-type]
    shown = 100 * found["editors"][0]["edit_accuracy"]["mean"]
    assert f"{shown:.1f}%" in page
    assert "killed by SIGKILL, out of memory?" in page

    # A cell whose results were cut short is run again, and takes nobody's row.
    whole = (Path(table["cells"][0]["run"]) / "results.json").read_bytes()
    (Path(table["cells"][0]["run"]) / "results.json").write_bytes(whole[:200])
    ran.clear()
    again = compare(str(shared), names[:4], [0], settings, FakeUi(), edits=20, runner=runner)  # type: ignore[arg-type]
    assert [name.split("-")[1] for name in ran] == ["salem", "ft"]
    assert again["editors"][0]["edit_accuracy"] == table["editors"][0]["edit_accuracy"]

    # What is finished is not run again, and another budget is another comparison.
    ran.clear()
    compare(str(shared), names[:2], [0], settings, FakeUi(), edits=20, runner=runner)  # type: ignore[arg-type]
    assert [name.split("-")[1] for name in ran] == ["ft"]
    ran.clear()
    table = compare(str(shared), names[:1], [0], settings, FakeUi(), seconds=1.5, runner=runner)  # type: ignore[arg-type]
    assert len(ran) == 1
    assert 1.5 <= table["cells"][0]["timing"]["train_seconds"] < 30, "the clock ends a training"


@pytest.mark.parametrize("edits", [1, 20, 30, 101, 2400, 20000])
@pytest.mark.parametrize("epochs", [1, 8, 30])
@pytest.mark.parametrize("k", [1, 10])
def test_as_many_edits_are_trained_on_as_were_asked_for(edits: int, epochs: int, k: int) -> None:
    config = configuration.load(None, [f"train.epochs={epochs}", f"schedule.batch_size={k}"])
    found, step = budgeted(config, edits, 0), config.train.edits(k)
    most = found.train.epochs * found.train.steps_per_epoch
    steps = found.trainer.get("max_steps", most)
    assert edits <= steps * step < edits + step
    assert most - found.train.steps_per_epoch < steps <= most, "every epoch has steps"
    assert found.train.epochs <= epochs
    assert budgeted(found, edits, 0) == found


@pytest.fixture
def done(shared: Path) -> RunConfig:
    """A cell that is done, for one test to break."""
    config = configuration.load(shared, ["name=made", "train.epochs=1"], ["editors/salem"])
    shutil.rmtree(config.folder, ignore_errors=True)
    run_cell(config, ui())
    return config


def test_one_at_a_time_makes_a_cell(done: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one finds it made: as if it had come to its end while this one waited."""
    results = (done.folder / "results.json").read_bytes()
    aside = done.folder.rename(done.folder.with_name("aside"))

    @contextmanager
    def waiting(path: Path) -> Iterator[None]:
        with one_at_a_time(path):
            aside.rename(path)
            yield

    def prepare(*_args: object) -> None:
        raise AssertionError("it was made once more")

    monkeypatch.setattr("saledit.run.cells.cell.prepare", prepare)
    monkeypatch.setattr("saledit.run.cells.cell.one_at_a_time", waiting)
    run_cell(done, ui())
    assert (done.folder / "results.json").read_bytes() == results

    def locked(*_args: object) -> None:
        with pytest.raises(JobError, match="another saledit is writing there"), alone(done.folder):
            pass
        raise KeyboardInterrupt

    monkeypatch.setattr("saledit.run.cells.cell.prepare", locked)
    monkeypatch.setattr("saledit.run.cells.cell.one_at_a_time", one_at_a_time)
    (done.folder / "results.json").unlink()
    with pytest.raises(KeyboardInterrupt):
        run_cell(done, ui())


@pytest.mark.parametrize("broken", ["last.ckpt", "best.ckpt", "metrics.csv"])
def test_a_cell_that_cannot_be_gone_on_with_is_begun_anew(broken: str, done: RunConfig) -> None:
    expected = facts_of(done)
    assert expected is not None
    for name in ("results.json", "fit.json"):  # as if it had been cut off in its training
        (done.folder / name).unlink()
    (done.folder / broken).write_bytes(b"step\nx,y\n")
    shown = FakeUi()
    run_cell(done, shown)  # type: ignore[arg-type]
    found = facts_of(done)
    assert found is not None
    assert found["metrics"] == pytest.approx(expected["metrics"])
    assert found["failures"] == expected["failures"]
    assert any("begun anew" in stage and broken in stage for stage in shown.stages)


def test_a_cell_that_leaves_no_results_has_failed(shared: Path) -> None:
    settings = ["name=nothing"]
    table = compare(str(shared), ["step"], [0], settings, FakeUi(), runner=lambda _path: None)  # type: ignore[arg-type]
    assert "expected results of this configuration" in table["cells"][0]["error"]


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("data.train=nowhere.jsonl", "nowhere.jsonl: expected a data file"),
        ("data.test=nowhere.jsonl", "nowhere.jsonl: expected a data file"),
        ("trainer.accelerator=cuad", "trainer: expected an accelerator of this machine"),
    ],
)
def test_what_no_cell_can_begin_with_is_refused_at_once(
    setting: str, line: str, shared: Path
) -> None:
    def runner(_path: Path) -> None:
        raise AssertionError

    with pytest.raises(UserError, match=line):
        compare(
            str(shared), ["step", "salem"], [0, 1], ["name=lost", setting], FakeUi(), runner=runner
        )  # type: ignore[arg-type]
    assert not (shared.parent / "lost-compare").exists()


def here(path: Path) -> None:
    """Runs a cell in this process, which is quicker."""
    run_cell(configuration.load(path), FakeUi())  # type: ignore[arg-type]


def test_cells_run_beside_each_other_and_share_what_they_make(shared: Path) -> None:
    kept = []
    for jobs, runner in ((2, None), (1, here)):
        settings = ["name=jobs", f"output={shared.parent / f'jobs{jobs}'}"]
        table = compare(
            str(shared), ["step", "salem"], [0], settings, FakeUi(), 8, jobs=jobs, runner=runner
        )  # type: ignore[arg-type]
        kept.append([cell["per_edit"] for cell in table["cells"]])
    assert kept[0] == kept[1]


def test_seeds_are_told_apart_by_the_failures_of_their_edits(shared: Path) -> None:
    found = []
    for test in ("", str(shared.parent / "test.jsonl")):
        settings = [f"name=seeds{len(test)}", f"data.test={test}"]
        table = compare(str(shared), ["step"], [0, 1], settings, FakeUi(), runner=here)  # type: ignore[arg-type]
        found.append([cell["failures"] for cell in table["cells"]])
    assert None not in (*found[0], *found[1])
    assert found[0][0] != found[0][1]
    assert found[1][0] == found[1][1]
    folder = Path(table["cells"][0]["run"])
    (folder / "answers.jsonl").write_text('{"part": "fail"}\n', encoding="utf-8")
    assert failures_of(folder) is None
    (folder / "answers.jsonl").unlink()
    assert failures_of(folder) is None


def test_sequences_are_drawn_over_one_another(shared: Path) -> None:
    settings = [
        "name=course",
        "schedule.cumulative=true",
        "test.every=2",
        "data.adapt.rewrite=false",
    ]
    table = compare(str(shared), ["step", "ft"], [0], settings, FakeUi(), runner=here)  # type: ignore[arg-type]
    for cell in table["cells"]:
        results = json.loads((Path(cell["run"]) / "results.json").read_text(encoding="utf-8"))
        assert cell["course"] == results["course"]
        assert len(cell["course"]) > 2
    folder = Path(table["folder"])
    assert (folder / "course.png").read_bytes().startswith(b"\x89PNG")
    said = render("compare", table, io.StringIO())
    assert "end of the sequence" in said
    last = table["cells"][0]["course"][-1]
    assert f"{100 * last['earlier']:.1f}" in said


def test_schedules_are_compared(shared: Path) -> None:
    told = FakeUi()
    words = ["batch:1", "2", "sequential", "sequential-batched:2"]
    names = ["step", "rome"]
    own = ["name=scheduled", "test.every=0", "editor.locate.at=last"]
    done: list[str] = []

    def runner(path: Path) -> None:
        done.append(path.stem)
        if "rome" not in path.stem:
            here(path)

    table = compare(str(shared), names, [0], own, told, runner=runner, schedules=words)  # type: ignore[arg-type]
    assert [row["editor"] for row in table["editors"]] == [
        "step batch:1", "step batch:2", "step sequential", "step sequential-batched:2",
        "rome batch:1", "rome sequential",
    ]  # fmt: skip
    assert done[:2] == ["scheduled-step-batch-1-s0", "scheduled-step-batch-2-s0"]
    assert table["schedules"] == ["batch:1", "batch:2", "sequential", "sequential-batched:2"]
    for row, (mode, k) in zip(
        table["editors"],
        [("batch", 1), ("batch", 2), ("sequential", 1), ("sequential-batched", 2)],
        strict=False,
    ):
        assert row["schedule"] == {"mode": mode, "batch_size": k}
        assert row["preset"] == "step"
    said = " ".join(render("compare", table, io.StringIO()).split())
    assert "schedules batch:1, batch:2, sequential, sequential-batched:2" in said
    folder = Path(table["folder"])
    assert (folder / "schedules.png").read_bytes().startswith(b"\x89PNG")
    page = report(str(folder), None, FakeUi())  # type: ignore[arg-type]
    assert "Schedules" in Path(page["page"]).read_text()
    for wrong, message in (
        ({"editors": ["stepp"]}, "stepp"),
        ({"own": ["editr.bound=1"]}, "editr"),
    ):
        asked = {"editors": ["step"], "own": own, **wrong}
        with pytest.raises(ConfigError, match=message):
            compare(str(shared), asked["editors"], [0], asked["own"], told, schedules=["batch:1"])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="expected one that an editor can take, got none"):
        compare(
            str(shared),
            ["rome"],
            [0],
            own,
            FakeUi(),
            runner=runner,
            schedules=["batch:4"],  # type: ignore[arg-type]
        )


def test_as_many_run_at_once_as_were_asked_for() -> None:
    live, most, lock = 0, 0, threading.Lock()
    both = threading.Barrier(2)

    def runner(path: Path) -> None:
        nonlocal live, most
        with lock:
            live += 1
            most = max(most, live)
        both.wait(30)
        with lock:
            live -= 1
        if path.name == "3":
            raise JobError("broken")

    paths = [Path(str(i)) for i in range(6)]
    found = dict(run_all(paths, runner, jobs=2))
    assert most == 2
    assert {path.name for path, error in found.items() if error} == {"3"}
    assert sorted(found) == paths


@pytest.fixture
def sigint() -> Iterator[None]:
    """As in the foreground: a shell's background jobs, and all that they start, ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("sigint")
@pytest.mark.parametrize(
    ("number", "jobs", "deaf", "ends"),
    [
        (signal.SIGINT, 1, "", "saved"),
        (signal.SIGINT, 2, "", "saved"),
        (signal.SIGINT, 2, "SIGINT", "runs"),  # ended by SIGTERM
        (signal.SIGINT, 1, "SIGINT SIGTERM", "runs"),  # killed
        (signal.SIGTERM, 1, "", "saved"),
        (signal.SIGTERM, 2, "", "saved"),
    ],
)
def test_an_interruption_ends_the_cells_that_run(
    number: signal.Signals, jobs: int, deaf: str, ends: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    marks = tmp_path / "marks"
    marks.mkdir()
    # In the place of a cell: says that it lives, and ends as one does that is interrupted.
    waits = """
import os, signal, sys, time
from pathlib import Path
for name in DEAF.split():
    signal.signal(getattr(signal, name), signal.SIG_IGN)
mark = Path(MARKS) / Path(sys.argv[1]).stem
try:
    mark.with_suffix(".pid").write_text(str(os.getpid()))
    mark.write_text("runs")
    time.sleep(600)
except KeyboardInterrupt:
    time.sleep(0.2)
    mark.write_text("saved")
    sys.exit(130)
""".replace("MARKS", repr(str(marks))).replace("DEAF", repr(deaf))
    monkeypatch.setattr(crew, "_CELL", waits)
    # A cell that is not told otherwise is waited for in vain: nobody else interrupts it here.
    monkeypatch.setattr(crew, "_GRACE", 0.5 if deaf else 2.0)
    runner = OwnProcess(True, 1)
    paths = [tmp_path / f"{i}.yaml" for i in range(4)]

    def seen() -> list[Path]:
        return sorted(path for path in marks.iterdir() if not path.suffix)

    def interrupt() -> None:
        while len([path for path in seen() if path.read_text()]) < jobs:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    before = signal.getsignal(signal.SIGTERM)
    killer = threading.Thread(target=interrupt)
    killer.start()
    with pytest.raises(KeyboardInterrupt):
        list(run_all(paths, runner, jobs=jobs))
    killer.join()
    assert [path.name for path in seen()] == [str(i) for i in range(jobs)], "no other one begins"
    assert {path.read_text() for path in seen()} == {ends}
    assert not runner._live
    assert signal.getsignal(signal.SIGTERM) == before
    for path in marks.glob("*.pid"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)


@pytest.mark.usefixtures("sigint")
def test_what_ends_the_table_ends_the_cells_that_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "_CELL", "import sys, time; time.sleep('1' in sys.argv[1] and 600)")
    monkeypatch.setattr(crew, "_GRACE", 0.1)
    runner = OwnProcess(True, 1)
    with closing(run_all([Path("0"), Path("1")], runner, jobs=2)) as ended:
        assert next(ended)[0] == Path("0")
        (process,) = runner._live
    assert process.poll() is not None
    assert not runner._live


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("trainer.bogus=1", "trainer.bogus: unknown argument"),
        ("trainer.max_epochs=1", "trainer.max_epochs: is set by saledit itself"),
        ("trainer.max_steps=0", "trainer.max_steps: expected a whole number above 0, got 0"),
        ("trainer.precision=bf16-true", "trainer.precision: expected 32-true, bf16-mixed or 16"),
        ("trainer.strategy=deepspeed", "trainer.strategy: expected auto, ddp or fsdp"),
        ("editor.ft.rate=0", "editor.ft.rate: expected a number above 0, got 0.0; e.g. 0.001"),
        ("editor.enn.rate=0", "editor.enn.rate: expected a number above 0, got 0.0; e.g. 0.01"),
        ("loss.penalty=klx", "loss.penalty: unknown name 'klx'"),
        ("caches.dtype=int8", "caches.dtype: unknown name 'int8'"),
        ("site.select=best", "site.select: unknown name 'best'"),
        ("train.seconds=1e200", "train.seconds: expected at least 0 and at most"),
    ],
)
def test_fit_and_compare_refuse_the_same(setting: str, message: str, shared: Path) -> None:
    def never(_path: Path) -> None:
        raise AssertionError("a cell ran")

    with pytest.raises(ConfigError, match=re.escape(message)) as refused:
        compare(str(shared), ["step", "ft"], [0], [setting], FakeUi(), runner=never)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=re.escape(message)):
        fit(configuration.load(shared, [setting]), False, ui())
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("editors", "seeds", "more", "message"),
    [
        (["nosuch"], [0], {}, "editors/nosuch"),
        ([], [0], {}, "expected editors and seeds"),
        (["step", "step"], [0], {}, "each editor and each seed once"),
        (["step"], [1, 1], {}, "each editor and each seed once"),
        (["step", "mine/step.yaml"], [0], {}, "step and mine/step.yaml, .* rename the file"),
        (["a/x.yaml", "b/x.yml"], [0], {}, "a/x.yaml and b/x.yml, .* would both be 'x'"),
        (["step"], [0], {"edits": 5, "seconds": 5.0}, "expected one budget"),
        (["step"], [0], {"edits": -5}, "--edits: expected a whole number above 0, got -5"),
        (["step"], [0], {"seconds": -3.0}, r"--seconds: expected a number above 0, .* got -3\.0"),
        (["step"], [0], {"seconds": float("nan")}, "--seconds: .* got nan"),
        (["step"], [0], {"seconds": float("inf")}, "--seconds: .* got inf"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_runs(
    editors: list[str], seeds: list[int], more: dict[str, Any], message: str, shared: Path
) -> None:
    def never(_path: Path) -> None:
        raise AssertionError("a cell ran")

    with pytest.raises(ConfigError, match=message):
        compare(str(shared), editors, seeds, [], FakeUi(), runner=never, **more)  # type: ignore[arg-type]


def test_results_of_what_has_changed_since_are_no_results(shared: Path, tmp_path: Path) -> None:
    """Neither other data nor another model is in the configuration."""
    model, data = tmp_path / "model", tmp_path / "test.jsonl"
    shutil.copytree(shared.parent / "model", model)
    shutil.copy(shared.parent / "test.jsonl", data)
    own = [
        f"model.name={model}", f"data.test={data}", f"output={tmp_path}", "train.epochs=1",
    ]  # fmt: skip
    config = configuration.load(shared, own, ["editors/salem"])
    run_cell(config, ui())
    first, kept = facts_of(config), data.read_text()
    assert first is not None
    data.touch()
    (model / "notes.txt").symlink_to(tmp_path / "nowhere")
    assert facts_of(config) == first
    data.write_text("".join(kept.splitlines(keepends=True)[:-1]))
    assert facts_of(config) is None
    data.write_text(kept)
    assert facts_of(config) == first
    save(build("bert", seed=4), model)
    assert facts_of(config) is None
    trained = (config.folder / "editor.safetensors").read_bytes()
    run_cell(config, ui())  # on the model that is there now
    assert facts_of(config) not in (None, first)
    assert (config.folder / "editor.safetensors").read_bytes() != trained
    shutil.rmtree(model)  # what is gone says nothing
    assert facts_of(config) is not None
