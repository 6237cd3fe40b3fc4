"""The page of a run: what was picked, trained and tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saledit.report.courses import course_figure
from saledit.report.figures import saliency_figure, training_figure
from saledit.report.look import count, drawdown, duration, not_made, number, of_text, percent, sizes
from saledit.report.page.model import Answers, Chart, Page, Section, Table
from saledit.report.page.parts import (
    command_of,
    environment_section,
    metrics_table,
    share_tiles,
)


@dataclass(frozen=True, slots=True)
class RunFiles:
    """What a run's folder holds; what is not there is empty.

    Attributes:
        name: of the run.
        config: ``config.yaml``.
        fit: ``fit.json``.
        saliency: the scores that ``fit.json`` holds, or else ``saliency.json``.
        training: ``metrics.csv``.
        tests: by file name, each ``results*.json``.
        answers: by the same name, what is in its ``answers*.jsonl``, where there is one.
    """

    name: str
    config: str
    fit: Mapping[str, Any]
    saliency: Mapping[str, Any]
    training: Sequence[Mapping[str, str]]
    tests: Mapping[str, Mapping[str, Any]]
    answers: Mapping[str, Answers]


def run_page(files: RunFiles) -> Page:
    """Lay out what a run's folder holds."""
    first = next(iter(files.tests.values()), {})
    about: Mapping[str, Any] = first or files.fit
    where = f"layer {about['layer']} of " if "layer" in about else ""
    base = about.get("base_model", {}).get("name", "")
    sections = []
    for name, results in files.tests.items():
        sections += list(_test(files, name, results, alone=len(files.tests) == 1))
    if files.saliency:
        sections.append(_layers(files.saliency))
    training = training_figure(files.training)
    if training is not None:
        sections.append(
            Section("Training", [*_trained(files.fit), Chart("training", training, "curves")])
        )
    if files.fit:
        sections.append(_samples(files.fit))
    sections.append(environment_section(about, files.config))
    commands = [command_of(result) for result in (files.fit, *files.tests.values())]
    return Page(
        files.name,
        f"{about.get('editor', 'editor')} at {where}{base}" if base else "not trained yet",
        share_tiles(first) if first else [],
        sections,
        list(dict.fromkeys(command for command in commands if command)),
    )


def _test(files: RunFiles, name: str, results: Mapping[str, Any], alone: bool) -> Sequence[Section]:
    said = f"{sizes(results)}, schedule {results['schedule']['mode']}."
    suffix = "" if alone else f" ({name})"
    out = []
    answers = files.answers.get(name)
    if answers:
        out.append(Section(f"Before and after{suffix}", [said, answers]))
    parts: list[Table | Chart | Answers | str] = [said, metrics_table(results)]
    if told := not_made(results):
        parts.append(told)
    kinds = results.get("adapt_by_kind") or {}
    if kinds:
        parts.append(
            Table(
                ("rewordings of kind", "right", "of"),
                [[kind, percent(row["accuracy"]), number(row["n"])] for kind, row in kinds.items()],
            )
        )
    out.append(Section(f"Measures{suffix}", parts))
    if results.get("course"):
        end = results["collapse"]
        told = "No collapse." if end is None else f"Collapse at {count(end, 'failure')}."
        chart = Chart(
            name.removesuffix(".json").replace("results", "course", 1), course_figure(results),
            "what holds as edits pile up",
        )  # fmt: skip
        out.append(Section(f"Forgetting{suffix}", [told, chart]))
    return out


def _layers(saliency: Mapping[str, Any]) -> Section:
    told = (
        f"{saliency['method']} picks layer {saliency['pick']}: "
        f"{number(round(saliency['forward_passes']))} forward and "
        f"{number(round(saliency['backward_passes']))} backward passes of one sample, "
        f"{duration(saliency['seconds'])}."
    )
    chart = Chart("saliency", saliency_figure(saliency), "the score of every layer")
    return Section("Layers", [told, chart])


def _trained(fit: Mapping[str, Any]) -> list[str]:
    if not fit:
        return []
    validation = fit.get("validation") or {}
    told = (
        f"{count(fit['epochs'], 'epoch')} in {duration(fit['train_seconds'])}, "
        f"{number(round(fit['edits_per_second'], 1))} edits/s, "
        f"{count(fit['editor_parameters'], 'parameter')}."
    )
    if "edit_accuracy" in validation:
        lost = drawdown(validation.get("drawdown"), of_text(validation))
        told += (
            f" The state that was kept: edit accuracy {percent(validation['edit_accuracy'])}, "
            f"drawdown {lost} on the validation part."
        )
    return [told]


def _samples(fit: Mapping[str, Any]) -> Section:
    rows = [
        [part, *(number(counts.get(name)) for name in ("fail", "adapt", "pass"))]
        for part, counts in fit["splits"].items()
    ]
    return Section("Samples", [Table(("part", "failures", "rewordings", "pass"), rows)])
