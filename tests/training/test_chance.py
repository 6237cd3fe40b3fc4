"""A classifier that does not know its task is told of before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import build, encode, samples, save
from whole_runs import FakeUi, ui

from saledit.config import RunConfig
from saledit.files import write_jsonl
from saledit.forward.scoring import base_logits
from saledit.run import fit
from saledit.run.setup.chance import doubt
from saledit.run.setup.prepare import prepare


def world(folder: Path, right: float) -> tuple[str, str]:
    """A tiny classifier with all its labels in use, and records whose labels it knows a share of.

    The others have the label that it finds next likely.
    """
    base, chosen = build("bert"), samples(300)
    rows = encode(base, chosen)
    bias = base.model.classifier.bias
    bias.data -= base_logits(base, rows).mean(0)
    save(base, folder / "model")
    ranked, names = base_logits(base, rows).argsort(-1, descending=True), base.model.config.id2label
    records = []
    for i, (sample, order) in enumerate(zip(chosen, ranked.tolist(), strict=True)):
        label = names[order[0 if (i * 37) % 100 < 100 * right else 1]]
        premise, hypothesis = sample.inputs
        records.append({"id": str(i), "premise": premise, "hypothesis": hypothesis, "label": label})
    write_jsonl(folder / "data.jsonl", records)
    return f"model.name={folder / 'model'}", f"data.train={folder / 'data.jsonl'}"


@pytest.mark.parametrize("right", [0.3, 0.95])
def test_a_model_at_chance_is_doubted(
    right: float, make: Callable[..., RunConfig], tmp_path: Path
) -> None:
    own = (*world(tmp_path, right), "data.validation=0.5")
    said = doubt(prepare(make("doubted", *own), ui()))
    if right > 0.5:
        assert said is None
        return
    assert said is not None
    assert "\n" not in said
    shown = FakeUi()
    fit(make("told", *own, "train.epochs=1"), False, shown)  # type: ignore[arg-type]
    assert said in shown.stages


def test_a_label_that_is_never_said_is_named(
    make: Callable[..., RunConfig], tmp_path: Path
) -> None:
    """As of claims with evidence, where a model knows only whether there is some."""
    own = (*world(tmp_path, 0.95), "data.validation=0.5")
    plain = prepare(make("plain", *own), ui())
    label = plain.records.validation[0].sample.target
    plain.base.model.classifier.bias.data[plain.base.model.config.label2id[label]] -= 100.0
    plain.base.model.save_pretrained(tmp_path / "model")
    prepared = prepare(make("unsaid", *own), ui())
    n = sum(record.sample.target == label for record in prepared.records.validation[:250])
    said = f"does not know {label!r}: it says so of 0% of the {n} validation records that are"
    assert said in (doubt(prepared) or "")


def test_few_records_are_no_ground_for_doubt(
    make: Callable[..., RunConfig], tmp_path: Path
) -> None:
    own = (*world(tmp_path, 0.3), "data.validation=0.1")
    assert doubt(prepare(make("few", *own), ui())) is None
