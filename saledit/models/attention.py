"""Scaled dot-product attention that stays fast under bfloat16 autocast on a CPU.

In bfloat16 torch's fused attention takes ten times as long backward as in float32 on a
CPU (43% of a training step at layer 0 of MiniLM), while matrix products halve theirs. So
here the products of attention alone are taken in float32; on other devices, and in
float32, this is transformers' own function.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_NAME = "sdpa_saledit"


def prefer_float_attention(model: PreTrainedModel) -> None:
    """Let a model that uses torch's fused attention use this one; others stay as they are."""
    if model.config._attn_implementation != "sdpa":
        return
    AttentionInterface.register(_NAME, _attention)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    model.set_attn_implementation(_NAME)


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Any]:
    if query.device.type != "cpu" or query.dtype != torch.bfloat16:
        mixed, weights = sdpa_attention_forward(module, query, key, value, mask, **kwargs)
        return mixed, weights
    if mask is not None and mask.is_floating_point():
        mask = mask.float()
    if isinstance(kwargs.get("position_bias"), Tensor):  # T5 adds it to the mask
        kwargs["position_bias"] = kwargs["position_bias"].float()
    with torch.autocast("cpu", enabled=False):
        mixed, weights = sdpa_attention_forward(
            module, query.float(), key.float(), value.float(), mask, **kwargs
        )
    return mixed.to(query.dtype), weights
