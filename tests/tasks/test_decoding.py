"""Free generation: what slow greedy decoding says, one sample and one edited model at a time."""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from quick import quick
from tiny import random_edits, untouched
from tiny_text import (
    CAUSAL_NAMES,
    ENDS,
    EOS,
    NAMES,
    STACKED,
    VOCABULARY,
    WORDS,
    build,
    greedy,
    samples,
    spell,
    task,
)

from saledit.delta import Edits
from saledit.models import TaskModel
from saledit.overlay import applied, merge
from saledit.records import Answer, Sample
from saledit.tasks import decoding
from saledit.tasks.decoding import continue_freely, generate, judge
from saledit.tasks.generation import Generation
from saledit.tasks.qa import Qa

MOST = 6
QA = task(max_new_tokens=MOST)


@pytest.fixture(scope="module", params=quick(["gpt2", "llama", "gemma2", "t5"], NAMES))
def base(request: pytest.FixtureRequest) -> TaskModel:
    return build(request.param)


def slow(base: TaskModel, sample: Sample) -> str:
    """The answer alone, without what ended it."""
    tokens = greedy(base, sample, most=MOST)
    return spell(tokens[:-1] if tokens[-1] in ENDS and len(tokens) > 1 else tokens)


def with_edit(base: TaskModel, edits: Edits) -> TaskModel:
    """A copy of a model with an edit written into its weights."""
    model = copy.deepcopy(base.model)
    merge(model, edits)
    return replace(base, model=model)


def one_of(edits: Edits, i: int) -> Edits:
    return Edits({site: delta[i] for site, delta in edits.items()})


def test_it_is_greedy_decoding_of_each_sample_alone(base: TaskModel) -> None:
    chosen = samples(10)
    with untouched(base.model):
        found = generate(base, QA, chosen)
    assert [answer.text for answer in found] == [slow(base, sample) for sample in chosen]


def test_an_answer_that_is_cut_off_has_not_ended(base: TaskModel) -> None:
    chosen = samples(30)
    ended = [greedy(base, sample, most=MOST)[-1] in ENDS for sample in chosen]
    assert [answer.ended for answer in generate(base, QA, chosen)] == ended


