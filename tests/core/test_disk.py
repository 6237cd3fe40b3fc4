"""A model on disk: the same numbers as the loaded one, and no weight that stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_text
import torch
from accelerate.hooks import AlignDevicesHook
from quick import quick
from tiny import random_edits
from torch import Tensor, nn

from saledit.artifact import load_edits
from saledit.artifact.edits import save_edits
from saledit.cache.bank import BankSpec
from saledit.cache.opening import memory_bank, memory_banks
from saledit.errors import UserError
from saledit.forward.rows import run_edits
from saledit.forward.suffix import run
from saledit.models import TaskModel, load_classifier, load_text_model, wrap
from saledit.models.reading import hooks_of
from saledit.overlay import applied, merge
from saledit.saliency.base import Probes
from saledit.saliency.gradient import GradientSaliency
from saledit.saliency.trial import TrialStep
from saledit.tasks.answering import answers
from saledit.tasks.base import Task
from saledit.tasks.nli import Nli

N = 12
FAMILIES = [*tiny.FAMILIES, *(f"text/{name}" for name in tiny_text.STACKED)]
QUICK = ("bert", "text/llama", "text/t5", "text/bart/encoder")
Pair = tuple[TaskModel, TaskModel, Task, list[Any]]


@pytest.fixture(scope="module", params=quick(QUICK, FAMILIES))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A loaded model, the same on disk, and what to ask them."""
    folder = tmp_path_factory.mktemp("model")
    kind, _, name = request.param.partition("/")
    if kind != "text":
        plain, task = tiny.build(kind), Nli()
        tiny.save(plain, folder)
        streamed = load_classifier(str(folder), on_disk=folder)
        # Of a made-up tokenizer transformers makes another one where the family has its own.
        return plain, replace(streamed, tokenizer=plain.tokenizer), task, tiny.samples(N)
    plain = tiny_text.build(name)
    tiny.save(plain, folder)
    stack = name.partition("/")[2] or "decoder"
    streamed = load_text_model(str(folder), folder, stack, on_disk=folder)
    streamed = replace(streamed, tokenizer=plain.tokenizer)
    return plain, streamed, tiny_text.task(), tiny_text.samples(N)


def in_place(model: nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if not parameter.is_meta]


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_it_is_the_same_model(pair: Pair) -> None:
    plain, streamed, task, asked = pair
    assert not streamed.weights.in_place
    assert any(parameter.is_meta for parameter in streamed.model.parameters())
    assert plain.weights.in_place
    assert streamed.fingerprint == plain.fingerprint
    assert streamed.reading == plain.reading
    site = plain.layer(1).sites[0]
    weight = plain.model.get_submodule(site.name).weight
    assert torch.equal(streamed.weight(f"{site.name}.weight"), weight)
    assert answers(streamed, task, asked) == answers(plain, task, asked)
    assert not in_place(streamed.model)


def test_all_of_it_goes_to_a_device(tmp_path: Path) -> None:
    """Modules without weights of their own bring their inputs there, too."""
    tiny.save(tiny_text.build("llama"), tmp_path)
    streamed = load_text_model(str(tmp_path), tmp_path, on_disk=tmp_path)
    hooks = [
        hook
        for module in streamed.model.modules()
        for hook in hooks_of(module)
        if isinstance(hook, AlignDevicesHook)
    ]
    assert not all(hook.offload for hook in hooks)
    device = torch.device("meta")  # none that a test would have
    streamed.weights.to(device)
    assert all(hook.execution_device == device for hook in hooks)
    assert streamed.device == device


def test_banks_and_suffix_runs_are_the_same(pair: Pair) -> None:
    plain, streamed, task, asked = pair
    index = torch.arange(N)
    found = []
    for base in (plain, streamed):
        spec = BankSpec(base.layer(1), rank=3, moments=True, batch_tokens=60)
        bank = memory_bank(base, task, asked, spec)
        edits = random_edits(bank.layer.sites, batch=(3,), seed=1)
        edits = edits.map(lambda t: t.requires_grad_())
        rows = bank.rows(index)
        with applied(base.model, edits):
            outputs = run(base, bank.entry, rows.states, rows.inputs, rows.at)
            loss = task.losses(base, task.logits(base, outputs, bank.targets), bank.targets)
        # Behind the block, as in training: what a graph keeps of a model on disk is read again.
        slopes = torch.autograd.grad(loss.sum(), edits.tensors())
        factors = [x for pair_ in bank.factors(index) for x in (pair_.u, pair_.v)]
        found.append([bank.losses, *bank.moments(), *factors, loss, *slopes])
    for one, other in zip(*found, strict=True):
        same(one, other.to(one.dtype))
    assert not in_place(streamed.model)


