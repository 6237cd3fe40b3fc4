"""Numbers wide enough to be added up, squared or solved with."""

from __future__ import annotations

import torch
from torch import Tensor


def wide_type(dtype: torch.dtype) -> torch.dtype:
    """Single precision, or what is wider."""
    return torch.promote_types(dtype, torch.float32)


def wide(x: Tensor) -> Tensor:
    """A tensor at least in single precision; itself where it is."""
    return x.to(wide_type(x.dtype))
