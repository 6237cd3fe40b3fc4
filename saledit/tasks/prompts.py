"""Prompts and answers as tokens, for causal models and for encoder-decoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from saledit.errors import ConfigError, DataError
from saledit.models import SEQ2SEQ, TaskModel
from saledit.records import TEXT, Sample
from saledit.tasks.base import Encoded
from saledit.tasks.ends import end_tokens
from saledit.tasks.subjects import Span, span

#: Targets that are no tokens: the answer ends here; nothing is scored here.
END, IGNORED = -1, -100
QUESTION = "{question}"

# Tokens of the edited stack, its first scored position, targets, input of a decoder.
_Row = tuple[list[int], int, list[int], list[int]]


class Prompter:
    """Turns samples into tokens.

    Args:
        template: prompt around ``{question}``.
        chat: ask through the model's chat template.
        ends: True where an answer has to end, so that its end is scored, too.
        max_length: longest prompt, and longest part of a passage, in tokens.
    """

    def __init__(self, template: str, chat: bool, ends: bool, max_length: int) -> None:
        self.template, self.chat, self.ends, self.max_length = template, chat, ends, max_length

    def prompt(self, base: TaskModel, sample: Sample) -> str:
        """The text that the model is given.

        Raises:
            ConfigError: ``task.chat`` of a model without a chat template.
        """
        asked = self.template.replace(QUESTION, sample.inputs[0])
        if not self.chat:
            return asked
        if not base.tokenizer.chat_template:
            raise ConfigError(
                f"task.chat: {base.name} has no chat template, expected false; "
                "use task.template for a prompt of your own"
            )
        message = [{"role": "user", "content": asked}]
        text = base.tokenizer.apply_chat_template(
            message, tokenize=False, add_generation_prompt=True
        )
        assert isinstance(text, str)
        return text

    def prompt_tokens(self, base: TaskModel, samples: Sequence[Sample]) -> list[list[int]]:
        """Tokens of the prompts, with the tokenizer's special ones.

        Raises:
            DataError: a prompt is too long for the model or for ``max_length``.
        """
        texts = [self.prompt(base, sample) for sample in samples]
        # A chat template writes the special tokens itself.
        found: list[list[int]] = base.tokenizer(texts, add_special_tokens=not self.chat).input_ids
        limit = min(self.max_length, base.max_length)
        for sample, ids in zip(samples, found, strict=True):
            if not ids:
                raise DataError(
                    f"{sample.id}: expected a prompt of at least one token, got "
                    f"'{sample.inputs[0]}'; give its question in words"
                )
            if len(ids) > limit:
                raise DataError(
                    f"{sample.id}: expected a prompt of at most {limit} tokens, got {len(ids)}; "
                    + (
                        "raise task.max_length or shorten it"
                        if limit < base.max_length
                        else f"it is beyond the context of {base.name}"
                    )
                )
        return found

    def subject_spans(self, base: TaskModel, samples: Sequence[Sample]) -> list[Span]:
        """The tokens in each row that hold the sample's subject; see ``Task``."""
        texts = [self.prompt(base, sample) for sample in samples]
        encoded = base.tokenizer(texts, add_special_tokens=not self.chat)
        return [
            span(encoded, i, (text,), sample)
            for i, (text, sample) in enumerate(zip(texts, samples, strict=True))
        ]

    def encode(self, base: TaskModel, samples: Sequence[Sample]) -> Encoded:
        """Prompt and answer behind one another, or for encoder and decoder; see ``Task``.

        Raises:
            DataError: an answer that tokenises to nothing, or a text that is too long.
        """
        asked = [sample for sample in samples if sample.kind != TEXT]
        prompts = iter(self.prompt_tokens(base, asked) if asked else [])
        rows = [
            self._passage(base, s) if s.kind == TEXT else self._joined(base, s, next(prompts))
            for s in samples
        ]
        pad = base.model.config.pad_token_id
        targets = _padded([row[2] for row in rows], IGNORED)
        scored = _padded([[1] * len(row[2]) for row in rows], 0).bool()
        tokens = _padded([row[0] for row in rows], pad)
        inputs = {"input_ids": tokens}
        inputs["attention_mask"] = _padded([[1] * len(row[0]) for row in rows], 0)
        first = torch.tensor([row[1] for row in rows])
        at = first[:, None] + torch.arange(targets.shape[1])
        at = torch.where(scored, at, first[:, None])
        if base.kind == SEQ2SEQ:
            inputs["decoder_input_ids"] = _padded([row[3] for row in rows], pad)
        return Encoded(inputs, targets, at, scored)

    def _joined(self, base: TaskModel, sample: Sample, prompt: list[int]) -> _Row:
        answer = self._answer_tokens(base, sample, prompt)
        ends = [END] if self.ends or base.kind == SEQ2SEQ else []
        if base.kind == SEQ2SEQ:
            start = decoder_start(base)
            self._check_room(base, sample, len(start) + len(answer))
            targets = [IGNORED] * (len(start) - 1) + answer + ends
            return prompt, 0, targets, start + answer
        tokens = prompt + answer
        self._check_room(base, sample, len(tokens))
        # The last token is not read where nothing is scored behind it.
        return tokens if ends else tokens[:-1], len(prompt) - 1, answer + ends, []

    def _check_room(self, base: TaskModel, sample: Sample, n: int) -> None:
        if n > base.max_length:
            what = "an answer" if base.kind == SEQ2SEQ else "prompt and answer together"
            raise DataError(
                f"{sample.id}: expected {what} of at most {base.max_length} tokens, got {n}; "
                f"{base.name} has no longer context"
            )

    def _passage(self, base: TaskModel, sample: Sample) -> _Row:
        """A text: every token is scored but the first, and what is too long is cut off."""
        if base.kind == SEQ2SEQ:
            raise DataError(
                f"{sample.id}: expected questions or prompts for {base.name}, got a text; "
                "an encoder-decoder has no probability of a text of its own"
            )
        limit = min(self.max_length, base.max_length)
        tokens: list[int] = base.tokenizer(sample.target).input_ids[: limit + 1]
        if len(tokens) < 2:
            raise DataError(f"{sample.id}: expected a text of several tokens, got {len(tokens)}")
        return tokens[:-1], 0, tokens[1:], []

    def _answer_tokens(self, base: TaskModel, sample: Sample, prompt: list[int]) -> list[int]:
        answer = sample.target.strip()
        found: list[int]
        if base.kind == SEQ2SEQ:
            found = base.tokenizer(text_target=answer, add_special_tokens=False).input_ids
        else:
            # Words are split together with what stands before them: "is" + " Paris".
            asked = self.prompt(base, sample)
            gap = "" if self.chat or not asked or asked[-1].isspace() else " "
            whole = base.tokenizer(asked + gap + answer, add_special_tokens=not self.chat).input_ids
            while whole and whole[-1] in end_tokens(base) and answer:
                whole = whole[:-1]  # some tokenizers close every text
            if whole[: len(prompt)] == prompt:
                found = whole[len(prompt) :]
            else:
                found = base.tokenizer(gap + answer, add_special_tokens=False).input_ids
        if not answer or not found:
            raise DataError(
                f"{sample.id}: expected an answer of at least one token, got '{sample.target}'; "
                "give its right answer in words"
            )
        return found


def decoder_start(base: TaskModel) -> list[int]:
    """What a decoder begins with: its start token, and where the model asks for it another.

    Raises:
        ConfigError: the model does not say.
    """
    settings: Any = base.model.generation_config
    forced = getattr(settings, "forced_bos_token_id", None)
    start = getattr(settings, "decoder_start_token_id", None)
    if start is None:
        start = getattr(base.model.config, "decoder_start_token_id", None)
    if start is None:
        raise ConfigError(
            f"model.name: {base.name} has no decoder_start_token_id; set it in its config.json"
        )
    return [int(start), *([int(forced)] if forced is not None else [])]


def _padded(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    """Lists of different length as one matrix, filled up on the right."""
    out = torch.full((len(rows), max(map(len, rows))), fill, dtype=torch.long)
    for i, row in enumerate(rows):
        out[i, : len(row)] = torch.tensor(row, dtype=torch.long)
    return out
