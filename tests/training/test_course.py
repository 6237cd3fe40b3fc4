"""The course of a sequence against whole models, asked one after another."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_text as text
import torch
from quick import quick
from whole_runs import ui

from saledit import config as configuration
from saledit import session
from saledit.cache.bank import BankSpec
from saledit.config import RunConfig
from saledit.data.choices import Choice, load_choices
from saledit.data.part_banks import open_banks
from saledit.data.splits import Part
from saledit.delta import Edits, LowRank
from saledit.errors import DataError, JobError
from saledit.files import write_jsonl
from saledit.forward.scoring import base_logits
from saledit.overlay import applied
from saledit.records import Answer, Sample
from saledit.report import course_figure, write_plot
from saledit.run import fit, sequence, testing
from saledit.run import test as run_test
from saledit.run.measures import spoken as generated
from saledit.run.measures.course import Course
from saledit.run.measures.tally import Tally
from saledit.run.measures.watching import Abilities, Passages
from saledit.session import EditSession
from saledit.tasks.answering import answers

BLOCK, QA = 1, text.task()
TEXTS = [" ".join(text.WORDS[i : i + 6]) for i in range(8)]


def change(base: text.TaskModel, size: float) -> Edits:
    draws = torch.Generator().manual_seed(0)
    return Edits({
        site: LowRank(
            torch.randn(2, site.d_in, generator=draws),
            size * torch.randn(2, site.d_out, generator=draws),
        )
        for site in base.layer(BLOCK).sites
    })  # fmt: skip


def spoken(base: text.TaskModel, samples: list[Sample], edits: Edits) -> float:
    found = answers(base, QA, samples, edits)
    return sum(answer.right for answer in found) / len(found)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_points_are_those_of_whole_models(name: str, tmp_path: Path) -> None:
    base = text.build(name)
    asked = text.samples(30)
    # Some answers are the model's own, so that some are right.
    said = answers(base, QA, asked)
    own = [
        Sample(
            s.id,
            s.inputs,
            a.text if i % 2 and a.ended and a.text.strip(text.STOP) else s.target,
            accepted=(),
        )
        for i, (s, a) in enumerate(zip(asked, said, strict=True))
    ]
    adapt = [tuple(own[10 + 2 * i : 10 + 2 * i + i % 3]) for i in range(6)]
    part = Part(tuple(own[:6]), tuple(adapt), tuple(own[22:]))
    layer = base.layer(BLOCK)
    (banks,) = open_banks(base, QA, part, [BankSpec(layer, 2)], tmp_path)
    watched = [Passages(base, QA, TEXTS, text.opener(base, layer, tmp_path))]
    course = Course(base, QA, part, banks, layer, watched)
    small, large = change(base, 1e-4), change(base, 3.0)
    course.look(Edits({}), 0, 0)
    course.look(small, 4, 0)
    course.look(large, 6, 4)
    for point, edits, done, since in zip(
        course.points, (Edits({}), small, large), (0, 4, 6), (0, 0, 4), strict=True
    ):
        assert point["n_failures"] == done
        if done:
            assert point["current"] == spoken(base, own[since:done], edits)
            reworded = [s for group in adapt[:done] for s in group]
            assert point["adapt"] == spoken(base, reworded, edits)
        else:
            assert "current" not in point
            assert "adapt" not in point
        assert ("earlier" in point) == bool(since)
        if since:
            assert point["earlier"] == spoken(base, own[:since], edits)
        assert point["pass_accuracy"] == spoken(base, own[22:], edits)
        nll = []
        for line in TEXTS:
            ids = base.tokenizer(line, return_tensors="pt").input_ids
            at = torch.arange(ids.shape[1] - 1)[None]
            with applied(base.model, edits):
                logits = base_logits(base, {"input_ids": ids[:, :-1]}, at)[0].log_softmax(-1)
            nll += logits.gather(1, ids[0, 1:, None]).flatten().tolist()
        wanted = torch.tensor(nll).neg().mean().exp().item()
        assert point["perplexity"] == pytest.approx(wanted, rel=1e-3)
    assert course.points[1]["delta_norm"] == pytest.approx(float(small.norm()))
    sizes = [base.model.get_submodule(s.name).weight.norm() for s in layer.sites]
    assert course.points[1]["weight_norm"] == pytest.approx(
        float(torch.stack(sizes).square().sum().sqrt())
    )
    assert "delta_norm" not in course.points[0]
    last, collapsed = course.points[-1], course.points[-1]["collapsed"]
    assert course.said() == (
        f"current {last['current']:.2f}, earlier {last['earlier']:.2f}, still right "
        f"{last['pass_accuracy']:.2f}, perplexity {last['perplexity']:.4g}"
        + (f", collapsed after {course.collapse}" if collapsed else "")
    )
    assert collapsed, "a change that large breaks a model"
    top = layer.sites[-1]  # of matrices that are not edited nothing is said
    course.look(Edits({top: small[top]}), 6, 3)
    assert course.points.pop()["weight_norm"] == pytest.approx(float(sizes[-1]))
    assert [p["collapsed"] for p in course.points][:2] == [False, False]
    lost = course.points[2]["pass_accuracy"] < 0.5 * course.points[0]["pass_accuracy"]
    lost |= course.points[2]["perplexity"] > 10 * course.points[0]["perplexity"]
    assert lost, "so large a change should break it"
    assert course.collapse == 6


def test_another_accepted_answer_is_right_and_nothing_else_is_generated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, layer = text.build("llama"), text.build("llama").layer(BLOCK)
    small, many = change(base, 1e-4), text.samples(40)
    said = answers(base, QA, many)
    own = [
        # What is said is the second of two answers, or none.
        replace(s, accepted=(s.target, a.text) if i % 2 else ())
        for i, (s, a) in enumerate(zip(many, said, strict=True))
        if a.text.strip(text.STOP) and not a.right
    ]
    part = Part(own[:6], [(s,) for s in own[6:12]], own[12:18])
    (banks,) = open_banks(base, QA, part, [BankSpec(layer, 2)], tmp_path)
    asked: list[Sample] = []
    real = generated.generate

    def generate(*given: Any) -> list[Answer]:
        asked.extend(given[2])
        return real(*given)

    monkeypatch.setattr(generated, "generate", generate)
    course = Course(base, QA, part, banks, layer)
    course.look(small, 6, 0)
    (point,) = course.points
    for name, some in (("current", own[:6]), ("adapt", own[6:12]), ("pass_accuracy", own[12:18])):
        assert point[name] == spoken(base, some, small)
        assert 0 < point[name] < 1
    assert {s.id for s in asked} == {s.id for s in own[:18] if s.accepted}
    assert len(asked) == len({s.id for s in asked})


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5/encoder"])
def test_abilities_are_those_of_whole_models(name: str, tmp_path: Path) -> None:
    base = text.build(name)
    asked = text.samples(14, seed=3)
    choices = [
        Choice(s.id, "ab"[i % 2], s.inputs[0], (s.target, *own))
        for i, (s, own) in enumerate(
            zip(asked, [["ba", "ka mi"], ["mi mi ba"]] * 7, strict=True)
        )
    ]  # fmt: skip
    # A template and a stop rule of the task's own have no say.
    task = text.task(template="Q: {question} A:")
    layer = base.layer(BLOCK)
    watched = Abilities(base, task, choices, text.opener(base, layer, tmp_path))
    plain = text.task(stop="")
    shares = []
    for edits in (Edits({}), change(base, 0.5)):
        right: dict[str, list[bool]] = {"a": [], "b": []}
        for choice in choices:
            losses = []
            for answer in choice.answers:
                seen = plain.encode(base, [Sample("", (choice.prompt,), answer)])
                with applied(base.model, edits):
                    logits = base_logits(base, seen.inputs, seen.at)
                scored = seen.scored
                losses.append(float(plain.losses(base, logits[scored], seen.targets)))
            right[choice.kind].append(losses[0] < min(losses[1:]))
        shares.append({kind: sum(own) / len(own) for kind, own in right.items()})
        assert watched.look(edits)["abilities"] == pytest.approx(shares[-1])
    assert shares[0] != shares[1]


def test_bundled_choices() -> None:
    found = load_choices("bundled:data/abilities/prompts.jsonl.gz")
    assert {choice.kind for choice in found} == {"sentiment", "inference", "knowledge"}
    reviews = [choice.answers[0] for choice in found if choice.kind == "sentiment"]
    assert reviews.count("positive") == reviews.count("negative")
    assert all(len(set(choice.answers)) == len(choice.answers) > 1 for choice in found)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "a", "choices": ["b", "c"], "answer": "d", "kind": "k"}, "got 'd' and 2"),
        ({"prompt": "a", "choices": ["b", "b"], "answer": "b", "kind": "k"}, "got 'b' and 1"),
        ({"prompt": "a", "choices": "b", "answer": "b", "kind": "k"}, "got 'b' and 1"),
        ({"prompt": "a", "choices": ["b", "c"], "answer": "b"}, "'kind'"),
    ],
)
def test_choices_that_are_none_are_refused(
    row: dict[str, object], said: str, tmp_path: Path
) -> None:
    write_jsonl(tmp_path / "c.jsonl", [row])
    with pytest.raises(DataError, match=said) as caught:
        load_choices(str(tmp_path / "c.jsonl"))
    assert "c.jsonl" in str(caught.value)


def test_a_sequence_leaves_its_course(make: Callable[..., RunConfig]) -> None:
    config = make("course", "schedule.cumulative=true", "train.epochs=1")
    fit(config, False, ui())
    results = run_test(str(config.folder), ["test.every=4"], ui())
    (path,) = config.folder.glob("results-*.json")
    assert json.loads(path.read_text())["course"] == results["course"]
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    points, n = results["course"], results["counts"]["fail"]
    assert [p["n_failures"] for p in points] == [0, *range(4, n, 4), n]
    assert points[0]["pass_accuracy"] == 1
    last = points[-1]
    held = last["earlier"] * points[-2]["n_failures"] + last["current"] * (
        n - points[-2]["n_failures"]
    )
    assert held / n == pytest.approx(results["metrics"]["fail_accuracy"])
    assert last["pass_accuracy"] == pytest.approx(results["metrics"]["pass_accuracy_after"])
    assert last["locality_kl"] == pytest.approx(results["metrics"]["locality_kl"], rel=1e-4)
    plain = run_test(str(config.folder), [], ui())
    assert "course" not in plain
    assert plain["metrics"] == results["metrics"]


@pytest.mark.parametrize(
    ("every", "own"),
    [
        (2, ["editor.name=locate", "editor.locate.solver=alphaedit", "editor.locate.at=last",
             "editor.locate.shrink=0.1", "editor.locate.threshold=1.0"]),
        (0, ["editor.name=memoe", "editor.memoe.steps=3", "editor.memoe.experts=3"]),
    ],
    ids=["alphaedit", "memoe"],
)  # fmt: skip
@pytest.mark.long
def test_a_sequence_that_was_cut_off_goes_on(
    every: int, own: list[str], make: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make("cut", "schedule.cumulative=true", "train.epochs=1", *own)
    fit(config, False, ui())
    looks = [f"test.every={every * config.schedule.batch_size}"]
    whole = run_test(str(config.folder), looks, ui())
    assert not list(config.cache.glob("sequence-*"))
    monkeypatch.setattr(sequence, "_KEEP", 60.0 if every else 0.0)
    real, made = EditSession.step, []

    def full(*_: object) -> None:
        raise JobError("the disk is full")

    def step(self: EditSession, failures: list[Sample]) -> Edits:
        if len(made) == 5:
            raise KeyboardInterrupt
        made.append(len(failures))
        return real(self, failures)

    monkeypatch.setattr(EditSession, "step", step)
    with pytest.raises(KeyboardInterrupt):
        run_test(str(config.folder), looks, ui())
    (folder,) = (path for path in config.cache.glob("sequence-*") if path.is_dir())
    made.clear()
    monkeypatch.setattr(EditSession, "step", lambda s, f: (made.append(len(f)), real(s, f))[1])
    # Results that cannot be written leave it there.
    with monkeypatch.context() as faulty:
        faulty.setattr(testing, "write_results", full)
        with pytest.raises(JobError, match="full"):
            run_test(str(config.folder), looks, ui())
    # Five edits to time a fix, and what had not been kept.
    timed = min(5, whole["counts"]["fail"])
    assert len(made) == whole["n_edits"] - (4 if every else 5) + timed
    made.clear()
    before = json.loads((folder / "edits.json").read_text())["seconds"]
    assert before > 0
    again = run_test(str(config.folder), looks, ui())
    assert len(made) == timed
    assert not folder.exists()
    assert again["timing"]["test_seconds"] > before
    for one, other in zip(whole.get("course", []), again.get("course", []), strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)
    assert whole["metrics"] == pytest.approx(again["metrics"], rel=1e-4, abs=1e-5)


_LOCATE = ("editor.name=locate", "editor.locate.at=last", "editor.locate.shrink=0.1")


_FORMS = {
    "mend": (),
    "step": ("editor.name=step",),
    "ft": ("editor.name=ft", "editor.ft.steps=2"),
    "memoe": ("editor.name=memoe", "editor.memoe.steps=2", "editor.memoe.experts=3"),
    "memit": (*_LOCATE, "editor.locate.solver=memit"),
    "r-rome": (*_LOCATE, "editor.locate.solver=r-rome", "schedule.batch_size=1"),
    "alphaedit": (*_LOCATE, "editor.locate.solver=alphaedit", "editor.locate.threshold=1.0"),
}


# What a look sees is the same for all editors; that no edit can be made, each finds by itself.
_QUICK = ("mend-0", "mend-3", "memoe-0")


@pytest.mark.parametrize(
    ("own", "every"),
    quick(
        _QUICK,
        {f"{name}-{n}": (own, n) for name, own in _FORMS.items() for n in (0, 2, 3)},
    ),
)
def test_a_sequence_that_breaks_the_model_ends_there_and_is_told(
    own: tuple[str, ...], every: int, make: Callable[..., RunConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """An edit so large that the model gives no numbers: a finding, and no reason to lose the rest.

    Without looks it shows when no edit can be made of what the model gives.
    """
    config = make(f"broken{every}", "schedule.cumulative=true", "train.epochs=1", *own)
    fit(config, False, ui())
    real, calls = session.steps_for, []

    def steps_for(*given: Any) -> Edits:
        calls.append(1)
        return real(*given) * (1e30 if len(calls) == 4 else 1.0)

    monkeypatch.setattr(session, "steps_for", steps_for)
    looks = [f"test.every={every * config.schedule.batch_size}"]
    results = run_test(str(config.folder), looks, ui())
    assert results["n_edits"] == 4
    assert results["stopped"] == 4 * config.schedule.batch_size
    metrics, k = results["metrics"], config.schedule.batch_size
    assert metrics["pass_accuracy_after"] < 0.5
    assert "locality_kl" not in metrics
    assert not list(config.cache.glob("sequence-*"))
    (path,) = config.folder.glob("results*.json")
    assert json.loads(path.read_text())["metrics"] == metrics
    if every:
        # Between two looks the end is one of its own.
        assert [p["n_failures"] for p in results["course"]] == [0, every * k, 4 * k]
        assert results["collapse"] <= 4 * k
        assert "locality_kl" not in results["course"][-1]
        assert path.with_suffix(".png").exists()


def test_a_lost_model_takes_no_edit_when_its_sequence_is_gone_on_with(
    make: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was cut off between its last look and its results."""
    config = make("lost", "schedule.cumulative=true", "train.epochs=1")
    fit(config, False, ui())
    real, calls = session.steps_for, []

    def steps_for(*given: Any) -> Edits:
        calls.append(1)
        return real(*given) * (1e30 if len(calls) == 2 else 1.0)

    def cut_off(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "steps_for", steps_for)
    with monkeypatch.context() as faulty:
        faulty.setattr(Tally, "count_final", cut_off)
        with pytest.raises(KeyboardInterrupt):
            run_test(str(config.folder), ["test.every=4"], ui())
    assert len(calls) == 2
    monkeypatch.setattr(sequence.EditSession, "step", lambda *_: pytest.fail("an edit was made"))
    monkeypatch.setattr(testing, "_fix_seconds", lambda *_: 0.0)
    results = run_test(str(config.folder), ["test.every=4"], ui())
    assert results["n_edits"] == 2


