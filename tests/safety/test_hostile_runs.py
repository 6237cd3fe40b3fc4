"""What runs leave for themselves: caches are made anew, results too, checkpoints refused."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from hostile import (
    BAD_JSON,
    KINDS,
    blocked,
    byte_changes,
    counts,
    fuzz,
    header_changes,
    json_changes,
    refused,
    tolerated,
)
from hypothesis import strategies as st
from torch import Tensor
from whole_runs import ui

from saledit import config as configuration
from saledit.artifact import REVISION
from saledit.cache.bank import Bank, BankSpec
from saledit.cache.covariance import Corpus, second_moments
from saledit.cache.opening import open_bank
from saledit.config import RunConfig
from saledit.data.memo import Memo
from saledit.delta import Edits
from saledit.editors.locating import FactSpec
from saledit.facts.values import Values
from saledit.files import write_json, write_text
from saledit.models import TaskModel
from saledit.report import comparison_figure, courses_figure, courses_of, render
from saledit.run.cells import done
from saledit.run.cells.done import _RESULTS, _facts, facts_of, is_of
from saledit.run.cells.rivals import Rival
from saledit.run.cells.summing import summary
from saledit.run.cells.table import draw_table, table_of, write_table
from saledit.run.curves import read_metrics
from saledit.run.reporting import report
from saledit.run.resuming import WholeCheckpoints, steps_of
from saledit.run.sequence import Kept
from saledit.run.testing import training_times
from saledit.run.training import train_at
from saledit.site import Layer
from saledit.tasks.nli import Nli

TASK = Nli()
LAYER = Layer(0, ())


@pytest.fixture(scope="module")
def bert() -> TaskModel:
    return tiny.build("bert")


# -------------------------------------------------------------------------------------- caches


@counts(100)
def test_fuzz_memos(examples: int, tmp_path: Path) -> None:
    """Whatever became of the file, answers are those that would be computed."""
    questions: list[object] = [["a", "b"], "c", 3]

    def answer(missing: list[int]) -> list[Any]:
        return [[f"answer {i}", True, 0.5] for i in missing]

    Memo(tmp_path, "answers", "x")(questions, answer)
    (path,) = tmp_path.glob("answers-*.sqlite")
    whole, few = path.read_bytes(), examples < 1000

    def example(change: Callable[[bytes], bytes]) -> None:
        path.write_bytes(change(whole))
        assert Memo(tmp_path, "answers", "x")(questions, answer) == [
            [f"answer {i}", True, 0.5] for i in range(3)
        ]

    fuzz(examples, byte_changes(), example, few)


def parts(bank: Bank) -> list[Tensor]:
    index = torch.arange(len(bank))
    rows = bank.rows(index)
    factors = [t for pair in bank.factors(index) for t in (pair.u, pair.v)]
    return [bank.losses, bank.lengths, bank.targets, bank.logits, *bank.moments(), *factors,
            *rows.inputs.values(), *rows.states.values()]  # fmt: skip


@counts(40)
def test_fuzz_banks(examples: int, bert: TaskModel, tmp_path: Path) -> None:
    """A shard, or a sum beside it, that is not the one that was written is made again."""
    spec, samples = BankSpec(bert.layer(1), rank=2, moments=True), tiny.samples(4)
    want = [t.clone() for t in parts(open_bank(bert, TASK, samples, spec, tmp_path))]
    paths = sorted(tmp_path.rglob("*.safetensors"))
    assert [path.name for path in paths] == ["moments.safetensors", "shard-00000.safetensors"]
    wholes, few = {path: path.read_bytes() for path in paths}, examples < 1000

    def example(change: Callable[[bytes], bytes]) -> None:
        for path, whole in wholes.items():
            path.unlink()
            path.write_bytes(change(whole))
        got = parts(open_bank(bert, TASK, samples, spec, tmp_path))
        assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-5)
                   for a, b in zip(got, want, strict=True))  # fmt: skip

    fuzz(examples, byte_changes() | header_changes(), example, few)


@counts(100)
def test_fuzz_values(examples: int, bert: TaskModel, tmp_path: Path) -> None:
    site, (sample,) = bert.layer(1).sites[-1], tiny.samples(1)
    values = Values(tmp_path, bert, TASK, site, FactSpec("last", 0, 5, 0.1, 0.0, 0.5, 4.0), ())
    want = torch.randn(site.d_out, generator=torch.Generator().manual_seed(0))
    values.write(sample, want)
    (path,) = tmp_path.rglob("*.safetensors")
    whole, few = path.read_bytes(), examples < 1000

    def example(change: Callable[[bytes], bytes]) -> None:
        path.unlink(missing_ok=True)
        path.write_bytes(change(whole))
        found = values.read(sample)
        assert found is None or torch.equal(found, want)

    fuzz(examples, byte_changes() | header_changes(), example, few)


@counts(40)
def test_fuzz_moments(examples: int, bert: TaskModel, tmp_path: Path) -> None:
    layer: Layer = bert.layer(1)
    texts = [" ".join(sample.inputs) for sample in tiny.samples(12)]
    corpus = Corpus("x", lambda: texts, 100, 16)
    want = second_moments(bert, layer, corpus, tmp_path)
    (path,) = tmp_path.rglob("moments-*.safetensors")
    whole, few = path.read_bytes(), examples < 1000

    def example(change: Callable[[bytes], bytes]) -> None:
        path.unlink()
        path.write_bytes(change(whole))
        got = second_moments(bert, layer, corpus, tmp_path)
        assert all(torch.allclose(a, b) for a, b in zip(got, want, strict=True))

    fuzz(examples, byte_changes() | header_changes(), example, few)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", KINDS)
def test_caches_that_are_no_files_are_made_anew(kind: str, bert: TaskModel, tmp_path: Path) -> None:
    Memo(tmp_path, "answers", "x")(["a"], lambda missing: [1 for _ in missing])
    (path,) = tmp_path.glob("answers-*.sqlite")
    blocked(path, kind)
    if kind == "folder":
        refused(lambda: Memo(tmp_path, "answers", "x")(["a"], lambda m: [1 for _ in m]), path.name)
    else:
        assert Memo(tmp_path, "answers", "x")(["a"], lambda m: [1 for _ in m]) == [1]
        assert not path.is_symlink()
    corpus = Corpus("x", lambda: ["ba be bi bo bu"] * 12, 100, 16)
    second_moments(bert, bert.layer(1), corpus, tmp_path)
    (path,) = tmp_path.rglob("moments-*.safetensors")
    blocked(path, kind)
    tolerated(lambda: second_moments(bert, bert.layer(1), corpus, tmp_path), len, path.name)
    spec = BankSpec(bert.layer(1), moments=True)
    open_bank(bert, TASK, tiny.samples(4), spec, tmp_path / "bank")
    (path,) = tmp_path.rglob("moments.safetensors")
    blocked(path, kind)
    tolerated(
        lambda: open_bank(bert, TASK, tiny.samples(4), spec, tmp_path / "bank"), len, path.name
    )


@counts(40)
def test_fuzz_sequences(examples: int, bert: TaskModel, tmp_path: Path) -> None:
    """A sequence that was cut off goes on from what was kept, or begins anew."""
    kept = Kept.__new__(Kept)
    kept._base, kept._folder = bert, tmp_path / "sequence"
    kept._began = kept.seconds_before = 0.0
    edits = tiny.random_edits(bert.layer(1).sites)
    points = [{"n_failures": 0, "pass_accuracy": 1.0}, {"n_failures": 4, "pass_accuracy": 0.5}]
    session = SimpleNamespace(state=(edits, {"past_1": torch.eye(16)}))
    kept.keep(session, points, 5, 4)  # type: ignore[arg-type]
    files, few = {p.name: p.read_bytes() for p in kept._folder.iterdir()}, examples < 1000

    def example(change: tuple[str, Callable[[bytes], bytes]]) -> None:
        for name, data in files.items():
            (kept._folder / name).write_bytes(change[1](data) if name == change[0] else data)
        seen: list[Edits] = []
        read: list[dict[str, Any]] = []
        session = SimpleNamespace(go_on=lambda steps, _memory: seen.append(steps))
        done = kept.restore(session, read)  # type: ignore[arg-type]
        assert (done, read) in (((0, 0), []), ((5, 4), points))
        assert len(seen) == bool(done[0])
        assert not seen or set(seen[0]) == set(edits)

    facts = st.tuples(st.just("edits.json"), byte_changes() | json_changes())
    weights = st.tuples(st.sampled_from(sorted(files)), byte_changes())
    fuzz(examples, facts | weights, example, few)


# --------------------------------------------------------------------------------- checkpoints


def state(folder: Path, **changes: Any) -> dict[str, Any]:
    keep = {"best_model_path": str(folder / "best.ckpt"), "last_model_path": "",
            "best_k_models": {str(folder / "best.ckpt"): torch.tensor(0.5)},
            "dirpath": str(folder)}  # fmt: skip
    return {
        "global_step": 7, "epoch": 1, "state_dict": {"w": torch.arange(4.0)},
        "callbacks": {"ModelCheckpoint": keep, "Timer": {"time_elapsed": {}}}, **changes,
    }  # fmt: skip


def saved(folder: Path, **changes: Any) -> Path:
    torch.save(state(folder, **changes), folder / "last.ckpt")
    return folder / "last.ckpt"


def test_a_checkpoint_of_a_machine_with_accelerators_is_read_on_one_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(torch.serialization, "location_tag", lambda _storage: "cuda:0")
        path = saved(tmp_path)
    with pytest.raises(RuntimeError):
        torch.load(path, weights_only=True)
    assert steps_of(path) == 7


def test_a_checkpoint_of_the_run_is_taken(tmp_path: Path) -> None:
    assert steps_of(saved(tmp_path)) == 7
    assert steps_of(None) == 0


OUTSIDE: dict[str, dict[str, Any]] = {
    "above": {"best_model_path": "../../x.ckpt"},
    "absolute": {"kth_best_model_path": "/etc/passwd"},
    "over and back": {"last_model_path": "FOLDER/../x.ckpt"},
    "many": {"best_k_models": {"/etc/passwd": 1.0}},
    "another file system": {"best_model_path": "memory://x"},
    "no text": {"best_model_path": 5},
}


@pytest.mark.parametrize("kind", OUTSIDE)
def test_files_elsewhere_are_not_named_by_a_checkpoint(kind: str, tmp_path: Path) -> None:
    """Lightning reads the best one and removes those that are no longer the best."""
    text = json.dumps(OUTSIDE[kind]).replace("FOLDER", str(tmp_path))
    path = saved(tmp_path, callbacks={"ModelCheckpoint": json.loads(text)})
    assert "start anew without --resume" in refused(lambda: steps_of(path), "last.ckpt")


def test_what_a_checkpoint_names_lies_where_it_lies_itself(tmp_path: Path) -> None:
    """Its paths are those of where the run was when it was written, or of somebody else's."""
    keep = {
        "best_model_path": "/etc/best.ckpt", "kth_best_model_path": "../../best.ckpt",
        "last_model_path": "", "best_k_models": {"memory://x/best.ckpt": torch.tensor(0.5)},
        "dirpath": "/etc", "best_model_score": torch.tensor(0.5),
    }  # fmt: skip
    path = saved(tmp_path, callbacks={"ModelCheckpoint": keep})
    best = str(tmp_path / "best.ckpt")
    assert WholeCheckpoints().load_checkpoint(path)["callbacks"]["ModelCheckpoint"] == {
        "best_model_path": best, "kth_best_model_path": best, "last_model_path": "",
        "best_k_models": {best: torch.tensor(0.5)}, "dirpath": str(tmp_path),
        "best_model_score": torch.tensor(0.5),
    }  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [{"global_step": -1}, {"global_step": "7"}, {"global_step": None}, {"epoch": []},
     {"state_dict": []}, {"callbacks": 5}, {"global_step": float("inf")}],
    ids=str,
)  # fmt: skip
def test_checkpoints_that_fit_no_run(changes: dict[str, Any], tmp_path: Path) -> None:
    path = saved(tmp_path, **changes)
    refused(lambda: steps_of(path), "last.ckpt")


