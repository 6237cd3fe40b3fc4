"""A PEFT adapter of the edits' exact factors; plain ``peft`` loads it.

LoRA adds (alpha / r) B A to a weight (Hu et al., ICLR 2022). A delta is v^T u, so A = u (R, D_in),
B = v^T (D_out, R), and alpha = r.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saledit.delta import Dense, Edits, LowRank
from saledit.files import write_json, write_tensors
from saledit.models import CAUSAL, SEQ2SEQ, TaskModel

# A classifier's task type would have PEFT look for a trained head in the adapter.
_TASK_TYPES = {CAUSAL: "CAUSAL_LM", SEQ2SEQ: "SEQ_2_SEQ_LM"}


def low_rank(edits: Edits, rank: int) -> tuple[Edits, dict[str, Any]]:
    """Edits as factors of a rank at most.

    Args:
        edits: unbatched edits, not routed.
        rank: terms a site at most; 0 for as many as it takes.

    Returns:
        The edits, and ``rank`` and ``rank_error``: the largest rank, and the norm of what is cut
        off in norms of the edit.
    """
    out: dict[Any, Any] = {}
    cut = whole = 0.0
    for site, delta in edits.items():
        assert isinstance(delta, LowRank | Dense)
        exact = delta if isinstance(delta, LowRank) else _factors(delta.w)
        kept = exact.compress(rank) if rank and rank < exact.rank else exact
        out[site] = kept
        cut += float((exact + kept * -1).norm()) ** 2 if kept is not exact else 0.0
        whole += float(exact.norm()) ** 2
    ranks = [delta.rank for delta in out.values()]
    error = (cut / whole) ** 0.5 if whole else 0.0
    return Edits(out), {"rank": max(ranks, default=0), "rank_error": error}


def _factors(w: Tensor) -> LowRank:
    """A matrix (D_out, D_in) by its singular values; those below rounding are left out."""
    left, sigma, right = torch.linalg.svd(w.double(), full_matrices=False)
    n = max(1, int((sigma > torch.finfo(w.dtype).eps * sigma[0]).sum()))
    root = sigma[:n].sqrt()
    return LowRank((right[:n] * root[:, None]).to(w), (left[:, :n] * root).mT.contiguous().to(w))


def write_lora(folder: Path, base: TaskModel | None, edits: Edits, head: Mapping[str, Any]) -> None:
    """Write ``adapter_model.safetensors`` and ``adapter_config.json``.

    Args:
        folder: where.
        base: not read.
        edits: low-rank edits; of none, zeros at every site.
        head: the ledger's beginning.

    Raises:
        JobError: the disk is full.
    """
    del base
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    transposed = False
    deltas = {site.name: delta for site, delta in edits.items()}
    for row in head["sites"]:
        name = row["name"]
        delta = deltas.get(name)
        if delta is None and edits:
            continue
        if delta is None:
            delta = LowRank(torch.zeros(1, row["d_in"]), torch.zeros(1, row["d_out"]))
        assert isinstance(delta, LowRank)
        ranks[name] = delta.rank
        transposed |= row["transposed"]
        tensors[f"base_model.model.{name}.lora_A.weight"] = delta.u
        tensors[f"base_model.model.{name}.lora_B.weight"] = delta.v.mT
    most = max(ranks.values())
    others = {re.escape(name): rank for name, rank in ranks.items() if rank != most}
    write_tensors(folder / "adapter_model.safetensors", tensors, {"format": "pt"})
    write_json(
        folder / "adapter_config.json",
        {
            "peft_type": "LORA",
            "task_type": _TASK_TYPES.get(head["model"]["kind"]),
            "base_model_name_or_path": head["base_model"]["name"],
            "r": most,
            "lora_alpha": most,
            "rank_pattern": others,
            "alpha_pattern": others,
            # One expression: a list would match the ends of other modules' names as well.
            "target_modules": "|".join(re.escape(name) for name in ranks),
            "fan_in_fan_out": transposed,
            "lora_dropout": 0.0,
            "bias": "none",
            "init_lora_weights": True,
            "inference_mode": True,
            "modules_to_save": None,
        },
    )
