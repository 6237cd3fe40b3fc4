"""How costs grow: with failures, with the model's size, with the depth of the edited layer.

    python benchmarks/growth.py failures --out failures.json --plot failures.png
    python benchmarks/growth.py size --sizes 128:4 256:8 512:12 1024:16 --out size.json
    python benchmarks/growth.py size --stream --max-parameters 5e7 --plot size.png
    python benchmarks/growth.py layer --layers 2 9 16 23 28 --out layer.json --plot layer.png

*failures*: ``saledit fit`` of N failures and the pass samples beside them on a tiny random
classifier, from reading the data to the editor on disk, with so many training steps whatever N.
Labels are drawn, so two thirds of the records are failures. Stages: *reading* the data; *loading*
the model, with the division of the records; *asking* the model; *caching*; *training*; and *other*,
what lies between these. Caches are bounded by ``--memory-mb``; *on disk* is all of their folder.

*size*: made-up Llamas (``made_up.py``) of hidden:layers, edited at the middle layer. They answer
real questions, all wrongly; what they say is what must not change.

*layer*: one model, edited at several layers. A training step runs the blocks from the edited one
upward: their number is what costs are fitted against.

Of *size* and *layer*: medians of training steps (Adam and clipping included) and of single fixes
from text to edit (``EditSession.step``), and the time of caching a sample. The editor is mend as
it is before training, without a search for the edit's length, so all points do the same work.

Each point is measured in a process of its own, on the CPU. *MB* is the largest resident size
(VmHWM) above that of the process when everything is imported and nothing is done; *anonymous* and
*mapped* (of files) are what of it is there at the end. Some 30 MB of every point are the libraries'
own code, which comes into memory when it first runs. Points that ``--out`` has already, with the
same settings, are not measured again, so a run that was cut off goes on.

Below the table: the exponents b of y = a x^b, fitted by least squares to the logarithms, with their
standard errors, and the slope between the last two points, where fixed costs weigh least.

Linux only: memory is read from /proc.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import made_up
from children import CLEAR, in_a_child
from growth_curves import Column, Curve
from growth_models import disk_mb, divisor, pairs, parameters_of, tiny_classifier, word_pieces
from growth_plots import fits_of, plot, table
from growth_points import CLOCKS, OTHER, STAGES, Job, measure
from transformers import (
    LlamaConfig,
)

from saledit.artifact import versions
from saledit.errors import SaleditError, UserError
from saledit.files import write_json, write_jsonl
from saledit.report import quiet_libraries, use_threads
from saledit.verbs import positive

# What all runs of a curve share; ``--set`` comes behind it.
FAILURES = (
    "task.name=nli", "task.max_length=64", "site.select=fixed", "site.layer=1",
    "editor.mend.rank=6", "schedule.batch_size=2", "train.made=0", "data.adapt.rewrite=false",
    "data.adapt.similarity_model=", "data.max_test_failures=50", "data.max_test_passes=50",
    "train.epochs=1", "train.edits_per_step=4", "train.passes_per_edit=8",
    "train.validation_edits=8", "train.validation_passes=8", "trainer.accelerator=cpu",
)  # fmt: skip
STEPS = (
    "data.limit=600", "data.max_failures=64", "data.max_passes=64", "train.made=0",
    "train.edits_per_step=4", "train.passes_per_edit=5", "train.decay=false",
    "schedule.batch_size=1", "editor.steps=[1.0]", "site.select=fixed",
    "trainer.precision=32-true", "trainer.accelerator=cpu",
)  # fmt: skip
# An answer has as many tokens as the right one: a random model would never come to an end.
MADE_UP = ("task.stop=", "task.max_length=128", "model.dtype=float32")


def _done(job: Job) -> dict[str, Any]:
    return in_a_child(__file__, "child", asdict(job), job.what)


# ------------------------------------------------------------------------------- curves


class Failures(Curve):
    """Fits of more and more failures."""

    x, x_label = "failures", "failures N in the training part"
    columns = (
        Column("failures", "failures", ",.0f", is_fitted=False),
        Column("samples", "cached", ",.0f", is_fitted=False),
        Column("seconds", "all s"),
        *(Column(f"{kind}_seconds", f"{kind} s") for kind in (*STAGES.values(), OTHER)),
        Column("peak_mb", "peak MB", ".1f"),
        Column("anonymous_mb", "anonymous MB", ".1f"),
        Column("files_mb", "mapped MB", ".1f"),
        Column("banks_mb", "banks MB", ".1f"),
        Column("disk_mb", "on disk MB", ".1f"),
        Column("hit_rate", "hit rate", ".2f", is_fitted=False),
        Column("times_dropped", "dropped", ".0f", is_fitted=False),
    )
    panels: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "seconds": {
            "seconds": "all",
            **{f"{kind}_seconds": kind for kind in (*STAGES.values(), OTHER)},
        },
        "MB above the interpreter's": {
            "peak_mb": "largest resident size",
            "anonymous_mb": "anonymous at the end",
            "files_mb": "mapped files at the end",
            "disk_mb": "caches on disk",
        },
    }

    def points(self) -> list[dict[str, Any]]:
        """A point for each number of failures."""
        a = self.args
        more = (f"train.steps_per_epoch={a.steps}", f"caches.memory_mb={a.memory_mb}")
        return [{**self.common((*FAILURES, *more)), "failures": n} for n in sorted({*a.sizes})]

    def measure(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Fit on records of which so many are failures of the training part."""
        n, model, data = point["failures"], self.work / "model", self.work / "records.jsonl"
        if not model.exists():
            tiny_classifier(model)
        # Two thirds are failures, and some are spare: so many that the draw hardly ever matters.
        records = math.ceil(1.02 * (1.6 * n + 100)) + 140
        write_jsonl(data, pairs(records))
        output, share = self.work / "output", max(0.01, 60 / records)
        own = (
            f"output={output}", "name=run", f"model.name={model}", f"data.train={data}",
            f"data.max_failures={n}", f"data.max_passes={n}", f"data.validation={share}",
            f"data.test_share={share}",
        )  # fmt: skip
        done = _done(self.job("fit", None, (*point["settings"], *own), str(n)))
        taken, found = done["taken"], done["found"]
        splits, cache = found["splits"], found["cache"]
        stages = {kind: taken["stages"].get(kind) for kind in (*STAGES.values(), OTHER)}
        kinds = ("fail", "adapt", "pass", "made")
        cached = [splits[part][kind] for part in ("train", "validation") for kind in kinds]
        values = {
            "failures": splits["train"]["fail"],
            "samples": sum(cached),
            **{key: value for key, value in taken.items() if key != "stages"},
            **{f"{kind}_seconds": part["seconds"] if part else 0 for kind, part in stages.items()},
            **{key: cache[key] for key in ("hit_rate", "times_dropped")},
            "banks_mb": cache["size_mb"],
            "disk_mb": disk_mb(output / "cache"),
        }
        shutil.rmtree(output)
        return {"values": values, "stages": taken["stages"], "splits": splits, "cache": cache}


