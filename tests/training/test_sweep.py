"""``site.select: sweep``: editors of all layers, halved round by round."""

from __future__ import annotations

import io
import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_text
import torch
from test_preferences import likelihood
from tiny import N_BLOCKS, build, samples, save
from whole_runs import FakeUi, questions, rows

from saledit import config as configuration
from saledit.artifact import load_editor
from saledit.cache import opening
from saledit.config import RunConfig
from saledit.data.datamodule import dealt_failures
from saledit.delta import Edits
from saledit.errors import ConfigError, DivergedError, SiteError
from saledit.files import write_jsonl
from saledit.overlay import applied
from saledit.report import render
from saledit.run import fit, saliency, sweeping
from saledit.run.measures import preferences
from saledit.run.measures.preferences import Preferences
from saledit.run.picking import check_site
from saledit.run.resuming import LAST
from saledit.run.setup.prepare import Prepared, prepare
from saledit.run.sweeping import n_rounds

STEPS, K, EDITS, PASSES = 2, 1, 3, 4


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, data, and the caches that all runs share."""
    folder = tmp_path_factory.mktemp("sweep")
    base = build("bert")
    save(base, folder / "model")
    write_jsonl(folder / "data.jsonl", rows(base, samples(90)))
    return folder


def make(home: Path, name: str, *overrides: str) -> RunConfig:
    settings = [
        f"output={home / name}",
        f"name={name}",
        f"model.name={home / 'model'}",
        f"data.train={home / 'data.jsonl'}",
        "data.adapt.rewrite=false",
        "site.select=sweep",
        f"site.rung={STEPS}",
        f"schedule.batch_size={K}",
        "train.epochs=1",
        "train.steps_per_epoch=2",
        f"train.edits_per_step={EDITS}",
        f"train.passes_per_edit={PASSES}",
        "train.validation_edits=3",
        "train.validation_passes=5",
        "trainer.accelerator=cpu",
        *overrides,
    ]
    return configuration.load(None, settings)


class Trained(list[tuple[int, int]]):
    """(layer, steps by the end) of each training, in order."""


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Trained:
    """Notes what is trained, and scores layer 1 highest, then 0, 2."""
    seen, real = Trained(), sweeping.train_at

    def noted(prepared: Prepared, layer: Any, resume: bool, **_more: Any) -> dict[str, Any]:
        config = prepared.config.train
        seen.append((layer.index, config.epochs * config.steps_per_epoch))
        found = real(prepared, layer, resume)
        found["validation"]["score"] = {0: 0.5, 1: 0.9, 2: 0.1}[layer.index]
        return found

    monkeypatch.setattr(sweeping, "train_at", noted)
    return seen


def test_the_better_half_goes_on(home: Path, trained: Trained) -> None:
    table = saliency(make(home, "halved"), FakeUi())  # type: ignore[arg-type]
    assert trained == [(0, 2), (1, 2), (2, 2), (1, 4), (0, 4)]
    assert table["pick"] == 1
    assert [row["final"] for row in table["layers"]] == [True, True, False]
    assert [row["steps"] for row in table["layers"]] == [4, 4, 2]
    rows_a_step = EDITS * (2 * K + PASSES)
    trained_rows = rows_a_step * (4 * 1 + 4 * 2 / 3 + 2 / 3)
    assert table["backward_passes"] == pytest.approx(trained_rows)
    judged = 3 * (2 * K + 5) * (2 * 1 + 2 * 2 / 3 + 1 / 3)
    assert table["forward_passes"] == pytest.approx(trained_rows + judged)
    # Nothing is left of the editors, and the table is not made twice.
    assert not list((home / "halved" / "cache").glob("sweep-*/layer-*"))
    trained.clear()
    assert saliency(make(home, "halved"), FakeUi()) == table  # type: ignore[arg-type]
    assert not trained


@pytest.mark.long
def test_all_layers_go_on_without_halving(home: Path, trained: Trained) -> None:
    full = saliency(make(home, "full", "site.halving=false"), FakeUi())  # type: ignore[arg-type]
    assert trained == [(i, n) for n in (2, 4) for i in (0, 1, 2)]
    assert all(row["final"] for row in full["layers"])


def test_an_editor_that_is_not_trained_is_tried_once_at_every_layer(
    home: Path, trained: Trained
) -> None:
    config = make(home, "untrained", "editor.name=step")
    table = saliency(config, FakeUi())  # type: ignore[arg-type]
    assert [layer for layer, _ in trained] == [0, 1, 2]
    assert all(row["final"] for row in table["layers"])
    assert table["pick"] == 1
    assert table["backward_passes"] == 0
    assert table["forward_passes"] == pytest.approx(3 * (2 * K + 5) * (1 + 2 / 3 + 1 / 3))


@pytest.mark.long
def test_a_corpus_stands_for_the_pass_samples_at_every_layer(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = home / "corpus.jsonl"
    write_jsonl(corpus, [{"text": " ".join(s.inputs)} for s in samples(60, seed=9)])
    made, real = [], opening._make_shards

    def noted(*given: Any) -> Any:
        made.append(given[3])
        return real(*given)

    monkeypatch.setattr(opening, "_make_shards", noted)
    config = make(home, "corpus", "editor.name=step", f"editor.moments.corpus={corpus}")
    saliency(config, FakeUi())  # type: ignore[arg-type]
    assert made
    assert all(len(specs) == N_BLOCKS for specs in made), "a layer's training made its own bank"
    assert not any(spec.moments for specs in made for spec in specs)
    assert len([*config.cache.glob("moments-*.safetensors")]) == N_BLOCKS


@pytest.mark.long
def test_a_layer_that_goes_on_is_as_one_that_trained_at_once(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, last = sweeping.train_at, {}

    def noted(prepared: Prepared, layer: Any, resume: bool, **_more: Any) -> dict[str, Any]:
        last[layer.index] = (prepared, layer)
        return real(prepared, layer, resume)

    monkeypatch.setattr(sweeping, "train_at", noted)
    monkeypatch.setattr(sweeping.shutil, "rmtree", lambda *_args, **_options: None)
    saliency(make(home, "rounds", "site.halving=false"), FakeUi())  # type: ignore[arg-type]
    for prepared, layer in last.values():
        config = prepared.config
        assert config.train.epochs == 2
        once = prepared.of(replace(config, name=f"{config.name}-once"))
        real(once, layer, False)
        both = [
            torch.load(folder / LAST, weights_only=True)["state_dict"]
            for folder in (config.folder, once.config.folder)
        ]
        assert both[0].keys() == both[1].keys()
        for name, value in both[0].items():
            torch.testing.assert_close(value, both[1][name], rtol=1e-6, atol=1e-7, msg=name)


@pytest.mark.long
def test_an_interrupted_sweep_goes_on(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = saliency(make(home, "whole"), FakeUi())  # type: ignore[arg-type]
    real, calls = sweeping.train_at, []

    def cut_off(prepared: Prepared, layer: Any, resume: bool, **_more: Any) -> dict[str, Any]:
        calls.append((layer.index, resume))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(prepared, layer, resume)

    monkeypatch.setattr(sweeping, "train_at", cut_off)
    with pytest.raises(KeyboardInterrupt):
        saliency(make(home, "cut"), FakeUi())  # type: ignore[arg-type]
    again = saliency(make(home, "cut"), FakeUi())  # type: ignore[arg-type]
    assert calls[3] == (2, False)  # what had ended is not run again
    assert [resume for _, resume in calls[4:]] == [True, True]
    assert again["layers"] == whole["layers"]


def test_a_sweep_of_several_blocks_tries_runs_of_them(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = sweeping.train_at, []

    def noted(prepared: Prepared, layer: Any, resume: bool, **more: Any) -> dict[str, Any]:
        seen.append((prepared.config.site.layer, len(layer.sites)))
        return real(prepared, layer, resume, **more)

    monkeypatch.setattr(sweeping, "train_at", noted)
    config = make(home, "spans", "editor.name=step", "site.span=2")
    table = saliency(config, FakeUi())  # type: ignore[arg-type]
    assert seen == [(1, 4), (2, 4)]  # the top one of two blocks of two maps
    assert [row["layer"] for row in table["layers"]] == [1, 2]
    assert not any("test" in json.loads(f.read_text()) for f in home.glob("spans/**/fit.json"))
    seen.clear()
    one = make(home, "spans", "editor.name=step")
    assert [row["layer"] for row in saliency(one, FakeUi())["layers"]] == [0, 1, 2]  # type: ignore[arg-type]
    assert seen == [(0, 2), (1, 2), (2, 2)]
    with pytest.raises(SiteError, match=r"site\.span: expected 1 to 3 blocks"):
        saliency(make(home, "spans", "site.span=4"), FakeUi())  # type: ignore[arg-type]


def test_the_test_is_not_asked_for_in_a_sweep(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(_self: object) -> None:
        raise AssertionError("the test's samples were made")

    monkeypatch.setattr(Prepared, "test", property(asked))
    saliency(make(home, "untested", "editor.name=step", "seed=3"), FakeUi())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("trainer.foo=1", "unknown argument of lightning.Trainer"),
        ("loss.penalty=typo", "loss.penalty"),
        ("editor.name=locate", "schedule.batch_size: rome solves for one failure at a time"),
    ],
)
def test_a_sweeps_settings_are_refused_before_anything_is_read(
    tmp_path: Path, override: str, line: str
) -> None:
    config = make(tmp_path, "none", "schedule.batch_size=2", "editor.locate.solver=rome", override)
    with pytest.raises(ConfigError, match=line):
        saliency(config, FakeUi())  # type: ignore[arg-type]


def test_a_fit_trains_at_the_layer_that_was_found(home: Path, trained: Trained) -> None:
    result = fit(make(home, "fitted"), False, FakeUi())  # type: ignore[arg-type]
    assert result["layer"] == result["saliency"]["pick"] == 1


def test_rounds() -> None:
    assert [n_rounds(n) for n in (1, 2, 3, 4, 6, 12, 30)] == [1, 1, 2, 2, 3, 4, 5]


def test_no_steps_are_refused(home: Path) -> None:
    with pytest.raises(ConfigError, match=r"site\.rung: expected at least 1 step, got 0"):
        check_site(make(home, "none", "site.rung=0").site, 1)
    with pytest.raises(ConfigError, match="did you mean 'sweep'"):
        check_site(make(home, "none", "site.select=sweeep").site, 1)


@pytest.fixture(scope="module")
def text_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model and facts that name rivals, rewordings and other matters."""
    folder, rng = tmp_path_factory.mktemp("rivals"), random.Random(0)
    base = tiny_text.build("llama")
    save(base, folder / "model")
    facts = [
        row
        | {"rival": tiny_text.words(rng, 1, 2), "locality": [tiny_text.words(rng, 2, 5)]}
        | {"locality_answer": tiny_text.words(rng, 1, 2)}
        for row in questions(base, 60, 0)
    ]
    write_jsonl(folder / "data.jsonl", facts)
    return folder


