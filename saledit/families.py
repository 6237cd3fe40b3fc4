"""Facts about model families: where the blocks, their MLPs and their attention are.

The one place that knows how transformers names things. A family is found by
``config.model_type``; nothing else in saledit looks at a model's name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Family:
    """Names inside one stack of blocks of an architecture, relative to the backbone or to a block.

    Attributes:
        blocks: path of the list of blocks, below the backbone (``base_model``).
        mlp: linear maps of a block's MLP, in call order, below the block; where variants of an
            architecture differ, of all of them: those that a model has are its layer.
        attention: the sub-module of a block behind which tokens mix no more, below the block.
        attention_maps: linear maps of the attention, below the block.
        attention_adds_residual: True where that sub-module's output already holds the
            block's input, so that the rest of the block needs nothing else.
        pools_first_token: True where a classification head reads the first token only,
            so that in the last block all other tokens can be left out.
        before: sub-modules of a block that are called before ``attention``; what they compute
            is not needed where a run enters behind it.
        returns: what ``attention`` returns: "pair" (states, weights), "states" alone, or "biased"
            (states, position bias, weights).
        before_returns: the same of the sub-modules in ``before``.
        block_returns: the same of a block.
        position_bias: sub-module of a block that computes, in the first block, the position bias
            that all later ones are handed (T5); "" for none.
        generates: False for encoders, which classify only.
        continues: True where the model can go on behind cached keys and values that differ in
            number from row to row (its positions and mask may be given).
    """

    blocks: str
    mlp: tuple[str, ...]
    attention: str = ""
    attention_maps: tuple[str, ...] = ()
    attention_adds_residual: bool = False
    pools_first_token: bool = False
    before: tuple[str, ...] = ()
    returns: str = "pair"
    before_returns: str = "pair"
    block_returns: str = "states"
    position_bias: str = ""
    generates: bool = True
    continues: bool = True

    @property
    def mlp_module(self) -> str:
        """The sub-module that is nothing but the MLP, below the block; "" where there is none.

        Of an architecture that is not in the table its maps may as well be those of attention.
        """
        if not self.attention:
            return ""
        (parent, *others) = {name.rpartition(".")[0] for name in self.mlp} or {""}
        return "" if others else parent


def _maps(inside: str, names: str = "q_proj k_proj v_proj o_proj") -> tuple[str, ...]:
    return tuple(f"{inside}.{name}" for name in names.split())


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
    generates=False,
)

# Gated MLPs have three matrices. The default layer is all that the MLP holds.
_LLAMA = Family(
    blocks="layers",
    mlp=("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    attention="self_attn",
    attention_maps=_maps("self_attn"),
)

_BART_ENCODER = Family(
    blocks="encoder.layers",
    mlp=("fc1", "fc2"),
    attention="self_attn_layer_norm",  # post-norm: the residual is inside
    attention_maps=_maps("self_attn", "q_proj k_proj v_proj out_proj"),
    attention_adds_residual=True,
    before=("self_attn",),
    returns="states",
)

_T5_ENCODER = Family(
    blocks="encoder.block",
    mlp=_maps("layer.1.DenseReluDense", "wi wi_0 wi_1 wo"),  # T5 1.0: wi; 1.1: gated
    attention="layer.0",
    attention_maps=_maps("layer.0.SelfAttention", "q k v o"),
    attention_adds_residual=True,
    returns="biased",
    block_returns="biased",
    position_bias="layer.0.SelfAttention",
)

#: The one stack of an architecture, or the decoder of an encoder-decoder.
FAMILIES: dict[str, Family] = {
    "bert": _BERT,
    "roberta": _BERT,
    "distilbert": Family(
        blocks="transformer.layer",
        mlp=("ffn.lin1", "ffn.lin2"),
        attention="attention",
        attention_maps=_maps("attention", "q_lin k_lin v_lin out_lin"),
        pools_first_token=True,
        generates=False,
    ),
    "gpt2": Family(
        blocks="h",
        mlp=("mlp.c_fc", "mlp.c_proj"),
        attention="attn",
        attention_maps=("attn.c_attn", "attn.c_proj"),
    ),
    "gpt_neox": Family(
        blocks="layers",
        mlp=("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
        attention="attention",
        attention_maps=("attention.query_key_value", "attention.dense"),
    ),
    "opt": Family(
        blocks="decoder.layers",
        mlp=("fc1", "fc2"),
        attention="self_attn",
        attention_maps=_maps("self_attn", "q_proj k_proj v_proj out_proj"),
    ),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma": _LLAMA,
    "gemma2": _LLAMA,
    "gemma3_text": _LLAMA,
    "phi": Family(
        blocks="layers",
        mlp=("mlp.fc1", "mlp.fc2"),
        attention="self_attn",
        attention_maps=_maps("self_attn", "q_proj k_proj v_proj dense"),
    ),
    "phi3": Family(
        blocks="layers",
        mlp=("mlp.gate_up_proj", "mlp.down_proj"),  # gate and up are one matrix here
        attention="self_attn",
        attention_maps=_maps("self_attn", "qkv_proj o_proj"),
    ),
    "t5": replace(
        _T5_ENCODER,
        blocks="decoder.block",
        mlp=_maps("layer.2.DenseReluDense", "wi wi_0 wi_1 wo"),
        attention="layer.1",
        attention_maps=(
            *_maps("layer.0.SelfAttention", "q k v o"),
            *_maps("layer.1.EncDecAttention", "q k v o"),
        ),
        before=("layer.0",),
        before_returns="biased",
    ),
    "bart": replace(
        _BART_ENCODER,
        blocks="decoder.layers",
        attention="encoder_attn_layer_norm",
        attention_maps=(
            *_maps("self_attn", "q_proj k_proj v_proj out_proj"),
            *_maps("encoder_attn", "q_proj k_proj v_proj out_proj"),
        ),
        before=("self_attn", "encoder_attn"),
    ),
}

#: The encoder of an encoder-decoder.
ENCODERS: dict[str, Family] = {"t5": _T5_ENCODER, "bart": _BART_ENCODER}
