"""Pass, fail and adapt: the model's own answers decide, and the result is kept by its causes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import LABELS, build, encode, samples

from saledit.data.rewordings import adapt_samples
from saledit.data.splits import Limits, Part, make_part
from saledit.errors import DataError
from saledit.forward.scoring import base_logits
from saledit.models import TaskModel
from saledit.records import Record, Sample
from saledit.tasks import answering
from saledit.tasks.nli import Nli

TASK = Nli()
LIMITS = Limits("data.train", failures=100, passes=100, rewordings=2)
N = 30


class CountingRewriter:
    """Makes ``count`` rewordings of each sample and remembers what it was asked for."""

    def __init__(self, count: int = 3, name: str = "counting") -> None:
        self.name, self.count = name, count
        self.asked: list[str] = []

    def __call__(
        self, samples: Sequence[Sample]
    ) -> Sequence[Sequence[tuple[tuple[str, ...], str]]]:
        self.asked += [sample.id for sample in samples]
        return [
            [(tuple(reversed(sample.inputs)), f"kind{n}") for n in range(self.count)]
            for sample in samples
        ]


@pytest.fixture(scope="module")
def base() -> TaskModel:
    return build("bert")


@pytest.fixture(scope="module")
def answers(base: TaskModel) -> list[str]:
    """The model's answer to each sample, one text at a time."""
    return [
        LABELS[int(base_logits(base, encode(base, [sample])).argmax())] for sample in samples(N)
    ]


@pytest.fixture(scope="module")
def records(answers: list[str]) -> list[Record]:
    """Every third is answered wrongly, every sixth brings rewordings of its own."""
    out = []
    for i, (sample, answer) in enumerate(zip(samples(N), answers, strict=True)):
        target = answer if i % 3 else LABELS[(LABELS.index(answer) + 1) % 3]
        own = tuple(
            Sample(f"{i}#{n}", (*sample.inputs[:1], f"own {n}"), target, "data")
            for n in range(3 * (i % 6 == 0))
        )
        out.append(Record(Sample(str(i), sample.inputs, target), own))
    return out


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: Any, **_options: Any) -> None:
        raise AssertionError("the model ran: nothing was cached")

    monkeypatch.setattr("saledit.data.asking.answers", refuse)


def part_of(base: TaskModel, records: Sequence[Record], folder: Path, **other: Any) -> Part:
    limits, rewriter = other.get("limits", LIMITS), other.get("rewriter")
    return make_part(base, TASK, records, limits, rewriter, folder)


def test_right_is_what_the_model_answers_alone(
    base: TaskModel, records: list[Record], answers: list[str]
) -> None:
    found = answering.answers(base, TASK, [r.sample for r in records])
    assert [a.right for a in found] == [bool(i % 3) for i in range(N)]
    assert [a.text for a in found] == answers
    assert [a.f1 for a in found] == [float(a.right) for a in found]


def test_every_record_is_on_its_side(
    base: TaskModel, records: list[Record], tmp_path: Path
) -> None:
    part = part_of(base, records, tmp_path)
    assert part.fail == tuple(r.sample for r in records[::3])
    assert part.passing == tuple(r.sample for i, r in enumerate(records) if i % 3)
    assert [len(group) for group in part.adapt] == [2, 0] * 5
    assert part.counts() == {
        "fail": 10,
        "adapt": 10,
        "adapt_kinds": {"data": 10},
        "pass": 20,
        "made": 0,
    }


def test_rewordings_of_the_data_come_first(
    base: TaskModel, records: list[Record], tmp_path: Path
) -> None:
    rewriter = CountingRewriter()
    part = part_of(base, records, tmp_path, rewriter=rewriter)
    assert rewriter.asked == [str(i) for i in range(3, N, 6)], "only failures without their own"
    for sample, group in zip(part.fail, part.adapt, strict=True):
        assert len(group) == 2
        assert {other.target for other in group} == {sample.target}
        assert [other.id for other in group] == [f"{sample.id}#0", f"{sample.id}#1"]
        wanted = ["data", "data"] if int(sample.id) % 6 == 0 else ["kind0", "kind1"]
        assert [other.kind for other in group] == wanted


def test_limits_cut(base: TaskModel, records: list[Record], tmp_path: Path) -> None:
    rewriter = CountingRewriter()
    limits = Limits("data.train", failures=4, passes=3, rewordings=1)
    part = part_of(base, records, tmp_path, limits=limits, rewriter=rewriter)
    assert (len(part.fail), len(part.passing)) == (4, 3)
    assert [len(group) for group in part.adapt] == [1] * 4
    assert rewriter.asked == ["3", "9"], "nothing is made for failures that are not kept"
    unasked = CountingRewriter()
    none = adapt_samples(records[:3], 0, unasked, tmp_path)
    assert none == ((), (), ())
    assert not unasked.asked


def test_what_was_learned_fills_up_the_pass_samples(
    base: TaskModel, records: list[Record], tmp_path: Path
) -> None:
    pool, learned = records[:12], records[12:]
    limits = replace(LIMITS, passes=15, made=100)
    bare = make_part(base, TASK, pool, limits, None, tmp_path)
    full = make_part(base, TASK, pool, limits, None, tmp_path, learned)
    # Only pass samples come of it, after the pool's own, as many as there is room for.
    assert replace(full, passing=bare.passing) == bare
    right = [r.sample for i, r in enumerate(records) if i % 3]
    assert full.passing == tuple(right[:15])
    assert len(bare.passing) == 8


