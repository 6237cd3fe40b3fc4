"""What it costs that a process's threads wait for each other awake or asleep.

    python benchmarks/waiting.py --seconds 8 --rounds 5

Plain training steps of a small encoder (MiniLM's size, random weights, 32 texts of 24 tokens) in
processes of their own, with all processor threads: once as GNU's OpenMP has it, where threads that
wait for the others turn round and round for a while, and once with ``GOMP_SPINCOUNT=10000``, which
the command line sets where nobody else has. They take turns; alone, and beside as many busy
processes as there are processors. Prints medians of seconds a step, and the median of the ratios.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

_BUSY = "while True: pass"
_POLICIES = {"as it is": {}, "as set": {"GOMP_SPINCOUNT": "10000"}}


def steps(seconds: float) -> float:
    """Seconds a step of training takes in this process."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    size = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6}
    model = BertForSequenceClassification(BertConfig(num_attention_heads=12, **size))
    optimizer = torch.optim.AdamW(model.parameters())
    texts, labels = torch.randint(0, 30000, (32, 24)), torch.randint(0, 2, (32,))

    def step() -> None:
        model(texts, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    began, n = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        step()
        n += 1
    return (time.perf_counter() - began) / n


def measured(seconds: float, policy: dict[str, str]) -> float:
    """The same in a process with a policy."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    call = [sys.executable, __file__, "--child", "--seconds", str(seconds)]
    found = subprocess.run(call, env=plain | policy, check=True, capture_output=True, text=True)
    return float(found.stdout)


def main() -> None:
    """Measure both, by turns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(steps(args.seconds))
        return
    for where, others in (("alone", 0), ("beside busy processes", os.cpu_count() or 1)):
        busy = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(others)]
        try:
            rounds = [
                [measured(args.seconds, policy) for policy in _POLICIES.values()]
                for _ in range(args.rounds)
            ]
        finally:
            for process in busy:
                process.kill()
        times = zip(_POLICIES, zip(*rounds, strict=True), strict=True)
        told = ", ".join(f"{name} {statistics.median(own):.3f} s a step" for name, own in times)
        ratio = statistics.median(own / ours for own, ours in rounds)
        print(f"{where}: {told}; {ratio:.2f} times as long as it is as set", flush=True)


if __name__ == "__main__":
    main()
