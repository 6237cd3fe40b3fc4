"""Text tasks: rows of data, settings, and what is said of those that cannot be used."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
from tiny_text import NAMES, WORDS, build, samples, task
from tokenizers import normalizers

from saledit.config import TaskConfig
from saledit.errors import ConfigError, DataError
from saledit.models import TaskModel
from saledit.records import Sample
from saledit.tasks.decoding import generate
from saledit.tasks.generation import Generation
from saledit.tasks.qa import Qa

AT = "facts.jsonl:7"
ROW = {"question": "Where is Paris?", "answer": "France"}


def words(n: int) -> str:
    return " ".join(random.Random(n).choices(WORDS, k=n))


# Rows.


def test_a_question_with_all_that_may_come_along() -> None:
    row = {
        **ROW,
        "id": "q1",
        "answers": ["France", "the French Republic"],
        "rephrases": [
            "Paris is in?",
            "Where is Paris?",
            "Paris is in?",
            "In which country is Paris?",
        ],
        "locality": [{"question": "Where is Rome?", "answer": "Italy"}],
        "city": "Paris",
        "people": ["Anne", "Emma"],
    }
    record = Qa(subjects=["city", "people"]).parse(row, AT)
    accepted = ("France", "the French Republic")
    assert record.sample == Sample("q1", ("Where is Paris?",), "France", "", accepted)
    assert [s.inputs[0] for s in record.rewordings] == [
        "Paris is in?",
        "In which country is Paris?",
    ]
    assert {(s.target, s.kind, s.accepted) for s in record.rewordings} == {
        ("France", "rephrase", accepted)
    }
    assert record.subjects == ("Paris", "Anne", "Emma")
    (other,) = record.locality
    assert (other.inputs, other.target) == (("Where is Rome?",), "Italy")
    ids = [s.id for s in (record.sample, *record.rewordings, *record.locality)]
    assert len(set(ids)) == len(ids)
    assert all(name.startswith("q1") for name in ids)


def test_optional_fields_may_be_a_single_text_or_missing_or_null() -> None:
    plain = Qa().parse({**ROW, "answers": None, "locality": None}, AT)
    assert plain == Qa().parse(ROW, AT)
    assert (plain.sample.id, plain.sample.accepted) == (AT, ("France",))
    single = Qa().parse({**ROW, "answers": "Gaul", "rephrases": "Paris is in?"}, AT)
    assert single.sample.accepted == ("France", "Gaul")
    assert len(single.rewordings) == 1


def test_fields_under_other_names() -> None:
    of = Qa(fields={"question": "src", "answer": "alt", "rephrases": "rephrase"})
    record = of.parse({"src": "Where?", "alt": "There", "rephrase": "Whither?"}, AT)
    assert (record.sample.inputs, record.sample.target) == (("Where?",), "There")
    assert [s.inputs for s in record.rewordings] == [("Whither?",)]
    assert of.row(record.sample) == {"id": AT, "src": "Where?", "alt": "There"}
    with pytest.raises(
        DataError, match=rf"{AT}: expected text in 'src', got nothing; .*did you mean"
    ):
        of.parse({"scr": "Where?", "alt": "There"}, AT)


@pytest.mark.parametrize("name", ["question", "kwestion"])
def test_an_unknown_field_gets_a_suggestion(name: str) -> None:
    fields = {f"{name}s": "x"}
    message = rf"task\.fields\.{name}s: unknown field; did you mean 'question'\?"
    with pytest.raises(ConfigError, match=message):
        Qa(fields=fields)
    with pytest.raises(
        ConfigError,
        match=r"unknown field; .*known: answers, generation, locality, locality_answer, p",
    ):
        Generation(fields=fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": 3}, "expected text in 'question', got int; give it as a string"),
        ({"question": " "}, "expected text in 'question', got an empty one"),
        ({"answer": None}, "expected text in 'answer', got nothing"),
        ({"answers": [1]}, "expected text or a list of texts in 'answers', got int"),
        ({"rephrases": {}}, "expected text or a list of texts in 'rephrases', got dict"),
        ({"locality": [3]}, "expected 'locality' to hold objects with question and answer, got"),
        ({"locality": {"question": "?"}}, "expected text in 'answer', got nothing"),
        (
            {"locality": ["a", "b"], "locality_answer": "c"},
            "expected an answer in 'locality_answer' to each of 2 in 'locality', got 1",
        ),
    ],
)
def test_a_wrong_row_is_one_clear_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"^{AT}: {re.escape(message)}"):
        Qa().parse({**ROW, **change}, AT)


def test_other_matters_may_be_bare_with_their_answers_beside_them() -> None:
    flat = Qa(fields={"locality": "loc", "locality_answer": "loc_ans"})  # EasyEdit's form
    one = flat.parse({**ROW, "loc": "Where is Rome?", "loc_ans": "Italy"}, AT).locality
    assert [(s.inputs, s.target, s.accepted) for s in one] == [
        (("Where is Rome?",), "Italy", ("Italy",))
    ]
    two = Qa().parse({**ROW, "locality": ["a?", "b?"], "locality_answer": ["a", "b"]}, AT)
    assert [s.target for s in two.locality] == ["a", "b"]
    (bare,) = Qa().parse({**ROW, "locality": "a?"}, AT).locality
    assert (bare.target, bare.accepted) == ("", ())


def test_a_missing_subject_gets_a_suggestion() -> None:
    with pytest.raises(DataError, match=rf"{AT}: expected a field 'citty' .*did you mean 'city'"):
        Qa(subjects=["citty"]).parse({**ROW, "city": "Paris"}, AT)


def test_a_row_gives_back_its_sample() -> None:
    several = Qa().parse({**ROW, "answers": ["Gaul"]}, AT).sample
    passage = Generation().parse({"id": "p", "text": words(40)}, AT).locality[0]
    for of, sample in ((Qa(), several), (Qa(), Qa().parse(ROW, AT).sample)):
        assert of.parse(of.row(sample), "elsewhere").sample == sample
    assert Generation().row(passage) == {"id": passage.id, "text": passage.target}


def test_a_passage_is_a_prompt_a_target_and_a_text() -> None:
    text = [f"w{i}" for i in range(50)]
    record = Generation(subjects=["title"]).parse({"text": "  ".join(text), "title": "T"}, AT)
    assert record.sample.inputs[0].split() == text[:24]
    assert record.sample.target.split() == text[24:32]
    (shorter,) = record.rewordings
    assert (shorter.inputs[0].split(), shorter.target) == (text[12:24], record.sample.target)
    (passage,) = record.locality
    assert (passage.kind, passage.target.split()) == ("text", text)
    assert record.subjects == ("T",)
    short = Generation().parse({"text": " ".join(text[:31])}, AT)
    assert short.sample.kind == "text"
    assert not short.rewordings


# Settings.


def test_a_template_needs_a_place_for_the_question() -> None:
    with pytest.raises(ConfigError, match=r"task\.template: expected a text with '\{question\}'"):
        Qa(template="Question: {prompt}")


def test_questions_have_them_all() -> None:
    of = Qa.of(TaskConfig("qa", {"answer": "a"}, ["s"], 50, "Q {question}", True, "!", 5))
    assert (of.fields["answer"], of.subjects, of.max_length) == ("a", ("s",), 50)
    assert (of.template, of.chat, of.stop, of.max_new_tokens) == ("Q {question}", True, "!", 5)


# Samples that a model cannot take.


@pytest.fixture(scope="module", params=NAMES)
def base(request: pytest.FixtureRequest) -> TaskModel:
    return build(request.param)


@pytest.mark.parametrize("target", ["", "  "])
def test_an_empty_answer(base: TaskModel, target: str) -> None:
    bad = Sample("bad", ("ba",), target)
    with pytest.raises(DataError, match=r"^bad: expected an answer of at least one token, got '"):
        task().encode(base, [*samples(2), bad])


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt", "t5", "bart"])
def test_texts_that_tokenise_to_nothing(name: str) -> None:
    base = build(name)
    base.tokenizer.backend_tokenizer.normalizer = normalizers.Replace("~", "")
    with pytest.raises(DataError, match=r"^bad: expected an answer of at least one token, got '~'"):
        task().encode(base, [*samples(2), Sample("bad", ("ba",), "~")])
    nothing = Sample("bad", ("~",), "ba")
    if name == "gpt2":  # others begin or end every text
        with pytest.raises(DataError, match=r"^bad: "):
            task().encode(base, [*samples(2), nothing])
        with pytest.raises(DataError, match=r"^bad: "):
            generate(base, task(), [*samples(2), nothing])
    else:
        assert task().encode(base, [nothing]).targets.shape == (1, 2)


def test_a_prompt_that_is_too_long(base: TaskModel) -> None:
    bad = [*samples(2), Sample("bad", (words(70),), "ba")]
    for of in (task(max_length=40).encode, lambda b, s: generate(b, task(max_length=40), s)):
        with pytest.raises(DataError, match=r"^bad: .*at most 40 tokens, got 7\d; raise task\.max"):
            of(base, bad)
    with pytest.raises(DataError, match=r"^bad: .*at most 64 tokens, .* context of tiny-"):
        task(max_length=999).encode(base, bad)
    assert task(max_length=64).encode(base, [Sample("good", (words(60),), "ba")])


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt", "bart"])
def test_an_answer_that_does_not_fit_into_the_context(name: str) -> None:
    base = build(name)
    bad = Sample("bad", (words(5),), words(64))
    with pytest.raises(DataError, match=r"^bad: .* at most 64 tokens"):
        task().encode(base, [*samples(2), bad])
    n = 57 if base.kind == "causal" else 62
    fits = task().encode(base, [Sample("good", (words(5),), words(n))])
    assert base.model(**fits.inputs).logits.isfinite().all()


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_a_passage_for_an_encoder_decoder(name: str) -> None:
    passage = Sample("bad", ("",), "ba be bi", "text")
    with pytest.raises(DataError, match=f"^bad: expected questions or prompts for tiny-{name}, go"):
        Generation().encode(build(name), [*samples(2), passage])


def test_a_passage_of_one_token() -> None:
    with pytest.raises(DataError, match=r"^bad: expected a text of several tokens, got 1"):
        Generation().encode(build("gpt2"), [Sample("bad", ("",), "ba", "text")])


def test_chat_without_a_template(base: TaskModel) -> None:
    message = rf"task\.chat: {base.name} has no chat template, expected false; use task\.template"
    with pytest.raises(ConfigError, match=message):
        task(chat=True).encode(base, samples(1))


@pytest.mark.parametrize("how", ["null", "missing"])
def test_a_decoder_that_does_not_know_how_to_begin(how: str) -> None:
    base = build("t5")
    for config in (base.model.config, base.model.generation_config):
        config.decoder_start_token_id = None
    if how == "missing":  # T5's configuration has no default
        del base.model.config.decoder_start_token_id
    with pytest.raises(ConfigError, match="tiny-t5 has no decoder_start_token_id; set it"):
        task().encode(base, samples(1))


def test_blank_cells_of_a_table_are_nothing() -> None:
    """A CSV has every field in every row."""
    blank = {name: "" for name in ("answers", "rephrases", "locality", "locality_answer", "rival")}
    assert Qa().parse({**ROW, **blank}, AT) == Qa().parse(ROW | dict.fromkeys(blank), AT)
    record = Qa().parse({**ROW, "rephrases": ["", "a b?", " "], "locality": ["", "c d?"]}, AT)
    assert [sample.inputs for sample in record.rewordings] == [("a b?",)]
    assert [sample.inputs for sample in record.locality] == [("c d?",)]
    with pytest.raises(DataError, match=f"^{AT}: expected text in 'answer', got an empty one"):
        Qa().parse({**ROW, "answer": ""}, AT)


def test_a_question_of_another_field_is_no_passage() -> None:
    with pytest.raises(DataError, match=f"^{AT}: expected text in 'question', got nothing"):
        Qa().parse({"text": "Where is Rome?", "answer": "Italy"}, AT)
    assert Qa().parse({"text": "Rome is in Italy."}, AT).sample.target == "Rome is in Italy."
