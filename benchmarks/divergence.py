"""The locality KL over a vocabulary, forward and backward: in one pass against autograd's own.

python benchmarks/divergence.py --positions 186 --vocabulary 49152

Both in one process, in turns; 186 positions is a training step of the SmolLM2 configurations.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from saledit.losses import locality_kl

Kl = Callable[[Tensor, Tensor], Tensor]


def plain(base: Tensor, edited: Tensor) -> Tensor:
    """The same by torch's own functions, every step of it a tensor that autograd keeps."""
    divergence = F.kl_div(
        edited.log_softmax(-1), base.log_softmax(-1), log_target=True, reduction="none"
    )
    return divergence.sum(-1).clamp_min(0)


def seconds(kl: Kl, base: Tensor, edited: Tensor) -> float:
    """Of one forward and backward pass."""
    began = time.perf_counter()
    torch.autograd.grad(kl(base, edited).mean(), edited)
    return time.perf_counter() - began


def main() -> None:
    """Time both and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--positions", type=int, default=186)
    parser.add_argument("--vocabulary", type=int, default=49152)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    base = 4 * torch.randn(args.positions, args.vocabulary)
    edited = (base + 0.1 * torch.randn_like(base)).requires_grad_()
    times: dict[str, list[float]] = {"one pass": [], "autograd": []}
    for _ in range(args.rounds):
        times["one pass"].append(seconds(locality_kl, base, edited))
        times["autograd"].append(seconds(plain, base, edited))
    for name, found in times.items():
        print(f"{name}: median {median(found) * 1e3:.0f} ms")
    print(f"ratio {median(times['autograd']) / median(times['one pass']):.1f}")


if __name__ == "__main__":
    main()
