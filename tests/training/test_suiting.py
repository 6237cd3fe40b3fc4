"""Records that a classifier has no label for, or does not read to their end."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import build, samples
from whole_runs import FakeUi, rows

from saledit import config as configuration
from saledit.errors import DataError
from saledit.files import write_jsonl
from saledit.models import TaskModel
from saledit.records import Sample
from saledit.run.setup import prepare as preparing
from saledit.run.setup.suiting import check_labels, tell_cut
from saledit.tasks.nli import Nli


@pytest.fixture(scope="module")
def base() -> TaskModel:
    return build("bert")


def told(base: TaskModel, some: list[Sample], max_length: int) -> list[str]:
    ui = FakeUi()
    tell_cut(base, Nli(max_length=max_length), some, "file.jsonl", ui)  # type: ignore[arg-type]
    return ui.stages


@pytest.mark.parametrize("wrong", [[3], [3, 700, 701], list(range(600, 620))])
def test_all_wrong_labels_are_counted(base: TaskModel, wrong: list[int]) -> None:
    good = samples(1, seed=1)[0]
    labels = ["maybe" if i in wrong else good.target for i in range(900)]
    some = [Sample(f"s{i}", good.inputs, label) for i, label in enumerate(labels)]
    with pytest.raises(DataError, match=f"^file.jsonl, s{wrong[0]}: .* got 'maybe'") as caught:
        check_labels(base, Nli(), iter(some), "file.jsonl")
    others = [f"s{i}" for i in wrong[1:]]
    assert ("more like it" in str(caught.value)) == bool(others)
    if others:
        named = ", ".join(others[:8]) + (", …" if len(others) > 8 else "")
        assert f"({len(others)} more like it: {named})" in str(caught.value)
    check_labels(base, Nli(), [s for s in some if s.target == good.target], "file.jsonl")


def test_texts_that_are_cut_are_told(base: TaskModel) -> None:
    some = [Sample(str(i), ("a b " * (20 if i < 3 else 2), "c d"), "x") for i in range(30)]
    whole = [Sample(s.id, s.inputs, samples(1, seed=1)[0].target) for s in some]
    assert told(base, whole, 60) == []
    (line,) = told(base, whole, 16)
    assert line.startswith("file.jsonl: of 30 texts looked at, 3 fill the 16 tokens")
    assert told(base, [], 16) == []


def test_a_run_says_so_before_it_asks_its_model(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = rows(build("bert"), samples(60, seed=3))
    made[17]["label"] = "perhaps"
    write_jsonl(tmp_path / "train.jsonl", made)
    given = [f"model.name={home / 'model'}", f"data.train={tmp_path / 'train.jsonl'}"]
    config = configuration.load(None, [*given, f"output={tmp_path}", "data.test_share=0.02"])

    def asked(*args: object, **options: object) -> None:
        raise AssertionError("the model was asked")

    monkeypatch.setattr(preparing, "make_part", asked)
    with pytest.raises(DataError, match=f"train.jsonl, {made[17]['id']}: .*'perhaps'"):
        preparing.prepare(config, FakeUi())  # type: ignore[arg-type]
    made[17]["label"] = made[0]["label"]
    write_jsonl(tmp_path / "train.jsonl", made)
    ui = FakeUi()
    short = configuration.load(None, [*given, f"output={tmp_path}", "task.max_length=8"])
    preparing.prepare(short, ui)  # type: ignore[arg-type]
    assert any("fill the 8 tokens" in stage for stage in ui.stages)


def test_a_row_of_blanks_is_told(tmp_path: Path) -> None:
    row = {"premise": " ", "hypothesis": "\t", "label": "x"}
    with pytest.raises(DataError, match="file:3: expected words in 'premise' or 'hypothesis'"):
        Nli().parse(row, "file:3")
    assert Nli().parse({**row, "hypothesis": "A man."}, "file:3").sample.inputs == (" ", "A man.")
    with pytest.raises(DataError, match="expected words in 'claim', got blanks"):
        Nli({"premise": "", "hypothesis": "claim"}).parse({"claim": "", "label": "x"}, "file:4")