def test_a_kept_sequence_is_of_the_texts_and_prompts_it_was_looked_at_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they held before and after are two things: a collapse is told by their perplexity."""
    texts = tmp_path / "texts.jsonl"
    settings = ["schedule.cumulative=true", f"test.texts={texts}", f"output={tmp_path}"]
    config, base = configuration.load(None, settings), text.build("llama")
    monkeypatch.setattr(sequence, "mark_of", lambda *_: "the same edits")
    prepared: Any = SimpleNamespace(config=config, base=base)

    def folder() -> Path:
        return sequence.Kept(prepared, None)._folder  # type: ignore[arg-type]

    write_jsonl(texts, [{"text": "ba be bi"}])
    before = folder()
    assert folder() == before
    write_jsonl(texts, [{"text": "bo bu"}])
    assert folder() != before


def test_steps_that_were_not_needed_are_no_edits(
    make: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make("needless", "schedule.cumulative=true", "train.epochs=1")
    fit(config, False, ui())
    monkeypatch.setattr(EditSession, "_has_mended", lambda *_: True)
    assert run_test(str(config.folder), [], ui())["n_edits"] == 1


def test_the_plot_of_a_collapse(tmp_path: Path) -> None:
    points = [
        {"n_failures": n, "pass_accuracy": 1 - n / 9, "current": 1.0, "perplexity": 10.0**n,
         "delta_norm": float(n), "weight_norm": 3.0, "collapsed": n > 4}
        for n in range(8)
    ]  # fmt: skip
    results = {"course": points, "collapse": 5, "editor": "a$b", "schedule": {"batch_size": 1}}
    write_plot(course_figure(results), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_what_counts_as_a_collapse() -> None:
    course = object.__new__(Course)
    course.points = [{"pass_accuracy": 0.8, "perplexity": 20.0}]
    nan = float("nan")
    for p, x, bad in (
        (0.8, 20.0, False),
        (0.41, 199.0, False),
        (0.39, 20.0, True),
        (0.8, 201.0, True),
        (0.8, nan, True),
        (nan, 20.0, True),
    ):
        assert course._has_collapsed({"pass_accuracy": p, "perplexity": x}) is bad
        assert course._has_collapsed({"pass_accuracy": p}) is (not p >= 0.4)
    course.points = []
    assert course._has_collapsed({"pass_accuracy": 0.0}) is False
