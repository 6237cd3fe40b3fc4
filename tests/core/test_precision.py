"""bfloat16 is taken where it pays, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from saledit.models import precision
from saledit.models.precision import cpu_has_bfloat16, precision_here


@pytest.mark.parametrize("wanted", ["32-true", "64-true", None, 32])
def test_other_precisions_stay(wanted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: False)
    assert precision_here(wanted, "cpu") == wanted


@pytest.mark.parametrize("has", [True, False])
def test_bfloat16_on_a_cpu_needs_its_instructions(
    has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: has)
    for wanted in ("bf16-mixed", "bf16"):
        assert precision_here(wanted, "cpu") == (wanted if has else "32-true")
    for wanted in ("16-mixed", "16", 16):  # of which Lightning makes bfloat16 there
        assert precision_here(wanted, "cpu") == ("bf16-mixed" if has else "32-true")


def test_an_accelerator_keeps_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert precision_here("bf16-mixed") == "bf16-mixed"
    assert precision_here("bf16-mixed", "gpu") == "bf16-mixed"
    assert precision_here("16-mixed") == precision_here("16-mixed", "gpu") == "16-mixed"
    assert precision_here("bf16-mixed", "cpu") == "32-true"


@pytest.mark.parametrize(("there", "told"), [(True, True), (True, False), (False, True)])
def test_the_processor_is_asked(there: bool, told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By oneDNN, where torch has it; a name that torch no longer knows is an error here."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: there)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: told)
    assert cpu_has_bfloat16() is (there and told)
