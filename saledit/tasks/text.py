"""Answers in words: what question answering and generation have in common.

Targets are tokens (B, A): the next token of each scored position; ``END`` where the answer has
to end, whichever of the model's ways to end it takes; ``IGNORED`` at positions without a target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from saledit.config import TaskConfig
from saledit.errors import ConfigError, DataError
from saledit.losses import locality_kl
from saledit.models import SEQ2SEQ, TaskModel
from saledit.records import Record, Sample
from saledit.tasks.base import Encoded
from saledit.tasks.fields import named_fields, text_of, texts_of, values_of

END, IGNORED = -1, -100
_QUESTION = "{question}"
TEXT = "text"  # kind of a sample that is a passage, scored at all of its positions


# Tokens of the edited stack, its first scored position, targets, input of a decoder.
_Row = tuple[list[int], int, list[int], list[int]]


class TextTask:
    """A prompt and its continuation.

    Args:
        fields: names of the data's fields where they differ from the task's own.
        subjects: fields whose values no two splits may share.
        max_length: longest prompt with its answer, in tokens.
        template: prompt around ``{question}``; "" for the question alone.
        chat: ask through the model's chat template.
        stop: characters that end an answer; "" where nothing but the model's end token does.
        max_new_tokens: tokens of an answer at most under free generation.
    """

    name = TEXT
    generates = True
    by_perplexity = False
    names: tuple[str, ...] = ()  # prompt, answer, then what is optional

    def __init__(
        self, fields: Mapping[str, str] | None = None, subjects: Sequence[str] = (),
        max_length: int = 128, template: str = "", chat: bool = False, stop: str = "",
        max_new_tokens: int = 16,
    ) -> None:  # fmt: skip
        if template and _QUESTION not in template:
            raise ConfigError(
                f"task.template: expected a text with '{_QUESTION}' in it, got '{template}'"
            )
        self.fields = named_fields(fields or {}, self.names)
        self.spelling = tuple(self.fields.items())  # for cache keys
        self.subjects = tuple(subjects)
        self.max_length, self.max_new_tokens = max_length, max_new_tokens
        self.template, self.chat, self.stop = template or _QUESTION, chat, stop
        self._found: dict[tuple[int, str], tuple[Tensor, Tensor]] = {}

    @classmethod
    def of(cls, config: TaskConfig) -> TextTask:
        """The task that a configuration describes."""
        raise NotImplementedError

    # ------------------------------------------------------------------ rows

    def parse(self, row: Mapping[str, Any], where: str) -> Record:
        """Read a prompt with its answer, and what is optional beside them.

        Raises:
            DataError: a field is missing or is not text.
        """
        prompt, answer = self.names[:2]
        name = str(row.get("id") or where)
        if TEXT in row and self.fields[prompt] not in row:
            return Record(Sample(name, ("",), text_of(row, TEXT, where), TEXT))
        question = text_of(row, self.fields[prompt], where)
        target = text_of(row, self.fields[answer], where)
        if not question.strip():
            raise DataError(f"{where}: expected text in '{self.fields[prompt]}', got an empty one")
        others = texts_of(row, self.fields["answers"], where)
        accepted = tuple(dict.fromkeys([target, *others]))
        rephrases = dict.fromkeys(texts_of(row, self.fields["rephrases"], where))
        rewordings = tuple(
            Sample(f"{name}#{i}", (text,), target, "rephrase", accepted)
            for i, text in enumerate(rephrases)
            if text != question
        )
        return Record(
            Sample(name, (question,), target, "", accepted),
            rewordings,
            tuple(s for field in self.subjects for s in values_of(row, field, where)),
            self._locality(row, name, where),
        )

    def _locality(self, row: Mapping[str, Any], name: str, where: str) -> tuple[Sample, ...]:
        """Samples of other matters: objects with the task's own fields, or a list of them."""
        value = row.get(self.fields["locality"])
        if value is None:
            return ()
        out = []
        for i, item in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(item, str):
                out.append(Sample(f"{name}@{i}", (item,), ""))
                continue
            if not isinstance(item, Mapping):
                raise DataError(
                    f"{where}: expected '{self.fields['locality']}' to hold objects with "
                    f"{' and '.join(self.names[:2])}, got {type(item).__name__}"
                )
            question = text_of(item, self.names[0], where)
            answer = text_of(item, self.names[1], where)
            out.append(Sample(f"{name}@{i}", (question,), answer, "", (answer,)))
        return tuple(out)

    def row(self, sample: Sample) -> dict[str, Any]:
        """A sample as a row of a data file; its subjects are not kept."""
        if sample.kind == TEXT:
            return {"id": sample.id, TEXT: sample.target}
        prompt, answer = self.names[:2]
        row = {"id": sample.id, self.fields[prompt]: sample.inputs[0]}
        row[self.fields[answer]] = sample.target
        others = [a for a in sample.accepted if a != sample.target]
        return row | ({self.fields["answers"]: list(sample.accepted)} if others else {})

    def other_answers(self, base: TaskModel, answer: str) -> list[str]:
        """None: failures of the model itself are plentiful."""
        return []

    # -------------------------------------------------------------- encoding

    def prompt(self, base: TaskModel, sample: Sample) -> str:
        """The text that the model is given.

        Raises:
            ConfigError: ``task.chat`` of a model without a chat template.
        """
        asked = self.template.replace(_QUESTION, sample.inputs[0])
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
        ends = [END] if self.stop or base.kind == SEQ2SEQ else []
        if base.kind == SEQ2SEQ:
            start = _decoder_start(base)
            targets = [IGNORED] * (len(start) - 1) + answer + ends
            return prompt, 0, targets, start + answer
        tokens = prompt + answer
        if len(tokens) > base.max_length:
            raise DataError(
                f"{sample.id}: expected prompt and answer of at most {base.max_length} tokens "
                f"together, got {len(tokens)}; {base.name} has no longer context"
            )
        # The last token is not read where nothing is scored behind it.
        return tokens if ends else tokens[:-1], len(prompt) - 1, answer + ends, []

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
            while whole and whole[-1] in self.end_tokens(base) and answer:
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

    # ------------------------------------------------------------------ ends

    def end_tokens(self, base: TaskModel) -> frozenset[int]:
        """The model's own end tokens."""
        given = getattr(base.model.generation_config, "eos_token_id", None)
        ids = given if isinstance(given, list) else [given]
        return frozenset(i for i in (*ids, base.tokenizer.eos_token_id) if i is not None)

    def stops(self, base: TaskModel, stop: str | None = None) -> tuple[Tensor, Tensor]:
        """Which tokens end an answer.

        Args:
            base: the task model.
            stop: stop characters; None for the task's own.

        Returns:
            Two tables bool (C,): tokens at which an answer has ended just before, and tokens
            with an end anywhere inside, at which generation may halt.
        """
        stop = self.stop if stop is None else stop
        key = (id(base.tokenizer), stop)
        if key not in self._found:
            size = base.model.get_output_embeddings().weight.shape[0]
            words = base.tokenizer.batch_decode([[i] for i in range(len(base.tokenizer))])
            at_once, inside = torch.zeros(2, size, dtype=torch.bool)
            for i, word in enumerate(words[:size]):
                at_once[i] = word.lstrip(" ")[:1] in stop and bool(word.strip(" "))
                inside[i] = any(c in stop for c in word)
            for i in self.end_tokens(base):
                at_once[i] = inside[i] = True
            self._found[key] = at_once, inside
        return self._found[key]

    # --------------------------------------------------------------- scoring

    def losses(self, base: TaskModel, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean negative log-likelihood a position (...), logits (..., A, C), targets (..., A).

        At ``END`` it is that of any of the tokens that end an answer: an edit need not
        decide how.
        """
        logits = logits.float()
        total = logits.logsumexp(-1)
        chosen = logits.gather(-1, targets.clamp_min(0)[..., None]).squeeze(-1)
        if bool((targets == END).any()):
            ends = self.stops(base)[0].nonzero().squeeze(1).to(logits.device)
            last = targets == END
            chosen = chosen.masked_scatter(last, logits[last][:, ends].logsumexp(-1))
        real = targets != IGNORED
        return ((total - chosen) * real).sum(-1) / real.sum(-1).clamp_min(1)

    def divergence(self, base_logits: Tensor, edited: Tensor, targets: Tensor) -> Tensor:
        """Mean KL(base || edited) a position (...), logits (..., A, C), targets (..., A)."""
        real = targets != IGNORED
        kl = locality_kl(base_logits, edited)
        return (kl * real).sum(-1) / real.sum(-1).clamp_min(1)

    def correct(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Whether all answer tokens are right under teacher forcing, the end not counted."""
        return ((logits.argmax(-1) == targets) | (targets < 0)).all(-1)

    def spoken(self, base: TaskModel, logits: Tensor, targets: Tensor) -> Tensor:
        """Whether free greedy generation gives just this answer and ends it: bool (...).

        Greedy generation takes the highest logit at each step. So it gives a known answer if and
        only if the answer's tokens are the highest under teacher forcing, and no generation is
        needed to know it.
        """
        best = logits.argmax(-1)
        ended = self.stops(base)[0].to(best.device)[best]
        right = torch.where(targets == END, ended, best == targets)
        return (right | (targets == IGNORED)).all(-1)


def _decoder_start(base: TaskModel) -> list[int]:
    """What a decoder begins with: its start token, and where the model asks for it another."""
    config = base.model.generation_config
    forced = getattr(config, "forced_bos_token_id", None)
    start = base.model.config.decoder_start_token_id
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