class Bomb:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self._path,)


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    path, ran = tmp_path / "last.ckpt", tmp_path / "ran"
    torch.save(state(tmp_path, callbacks={"x": Bomb(ran)}), path)
    refused(lambda: steps_of(path), "last.ckpt")
    torch.save(state(tmp_path, x=Bomb(ran)), path, _use_new_zipfile_serialization=False)
    refused(lambda: steps_of(path), "last.ckpt")
    path.write_bytes(pickle.dumps(Bomb(ran)))
    refused(lambda: steps_of(path), "last.ckpt")
    assert not ran.exists()


def test_a_packed_checkpoint_is_not_unpacked(tmp_path: Path) -> None:
    """Packed zeros are a thousand times as large in memory."""
    path = saved(tmp_path, state_dict={"w": torch.zeros(10**6)})
    with zipfile.ZipFile(path) as whole:
        found = {part.filename: whole.read(part) for part in whole.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in found.items():
            packed.writestr(name, data)
    assert "packed" in refused(lambda: steps_of(path), "last.ckpt")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_checkpoint(kind: str, tmp_path: Path) -> None:
    blocked(tmp_path / "last.ckpt", kind)
    refused(lambda: steps_of(tmp_path / "last.ckpt"), "last.ckpt")
    blocked(tmp_path / "metrics.csv", kind)
    tolerated(lambda: read_metrics(tmp_path / "metrics.csv"), lambda rows: rows == [])


@counts(150)
def test_fuzz_checkpoints(examples: int, tmp_path: Path) -> None:
    path, few = saved(tmp_path), examples < 1000
    whole = path.read_bytes()

    def check(steps: int) -> None:
        assert steps >= 0

    def example(change: Callable[[bytes], bytes]) -> None:
        path.write_bytes(change(whole))
        tolerated(lambda: steps_of(path), check, "last.ckpt")

    fuzz(examples, byte_changes(), example, few)


@pytest.mark.parametrize(
    "text",
    ["step,a\n1\n", "step,a\n1,2,3\n", "step,a\nx,2\n", "a\n1\n", 'step,a\n1,"2,3"\n',
     'step,a\n1,"2\n', "step,a\n-1,2\n", "step,a\n1e5,2\n", "step,a\n²,2\n"],
)  # fmt: skip
def test_metrics_that_are_broken(text: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(text)
    refused(lambda: read_metrics(tmp_path / "metrics.csv"), "metrics.csv")


@counts(150)
def test_fuzz_metrics(examples: int, tmp_path: Path) -> None:
    path, few = tmp_path / "metrics.csv", examples < 1000
    whole = b"epoch,step,train/loss,val/score\n0,9,0.5,\n0,9,,0.25\n1,19,0.25,0.5\n"

    def check(rows: list[dict[str, str]]) -> None:
        assert all(int(row["step"]) >= 0 for row in rows)
        assert len({tuple(row) for row in rows}) <= 1

    def example(change: Callable[[bytes], bytes]) -> None:
        path.write_bytes(change(whole))
        tolerated(lambda: read_metrics(path), check, "metrics.csv")

    fuzz(examples, byte_changes(), example, few)


# ------------------------------------------------------------------------------------- results


def made() -> dict[str, Any]:
    """What a training and a test say of what made them."""
    versions = {"saledit": "0.1.0", "torch": "2.8.0"}
    environment = {"device": "cpu", "threads": 2}
    return {"revision": REVISION, "versions": versions, "environment": environment}


def results() -> dict[str, Any]:
    edits = {name: [1, 0, 2] for name in ("fail", "adapt", "lost")}
    edits |= {name: [2, 2, 4] for name in ("fail_of", "adapt_of", "lost_of")}
    shares = {"fail_accuracy": 0.5, "adapt_accuracy": 0.5, "edit_accuracy": 0.5, "drawdown": 0.1}
    return {
        "layer": 1, "sites": [{"name": "x"}],
        "schedule": {"mode": "batch", "batch_size": 2}, "metrics": {**shares, "locality_kl": 0.01},
        "per_edit": edits, "timing": {"train_seconds": 1.0, "edits_per_second": 2},
        "memory": {"peak_rss_mb": 100.0}, "collapse": None, **made(),
        "course": [
            {"n_failures": 0, "pass_accuracy": 1.0},
            {"n_failures": 5, "perplexity": 9.5, "delta_norm": 1.0, "weight_norm": 2.0,
             "abilities": {"sentiment": 0.5}, "earlier": 0.25},
        ],
    }  # fmt: skip


@pytest.fixture
def cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """A run that is done, of files that are as they were."""
    monkeypatch.setattr(done, "origins", lambda _config: {})
    return finished(RunConfig(name="cell", output=str(tmp_path)))


def finished(config: RunConfig) -> RunConfig:
    """Lay down what a cell leaves."""
    write_text(config.folder / "config.yaml", configuration.to_yaml(config))
    write_text(config.folder / "editor.safetensors", "")
    write_json(config.folder / "results.json", results())
    write_json(
        config.folder / "fit.json", {"memory": {"peak_rss_mb": 90.0}, "saliency": None, **made()}
    )
    return config


def laid_out(cell: RunConfig) -> dict[str, Any]:
    """A comparison of one cell, written, drawn and shown as far as it is known."""
    table = table_of({(Rival("a"), 0): cell}, {cell.name: facts_of(cell)}, {}, cell, "")
    write_table(Path(cell.output), table)
    if any("metrics" in row for row in table["cells"]):  # else there are axes alone
        draw_table(Path(cell.output), table)
    assert render("compare", table, io.StringIO())
    return table


def test_results_that_are_whole_are_shown(cell: RunConfig) -> None:
    table = laid_out(cell)
    assert table["cells"][0]["layer"] == 1
    assert table["editors"][0]["seeds"] == [0]
    assert (Path(cell.output) / "course.png").exists()


@pytest.mark.parametrize("kind", BAD_JSON)
def test_a_cell_of_broken_results_is_run_again(kind: str, cell: RunConfig) -> None:
    (cell.folder / "results.json").write_bytes(BAD_JSON[kind])
    assert facts_of(cell) is None
    assert "metrics" not in laid_out(cell)["cells"][0]


@pytest.mark.parametrize(
    "changes",
    [
        {"metrics": {"edit_accuracy": 0.5, "generated": None}},
        {"metrics": {"edit_accuracy": None}},
        {"metrics": {"edit_accuracy": 0.5, "drawdown": {"mean": 1}}},
        {"metrics": {"edit_accuracy": 0.5, "drawdown": 1.5e308}},
        {"course": []},
        {"course": None},
        {"course": [None]},
        {"course": [{"n_failures": 1}]},
        {"course": [{"n_failures": 1, "pass_accuracy": None}]},
        {"course": [{"n_failures": 1, "pass_accuracy": 1.0, "abilities": {}}]},
        {"course": [{"n_failures": 1, "perplexity": 1.0, "delta_norm": 1, "weight_norm": 0}]},
        {"course": [{"n_failures": 1, "perplexity": 1.0, "delta_norm": 1}]},
        {"per_edit": {**results()["per_edit"], "fail": [1, 1]}},
        {"per_edit": {**results()["per_edit"], "lost_of": [1, -1, 0]}},
        {"per_edit": {**results()["per_edit"], "fail": [1, 1, 2**60]}},
        {"timing": {"train_seconds": "long"}},
        {"schedule": {"batch_size": 2}},
        {"counts": {"fail": 1, "pass": "many"}},
        {"counts": {"fail": 10**301}},
        {"metrics": {"edit_accuracy": 0.5, "preference": None}},
        {"metrics": {"edit_accuracy": 0.5, "preference": {"efficacy": None}}},
    ],
)
def test_a_cell_of_results_that_say_nothing_is_run_again(
    changes: dict[str, Any], cell: RunConfig
) -> None:
    write_json(cell.folder / "results.json", results() | changes)
    assert facts_of(cell) is None
    assert "metrics" not in laid_out(cell)["cells"][0]


@pytest.mark.parametrize("name", ["results.json", "fit.json"])
@pytest.mark.parametrize("revision", [None, REVISION - 1, REVISION + 1])
def test_a_cell_of_other_code_is_run_again(
    name: str, revision: int | None, cell: RunConfig
) -> None:
    assert done.found_of(cell).facts is not None
    told = json.loads((cell.folder / name).read_text(encoding="utf-8"))
    del told["revision"]
    write_json(cell.folder / name, told if revision is None else told | {"revision": revision})
    assert done.found_of(cell) == done.Found(None, "made by other code")


def test_a_cell_that_the_clock_has_ended_is_of_its_threads(cell: RunConfig) -> None:
    assert done.found_of(cell, 1).facts is not None, "no clock ended it"
    timed = finished(replace(cell, train=replace(cell.train, seconds=5.0)))
    assert done.found_of(timed, 2).facts is not None
    assert done.found_of(timed).facts is not None
    why = "of train.seconds with 2 threads in place of 1"
    assert done.found_of(timed, 1) == done.Found(None, why, is_other=True)
    untrained = finished(replace(timed, editor=replace(cell.editor, name="step")))
    assert done.found_of(untrained, 1).facts is not None, "it has nothing to train"


def test_a_course_without_its_end_is_run_again(cell: RunConfig) -> None:
    cut = {name: value for name, value in results().items() if name != "collapse"}
    write_json(cell.folder / "results.json", cut)
    assert facts_of(cell) is None


@pytest.mark.parametrize("metrics", [{}, {"adapt_accuracy": 0.25, "drawdown": None}])
def test_edits_that_count_nothing_are_told_by_the_metrics(
    metrics: dict[str, Any], cell: RunConfig
) -> None:
    counts = {name: [1, 0, 2] for name in ("fail", "adapt", "lost")}
    counts |= {f"{name}_of": [0, 0, 0] for name in counts}
    kept = {"per_edit": counts, "metrics": {"edit_accuracy": 0.5, **metrics}}
    write_json(cell.folder / "results.json", results() | kept)
    (row,) = laid_out(cell)["editors"]
    assert row["edit_accuracy"] == {
        "mean": 0.5, "low": None, "high": None, "by_seed": {"0": 0.5},
    }  # fmt: skip
    assert row["adapt_accuracy"]["mean"] == metrics.get("adapt_accuracy")
    assert row["drawdown"]["mean"] is None


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_in_a_cell_is_run_again(kind: str, cell: RunConfig) -> None:
    for name in ("results.json", "config.yaml"):
        blocked(cell.folder / name, kind)
        assert "metrics" not in laid_out(cell)["cells"][0]
    assert not is_of(cell.folder, cell)
    blocked(cell.folder / "fit.json", kind)
    tolerated(lambda: training_times(cell.folder), lambda found: found == {}, "fit.json")


@counts(30)
def test_fuzz_results(examples: int, cell: RunConfig) -> None:
    path, few = cell.folder / "results.json", examples < 1000
    whole = path.read_bytes()

    def example(change: Callable[[bytes], bytes]) -> None:
        path.write_bytes(change(whole))
        facts = facts_of(cell)  # never an error: what cannot be read is made again
        table = table_of({(Rival("a"), 0): cell}, {cell.name: facts}, {}, cell, "")
        write_json(cell.folder / "compare.json", table)
        assert render("compare", table, io.StringIO())
        for _, points in courses_of(table["cells"]).items():
            courses_figure({"a": points})
        comparison_figure(table)

    fuzz(examples, byte_changes() | json_changes(), example, few)


def test_the_shape_of_results_is_that_of_results(cell: RunConfig) -> None:
    facts = _facts({**results(), "picking": {}}, made(), cell.folder)
    assert facts["layer"] == 1
    assert set(_RESULTS) >= {"layer", "per_edit", "metrics"}
    row = {"seed": 0, "editor": "a", **facts}
    assert summary("a", [row], "a", [0])["seeds"] == [0]


def test_training_does_not_write_through_links(tmp_path: Path) -> None:
    """Lightning's loggers open their files as they stand."""
    outside = tmp_path / "outside"
    outside.write_text("mine")
    config = RunConfig(name="run", output=str(tmp_path))
    config.folder.mkdir()
    (config.folder / "hparams.yaml").symlink_to(outside)
    prepared: Any = SimpleNamespace(config=config, ui=None, counts=lambda _parts: {})
    for resume in (True, False):
        refused(lambda resume=resume: train_at(prepared, LAYER, resume), "hparams.yaml")
    assert outside.read_text() == "mine"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["deep lists", "half", "NaN", "UTF-16", "a key twice"])
@pytest.mark.parametrize("name", ["fit.json", "saliency.json", "results.json", "answers.jsonl"])
def test_a_page_of_broken_files_is_refused(name: str, kind: str, cell: RunConfig) -> None:
    (cell.folder / name).write_bytes(BAD_JSON[kind])
    refused(lambda: report(str(cell.folder), None, ui()), str(cell.folder))
    assert not (cell.folder / "report.html").exists()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_on_no_page(kind: str, cell: RunConfig) -> None:
    for name in ("metrics.csv", "answers.jsonl", "results.json", "config.yaml"):
        blocked(cell.folder / name, kind)
        tolerated(lambda: report(str(cell.folder), None, ui()), lambda found: found["page"])
