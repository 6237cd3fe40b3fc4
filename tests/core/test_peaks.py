"""Peaks of memory, apart from what several runs share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from saledit.run import peaks
from saledit.run.peaks import Peaks, highest

CPU, MUCH = torch.device("cpu"), 256
begins_anew = pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="no peak begins anew here"
)


def take(mb: int) -> None:
    """Use so much memory for a moment."""
    torch.ones(mb * 2**20 // 4).sum()


@begins_anew
def test_what_was_taken_before_is_told_apart() -> None:
    found = Peaks(CPU)
    take(2 * MUCH)
    found.begin()
    first = found.as_json()
    assert first["setup_rss_mb"] > first["peak_rss_mb"] + MUCH
    take(MUCH)
    told = found.as_json()
    assert told["setup_rss_mb"] == first["setup_rss_mb"]
    assert told["peak_rss_mb"] > first["peak_rss_mb"] + MUCH / 2
    found.forget()
    assert found.as_json()["peak_rss_mb"] < told["peak_rss_mb"] - MUCH / 2
    assert found.as_json()["setup_rss_mb"] == first["setup_rss_mb"]


@begins_anew
def test_memory_that_is_free_is_given_back_first() -> None:
    """Many small pieces stay in the heap of the one who has freed them."""
    found = Peaks(CPU)
    found.begin()
    before = found.as_json()["peak_rss_mb"]
    pieces = [torch.ones(2**13) for _ in range(2**13)]  # 256 MB in all
    last = torch.ones(2**13)
    del pieces
    found.begin()
    assert found.as_json()["peak_rss_mb"] < before + MUCH / 4
    assert found.as_json()["setup_rss_mb"] > before + MUCH / 2
    del last


def test_where_no_peak_begins_anew_it_is_the_whole_process_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peaks, "_CLEAR", tmp_path / "none" / "clear_refs")
    monkeypatch.setattr(peaks, "_STATUS", tmp_path / "none")
    found = Peaks(CPU)
    take(MUCH)
    found.begin()
    told = found.as_json()
    assert told.keys() == {"peak_rss_mb"}
    assert told["peak_rss_mb"] > MUCH


def test_the_higher_peaks_of_two() -> None:
    assert highest({"a": 1.0, "b": 2.0}, {"b": 1.0, "c": 3.0}) == {"a": 1.0, "b": 2.0, "c": 3.0}
