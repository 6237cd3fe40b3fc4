"""Where a subject's last token is, whatever the tokenizer does to it."""

from __future__ import annotations

import pytest
import tiny
import tiny_text as text
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from saledit.errors import DataError
from saledit.models import TaskModel
from saledit.records import Sample
from saledit.tasks.nli import Nli
from saledit.tasks.qa import Qa
from saledit.tasks.subjects import find


@pytest.mark.parametrize(
    ("line", "subject", "at"),
    [
        ("Mali is in", "Mali", 3),
        ("Somalia and Mali are", "Mali", 15),  # not the one inside another word
        ("Somalia is in", "Mali", -1),
        ("Paris, of Paris in", "Paris", 14),  # the last one has read the most
        ("the capital of mali", "Mali", 18),
        ("MALI or Mali or mali", "Mali", 11),  # with its capitals first
        ("Mali's capital", " Mali ", 3),
        ("C++ was", "C++", 2),
        ("Say -Mali-", "Mali", 8),
        ("x", "", -1),
        ("東京は日本の首都", "東京", 1),  # no space sets words apart
        ("서울은 수도", "서울", 1),  # what is joined to a noun is written behind it
        ("Москва́ столица", "сква", -1),
    ],
)
def test_find(line: str, subject: str, at: int) -> None:
    assert find(line, subject) == at


def byte_pairs() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with merges across letters, as GPT-2's and Llama-3's are."""
    merges = [
        ("Ġ", "M"),
        ("a", "l"),
        ("al", "i"),
        ("ĠM", "ali"),
        ("M", "ali"),
        ("Ġ", "i"),
        ("Ġi", "s"),
    ]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*letters, *(a + b for a, b in merges)])}
    backend = Tokenizer(models.BPE(vocabulary, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="Ā", eos_token="Ā")


class Tokens:
    """A task model that is nothing but its tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer, self.name, self.max_length = tokenizer, "tokens", 64


@pytest.mark.parametrize(
    ("question", "token"),
    [
        ("Mali is", "Mali"),  # at the first token, without a space before it
        ("is Mali in", "ĠMali"),  # the space is part of the token
        ("is 'Mali' in", "ali"),
        ("Mali, is Mali.", "ĠMali"),
        ("Mali", "Mali"),
    ],
)
def test_merges_and_leading_spaces(question: str, token: str) -> None:
    base = Tokens(byte_pairs())
    sample = Sample("a", (question,), "yes", subject="Mali")
    ((_, place),) = Qa().subject_spans(base, [sample])  # type: ignore[arg-type]
    tokens = base.tokenizer.convert_ids_to_tokens(base.tokenizer(question).input_ids)
    assert tokens[place].endswith(token.removeprefix("Ġ")) or tokens[place] == token
    assert "".join(tokens[: place + 1]).replace("Ġ", " ").endswith("Mali")


@pytest.mark.parametrize("subject", ["Łódź", "東京", "Ş"])
def test_a_letter_of_several_tokens_ends_with_its_last(subject: str) -> None:
    base = Tokens(byte_pairs())
    question = f"is {subject} in"
    sample = Sample("a", (question,), "yes", subject=subject)
    ((begin, end),) = Qa().subject_spans(base, [sample])  # type: ignore[arg-type]
    tokens = base.tokenizer.convert_ids_to_tokens(base.tokenizer(question).input_ids)
    told = decoders.ByteLevel().decode(tokens[begin : end + 1])
    assert told.strip() == subject


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5", "bart"])
def test_places_in_prompts(name: str) -> None:
    base = text.build(name)
    words = text.WORDS
    samples = [
        Sample("a", (f"{words[0]} {words[1]} {words[2]}",), words[3], subject=words[1]),
        Sample("b", (f"{words[1]} {words[1]} {words[4]}",), words[3], subject=words[1]),
        Sample("c", (f"{words[5]} {words[6]}",), words[3], subject=f"{words[5]} {words[6]}"),
    ]
    task = Qa(template="fact : {question} ?")
    places = [last for _, last in task.subject_spans(base, samples)]
    assert task.subject_spans(base, samples)[2] == (places[2] - 1, places[2])  # two words
    seen = task.encode(base, samples).inputs["input_ids"]
    for i, (sample, place) in enumerate(zip(samples, places, strict=True)):
        word = base.tokenizer.convert_ids_to_tokens([int(seen[i, place])])[0]
        assert word == sample.subject.split()[-1]
    assert places[1] == places[0]  # of the two the later one


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_places_in_pairs(family: str) -> None:
    base, words = tiny.build(family), tiny.WORDS
    samples = [
        Sample("a", (f"{words[0]} {words[1]}", f"{words[2]} {words[3]}"), "neutral", subject=word)
        for word in words[:4]
    ]
    spans = Nli().subject_spans(base, samples)
    places = [last for _, last in spans]
    assert all(first == last for first, last in spans)
    seen = Nli().encode(base, samples).inputs["input_ids"]
    ids = [int(row[place]) for row, place in zip(seen, places, strict=True)]
    assert base.tokenizer.convert_ids_to_tokens(ids) == list(words[:4])


@pytest.mark.parametrize(
    ("subject", "line"),
    [
        ("", "a7: expected a subject in its text, got none"),
        ("Mali", "a7: expected its subject 'Mali'"),
    ],
)
def test_what_cannot_be_placed_is_named(subject: str, line: str) -> None:
    base: TaskModel = text.build("llama")
    sample = Sample("a7", (f"{text.WORDS[0]} {text.WORDS[1]}",), "x", subject=subject)
    with pytest.raises(DataError, match=line):
        text.task().subject_spans(base, [sample])


def test_a_subject_that_was_cut_off_is_named() -> None:
    base, words = tiny.build("bert"), tiny.WORDS
    sample = Sample("a", (" ".join(words[:20]), words[30]), "neutral", subject=words[19])
    with pytest.raises(DataError, match=r"raise task\.max_length"):
        Nli(max_length=10).subject_spans(base, [sample])


@pytest.mark.parametrize(
    ("value", "subject"),
    [
        ("Mali", "Mali"),
        (["Chad", "Mali"], "Mali"),
        (["Chad"], "Chad"),
        (7, ""),
        (None, ""),
        ([], ""),
    ],
)
def test_a_record_names_its_subject(value: object, subject: str) -> None:
    row = {"question": "Mali is in", "answer": "Africa", "rephrases": ["Where is it?", "Mali?"]}
    record = Qa().parse({**row, "subject": value}, "f:1")
    assert record.sample.subject == subject
    assert [r.subject for r in record.rewordings] == ["", subject if subject == "Mali" else ""]
    again = Qa().parse(Qa().row(record.sample), "f:1")
    assert again.sample.subject == subject


def test_a_claim_names_its_subject() -> None:
    row = {
        "claim": "Mali is in Africa", "label": "right", "about": "Mali",
        "paraphrases": [{"claim": "Africa has Mali"}, {"claim": "It is in Africa"}],
    }  # fmt: skip
    task = Nli({"premise": "", "hypothesis": "claim", "subject": "about"})
    record = task.parse(row, "f:1")
    assert [s.subject for s in (record.sample, *record.rewordings)] == ["Mali", "Mali", ""]
    assert task.parse(task.row(record.sample), "f:1").sample.subject == "Mali"
