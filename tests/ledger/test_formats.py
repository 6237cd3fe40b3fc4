"""Every form of a fix gives the logits of the overlay: delta, merged model, LoRA adapter."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from quick import quick
from safetensors.torch import load_file, save_file
from shelf import CLASSIFIERS, WRITERS, Shelf
from tiny import LABELS, build, random_edits, samples, untouched, weights

from saledit import verbs
from saledit.artifact import load_edits
from saledit.building import load_model
from saledit.config import ModelConfig, RunConfig
from saledit.delta import Dense, Edits
from saledit.errors import ArtifactError, JobError
from saledit.export import FORMATS
from saledit.ledger import EditFolder
from saledit.overlay import applied
from saledit.run.fixes.head import load_again
from saledit.run.fixes.merging import check_drawdown
from saledit.tasks.answering import answers
from saledit.tasks.nli import Nli

NLI = Nli()

ALL = (*CLASSIFIERS, *(f"text:{name}" for name in WRITERS))
QUICK = ("bert", "gpt2", "text:llama", "text:t5")


def test_the_command_line_offers_every_form() -> None:
    assert tuple(verbs.FORMATS) == tuple(FORMATS)


@pytest.fixture(params=quick(QUICK, ALL))
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Shelf:
    return Shelf(tmp_path, request.param)


def test_delta(shelf: Shelf) -> None:
    edits = shelf.edits() + shelf.edits(seed=1, rank=1)
    folder = shelf.fixed(shelf.begun("delta"), edits)
    again = load_again(folder, shelf.model.name)
    read = load_edits(folder.path, again.model)
    assert torch.equal(shelf.logits(again, read), shelf.logits(shelf.base, edits))
    assert (shelf.logits(again, read) - shelf.logits(again)).abs().max() > 0.01


def test_merged(shelf: Shelf) -> None:
    before = weights(shelf.base.model)
    with untouched(shelf.base.model):
        folder = shelf.fixed(shelf.begun("merged"), shelf.edits())
        folder = shelf.fixed(folder, shelf.edits(seed=1))
    merged = load_again(folder, folder.path)
    wanted = shelf.logits(shelf.base, shelf.edits() + shelf.edits(seed=1))
    torch.testing.assert_close(shelf.logits(merged), wanted, rtol=1e-5, atol=1e-5)
    sites = {f"{site.name}.weight" for site in shelf.layer.sites}
    after = merged.model.state_dict()
    assert {n for n in before if not torch.equal(before[n], after[n])} == sites
    (folder.path / "new").touch()
    usual = (folder.path / "new").stat().st_mode
    assert {path.stat().st_mode for path in folder.path.iterdir() if path.is_file()} == {usual}
    # And what any other program reads: nothing but transformers.
    model = type(shelf.base.model).from_pretrained(folder.path)
    assert all(torch.equal(tensor, after[name]) for name, tensor in model.state_dict().items())


@pytest.mark.long
def test_lora_loads_with_peft_alone(tmp_path: Path) -> None:
    """Of every model, in a process of its own in which saledit cannot be imported."""
    shelves = [Shelf(tmp_path / str(i), name) for i, name in enumerate(ALL)]
    wanted = []
    for shelf in shelves:
        edits = shelf.edits()
        folder = shelf.fixed(shelf.begun("lora"), edits)
        inputs = dict(shelf.task.encode(shelf.base, shelf.samples).inputs)
        torch.save(inputs, shelf.home / "inputs.pt")
        (shelf.home / "kind").write_text(type(shelf.base.model).__name__)
        with torch.no_grad(), applied(shelf.base.model, edits):
            wanted.append(shelf.base.model(**inputs).logits)
        exact = {site.name: delta for site, delta in edits.items()}
        for key, tensor in load_file(folder.path / "adapter_model.safetensors").items():
            name, _, part = key.removeprefix("base_model.model.").partition(".lora_")
            factors = {"A.weight": exact[name].u, "B.weight": exact[name].v.mT}
            assert torch.equal(tensor, factors[part])
    code = (
        "import sys, torch, transformers\n"
        "from pathlib import Path\n"
        "sys.modules['saledit'] = None\n"
        "from peft import PeftModel\n"
        "for home in map(Path, sys.argv[1:]):\n"
        "    kind = getattr(transformers, (home / 'kind').read_text())\n"
        "    model = kind.from_pretrained(home / 'model').eval()\n"
        "    model = PeftModel.from_pretrained(model, home / 'fixed').eval()\n"
        "    inputs = torch.load(home / 'inputs.pt')\n"
        "    with torch.no_grad():\n"
        "        logits = [model(**inputs).logits, model.merge_and_unload()(**inputs).logits]\n"
        "    torch.save(logits, home / 'logits.pt')\n"
    )
    homes = [str(shelf.home) for shelf in shelves]
    done = subprocess.run(
        [sys.executable, "-c", code, *homes], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "UserWarning" not in done.stderr, done.stderr
    for shelf, right in zip(shelves, wanted, strict=True):
        for logits in torch.load(shelf.home / "logits.pt"):
            torch.testing.assert_close(logits, right, rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------- one model each


@pytest.fixture
def bert(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path, "bert")


def test_lora_of_a_rank_says_what_it_costs(bert: Shelf) -> None:
    edits = bert.edits(rank=5)
    folder = bert.fixed(bert.begun("lora", rank=2), edits)
    facts = json.loads((folder.path / "edits.json").read_text())
    assert facts["rank"] == 2
    errors = [
        ((delta.dense() - delta.compress(2).dense()).norm() ** 2, delta.dense().norm() ** 2)
        for delta in edits.values()
    ]
    expected = (sum(e for e, _ in errors) / sum(w for _, w in errors)) ** 0.5
    assert facts["rank_error"] == pytest.approx(float(expected), rel=1e-4)
    assert json.loads((folder.path / "adapter_config.json").read_text())["r"] == 2
    # What is in force is what the adapter does, not what was asked for.
    read = load_edits(folder.path, bert.base.model)
    assert all(delta.rank == 2 for delta in read.values())


def test_a_dense_delta_becomes_an_adapter(bert: Shelf) -> None:
    dense = Edits({site: Dense(delta.dense()) for site, delta in bert.edits().items()})
    edits, told = FORMATS["lora"].shape(dense, 0)
    assert told["rank"] == 2
    for site, delta in edits.items():
        torch.testing.assert_close(delta.dense(), dense[site].w, rtol=1e-5, atol=1e-6)


def test_layers_of_different_ranks(bert: Shelf) -> None:
    first, second = bert.layer.sites
    edits = random_edits([first], rank=3) + random_edits([second], rank=1, seed=1)
    folder = bert.fixed(bert.begun("lora"), edits)
    config = json.loads((folder.path / "adapter_config.json").read_text())
    assert (config["r"], list(config["rank_pattern"].values())) == (3, [1])
    peft = pytest.importorskip("peft")
    model = type(bert.base.model).from_pretrained(bert.model.name)
    model = peft.PeftModel.from_pretrained(model, folder.path).eval()
    encoded = bert.task.encode(bert.base, bert.samples)
    with torch.no_grad():
        logits = model(**encoded.inputs).logits
    torch.testing.assert_close(logits, bert.logits(bert.base, edits), rtol=1e-5, atol=1e-5)


def test_half_precision_is_kept(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "text:llama")
    half = shelf.base.model.to(torch.bfloat16)
    half.save_pretrained(tmp_path / "half")
    shelf.base.tokenizer.save_pretrained(tmp_path / "half")
    shelf.model = ModelConfig(name=str(tmp_path / "half"), dtype="bfloat16")
    shelf.base = load_model(shelf.task, shelf.model, RunConfig().cache)
    folder = shelf.fixed(shelf.begun("merged"), shelf.edits())
    stored = load_file(folder.path / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}


def test_tied_weights_are_kept(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "text:gpt2")
    folder = shelf.fixed(shelf.begun("merged"), shelf.edits())
    model = load_again(folder, folder.path).model
    old = shelf.base.model
    tied = old.get_input_embeddings().weight is old.get_output_embeddings().weight
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) == tied
    assert tied


_SPOILT = {
    "lost classifier.weight": lambda tensors, _: tensors["classifier.weight"].add_(0.1),
    "logits differ": lambda tensors, site: tensors[site].add_(0.1),
    "not finite": lambda tensors, site: tensors[site].fill_(torch.nan),
    "keeps .* as torch.float16": lambda t, site: t.update({site: t[site].half()}),
}


@pytest.mark.parametrize("said", _SPOILT)
def test_a_merged_model_that_is_another_is_refused(
    said: str, bert: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left of it, whichever way it differs."""
    save = type(bert.base.model).save_pretrained
    site = f"{bert.layer.sites[0].name}.weight"

    def wrong(self: Any, folder: Path, **kwargs: Any) -> None:
        save(self, folder, **kwargs)
        tensors = load_file(folder / "model.safetensors")
        _SPOILT[said](tensors, site)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    monkeypatch.setattr(type(bert.base.model), "save_pretrained", wrong)
    with pytest.raises(JobError, match=said), untouched(bert.base.model):
        bert.fixed(bert.begun("merged"), bert.edits())
    assert sorted(p.name for p in bert.home.iterdir() if p.is_dir()) == ["model"]


