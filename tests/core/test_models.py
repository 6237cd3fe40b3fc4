"""Task models: what is refused and how it is said; the fingerprint."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import DECODERS, FAMILIES, LABELS, N_BLOCKS, build, encode, samples, save
from transformers import GPTJConfig, GPTJForSequenceClassification

from saledit.errors import ModelError, SiteError
from saledit.models import find_weights, fingerprint, load_classifier, wrap
from saledit.site import list_sites, resolve


def test_an_unknown_family_is_refused_with_the_known_ones() -> None:
    config = GPTJConfig(vocab_size=20, n_embd=8, n_layer=1, n_head=1, n_positions=16, rotary_dim=4)
    model = GPTJForSequenceClassification(config)
    with pytest.raises(
        ModelError,
        match=r"family 'gptj', expected one of bart, bert, .*linear maps .*mlp\.fc_in, mlp\.fc_out;"
        r" .*: model\.blocks=transformer\.h site\.maps=\[mlp\.fc_in,mlp\.fc_out\]$",
    ):
        wrap(model, build("bert").tokenizer, "mine")
    # What the message says is enough.
    base = wrap(model, build("bert").tokenizer, "mine", blocks="transformer.h")
    maps = ["mlp.fc_in", "mlp.fc_out"]
    assert [s.name for s in base.layer(0, maps).sites] == [f"transformer.h.0.{m}" for m in maps]


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_are_the_mlps_in_call_order(family: str) -> None:
    base = build(family)
    assert base.n_blocks == N_BLOCKS
    assert not base.model.training
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    for index, layer in enumerate(base.layers()):
        assert layer.index == index
        assert layer.n_parameters == len(layer.sites) * 16 * 24
        assert [s.name for s in layer.sites] == [
            f"{base.block_name(index)}.{name}" for name in base.family.mlp
        ]
    called: list[str] = []
    wanted = [site.name for layer in base.layers() for site in layer.sites]
    for layer in base.layers():
        for site in layer.sites:
            module = base.model.get_submodule(site.name)
            shape = tuple(module.weight.shape)
            assert shape == (
                (site.d_in, site.d_out) if site.transposed else (site.d_out, site.d_in)
            )
            module.register_forward_hook(lambda _m, _a, _o, name=site.name: called.append(name))
    base.model(**encode(base, samples(1)))
    assert called == wanted


def test_a_negative_layer_counts_from_the_top() -> None:
    base = build("bert")
    assert base.layer(-1) == base.layer(N_BLOCKS - 1)
    assert base.layer(-N_BLOCKS).index == 0


@pytest.mark.parametrize("index", [N_BLOCKS, -N_BLOCKS - 1, 99])
def test_a_layer_out_of_range_is_refused(index: int) -> None:
    with pytest.raises(
        SiteError, match=rf"site\.layer: expected a block from 0 to 2, got {index};"
    ):
        build("bert").layer(index)


def test_an_unknown_map_gets_a_suggestion() -> None:
    with pytest.raises(SiteError, match=r"got 'output\.dens'; did you mean 'output\.dense'\?"):
        build("bert").layer(0, ["output.dens"])
    with pytest.raises(SiteError, match=r"got 'mlp'.*known: .*mlp\.down_proj"):
        build("llama").layer(0, ["mlp"])  # a module, but no linear map


def test_sites_are_found_by_name() -> None:
    base = build("bert")
    names = [site.name for site in list_sites(base.model)]
    assert len(names) == N_BLOCKS * 6 + 2  # and pooler and classifier
    assert resolve(base.model, names[3]).name == names[3]
    with pytest.raises(SiteError, match=r"no such module; did you mean 'bert\.encoder\.layer\.0"):
        resolve(base.model, "bert.encoder.layer.0.output.dens")
    with pytest.raises(SiteError, match=r"expected nn\.Linear or Conv1D, got LayerNorm"):
        resolve(base.model, "bert.encoder.layer.0.output.LayerNorm")


def test_the_longest_input_fits_the_position_table() -> None:
    for family in FAMILIES:
        base = build(family)
        assert base.max_length == 64
        words = " ".join(["ba"] * 100)
        inputs = encode(base, [samples(1)[0].__class__("0", (words, words), LABELS[0])])
        assert inputs["input_ids"].shape[1] == 64
        assert base.model(**inputs).logits.isfinite().all()


def test_positions_of_padding_are_known_without_a_models_name() -> None:
    """XLM-R, CamemBERT and others have RoBERTa's table."""
    base = build("roberta")
    base.model.config.model_type = "camembert"
    assert base.model.config.max_position_embeddings == 66
    assert base.max_length == 64


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("package:saledit_has_no_such", "pip install saledit_has_no_such$"),
        ("package:../x", "named by letters"),
        ("package:", "named by letters"),
    ],
)
def test_a_package_that_is_not_installed(name: str, remedy: str) -> None:
    with pytest.raises(ModelError, match=f"is not installed; .*{remedy}"):
        load_classifier(name)


def test_a_package_that_carries_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tinypack_with", "tinypack_without"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('never imported')")
    save(build("bert"), tmp_path / "tinypack_with" / "deep" / "model")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_weights("package:tinypack_with") == str(tmp_path / "tinypack_with/deep/model")
    assert load_classifier("package:tinypack_with").n_blocks == N_BLOCKS
    with pytest.raises(ModelError, match="'tinypack_without' carries no safetensors or GGUF model"):
        find_weights("package:tinypack_without")
    assert find_weights("org/name") == "org/name"


