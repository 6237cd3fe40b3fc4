"""A test goes on where an edit is no numbers: it counts as the model without that edit."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from quick import quick
from rich.console import Console
from torch import Tensor
from whole_runs import ui

from saledit import module
from saledit.config import RunConfig
from saledit.delta import Edits, LowRank
from saledit.editors.looks import edits_for
from saledit.errors import JobError
from saledit.judging.judged import Heard, Judged, in_numbers
from saledit.report.look import Look
from saledit.report.tables import test_tables as tables
from saledit.run import fit, testing
from saledit.run import test as run_test

SMALL = ("train.epochs=1", "test.edits_per_batch=3", "data.max_test_failures=12")
OWN = {
    "low-rank": [],
    "dense": ["editor.name=ft", "editor.ft.steps=3"],
    "routed": ["editor.name=memoe", "editor.memoe.steps=3", "editor.memoe.experts=3"],
    "resident": ["editor.name=enn", "editor.enn.steps=2"],
}
BAD = 1  # of each batch


def broken(change: Callable[[Tensor], Tensor], places: Callable[[int], list[int]]) -> Any:
    """``edits_for`` of which some edits of each batch come to harm."""

    def made(*given: Any) -> Edits:
        edits = edits_for(*given)

        def harmed(part: Tensor) -> Tensor:
            part = part.clone()
            for place in places(len(part)):
                part[place] = change(part[place])
            return part

        return edits.map(harmed)

    return made


def shown(results: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=200)
    for part in tables(results, Look()):
        console.print(part)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


@pytest.mark.parametrize("own", quick(["low-rank"], OWN))
def test_an_edit_that_is_no_numbers_counts_as_none(
    own: list[str], make: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make("refused", *SMALL, *own)
    fit(config, False, ui())
    whole = run_test(str(config.folder), [], ui())
    assert whole["n_refused"] == 0
    assert "NaN" not in shown(whole)
    sizes = [min(3, whole["n_edits"] - first) for first in range(0, whole["n_edits"], 3)]
    lost = [3 * i + BAD for i, size in enumerate(sizes) if size > BAD]
    # The second: numbers all, and the model that they are added to gives none.
    for harm in (lambda part: part * math.nan, lambda part: part.sign() * 3e38):
        monkeypatch.setattr(testing, "edits_for", broken(harm, lambda n: [BAD] if n > BAD else []))
        found = run_test(str(config.folder), [], ui())
        assert found["n_edits"] == whole["n_edits"]
        assert found["n_refused"] == len(lost) > 1
        for name, values in whole["per_edit"].items():
            for i, value in enumerate(values):
                if i not in lost:
                    assert found["per_edit"][name][i] == value
                elif name in ("fail", "lost") and own != OWN["resident"]:
                    assert found["per_edit"][name][i] == 0
        assert all(math.isfinite(v) for v in found["metrics"].values() if isinstance(v, float))
        assert f"{len(lost)} edits gave NaN or infinity" in shown(found)


@pytest.mark.long
def test_what_an_editor_changes_before_any_edit_stays(
    make: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make("refused", *SMALL, *OWN["resident"])
    fit(config, False, ui())
    seen: list[Edits] = []

    def noted(*given: Any) -> tuple[Edits, Any, Tensor]:
        found = real(*given)
        seen.append(found[0])
        wanted.append(given[1])
        return found

    real, wanted = testing.in_numbers, list[Edits]()
    monkeypatch.setattr(testing, "in_numbers", noted)
    harm = broken(lambda part: part * math.nan, lambda n: [0])
    monkeypatch.setattr(testing, "edits_for", harm)
    run_test(str(config.folder), [], ui())
    for edits, resident in zip(seen, wanted, strict=True):
        assert len(resident)
        for site, delta in edits.items():
            torch.testing.assert_close(delta.dense()[0], resident[site].dense())
            assert not torch.equal(delta.dense()[1], resident[site].dense())


def test_where_every_edit_is_no_numbers_the_test_ends(
    make: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make("refused", *SMALL)
    fit(config, False, ui())
    harm = broken(lambda part: part * math.nan, lambda n: list(range(n)))
    monkeypatch.setattr(testing, "edits_for", harm)
    with pytest.raises(JobError, match="every edit gave NaN"):
        run_test(str(config.folder), [], ui())
    assert not (config.folder / "results.json").exists()


@pytest.mark.parametrize("name", ["answer_nll", "locality"])
def test_an_edit_whose_own_answers_are_no_numbers_is_none(name: str) -> None:
    """Of NaN the highest is an answer as well, the first one, and may be the right one."""
    told = {"answer_nll": torch.ones(3, 2), "locality": torch.zeros(3, 4)}
    edits = Edits({"m": LowRank(torch.ones(3, 1, 2), torch.ones(3, 1, 2))})

    def see(given: Edits) -> Judged:
        size = given["m"].dense().flatten(1).sum(1)
        own = {n: t.clone() for n, t in told.items()}
        own[name][1, 0] = torch.where(size[1] > 0, math.nan, 1.0)
        heard = Heard(*[torch.ones(3, 1).bool()] * 2)
        return Judged(edit=heard, base=heard, passing=heard, edit_nll=torch.zeros(()), **own)

    left, seen, made = in_numbers(edits, Edits({}), see, lambda whole: whole)
    assert made.tolist() == [True, False, True]
    assert left["m"].dense().flatten(1).sum(1).tolist() == [4, 0, 4]
    assert bool(getattr(seen, name).isfinite().all())


def test_one_such_edit_in_a_validation_does_not_end_the_training(
    make: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make("validated", *SMALL)
    free = fit(config, False, ui())["validation"]
    harm = broken(lambda part: part * math.nan, lambda n: [BAD] if n > BAD else [])
    monkeypatch.setattr(module, "edits_for", harm)
    found = fit(config, False, ui())["validation"]
    assert found.keys() == free.keys()
    assert all(math.isfinite(value) for value in found.values())
    assert found != free
    monkeypatch.setattr(
        module, "edits_for", broken(lambda part: part * math.nan, lambda n: list(range(n)))
    )
    with pytest.raises(JobError, match="training diverged"):
        fit(config, False, ui())
