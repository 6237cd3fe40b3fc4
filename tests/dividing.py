"""What one of two processes finds of tiny models that are divided between them; see test_divided.

    torchrun --standalone --nproc-per-node 2 tests/dividing.py FOLDER FAMILY ...

The first process prints a line of JSON for each family: what is not as in the whole model.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import tiny
import tiny_text
import torch
from tiny import random_edits
from torch import Tensor
from torch.distributed.tensor import DTensor

from saledit import distributed, module, outcomes
from saledit.cache.bank import BankSpec
from saledit.cache.covariance import Corpus, second_moments
from saledit.cache.opening import memory_bank
from saledit.data.part_banks import PartBanks
from saledit.editors.mend import Mend
from saledit.forward.suffix import run
from saledit.models import SEQ2SEQ, TaskModel, load_classifier, load_text_model
from saledit.models.detour import forward_replaced
from saledit.models.divided import divided
from saledit.overlay import applied
from saledit.saliency.base import Probes
from saledit.saliency.gradient import GradientSaliency
from saledit.tasks.answering import answers
from saledit.tasks.base import Task
from saledit.tasks.nli import Nli

N, CPU = 12, torch.device("cpu")


def models(family: str, folder: Path) -> tuple[TaskModel, TaskModel, Task, list[Any]]:
    """A model, the same divided, and what to ask them; of text what is divided lay on disk."""
    kind, _, name = family.partition("/")
    folder = folder / family.replace("/", "-").replace(" ", "-")
    plain = tiny.build(kind) if kind != "text" else tiny_text.build(name)
    if distributed.is_main():
        folder.mkdir()
        tiny.save(plain, folder)
    distributed.barrier()
    if kind != "text":
        found, task, asked = load_classifier(str(folder)), Nli(), tiny.samples(N)
    else:
        stack = name.partition("/")[2] or "decoder"
        found = load_text_model(str(folder), folder, stack, on_disk=folder)
        task, asked = tiny_text.task(), tiny_text.samples(N)
    return plain, replace(divided(found, CPU), tokenizer=plain.tokenizer), task, asked


@contextmanager
def counted(base: TaskModel) -> Iterator[list[None]]:
    """How often the first norm of the block above the lowest one runs."""
    runs: list[None] = []
    norm = next(m for n, m in base.block(1).named_modules() if "norm" in n.lower() or "ln" in n)
    whole = norm.forward

    def noted(*args: Any, **kwargs: Any) -> Any:
        runs.append(None)
        return whole(*args, **kwargs)

    with forward_replaced(norm, noted):
        yield runs


def numbers(base: TaskModel, task: Task, asked: list[Any]) -> dict[str, Tensor]:
    """Banks, slopes through a suffix run that is cut into parts, and layer scores."""
    spec = BankSpec(base.layer(1), rank=3, moments=True, batch_tokens=60)
    bank = memory_bank(base, task, asked, spec)
    index = torch.arange(N)
    out = {"losses": bank.losses}
    for i, pair in enumerate(bank.factors(index)):
        out |= {f"u{i}": pair.u, f"v{i}": pair.v}
    edits = random_edits(bank.layer.sites, batch=(3,), seed=1).map(lambda t: t.requires_grad_())
    total = torch.zeros(())
    for part in index.view(2, -1):  # two runs in one graph
        rows = bank.rows(part)
        with applied(base.model, edits):
            outputs = run(base, bank.entry, rows.states, rows.inputs, rows.at)
            targets = bank.targets_of(part)
            total = total + task.losses(base, task.logits(base, outputs, targets), targets).sum()
    slopes = torch.autograd.grad(total, edits.tensors())
    low = memory_bank(base, task, asked, BankSpec(base.layer(0)))
    edits = random_edits(low.layer.sites, batch=(3,), seed=2).map(lambda t: t.requires_grad_())
    rows, targets = low.rows(index), low.targets_of(index)
    # Under autocast a graph would keep copies of weights: blocks above run again.
    with torch.autocast("cpu", torch.bfloat16), base.weights.once_more(), counted(base) as runs:
        with applied(base.model, edits):
            outputs = run(base, low.entry, rows.states, rows.inputs, rows.at)
        half = task.losses(base, task.logits(base, outputs, targets).float(), targets).sum()
        halves = torch.autograd.grad(half, edits.tensors())
    assert len(runs) == (2 if base.weights.is_divided and base.n_blocks > 2 else 1), runs
    out |= {"half": half.detach(), **{f"half slope{i}": s for i, s in enumerate(halves)}}
    out |= {"total": total.detach(), **{f"slope{i}": s for i, s in enumerate(slopes)}}
    out |= step_in_parts(base, task, asked)
    probes = Probes(asked[:4], asked[4:8], asked[8:])
    table = GradientSaliency(batch_tokens=60)(base, task, base.layers(), probes)
    return out | {"scores": torch.tensor([score.score for score in table.scores])}


def over_text(base: TaskModel, folder: Path) -> dict[str, Tensor]:
    """Second moments of two blocks, of models that read running text; one process writes."""
    if base.kind == SEQ2SEQ and not base.in_encoder:
        return {}
    lines = [" ".join(sample.inputs) for sample in tiny.samples(80, seed=5)]
    corpus = Corpus("c", lambda: lines, 10_000, 64)
    found = second_moments(base, base.layer(1, (), 2), corpus, folder)
    return {f"text{i}": moment for i, moment in enumerate(found)}


def step_in_parts(base: TaskModel, task: Task, asked: list[Any]) -> dict[str, Tensor]:
    """Loss and slopes of a training step whose parts have rows of one kind alone.

    The first process has twice as many edits, so that alone it would cut into more parts.
    """
    spec = BankSpec(base.layer(1), rank=3)
    fail, passing = (memory_bank(base, task, some, spec) for some in (asked[:8], asked[8:]))
    none = torch.zeros(8, 0)
    banks = PartBanks(fail, None, none.long(), none, passing, torch.full((8,), -1))
    edits = 1 if distributed.rank() else 2
    batch = banks.batch(torch.arange(8).view(2, 4)[:edits], torch.tensor([[1], [2]])[:edits], 6)
    torch.manual_seed(0)
    editor = Mend(spec.layer.sites, rank=2)
    editor.prime(batch.terms.pairs, None)
    with torch.no_grad():  # away from the start, where most slopes are 0
        for name, parameter in editor.named_parameters():
            if not name.endswith("log_rate"):
                parameter.add_(0.2 * torch.randn_like(parameter))
    step = module.EditModule(base, task, editor, fail.entry).eval()
    whole, outcomes._ROWS = outcomes._ROWS, 2
    try:
        loss, _ = step._loss(batch)
    finally:
        outcomes._ROWS = whole
    named = {name: p for name, p in editor.named_parameters() if p.requires_grad}
    slopes = torch.autograd.grad(loss, list(named.values()))
    found = {f"step {name}": slope for name, slope in zip(named, slopes, strict=True)}
    return found | {"step": loss.detach()}


def order_of_passes(base: TaskModel) -> list[list[Any]]:
    """What FSDP has noted of passes, for each block."""
    states = [base.block(i)._get_fsdp_state() for i in range(base.n_blocks)]
    groups = [state._fsdp_param_group for state in states]
    return [group.comm_ctx.post_forward_order + group._post_forward_indices for group in groups]


def differences(family: str, folder: Path) -> list[str]:
    """What differs between a model and the same divided, or is held whole."""
    plain, parts, task, asked = models(family, folder)
    wrong = []
    one, other = (
        numbers(base, task, asked) | over_text(base, folder / kind)
        for base, kind in ((plain, f"whole-{distributed.rank()}"), (parts, "divided"))
    )
    for name, tensor in one.items():
        if not torch.allclose(other[name], tensor, rtol=1e-4, atol=1e-6):
            wrong.append(f"{name}: {(other[name] - tensor).abs().max():.2g}")
    if parts.fingerprint != plain.fingerprint or parts.reading != plain.reading:
        wrong.append("fingerprint")
    if answers(parts, task, asked) != answers(plain, task, asked):
        wrong.append("answers")
    if any(order_of_passes(parts)):
        wrong.append("FSDP notes passes that have no way back")
    for i in range(parts.n_blocks):
        held = parts.block(i).named_parameters()
        whole = [name for name, weight in held if not isinstance(weight, DTensor)]
        wrong += [name for name in whole if "relative_attention_bias" not in name]
    return wrong


def main() -> None:
    """Try all families."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    for family in sys.argv[2:]:
        wrong = differences(family, Path(sys.argv[1]))
        if distributed.is_main():
            print(json.dumps({"family": family, "wrong": wrong}), flush=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
