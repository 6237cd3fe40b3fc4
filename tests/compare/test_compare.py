"""``saledit compare``: cells, what is kept, what fails, and intervals."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from quick import quick
from tiny import build, samples, save
from whole_runs import FakeUi, compared, rows, ui

from saledit import config as configuration
from saledit.artifact import REVISION
from saledit.config import RunConfig
from saledit.errors import ConfigError, JobError, UserError
from saledit.files import alone, one_at_a_time, write_json, write_jsonl
from saledit.report import render
from saledit.run import compare, fit, report
from saledit.run import test as run_test
from saledit.run.budget import budgeted, length
from saledit.run.cells.cell import run_cell
from saledit.run.cells.done import Found, facts_of, failures_of, found_of
from saledit.run.setup import prepare


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
        "data.max_test_failures=8",
        "test.passes_per_edit=20",
        "editor.ft.steps=3",
        "trainer.accelerator=cpu",
    ]
    path = folder / "tiny.yaml"
    path.write_text(configuration.to_yaml(configuration.load(None, settings)), encoding="utf-8")
    return path


def test_every_editor_gets_a_row_and_a_failing_one_takes_no_other_down(shared: Path) -> None:
    names = ["salem", "ft", "malmen", "step", "lora-ft"]
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
    found, cells = compared(folder)
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
        if name in ("salem", "malmen"):  # the others are not trained
            state = torch.load(Path(cell["run"]) / "last.ckpt", weights_only=True)
            assert state["global_step"] == 5  # of 4 edits: 20
        assert len(results["sites"]) == 2
    assert "malmen" in render("compare", table, io.StringIO())
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
    timed: dict[str, Any] = {"seconds": 1.5, "runner": runner}
    kept = (Path(table["cells"][0]["run"]) / "results.json").read_bytes()
    refused = "salem-s0: expected no results or those of this comparison, got some of train.epochs="
    with pytest.raises(ConfigError, match=refused) as error:
        compare(str(shared), ["salem", "step"], [0], settings, FakeUi(), **timed)  # type: ignore[arg-type]
    assert "more such cells" not in str(error.value), "what is not trained has no budget"
    assert "give another name=..., or --anew to replace them" in str(error.value)
    assert ran == []
    assert (Path(table["cells"][0]["run"]) / "results.json").read_bytes() == kept
    told = FakeUi()
    table = compare(str(shared), ["salem", "step"], [0], settings, told, anew=True, **timed)  # type: ignore[arg-type]
    assert any("as its results are of train.epochs=" in line for line in told.stages)
    assert len(ran) == 1
    assert 1.5 <= table["cells"][0]["timing"]["train_seconds"] < 30, "the clock ends a training"


@pytest.mark.parametrize("edits", [1, 20, 30, 101, 2400, 20000])
@pytest.mark.parametrize("epochs", [1, 8, 30])
@pytest.mark.parametrize("k", [1, 10])
@pytest.mark.parametrize("together", [1, 7])
def test_as_many_edits_are_trained_on_as_were_asked_for(
    edits: int, epochs: int, k: int, together: int
) -> None:
    keys = [f"train.epochs={epochs}", f"schedule.batch_size={k}"]
    config = configuration.load(None, [*keys, f"trainer.accumulate_grad_batches={together}"])
    found, each = budgeted(config, edits, 0), config.train.edits(k)
    whole = found.train.epochs * found.train.steps_per_epoch
    long = length(found)
    assert edits <= long.batches * each < edits + together * each
    assert whole - found.train.steps_per_epoch < long.batches <= whole, "every epoch has batches"
    assert long.epochs == found.train.epochs <= epochs
    assert budgeted(found, edits, 0) == found


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, (3, 30, 30)),
        ({"max_steps": -1}, (3, 30, 30)),
        ({"max_steps": 99}, (3, 30, 30)),
        ({"max_steps": 20}, (2, 20, 20)),
        ({"max_steps": 21}, (3, 21, 21)),
        # Lightning steps at the end of each epoch, too, whatever it has gathered.
        ({"accumulate_grad_batches": 8}, (3, 30, 6)),
        ({"accumulate_grad_batches": 8, "max_steps": 4}, (2, 20, 4)),
        ({"accumulate_grad_batches": 8, "max_steps": 5}, (3, 28, 5)),
        ({"accumulate_grad_batches": 20, "max_steps": 2}, (2, 20, 2)),
    ],
)
def test_how_long_a_training_is(keys: dict[str, int], expected: tuple[int, int, int]) -> None:
    own = [f"trainer.{name}={value}" for name, value in keys.items()]
    config = configuration.load(None, ["train.epochs=3", "train.steps_per_epoch=10", *own])
    assert length(config) == expected


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


def test_results_that_do_not_say_what_they_are_of_are_none(done: RunConfig) -> None:
    """What a plain test of the cell writes says it; what an older one wrote is measured again."""
    expected = facts_of(done)
    assert expected is not None
    run_test(str(done.folder), [], ui())
    found = facts_of(done)
    assert found is not None
    for same in ("metrics", "per_edit", "failures"):
        assert found[same] == expected[same]
    trained = json.loads((done.folder / "fit.json").read_text())["memory"]
    for name, value in trained.items():
        assert found[name] >= value > 0
    if os.access("/proc/self/clear_refs", os.W_OK):
        assert "setup_rss_mb" in trained
    path = done.folder / "results.json"
    results = json.loads(path.read_text(encoding="utf-8"))
    del results["origins"]["data.train"]
    write_json(path, results)
    assert facts_of(done) is None
    del results["origins"]
    write_json(path, results)
    assert facts_of(done) is None


def test_a_finished_cell_of_other_settings_is_kept_unless_asked_otherwise(
    done: RunConfig,
) -> None:
    assert found_of(done).facts is not None
    other = replace(done, seed=5, loss=replace(done.loss, edit=0.5, margin=1.0, penalty="root-kl"))
    why = "of seed=0 in place of 5, loss.edit=0.1 in place of 0.5"
    found = found_of(other)
    assert found.why.startswith(why)
    assert found.why.endswith(" and 1 more")
    assert found.is_other
    # A key that there was not before has its default; elsewhere it is the same.
    path = done.folder / "config.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text("\n".join(line for line in text.splitlines() if "margin" not in line))
    assert found_of(done) == Found(why="written elsewhere or by other code")
    path.write_text("what: ever\n")
    assert found_of(done).is_other
    (done.folder / "results.json").unlink()
    assert found_of(done) == Found()


def test_cells_of_other_code_are_run_again_and_it_is_said(shared: Path) -> None:
    def again() -> tuple[list[str], Path]:
        shown = FakeUi()
        table = compare(str(shared), ["step"], [0], ["name=older"], shown, runner=here)  # type: ignore[arg-type]
        assert table["notes"] == []
        return shown.stages, Path(table["cells"][0]["run"]) / "results.json"

    _, path = again()
    results = json.loads(path.read_text(encoding="utf-8"))
    kept = path.read_bytes()
    assert "run again" not in " ".join(again()[0])
    assert path.read_bytes() == kept
    del results["revision"]
    write_json(path, results)
    assert "run again, as its results are made by other code: step, seed 0" in again()[0]
    assert json.loads(path.read_text(encoding="utf-8"))["revision"] == REVISION


def test_a_cell_says_what_picking_its_layer_took(shared: Path) -> None:
    own = ["name=picked", "site.select=sweep", "site.layer=-1", "train.validation_edits=2"]
    table = compare(str(shared), ["step"], [0], own, FakeUi(), 8, runner=here)  # type: ignore[arg-type]
    (cell,), (editor,) = table["cells"], table["editors"]
    picked = json.loads((Path(cell["run"]) / "saliency.json").read_text(encoding="utf-8"))
    for name in ("seconds", "forward_passes", "backward_passes"):
        assert cell[f"picking_{name}"] == editor[f"picking_{name}"] == picked[name]
    assert cell["picking_seconds"] > 0


@pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="no peak begins anew here"
)
def test_what_is_made_for_all_cells_is_not_charged_to_the_first(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = prepare.load_model

    def load_model(*args: Any) -> Any:
        torch.ones(2**27).sum()  # 512 MB, as fine-tuning may take
        return real(*args)

    monkeypatch.setattr(prepare, "load_model", load_model)
    config = configuration.load(shared, ["name=charged"], ["editors/step"])
    run_cell(config, ui())
    found = facts_of(config)
    assert found is not None
    assert found["setup_rss_mb"] > found["peak_rss_mb"] + 256


@pytest.mark.parametrize("broken", quick(["last.ckpt"], ["last.ckpt", "best.ckpt", "metrics.csv"]))
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


def test_cells_that_share_the_clock_are_told(shared: Path) -> None:
    def fails(_path: Path) -> None:
        raise JobError("killed")

    for seconds, jobs, is_told in ((5.0, 2, True), (5.0, 1, False), (0.0, 2, False)):
        shown = FakeUi()
        table = compare(
            str(shared), ["salem"], [0], ["name=clock"], shown, seconds=seconds, jobs=jobs,
            runner=fails,
        )  # type: ignore[arg-type]  # fmt: skip
        line = "How far cells get in train.seconds depends on those that ran beside them"
        assert any(line in note for note in table["notes"]) == is_told
        assert any(line in stage for stage in shown.stages) == is_told


def test_what_there_is_is_drawn_when_a_comparison_is_interrupted(shared: Path) -> None:
    def interrupted(_path: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(str(shared), ["ft"], [0], ["name=cut"], FakeUi(), runner=interrupted)  # type: ignore[arg-type]
    assert (shared.parent / "cut-compare" / "compare.png").read_bytes().startswith(b"\x89PNG")


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


@pytest.mark.long
def test_cells_run_beside_each_other_and_share_what_they_make(shared: Path) -> None:
    kept = []
    for jobs, runner in ((2, None), (1, here)):
        settings = ["name=jobs", f"output={shared.parent / f'jobs{jobs}'}"]
        table = compare(
            str(shared), ["step", "salem"], [0], settings, FakeUi(), 8, jobs=jobs, runner=runner
        )  # type: ignore[arg-type]
        kept.append([cell["per_edit"] for cell in table["cells"]])
    assert kept[0] == kept[1]


@pytest.mark.long
def test_seeds_are_told_apart_by_the_failures_of_their_edits(shared: Path) -> None:
    found = []
    for test in ("", str(shared.parent / "test.jsonl")):
        settings = [f"name=seeds{len(test)}", f"data.test={test}"]
        table = compare(str(shared), ["ft"], [0, 1], settings, FakeUi(), runner=here)  # type: ignore[arg-type]
        found.append([cell["failures"] for cell in table["cells"]])
    assert None not in (*found[0], *found[1])
    assert found[0][0] != found[0][1]
    assert found[1][0] == found[1][1]
    folder = Path(table["cells"][0]["run"])
    (folder / "answers.jsonl").write_text('{"part": "fail"}\n', encoding="utf-8")
    assert failures_of(folder) is None
    (folder / "answers.jsonl").unlink()
    assert failures_of(folder) is None


@pytest.mark.long
def test_sequences_are_drawn_over_one_another(shared: Path) -> None:
    settings = [
        "name=course",
        "schedule.cumulative=true",
        "test.every=4",
        "data.adapt.rewrite=false",
    ]
    table = compare(str(shared), ["ft", "lora-ft"], [0], settings, FakeUi(), runner=here)  # type: ignore[arg-type]
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


@pytest.mark.long
def test_schedules_are_compared(shared: Path) -> None:
    told = FakeUi()
    words = ["batch:1", "2", "sequential", "sequential-batched:2"]
    names = ["ft", "rome"]
    own = ["name=scheduled", "test.every=0", "editor.locate.at=last"]
    done: list[str] = []

    def runner(path: Path) -> None:
        done.append(path.stem)
        if "rome" not in path.stem:
            here(path)

    table = compare(str(shared), names, [0], own, told, runner=runner, schedules=words)  # type: ignore[arg-type]
    assert [row["editor"] for row in table["editors"]] == [
        "ft batch:1", "ft batch:2", "ft sequential", "ft sequential-batched:2",
        "rome batch:1", "rome sequential",
    ]  # fmt: skip
    assert done[:2] == ["scheduled-ft-batch-1-s0", "scheduled-ft-batch-2-s0"]
    assert table["schedules"] == ["batch:1", "batch:2", "sequential", "sequential-batched:2"]
    for row, (mode, k) in zip(
        table["editors"],
        [("batch", 1), ("batch", 2), ("sequential", 1), ("sequential-batched", 2)],
        strict=False,
    ):
        assert row["schedule"] == {"mode": mode, "batch_size": k}
        assert row["preset"] == "ft"
    said = " ".join(render("compare", table, io.StringIO()).split())
    assert "schedules batch:1, batch:2, sequential, sequential-batched:2" in said
    folder = Path(table["folder"])
    assert (folder / "schedules.png").read_bytes().startswith(b"\x89PNG")
    page = report(str(folder), None, FakeUi())  # type: ignore[arg-type]
    assert "Schedules" in Path(page["page"]).read_text()
    for wrong, message in (
        ({"editors": ["ftt"]}, "ftt"),
        ({"own": ["editr.bound=1"]}, "editr"),
    ):
        asked = {"editors": ["ft"], "own": own, **wrong}
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


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("trainer.bogus=1", "trainer.bogus: unknown argument"),
        ("trainer.max_epochs=1", "trainer.max_epochs: is set by saledit itself; set train.epochs"),
        ("trainer.max_time=1:0:0:0", "trainer.max_time: is set by saledit itself; set train.sec"),
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
    ("setting", "message"),
    [
        ("test.texts=nowhere.jsonl", "nowhere.jsonl: expected"),
        ("test.abilities=nowhere.jsonl", "nowhere.jsonl: expected"),
        ("test.n_texts=0", "test.n_texts: expected at least 1, got 0"),
        ("test.every=-2", "test.every: expected at least 0, got -2"),
    ],
)
def test_what_a_sequence_looks_at_is_read_before_anything_runs(
    setting: str, message: str, shared: Path
) -> None:
    def never(_path: Path) -> None:
        raise AssertionError("a cell ran")

    own = ["name=watched", "schedule.cumulative=true"]
    own += [setting] if "every" in setting else [setting, "test.every=4"]
    with pytest.raises(UserError, match=message):
        compare(str(shared), ["step"], [0], own, FakeUi(), runner=never)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=message):
        fit(configuration.load(shared, own), False, ui())


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


@pytest.mark.long
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
