"""Deep models are scored in two rounds: all layers roughly, the best of them on everything."""

from __future__ import annotations

from typing import Any

import pytest
import tiny

from saledit.models import TaskModel
from saledit.saliency.base import Probes, Saliency
from saledit.saliency.trial import TrialStep
from saledit.tasks.nli import Nli

N_BLOCKS, N_FAIL = 9, 10
STEPS = (0.25, 0.5, 1.0, 2.0, 4.0)


@pytest.fixture(scope="module")
def deep() -> TaskModel:
    """A tiny BERT of nine blocks."""
    with pytest.MonkeyPatch.context() as patch:
        prefix, sizes = tiny._MODELS["bert"]
        patch.setitem(tiny._MODELS, "bert", (prefix, {**sizes, "num_hidden_layers": N_BLOCKS}))
        return tiny.build("bert")


def scored(base: TaskModel, steps: tuple[float, ...] = STEPS, n: int = N_FAIL) -> Saliency:
    chosen = tiny.samples(20, seed=3)
    read = Probes(chosen[:n], [], chosen[10:])
    return TrialStep(steps=steps)(base, Nli(), base.layers(), read)


def test_six_layers_reach_the_last_round(deep: TaskModel) -> None:
    table = scored(deep)
    assert [s.layer for s in table.scores] == list(range(N_BLOCKS))
    last = {s.layer for s in table.scores if s.final}
    assert len(last) == 6
    assert table.pick in last
    # Only every second step is tried in the first round.
    assert all(s.details["step"] in STEPS[::2] for s in table.scores if not s.final)


def test_the_last_round_scores_as_one_round_does(
    deep: TaskModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    rough = {s.layer: s for s in scored(deep).scores if s.final}
    monkeypatch.setattr("saledit.saliency.trial._FINALISTS", N_BLOCKS)
    whole = {s.layer: s for s in scored(deep).scores}
    assert all(s.final for s in whole.values())
    same = [
        layer for layer in rough if rough[layer].details["step"] == whole[layer].details["step"]
    ]
    assert same, "no layer found the same step: nothing is compared"
    for layer in same:
        assert rough[layer].score == pytest.approx(whole[layer].score)
    assert all(rough[layer].score <= whole[layer].score + 1e-6 for layer in rough)


def test_few_failures_are_scored_at_once(deep: TaskModel) -> None:
    assert all(s.final for s in scored(deep, n=4).scores)


def test_the_best_of_the_first_round_reach_the_last(
    deep: TaskModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, real = [], TrialStep._score

    def noted(self: TrialStep, *given: Any) -> Any:
        found, (*_, steps, final) = real(self, *given), given
        seen.append((found, tuple(steps), final))
        return found

    monkeypatch.setattr(TrialStep, "_score", noted)
    scored(deep)
    first = {s.layer: s for s, _, final in seen if not final}
    last = {s.layer: steps for s, steps, final in seen if final}
    left = [s.score for layer, s in first.items() if layer not in last]
    assert left
    assert min(first[layer].score for layer in last) >= max(left)
    assert len({s.score for s in first.values()}) > 1, "scores that are all the same prove nothing"
    for layer, steps in last.items():
        i = STEPS.index(first[layer].details["step"])
        assert steps == STEPS[max(0, i - 1) : i + 2]
