"""How many pass answers a change of the number format loses, with no edit at all.

    python benchmarks/precision.py --data FOLDER --group qa --sets pararel worldfacts

A pass sample is one that the model gets right, by however little. What serving the same weights in
another format loses is the scale on which to read an edit's drawdown: below it an edit disturbs
less than a deployment does that nobody calls an edit. Each set is the test split's pass samples of
its configuration, judged as spoken freely (greedy), the unedited float32 model being right on all.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import torch
from table import files
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from saledit import config as configuration
from saledit.forward.scoring import base_logits
from saledit.models import TaskModel
from saledit.records import Sample
from saledit.report import Ui, quiet_libraries
from saledit.run.setup.prepare import prepare
from saledit.tasks.base import Task
from saledit.tasks.batching import batches_by_length
from saledit.tasks.text import TextTask


@torch.no_grad()
def right(base: TaskModel, task: Task, samples: Sequence[Sample]) -> Tensor:
    """Whether each sample is answered right: bool (N,)."""
    found = torch.zeros(len(samples), dtype=torch.bool)
    for batch in batches_by_length(task, base, samples, 4096):
        targets = batch.encoded.targets
        logits = base_logits(base, batch.encoded.inputs, batch.encoded.at).float()
        if isinstance(task, TextTask):
            assert batch.encoded.scored is not None
            ok = task.spoken(base, logits[batch.encoded.scored], targets)
        else:
            ok = task.correct(logits, targets)
        found[torch.as_tensor(batch.index)] = ok
    return found


@torch.no_grad()
def int8_weights(model: nn.Module) -> None:
    """Round the weights of each output of the linear maps, the head left out, to 255 levels."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    for module in model.modules():
        if isinstance(module, nn.Linear | Conv1D) and module is not head:
            inputs = 0 if isinstance(module, Conv1D) else 1  # Conv1D of GPT-2 is transposed
            step = module.weight.abs().amax(inputs, keepdim=True).clamp_min(1e-12) / 127
            module.weight.copy_((module.weight / step).round() * step)


FORMATS: dict[str, Callable[[nn.Module], object]] = {
    "bfloat16": lambda model: model.to(torch.bfloat16),
    "float16": lambda model: model.to(torch.float16),
    "int8 weights": int8_weights,
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder with one folder a set; none for bundled sets")
    parser.add_argument("--group", default="qa", help="folder of configurations: nli, qa")
    parser.add_argument("--sets", nargs="+", default=["worldfacts"])
    parser.add_argument("--out", default="checkpoints/qa-table", help="where the caches are")
    parser.add_argument("--set", nargs="*", default=[], help="further key=value overrides")
    args = parser.parse_args()
    quiet_libraries()
    print(f"| set | pass samples | lost in {' | lost in '.join(FORMATS)} |")
    print("|" + "---|" * (2 + len(FORMATS)))
    with Ui() as ui:
        for name in args.sets:
            overrides = [f"output={args.out}", *files(args, name), *args.set]
            prepared = prepare(configuration.load(f"{args.group}/{name}", overrides), ui)
            base, task, samples = prepared.base, prepared.task, prepared.test.passing
            known = right(base, task, samples)
            weights = {k: v.clone() for k, v in base.model.state_dict().items()}
            shares = []
            for change in FORMATS.values():
                change(base.model)
                lost = int((known & ~right(base, task, samples)).sum())
                shares.append(f"{lost} ({lost / max(1, int(known.sum())):.4f})")
                base.model.float().load_state_dict(weights)
            print(f"| {name} | {int(known.sum())} | " + " | ".join(shares) + " |", flush=True)


if __name__ == "__main__":
    main()
