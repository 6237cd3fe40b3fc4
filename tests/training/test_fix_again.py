"""``fix`` in a folder that holds fixes, in every format, and within bounds."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from quick import quick
from shown import shown
from test_fix import fix_rows
from tiny import encode
from whole_runs import ANY, ui

from saledit.artifact import load_edits
from saledit.config import RunConfig
from saledit.delta import Edits, LowRank
from saledit.errors import ArtifactError, UserError
from saledit.export.lora import low_rank
from saledit.files import write_jsonl
from saledit.forward.scoring import base_logits
from saledit.ledger import EditFolder
from saledit.models import load_classifier
from saledit.overlay import applied
from saledit.records import Sample
from saledit.run import Bounds, FixOptions, fit, fix, fixing, log, undo
from saledit.run.fixes.fitting import is_same
from saledit.run.fixes.guarding import largest_part
from saledit.site import Site


@pytest.mark.parametrize("form", quick(["delta", "lora"], ["delta", "merged", "lora"]))
def test_fixes_pile_up(form: str, fitted: RunConfig, home: Path, tmp_path: Path) -> None:
    out = tmp_path / "fixed"
    run, found = str(fitted.folder), []
    for seed in (7, 11):
        write_jsonl(tmp_path / "f.jsonl", fix_rows(home, seed))
        options = replace(ANY, format=form) if seed == 7 else ANY
        found.append(fix(run, str(tmp_path / "f.jsonl"), str(out), options, ui()))
    base = load_classifier(str(home / "model"))
    chosen = [Sample(r["id"], tuple(r["inputs"]), r["target"]) for r in found[1]["rows"]]
    edits = load_edits(out, base.model)
    with applied(base.model, edits):
        wanted = base_logits(base, encode(base, chosen))
    answers = [base.model.config.id2label[i] for i in wanted.argmax(-1).tolist()]
    assert answers == [row["after"] for row in found[1]["rows"]]
    if form == "merged":
        merged = load_classifier(str(out))
        logits = base_logits(merged, encode(merged, chosen))
        torch.testing.assert_close(logits, wanted, rtol=1e-4, atol=1e-4)
        assert found[1]["logits_apart"] < 1e-3
    told = log(str(out), ui())
    assert "2 of 2 fixes in force" in shown("log", told)
    rows = told["entries"]
    assert [row["id"] for row in rows] == [1, 2]
    assert [row["metrics"]["n_fixed"] for row in rows] == [f["n_fixed"] for f in found]
    assert "Fix 1 was taken back; in force: 2." in shown("undo", undo(str(out), 1, ui()))
    assert "undone by 3" in shown("log", log(str(out), ui()))
    assert [entry.id for entry in EditFolder.read(out).in_force] == [2]
    other = next(f for f in ("delta", "lora") if f != form)
    with pytest.raises(UserError, match=rf"--format {other}: expected .* \({form}\)"):
        fix(run, str(tmp_path / "f.jsonl"), str(out), FixOptions(format=other), ui())


@pytest.mark.long
def test_an_edit_that_breaks_too_much_is_not_written(
    make: Callable[..., RunConfig], home: Path, tmp_path: Path
) -> None:
    config = make("strong", "train.epochs=1", "editor.steps=[20.0]")  # edits that break something
    fit(config, False, ui())
    write_jsonl(tmp_path / "f.jsonl", fix_rows(home, 7))
    call = (str(config.folder), str(tmp_path / "f.jsonl"), str(tmp_path / "out"))
    free = fix(*call[:2], str(tmp_path / "free"), ANY, ui())
    if free["n_fixed"] < free["n_wrong_before"]:
        refused = fix(*call, FixOptions(bounds=Bounds(None, 1.0)), ui())
        share = free["n_fixed"] / free["n_wrong_before"]
        assert refused["refused"]["fixed_below"] == pytest.approx(1 - share)
        assert not (tmp_path / "out").exists()
    drawdown = free["check"]["drawdown"]
    assert drawdown > 0
    refused = fix(*call, FixOptions(bounds=Bounds(0.0, None)), ui())
    assert refused["refused"]["drawdown_above"] == pytest.approx(drawdown)
    assert not (tmp_path / "out").exists()
    part = refused["refused"]["part"]
    if part is not None:
        assert part["drawdown"] <= 0
        written = fix(*call, FixOptions(bounds=Bounds(0.0, None), part=True), ui())
        assert (written["n_fixed"], written["check"]["drawdown"]) == (
            part["n_fixed"], part["drawdown"],
        )  # fmt: skip
        assert written["step"] == part["step"]


@pytest.mark.parametrize("bounds", [Bounds(-0.1, None), Bounds(None, 1.5), Bounds(float("nan"))])
def test_bounds_that_are_none(bounds: Bounds) -> None:
    with pytest.raises(UserError, match="expected a share between 0 and 1"):
        bounds.check()
    assert Bounds(0.1).misses(1.0, float("nan"))


def test_a_rank_without_an_adapter_is_refused(
    fitted: RunConfig, home: Path, tmp_path: Path
) -> None:
    write_jsonl(tmp_path / "f.jsonl", fix_rows(home, 7))
    call = (str(fitted.folder), str(tmp_path / "f.jsonl"), str(tmp_path / "out"))
    for form in (None, "delta", "merged"):
        with pytest.raises(UserError, match=r"--rank: only for --format lora, got (delta|merged)"):
            fix(*call, replace(ANY, format=form, rank=4), ui())
    assert not (tmp_path / "out").exists()


def test_a_second_adapter_goes_on_from_the_first_as_it_was_cut(
    fitted: RunConfig, home: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    found = []
    for seed in (7, 11):
        write_jsonl(tmp_path / "f.jsonl", fix_rows(home, seed))
        call = (str(fitted.folder), str(tmp_path / "f.jsonl"), str(out))
        found.append(fix(*call, replace(ANY, format="lora", rank=1), ui()))
        if seed == 7:
            assert found[0]["rank_error"] > 0
            cut, _ = low_rank(EditFolder.read(out).edits, 1)
            before = answers_under(home, cut, fix_rows(home, 11))
    assert [row["before"] for row in found[1]["rows"]] == before


def answers_under(home: Path, edits: Edits, rows: list[dict]) -> list[str]:
    base = load_classifier(str(home / "model"))
    asked = [Sample(r["id"], (r["premise"], r["hypothesis"]), r["label"]) for r in rows]
    with applied(base.model, edits):
        best = base_logits(base, encode(base, asked)).argmax(-1).tolist()
    return [base.model.config.id2label[i] for i in best]


def test_edits_are_the_same_in_any_order() -> None:
    """A file has sites by their names, an editor as they are called."""
    sites = [Site("b", 2, 3), Site("a", 2, 3)]
    deltas = {s: LowRank(torch.randn(1, 2), torch.randn(1, 3)) for s in sites}
    one, other = Edits(deltas), Edits({s: deltas[s] for s in reversed(sites)})
    assert is_same(one, other)
    assert not is_same(one, other * 2.0)
    assert not is_same(one, Edits({sites[0]: deltas[sites[0]]}))


def test_an_edit_that_mends_nothing_is_not_written(
    fitted: RunConfig, home: Path, tmp_path: Path
) -> None:
    write_jsonl(tmp_path / "f.jsonl", fix_rows(home, 7))
    call = (str(fitted.folder), str(tmp_path / "f.jsonl"))
    short = ["editor.steps=[1e-9]"]
    refused = fix(*call, str(tmp_path / "out"), FixOptions(settings=short), ui())
    assert refused["n_fixed"] == 0
    assert refused["refused"] == {"nothing_fixed": True, "part": None}
    assert not (tmp_path / "out").exists()
    written = fix(*call, str(tmp_path / "any"), replace(ANY, settings=short), ui())
    assert written["entry"] == 1
    fixed = Bounds().misses(1 / len(refused["rows"]), 1.0)
    assert fixed == {}


def test_an_editor_that_changes_the_model_before_any_edit(
    make: Callable[..., RunConfig], home: Path, tmp_path: Path
) -> None:
    config = make("enn", "editor.name=enn", "train.epochs=1")
    fit(config, False, ui())
    write_jsonl(tmp_path / "f.jsonl", fix_rows(home, 7))
    call = (str(config.folder), str(tmp_path / "f.jsonl"), str(tmp_path / "out"))
    fix(*call, ANY, ui())
    folder = EditFolder.read(tmp_path / "out")
    assert folder.ground
    undo(str(tmp_path / "out"), None, ui())  # the ground goes with the last fix
    assert not EditFolder.read(tmp_path / "out").edits
    refused = fix(*call[:2], str(tmp_path / "b"), FixOptions(bounds=Bounds(None, 1.0)), ui())
    assert refused["refused"]
    assert not (tmp_path / "b").exists()  # the ground does not stay


def test_a_ledger_that_lost_its_end_takes_no_fix(
    fitted: RunConfig, home: Path, tmp_path: Path
) -> None:
    call = (str(fitted.folder), str(tmp_path / "f.jsonl"), str(tmp_path / "out"))
    for seed in (7, 11):
        write_jsonl(tmp_path / "f.jsonl", fix_rows(home, seed))
        fix(*call, ANY, ui())
    ledger = tmp_path / "out" / "ledger.jsonl"
    ledger.write_bytes(b"".join(ledger.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(ArtifactError, match="without its last entries"):
        fix(*call, ANY, ui())
    assert (tmp_path / "out" / "entries" / "2" / "edits.json").exists()  # for a backup to name


@pytest.mark.parametrize("form", ["merged", "lora"])
def test_routed_edits_are_refused_before_they_are_made(
    form: str,
    make: Callable[..., RunConfig],
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = make("memoe2", "editor.name=memoe", "editor.memoe.steps=2")
    fit(config, False, ui())
    monkeypatch.setattr(fixing, "load_model", None)  # not even the model is loaded
    write_jsonl(tmp_path / "f.jsonl", fix_rows(home, 7))
    with pytest.raises(UserError, match=f"--format {form}: expected edits that are matrices"):
        fix(str(config.folder), str(tmp_path / "f.jsonl"), str(tmp_path / "out"),
            replace(ANY, format=form), ui())  # fmt: skip
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------- the largest part


def _steps(n: int) -> list[Edits]:
    """Steps that can be told apart: step i is 2^i at its one place."""
    site = Site("a", 1, 1, False)
    return [Edits({site: LowRank(torch.ones(1, 1), torch.full((1, 1), 2.0**i))}) for i in range(n)]


def test_the_largest_part_leaves_out_what_breaks() -> None:
    """Steps 1 and 4 of six break; any shorter length of all of them breaks, too."""

    def measure(edits: Edits) -> tuple[int, float]:
        total = float(next(iter(edits.values())).dense())
        if total != int(total):
            return 6, 0.5
        chosen = [i for i in range(6) if int(total) >> i & 1]
        return len(chosen), 0.1 * sum(i in (1, 4) for i in chosen)

    part = largest_part(_steps(6), measure, 0.05)
    assert part is not None
    assert (len(part.kept), part.n_fixed, part.drawdown, part.step) == (4, 4, 0.0, 1.0)
    assert float(next(iter(part.steps.values())).dense()) == sum(2**i for i in (0, 2, 3, 5))
    assert largest_part(_steps(6), lambda _: (3, 0.5), 0.05) is None
    assert largest_part(_steps(1), lambda _: (0, 0.0), 0.05) is None


def test_the_longest_length_that_keeps_the_bound() -> None:
    for bound, n in itertools.product((0.25, 0.55), (1, 3)):

        def measure(edits: Edits, whole: float = 2.0**n - 1) -> tuple[int, float]:
            length = float(next(iter(edits.values())).dense()) / whole
            return round(10 * length), length

        part = largest_part(_steps(n), measure, bound)
        assert part is not None
        assert part.drawdown <= bound
        assert part.n_fixed >= int(10 * bound)


def test_a_part_without_a_bound_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--part: expected --max-drawdown, .* got none; e\.g\."):
        fix("nowhere", "nothing.jsonl", str(tmp_path / "out"), FixOptions(part=True), ui())
