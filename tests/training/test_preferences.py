"""Answers against their rivals: records, and counts against whole runs, one at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
import tiny_text as text
import torch
from quick import quick
from torch import Tensor

from saledit.data.splits import Part
from saledit.delta import Edits, LowRank
from saledit.errors import DataError
from saledit.forward.scoring import base_logits
from saledit.models import SEQ2SEQ
from saledit.overlay import applied
from saledit.records import Sample, Writing
from saledit.run.measures.preferences import KINDS, Preferences, _Counts, pairs_of
from saledit.tasks.generation import Generation
from saledit.tasks.prompts import END
from saledit.tasks.qa import Qa

BLOCK, E, K = 1, 3, 2

FULL = {
    "case_id": 34,
    "requested_rewrite": {
        "prompt": "{} was employed in", "subject": "Laurent Cars",
        "target_new": {"str": "Philadelphia"}, "target_true": {"str": "Paris"},
    },
    "paraphrase_prompts": ["Laurent Cars worked in", "He found employment in"],
    "neighborhood_prompts": ["Victor Hugo was employed in", "Monet worked in"],
    "generation_prompts": ["Laurent Cars is"],
}  # fmt: skip


@pytest.mark.parametrize("task", [Qa(), Generation(), Qa({"question": "prompt", "rival": "old"})])
def test_a_record_of_counterfact(task: Qa | Generation) -> None:
    record = task.parse(FULL, "f:1")
    one = record.sample
    assert (one.id, one.inputs) == ("34", ("Laurent Cars was employed in",))
    assert (one.target, one.rival, one.subject) == ("Philadelphia", "Paris", "Laurent Cars")
    assert [(s.inputs[0], s.rival, s.subject) for s in record.rewordings] == [
        ("Laurent Cars worked in", "Paris", "Laurent Cars"),
        ("He found employment in", "Paris", ""),
    ]
    near = [(s.inputs[0], s.target, s.rival) for s in record.locality]
    assert near == [
        ("Victor Hugo was employed in", "Paris", "Philadelphia"),
        ("Monet worked in", "Paris", "Philadelphia"),
    ]
    assert record.writing == Writing(("Laurent Cars is",))
    assert task.parse(task.row(one), "f:1").sample == one


@pytest.mark.parametrize("name", ["references", "snippets"])
def test_references_in_a_record_of_counterfact(name: str) -> None:
    told = {**FULL, name: ["Philadelphia is a city.", "It lies on the Delaware."]}
    found = Qa({"references": name}).parse(told, "f:1").writing
    assert found == Writing(("Laurent Cars is",), tuple(told[name]))  # type: ignore[arg-type]
    with pytest.raises(DataError, match=f"f:1: expected text or a list of texts in '{name}'"):
        Qa({"references": name}).parse({**FULL, name: [3]}, "f:1")


def test_a_flat_record_of_counterfact() -> None:
    task = Qa({
        "question": "prompt", "answer": "target_new", "rephrases": "rephrase_prompt",
        "locality": "locality_prompt", "locality_answer": "locality_ground_truth",
        "rival": "ground_truth",
    })  # fmt: skip
    row = {
        "prompt": "A is in", "target_new": "B", "subject": "A", "ground_truth": "C",
        "rephrase_prompt": "Where A is:", "locality_prompt": "D is in",
        "locality_ground_truth": "C",
    }  # fmt: skip
    record = task.parse(row, "f:1")
    assert (record.sample.rival, record.rewordings[0].rival) == ("C", "C")
    assert (record.locality[0].target, record.locality[0].rival) == ("C", "B")
    assert task.parse({**row, "ground_truth": None}, "f:1").locality[0].rival == ""


@pytest.mark.parametrize("prompt", ["In {a}, {} is", "A brace { and {} is", "{{x}} and {} is"])
def test_only_the_subject_s_place_is_filled_in(prompt: str) -> None:
    row = {**FULL, "requested_rewrite": {**FULL["requested_rewrite"], "prompt": prompt}}  # type: ignore[dict-item]
    (said,) = Qa().parse(row, "f:1").sample.inputs
    assert said == prompt.replace("{}", "Laurent Cars")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"prompt": "no place"}, r"f:1: expected one '\{\}' in the prompt, got 'no place'"),
        ({"subject": 3}, "f:1: expected text in 'subject', got int"),
        ({"target_true": "Paris"}, "f:1: expected an object with 'str' in 'target_true', got str"),
        ({"target_new": {}}, "f:1: expected text in 'str', got nothing"),
    ],
)
def test_a_broken_record_is_refused(change: dict[str, object], line: str) -> None:
    wanted = {**FULL["requested_rewrite"], **change}  # type: ignore[dict-item]
    with pytest.raises(DataError, match=line):
        Qa().parse({**FULL, "requested_rewrite": wanted}, "f:1")
    with pytest.raises(DataError, match="f:1: expected an object in 'requested_rewrite'"):
        Qa().parse({**FULL, "requested_rewrite": "x"}, "f:1")


def part() -> Part:
    """Failures with none to three rewordings and near samples, some without a rival."""
    words, many = text.WORDS, text.samples(40)
    samples = [
        replace(s, rival=f"{words[i % 9]} {words[i % 5]}" if i % 6 else "")
        for i, s in enumerate(many)
    ]
    fail, others = samples[: E * K], iter(samples[E * K :])
    adapt = tuple(tuple(next(others) for _ in range(i % 3)) for i in range(len(fail)))
    near = tuple(tuple(next(others) for _ in range((i + 1) % 4)) for i in range(len(fail)))
    return Part(tuple(fail), adapt, tuple(samples[-3:]), near=near)


def edits(base: text.TaskModel) -> Edits:
    draws = torch.Generator().manual_seed(0)
    return Edits({
        site: LowRank(
            torch.randn(E, 2, site.d_in, generator=draws),
            torch.randn(E, 2, site.d_out, generator=draws),
        )
        for site in base.layer(BLOCK).sites
    })  # fmt: skip


def likelihood(base: text.TaskModel, sample: Sample) -> Tensor:
    """Geometric mean of the probabilities of an answer's tokens, in a run of its own."""
    task = text.task().unended()
    seen = task.encode(base, [sample])
    logits = base_logits(base, seen.inputs, seen.at)[0].log_softmax(-1)
    wanted = seen.targets[0]
    if base.kind == SEQ2SEQ:  # ends its answers, and there are several ways to
        assert wanted[-1] == END
        return (-task.losses(base, logits, seen.targets)[0]).exp()
    return logits.gather(1, wanted[:, None]).mean().exp()


