"""The rule-based rewordings: what each rule does, what no rule may do, how samples are drawn."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import build, save

from saledit.config import AdaptConfig
from saledit.data.paraphrase import (
    EmbeddingSimilarity,
    reword,
    reword_all,
    reword_inputs,
)
from saledit.data.paraphrase import rewriter as paraphrase
from saledit.data.rewriter import RuleRewriter
from saledit.errors import ModelError

SUBJECTS = [
    "A man",
    "The woman",
    "Two kids",
    "Tom Hanks",
    "Marie Curie",
    "The Iron Giant",
    "Paris",
    "He",
    "They",
    "People",
    "A group of people",
    "Nobody",
    "No one",
]
VERBS = [
    "is not",
    "isn't",
    "are",
    "was",
    "wasn't",
    "is",
    "has never been",
    "cannot be",
    "won't be",
    "didn't think he was",
    "was never",
    "is only",
]
PREDICATES = [
    "sleeping on a bench",
    "in the park",
    "a film",
    "an American actor",
    "born in 1965",
    "born in Berlin",
    "directed by Ridley Scott",
    "without a hat",
    "the capital of Peru",
    "riding a bicycle near the old house",
    "there because nobody had 3 cars",
    "able to buy 12 movies in London",
]
SENTENCES = st.builds(
    "{} {} {}{}".format,
    st.sampled_from(SUBJECTS),
    st.sampled_from(VERBS),
    st.sampled_from(PREDICATES),
    st.sampled_from([".", "", "!", "?"]),
)


def texts(sentence: str) -> list[str]:
    return [item.text for item in reword(sentence)]


def negation_words(text: str) -> Counter[str]:
    """Counts negations after writing out every contraction; independent of the package."""
    text = text.lower().replace("can't", "can not").replace("cannot", "can not")
    text = text.replace("won't", "will not").replace("n't", " not")
    return Counter(
        re.findall(r"\b(?:not|no|never|nobody|none|nothing|neither|nor|without)\b", text)
    )


@settings(max_examples=150, deadline=None)
@given(SENTENCES)
def test_negations_numbers_and_names_survive(sentence):
    for item in reword(sentence):
        assert negation_words(item.text) == negation_words(sentence)
        assert Counter(re.findall(r"\d+", item.text)) == Counter(re.findall(r"\d+", sentence))
        inner = set(re.findall(r"[A-Z]\w+", sentence.split(" ", 1)[1]))
        if item.kind == "nationality":
            inner.discard("American")
        assert inner <= set(re.findall(r"[A-Z]\w+", item.text))
        for name in ("Tom Hanks", "Marie Curie", "Iron Giant", "Paris"):
            assert (name in item.text) == (name in sentence)


@settings(max_examples=100, deadline=None)
@given(SENTENCES)
def test_rewordings_are_new_unique_and_stable(sentence):
    first = reword(sentence)
    assert first == reword(sentence)
    assert sentence not in [item.text for item in first]
    assert len({item.text for item in first}) == len(first)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_accepted(text):
    for item in reword(text):
        assert item.text.strip()


@settings(max_examples=60, deadline=None)
@given(SENTENCES, st.integers(0, 6), st.integers(0, 3))
def test_limit_holds_and_draw_is_deterministic(sentence, limit, seed):
    def draw():
        return reword_inputs((sentence,), limit=limit, seed=seed, similarity=None, threshold=0.0)

    drawn = draw()
    assert len(drawn) <= limit
    assert drawn == draw()
    assert len(set(drawn)) == len(drawn)


def test_the_seed_changes_the_draw():
    sample = ("A lady and a kid are sitting on a big couch near the TV outside.",)
    draws = {
        reword_inputs(sample, limit=1, seed=seed, similarity=None, threshold=0.0)
        for seed in range(12)
    }
    assert len(draws) > 1


def test_kinds_are_spread_and_frames_come_last():
    sample = ("A kid is sleeping on a couch.",)
    drawn = reword_inputs(sample, limit=4, seed=0, similarity=None, threshold=0.0)
    kinds = [kind for _, kind in drawn]
    assert len(set(kinds)) == 4
    assert "frame" not in kinds


def test_premise_is_reworded_word_by_word_only():
    sample = ("A kid is sleeping in the park.", "Xyz.")
    drawn = reword_inputs(sample, limit=20, seed=0, similarity=None, threshold=0.0)
    assert (("A child is sleeping in the park.", "Xyz."), "premise-synonym") in drawn
    assert all(kind == "premise-synonym" for inputs, kind in drawn if inputs[0] != sample[0])
    assert all(len(inputs) == 2 for inputs, _ in drawn)


def test_empty_premise_and_empty_sample():
    assert (
        reword_all([("", "A kid sleeps."), ()], limit=2, seed=0, similarity=None, threshold=0)[1]
        == ()
    )
    drawn = reword_inputs(("", "Jo is a kid."), limit=3, seed=0, similarity=None, threshold=0.0)
    assert drawn
    assert all(inputs[0] == "" for inputs, _ in drawn)


def test_threshold_filters_with_one_call_for_all_samples():
    calls = []

    def similarity(old, new):
        calls.append((tuple(old), tuple(new)))
        return [0.9 if "child" in text else 0.5 for text in new]

    samples = [("A kid is here.",), ("A kid is there.",), ("Qwerty",)]
    drawn = reword_all(samples, limit=5, seed=1, similarity=similarity, threshold=0.85)
    assert len(calls) == 1
    assert [[inputs[0] for inputs, _ in one] for one in drawn] == [
        [text for text in texts(sample[0]) if "child" in text] for sample in samples
    ]
    assert drawn[0]
    assert not drawn[2]


def test_similarity_compares_the_field_that_changed():
    seen = []

    def similarity(old, new):
        seen.extend(zip(old, new, strict=True))
        return [1.0] * len(old)

    sample = ("A kid is eating.", "A kid is hungry.")
    reword_inputs(sample, limit=3, seed=0, similarity=similarity, threshold=0.5)
    assert {old for old, _ in seen} == set(sample)
    assert all(old != new for old, new in seen)


def test_batch_equals_single():
    samples = [("A kid sleeps.", "The kid is on a couch."), ("Elvis Presley died in 1977.",)]
    batch = reword_all(samples, limit=3, seed=5, similarity=None, threshold=0.0)
    assert batch == [
        reword_inputs(sample, limit=3, seed=5, similarity=None, threshold=0.0) for sample in samples
    ]


def test_default_threshold_is_a_cosine():
    assert 0.5 < paraphrase.DEFAULT_THRESHOLD < 1.0


def test_embedding_similarity_needs_a_folder(tmp_path):
    with pytest.raises(ModelError, match="no such folder"):
        EmbeddingSimilarity(tmp_path / "missing")


def tiny_bert(folder):
    """Saves a random two-layer BERT with a word-level vocabulary."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "kid", "child", "sleeps", "."]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    transformers.BertModel(config).save_pretrained(folder)


