"""The verbs of the command line: help, arguments, and what each one calls."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saledit.report import Ui

    Call = Callable[[Any, argparse.Namespace, Ui], dict[str, Any]]

FORMATS = ("delta", "merged", "lora")


def positive(text: str) -> int:
    """A whole number above 0, for ``ArgumentParser``."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got '{text}'")
    return number


class Several(argparse.Action):
    """Words up to the next option, also several with commas between them.

    Settings (``key=value``) among them are taken as such.
    """

    def __init__(
        self,
        option_strings: list[str],
        dest: str,
        item: Callable[[str], Any] = str,
        **options: Any,
    ) -> None:
        super().__init__(option_strings, dest, nargs="+", **options)
        self._item = item

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Keep the words, and the settings apart in ``settings``."""
        del parser, option_string
        settings = [word for word in values if "=" in word]
        namespace.settings = [*getattr(namespace, "settings", ()), *settings]
        given = [word for word in values if "=" not in word]
        words = [word for text in given for word in text.split(",") if word]
        if given and not words:
            raise argparse.ArgumentError(self, f"expected words, got '{' '.join(given)}'")
        try:
            setattr(namespace, self.dest, [self._item(word) for word in words])
        except ValueError as error:
            text = f"expected whole numbers, got '{' '.join(words)}'"
            raise argparse.ArgumentError(self, text) from error


class Argument:
    """The arguments of ``ArgumentParser.add_argument``."""

    def __init__(self, name: str, help: str, **options: Any) -> None:
        self.name, self.options = name, {"help": help, **options}


@dataclass(frozen=True)
class Verb:
    """One verb: its help, its arguments, and what it does."""

    summary: str
    examples: tuple[str, ...]
    arguments: tuple[Argument, ...]
    # Gets the module saledit.run, which is imported late; None for `config`, which needs no run.
    call: Call | None


_CONFIG_HELP = "a YAML file, or the name of a bundled configuration such as nli/worldfacts"
_SET_HELP = "key=value set over the file, e.g. seed=1 train.epochs=5 (see: saledit config)"
_SHOW_HELP = f"{_CONFIG_HELP}; without one the defaults are shown. {_SET_HELP}"
_MADE_HELP = "how the edit is made, e.g. editor.looks=3, editor.bound=0.01, schedule.batch_size=1"
_CONFIG = Argument("config", _CONFIG_HELP, metavar="CONFIG")
_SET = Argument("overrides", _SET_HELP, metavar="key=value", nargs="*", default=[])

VERBS = {
    "quickstart": Verb(
        "the whole story on bundled data: failures, layer, editor, test, fix",
        ("saledit quickstart", "saledit quickstart --out /tmp/story"),
        (
            Argument("--out", "where runs and caches go (default: as configured)", metavar="DIR"),
            Argument("--task", "which story (default: nli)", metavar="TASK", default="nli"),
        ),
        lambda run, args, ui: run.quickstart(out=args.out, task=args.task, ui=ui),
    ),
    "fit": Verb(
        "pick the layer and train an editor",
        (
            "saledit fit nli/worldfacts",
            "saledit fit my.yaml name=deeper site.select=fixed site.layer=4",
            "saledit fit my.yaml --resume",
        ),
        (
            _CONFIG,
            _SET,
            Argument("--resume", "go on with a run that was cut off", action="store_true"),
        ),
        lambda run, args, ui: run.fit(config=args.loaded, resume=args.resume, ui=ui),
    ),
    "test": Verb(
        "edit accuracy, drawdown and locality of a trained editor on the test split",
        (
            "saledit test checkpoints/worldfacts",
            "saledit test checkpoints/worldfacts schedule.batch_size=1 --json",
        ),
        (
            Argument("target", "a run's folder, or its configuration", metavar="RUN_OR_CONFIG"),
            _SET,
        ),
        lambda run, args, ui: run.test(target=args.target, overrides=args.overrides, ui=ui),
    ),
    "saliency": Verb(
        "score every layer and say which one would be edited",
        ("saledit saliency nli/worldfacts", "saledit saliency my.yaml site.select=gradient"),
        (_CONFIG, _SET),
        lambda run, args, ui: run.saliency(config=args.loaded, ui=ui),
    ),
    "compare": Verb(
        "several editors on the same splits, model and budget, in one table",
        (
            "saledit compare nli/worldfacts --editors salem,mend,step,ft",
            "saledit compare my.yaml --editors salem enn mine.yaml --seeds 0 1 2 --seconds 300",
            "saledit compare qa/counterfact --editors memit --schedules batch:1,64 sequential",
        ),
        (
            _CONFIG,
            _SET,
            Argument(
                "--editors",
                "names of configs/editors, or files",
                metavar="E",
                action=Several,
                required=True,
            ),
            Argument("--seeds", "(default: 0)", metavar="N", action=Several, item=int, default=[0]),
            Argument(
                "--schedules",
                "each for every editor: batch:K, sequential, sequential-batched:K (default: as "
                "configured)",
                metavar="S",
                action=Several,
                default=[],
            ),
            Argument(
                "--edits",
                "edits that each is trained on (default: as configured)",
                metavar="N",
                type=int,
                default=0,
            ),
            Argument(
                "--seconds",
                "instead: wall clock that each is trained for",
                metavar="S",
                type=float,
                default=0.0,
            ),
            Argument(
                "--jobs",
                "cells at a time; their times are then not their own (default: 1)",
                metavar="N",
                type=positive,
                default=1,
            ),
            Argument("--anew", "replace cells of another configuration", action="store_true"),
        ),
        lambda run, args, ui: run.compare(
            target=args.config,
            editors=args.editors,
            seeds=args.seeds,
            overrides=args.overrides,
            ui=ui,
            edits=args.edits,
            seconds=args.seconds,
            jobs=args.jobs,
            schedules=args.schedules,
            anew=args.anew,
        ),
    ),
    "fix": Verb(
        "turn new failures into an edit, checked before and after",
        (
            "saledit fix checkpoints/worldfacts --failures wrong.jsonl --out my-fix",
            "saledit fix checkpoints/mine --failures wrong.jsonl --out my-model --format merged",
            "saledit fix checkpoints/mine --failures more.jsonl --out my-fix --max-drawdown 0.01",
            "saledit fix checkpoints/mine --failures long.jsonl --out my-fix editor.looks=3",
        ),
        (
            Argument("run", "the run's folder with the trained editor", metavar="RUN"),
            Argument("overrides", _MADE_HELP, metavar="key=value", nargs="*", default=[]),
            Argument("--failures", "records, right answers in them", metavar="F", required=True),
            Argument(
                "--out",
                "where the edit is written; where fixes are, it comes on top of them",
                metavar="DIR",
                required=True,
            ),
            Argument("--check", "records to keep right (default: some kept by fit)", metavar="F"),
            Argument(
                "--format",
                "delta (default), merged (a whole model) or lora (a PEFT adapter)",
                metavar="FORMAT",
            ),
            Argument("--rank", "of a LoRA adapter at most", metavar="R", type=positive, default=0),
            Argument(
                "--max-drawdown",
                "refuse an edit that breaks a larger share of the check set",
                metavar="D",
                type=float,
            ),
            Argument(
                "--min-fixed",
                "refuse an edit that mends a smaller share of the failures (default: one at least)",
                metavar="S",
                type=float,
            ),
            Argument(
                "--stream",
                "leave the model's weights on disk: slower, in a fraction of the memory",
                action="store_true",
            ),
            Argument(
                "--part",
                "instead of refusing, write the largest part that keeps the bounds",
                action="store_true",
            ),
        ),
        lambda run, args, ui: run.fix(
            run_dir=args.run,
            failures=args.failures,
            out=args.out,
            options=run.FixOptions(
                check=args.check,
                format=args.format,
                rank=args.rank,
                bounds=run.Bounds(max_drawdown=args.max_drawdown, min_fixed=args.min_fixed),
                part=args.part,
                stream=args.stream,
                settings=args.overrides,
            ),
            ui=ui,
        ),
    ),
    "log": Verb(
        "the fixes in a folder, one by one, checked",
        ("saledit log my-fix",),
        (Argument("out", "the folder of saledit fix", metavar="DIR"),),
        lambda run, args, ui: run.log(out=args.out, ui=ui),
    ),
    "undo": Verb(
        "take a fix back, exactly; later ones stay",
        ("saledit undo my-fix", "saledit undo my-fix 2"),
        (
            Argument("out", "the folder of saledit fix", metavar="DIR"),
            Argument(
                "number",
                "the fix, as saledit log numbers them (default: the last in force)",
                metavar="ID",
                type=positive,
                nargs="?",
            ),
        ),
        lambda run, args, ui: run.undo(out=args.out, number=args.number, ui=ui),
    ),
    "report": Verb(
        "one HTML page of a run, a comparison or a folder of fixes",
        ("saledit report checkpoints/worldfacts", "saledit report my-fix --out fixes.html"),
        (
            Argument("target", "the folder", metavar="FOLDER"),
            Argument("--out", "the page (default: report.html in the folder)", metavar="FILE"),
        ),
        lambda run, args, ui: run.report(target=args.target, out=args.out, ui=ui),
    ),
    "config": Verb(
        "show a configuration, resolved and with comments",
        ("saledit config", "saledit config nli/worldfacts seed=1 > my.yaml"),
        (Argument("overrides", _SHOW_HELP, metavar="CONFIG key=value", nargs="*", default=[]),),
        None,
    ),
}