@pytest.mark.parametrize("rows", quick([6], [512, 6]))
@pytest.mark.parametrize("name", ["llama", "gpt2", "t5"])
def test_counts_are_those_of_whole_runs(
    name: str, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saledit.run.measures.preferences._ROWS", rows)
    base, own, change = text.build(name), part(), edits(text.build(name))
    counted = Preferences(
        base, text.task(), pairs_of(own), text.opener(base, base.layer(BLOCK), tmp_path)
    )
    members = torch.randperm(E * K, generator=torch.Generator().manual_seed(1)).view(E, K)
    counted.count(members, change)
    found = counted.metrics()

    def expected(which: list[tuple[int, Edits]]) -> dict[str, float]:
        leads: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
        for i, one in which:
            groups = ((own.fail[i],), own.adapt[i], own.near[i])
            for kind, group in zip(KINDS, groups, strict=True):
                lead = []
                for sample in group:
                    if not sample.rival:
                        continue
                    with applied(base.model, one):
                        right = likelihood(base, sample)
                        wrong = likelihood(base, replace(sample, target=sample.rival))
                    lead.append(float(right - wrong))
                if lead:
                    leads[kind].append(lead)
        # A mean of records' means, as the source has it.
        shares = {k: fmean(fmean(x > 0 for x in one) for one in v) for k, v in leads.items()}
        out = dict(shares) | {f"{k}_lead": fmean(map(fmean, v)) for k, v in leads.items()}
        whole = all(shares.values())
        return out | {"score": 3 / sum(1 / s for s in shares.values()) if whole else 0.0}

    alone = [Edits({s: d[e] for s, d in change.items()}) for e in range(E)]
    which = [(int(i), alone[e]) for e in range(E) for i in members[e]]
    assert found == pytest.approx(expected(which), rel=1e-3, abs=1e-6)
    nothing = [(i, Edits({})) for i in range(E * K)]
    assert counted.unedited() == pytest.approx(expected(nothing), rel=1e-3, abs=1e-6)
    assert found != counted.unedited()


def test_without_rivals_nothing_is_compared(tmp_path: Path) -> None:
    base = text.build("llama")
    bare = Part(tuple(text.samples(2)), ((), ()), tuple(text.samples(3)))
    counted = Preferences(
        base, text.task(), pairs_of(bare), text.opener(base, base.layer(BLOCK), tmp_path)
    )
    counted.count(torch.tensor([[0], [1]]), edits(base))
    assert counted.metrics() == counted.unedited() == {}


def test_a_score_is_of_all_three_kinds(tmp_path: Path) -> None:
    base, own = text.build("llama"), part()
    for less in (
        replace(own, near=((),) * len(own.fail)),
        replace(own, adapt=((),) * len(own.fail)),
    ):
        pairs = pairs_of(less)
        counted = Preferences(base, text.task(), pairs, text.opener(base, base.layer(1), tmp_path))
        counted.count(torch.arange(6).view(3, 2), edits(base))
        assert not pairs.have_all_kinds
        assert "efficacy" in counted.metrics()
        assert "score" not in counted.metrics()
        assert "score" not in counted.unedited()
    assert pairs_of(own).have_all_kinds


def test_an_answer_is_no_rival_of_its_own() -> None:
    rivals = zip(text.samples(3), ("", "ba", "ba"), strict=True)
    one, other, none = (replace(sample, rival=rival) for sample, rival in rivals)
    same, bare = replace(other, rival=other.target), replace(none, target="")
    pairs = pairs_of(Part((one, same, other, bare), ((),) * 4, ()))
    assert pairs.own == [[], [], [0], []]
    assert len(pairs.samples) == 2


def test_a_pair_of_no_numbers_is_lost_and_takes_no_lead_with_it() -> None:
    counts, nan = _Counts(), float("nan")
    likely = torch.tensor([[0.6, 0.2], [nan, nan], [0.1, 0.3], [nan, 0.5]])
    counts.update(torch.tensor([0, 0, 1, 2]), torch.tensor([1, 1, 1, 0]), likely)
    told = counts.metrics()
    first, second, third = KINDS
    assert told[first] == 0.5
    assert told[f"{first}_lead"] == pytest.approx(0.4)
    assert told[f"{second}_lead"] == pytest.approx(-0.2)
    assert third not in told
