"""Facts about model families: where the blocks, their MLPs and their attention are.

The one place that knows how transformers names things. A family is found by
``config.model_type``; nothing else in saledit looks at a model's name.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """Names inside one architecture, relative to the backbone or to a block.

    Attributes:
        blocks: path of the list of blocks, below the backbone (``base_model``).
        mlp: linear maps of a block's MLP, in call order, below the block.
        attention: the sub-module of a block that mixes tokens, below the block.
        attention_maps: linear maps of the attention, below the block.
        attention_adds_residual: True where that sub-module's output already holds the
            block's input, so that the rest of the block needs nothing else.
        pools_first_token: True where a classification head reads the first token only,
            so that in the last block all other tokens can be left out.
    """

    blocks: str
    mlp: tuple[str, ...]
    attention: str
    attention_maps: tuple[str, ...]
    attention_adds_residual: bool = False
    pools_first_token: bool = False


_BERT = Family(
    blocks="encoder.layer",
    mlp=("intermediate.dense", "output.dense"),
    attention="attention",
    attention_maps=(
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
    ),
    attention_adds_residual=True,
    pools_first_token=True,
)

# Gated MLPs have three matrices. The default layer is all that the MLP holds.
_LLAMA = Family(
    blocks="layers",
    mlp=("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    attention="self_attn",
    attention_maps=(
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
    ),
)

FAMILIES: dict[str, Family] = {
    "bert": _BERT,
    "roberta": _BERT,
    "distilbert": Family(
        blocks="transformer.layer",
        mlp=("ffn.lin1", "ffn.lin2"),
        attention="attention",
        attention_maps=(
            "attention.q_lin",
            "attention.k_lin",
            "attention.v_lin",
            "attention.out_lin",
        ),
        pools_first_token=True,
    ),
    "gpt2": Family(
        blocks="h",
        mlp=("mlp.c_fc", "mlp.c_proj"),
        attention="attn",
        attention_maps=("attn.c_attn", "attn.c_proj"),
    ),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma": _LLAMA,
    "gemma2": _LLAMA,
}