def test_order_and_company_do_not_matter(base: TaskModel, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = samples(10)
    want = {s.id: answer for s, answer in zip(chosen, generate(base, QA, chosen), strict=True)}
    others = chosen[3:]
    random.Random(0).shuffle(others)
    monkeypatch.setattr(decoding, "_BATCH_TOKENS", 30)  # in several batches
    assert generate(base, QA, others) == [want[sample.id] for sample in others]
    assert generate(base, QA, others[:1]) == [want[others[0].id]]


@pytest.mark.parametrize("name", quick(["gpt2", "llama", "t5", "bart/encoder"], STACKED))
def test_a_batch_of_edits_is_each_edit_merged(name: str) -> None:
    base = build(name)
    chosen = samples(8)
    for block, maps in ((0, ()), (1, base.family.attention_maps)):
        edits = random_edits(base.layer(block, maps).sites, batch=(3,), seed=block)
        which = torch.tensor([2, 0, 1, 1, 0, 2, 2, 0])
        with untouched(base.model):
            found = generate(base, QA, chosen, edits, which)
        for i in range(3):
            merged = with_edit(base, one_of(edits, i))
            for j in (which == i).nonzero().flatten().tolist():
                assert [found[j]] == generate(merged, QA, [chosen[j]])
        assert found != generate(base, QA, chosen), "an edit that changes nothing proves nothing"


@pytest.mark.parametrize("name", quick(["gpt2", "llama", "t5", "bart/encoder"], STACKED))
def test_one_edit_acts_on_all_samples(name: str) -> None:
    base = build(name)
    chosen = samples(6)
    edits = random_edits(base.layer(2).sites)
    with untouched(base.model):
        found = generate(base, QA, chosen, edits)
    assert found == generate(with_edit(base, edits), QA, chosen)


def test_one_edit_of_many_samples_is_not_copied_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a sequence has added up may be as large as the matrices."""
    base, chosen, shapes = build("llama"), samples(6), []
    edits = random_edits(base.layer(2).sites)

    def noted(model: Any, given: Edits) -> Any:
        shapes.append(given.batch_shape)
        return applied(model, given)

    monkeypatch.setattr("saledit.tasks.decoding.applied", noted)
    which = torch.zeros(6, dtype=torch.long)
    assert generate(base, QA, chosen, edits.expand(1), which) == generate(base, QA, chosen, edits)
    assert set(shapes) == {()}


# Settings that models bring along for their own generation; greedy decoding has none of them.
_OWN = {
    "repetition_penalty": 3.0,
    "no_repeat_ngram_size": 1,
    "min_length": 40,
    "suppress_tokens": list(range(6, 16)),
    "forced_eos_token_id": EOS,
    "num_beams": 3,
    "do_sample": True,
    "temperature": 5.0,
    "max_length": 3,
}


@pytest.mark.parametrize("setting", _OWN)
@pytest.mark.parametrize("name", quick(["llama"], ["llama", "bart"]))
def test_the_model_s_own_generation_settings_have_no_say(name: str, setting: str) -> None:
    base = build(name)
    chosen = samples(6)
    want = [slow(base, sample) for sample in chosen]
    setattr(base.model.generation_config, setting, _OWN[setting])
    torch.manual_seed(0)
    assert [answer.text for answer in generate(base, QA, chosen)] == want


@pytest.mark.parametrize("name", ["gpt2", "opt", "llama"])
def test_a_prompt_that_fills_the_context_is_answered_in_the_room_that_is_left(name: str) -> None:
    base = build(name)
    long = Sample("long", (" ".join(random.Random(1).choices(WORDS, k=61)),), "ba")
    of = task(max_length=64, max_new_tokens=16)
    of.encode(base, [long])  # is no error
    (short,) = samples(1, seed=5)
    together = generate(base, of, [short, long])
    assert len(together[1].text.split()) <= 3
    assert together == [*generate(base, of, [short]), *generate(base, of, [long])]


@pytest.mark.parametrize("name", CAUSAL_NAMES)
def test_a_continuation_is_as_long_as_its_own_target(name: str) -> None:
    base, of = build(name), Generation(max_length=60, max_new_tokens=MOST)
    drafts = []
    for sample in samples(6):
        tokens = greedy(base, sample, (EOS,), most=1 + len(drafts) % 3)
        if EOS not in tokens:
            drafts.append(replace(sample, target=spell(tokens)))
    assert len({len(draft.target.split()) for draft in drafts}) > 1
    assert generate(base, of, drafts) == [Answer(draft.target, True, 1.0) for draft in drafts]


@pytest.mark.parametrize("name", ["gpt2", "opt", "llama", "t5", "bart/encoder"])
def test_a_free_continuation_ends_at_the_end_token_alone(name: str) -> None:
    base = build(name)
    of = task(max_length=64)
    long = Sample("long", (" ".join([*WORDS * 2, *WORDS[:18]]),), "ba")  # 58 words of 64
    chosen = [*samples(5), long]
    edits = random_edits(base.layer(1).sites, batch=(2,))
    which = torch.tensor([1, 0, 0, 1, 1, 0])
    models = [with_edit(base, one_of(edits, i)) for i in range(2)]
    with untouched(base.model):
        plain = continue_freely(base, of, chosen, None, which, MOST)
        edited = continue_freely(base, of, chosen, edits, which, MOST)
    for sample, i, *texts in zip(chosen, which.tolist(), plain, edited, strict=True):
        for model, text in zip((base, models[i]), texts, strict=True):
            want = spell(greedy(model, sample, (EOS,), most=MOST)).split()
            if sample is long and base.kind == "causal":  # in the room that is left
                want = want[: max(3, len(text.split()))]
            assert text.split() == want
    assert plain != edited


def test_an_answer_that_holds_a_stop_character_is_not_cut_short() -> None:
    found = 0
    for name in ("gpt_neox", "llama", "qwen2", "phi", "t5 gated"):
        base = build(name)
        asked = []
        for sample in samples(12):
            tokens = greedy(base, sample, (EOS, VOCABULARY.index("?")), most=MOST)
            answer = spell(tokens[:-1]).split()
            # It ends by itself, and has a full stop or a comma between two words.
            inside = {".", ","} & set(answer[1:-1]) and not {".", ","} & {answer[0], answer[-1]}
            if tokens[-1] in ENDS and inside:
                asked.append(replace(sample, target=" ".join(answer)))
        found += len(asked)
        if asked:
            answers = generate(base, QA, [*samples(3), *asked])[3:]
            assert [(a.text, a.right) for a in answers] == [(s.target, True) for s in asked]
    assert found > 3, "no such case"


CITIES = Qa(stop="\n.,;")
PARIS = Sample("0", ("?",), "Paris")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Paris", Answer("Paris", True, 1.0)),
        (" Paris.", Answer("Paris", True, 1.0)),
        ("Paris, France", Answer("Paris", True, 1.0)),
        ("\nParis\nWhat is", Answer("Paris", True, 1.0)),
        ("the Paris", Answer("the Paris", True, 1.0)),  # SQuAD drops articles, case, punctuation
        ("PARIS!", Answer("PARIS!", True, 1.0)),
        ("Lyon", Answer("Lyon", False, 0.0)),
        ("Lyon. Paris", Answer("Lyon", False, 0.0)),
        ("Paris France", Answer("Paris France", False, 2 / 3)),  # precision 1/2, recall 1
        ("Paris in France, Europe", Answer("Paris in France", False, 1 / 2)),
        ("", Answer("", False, 0.0)),
    ],
)
def test_judging(text: str, answer: Answer) -> None:
    found = judge(CITIES, PARIS, text)
    assert (found.text, found.right) == (answer.text, answer.right)
    assert found.f1 == pytest.approx(answer.f1)


@pytest.mark.parametrize("tail", ["", ".", ", is the capital.", " is the capital."])
def test_an_answer_with_stop_characters_may_be_right(tail: str) -> None:
    sample = Sample("0", ("?",), "Washington, D.C.")
    found = judge(CITIES, sample, f"Washington, D.C.{tail}")
    assert found.right
    assert found.f1 == 1
    assert judge(CITIES, sample, "Washington.").right is False
    assert judge(CITIES, sample, "Washington.").f1 == pytest.approx(2 / 3)


def test_any_accepted_answer_is_right_and_the_nearest_one_counts() -> None:
    sample = Sample("0", ("?",), "United Kingdom", "", ("United Kingdom", "Great Britain"))
    for text in ("United Kingdom.", "Great Britain, of course", "the great britain"):
        assert judge(CITIES, sample, text).right
    assert judge(CITIES, sample, "Great Kingdom").f1 == pytest.approx(1 / 2)
    assert judge(CITIES, sample, "Great Britain itself").f1 == pytest.approx(4 / 5)
    assert not judge(CITIES, sample, "Great Britain itself").right


@pytest.mark.parametrize("text", ["the", "", "a. b", "Paris"])
def test_nothing_is_right_where_no_answer_is_known(text: str) -> None:
    for asked in (Qa(stop="."), Generation()):
        assert not judge(asked, Sample("0", ("q",), ""), text).right


@pytest.mark.parametrize(
    ("answer", "right", "wrong"),
    [("A", ["A", " a "], ["", "the", "\n", "B", "an"]), ("-", ["-"], ["", "+", "a"])],
)
def test_an_answer_that_normalises_to_nothing_is_met_as_it_stands(
    answer: str, right: list[str], wrong: list[str]
) -> None:
    sample = Sample("0", ("?",), answer, "", (answer,))
    for said in right:
        assert judge(Qa(stop="."), sample, said).right
    for said in wrong:
        assert judge(Qa(stop="."), sample, said) == Answer(said.strip(), False, 0.0)
    both = replace(sample, accepted=(answer, "Vitamin A"))
    assert judge(Qa(stop="."), both, "vitamin A").right


def test_a_continuation_has_to_be_met_whole() -> None:
    sample = Sample("0", ("?",), "Paris, France", "", ("Paris, France", "Paris"))
    assert judge(Generation(), sample, "Paris, France").right
    assert not judge(Generation(), sample, "Paris").right
    assert not judge(Generation(), sample, "Paris, France, Europe").right
    assert judge(Generation(), sample, "Paris").f1 == pytest.approx(2 / 3)