def facts_of(home: Path, name: str, *overrides: str) -> RunConfig:
    own = [
        "task.name=qa", f"task.stop='{tiny_text.STOP}'", "task.max_new_tokens=3",
        f"data.train={home / 'data.jsonl'}", "data.validation=0.3", "editor.name=step",
    ]  # fmt: skip
    return make(home, name, *own, *overrides)


@pytest.mark.long
def test_layers_are_judged_by_the_measures_of_the_field(text_home: Path) -> None:
    table = saliency(facts_of(text_home, "rivals"), FakeUi())  # type: ignore[arg-type]
    by_s = facts_of(text_home, "by-s", "site.judge=preference")
    other = saliency(by_s, FakeUi())  # type: ignore[arg-type]
    assert "by S" in other["method"]
    for row, same in zip(table["layers"], other["layers"], strict=True):
        assert same == row | {"score": row["preference"]}
    # Against whole runs of the edited model, one answer at a time.
    row = table["layers"][-1]
    config = facts_of(text_home, "last", "site.select=fixed", f"site.layer={row['layer']}")
    fit(config, False, FakeUi())  # type: ignore[arg-type]
    trained, prepared = load_editor(config.folder), prepare(config, FakeUi())  # type: ignore[arg-type]
    base, part = prepared.base, prepared.validation
    right = dict[str, list[bool]]()
    dealt = dealt_failures(len(part.fail), K, 3, config.seed)
    assert len(dealt) == 3
    for i in dealt:
        session = trained.session(base)
        session.step([part.fail[i]])
        groups = {"efficacy": (part.fail[i],), "paraphrase": part.adapt[i]}
        for kind, group in (groups | {"neighborhood": part.near[i]}).items():
            for sample in group:
                with applied(base.model, session.edits):
                    wrong = likelihood(base, replace(sample, target=sample.rival))
                    right.setdefault(kind, []).append(bool(likelihood(base, sample) > wrong))
    shares = {kind: sum(found) / len(found) for kind, found in right.items()}
    assert len(shares) == 3
    assert {kind: row[kind] for kind in shares} == pytest.approx(shares)
    said = render("saliency", table, io.StringIO())
    assert all(f" {name} " in said for name in ("ES", "PS", "NS", "S"))
    assert max(map(len, said.splitlines())) <= 80
    assert "100.0%" in said or "0.0%" in said, "no share is broken in two"


