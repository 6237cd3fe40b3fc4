"""What edits are counted by, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import samples
from torch import Tensor

from saledit.data.splits import Part
from saledit.judging.counts import EditMetrics
from saledit.records import Answer
from saledit.run.measures.spoken import Spoken


def bools(*rows: list[int]) -> Tensor:
    return torch.tensor(rows).bool()


def test_metrics_by_hand_and_begun_anew() -> None:
    m = EditMetrics()
    for n in (1, 2):
        if n == 2:
            m.count_edits(bools([1, 1]), bools([1, 1]), torch.ones(1, 4))
            m.count_passes(bools([1, 1]), bools([0, 0]), torch.tensor([[9.0, 9.0]]))
            told = (torch.tensor([5.0]), torch.tensor([10.0]))
            m.count_texts(*told, torch.tensor([[1, 1]]))
            m.reset()
        m.count_edits(
            bools([1, 0], [0, 0]),
            bools([1, 1], [1, 0]),
            torch.tensor([[1, 1, 1, 0], [1, 1, 0, 1.0]]),
        )
        m.count_passes(
            bools([1, 1, 1, 0]), bools([1, 0, 0, 1]), torch.tensor([[0.0, 1.0, 2.0, 3.0]])
        )
        found = m.compute()
        assert found == pytest.approx(
            {
                "fail_accuracy": 1 / 4,
                "adapt_accuracy": 1 / 2,
                "edit_accuracy": 2 / 6,
                "pass_accuracy_before": 3 / 4,
                "pass_accuracy_after": 2 / 4,
                "drawdown": 1 / 4,
                "locality_kl": 1.5,
            }
        )
        m.reset()


def test_texts_weigh_by_their_tokens() -> None:
    m = EditMetrics()
    targets = torch.tensor([[1, 1, 1], [1, -100, -100]])
    told = (torch.tensor([1.0, 3.0]), torch.tensor([2.0, 4.0]))
    m.count_texts(*told, targets)
    found = m.compute_texts()
    assert found == pytest.approx(
        {
            "perplexity_before": math.exp(1.5),
            "perplexity_after": math.exp(2.5),
            "perplexity_rise": math.exp(2.5) - math.exp(1.5),
            "drawdown": math.e - 1,
        }
    )
    m.reset()
    assert m.compute_texts() == {}


def test_failures_count_as_wrong_in_what_is_said_without_edits() -> None:
    own = object.__new__(Spoken)
    own._part = Part(tuple(samples(3)), ((),) * 3, ())
    own._before = [Answer("", right, float(right), True) for right in (True, True, False, False)]
    assert own.unedited() == {"fail_accuracy": 0.0, "adapt_accuracy": 0.5, "edit_accuracy": 2 / 7}
    own._before = []
    assert own.unedited() == {"fail_accuracy": 0.0}
