"""A test that was cut off makes no slow edit twice, and finds what an uninterrupted one does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from quick import quick
from whole_runs import ui

from saledit.config import RunConfig
from saledit.delta import Edits
from saledit.editors.looks import edits_for
from saledit.errors import JobError
from saledit.judging.judged import judged
from saledit.run import fit, testing, unfinished
from saledit.run import test as run_test

OWN = {
    "dense": ["editor.name=ft", "editor.ft.steps=3"],
    "routed": ["editor.name=memoe", "editor.memoe.steps=3", "editor.memoe.experts=3"],
    "low-rank": ["editor.name=ft", "editor.ft.steps=3", "editor.ft.rank=2"],
}
SMALL = ("train.epochs=1", "test.edits_per_batch=1", "data.max_test_failures=12")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the batches of edits that are made, each of which counts as slow."""
    monkeypatch.setattr(unfinished, "_SLOW", 0.0)
    made = list[int]()

    def counted(*given: Any) -> Edits:
        edits = edits_for(*given)
        made.append(edits.batch_shape.numel())
        return edits

    monkeypatch.setattr(testing, "edits_for", counted)
    return made


def cut_off(config: RunConfig, monkeypatch: pytest.MonkeyPatch, after: int) -> list[Path]:
    """A test that is interrupted in a batch; where its edits lie."""
    left = iter(range(after))

    def ended(*given: Any, **named: Any) -> Any:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return judged(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(testing, "judged", ended)
        with pytest.raises(KeyboardInterrupt):
            run_test(str(config.folder), [], ui())
    return kept(config)


def kept(config: RunConfig) -> list[Path]:
    """Where edits lie on disk."""
    return [path for path in config.cache.glob("edits-*") if path.is_dir()]


@pytest.mark.parametrize("own", quick(["low-rank"], OWN))
def test_slow_edits_are_made_once(
    own: list[str], make: Callable[..., RunConfig], made: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    config = make("slow", *SMALL, *own)
    fit(config, False, ui())
    whole = run_test(str(config.folder), [], ui())
    answers = (config.folder / "answers.jsonl").read_text()
    assert not kept(config)
    n = len(made)
    assert n > 3
    assert sum(made) == whole["n_edits"]
    made.clear()
    assert len(cut_off(config, monkeypatch, after=2)) == 1
    assert len(made) == 3  # the third was made, and not yet judged
    made.clear()

    def full(*_: object) -> None:
        raise JobError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(testing, "write_results", full)  # results that cannot be written leave them
        with pytest.raises(JobError, match="full"):
            run_test(str(config.folder), [], ui())
    assert len(made) == n - 3
    made.clear()
    again = run_test(str(config.folder), [], ui())
    assert not made
    assert not kept(config)
    for name in ("metrics", "per_edit", "adapt_by_kind"):
        assert again[name] == whole[name]
    assert (config.folder / "answers.jsonl").read_text() == answers


@pytest.mark.long
def test_edits_that_are_of_others_or_damaged_are_made_anew(
    make: Callable[..., RunConfig], made: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make("slow", *SMALL, *OWN["dense"])
    fit(config, False, ui())
    whole = run_test(str(config.folder), [], ui())
    n = len(made)
    made.clear()
    (folder,) = cut_off(config, monkeypatch, after=3)
    made.clear()
    other = run_test(str(config.folder), ["test.edits_per_batch=3"], ui())
    assert sum(made) == other["n_edits"]  # other batches: nothing is taken from the first ones
    made.clear()
    (folder / "0" / "edits.safetensors").write_bytes(b"broken")
    facts = json.loads((folder / "1" / "edits.json").read_text())
    (folder / "1" / "edits.json").write_text(json.dumps({**facts, "seconds": 1e9}))
    again = run_test(str(config.folder), [], ui())
    assert len(made) == n - 2  # of four, two are damaged
    assert again["metrics"] == whole["metrics"]
    assert again["timing"]["test_seconds"] < 1e6


@pytest.mark.long
def test_edits_that_are_quick_or_too_large_are_not_kept(
    make: Callable[..., RunConfig], made: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make("slow", *SMALL, *OWN["dense"])
    fit(config, False, ui())
    for name, value in (("_SLOW", 60.0), ("_ROOM", 10)):
        with monkeypatch.context() as patch:
            patch.setattr(unfinished, name, value)
            assert not cut_off(config, monkeypatch, after=3)
