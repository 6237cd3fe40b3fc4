"""By how much an answer leads."""

from __future__ import annotations

import torch

from saledit.tasks.nli import Nli


def test_a_label_leads_by_what_it_is_above_the_next() -> None:
    logits = torch.tensor([[[3.0, 1.0, 2.5], [0.0, 2.0, 2.0]]])
    targets = torch.tensor([[0, 0]])
    found = Nli().leads(None, logits, targets)  # type: ignore[arg-type]
    assert found.tolist() == [[0.5, -2.0]]
