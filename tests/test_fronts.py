"""Editors at equal edit accuracy: rivals' results beside a curve, without a model."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from saledit.files import write_json, write_jsonl

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
#: Edit accuracy and drawdown at three lengths, by run.
CURVES = {
    "set-salem-s0": [(0.2, 0.002), (0.6, 0.006), (0.9, 0.012)],
    "set-salem-s1": [(0.2, 0.004), (0.6, 0.008), (0.9, 0.02)],
}


@pytest.fixture
def fronts(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, which finds the modules beside it."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("fronts")


@pytest.fixture
def beside(fronts: ModuleType) -> ModuleType:
    return importlib.import_module("beside")


def points(curve: Sequence[tuple[float, float]]) -> list[dict[str, float]]:
    keys = ("length", "edit_accuracy", "drawdown")
    return [dict(zip(keys, (i, *point), strict=True)) for i, point in enumerate(curve)]


def rival(editor: str, seed: int, accuracy: float, drawdown: float) -> dict[str, Any]:
    return {
        "run": f"set-{editor}-s{seed}",
        "editor": editor,
        "seed": seed,
        "edit_accuracy": accuracy,
        "drawdown": drawdown,
    }


def run(folder: Path, seed: int, failure: str = "a", **metrics: Any) -> Path:
    """A folder with what a test leaves of a run, as far as it is read."""
    folder.mkdir(parents=True)
    write_json(folder / "results.json", {"seed": seed, "metrics": metrics})
    row = {"part": "fail", "edit": 0, "id": failure, "inputs": [failure], "target": "x"}
    write_jsonl(folder / "answers.jsonl", [row])
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    path = tmp_path / "set.json"
    write_json(path, {name: points(curve) for name, curve in CURVES.items()})
    return path


def test_a_rival_is_set_beside_the_curve_of_its_seed(beside: ModuleType) -> None:
    curves = beside.fronts_of({name: points(curve) for name, curve in CURVES.items()})
    rivals = [
        rival("enn", 0, 0.4, 0.02),
        rival("enn", 1, 0.75, 0.042),
        rival("ft", 0, 0.1, 0.01),  # edits at no length that was measured mend so little
        rival("step", 0, 0.95, 0.05),  # ... or so much
        rival("step", 1, 0.6, 0.0),
    ]
    rows = beside.beside(rivals, curves)
    assert [{key: row[key] for key in rivals[0]} for row in rows] == rivals
    there = [row["front_drawdown"] for row in rows]
    assert there == [*(pytest.approx(x) for x in (0.004, 0.014, 0.001)), None, 0.008]
    ratios = [row["ratio"] for row in rows]
    assert ratios == [*(pytest.approx(x) for x in (5, 3, 10)), None, 0]
    shares = [row["share"] for row in rows]
    assert shares == [*(pytest.approx(x) for x in (1 / 5, 1 / 3, 1 / 10)), None, None]
    assert [row["lies"] for row in rows] == ["within", "within", "below", "above", "within"]
    assert {row["front_end"] for row in rows} == {0.9}

    enn, ft, step = beside.summary(rows)
    assert enn["editor"] == "enn"
    assert enn["seeds"] == [0, 1]
    middle = {"mean": pytest.approx(4), "low": pytest.approx(3), "high": pytest.approx(5), "n": 2}
    assert enn["ratio"] == middle
    assert enn["share"]["mean"] == pytest.approx(4 / 15)  # the mean of shares, not 1 / 4
    assert not enn["below"]
    assert ft["below"]
    assert step["ratio"]["n"] == 1
    assert step["share"] is None

    text = "\n".join(beside.beside_table(rows, [enn, ft, step]))
    assert "| set-enn-s0 | 0.400 | 0.0200 | 0.0040 | 5.0 |" in text
    assert r"| set-ft-s0 | 0.100 | 0.0100 | 0.0010\* | 10.0 |" in text
    assert "| set-step-s0 | 0.950 | 0.0500 | - (the curve ends at 0.900) | - |" in text
    assert "| enn | 2 | 4.0 (3.0 to 5.0) | 0.27 (0.20 to 0.33) |" in text
    assert r"| ft | 1 | 10.0\* | 0.10 |" in text
    assert "| step | 1 of 2 | 0.0 | - |" in text


def test_a_curve_without_drawdown_gives_no_ratio(beside: ModuleType) -> None:
    (row,) = beside.beside([rival("ft", 0, 0.5, 0.1)], {0: points([(0.5, 0.0), (0.9, 0.1)])})
    assert row["front_drawdown"] == 0
    assert row["ratio"] is None
    assert row["share"] == 0
    (entry,) = beside.summary([row])
    assert entry["ratio"] is None
    assert "| ft | 0 of 1 | - | 0.00 | - | - |" in beside.beside_table([row], [entry])


def test_the_command_takes_the_curves_that_are_known(
    fronts: ModuleType, tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = {"edit_accuracy": 1.0, "drawdown": 0.0}
    free = {"edit_accuracy": 0.75, "drawdown": 0.042}
    rivals = [
        run(tmp_path / "set-enn-s0", 0, edit_accuracy=0.4, drawdown=0.02),
        run(tmp_path / "set-enn-s1", 1, **teacher, generated=free),
    ]
    salem = run(tmp_path / "set-salem-s0", 0, edit_accuracy=0.9, drawdown=0.012)
    given = ["--out", str(out), "--beside", *map(str, rivals)]
    for runs in ([], [str(salem), "set-salem-s1"]):  # all of the file, and some by name
        fronts.main([*runs, *given])
        printed = capsys.readouterr().out
        assert "| salem | " in printed
        assert "| enn | 2 | 4.0 (3.0 to 5.0) | 0.27 (0.20 to 0.33) |" in printed
    written = json.loads((tmp_path / "set.beside.json").read_text())
    assert [row["run"] for row in written["runs"]] == ["set-enn-s0", "set-enn-s1"]
    assert [row["ratio"] for row in written["runs"]] == [pytest.approx(5), pytest.approx(3)]
    assert written["editors"][0]["ratio"]["mean"] == pytest.approx(4)
    assert json.loads(out.read_text()).keys() == CURVES.keys(), "the curves are as they were"


#: A curve that folds: beyond its own length an editor mends less, and breaks more.
FOLDED = [(0.25, 0.5, 0.01), (0.5, 0.85, 0.016), (1.0, 0.8, 0.031), (2.0, 0.6, 0.08)]


def folded() -> list[dict[str, float]]:
    keys = ("length", "edit_accuracy", "drawdown")
    return [dict(zip(keys, point, strict=True)) for point in FOLDED]


def test_an_editor_is_as_good_as_itself(beside: ModuleType) -> None:
    """The least drawdown of its curve is that of another length than it is used with."""
    own = rival("salem", 0, 0.8, 0.031)
    (row,) = beside.beside([own], {0: folded()}, {own["run"]: folded()})
    assert row["ratio"] == pytest.approx(0.031 / (0.01 + 0.006 * 0.3 / 0.35))
    assert row["ratio"] > 1.9
    assert row["fixed_drawdown"] == pytest.approx(0.031)
    assert row["fixed_ratio"] == pytest.approx(1)
    assert row["alike_ratio"] == pytest.approx(1)
    (entry,) = beside.summary([row])
    text = "\n".join(beside.beside_table([row], [entry]))
    assert "| 0.800 | 0.0310 | 0.0151 | 2.0 | 0.0310 | 1.0 | 0.0151 | 1.0 |" in text
    assert "| salem | 1 | 2.0 | 0.49 | 1.0 | 1.0 |" in text


def test_nothing_is_chosen_by_the_drawdown(beside: ModuleType) -> None:
    near = [beside.fixed_drawdown_at(folded(), at) for at in (0.84, 0.7, 0.25, 0.9)]
    # .84 at .6 of the length, not at .49; .7 at 1.5 of it, not at .39; .25 before any length.
    assert near == [pytest.approx(0.019), pytest.approx(0.0555), pytest.approx(0.005), None]
    flat = [{"length": x, "edit_accuracy": 0.5, "drawdown": x / 100} for x in (0.5, 1.0, 2.0)]
    assert beside.fixed_drawdown_at(flat, 0.5) == 0.01
    assert beside.drawdown_at(flat, 0.5) == 0.005


def test_rivals_have_lengths_too(
    fronts: ModuleType, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    asked: list[list[float]] = []

    class Trained:
        config = None

        def check(self, _base: Any) -> None:
            pass

    def front(_prepared: Any, _trained: Any, lengths: list[float]) -> list[dict[str, float]]:
        asked.append([*lengths])
        return points([(0.2, 0.01), (0.6, 0.03), (0.9, 0.05)])

    monkeypatch.setattr(fronts, "front", front)
    monkeypatch.setattr(fronts, "load_editor", lambda _run: Trained())
    monkeypatch.setattr(fronts, "prepare", lambda _config, _ui: SimpleNamespace(base=None))
    enn = str(run(tmp_path / "set-enn-s0", 0, edit_accuracy=0.4, drawdown=0.04))
    for _ in range(2):
        fronts.main(["set-salem-s0", "--out", str(out), "--rivals", "--beside", enn])
        assert "| 0.400 | 0.0400 | 0.0040 | 10.0 | 0.0040 | 10.0 | 0.0200 | 5.0 |" in (
            capsys.readouterr().out
        )
    assert asked == [[0, 1, 2]], "at the lengths of the curve, once"
    (row,) = json.loads((tmp_path / "set.beside.json").read_text())["runs"]
    assert row["alike_ratio"] == pytest.approx(5)
    assert json.loads(out.read_text()).keys() == CURVES.keys()
    with pytest.raises(SystemExit):
        fronts.main(["set-salem-s0", "--out", str(out), "--rivals"])
    assert "--rivals: expected rivals behind --beside, got none" in capsys.readouterr().err


def test_a_curve_is_of_the_editor_that_is_there(
    fronts: ModuleType, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, measured = tmp_path / "set-salem-s0", list[int]()

    def front(*_args: object) -> list[dict[str, float]]:
        measured.append(len(measured))
        return points([(0.1 * len(measured), 0.01)] * 3)

    monkeypatch.setattr(fronts, "front", front)
    monkeypatch.setattr(fronts, "prepare", lambda *_: SimpleNamespace(base=None))
    trained = SimpleNamespace(config=None, check=lambda _base: None)
    monkeypatch.setattr(fronts, "load_editor", lambda _run: trained)
    folder.mkdir()
    (folder / "config.yaml").write_text("seed: 0")
    for weights, times in (("one", 1), ("one", 1), ("another", 2)):
        (folder / "editor.safetensors").write_text(weights)
        fronts.main([str(folder), "--out", str(out)])
        assert len(measured) == times, "nobody knows which editor older curves are of"
    (folder / "config.yaml").write_text("seed: 1")
    fronts.main([str(folder), "--out", str(out)])
    assert len(measured) == 3
    assert fronts.read(out)["set-salem-s0"].points[0]["edit_accuracy"] == pytest.approx(0.3)
    assert fronts.read(out)["set-salem-s1"] == fronts.Curve(points(CURVES["set-salem-s1"]))


def test_what_cannot_be_compared_is_refused_in_one_line(
    fronts: ModuleType, tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    right = {"edit_accuracy": 0.4, "drawdown": 0.02}
    begun = tmp_path / "set-ke-s0"
    begun.mkdir()
    salem = str(run(tmp_path / "set-salem-s0", 0, **right))
    other = str(run(tmp_path / "set-ft-s0", 0, failure="b", **right))
    unseen = str(run(tmp_path / "set-enn-s2", 2, **right))
    broken = str(run(tmp_path / "set-step-s0", 0, edit_accuracy=0.4))
    nameless = str(run(tmp_path / "mine", 0, **right))
    enn = str(run(tmp_path / "set-enn-s0", 0, **right))
    cases = [
        ([], [str(begun)], "set-ke-s0: expected a finished run, got none with results.json"),
        ([], [unseen], "set-enn-s2: expected a curve of its seed 2, got those of seeds 0, 1"),
        ([salem], [enn, other], "set-ft-s0: expected edits of the same test failures as"),
        ([], [broken], "results.json: expected results of a test, got nothing at 'metrics.drawd"),
        ([], [nameless], "mine: expected a run named NAME-EDITOR-sSEED"),
        ([salem, "set-step-s0"], [enn], "expected one curve of seed 0, got set-salem-s0 and set-s"),
    ]
    for runs, rivals, message in cases:
        with pytest.raises(SystemExit) as ended:
            fronts.main([*runs, "--out", str(out), "--beside", *rivals])
        assert ended.value.code == 2
        said = capsys.readouterr()
        assert message in said.err
        assert said.err.count("\n") == 1
        assert not said.out
    assert not (tmp_path / "set.beside.json").exists()
    with pytest.raises(SystemExit):
        fronts.main(["--out", str(tmp_path / "none.json")])
    assert "none.json: expected curves by run, got no such file" in capsys.readouterr().err