@pytest.mark.long
def test_a_layer_that_the_editor_cannot_edit_is_left_out(text_home: Path, tmp_path: Path) -> None:
    """A subject's tokens in the last block say nothing to any answer."""
    facts = [json.loads(line) for line in (text_home / "data.jsonl").read_text().splitlines()]
    named = [row | {"subject": row["question"].split()[0]} for row in facts]
    write_jsonl(tmp_path / "named.jsonl", named)
    own = ["editor.name=locate", "editor.locate.contexts=0", "schedule.batch_size=1",
           "editor.locate.shrink=0.1",
           "editor.locate.kl=0", "editor.locate.value_steps=2"]  # fmt: skip
    data = f"data.train={tmp_path / 'named.jsonl'}"
    table = saliency(facts_of(text_home, "subjects", *own, data), FakeUi())  # type: ignore[arg-type]
    assert [row["layer"] for row in table["layers"]] == [0, 1]
    assert table["pick"] in {0, 1}
    last = facts_of(text_home, "last", *own, data, "site.select=fixed", "site.layer=2")
    with pytest.raises(SiteError, match=r"of block 2 of .*set editor\.locate\.at=last or a lower"):
        fit(last, False, FakeUi())  # type: ignore[arg-type]


def test_no_layer_is_judged_by_rivals_that_nothing_names(
    home: Path, text_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **_more: object) -> None:
        raise AssertionError("something was cached first")

    monkeypatch.setattr(sweeping, "banks_at", never)
    for config in (make(home, "no-rivals"), facts_of(text_home, "no-field", "task.fields.rival=x")):
        config = replace(config, site=replace(config.site, judge="preference"))
        with pytest.raises(ConfigError, match=r"site\.judge: expected failures"):
            saliency(config, FakeUi())  # type: ignore[arg-type]
    config = replace(config, site=replace(config.site, judge="preferance"))
    with pytest.raises(ConfigError, match="did you mean 'preference'"):
        saliency(config, FakeUi())  # type: ignore[arg-type]


