"""What a run on a larger model takes: operations, hours, memory and disk, by counting.

    python benchmarks/estimate.py --failures 1000000
    python benchmarks/estimate.py --like llama-3-70b --layer 70 --gpu-tflops 989
    python benchmarks/estimate.py --check size.json layer.json

Matrix products are all that is counted: two operations for each weight and token forward, and two
on the way back (the base is frozen, so its weights have no gradients). Bytes are those of the
caches (docs/scaling.md). Hours follow from what a device can do and the share of it that is
reached, which is an assumption of yours (``--share``).

``--check`` holds the counts against measured points of ``growth.py size`` and ``layer``: operations
a second have to come out alike whatever the model's size and the layer.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from made_up import SHAPES

from saledit.verbs import positive

LARGER = {
    "llama-3-70b": {
        "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
        "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256,
    },
    "smollm2-135m": {
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
    },
}  # fmt: skip
KNOWN = {**SHAPES, **LARGER}


@dataclass(frozen=True)
class Shape:
    """A Llama-shaped model.

    Attributes:
        d: size of states.
        f: inside of an MLP.
        n: blocks.
        kv: keys and values for each query.
        v: vocabulary.
    """

    d: int
    f: int
    n: int
    kv: float
    v: int

    @classmethod
    def of(cls, sizes: dict[str, Any]) -> Shape:
        """Of a configuration's sizes."""
        kv = sizes["num_key_value_heads"] / sizes["num_attention_heads"]
        n = sizes["num_hidden_layers"]
        return cls(
            sizes["hidden_size"], sizes["intermediate_size"], n, kv, sizes["vocab_size"]
        )  # fmt: skip

    @property
    def block(self) -> float:
        """Weights of a block."""
        return self.attention + self.mlp

    @property
    def attention(self) -> float:
        """Weights of its attention."""
        return self.d * self.d * (2 + 2 * self.kv)

    @property
    def mlp(self) -> float:
        """Weights of its MLP, three matrices."""
        return 3 * self.d * self.f

    @property
    def weights(self) -> float:
        """All of them; embeddings and head apart."""
        return self.n * self.block + 2 * self.v * self.d

    def suffix(self, layer: int) -> float:
        """Weights that a suffix run goes through: the edited MLP and the blocks above."""
        return self.mlp + (self.n - 1 - layer) * self.block


@dataclass(frozen=True)
class Run:
    """What is to be done.

    Attributes:
        layer: the edited block.
        failures: of the training part; each has a rewording and a pass sample beside it.
        tokens: of a sample.
        scored: tokens of an answer.
        steps: training steps.
        edits: edits a step.
        rows: rows of an edit.
        rank: terms kept of a sample's gradient.
        cache_bytes: of a cached number.
    """

    layer: int
    failures: int
    tokens: float
    scored: float
    steps: int
    edits: int
    rows: int
    rank: int
    cache_bytes: int


def asking(s: Shape, r: Run) -> float:
    """Operations: two records for each failure are read and answered."""
    return 2 * r.failures * 2 * (s.weights - s.v * s.d) * (r.tokens + r.scored)


def caching(s: Shape, r: Run) -> float:
    """Operations: a forward pass of three samples for each failure, and one's way back."""
    forward = 2 * (s.n * s.block * r.tokens + s.v * s.d * r.scored)
    back = 2 * (s.suffix(r.layer) * r.tokens + s.v * s.d * r.scored)
    return r.failures * (3 * forward + back)


def step(s: Shape, layer: int, tokens: float, scored: float) -> float:
    """Operations of a training step over so many tokens in all, so many of them scored."""
    # The last MLP sees scored positions alone.
    inner = s.suffix(layer) - s.mlp
    return 4 * (inner * tokens + s.mlp * scored + s.v * s.d * scored)


def disk_bytes(s: Shape, r: Run) -> dict[str, float]:
    """What lies on disk, by part."""
    sites = 3 * (s.d + s.f)  # D_in + D_out of gate, up and down
    return {
        "model": 2 * s.weights,
        "states": 3 * r.failures * 2 * r.tokens * s.d * r.cache_bytes,
        "factors": r.failures * r.rank * sites * r.cache_bytes,
        "outputs and tokens": 3 * r.failures * (r.scored * s.d + 2 * r.tokens) * 4,
        "second moments": 8 * (s.d**2 + s.f**2),  # once a bank; gate and up read one input
    }


