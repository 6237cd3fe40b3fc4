"""Architectures that are not in the table: the message that makes them work, and that it does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny import random_edits
from tiny_text import (
    EOS,
    PAD,
    VOCABULARY,
    WORDS,
    run_whole,
    samples,
    slow_gradients,
    task,
    tokenizer,
)
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    ElectraConfig,
    ElectraForSequenceClassification,
    PreTrainedModel,
)

from saledit.building import load_model
from saledit.cache.bank import BankSpec
from saledit.cache.opening import bank_key, memory_bank
from saledit.config import ModelConfig
from saledit.errors import ModelError
from saledit.forward.rows import run_edits
from saledit.forward.scoring import logits_of
from saledit.models import wrap
from saledit.overlay import applied
from saledit.records import Sample
from saledit.tasks.nli import Nli

QA = task()

_SIDES = ("encoder", "decoder")
_BART_LIKE: dict[str, Any] = {
    "d_model": 16,
    **{f"{side}_layers": 3 for side in _SIDES},
    **{f"{side}_attention_heads": 2 for side in _SIDES},
    **{f"{side}_ffn_dim": 24 for side in _SIDES},
}
UNKNOWN: dict[str, dict[str, Any]] = {
    "gptj": {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 64, "rotary_dim": 4},
    "bloom": {"hidden_size": 16, "n_layer": 3, "n_head": 2},
    "stablelm": {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    },
    "pegasus": _BART_LIKE,
    "mixtral": {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "num_local_experts": 3,
        "num_experts_per_tok": 2,
    },
    "mt5": {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 3, "num_heads": 2},
}


def unknown(architecture: str) -> PreTrainedModel:
    config = AutoConfig.for_model(
        architecture,
        vocab_size=len(VOCABULARY),
        pad_token_id=PAD,
        eos_token_id=EOS,
        decoder_start_token_id=PAD,
        **UNKNOWN[architecture],
    )
    kind: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    torch.manual_seed(0)
    model: PreTrainedModel = kind.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.2)
    return model


STACKS = [
    *((name, "decoder") for name in UNKNOWN if name != "mixtral"),
    ("pegasus", "encoder"),
    ("mt5", "encoder"),
]


def test_a_block_whose_experts_are_no_maps_is_run_as_it_is() -> None:
    """All linear maps that are left are those of attention, which is no MLP to be cut short."""
    model = unknown("mixtral")
    base = wrap(model, tokenizer("gpt2"), "mine", "decoder", "model.layers")
    assert base.family.mlp_module == ""
    chosen = samples(4)
    encoded = QA.encode(base, chosen)
    layer = base.layer(2, ["self_attn.o_proj"])
    bank = memory_bank(base, QA, chosen, BankSpec(layer, rank=4))
    edits = random_edits(layer.sites, batch=(2,))
    with torch.no_grad():
        got = logits_of(base, run_edits(base, bank.entry, bank.rows(torch.arange(4)), edits))
    want = run_whole(base, encoded, edits)
    torch.testing.assert_close(
        got.flatten(0, 1)[encoded.scored], want[encoded.scored], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(("architecture", "stack"), STACKS)
def test_the_message_on_an_unknown_architecture_makes_it_work(
    architecture: str, stack: str
) -> None:
    model = unknown(architecture)
    with pytest.raises(ModelError, match=rf"family '{architecture}', expected one of bart, ") as e:
        wrap(model, tokenizer("gpt2"), "mine", stack)
    found = re.search(
        r"linear maps (.*); these .*: model\.blocks=(\S+) site\.maps=\[(.*)\]$", str(e.value)
    )
    assert found
    listed, blocks, maps = found[1].split(", "), found[2], found[3].split(",")
    assert set(maps) < set(listed)
    assert not any("attn" in name.lower() or "attention" in name.lower() for name in maps)

    base = wrap(model, tokenizer("gpt2"), "mine", stack, blocks)
    assert base.in_encoder == (stack == "encoder")
    assert base.n_blocks == 3
    chosen = samples(4)
    encoded = QA.encode(base, chosen)
    for block in range(3):
        layer = base.layer(block, maps)
        bank = memory_bank(base, QA, chosen, BankSpec(layer, rank=4, moments=True))
        edits = random_edits(layer.sites, batch=(2,))
        with torch.no_grad():
            outputs = run_edits(base, bank.entry, bank.rows(torch.arange(4)), edits)
            got = logits_of(base, outputs).flatten(0, 1)
        want = run_whole(base, encoded, edits)
        assert encoded.scored is not None
        torch.testing.assert_close(got[encoded.scored], want[encoded.scored], rtol=1e-4, atol=1e-4)
        assert (want - run_whole(base, encoded)).abs().max() > 1e-3


@pytest.mark.parametrize("architecture", ["gptj", "pegasus", "mt5"])
@pytest.mark.parametrize("widths", [(4, 3), (2, 3)], ids=["equal", "answers longer"])
def test_all_maps_of_an_unknown_block_are_its_layer(
    architecture: str, widths: tuple[int, int]
) -> None:
    blocks = {"gptj": "transformer.h", "pegasus": "model.decoder.layers", "mt5": "decoder.block"}
    base = wrap(unknown(architecture), tokenizer("gpt2"), "mine", blocks=blocks[architecture])
    layer = base.layer(1)
    assert any("attn" in s.name or "Attention" in s.name for s in layer.sites)
    # Cross attention reads the prompt, all else the answer and its end; so padding differs.
    prompt, answer = (" ".join(WORDS[:n]) for n in widths)
    chosen = [Sample("0", (prompt,), "ba"), Sample("1", ("bo",), answer)]
    bank = memory_bank(base, QA, chosen, BankSpec(layer, rank=24, moments=True))
    for i, sample in enumerate(chosen):
        wanted = slow_gradients(base, layer.sites, sample, QA)
        for pair, want in zip(bank.factors(torch.arange(2)), wanted, strict=True):
            scale = float(want.abs().max())
            torch.testing.assert_close(pair.dense()[i], want, rtol=1e-3, atol=1e-4 * scale + 1e-7)


def test_a_wrong_path_of_blocks_gets_a_suggestion() -> None:
    for wrong in ("transformer.hh", "transformer", "lm_head"):
        with pytest.raises(
            ModelError, match=rf"path of a list of blocks, got '{wrong}'; .*former\.h"
        ):
            wrap(unknown("gptj"), tokenizer("gpt2"), "mine", blocks=wrong)


def test_a_bank_of_a_known_family_is_none_of_its_blocks_alone() -> None:
    """Runs enter behind the attention of the one and at the block of the other."""
    known = tiny.build("bert")
    given = wrap(known.model, known.tokenizer, "mine", "decoder", "bert.encoder.layer")
    maps = ["intermediate.dense", "output.dense"]
    chosen = tiny.samples(3)
    spec, other = (BankSpec(base.layer(1, maps)) for base in (known, given))
    assert [s.name for s in spec.layer.sites] == [s.name for s in other.layer.sites]
    assert bank_key(known, Nli(), chosen, spec) != bank_key(given, Nli(), chosen, other)


@pytest.mark.parametrize("block", [0, 2])
def test_a_classifier_works_by_the_two_settings_too(block: int, tmp_path: Path) -> None:
    config = ElectraConfig(
        vocab_size=len(tiny.SPECIAL) + len(tiny.WORDS), embedding_size=12, hidden_size=16,
        num_hidden_layers=3, num_attention_heads=2, intermediate_size=24, pad_token_id=tiny.PAD,
        max_position_embeddings=66, id2label=dict(enumerate(tiny.LABELS)),
    )  # fmt: skip
    torch.manual_seed(0)
    model = ElectraForSequenceClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(20 if parameter.ndim > 1 else 1)
    with pytest.raises(ModelError, match="these two settings make it work") as error:
        wrap(model, tiny.tokenizer("bert"), "electra")
    found = re.search(r"model\.blocks=(\S+) site\.maps=\[([^]]+)\]", str(error.value))
    assert found is not None
    blocks, maps = found[1], found[2].split(",")
    model.save_pretrained(tmp_path)
    tiny.tokenizer("bert").save_pretrained(tmp_path)
    named = ModelConfig(name=str(tmp_path), blocks=blocks)
    base, task = load_model(Nli(), named, tmp_path), Nli()
    layer, asked = base.layer(block, maps), tiny.samples(5)
    bank = memory_bank(base, task, asked, BankSpec(layer))
    edits, every = tiny.random_edits(layer.sites, (5,)), torch.arange(5)
    outputs = run_edits(base, bank.entry, bank.rows(every), edits)
    inputs = task.encode(base, asked).inputs
    with torch.no_grad(), applied(base.model, edits):
        wanted = base.model(**inputs).logits
    torch.testing.assert_close(task.logits(base, outputs.squeeze(1), every), wanted)
    assert not torch.allclose(wanted, base.model(**inputs).logits, atol=0.01)
