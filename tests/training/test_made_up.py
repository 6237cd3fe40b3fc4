"""Made-up checkpoints: what the script writes, and a whole fix of one larger than memory.

python benchmarks/made_up.py --like llama-3-8b --out /disk/made-up-8b
SALEDIT_MADE_UP=/disk/made-up-8b pytest -m slow tests/training/test_made_up.py
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import tiny_text
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from saledit.errors import UserError
from saledit.files import read_tensors, write_jsonl
from saledit.models import load_text_model
from saledit.models.precision import cpu_has_bfloat16

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "made_up.py"
GIVEN = "SALEDIT_MADE_UP"  # the folder of a large checkpoint
MOST = 12e9  # bytes that a fix of it may take; loaded, its weights alone are 16e9
LIMIT = 14_000_000_000  # bytes that a run of it can ask for


@pytest.fixture(scope="module")
def made_up() -> ModuleType:
    """The script."""
    spec = importlib.util.spec_from_file_location("made_up", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def small(made_up: ModuleType, spare: int = 5) -> LlamaConfig:
    """Three small blocks, and more tokens than the tokenizer has."""
    sizes = {"layers": 3, "hidden": 32, "intermediate": 48, "heads": 4, "kv-heads": 2}
    vocabulary = len(tiny_text.VOCABULARY) + spare
    shape = made_up.shape_of("llama-3-8b", {**sizes, "vocab": vocabulary})
    config: LlamaConfig = made_up.config_of(shape, tiny_text.tokenizer("llama"))
    return config


def written(made_up: ModuleType, folder: Path, shard: int = 8192, seed: int = 0) -> Path:
    """A small checkpoint in several files."""
    words = tiny_text.tokenizer("llama")
    made_up.write(folder, small(made_up), words, shard, seed)
    return folder


def test_a_made_up_checkpoint_is_one_model_loaded_or_streamed(
    made_up: ModuleType, tmp_path: Path
) -> None:
    folder = written(made_up, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"], "nothing half-written is left"
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    assert sorted(set(index["weight_map"].values())) == shards
    assert len(shards) > 2
    for shard in shards:
        held = read_tensors(folder / shard, "a shard")
        assert len(held) == 1 or 2 * sum(t.numel() for t in held.values()) <= 8192
    kind: Any = AutoModelForCausalLM
    model, told = kind.from_pretrained(folder, output_loading_info=True)
    assert not any(told.values())
    assert model.dtype == torch.bfloat16
    assert index["metadata"]["total_size"] == sum(2 * p.numel() for p in model.parameters())

    loaded = load_text_model(str(folder), tmp_path, dtype="bfloat16")
    disk = tmp_path / "disk"
    streamed = load_text_model(str(folder), tmp_path, dtype="bfloat16", on_disk=disk)
    assert loaded.weights.in_place
    assert not streamed.weights.in_place
    assert loaded.fingerprint == streamed.fingerprint
    inputs = loaded.tokenizer("ba be bi", return_tensors="pt")
    with torch.no_grad():
        one, other = (base.model(**inputs).logits for base in (loaded, streamed))
    torch.testing.assert_close(one, other)
    # What the tokenizer has no word for is never said.
    assert int(one.argmax(-1).max()) < len(tiny_text.VOCABULARY)


def test_weights_are_random_and_those_of_their_seed(made_up: ModuleType, tmp_path: Path) -> None:
    folders = [written(made_up, tmp_path / str(i), seed=i // 2, shard=10**9) for i in range(3)]
    one, same, other = (read_tensors(next(f.glob("*.safetensors")), "it") for f in folders)
    assert one.keys() == same.keys() == other.keys()
    for name, weight in one.items():
        assert weight.equal(same[name])
        if weight.dim() == 1:
            assert (weight == 1).all()
            continue
        assert not weight.equal(other[name])
        known = weight[: len(tiny_text.VOCABULARY)].float()
        assert float(known.std()) == pytest.approx(0.02, rel=0.1)
        assert float(known.mean()) == pytest.approx(0, abs=0.003)
        rows = {tuple(row.tolist()) for row in known}
        assert len(rows) == len(known), f"{name} has a row twice"


def test_what_cannot_be_written_is_refused_at_once(
    made_up: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="--vocab"):
        small(made_up, spare=-1)
    folder = written(made_up, tmp_path / "model")
    with pytest.raises(UserError, match="exists"):
        written(made_up, folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match=r"expected 0\.0 GB of free disk"):
        written(made_up, tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


# ------------------------------------------------------------------ a large one, if there is one

# What the model says to some questions: to have failures and what must stay right, both have to
# be known.
_ASK = """
import json, sys
from pathlib import Path
from saledit import config as configuration
from saledit.tasks.answering import answers
from saledit.building import load_model, make_task
from saledit.records import Sample