@pytest.mark.parametrize(
    ("right", "message"),
    [(True, "answers wrongly, got none among 20"), (False, "answers rightly, got none among 10")],
)
def test_one_side_empty_is_refused(
    base: TaskModel, records: list[Record], tmp_path: Path, right: bool, message: str
) -> None:
    chosen = [r for i, r in enumerate(records) if bool(i % 3) == right]
    with pytest.raises(DataError, match=rf"data\.train: expected .*{message}"):
        part_of(base, chosen, tmp_path)


def test_an_unknown_label_is_refused(base: TaskModel, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'netural'; did you mean 'neutral'"):
        part_of(base, [Record(Sample("0", ("ba", "be"), "netural"))], tmp_path)


@pytest.mark.usefixtures("no_model")
class TestCached:
    """The second call reads what the first one wrote, unless a cause changed."""

    @pytest.fixture
    def folder(self, base: TaskModel, records: list[Record], tmp_path: Path) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("saledit.data.asking.answers", answering.answers)
            part_of(base, records, tmp_path, rewriter=CountingRewriter())
        return tmp_path

    def test_the_same(
        self, base: TaskModel, records: list[Record], folder: Path, tmp_path_factory: Any
    ) -> None:
        rewriter = CountingRewriter()
        part = part_of(base, records, folder, rewriter=rewriter)
        assert not rewriter.asked
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("saledit.data.asking.answers", answering.answers)
            other = tmp_path_factory.mktemp("fresh")
            assert part_of(base, records, other, rewriter=CountingRewriter()) == part

    def test_other_limits_and_another_order_ask_nothing_new(
        self, base: TaskModel, records: list[Record], folder: Path
    ) -> None:
        rewriter = CountingRewriter()
        limits = replace(LIMITS, passes=7)
        part = part_of(base, records[::-1], folder, limits=limits, rewriter=rewriter)
        assert not rewriter.asked
        assert len(part.passing) == 7
        assert {s.id for s in part.fail} == {str(i) for i in range(0, N, 3)}

    @pytest.mark.parametrize("cause", ["record", "weights", "labels", "tokenizer", "task"])
    def test_another_cause(
        self, base: TaskModel, records: list[Record], folder: Path, cause: str
    ) -> None:
        task, model = TASK, base
        if cause == "record":
            first = records[1].sample
            records = [records[0], Record(replace(first, target="neutral")), *records[2:]]
        elif cause == "weights":
            model = build("bert")
            with torch.no_grad():
                model.model.classifier.bias[0] += 1e-3
        elif cause == "labels":  # no weight changes, but what is right does
            model = build("bert")
            names = dict(enumerate(reversed(LABELS)))
            model.model.config.id2label = names
            model.model.config.label2id = {name: i for i, name in names.items()}
        elif cause == "tokenizer":
            model = build("bert")
            model.tokenizer.add_tokens(["zzz"])
        else:
            task = Nli(max_length=12)
        with pytest.raises(AssertionError, match="nothing was cached"):
            make_part(model, task, records, LIMITS, CountingRewriter(), folder)

    def test_another_rewriter_is_asked(
        self, base: TaskModel, records: list[Record], folder: Path
    ) -> None:
        rewriter = CountingRewriter(name="other", count=1)
        part = part_of(base, records, folder, rewriter=rewriter)
        assert rewriter.asked
        assert [len(group) for group in part.adapt] == [2, 1] * 5
        assert not any(part_of(base, records, folder).adapt[1::2]), "none without a rewriter"

    @pytest.mark.parametrize("damage", ["[1]", "[1", '{"a": ', ""])
    def test_a_broken_memo_is_made_again(
        self, base: TaskModel, records: list[Record], folder: Path, damage: str
    ) -> None:
        whole = part_of(base, records, folder, rewriter=CountingRewriter())
        for path in folder.iterdir():
            path.write_text(damage)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("saledit.data.asking.answers", answering.answers)
            assert part_of(base, records, folder, rewriter=CountingRewriter()) == whole
        assert part_of(base, records, folder, rewriter=CountingRewriter()) == whole


def test_counterfactual_failures_are_pass_samples_with_every_other_answer(
    base: TaskModel, records: list[Record], tmp_path: Path
) -> None:
    limits, rewriter = replace(LIMITS, made=3), CountingRewriter()
    part = part_of(base, records, tmp_path, limits=limits, rewriter=rewriter)
    plain = part_of(base, records, tmp_path, rewriter=rewriter)
    assert (part.fail, part.adapt, part.passing) == (plain.fail, plain.adapt, plain.passing)
    assert part.made_from == (0, 0, 1, 1, 2, 2)
    for sample, group, i in zip(part.made, part.made_adapt, part.made_from, strict=True):
        source = part.passing[i]
        assert sample.inputs == source.inputs
        assert sample.target != source.target
        assert {other.target for other in group} == {sample.target}
        assert len(group) == 2
    targets = [{s.target for s in part.made[i : i + 2]} for i in (0, 2, 4)]
    wanted = [set(LABELS) - {part.passing[i].target} for i in range(3)]
    assert targets == wanted