@pytest.mark.long
def test_what_is_compared_is_counted(text_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where failures are dealt into several edits, two at a time."""
    rows, real = [], preferences._Counts.update

    def noted(self: Any, kinds: torch.Tensor, is_real: torch.Tensor, likely: torch.Tensor) -> None:
        rows.append(2 * int(is_real.sum()))  # but padding
        real(self, kinds, is_real, likely)

    monkeypatch.setattr(preferences._Counts, "update", noted)
    own = ["schedule.batch_size=2", "train.validation_edits=20", "editor.name=ft"]
    own += ["editor.ft.steps=1", "editor.steps=[1.0]"]
    config = facts_of(text_home, "counted", *own)
    table = saliency(config, FakeUi())  # type: ignore[arg-type]
    compared = sum(rows) // N_BLOCKS
    assert compared > 20 * 2 * 2 * 2, "a failure and what is near to it, two rows each"
    passes = len(prepare(config, FakeUi()).validation.passing)  # type: ignore[arg-type]
    assert passes < 5, "fewer than an edit is judged by"
    judged = 20 * (2 * 2 + passes) + compared
    assert table["forward_passes"] == pytest.approx(judged * sum(range(1, N_BLOCKS + 1)) / N_BLOCKS)


@pytest.mark.long
def test_a_trained_editor_is_compared_once_a_round(
    text_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, real = [], Preferences.count

    def noted(self: Preferences, members: torch.Tensor, edits: Edits) -> None:
        counted.append(members.numel())
        real(self, members, edits)

    monkeypatch.setattr(Preferences, "count", noted)
    config = facts_of(text_home, "trained", "editor.name=mend", "site.judge=preference")
    table = saliency(config, FakeUi())  # type: ignore[arg-type]
    assert sum(counted) == 3 * (N_BLOCKS + 2), "of the kept states, not after every epoch"
    finalists = [row for row in table["layers"] if row["final"]]
    best = max(finalists, key=lambda row: (row["preference"], row["layer"]))
    assert table["pick"] == best["layer"]


def test_the_judge_of_sweeps_is_nothing_to_other_pickers(home: Path) -> None:
    own = ["site.select=gradient", "site.samples=4"]
    first = saliency(make(home, "plain", *own), FakeUi())  # type: ignore[arg-type]
    shutil.copytree(home / "plain" / "cache", home / "judged" / "cache")
    other = make(home, "judged", *own, "site.judge=preference")
    assert saliency(other, FakeUi()) == first  # type: ignore[arg-type]


@pytest.mark.parametrize("at", [4, 5])
@pytest.mark.long
def test_a_sweep_interrupted_in_a_later_round_goes_on(
    home: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Checkpoints are then further than the first rounds, which are not run again."""
    whole = saliency(make(home, "whole"), FakeUi())  # type: ignore[arg-type]
    real, calls = sweeping.train_at, []

    def cut_off(prepared: Prepared, layer: Any, resume: bool, **_more: Any) -> dict[str, Any]:
        calls.append(layer.index)
        found = real(prepared, layer, resume)
        if len(calls) == at:  # trained, and its end is not kept
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(sweeping, "train_at", cut_off)
    name = f"late-{at}"
    with pytest.raises(KeyboardInterrupt):
        saliency(make(home, name), FakeUi())  # type: ignore[arg-type]
    (last,) = [*(home / name / "cache").glob(f"sweep-*/layer-{calls[0]}/last.ckpt")]
    before = len(calls)
    if at == 5:  # what cannot be gone on with is begun anew
        *_, broken = (home / name / "cache").glob(f"sweep-*/layer-{calls[-1]}/last.ckpt")
        broken.write_bytes(b"no checkpoint")
    again = saliency(make(home, name), FakeUi())  # type: ignore[arg-type]
    assert len(calls) - before == 5 - (at - 1) + (at == 5)
    assert again["layers"] == whole["layers"]
    assert not last.exists()


@pytest.mark.long
def test_a_layer_at_which_training_diverges_is_left_out(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the layers that are left are no reason to train it once more."""
    real, shown = sweeping.train_at, FakeUi()

    def diverging(prepared: Prepared, layer: Any, resume: bool, **more: Any) -> dict[str, Any]:
        if layer.index != 2:
            raise DivergedError("training diverged at step 1: the loss is nan")
        return real(prepared, layer, resume, **more)

    monkeypatch.setattr(sweeping, "train_at", diverging)
    prepared = prepare(make(home, "diverging"), shown)  # type: ignore[arg-type]
    found = sweeping.sweep(prepared, prepared.base.layers())
    assert [score.layer for score in found.scores] == [2]

    def hopeless(*_given: Any, **_more: Any) -> None:
        raise DivergedError("training diverged at step 1: the loss is nan")

    monkeypatch.setattr(sweeping, "train_at", hopeless)
    prepared = prepare(make(home, "diverged"), shown)  # type: ignore[arg-type]
    with pytest.raises(DivergedError):
        sweeping.sweep(prepared, prepared.base.layers())


@pytest.mark.parametrize(
    ("setting", "is_same"),
    [
        ("test.every=2", True), ("schedule.cumulative=true", True), ("caches.memory_mb=77", True),
        ("train.learning_rate=1e-3", False), ("schedule.batch_size=3", False),
    ],
)  # fmt: skip
def test_a_sweep_depends_on_nothing_that_it_does_not_read(
    home: Path, setting: str, is_same: bool
) -> None:
    keys = {
        sweeping.sweep_key(prepare(make(home, "key", *given), FakeUi()))  # type: ignore[arg-type]
        for given in ((), (setting,))
    }
    assert (len(keys) == 1) == is_same


@pytest.mark.long
def test_a_longer_training_takes_up_the_layer_of_its_sweep(home: Path, trained: Trained) -> None:
    result = fit(make(home, "longer"), False, FakeUi())  # type: ignore[arg-type]
    trained.clear()
    longer = make(home, "longer", "train.epochs=2", "train.patience=7")
    again = fit(longer, True, FakeUi())  # type: ignore[arg-type]
    assert not trained
    assert (again["layer"], again["epochs"]) == (result["layer"], 2)
