"""Training steps with the suffix compiled by ``torch.compile`` beside the same ones as they are.

    python benchmarks/compiled.py --layer 20
    python benchmarks/compiled.py --config nli/quickstart --layer 2

Blocks above the edited one are compiled one by one (``Module.compile``, dynamic shapes), where no
hook of an edit hangs; batches are the same ones in the same order, the two ways in turns. What
compiling takes is told apart: it is paid in every process, and again for shapes that were not met.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time

import torch
from growth import STEPS
from torch.nn.utils import clip_grad_norm_

from saledit import config as configuration
from saledit.building import make_editor, make_search
from saledit.data.datamodule import Episodes
from saledit.module import EditModule
from saledit.report import Ui, quiet_libraries, use_threads
from saledit.run.setup.caching import banks_of, takes_moments
from saledit.run.setup.prepare import Prepared, prepare
from saledit.verbs import positive


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="qa/quickstart")
    parser.add_argument("--layer", type=int, default=20)
    parser.add_argument("--steps", type=positive, default=9)
    parser.add_argument("--threads", type=positive, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="key=value")
    args = parser.parse_args()
    quiet_libraries()
    use_threads(args.threads)
    with tempfile.TemporaryDirectory(prefix="compiled-") as work, Ui(quiet=True) as ui:
        own = (*STEPS, f"site.layer={args.layer}", f"output={work}", *args.set)
        prepared = prepare(configuration.load(args.config, own), ui)
        measure(prepared, args)


def measure(prepared: Prepared, args: argparse.Namespace) -> None:
    """Time steps of both kinds."""
    config, base, task = prepared.config, prepared.base, prepared.task
    c, t, k = config.editor, config.train, config.schedule.batch_size
    layer = base.layer(config.site.layer)
    torch.manual_seed(config.seed)
    editor = make_editor(c, layer.sites, base.embedding_size)
    moments = takes_moments(prepared, editor)
    banks = banks_of(prepared, prepared.train, layer, editor, moments)
    length = args.steps + 2
    episodes = Episodes(
        banks, k, t.edits(k), t.passes_per_edit, c.gradient_rank, length, config.seed, 0, t.made
    )
    editor.prime(episodes[0].terms.pairs, banks.passing.moments() if moments else None)
    module = EditModule(
        base, task, editor, banks.fail.entry, config.loss, t, make_search(c)
    )  # fmt: skip
    module.train()
    optimizer = module.configure_optimizers()
    above = [base.block(i) for i in range(layer.index + 1, base.n_blocks)]
    for block in above:
        block.compile(dynamic=True)
    calls = [block._compiled_call_impl for block in above]

    def step(i: int, is_compiled: bool) -> tuple[float, float]:
        for block, call in zip(above, calls, strict=True):
            block._compiled_call_impl = call if is_compiled else None
        began = time.perf_counter()
        loss = module.training_step(episodes[i], 0)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        clip_grad_norm_(editor.parameters(), t.gradient_clip)
        seconds = time.perf_counter() - began
        return seconds, float(loss)

    plain, fast, apart = [], [], []
    for i in range(length):
        one, other = step(i, False), step(i, True)
        plain.append(one[0])
        fast.append(other[0])
        apart.append(abs(one[1] - other[1]))
        print(f"step {i}: as it is {one[0]:.3f} s, compiled {other[0]:.3f} s", flush=True)
    ratio = statistics.median(fast[2:]) / statistics.median(plain[2:])
    print(f"{args.config}, layer {layer.index}, {len(above)} blocks compiled: {ratio:.2f} of the "
          f"time; the first two steps took {sum(fast[:2]):.0f} s; losses differ by at most "
          f"{max(apart):.1g}")  # fmt: skip


if __name__ == "__main__":
    main()