def test_edits_of_another_model_or_changed_are_refused(bert: Shelf, tmp_path: Path) -> None:
    folder = bert.fixed(bert.begun("delta"), bert.edits())
    other = Shelf(tmp_path / "other", "llama")
    with pytest.raises(ArtifactError, match="expected the base model with fingerprint"):
        load_edits(folder.path, other.base.model)
    tensors = load_file(folder.path / "edits.safetensors")
    save_file({name: tensor * 2 for name, tensor in tensors.items()},
              folder.path / "edits.safetensors")  # fmt: skip
    with pytest.raises(ArtifactError, match=r"see: saledit log .*fixed"):
        load_edits(folder.path, bert.base.model)
    assert EditFolder.read(folder.path).edits  # what it is made of is still there


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_rounding_breaks_counts_for_the_bound(dtype: torch.dtype, tmp_path: Path) -> None:
    """In half precision the check set is asked of the model that is written."""
    base = build("bert")
    again = replace(base, model=build("bert").model.to(dtype))
    held = samples(12)
    said = answers(again, NLI, held)
    right = [replace(s, target=a.text) for s, a in zip(held, said, strict=True)]
    other = next(label for label in LABELS if label != right[0].target)
    wrong = [replace(right[0], target=other), *right[1:]]
    told = {"accuracy_before": 1.0, "drawdown": 0.0}
    check_drawdown(again, NLI, right, told, 0.0)
    check_drawdown(again, NLI, wrong, told, None)
    check_drawdown(again, NLI, wrong, told, 0.1)
    check_drawdown(again, NLI, wrong, told, 1 / 12)  # it is kept
    many = [*right * 25]
    three = [*(replace(s, target=other) for s in right[:1] * 3), *many[3:]]
    check_drawdown(again, NLI, three, told, 0.01)
    if dtype == torch.float32:  # there logits are held against each other
        check_drawdown(again, NLI, wrong, told, 0.0)
    else:
        with pytest.raises(JobError, match=r"drawdown is 0\.0833, the edit's 0\.0000: rounded to"):
            check_drawdown(again, NLI, wrong, told, 0.0)