def test_layer_scores_are_the_same(pair: Pair, request: pytest.FixtureRequest) -> None:
    if request.node.callspec.id not in ("bert", "text/llama", "text/bart"):
        pytest.skip("a pass for each layer: banks of all families are compared above")
    plain, streamed, task, asked = pair
    probes = Probes(asked[:4], asked[4:8], asked[8:])
    for picker in (GradientSaliency(batch_tokens=60), TrialStep(steps=(1.0,), passes=1)):
        tables = [picker(base, task, base.layers(), probes) for base in (plain, streamed)]
        one, other = ([score.score for score in table.scores] for table in tables)
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6)
        # A layer at a time: a pass for each.
        assert tables[1].forward_passes > tables[0].forward_passes
    assert not in_place(streamed.model)


def test_a_graph_keeps_names_in_the_place_of_weights(pair: Pair) -> None:
    _, streamed, task, asked = pair
    assert not streamed.weights.in_place
    kept: list[object] = []
    whole = torch.autograd.graph.saved_tensors_hooks

    class Watched(whole):  # type: ignore[misc, valid-type]
        def __init__(self, pack: Any, unpack: Any) -> None:
            def note(tensor: Tensor) -> Any:
                kept.append(pack(tensor))
                return kept[-1]

            super().__init__(note, unpack)

    bank = memory_bank(streamed, task, asked, BankSpec(streamed.layer(0)))
    rows = bank.rows(torch.arange(N))
    edits = random_edits(bank.layer.sites, batch=(1,)).map(lambda t: t.requires_grad_())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.autograd.graph, "saved_tensors_hooks", Watched)
        run_edits(streamed, bank.entry, rows, edits)
    names = {type(one).__name__ for one in kept}
    assert "_Saved" in names
    matrices = {tuple(s.shape) for s in map(streamed.weight, _matrices(streamed))}
    held = [one for one in kept if isinstance(one, Tensor) and not one.requires_grad]
    assert not [one for one in held if tuple(one.shape) in matrices and one.dim() == 2]


def _matrices(base: TaskModel) -> list[str]:
    return [f"{site.name}.weight" for site in base.layer(2).sites]


def test_what_is_not_on_disk_is_not_recomputed(pair: Pair) -> None:
    plain, _, task, asked = pair
    calls = 0

    def count(*_args: object) -> None:
        nonlocal calls
        calls += 1

    handle = plain.block(2).register_forward_hook(count)
    memory_banks(plain, task, asked, [BankSpec(plain.layer(0), rank=2)])
    handle.remove()
    assert calls == 1


def test_edits_are_saved_and_applied(pair: Pair, tmp_path: Path) -> None:
    plain, streamed, task, asked = pair
    edits = random_edits(plain.layer(1).sites, seed=3)
    save_edits(
        tmp_path / "edits",
        edits,
        {"base_model": {"name": "tiny", "fingerprint": plain.fingerprint}},
    )
    again = load_edits(tmp_path / "edits", streamed.model)
    assert answers(streamed, task, asked, again) == answers(plain, task, asked, edits)


def test_weights_of_others_are_not_written_to(pair: Pair) -> None:
    _, streamed, _, _ = pair
    with pytest.raises(UserError, match=r"model\.stream"):
        merge(streamed.model, random_edits(streamed.layer(1).sites))


def test_a_model_that_the_user_offloaded_is_one_on_disk(tmp_path: Path) -> None:
    from accelerate import disk_offload

    plain = tiny_text.build("llama")
    fresh = tiny_text.build("llama")
    model = disk_offload(fresh.model, str(tmp_path), torch.device("cpu"))
    streamed = wrap(model, plain.tokenizer, "mine")
    asked = tiny_text.samples(N)
    assert streamed.fingerprint == plain.fingerprint
    assert answers(streamed, tiny_text.task(), asked) == answers(plain, tiny_text.task(), asked)
    # Once more, as for each call of an editor: no hook on top of a hook.
    before = [getattr(module, "_hf_hook", None) for module in model.modules()]
    again = wrap(model, plain.tokenizer, "mine")
    assert [getattr(module, "_hf_hook", None) for module in model.modules()] == before
    spec = BankSpec(plain.layer(1), rank=2)
    banks = [memory_bank(base, tiny_text.task(), asked, spec) for base in (plain, again)]
    same(*(bank.losses for bank in banks))
