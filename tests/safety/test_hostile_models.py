"""Folders of models of strangers: weights and settings, no code, nothing made up."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_text
import torch
from hostile import (
    BAD_JSON,
    BAD_TENSORS,
    KINDS,
    blocked,
    byte_changes,
    counts,
    fuzz,
    header_changes,
    json_changes,
    refused,
    tolerated,
)
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from saledit.data.paraphrase.similarity import EmbeddingSimilarity
from saledit.errors import ModelError
from saledit.models import TaskModel, load_classifier, load_text_model

WEIGHTS = "model.safetensors"
CODE = "raise SystemExit('code of a folder ran')\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.build("bert"), tmp_path_factory.mktemp("model") / "bert")


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "model"))


def told(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def load(folder: Path) -> TaskModel:
    return load_classifier(str(folder))


@pytest.mark.parametrize("kind", BAD_TENSORS)
def test_broken_weights(kind: str, folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(BAD_TENSORS[kind])
    refused(lambda: load(folder), str(folder))


@pytest.mark.parametrize("kind", ["empty", "half", "deep lists", "UTF-16", "null byte", "a pickle"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_broken_settings(name: str, kind: str, folder: Path) -> None:
    (folder / name).write_bytes(BAD_JSON[kind])
    refused(lambda: load(folder), str(folder))


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [WEIGHTS, "config.json", "tokenizer.json"])
def test_what_is_no_file(name: str, kind: str, folder: Path) -> None:
    blocked(folder / name, kind)
    refused(lambda: load(folder), str(folder))


@pytest.mark.parametrize("weights", ["pytorch_model.bin", "adapter_model.bin"])
def test_pickles_are_not_read(weights: str, folder: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(folder / "ran"),)

    (folder / weights).write_bytes(pickle.dumps(Bomb()))
    (folder / WEIGHTS).unlink()
    refused(lambda: load(folder), str(folder))
    with pytest.raises(ModelError):
        EmbeddingSimilarity(folder)
    assert not (folder / "ran").exists()


AUTO = {
    "AutoConfig": "mine.Config", "AutoModelForSequenceClassification": "mine.Model",
    "AutoModel": "mine.Model", "AutoTokenizer": ["mine.Tokens", None],
}  # fmt: skip


@pytest.mark.timeout(30)
def test_code_of_a_folder_never_runs_and_nobody_is_asked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "mine.py").write_text(CODE)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    for kind in ("bert", "mine"):
        told(folder / "config.json", model_type=kind, auto_map=AUTO, architectures=["Model"])
        told(folder / "tokenizer_config.json", tokenizer_class="Tokens", auto_map=AUTO)
        tolerated(lambda: load(folder), lambda base: base.family, str(folder))
        tolerated(lambda: load_text_model(str(folder), folder), lambda base: base.family)
        tolerated(lambda: EmbeddingSimilarity(folder), lambda _: None)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "change",
    [
        {"num_hidden_layers": 10**9}, {"num_hidden_layers": -1}, {"num_hidden_layers": "3"},
        {"hidden_size": 10**9}, {"vocab_size": 10**15}, {"intermediate_size": 10**12},
        {"max_position_embeddings": 10**12}, {"vocab_size": -5}, {"hidden_size": 0},
        {"hidden_act": "os.system"}, {"model_type": "../x"}, {"model_type": 5},
        {"num_attention_heads": 0}, {"id2label": {str(i): str(i) for i in range(9)}},
        {"vocab_size": 10**30},
    ],
    ids=str,
)  # fmt: skip
def test_sizes_that_are_none(change: dict[str, Any], folder: Path) -> None:
    told(folder / "config.json", **change)
    refused(lambda: load(folder), str(folder))
    tolerated(lambda: load_classifier(str(folder), ["a", "b"]), lambda base: base.n_blocks)


def test_missing_weights_are_not_made_up(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    for name in ("classifier.weight", "bert.encoder.layer.1.output.dense.weight"):
        save_file(
            {k: t for k, t in tensors.items() if k != name}, folder / WEIGHTS, {"format": "pt"}
        )
        assert name in refused(lambda: load(folder), str(folder))


def test_a_fresh_head_is_all_that_is_made_up(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    name = "bert.encoder.layer.1.output.dense.weight"
    tensors[name] = torch.ones(4, 4)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    assert name in refused(lambda: load_classifier(str(folder), ["a", "b"]), str(folder))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(value: float, folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors["classifier.weight"][0, 0] = value
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    assert "classifier.weight" in refused(lambda: load(folder), str(folder))


@pytest.mark.parametrize("name", ["../model2.safetensors", "/etc/passwd", "none.safetensors", 5])
def test_shards_lie_in_the_folder(name: object, folder: Path) -> None:
    (folder / WEIGHTS).rename(folder.parent / "model2.safetensors")
    keys = load_file(folder.parent / "model2.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(keys, name)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(lambda: load(folder), str(folder))


def test_an_adapter_is_no_model(folder: Path, tmp_path: Path) -> None:
    """transformers would load the base model that it names, from anywhere."""
    adapter = {"peft_type": "LORA", "base_model_name_or_path": str(tmp_path / "other")}
    (folder / "adapter_config.json").write_text(json.dumps(adapter))
    assert "PEFT adapter" in refused(lambda: load(folder), str(folder))


def test_links_as_in_the_hub_s_cache_are_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    for path in list(folder.iterdir()):
        path.rename(tmp_path / "blobs" / path.name)
        path.symlink_to(tmp_path / "blobs" / path.name)
    assert load(folder).n_blocks == tiny.N_BLOCKS


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "/nowhere", "package:os", "package:..", ""])
def test_names_of_no_model(name: str, tmp_path: Path) -> None:
    refused(lambda: load_classifier(name))
    refused(lambda: load_text_model(name, tmp_path))


def test_what_is_no_gguf(tmp_path: Path) -> None:
    for content in (b"", b"GGUF", b"GGUF" + b"\xff" * 60):
        (tmp_path / "a.gguf").write_bytes(content)
        refused(lambda: load_text_model(str(tmp_path / "a.gguf"), tmp_path / "cache"), "a.gguf")
    blocked(tmp_path / "a.gguf", "pipe")
    refused(lambda: load_text_model(str(tmp_path / "a.gguf"), tmp_path / "cache"), "a.gguf")
    assert not (tmp_path / "cache").is_dir() or not list((tmp_path / "cache").glob("dequ*"))


SETTINGS = ("config.json", "tokenizer.json", "tokenizer_config.json")


@counts(40)
def test_fuzz_classifiers(examples: int, made: Path, folder: Path) -> None:
    files = {path.name: path.read_bytes() for path in made.iterdir()}
    few, samples = examples < 1000, tiny.samples(2)

    def check(base: TaskModel) -> None:
        assert all(torch.isfinite(weight).all() for weight in base.model.parameters())
        stored = load_file(folder / WEIGHTS)
        assert all(name in stored for name, _ in base.model.named_parameters())
        assert base.n_blocks >= 0
        assert len(samples) == 2

    def example(change: tuple[str, Callable[[bytes], bytes]]) -> None:
        for name, data in files.items():
            (folder / name).write_bytes(change[1](data) if name == change[0] else data)
        tolerated(lambda: load(folder), check, str(folder))

    changes = st.tuples(st.just(WEIGHTS), byte_changes() | header_changes())
    changes |= st.tuples(st.sampled_from(SETTINGS), byte_changes() | json_changes())
    fuzz(examples, changes, example, few)


@counts(15)
def test_fuzz_text_models(examples: int, tmp_path: Path) -> None:
    made = tiny.save(tiny_text.build("llama"), tmp_path / "model")
    files = {path.name: path.read_bytes() for path in made.iterdir()}
    names, few = sorted(name for name in files if name.endswith(".json")), examples < 1000

    def example(change: tuple[str, Callable[[bytes], bytes]]) -> None:
        for name, data in files.items():
            (made / name).write_bytes(change[1](data) if name == change[0] else data)
        tolerated(lambda: load_text_model(str(made), tmp_path), lambda b: b.n_blocks, str(made))

    changes = st.tuples(st.sampled_from(names), byte_changes() | json_changes())
    fuzz(examples, changes, example, few)
