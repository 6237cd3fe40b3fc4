"""Small language models that know something: untrained ones, and facts to teach them.

    python benchmarks/small_models.py --family t5 --out small/t5
    saledit fit small/t5/run.yaml
    saledit test small/t5/runs/small

The script writes a model with random weights, a byte-level BPE tokenizer made from the facts of
``data/worldfacts``, and these facts divided by subject: three tenths for the model to learn
(``saledit fit`` fine-tunes it on them, in minutes), and the rest, which it therefore gets wrong,
for training and testing an editor. Of what the model learns, most is shown to the editor as what
works, and a tenth of all facts is kept for the test: an editor may not disturb what it never saw.
So the encoder-decoder path runs on a model that knows something, without a download. The folder's
``run.yaml`` names all of it.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
from omegaconf import OmegaConf
from tokenizers import ByteLevelBPETokenizer
from transformers import PreTrainedTokenizerFast

FACTS = Path(__file__).resolve().parent.parent / "data" / "worldfacts"
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
SIZE, BLOCKS, HEADS, VOCABULARY = 256, 4, 4, 4000
_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_ENCODER_DECODER = {"d_model": SIZE, "decoder_start_token_id": 0, **_IDS}

# Without dropout: facts are to be learnt by heart.
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": (
        "GPT2LMHeadModel",
        {"n_embd": SIZE, "n_layer": BLOCKS, "n_head": HEADS, "n_positions": 128}
        | {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        | _IDS,
    ),
    "t5": (
        "T5ForConditionalGeneration",
        {"d_ff": 4 * SIZE, "d_kv": SIZE // HEADS, "num_layers": BLOCKS, "num_heads": HEADS}
        | {"dropout_rate": 0.0}
        | _ENCODER_DECODER,
    ),
    "bart": (
        "BartForConditionalGeneration",
        {f"{side}_{what}": value for side in ("encoder", "decoder") for what, value in (
            ("layers", BLOCKS), ("attention_heads", HEADS), ("ffn_dim", 4 * SIZE),
        )}
        | {"max_position_embeddings": 128, "forced_eos_token_id": None, "dropout": 0.0}
        | _ENCODER_DECODER,
    ),
}  # fmt: skip

#: How each learns its facts, where ``configs/qa/small.yaml`` does not fit it.
LESSONS: dict[str, dict[str, Any]] = {
    "bart": {"epochs": 40, "learning_rate": 5e-4, "warmup": 0.1},
}


def facts() -> list[dict[str, Any]]:
    """All completions of worldfacts."""
    rows = []
    for part in ("train", "test"):
        with gzip.open(FACTS / f"completions_{part}.jsonl.gz", "rt", encoding="utf-8") as lines:
            rows += [json.loads(line) for line in lines]
    return rows


#: File: which subjects it holds, as (from, to) of their hashes. What is known and not shown is in
#: the test, as what has to stay right.
FILES = {"known": (0, 0.3), "shown": (0, 0.2), "test": (0.2, 0.45), "unknown": (0.45, 1)}


def place(row: dict[str, Any]) -> float:
    """A number in [0, 1) by a fact's subject alone."""
    return hashlib.sha256(row["subject"].encode()).digest()[0] / 256


def holds(part: str, row: dict[str, Any]) -> bool:
    """Whether a file holds a fact."""
    low, high = FILES[part]
    return low <= place(row) < high


def tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of these texts."""
    backend = ByteLevelBPETokenizer()
    backend.train_from_iterator(texts, VOCABULARY, special_tokens=list(SPECIAL))
    names = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend._tokenizer, model_max_length=128, **names
    )


def run_config(folder: Path, family: str) -> dict[str, Any]:
    """The configuration of the run, with paths that hold from everywhere."""
    files = {part: str(folder / f"{part}.jsonl") for part in FILES}
    return {
        "include": "qa/small",
        "output": str(folder / "runs"),
        "model": {
            "name": str(folder / "model"),
            "finetune": {"data": files["known"], **LESSONS.get(family, {})},
        },
        "data": {
            "train": files["unknown"],
            "test": files["test"],
            "locality": [files["shown"]],
        },
    }


def main() -> None:
    """Write the model, the facts and the configuration."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", choices=sorted(CONFIGS), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rows = facts()
    words = tokenizer(f"Fact: {text} {r['answer']}." for r in rows
                      for text in (r["question"], *r["rephrases"]))  # fmt: skip
    name, settings = CONFIGS[args.family]
    kind = getattr(transformers, name)
    torch.manual_seed(args.seed)
    model = kind(kind.config_class(vocab_size=len(words), **settings))
    model.save_pretrained(args.out / "model")
    words.save_pretrained(args.out / "model")
    for part in FILES:
        chosen = [json.dumps(row, ensure_ascii=False) for row in rows if holds(part, row)]
        text = "".join(f"{line}\n" for line in chosen)
        (args.out / f"{part}.jsonl").write_text(text, encoding="utf-8")
        print(f"{part}: {len(chosen)} facts")
    run = args.out / "run.yaml"
    OmegaConf.save(OmegaConf.create(run_config(args.out.resolve(), args.family)), run)
    size = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"{name}: {size:.1f} M parameters; next: saledit fit {run}")


if __name__ == "__main__":
    main()