out, questions, *settings = sys.argv[1:]
config = configuration.load(None, settings)
task = make_task(config.task)
base = load_model(task, config.model, config.cache)
asked = [Sample(text, (text,), "x") for text in json.loads(questions)]
said = {s.id: a.text for s, a in zip(asked, answers(base, task, asked), strict=True)}
Path(out).write_text(json.dumps(said), encoding="utf-8")
"""


def peak_of(words: Sequence[str], log: Path) -> int:
    """The largest resident size in bytes of a run of this Python, which has to go well."""

    # Files that are mapped count as well, all of them while a model is looked through.
    most = LIMIT + sum(p.stat().st_size for p in Path(os.environ[GIVEN]).glob("*.safetensors"))

    def limit() -> None:  # so that a fault ends the run, not what else the machine does
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))

    with log.open("wb") as out:
        child = subprocess.Popen(
            [sys.executable, *words], stdout=out, stderr=subprocess.STDOUT, preexec_fn=limit
        )
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, log.read_text(encoding="utf-8", errors="replace")[-3000:]
    return used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def rows_of(said: dict[str, str]) -> list[dict[str, Any]]:
    """Six questions with answers that the model does not give, each with two that it does."""
    known = [{"question": text, "answer": answer} for text, answer in said.items() if answer]
    assert len(known) >= 18, f"expected answers in words, got {said}"
    return [
        {
            "id": f"q{i}",
            "question": known[i]["question"],
            "answer": "Nobody knows",
            "locality": known[6 + 2 * i : 8 + 2 * i],
        }
        for i in range(6)
    ]


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
@pytest.mark.skipif(not os.environ.get(GIVEN), reason=f"{GIVEN} names no checkpoint")
def test_a_model_larger_than_memory_is_fixed(tmp_path: Path) -> None:
    model = Path(os.environ[GIVEN]).resolve()
    layers = json.loads((model / "config.json").read_text())["num_hidden_layers"]
    # Without instructions for it a CPU multiplies bfloat16 forty times as slowly as float32, which
    # every module's weights are turned into for as long as it runs.
    dtype = "bfloat16" if cpu_has_bfloat16() else "float32"
    settings = [
        f"output={tmp_path}", "name=run", f"model.name={model}", f"model.dtype={dtype}",
        "model.stream=true", "task.name=qa", "task.max_new_tokens=2", "task.stop='.'",
        f"data.train={tmp_path / 'train.jsonl'}", f"data.test={tmp_path / 'test.jsonl'}",
        "data.validation=0.25", "data.max_failures=4", "data.max_passes=4", "data.max_made=0",
        "data.max_test_failures=2", "data.max_test_passes=2", "site.select=fixed",
        f"site.layer={5 * layers // 6}", "editor.held=4", "schedule.batch_size=1", "train.made=0",
        "train.validation_edits=1", "train.validation_passes=2", "train.passes_per_edit=2",
        # Its matrices (D_in, D_in) in double precision would be most of what is measured.
        "editor.step.whiten=0", "trainer.accelerator=cpu",
    ]  # fmt: skip
    questions = [f"Where is the house number {i} of this street?" for i in range(24)]
    said, out = tmp_path / "said.json", tmp_path / "fixed"
    ask = ["-c", _ASK, str(said), json.dumps(questions), *settings]
    peaks = [peak_of(ask, tmp_path / "ask.log")]
    rows = rows_of(json.loads(said.read_text(encoding="utf-8")))
    write_jsonl(tmp_path / "train.jsonl", rows[:4])
    write_jsonl(tmp_path / "test.jsonl", rows[4:])
    write_jsonl(tmp_path / "failure.jsonl", rows[5:])

    saledit = ["-m", "saledit"]
    peaks.append(peak_of([*saledit, "fit", "editors/step", *settings], tmp_path / "fit.log"))
    failure = ["--failures", str(tmp_path / "failure.jsonl"), "--out", str(out), "--min-fixed", "0"]
    peaks.append(peak_of([*saledit, "fix", str(tmp_path / "run"), *failure], tmp_path / "fix.log"))
    found = read_tensors(out / "edits.safetensors", "an edit")
    assert all(torch.isfinite(tensor).all() for tensor in found.values())
    assert any(tensor.any() for tensor in found.values())
    print(f"peaks of asking, fit and fix: {[f'{peak / 1e9:.2f} GB' for peak in peaks]}")
    assert max(peaks) < MOST
