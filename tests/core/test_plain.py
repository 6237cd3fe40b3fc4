"""Checkpoints of few bits: what is made of them is what their weights stand for, made once."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_text
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from saledit.artifact import load_edits, save_edits
from saledit.errors import ArtifactError, ModelError
from saledit.models import TaskModel, load_classifier, load_text_model, wrap
from saledit.overlay import applied

QA = tiny_text.task()
NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
INT8 = {"load_in_8bit": True}
BLOCK = 8

bnb = pytest.importorskip("bitsandbytes")


def quantised(base: TaskModel, folder: Path, **bits: Any) -> Path:
    """A checkpoint of bitsandbytes, as ``save_pretrained`` writes it."""
    tiny.save(base, folder / "full")
    auto = AutoModelForCausalLM if base.kind == "causal" else AutoModelForSequenceClassification
    how = transformers.BitsAndBytesConfig(**bits, bnb_4bit_compute_dtype=torch.float32)
    model = auto.from_pretrained(
        folder / "full", quantization_config=how, device_map={"": "cpu"}, dtype=torch.float32
    )
    model.save_pretrained(folder / "few")
    base.tokenizer.save_pretrained(folder / "few")
    return folder / "few"


def kernels(folder: Path, like: TaskModel) -> TaskModel:
    """The model that is served: with the products of bitsandbytes."""
    model = type(like.model).from_pretrained(folder, device_map={"": "cpu"}, dtype=torch.float32)
    for module in model.modules():
        # On processors with AVX-512 and bfloat16 there are products that round, of widths of 32.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return wrap(model, like.tokenizer, "served")


def in_fp8(base: TaskModel, folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A checkpoint of eight-bit floats with a scale for every block; what it stands for."""
    tiny.save(base, folder)
    stored, meant = {}, {}
    for name, weight in load_file(folder / "model.safetensors").items():
        stored[name] = meant[name] = weight
        if name.endswith("proj.weight"):
            blocks = weight.unflatten(1, (-1, BLOCK)).unflatten(0, (-1, BLOCK))
            scales = blocks.abs().amax((1, 3), keepdim=True) / 448
            few = (blocks / scales).to(torch.float8_e4m3fn)
            stored[name] = few.reshape(weight.shape)
            stored[f"{name}_scale_inv"] = scales[:, 0, :, 0].contiguous()
            meant[name] = (few.float() * scales).reshape(weight.shape)
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    told = {"weight_block_size": [BLOCK, BLOCK], "activation_scheme": "dynamic"}
    change(folder, quantization_config={"quant_method": "fp8", **told})
    return folder, meant


