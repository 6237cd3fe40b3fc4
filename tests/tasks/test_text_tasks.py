"""Text tasks: how samples become tokens, what an answer's likelihood is, and what is right."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_text import (
    BOS,
    EOS,
    NAMES,
    PAD,
    VOCABULARY,
    build,
    run_whole,
    samples,
    task,
)
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from saledit.models import TaskModel
from saledit.records import Sample
from saledit.tasks.base import Encoded
from saledit.tasks.generation import Generation
from saledit.tasks.prompts import END, IGNORED
from saledit.tasks.text import TextTask

QA = task()
GENERATION = Generation(max_length=60)
TWO = [Sample("long", ("ba be",), "di do"), Sample("short", ("bo",), "du")]


@pytest.fixture(scope="module", params=NAMES)
def base(request: pytest.FixtureRequest) -> TaskModel:
    return build(request.param)


def ids(text: str) -> list[int]:
    names = {"</s>": EOS, "<s>": BOS, "pad": PAD}
    return [names[w] if w in names else VOCABULARY.index(w) for w in text.split()]


def words(row: Tensor) -> str:
    """A row of targets or of tokens in words."""
    names = {END: "END", IGNORED: "-", PAD: "pad"}
    return " ".join(names[i] if i in names else VOCABULARY[i] for i in row.tolist())


def shown(encoded: Encoded) -> dict[str, list[str]]:
    found = {name: tensor for name, tensor in encoded.inputs.items() if name.endswith("ids")}
    found["targets"] = encoded.targets
    return {name: [words(row) for row in tensor] for name, tensor in found.items()}


def test_a_causal_model_reads_prompt_and_answer_behind_one_another() -> None:
    encoded = QA.encode(build("gpt2"), TWO)
    assert shown(encoded) == {
        "input_ids": ["ba be di do", "bo du pad pad"],
        "targets": ["di do END", "du END -"],
    }
    assert encoded.inputs["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert encoded.at is not None
    assert encoded.scored is not None
    assert encoded.at.tolist() == [[1, 2, 3], [0, 1, 0]]
    assert encoded.scored.tolist() == [[True, True, True], [True, True, False]]


def test_a_continuation_has_no_end_to_score() -> None:
    assert shown(GENERATION.encode(build("gpt2"), TWO)) == {
        "input_ids": ["ba be di", "bo pad pad"],  # what nothing is scored behind is not read
        "targets": ["di do", "du -"],
    }


@pytest.mark.parametrize(
    ("name", "inputs"), [("llama", "<s> ba be di do"), ("opt", "</s> ba be di do")]
)
def test_a_prompt_has_the_tokenizer_s_special_tokens(name: str, inputs: str) -> None:
    assert shown(QA.encode(build(name), TWO[:1])) == {
        "input_ids": [inputs],
        "targets": ["di do END"],
    }


@pytest.mark.parametrize("of", [QA, GENERATION], ids=["qa", "generation"])
def test_an_encoder_decoder_answers_in_its_decoder(of: TextTask) -> None:
    assert shown(of.encode(build("t5"), TWO)) == {
        "input_ids": ["ba be </s>", "bo </s> pad"],
        "decoder_input_ids": ["pad di do", "pad du pad"],
        "targets": ["di do END", "du END -"],
    }
    bart = build("bart")
    bart.model.generation_config.forced_bos_token_id = BOS
    assert shown(of.encode(bart, TWO)) == {
        "input_ids": ["<s> ba be </s>", "<s> bo </s> pad"],
        "decoder_input_ids": ["</s> <s> di do", "</s> <s> du pad"],
        "targets": ["- di do END", "- du END -"],
    }


def test_a_passage_is_scored_at_all_its_tokens_but_the_first() -> None:
    passage = Sample("p", ("",), "ba be bi . bo", "text")
    assert shown(QA.encode(build("gpt2"), [passage, TWO[1]])) == {
        "input_ids": ["ba be bi .", "bo du pad pad"],
        "targets": ["be bi . bo", "du END - -"],
    }
    short = Generation(max_length=3).encode(build("llama"), [passage])
    assert shown(short) == {"input_ids": ["<s> ba be"], "targets": ["ba be bi"]}


def test_targets_are_the_tokens_behind_their_positions(base: TaskModel) -> None:
    chosen = samples(6)
    encoded = QA.encode(base, chosen)
    assert encoded.at is not None
    read = encoded.inputs["input_ids" if base.kind == "causal" else "decoder_input_ids"]
    for sample, row, at, targets in zip(chosen, read, encoded.at, encoded.targets, strict=True):
        answer = ids(sample.target)
        n = len(answer)
        assert targets.tolist() == [*answer, END, *[IGNORED] * (len(targets) - n - 1)]
        assert row[at[:n] + 1].tolist() == answer
        assert (at[: n + 1].diff() == 1).all()


def test_words_that_tokenise_into_one_with_the_prompt_are_split() -> None:
    base = build("gpt2")
    base.tokenizer.add_tokens(["be di"])
    assert QA.encode(base, TWO[:1]).inputs["input_ids"].tolist() == [ids("ba be di do")]


def test_the_space_before_an_answer_belongs_to_it() -> None:
    vocabulary = ("[UNK]", "[PAD]", "</s>", "ba", "▁be", "▁", "▁di", "di")
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(vocabulary)}, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    spaced = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    base = replace(build("gpt2"), tokenizer=spaced)
    for template, pieces in (
        ("{question}", ["ba", "▁be", "▁di"]),
        ("{question} ", ["ba", "▁be", "▁", "di"]),
    ):
        (row,) = (
            task(template=template).encode(base, [replace(TWO[0], target="di")]).inputs["input_ids"]
        )
        assert [vocabulary[i] for i in row] == pieces


def test_templates() -> None:
    base = build("llama")
    for template in ("fa {question} fo", "fa {question} fo "):
        encoded = task(template=template).encode(base, [replace(TWO[0], target=" di ")])
        assert shown(encoded)["input_ids"] == ["<s> fa ba be fo di"]


def test_a_chat_template_writes_the_special_tokens_itself() -> None:
    base = build("llama")
    base.tokenizer.chat_template = (
        "{% for m in messages %}<s> fa {{ m['content'] }} </s>{% endfor %}"
        "{% if add_generation_prompt %}<s> fo {% endif %}"
    )
    of = task(chat=True, template="{question} ?")
    assert of.prompt_tokens(base, TWO[1:]) == [ids("<s> fa bo ? </s> <s> fo")]
    assert words(of.encode(base, TWO[1:]).inputs["input_ids"][0]).endswith("<s> fo du")


def random_case(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two sets of logits (E=2, n=3, A=4, C) and targets (E, n, A), some END, some IGNORED."""
    generator = torch.Generator().manual_seed(seed)
    base, edited = 3 * torch.randn(2, 2, 3, 4, len(VOCABULARY), generator=generator)
    targets = torch.randint(4, len(VOCABULARY), (2, 3, 4), generator=generator)
    for row in targets.view(6, 4):
        n = int(torch.randint(1, 4, (), generator=generator))
        row[n], row[n + 1 :] = END, IGNORED
    targets[0, 0] = torch.tensor([IGNORED, 7, 9, END])  # a decoder's forced first token
    return base, edited, targets