class Stepwise(Curve):
    """What training, caching and fixing take of one model at one layer."""

    _COSTS = (
        Column("step_seconds", "step ms", ".1f", 1e3),
        Column("edits_per_second", "edits/s", ".2f"),
        Column("fix_seconds", "fix ms", ".1f", 1e3),
        Column("caching_seconds", "caching ms a sample", ".2f", 1e3),
        Column("peak_mb", "peak MB", ".1f"),
        Column("training_peak_mb", "training MB", ".1f"),
    )
    panels: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "seconds": {
            "step_seconds": "a training step",
            "fix_seconds": "the fix of a failure",
            "caching_seconds": "caching a sample",
        },
        "MB above the interpreter's": {
            "peak_mb": "largest resident size",
            "training_peak_mb": "while training",
            "weights_mb": "the model's weights",
        },
    }

    def common(self, shared: Sequence[str]) -> dict[str, Any]:
        """And how much is timed."""
        a = self.args
        stream = (f"model.stream={str(a.stream).lower()}",)
        counts = {"steps": a.steps, "fixes": a.fixes}
        return {**super().common((*STEPS, *shared, *stream)), **counts}

    def measured(
        self, point: Mapping[str, Any], config: str, own: Sequence[str], name: str
    ) -> dict[str, Any]:
        """Ask the model in one process, and measure in another one."""
        settings = (*point["settings"], *own, "name=run")
        _done(self.job("prepare", config, settings, name))
        counts = (point["steps"], point["fixes"])
        done = _done(self.job("steps", config, settings, name, *counts))
        taken, found = done["taken"], done["found"]
        rounds = {key: found.pop(key) for key in ("all_steps", "all_fixes")}
        peaks = {f"{kind}_peak_mb": part["peak_mb"] for kind, part in taken["stages"].items()}
        whole = {key: value for key, value in taken.items() if key != "stages"}
        return {"values": {**whole, **peaks, **found}, "stages": taken["stages"], **rounds}