def change(folder: Path, **facts: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


@torch.no_grad()
def logits(base: TaskModel) -> torch.Tensor:
    if base.kind != "causal":
        return base.model(**tiny.encode(base, tiny.samples(4))).logits
    return base.model(**QA.encode(base, tiny_text.samples(4)).inputs).logits


def test_four_bits_are_what_their_kernels_multiply_with(tmp_path: Path) -> None:
    folder = quantised(tiny_text.build("llama"), tmp_path, **NF4)
    plain = load_text_model(str(folder), tmp_path / "cache")
    served = kernels(folder, plain)
    site = plain.layers()[1].sites[0]
    few = served.model.get_submodule(site.name).weight
    wide = bnb.functional.dequantize_4bit(few.data, few.quant_state)
    assert torch.equal(plain.model.get_submodule(site.name).weight, wide)
    full = tiny_text.build("llama").model.get_submodule(site.name).weight
    assert not torch.allclose(wide, full, atol=1e-3)
    torch.testing.assert_close(logits(plain), logits(served), atol=1e-4, rtol=1e-4)


def test_an_edit_of_the_plain_model_is_one_of_the_served(tmp_path: Path) -> None:
    folder = quantised(tiny_text.build("llama"), tmp_path, **NF4)
    plain = load_text_model(str(folder), tmp_path / "cache")
    served = kernels(folder, plain)
    before, edits = logits(plain), tiny.random_edits(plain.layers()[1].sites)
    facts = {"base_model": {"name": "tiny", "fingerprint": plain.fingerprint}}
    save_edits(tmp_path / "edits", edits, facts)
    with pytest.raises(ArtifactError, match=r"fingerprint .* \(exact=False for these"):
        load_edits(tmp_path / "edits", served.model)
    taken = load_edits(tmp_path / "edits", served.model, exact=False)
    with applied(plain.model, edits), applied(served.model, taken):
        torch.testing.assert_close(logits(plain), logits(served), atol=1e-4, rtol=1e-4)
        assert (logits(plain) - before).abs().max() > 0.01


def test_eight_bits(tmp_path: Path) -> None:
    """Weights alone: the kernels round their inputs, too."""
    folder = quantised(tiny_text.build("llama"), tmp_path, **INT8)
    plain = load_text_model(str(folder), tmp_path / "cache")
    stored = load_file(folder / "model.safetensors")
    for site in plain.layers()[0].sites:
        few, scale = stored[f"{site.name}.weight"], stored[f"{site.name}.SCB"]
        wide = few.float() * scale[:, None].float() / 127
        torch.testing.assert_close(plain.model.get_submodule(site.name).weight.data, wide)


def test_a_classifier_and_the_weights_on_disk(tmp_path: Path) -> None:
    folder, cache = quantised(tiny.build("bert"), tmp_path, **NF4), tmp_path / "cache"
    plain = load_classifier(str(folder), cache=cache)
    torch.testing.assert_close(logits(plain), logits(kernels(folder, plain)), atol=1e-4, rtol=1e-4)
    streamed = load_classifier(str(folder), on_disk=cache, cache=cache)
    assert streamed.fingerprint == plain.fingerprint
    assert torch.equal(logits(streamed), logits(plain))
    assert [plain.labels[label] for label in tiny.LABELS] == [0, 1, 2]
    with pytest.raises(ModelError, match=r"expected plain weights in .*; give cache, a folder"):
        load_classifier(str(folder))


def test_floats_of_eight_bits(tmp_path: Path) -> None:
    folder, meant = in_fp8(tiny_text.build("llama"), tmp_path / "few")
    plain = load_text_model(str(folder), tmp_path / "cache")
    found = plain.model.state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in meant.items())


def test_made_once_and_anew_where_the_weights_changed(tmp_path: Path) -> None:
    folder, _ = in_fp8(tiny_text.build("llama"), tmp_path / "few")
    cache = tmp_path / "cache"
    first = load_text_model(str(folder), cache)
    (made,) = cache.glob("dequantized-few-*")
    at = (made / "config.json").stat().st_mtime_ns
    assert load_text_model(str(folder), cache).fingerprint == first.fingerprint
    assert (made / "config.json").stat().st_mtime_ns == at
    in_fp8(tiny_text.build("llama", seed=1), folder)
    assert load_text_model(str(folder), cache).fingerprint != first.fingerprint
    assert len(list(cache.glob("dequantized-few-*"))) == 2


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"quantization_config": {"quant_method": "awq"}}, r"bitsandbytes, fp8 or GGUF, got awq"),
        ({"quantization_config": {}}, r"got unnamed"),
        ({"quantization_config": [1]}, "."),
        ({"architectures": ["os"]}, r"one of transformers' classes .* got 'os'"),
        ({"architectures": ["AutoModel"]}, r"one of transformers' classes"),
        ({"architectures": []}, r"one of transformers' classes"),
        ({"architectures": None}, r"one of transformers' classes"),
        ({"num_hidden_layers": tiny.N_BLOCKS + 1}, "."),
    ],
)
def test_what_is_refused(facts: dict[str, Any], told: str, tmp_path: Path) -> None:
    folder, _ = in_fp8(tiny_text.build("llama"), tmp_path / "few")
    change(folder, **facts)
    with pytest.raises(ModelError, match=told) as error:
        load_text_model(str(folder), tmp_path / "cache")
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "cache").glob("*/*"))


def test_bitsandbytes_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = quantised(tiny_text.build("llama"), tmp_path, **NF4)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else find(name)
    )
    with pytest.raises(ModelError, match=r"pip install bitsandbytes"):
        load_text_model(str(folder), tmp_path / "cache")
