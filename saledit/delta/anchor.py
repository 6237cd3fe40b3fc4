"""The anchor of a row: the mean input embedding of its tokens, by which edits are routed.

MEMoE (Wang and Li, 2024) routes by the embedding of a knowledge anchor, the entity that a prompt is
about, which has to be found for each prompt. Here the anchor is the mean of all of a row's own
tokens, so that nothing has to be found: of an encoder the whole row's, of an encoder-decoder
the source's, in either stack. A causal model at each position has seen no more than the tokens up
to there; their mean is carried along with the key-value cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from saledit.families import FAMILIES
from saledit.widths import wide

#: An argument of the model's forward that the model never sees: the only positions (B, A) that the
#: last block's MLP is run at. Who passes it takes it away again, by a pre-hook of its own.
ONLY_AT = "saledit_only_at"


class Anchors:
    """The anchors of the rows that a model is reading. To be registered by ``registered``.

    Rows that go on from a key-value cache must be those of the call before, each in its place: what
    a cache holds is not known by its tokens. So beam search on causal models is not for routed
    edits.

    Args:
        model: a transformers model.

    Raises:
        ValueError: it has no input embeddings.
    """

    def __init__(self, model: Any) -> None:
        config = getattr(model, "config", None)
        if config is None or not hasattr(model, "get_input_embeddings"):
            raise ValueError("applied: routed edits expect a transformers model")
        family = FAMILIES.get(config.model_type)
        self._from_source = bool(config.is_encoder_decoder)
        self._is_running = not self._from_source and (family is None or family.generates)
        self._model, self._table = model, model.get_input_embeddings()
        self._means: Tensor | None = None  # (B, T or 1, D_A)
        self._seen: tuple[Tensor, Tensor, int] | None = None  # sum, count and positions so far
        self._only_at: Tensor | None = None

    def register(self) -> list[torch.utils.hooks.RemovableHandle]:
        """Hooks that read what the model is given; ``generate`` gives a source to its encoder."""
        modules = [self._model]
        if self._from_source:
            modules.append(self._model.get_encoder())
        return [m.register_forward_pre_hook(self._read, with_kwargs=True) for m in modules]

    @torch.no_grad()
    def _read(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._only_at = kwargs.get(ONLY_AT)
        ids = args[0] if args else kwargs.get("input_ids")
        if ids is None:
            # A decoder goes on with the source that its encoder was given.
            if not self._from_source:
                self._means = None
            return
        embedded = self._table(ids)  # (B, T, D_A)
        embedded = wide(embedded)
        real = _real(kwargs.get("attention_mask"), ids)[..., None]  # (B, T, 1)
        embedded = embedded * real
        if self._is_running:
            total, count = self._before(kwargs, embedded)
            total = total + embedded.cumsum(1)
            count = count + real.cumsum(1)
            self._seen = (total[:, -1:], count[:, -1:], self._length(kwargs) + ids.shape[1])
        else:
            total, count = embedded.sum(1, keepdim=True), real.sum(1, keepdim=True)
        self._means = total / count.clamp_min(1)

    def _length(self, kwargs: Mapping[str, Any]) -> int:
        cache = kwargs.get("past_key_values")
        return 0 if cache is None else int(cache.get_seq_length())

    def _before(self, kwargs: Mapping[str, Any], like: Tensor) -> tuple[Tensor, Tensor]:
        """Sum (B, 1, D_A) and count (B, 1, 1) of the tokens in the cache."""
        length = self._length(kwargs)
        if not length:
            return like[:, :1] * 0, like[:, :1, :1] * 0
        total, count, seen = self._seen or (like, like, 0)
        if seen != length or len(total) != len(like):
            raise ValueError(
                f"applied: a routed edit has read {seen} tokens of {len(total)} rows and cannot go "
                f"on from a cache of {length} tokens of {len(like)}; start within the same block"
            )
        return total, count

    def beside(self, x: Tensor) -> Tensor:
        """The anchors beside a site's inputs.

        Args:
            x: (B, T, D_in), or flat (B T, D_in).

        Returns:
            (B, T, D_A) or (B T, D_A).

        Raises:
            ValueError: the model was not given these rows' tokens.
        """
        means, places = self._means, x.shape[:-1].numel()
        if means is None or places % len(means):
            raise ValueError("applied: routed edits expect a model that is given input_ids")
        per_row = places // len(means)
        at = self._only_at
        if means.shape[1] > 1 and at is not None and per_row == at.shape[1]:
            means = means.gather(1, at[..., None].expand(-1, -1, means.shape[-1]))
        # Of a single anchor a row this also serves beams, which lie beside each other.
        return means.expand(-1, per_row, -1).reshape(*x.shape[:-1], -1).to(x.device)


def _real(mask: Tensor | None, ids: Tensor) -> Tensor:
    """Which tokens are no padding, as numbers (B, T)."""
    if mask is None:
        return torch.ones_like(ids, dtype=torch.float32)
    if mask.dim() != 2:
        raise ValueError(
            f"applied: routed edits expect an attention mask (B, T), got {tuple(mask.shape)}"
        )
    return mask[:, -ids.shape[1] :].to(ids.device, torch.float32)  # behind what a cache holds
