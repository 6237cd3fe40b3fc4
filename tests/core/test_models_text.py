"""Language models: which stack and layers are theirs, and what is refused and how it is said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import N_BLOCKS, save
from tiny import build as build_classifier
from tiny_text import (
    CAUSAL_NAMES,
    EOS,
    SEQ2SEQ_NAMES,
    STACKED,
    VOCABULARY,
    build,
    run_whole,
    samples,
    task,
    tokenizer,
)
from transformers import (
    BartForSequenceClassification,
)

from saledit.errors import ModelError, SiteError
from saledit.families import ENCODERS, FAMILIES
from saledit.models import load_text_model, wrap

QA = task()


@pytest.mark.parametrize("name", STACKED)
def test_what_a_model_is(name: str) -> None:
    base = build(name)
    assert base.n_blocks == N_BLOCKS
    assert base.kind == ("causal" if name in CAUSAL_NAMES else "seq2seq")
    assert base.in_encoder == name.endswith("/encoder")
    assert base.vocabulary == len(VOCABULARY)
    assert base.max_length == 64
    assert not base.model.training
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    # The head reads the stack whose output it turns into logits.
    head = base.model.get_submodule(base.head_path)
    assert any(head.get_submodule(path) is base.block(0) for path, _ in head.named_modules()) != (
        base.in_encoder
    )


@pytest.mark.parametrize("name", STACKED)
def test_layers_are_the_mlps_in_call_order(name: str) -> None:
    base = build(name)
    called: list[str] = []
    wanted = [site.name for layer in base.layers() for site in layer.sites]
    for path in wanted:
        module = base.model.get_submodule(path)
        module.register_forward_hook(lambda _m, _a, _o, path=path: called.append(path))
    run_whole(base, QA.encode(base, samples(1)))
    assert called == wanted
    for index, layer in enumerate(base.layers()):
        assert layer.index == index
        matrices = len(layer.sites) + (name == "phi3")  # its gate and up are one
        assert layer.n_parameters == matrices * 16 * 24


def test_gated_and_plain_t5() -> None:
    names = {name: [s.name for s in build(name).layer(0).sites] for name in ("t5", "t5 gated")}
    inside = "decoder.block.0.layer.2.DenseReluDense"
    assert names["t5"] == [f"{inside}.{m}" for m in ("wi", "wo")]
    assert names["t5 gated"] == [f"{inside}.{m}" for m in ("wi_0", "wi_1", "wo")]
    with pytest.raises(SiteError, match=r"got 'layer\.2\.DenseReluDense\.wi'; did you mean"):
        build("t5 gated").layer(0, ["layer.2.DenseReluDense.wi"])


@pytest.mark.parametrize("name", ["gpt2", "opt", "gemma2"])
def test_a_causal_model_has_no_encoder(name: str) -> None:
    base = build(name)
    with pytest.raises(
        ModelError, match=rf"^model\.stack: mine \({name}\) has one stack and no en"
    ):
        wrap(base.model, base.tokenizer, "mine", stack="encoder")
    with pytest.raises(
        ModelError, match=r"model\.stack: unknown name 'encodr'; did you mean 'enco"
    ):
        wrap(base.model, base.tokenizer, "mine", stack="encodr")


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_an_encoder_cannot_write(family: str, tmp_path: Path) -> None:
    folder = str(save(build_classifier(family), tmp_path))
    with pytest.raises(
        ModelError, match=rf"'{family}', which classifies and does not write; expec"
    ):
        load_text_model(folder, tmp_path)


def test_an_encoder_decoder_that_classifies() -> None:
    model = BartForSequenceClassification(build("bart").model.config)
    with pytest.raises(
        ModelError, match=r"mine is an encoder-decoder classifier, .* task\.name: qa"
    ):
        wrap(model, tokenizer("bart"), "mine")


# Loading.


def saved(name: str, folder: Path) -> str:
    base = build(name)
    base.model.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("name", STACKED)
def test_save_and_load_give_the_same_model(name: str, tmp_path: Path) -> None:
    base = build(name)
    stack = "encoder" if base.in_encoder else "decoder"
    loaded = load_text_model(saved(name, tmp_path), tmp_path, stack)
    assert loaded.fingerprint == base.fingerprint
    assert (loaded.family, loaded.kind) == (base.family, base.kind)
    assert (loaded.blocks_path, loaded.head_path) == (base.blocks_path, base.head_path)
    encoded = QA.encode(base, samples(4))
    assert torch.equal(run_whole(loaded, encoded), run_whole(base, encoded))
    if base.kind == "seq2seq":
        started = QA.encode(loaded, samples(4)).inputs["decoder_input_ids"]
        assert torch.equal(started[:, 0], encoded.inputs["decoder_input_ids"][:, 0])


def test_weights_of_half_precision_are_computed_with_in_single(tmp_path: Path) -> None:
    base = build("gpt2")
    base.model.half().save_pretrained(tmp_path)
    base.tokenizer.save_pretrained(tmp_path)
    loaded = load_text_model(str(tmp_path), tmp_path)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}


def without(tmp_path: Path, *tokens: str) -> str:
    base = build("gpt2")
    for name in tokens:
        setattr(base.tokenizer, name, None)
    base.model.config.pad_token_id = None
    base.model.save_pretrained(tmp_path)
    base.tokenizer.save_pretrained(tmp_path)
    return str(tmp_path)


def test_a_model_without_a_padding_token_gets_one(tmp_path: Path) -> None:
    folder = without(tmp_path, "pad_token", "bos_token", "unk_token")
    loaded = load_text_model(folder, tmp_path)
    assert loaded.tokenizer.pad_token == "</s>"
    assert loaded.model.config.pad_token_id == loaded.tokenizer.pad_token_id == EOS


def test_a_model_without_padding_and_end_token(tmp_path: Path) -> None:
    message = r"has neither a padding nor an end token; set pad_token in its tokenizer_config\.json"
    with pytest.raises(ModelError, match=message):
        load_text_model(without(tmp_path, "pad_token", "eos_token"), tmp_path)


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_a_pickled_model_is_never_read(name: str, tmp_path: Path) -> None:
    folder = saved(name, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(build(name).model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(
        ModelError, match=r"model\.name: cannot load .*a pickled \.bin is never read"
    ):
        load_text_model(folder, tmp_path)


@pytest.mark.parametrize("name", ["nowhere", "nowhere.gguf"])
def test_a_model_that_is_not_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^model\.name: .*nowhere") as caught:
        load_text_model(str(tmp_path / name), tmp_path)
    assert "\n" not in str(caught.value)


def test_every_text_family_has_a_tiny_model() -> None:
    tried = {build(name).model.config.model_type for name in (*CAUSAL_NAMES, *SEQ2SEQ_NAMES)}
    assert {name for name, family in FAMILIES.items() if family.generates} - tried == set()
    assert set(ENCODERS) - tried == set()