class Size(Stepwise):
    """Larger and larger made-up models."""

    x, x_label = "parameters", "parameters"
    columns = (
        Column("hidden", "hidden", ".0f", is_fitted=False),
        Column("n_layers", "layers", ".0f", is_fitted=False),
        Column("parameters", "parameters", ",.0f", is_fitted=False),
        Column("weights_mb", "weights MB", ".1f", is_fitted=False),
        *Stepwise._COSTS,
    )

    def __init__(self, args: argparse.Namespace, work: Path) -> None:
        super().__init__(args, work)
        known = args.tokenizer
        self._tokenizer = made_up.load_tokenizer(known) if known else word_pieces(args.vocab)

    def points(self) -> list[dict[str, Any]]:
        """A point for each size; the smallest model comes first."""
        a = self.args
        shared = {**self.common(MADE_UP), "tokenizer": a.tokenizer, "vocab": a.vocab}
        sized = {parameters_of(self._shape(*size)): size for size in a.sizes}
        for n, (hidden, layers) in sorted(sized.items()):
            if a.max_parameters and n > a.max_parameters:
                print(f"{hidden}:{layers} left out: {n:,} parameters", file=sys.stderr)
        return [
            {**shared, "hidden": hidden, "n_layers": layers}
            for n, (hidden, layers) in sorted(sized.items())
            if not a.max_parameters or n <= a.max_parameters
        ]

    def measure(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Write the model, measure at its middle layer, and remove it."""
        hidden, layers = point["hidden"], point["n_layers"]
        name = f"{hidden}-{layers}"
        model, output = self.work / f"model-{name}", self.work / f"output-{name}"
        made_up.write(model, self._shape(hidden, layers), self._tokenizer, 1 << 30)
        own = (f"output={output}", f"model.name={model}", f"site.layer={layers // 2}")
        found = self.measured(point, "qa/worldfacts", own, name)
        shutil.rmtree(model)
        shutil.rmtree(output)
        found["values"] |= {"hidden": hidden, "n_layers": layers}
        return found

    def tick(self, x: float) -> str:
        """In millions."""
        return f"{x / 1e6:.3g} M"

    def _shape(self, hidden: int, layers: int) -> LlamaConfig:
        heads = divisor(hidden, hidden // 64)
        sizes = {
            "layers": layers,
            "hidden": hidden,
            "intermediate": 5 * hidden // 2,
            "heads": heads,
            "kv-heads": divisor(heads, heads // 4),
            "vocab": max(self.args.vocab, len(self._tokenizer)),
        }
        return made_up.config_of(made_up.shape_of("llama-3-8b", sizes), self._tokenizer)


class Depth(Stepwise):
    """One model, edited at several layers."""

    x, x_label = "blocks", "blocks from the edited one upward"
    columns = (
        Column("layer", "layer", ".0f", is_fitted=False),
        Column("blocks", "blocks run", ".0f", is_fitted=False),
        *Stepwise._COSTS,
    )

    def points(self) -> list[dict[str, Any]]:
        """A point for each layer, the top one first."""
        a = self.args
        shared = {**self.common(()), "config": a.config}
        return [{**shared, "layer": layer} for layer in sorted({*a.layers}, reverse=True)]

    def measure(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Measure at the layer; what the model answers is asked once for all of them."""
        layer = point["layer"]
        own = (f"output={self.work / 'output'}", f"site.layer={layer}")
        return self.measured(point, point["config"], own, str(layer))


CURVES: dict[str, type[Curve]] = {"failures": Failures, "size": Size, "layer": Depth}


# ------------------------------------------------------------------------------- fits, outputs


class Record:
    """The points that are known, on disk where a file is named.

    Args:
        path: the JSON file; None for none.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: list[dict[str, Any]] = []
        if path is not None and path.exists():
            self._known = json.loads(path.read_text(encoding="utf-8"))["points"]

    def find(self, point: Mapping[str, Any]) -> dict[str, Any] | None:
        """What was measured of a point; None where nothing was."""
        wanted = json.loads(json.dumps(point))
        return next((known for known in self._known if known["point"] == wanted), None)

    def add(self, point: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, Any]:
        """Keep what was measured of a point."""
        self._known.append({"point": dict(point), **measured, "versions": versions()})
        self.write()
        return self._known[-1]

    def write(self, **more: Any) -> None:
        """Write the file."""
        if self._path is not None:
            about = {"platform": platform.platform(), "cores": os.cpu_count(), **more}
            write_json(self._path, {**about, "points": self._known})


# ------------------------------------------------------------------------------- command line


def pair(text: str) -> tuple[int, int]:
    """HIDDEN:LAYERS, for ``ArgumentParser``."""
    hidden, colon, layers = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"expected HIDDEN:LAYERS, got '{text}'")
    if positive(hidden) % 2:
        raise argparse.ArgumentTypeError(f"expected an even number in front of ':', got {hidden}")
    return positive(hidden), positive(layers)


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    curves = parser.add_subparsers(dest="curve", required=True, metavar="{failures,size,layer}")
    both = argparse.ArgumentParser(add_help=False)
    both.add_argument("--out", type=Path, help="JSON file to write, and to go on from")
    both.add_argument("--plot", type=Path, help="figure to write, .png or .svg")
    both.add_argument("--work", type=Path, help="folder for models and caches (default: temporary)")
    both.add_argument("--threads", type=positive, default=1)
    both.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu on a busy machine")
    both.add_argument("--set", action="append", default=[], metavar="key=value")
    steps = argparse.ArgumentParser(add_help=False)
    steps.add_argument("--stream", action="store_true", help="leave the weights on disk")
    steps.add_argument("--steps", type=positive, default=7, help="training steps to time")
    steps.add_argument("--fixes", type=positive, default=7, help="fixes to time")

    one = curves.add_parser("failures", parents=[both], help=Failures.__doc__)
    sizes = [1_000, 3_162, 10_000, 31_623, 100_000]
    one.add_argument("--sizes", type=positive, nargs="+", default=sizes, metavar="N")
    one.add_argument("--memory-mb", type=int, default=64, help="caches.memory_mb")
    one.add_argument("--steps", type=positive, default=40, help="training steps")

    one = curves.add_parser("size", parents=[both, steps], help=Size.__doc__)
    shapes = [(128, 4), (256, 8), (512, 12), (1024, 16)]
    one.add_argument("--sizes", type=pair, nargs="+", default=shapes, metavar="HIDDEN:LAYERS")
    one.add_argument("--max-parameters", type=float, default=0, metavar="N", help="leave out more")
    one.add_argument("--tokenizer", default="", help="a model that has one (default: made here)")
    one.add_argument("--vocab", type=positive, default=4096, help="tokens, at least")

    one = curves.add_parser("layer", parents=[both, steps], help=Depth.__doc__)
    one.add_argument("--config", default="qa/quickstart")
    one.add_argument("--layers", type=int, nargs="+", default=[2, 9, 16, 23, 28])

    curves.add_parser("child").add_argument("job", type=Path)
    args = parser.parse_args(given)
    if sys.platform != "linux" or not os.access(CLEAR, os.W_OK):
        parser.error("memory is read from Linux's /proc/self/status and reset by clear_refs: "
                     f"expected both, got none on {sys.platform}")  # fmt: skip
    if args.curve != "child" and args.plot and args.plot.suffix not in {".png", ".svg"}:
        parser.error(f"--plot {args.plot}: expected a name that ends in .png or .svg")
    return args


def main() -> None:
    """Measure in children, fit, print and draw."""
    args = arguments()
    if args.curve == "child":
        job = json.loads(args.job.read_text(encoding="utf-8"))
        try:
            measure(Job(**{**job, "settings": tuple(job["settings"])}))
        except SaleditError as error:
            raise SystemExit(str(error)) from error
        return
    quiet_libraries()
    use_threads(args.threads)
    if args.work is not None:
        args.work.mkdir(parents=True, exist_ok=True)
    record = Record(args.out)
    with tempfile.TemporaryDirectory(prefix="growth-", dir=args.work) as work:
        try:
            curve = CURVES[args.curve](args, Path(work).resolve())
            rows = []
            for point in curve.points():
                found = record.find(point)
                how = "known"
                if found is None:
                    began = time.perf_counter()
                    found = record.add(point, curve.measure(point))
                    how = f"measured in {time.perf_counter() - began:.0f} s"
                rows.append(found["values"])
                print(f"{curve.x} {rows[-1][curve.x]:,.0f}: {how}", file=sys.stderr, flush=True)
        except UserError as error:
            raise SystemExit(str(error)) from error
    rows.sort(key=lambda row: row[curve.x])
    fits = fits_of(curve, rows)
    print(table(curve, rows, fits))
    exponents = {key: asdict(power) for key, power in fits.items()}
    record.write(fitted={"curve": args.curve, "rows": rows, "fits": exponents})
    if args.plot:
        plot(curve, rows, fits, args.plot)


if __name__ == "__main__":
    main()