def test_embedding_similarity_scores_pairs(tmp_path):
    tiny_bert(tmp_path)
    similarity = EmbeddingSimilarity(tmp_path, batch_size=2)
    texts_ = ["a kid sleeps .", "a", "child"]
    others = ["a kid sleeps .", "child sleeps a kid .", "child"]
    scores = similarity(texts_, others)
    assert scores[0] == pytest.approx(1.0, abs=1e-5)
    assert scores[2] == pytest.approx(1.0, abs=1e-5)
    assert -1.0 <= scores[1] < 1.0
    # Padding beside a longer text must not change a score.
    assert similarity(["a"], ["child sleeps a kid ."])[0] == pytest.approx(scores[1], abs=1e-5)
    assert similarity([], []) == []
    with pytest.raises(ValueError, match="cannot be paired"):
        similarity(["a"], [])


def test_no_more_candidates_are_scored_than_are_wanted():
    samples = [("A man is eating a big red apple.",), ("A kid is sleeping on the couch.",)]
    every = reword_all(samples, limit=50, seed=1, similarity=None, threshold=0.0)
    assert all(len(found) > 4 for found in every)
    bad = {every[0][0][0][0], every[0][2][0][0]}  # the first and the third of one sample
    asked = []

    def similarity(old, new):
        asked.extend(new)
        return [0.0 if text in bad else 1.0 for text in new]

    drawn = reword_all(samples, limit=2, seed=1, similarity=similarity, threshold=0.5)
    assert drawn == [(every[0][1], every[0][3]), every[1][:2]]
    assert sorted(asked) == sorted(c[0][0] for c in (*every[0][:4], *every[1][:2]))


def test_rewordings_that_another_model_passed_are_not_taken(tmp_path: Path) -> None:
    """A folder's name says nothing about the model in it."""
    save(build("bert"), tmp_path / "model")
    config = AdaptConfig(similarity_model=str(tmp_path / "model"))
    first = RuleRewriter(config).name
    assert RuleRewriter(config).name == first
    save(build("bert", seed=1), tmp_path / "model")
    assert RuleRewriter(config).name != first
    assert RuleRewriter(AdaptConfig(similarity_model="")).name != first
    RuleRewriter(AdaptConfig(similarity_model="package:saledit_has_no_such"))  # said when needed
