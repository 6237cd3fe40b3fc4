"""Made-up models, tokenizers and texts that growth curves are measured on."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import made_up
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from saledit.data.sources import load_rows

LABELS = ("entailment", "neutral", "contradiction")
SPECIAL = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "pad", "cls", "sep")}
WORDS = tuple(a + b for a in "bdfgklmnprst" for b in "aeiou")
_END = "<|endoftext|>"
QUESTIONS = "bundled:data/worldfacts/completions_train.jsonl.gz"


def tiny_classifier(folder: Path) -> None:
    """Write a random classifier of 60 words, its weights so large that answers depend on texts."""
    known = {word: i for i, word in enumerate((*SPECIAL.values(), *WORDS))}
    backend = Tokenizer(models.WordLevel(known, unk_token=SPECIAL["unk_token"]))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, known[name]) for name in ("[CLS]", "[SEP]")],
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=64, **SPECIAL,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip
    config = BertConfig(
        vocab_size=len(known), hidden_size=16, intermediate_size=24, num_hidden_layers=3,
        num_attention_heads=2, max_position_embeddings=66, pad_token_id=known["[PAD]"],
        id2label=dict(enumerate(LABELS)), label2id={label: i for i, label in enumerate(LABELS)},
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = BertForSequenceClassification(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(20)
            else:  # biases and norms
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def pairs(n: int) -> Iterator[dict[str, str]]:
    """Pairs of sentences of about 12 words each with a label, all drawn; the first ones of more."""
    rng = random.Random(0)
    for _ in range(n):
        texts = (" ".join(rng.choices(WORDS, k=rng.randint(8, 16))) for _ in range(2))
        yield {"premise": next(texts), "hypothesis": next(texts), "label": rng.choice(LABELS)}


def word_pieces(most: int) -> PreTrainedTokenizerBase:
    """A byte-level tokenizer as SmolLM2's, of so few tokens, taught on the questions."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=most, special_tokens=[_END], initial_alphabet=alphabet, show_progress=False
    )
    rows = [row for _, row in load_rows(QUESTIONS)]
    texts = [[row["question"], row["answer"], *row.get("rephrases", ())] for row in rows]
    backend.train_from_iterator(itertools.chain.from_iterable(texts), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=_END, eos_token=_END, pad_token=_END,
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


def divisor(n: int, most: int) -> int:
    """The largest divisor of n that is no larger."""
    return next(d for d in range(max(1, min(n, most)), 0, -1) if n % d == 0)


def parameters_of(config: LlamaConfig) -> int:
    """How many a made-up model has."""
    return sum(shape.numel() for shape in made_up.tensors_of(config).values())


def disk_mb(folder: Path) -> float:
    """What the files below a folder take."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20
