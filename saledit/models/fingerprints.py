"""What tells one model from another: its weights, and how its tokenizer reads."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from saledit.models.reading import read_parts


def fingerprint(model: nn.Module) -> str:
    """Hash names, shapes, types and bytes of all weights and buffers that are saved.

    Args:
        model: any module; its weights may be offloaded.

    Returns:
        32 hexadecimal digits (BLAKE2b).
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}|{tuple(tensor.shape)}|{tensor.dtype}|".encode())
        elsewhere = tensor.is_meta or hasattr(tensor, "full_tensor")
        for part in read_parts(model, name) if elsewhere else (tensor,):
            data = part.detach().cpu().contiguous().reshape(-1)
            digest.update(data.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tokenizer_facts(tokenizer: PreTrainedTokenizerBase) -> list[object]:
    """All that decides which tokens a text becomes."""
    rules: Any = sorted(tokenizer.get_vocab().items())
    if backend := getattr(tokenizer, "backend_tokenizer", None):
        rules = json.loads(backend.to_str())
        for name in ("padding", "truncation"):  # are of the last call, not of the tokenizer
            rules.pop(name, None)
    limits = [tokenizer.model_max_length, tokenizer.special_tokens_map]
    return [rules, limits, tokenizer.chat_template]
