"""Tiny random language models of every text family, their tokenizer and samples.

As in ``tiny``: no file, no network, weights so large that logits depend on everything, and no
bias, norm or buffer at its default, so that a dropped one shows.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from tiny import N_BLOCKS
from tiny import WORDS as ALL_WORDS
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from torch.func import functional_call
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PreTrainedTokenizerFast,
)

from saledit.cache.bank import BankSpec
from saledit.cache.opening import Opener, open_bank
from saledit.delta import Edits
from saledit.forward.scoring import forward, logits_of
from saledit.models import SEQ2SEQ, TaskModel, wrap
from saledit.overlay import applied
from saledit.records import Sample
from saledit.site import Layer, Site
from saledit.tasks.base import Encoded
from saledit.tasks.prompts import END, IGNORED
from saledit.tasks.qa import Qa
from saledit.tasks.text import TextTask

SPECIAL = ("[UNK]", "[PAD]", "<s>", "</s>")
STOPS = (".", ",", "?")
WORDS = ALL_WORDS[:20]  # few, so that random models come to an end now and then
VOCABULARY = (*SPECIAL, *WORDS, *STOPS)
PAD, BOS, EOS = (SPECIAL.index(name) for name in ("[PAD]", "<s>", "</s>"))
STOP = "".join(STOPS)
ENDS = (EOS, *(VOCABULARY.index(word) for word in STOPS))

_LLAMA: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": N_BLOCKS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}
_GEMMA = {**_LLAMA, "head_dim": 8}
# A window shorter than most prompts, and kinds of attention that alternate.
_WINDOWS = {
    "sliding_window": 6,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}
_OPT = {**_LLAMA, "ffn_dim": 24, "word_embed_proj_dim": 16, "dropout": 0.0}
_T5 = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": N_BLOCKS, "num_heads": 2}

# name -> model_type, sizes
_CAUSAL: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": (
        "gpt2",
        {"n_embd": 16, "n_inner": 24, "n_layer": N_BLOCKS, "n_head": 2, "n_positions": 64},
    ),
    "gpt_neox": ("gpt_neox", _LLAMA),
    "gpt_neox serial": ("gpt_neox", {**_LLAMA, "use_parallel_residual": False}),
    "opt": ("opt", _OPT),
    "opt post-norm": (
        "opt",
        {**_OPT, "do_layer_norm_before": False, "word_embed_proj_dim": 12},
    ),
    "llama": ("llama", _LLAMA),
    "mistral": ("mistral", {**_LLAMA, "sliding_window": 6}),
    "qwen2": ("qwen2", _LLAMA),
    "qwen3": ("qwen3", _GEMMA),
    "gemma": ("gemma", _GEMMA),
    "gemma2": ("gemma2", {**_GEMMA, **_WINDOWS, "final_logit_softcapping": 2.0}),
    "gemma3": ("gemma3_text", {**_GEMMA, **_WINDOWS}),
    "phi": ("phi", {**_LLAMA, "num_key_value_heads": 2}),
    "phi3": ("phi3", _LLAMA),
}
_SEQ2SEQ: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("t5", _T5),
    "t5 gated": (
        "t5",
        {**_T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    ),
    "bart": (
        "bart",
        {
            "d_model": 16,
            "max_position_embeddings": 64,
            **{f"{side}_layers": N_BLOCKS for side in ("encoder", "decoder")},
            **{f"{side}_attention_heads": 2 for side in ("encoder", "decoder")},
            **{f"{side}_ffn_dim": 24 for side in ("encoder", "decoder")},
        },
    ),
}
_MODELS = _CAUSAL | _SEQ2SEQ

CAUSAL_NAMES, SEQ2SEQ_NAMES = tuple(_CAUSAL), tuple(_SEQ2SEQ)
#: Every model, encoder-decoders with the decoder edited.
NAMES = (*CAUSAL_NAMES, *SEQ2SEQ_NAMES)
#: Every model, encoder-decoders once for each stack.
STACKED = (*NAMES, *(f"{name}/encoder" for name in SEQ2SEQ_NAMES))

# What a tokenizer puts around a text; others put nothing.
_AROUND = {
    **dict.fromkeys(("llama", "mistral", "gemma", "gemma2", "gemma3"), "<s> $A"),
    **dict.fromkeys(("opt", "opt post-norm"), "</s> $A"),  # begins with what also ends a text
    **dict.fromkeys(("t5", "t5 gated"), "$A </s>"),
    "bart": "<s> $A </s>",
}


def tokenizer(name: str) -> PreTrainedTokenizerFast:
    """A word-level tokenizer; stop characters are words."""
    vocabulary = {word: i for i, word in enumerate(VOCABULARY)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    if name in _AROUND:
        backend.post_processor = processors.TemplateProcessing(
            single=_AROUND[name], special_tokens=[("<s>", BOS), ("</s>", EOS)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=64,
        model_input_names=["input_ids", "attention_mask"],
    )


def build(name: str, seed: int = 2) -> TaskModel:
    """A frozen tiny language model; ``name/encoder`` edits the encoder."""
    name, _, stack = name.partition("/")
    model_type, sizes = _MODELS[name]
    config = AutoConfig.for_model(
        model_type,
        vocab_size=len(VOCABULARY),
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        **sizes,
        **({"decoder_start_token_id": EOS if name == "bart" else PAD} if name in _SEQ2SEQ else {}),
    )
    kind: Any = AutoModelForSeq2SeqLM if name in _SEQ2SEQ else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = kind.from_config(config)
        for path, parameter in model.named_parameters():
            if parameter.ndim > 1:
                # T5 has no scale in its attention; without one every word would see one other.
                size = 0.1 if path.endswith("Attention.q.weight") else 0.3
                parameter.copy_(torch.randn_like(parameter) * size)
            else:  # biases and norms
                parameter.add_(0.1 * torch.randn_like(parameter))
        # Nothing special is said in the middle of an answer, and answers come to an end.
        head = model.get_output_embeddings().weight
        head[:EOS] *= 0.2
        head[list(ENDS)] *= 1.3
        if name == "bart":
            model.final_logits_bias.copy_(torch.randn_like(model.final_logits_bias))
            model.final_logits_bias[:, :EOS] = -5.0
    return wrap(model, tokenizer(name), f"tiny-{name}", stack or "decoder")


def task(**settings: Any) -> Qa:
    """Question answering with stop characters that the vocabulary has."""
    return Qa(**{"max_length": 60, "stop": STOP, **settings})


def words(rng: random.Random, low: int, high: int) -> str:
    """Between low and high random words."""
    return " ".join(rng.choices(WORDS, k=rng.randint(low, high)))


def samples(n: int, seed: int = 0) -> list[Sample]:
    """Random prompts of 1 to 12 words with answers of 1 to 3."""
    rng = random.Random(seed)
    return [Sample(str(i), (words(rng, 1, 12),), words(rng, 1, 3)) for i in range(n)]


def run_whole(base: TaskModel, encoded: Encoded, edits: Edits | None = None) -> Tensor:
    """Logits (B, A, C) at the scored positions, by the whole model."""
    with torch.no_grad(), applied(base.model, edits or Edits({})):
        return logits_of(base, forward(base, encoded.inputs, encoded.at))


def opener(base: TaskModel, layer: Layer, folder: Path) -> Opener:
    """Opens banks for runs above a layer, without gradient factors."""
    return lambda task, samples: open_bank(base, task, samples, BankSpec(layer), folder)


def layers_of(base: TaskModel, block: int) -> tuple[Layer, Layer]:
    """A block's MLP and its attention."""
    return base.layer(block), base.layer(block, base.family.attention_maps)