@pytest.mark.parametrize("family", FAMILIES)
def test_save_and_load_give_the_same_model(family: str, tmp_path: Path) -> None:
    base = build(family)
    loaded = load_classifier(str(save(base, tmp_path)))
    assert loaded.fingerprint == base.fingerprint
    assert loaded.family is base.family
    inputs = encode(base, samples(4))
    if family != "qwen2":  # whatever a folder says, transformers loads its own class for this one
        again = encode(loaded, samples(4))
        assert inputs.keys() == again.keys()
        assert all(torch.equal(inputs[name], again[name]) for name in inputs)
    assert torch.equal(base.model(**inputs).logits, loaded.model(**inputs).logits)


def test_one_weight_changes_the_fingerprint() -> None:
    base = build("bert")
    assert fingerprint(build("bert").model) == base.fingerprint
    assert fingerprint(build("bert", seed=1).model) != base.fingerprint
    for name, weight in base.model.named_parameters():
        old = weight.detach().clone()
        with torch.no_grad():
            weight.view(-1)[-1] = torch.nextafter(weight.view(-1)[-1], torch.tensor(100.0))
        assert fingerprint(base.model) != base.fingerprint, name
        with torch.no_grad():
            weight.copy_(old)
    assert fingerprint(base.model) == base.fingerprint
    base.model.to(torch.bfloat16)
    assert fingerprint(base.model) != base.fingerprint


def test_the_fingerprint_does_not_depend_on_memory_layout() -> None:
    one, other = torch.nn.Linear(3, 4), torch.nn.Linear(3, 4)
    other.load_state_dict(one.state_dict())
    other.weight.data = one.weight.data.T.contiguous().T
    assert not other.weight.is_contiguous()
    assert fingerprint(one) == fingerprint(other)


def test_a_classifier_has_the_numbers_that_are_asked_for_not_its_files(tmp_path: Path) -> None:
    base = build("bert")
    base.model.to(torch.bfloat16)
    folder = str(save(base, tmp_path))
    for labels in (None, ["a", "b", "c", "d"]):
        loaded = load_classifier(folder, labels)
        assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
        assert load_classifier(folder, labels, dtype="float16").dtype == torch.float16
    with pytest.raises(ModelError, match=r"model\.dtype: unknown name 'float61'.*float16"):
        load_classifier(folder, dtype="float61")


def test_a_pickled_model_is_never_read(tmp_path: Path) -> None:
    base = build("bert")
    save(base, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(base.model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"model\.name: cannot load .*safetensors"):
        load_classifier(str(tmp_path))


@pytest.mark.parametrize("damage", ["nothing there", "no config", "broken config", "cut weights"])
def test_what_cannot_be_loaded_is_one_clear_line(tmp_path: Path, damage: str) -> None:
    save(build("bert"), tmp_path / "m")
    name = tmp_path / "none" if damage == "nothing there" else tmp_path / "m"
    if damage == "no config":
        (name / "config.json").unlink()
    if damage == "broken config":
        (name / "config.json").write_text("{")
    if damage == "cut weights":
        weights = name / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"model\.name: cannot load") as caught:
        load_classifier(str(name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2"])
def test_a_folder_without_a_tokenizer_is_refused(family: str, tmp_path: Path) -> None:
    """Transformers makes one that knows no word, and every text would be the same."""
    build(family).model.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"expected tokenizer files in .*, got none"):
        load_classifier(str(tmp_path))


def test_a_model_without_a_head_is_told_what_to_do(tmp_path: Path) -> None:
    whole = build("bert")
    save(whole, tmp_path)
    whole.model.bert.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"it has no trained head: fine-tune it first"):
        load_classifier(str(tmp_path))


def test_an_error_without_words_still_says_what_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_args: object, **_kwargs: object) -> None:
        raise OSError

    monkeypatch.setattr("saledit.models.plain.AutoConfig.from_pretrained", fails)
    with pytest.raises(ModelError, match=r"cannot load .*: OSError"):
        load_classifier(str(tmp_path))


def test_a_fresh_head_gets_the_labels_of_the_data(tmp_path: Path) -> None:
    save(build("bert"), tmp_path)
    base = load_classifier(str(tmp_path), labels=["SUPPORTS", "REFUTES"])
    assert base.model.config.label2id == {"SUPPORTS": 0, "REFUTES": 1}
    chosen = [replace(sample, target="SUPPORTS") for sample in samples(2)]
    assert base.model(**encode(base, chosen)).logits.shape == (2, 2)


@pytest.mark.parametrize("family", [f for f in DECODERS if f != "qwen2"])  # see above
def test_a_decoder_without_a_padding_token_gets_one(family: str, tmp_path: Path) -> None:
    base = build(family)
    base.model.config.pad_token_id = None
    base.tokenizer.pad_token = None
    base.tokenizer.eos_token = "[SEP]"
    loaded = load_classifier(str(save(base, tmp_path)))
    assert loaded.tokenizer.pad_token == "[SEP]"
    assert loaded.model.config.pad_token_id == loaded.tokenizer.pad_token_id
    assert loaded.model(**encode(loaded, samples(3))).logits.shape == (3, 3)


def test_labels_are_those_that_a_model_says(tmp_path: Path) -> None:
    """Whoever names a model's answers sets ``id2label``; ``label2id`` stays what it was."""
    save(build("bert"), tmp_path)
    facts = json.loads((tmp_path / "config.json").read_text())
    facts["id2label"] = {"0": "no", "1": "maybe", "2": "yes"}
    for stale in ({f"LABEL_{i}": i for i in range(3)}, None):
        facts["label2id"] = stale
        (tmp_path / "config.json").write_text(json.dumps(facts))
        assert load_classifier(str(tmp_path)).labels == {"no": 0, "maybe": 1, "yes": 2}


def test_a_path_from_another_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"\(no /.*/models/mine\)"):
        load_classifier("models/mine")
