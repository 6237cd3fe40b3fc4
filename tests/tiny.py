"""Tiny random task models of every family, their tokenizer and samples; no file, no network.

The weights are larger than a fresh model's, so that logits depend on the input and on every
layer, and every bias and norm is random, so that a dropped one shows.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from saledit.delta import Edits, LowRank
from saledit.models import TaskModel, wrap
from saledit.records import Sample
from saledit.site import Site
from saledit.tasks.nli import Nli

# One thread: two would wait for each other at every tiny product, 100 times slower under load.
torch.set_num_threads(1)

ENCODERS = ("bert", "roberta", "distilbert")
DECODERS = ("gpt2", "llama", "qwen2", "gemma")
FAMILIES = (*ENCODERS, *DECODERS)
N_BLOCKS = 3
ENDS = (0, N_BLOCKS - 1)  # below and above which nothing and all is frozen
LABELS = ("entailment", "neutral", "contradiction")
# As in real vocabularies, padding is not 0: a 0 put where padding belongs must show.
SPECIAL = ("[UNK]", "[PAD]", "[CLS]", "[SEP]")
PAD = SPECIAL.index("[PAD]")
WORDS = tuple(a + b for a in "bdfgklmnprst" for b in ("a", "e", "i", "o", "u"))[:56]

_LLAMA = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": N_BLOCKS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}
_BERT = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": N_BLOCKS,
    "num_attention_heads": 2,
    "max_position_embeddings": 66,
}
# family -> prefix of its classes in transformers, sizes
_MODELS: dict[str, tuple[str, dict[str, int]]] = {
    "bert": ("Bert", _BERT),
    "roberta": ("Roberta", _BERT),
    "distilbert": (
        "DistilBert",
        {
            "dim": 16,
            "hidden_dim": 24,
            "n_layers": N_BLOCKS,
            "n_heads": 2,
            "max_position_embeddings": 64,
        },
    ),
    "gpt2": (
        "GPT2",
        {"n_embd": 16, "n_inner": 24, "n_layer": N_BLOCKS, "n_head": 2, "n_positions": 64},
    ),
    "llama": ("Llama", _LLAMA),
    "qwen2": ("Qwen2", _LLAMA),
    "gemma": ("Gemma", {**_LLAMA, "head_dim": 8}),
}


def tokenizer(family: str) -> PreTrainedTokenizerFast:
    """A word-level tokenizer: ``[CLS] a [SEP] b [SEP]`` for encoders, bare words for decoders."""
    vocabulary = {word: i for i, word in enumerate((*SPECIAL, *WORDS))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if family in ENCODERS:
        backend.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
        model_input_names=[
            "input_ids",
            *(["token_type_ids"] * (family == "bert")),
            "attention_mask",
        ],
    )


def build(family: str, seed: int = 0) -> TaskModel:
    """A frozen tiny classifier of three labels; the same seed gives the same weights."""
    prefix, sizes = _MODELS[family]
    config = getattr(transformers, f"{prefix}Config")(
        vocab_size=len(SPECIAL) + len(WORDS),
        pad_token_id=PAD,
        bos_token_id=2,
        eos_token_id=3,
        id2label=dict(enumerate(LABELS)),
        label2id={label: i for i, label in enumerate(LABELS)},
        **sizes,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, f"{prefix}ForSequenceClassification")(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(20 if family in ENCODERS else 10)
                else:  # biases and norms
                    parameter.add_(0.1 * torch.randn_like(parameter))
    return wrap(model, tokenizer(family), f"tiny-{family}")


def save(base: TaskModel, folder: Path) -> Path:
    """Write model and tokenizer as ``from_pretrained`` reads them."""
    base.model.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    return folder


def samples(n: int, seed: int = 0) -> list[Sample]:
    """Random sentence pairs of 1 to 9 words a sentence, with random labels."""
    rng = random.Random(seed)

    def sentence() -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(1, 9)))

    return [Sample(str(i), (sentence(), sentence()), rng.choice(LABELS)) for i in range(n)]


def encode(base: TaskModel, chosen: Sequence[Sample]) -> dict[str, Tensor]:
    """Inputs of samples, padded."""
    return Nli().encode(base, chosen).inputs


def targets(base: TaskModel, chosen: Sequence[Sample]) -> Tensor:
    """Label numbers of samples."""
    return Nli().targets(base, chosen)


def random_edits(
    sites: Sequence[Site],
    batch: tuple[int, ...] = (),
    rank: int = 2,
    seed: int = 0,
    requires_grad: bool = False,
) -> Edits:
    """Random low-rank deltas, large enough to change every logit."""
    generator = torch.Generator().manual_seed(seed)

    def factor(size: int) -> Tensor:
        value = torch.randn(*batch, rank, size, generator=generator) / size**0.5
        return value.requires_grad_(requires_grad)

    return Edits({site: LowRank(factor(site.d_in), factor(site.d_out)) for site in sites})


def weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of every weight and buffer."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Check that a model leaves the block with the same bits, no hook and no new ``forward``."""
    before = weights(model)
    yield
    after = model.state_dict()
    assert before.keys() == after.keys()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert not changed, f"weights changed: {changed}"
    for name, module in model.named_modules():
        assert "forward" not in vars(module), f"{name} kept a replaced forward"
        assert not module._forward_hooks, f"{name} kept a forward hook"
        assert not module._forward_pre_hooks, f"{name} kept a forward pre-hook"
    assert all(parameter.grad is None for parameter in model.parameters())