def greedy(
    base: TaskModel, sample: Sample, ends: Collection[int] = ENDS, most: int = 8
) -> list[int]:
    """Free greedy generation of one sample in slow code: no cache, no batch, no padding.

    Returns:
        New tokens, the one that ended it among them.
    """
    prompt = base.tokenizer(sample.inputs[0]).input_ids
    new: list[int] = []
    start = [getattr(base.model.config, "decoder_start_token_id", None)]
    while len(new) < most and not (new and new[-1] in ends):
        seen = [start + new] if base.kind == SEQ2SEQ else [prompt + new]
        inputs = {"input_ids": torch.tensor(seen)}
        if base.kind == SEQ2SEQ:
            inputs = {"input_ids": torch.tensor([prompt]), "decoder_input_ids": torch.tensor(seen)}
        with torch.no_grad():
            new.append(int(base.model(**inputs, use_cache=False).logits[0, -1].argmax()))
    return new


def spell(tokens: Sequence[int]) -> str:
    """Words of tokens, special ones left out."""
    return " ".join(VOCABULARY[i] for i in tokens if i >= len(SPECIAL))


def slow_gradients(
    base: TaskModel, sites: Sequence[Site], sample: Sample, of: TextTask
) -> list[Tensor]:
    """Autograd's gradient (D_out, D_in) of one sample's own loss, in the weights themselves."""
    encoded = of.encode(base, [sample])
    assert encoded.at is not None
    leaves = {
        f"{site.name}.weight": base.model.get_submodule(site.name).weight.clone().requires_grad_()
        for site in sites
    }
    logits = functional_call(base.model, leaves, (), encoded.inputs).logits[0, encoded.at[0]]
    losses = [
        -row[list(ENDS)].logsumexp(-1) if token == END else -row[token]
        for row, token in zip(logits.log_softmax(-1), encoded.targets[0].tolist(), strict=True)
        if token != IGNORED
    ]
    grads = torch.autograd.grad(torch.stack(losses).mean(), list(leaves.values()))
    return [grad.mT if s.transposed else grad for s, grad in zip(sites, grads, strict=True)]