@pytest.mark.parametrize("stop", [".,?", ".", ""])
def test_losses_are_means_over_positions_and_any_end_will_do(stop: str) -> None:
    model = build("gpt2")
    logits, _, targets = random_case(0)
    ends = [EOS, *(VOCABULARY.index(c) for c in stop)]
    losses = task(stop=stop).losses(model, logits[targets != IGNORED], targets)
    assert losses.shape == (2, 3)
    for place in [(e, i) for e in range(2) for i in range(3)]:
        parts = []
        for row, token in zip(logits[place].softmax(-1), targets[place].tolist(), strict=True):
            if token != IGNORED:
                parts.append(-row[ends].sum().log() if token == END else -row[token].log())
        torch.testing.assert_close(losses[place], torch.stack(parts).mean())


def test_divergence_is_the_mean_kl_over_scored_positions() -> None:
    base, edited, targets = random_case(1)
    real = targets != IGNORED
    found = QA.divergence(base[real], edited[real], targets)
    assert found.shape == (2, 3)
    p, q = base.softmax(-1), edited.softmax(-1)
    kl = (p * (p / q).log()).sum(-1)
    for place in [(e, i) for e in range(2) for i in range(3)]:
        torch.testing.assert_close(found[place], kl[place][real[place]].mean())
    assert (QA.divergence(base[real], base[real], targets) == 0).all()


def test_correct_ignores_how_it_ends() -> None:
    logits = torch.zeros(3, 3, len(VOCABULARY))
    for i, best in enumerate((["ba", "be", "."], ["ba", "be", "bo"], ["ba", "bi", "."])):
        logits[i, range(3), torch.tensor(ids(" ".join(best)))] = 1.0
    targets = torch.tensor([*ids("ba be"), END]).expand(3, -1)
    assert QA.correct(logits.flatten(0, 1), targets).tolist() == [True, True, False]
    spoken = QA.spoken(build("gpt2"), logits.flatten(0, 1), targets)
    assert spoken.tolist() == [True, False, False]
    leads = QA.leads(build("gpt2"), logits.flatten(0, 1), targets)
    assert leads.tolist() == [1.0, -1.0, -1.0]  # of the token that leads by least
    shorter = torch.tensor([*ids("ba"), END, IGNORED]).expand(3, -1)
    assert QA.correct(logits[:, :2].flatten(0, 1), shorter).all()
    assert not QA.spoken(build("gpt2"), logits[:, :2].flatten(0, 1), shorter).any()  # it goes on


@pytest.mark.parametrize("of", [QA, GENERATION], ids=["qa", "generation"])
def test_neither_padding_nor_company_changes_anything(base: TaskModel, of: TextTask) -> None:
    chosen = samples(6)
    together = of.encode(base, chosen)

    def scores(encoded: Encoded) -> tuple[Tensor, Tensor]:
        logits = run_whole(base, encoded)[encoded.targets != IGNORED]
        other = logits.roll(1, -1)
        losses = of.losses(base, logits, encoded.targets)
        return losses, of.divergence(logits, other, encoded.targets)

    losses, kl = scores(together)
    for i, sample in enumerate(chosen):
        own_loss, own_kl = scores(of.encode(base, [sample]))
        torch.testing.assert_close(own_loss[0], losses[i], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(own_kl[0], kl[i], rtol=1e-4, atol=1e-5)
