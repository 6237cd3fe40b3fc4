"""One fix in three forms, held against each other: overlay, merged model, PEFT adapter.

    saledit fix RUN --failures f.jsonl --out fx-delta
    saledit fix RUN --failures f.jsonl --out fx-merged --format merged
    saledit fix RUN --failures f.jsonl --out fx-lora --format lora
    python benchmarks/round_trips.py fx-delta fx-merged fx-lora --records f.jsonl

Prints the largest difference of any logit from the overlay's, and how far the edit moved them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from saledit.artifact import load_edits
from saledit.building import make_task
from saledit.config import TaskConfig
from saledit.data.sources import load_records
from saledit.ledger import EditFolder
from saledit.overlay import applied
from saledit.report import quiet_libraries
from saledit.run.fixes.head import load_again


def main() -> None:
    """Load each form as its users do, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs=3, type=Path, metavar="DIR", help="delta, merged, lora")
    parser.add_argument("--records", required=True, help="data file of what is asked")
    parser.add_argument("--n", type=int, default=64, help="records of it")
    args = parser.parse_args()
    quiet_libraries()
    delta, merged, lora = args.folders
    folder = EditFolder.read(delta)
    base = load_again(folder, folder.head["base_model"]["name"])
    task = make_task(TaskConfig(**folder.head["task"]))
    samples = [record.sample for record in load_records(task, args.records)][: args.n]
    inputs = dict(task.encode(base, samples).inputs)

    @torch.no_grad()
    def logits(model: Any) -> Tensor:
        out: Tensor = model(**inputs).logits
        return out

    def apart(model: Any) -> float:
        return float((logits(model) - overlay).abs().max())

    before = logits(base.model)
    with applied(base.model, load_edits(delta, base.model)):
        overlay = logits(base.model)
    found = {"moved": float((overlay - before).abs().max())}
    found["merged"] = apart(load_again(EditFolder.read(merged), merged).model)
    adapted = PeftModel.from_pretrained(base.model, str(lora)).eval()
    found["peft"] = apart(adapted)
    found["peft, merged by it"] = apart(adapted.merge_and_unload())
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