def memory_bytes(s: Shape, r: Run, hypernet_rank: int) -> dict[str, float]:
    """What a device holds in training, by part; the base in 2 bytes a weight."""
    widths = (s.d + s.f, s.d + s.f)  # gate and up share a network, down has one
    editor = sum(2 * 2 * width * hypernet_rank + 4 * width for width in widths)
    whitening = 8 * (2 * s.d**2 + s.f**2)
    inside = (10 * s.d + 3 * s.f) * 2  # activations of a token in a block
    return {
        "whole base": 2 * s.weights,
        "suffix of the base": 2 * (s.suffix(r.layer) + s.v * s.d),
        "one block": 2 * s.block,
        "editor, Adam and gradients": 16 * editor + whitening,
        "activations": r.edits * r.rows * r.tokens * inside * (s.n - r.layer)
        + 3 * 4 * r.edits * r.rows * r.scored * s.v,
    }


def check(paths: list[Path]) -> None:
    """Operations a second of measured training steps and cached samples."""
    print("| point | weights | blocks run | step GFLOP | step s | GFLOP/s | caching GFLOP/s |")
    print("|---|---|---|---|---|---|---|")
    for path in paths:
        for row in json.loads(path.read_text(encoding="utf-8"))["fitted"]["rows"]:
            sizes = row["shape"]
            s, layer = Shape.of(sizes), sizes["num_hidden_layers"] - row["blocks"]
            done = step(s, layer, row["step_tokens"], row["step_scored"]) / 1e9
            r = Run(layer, 1, row["sample_tokens"], row["sample_scored"], 1, 1, 1, 1, 4)
            cached = caching(s, r) / 1e9 / 3 / row["caching_seconds"]
            print(
                f"| {path.stem} | {row['parameters']:,} | {row['blocks']} | {done:.1f} | "
                f"{row['step_seconds']:.3f} | {done / row['step_seconds']:.0f} | {cached:.0f} |"
            )


def report(name: str, s: Shape, r: Run, args: argparse.Namespace) -> None:
    """Print what a run takes."""
    each = args.gpu_tflops * 1e12 * args.share
    tokens, scored = r.edits * r.rows * r.tokens, r.edits * r.rows * r.scored
    parts = {
        "asking": asking(s, r),
        "caching": caching(s, r),
        f"training, {r.steps:,} steps": r.steps * step(s, r.layer, tokens, scored),
    }
    print(f"{name}: {s.weights / 1e9:.1f} billion weights, layer {r.layer} of {s.n}, "
          f"{r.failures:,} failures of {r.tokens:g} tokens\n")  # fmt: skip
    print("| | 10^15 operations | GPU hours |\n|---|---|---|")
    for part, operations in {**parts, "all": sum(parts.values())}.items():
        print(f"| {part} | {operations / 1e15:,.1f} | {operations / each / 3600:,.2f} |")
    print("\n| on disk | GB |\n|---|---|")
    for part, size in disk_bytes(s, r).items():
        print(f"| {part} | {size / 1e9:,.1f} |")
    print("\n| in a device's memory, while training | GB |\n|---|---|")
    for part, size in memory_bytes(s, r, args.hypernet_rank).items():
        print(f"| {part} | {size / 1e9:,.1f} |")


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--like", choices=list(KNOWN), default="llama-3-8b")
    parser.add_argument("--layer", type=int, default=-6, help="negative counts from the top")
    parser.add_argument("--failures", type=positive, default=1_000_000)
    parser.add_argument("--tokens", type=float, default=40.0, help="of a sample")
    parser.add_argument("--scored", type=float, default=8.0, help="tokens of an answer")
    parser.add_argument("--steps", type=positive, default=10_000)
    parser.add_argument("--edits", type=positive, default=16, help="a step")
    parser.add_argument("--rows", type=positive, default=10, help="of an edit")
    parser.add_argument("--rank", type=positive, default=8, help="editor.sample_rank")
    parser.add_argument("--hypernet-rank", type=positive, default=256, help="editor.mend.rank")
    parser.add_argument("--cache-bytes", type=positive, default=4, help="2 with caches.dtype")
    parser.add_argument("--gpu-tflops", type=float, default=989.0, help="H100, dense bfloat16")
    parser.add_argument("--share", type=float, default=0.3, help="of it that is reached")
    parser.add_argument("--check", type=Path, nargs="+", metavar="JSON")
    args = parser.parse_args()
    if args.check:
        check(args.check)
        return
    s = Shape.of(KNOWN[args.like])
    r = Run(
        args.layer % s.n, args.failures, args.tokens, args.scored, args.steps, args.edits,
        args.rows, args.rank, args.cache_bytes,
    )  # fmt: skip
    report(args.like, s, r, args)


if __name__ == "__main__":
    main()
