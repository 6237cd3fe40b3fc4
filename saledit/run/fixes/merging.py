"""A merged model, opened again and held against the overlay before it is said to be done."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from saledit.cache.bank import BankSpec
from saledit.cache.opening import memory_bank
from saledit.delta import Edits
from saledit.errors import JobError
from saledit.judging.banked import bank_batches
from saledit.models import TaskModel
from saledit.records import Sample
from saledit.site import Layer
from saledit.tasks.answering import answers
from saledit.tasks.base import Task

_COMPARED = 64  # samples of the check set whose logits are compared
_TOLERANCE = 1e-3  # of logits in single precision; in half precision answers alone decide


def check_merged(
    again: TaskModel, folder: Path, base: TaskModel, task: Task, layer: Layer, edits: Edits,
    asked: Sequence[Sample], right: Sequence[Sample], held: Sequence[Sample] = (),
) -> float:  # fmt: skip
    """Refuse a merged model that is not the base model with its edits.

    Args:
        again: the model as it was read back.
        folder: what it was read from.
        base: the base model.
        task: asks.
        layer: where the edits are.
        edits: what was merged.
        asked: failures whose logits are compared.
        right: those that the edits mend.
        held: samples of the check set; logits of the first of them are compared as well.

    Returns:
        The largest difference of logits between the merged model and the overlay.

    Raises:
        JobError: weights beside the sites differ, dtypes or tied weights were lost, something is
            not finite, logits differ, or a failure that the edits mend is not mended.
    """
    sites = {f"{site.name}.weight" for site in edits}
    old, new = base.model.state_dict(), again.model.state_dict()
    stored = _dtypes(folder)
    for name, weight in old.items():
        # Each may lie on an accelerator, which one is not the other's.
        kept = name in new and (name in sites or torch.equal(weight.cpu(), new[name].cpu()))
        if not kept:
            raise JobError(f"the merged model lost {name}; nothing was written")
        if not torch.isfinite(new[name]).all():
            raise JobError(f"the merged model is not finite at {name}; nothing was written")
        if stored.get(name, weight.dtype) != weight.dtype:
            raise JobError(
                f"the merged model keeps {name} as {stored[name]}, expected {weight.dtype}; "
                "nothing was written"
            )
    if _tied(old) != _tied(new):
        raise JobError("the merged model lost its tied weights; nothing was written")
    apart = _apart(again, base, task, layer, edits, [*asked, *held[:_COMPARED]])
    single = old[next(iter(sorted(sites)), next(iter(old)))].dtype == torch.float32
    if not apart < (_TOLERANCE if single else float("inf")):
        raise JobError(
            f"the merged model's logits differ from the edit's by {apart:.3g}; nothing was written"
        )
    lost = [s.id for s, a in zip(right, answers(again, task, right), strict=True) if not a.right]
    if lost:
        raise JobError(
            f"the merged model does not hold {len(lost)} of {len(right)} fixes ({lost[0]}, ...): "
            "its weights' format rounds them away; use --format delta, or model.dtype=float32"
        )
    return apart


def check_drawdown(
    again: TaskModel, task: Task, held: Sequence[Sample], check: Mapping[str, Any],
    most: float | None,
) -> None:  # fmt: skip
    """Refuse a merged model of half precision that breaks more than the edit was allowed to.

    Its weights are rounded, and a check set was asked of the edit beside them.

    Args:
        again: the model as it was read back.
        task: asks.
        held: the check set.
        check: what the edit did to it.
        most: the largest drawdown; None for any.

    Raises:
        JobError: it breaks more.
    """
    if most is None or task.by_perplexity or again.dtype == torch.float32:
        return
    right = sum(answer.right for answer in answers(again, task, held))
    # Counted, as the edit's own: a difference of shares is rounded to the wrong side of a bound.
    drawdown = (round(check["accuracy_before"] * len(held)) - right) / len(held)
    if drawdown > most:
        raise JobError(
            f"the merged model's drawdown is {drawdown:.4f}, the edit's {check['drawdown']:.4f}: "
            f"rounded to {again.dtype} it breaks more than --max-drawdown {most}; use --format "
            "delta, or model.dtype=float32"
        )


def _apart(
    again: TaskModel, base: TaskModel, task: Task, layer: Layer, edits: Edits,
    asked: Sequence[Sample],
) -> float:  # fmt: skip
    """Largest difference of logits; NaN or infinite where they are."""
    if not asked:
        return 0.0
    spec = BankSpec(layer)
    banks = [memory_bank(model, task, asked, spec) for model in (base, again)]
    pairs = zip(
        bank_batches(base, task, banks[0], edits if len(edits) else None),
        bank_batches(again, task, banks[1]),
        strict=True,
    )
    return max(float((a.cpu() - b.cpu()).abs().max()) for (_, a), (_, b) in pairs)


def _dtypes(folder: Path) -> dict[str, torch.dtype]:
    """Of every stored tensor."""
    out: dict[str, torch.dtype] = {}
    for path in folder.glob("model*.safetensors"):
        with safe_open(path, framework="pt") as stream:
            out |= {name: stream.get_slice(name)[:0].dtype for name in stream.keys()}  # noqa: SIM118
    return out


def _tied(weights: dict[str, Tensor]) -> set[frozenset[str]]:
    """Names that share their memory."""
    groups = defaultdict(set)
    for name, weight in weights.items():
        groups[weight.data_ptr()].add(name)
    return {frozenset(names) for names in groups.values() if len(names) > 1}
