"""What a task has to say: encode samples, score logits, decide what is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeGuard

import torch
from torch import Tensor

from saledit.config import TaskConfig
from saledit.models import TaskModel
from saledit.records import Record, Sample
from saledit.tasks.subjects import Span


@dataclass(frozen=True, slots=True)
class Encoded:
    """Samples as a model reads them.

    Attributes:
        inputs: ``input_ids`` and the like, (B, T) each, padded on the right; with
            ``attention_mask``; ``decoder_input_ids`` (B, A) for an encoder-decoder.
        targets: right answers: class numbers (B,), or tokens (B, A) as ``saledit.tasks.prompts``
            describes them.
        at: positions (B, A) whose next token is scored; None for a classifier.
        scored: bool (B, A), which of them are real, not padding; None for a classifier.
    """

    inputs: dict[str, Tensor]
    targets: Tensor
    at: Tensor | None = None
    scored: Tensor | None = None

    def to(self, device: torch.device | str, **_options: object) -> Encoded:
        """The same on a device; Lightning calls it."""
        return Encoded(
            {name: tensor.to(device) for name, tensor in self.inputs.items()},
            self.targets.to(device),
            None if self.at is None else self.at.to(device),
            None if self.scored is None else self.scored.to(device),
        )


class Task(Protocol):
    """The one definition of "right" for splits, training, tests and fixes.

    A task is of one of two kinds, ``LabelTask`` or ``WordTask``, which have a little more.

    Attributes:
        name: as in the registry.
        settings: keys of ``TaskConfig`` that it reads beside those that all tasks have.
        generates: True where the model answers in words, so that answers are also scored under
            free generation.
        by_perplexity: True where what must not change is text, measured by its perplexity.
        kl_price: what a nat of KL on a pass sample costs in mended failures where untrained steps
            are compared (``saledit.saliency.trial``).
    """

    name: str
    settings: tuple[str, ...]
    generates: bool
    by_perplexity: bool
    kl_price: float

    @classmethod
    def of(cls, config: TaskConfig) -> Task:
        """The task that a configuration describes.

        Raises:
            ConfigError: a setting that this task does not have.
        """
        ...

    def parse(self, row: Mapping[str, Any], where: str) -> Record:
        """Turn a row of a data file into a record.

        Args:
            row: the row's fields.
            where: ``file:line``, for messages.

        Raises:
            DataError: a field is missing or wrong.
        """
        ...

    def row(self, sample: Sample) -> dict[str, Any]:
        """The opposite of ``parse``: a sample as a row of a data file."""
        ...

    def encode(self, base: TaskModel, samples: Sequence[Sample]) -> Encoded:
        """Tokenise samples with their answers into a padded batch.

        Raises:
            DataError: an answer that the model cannot give, or a text that is too long for it.
        """
        ...

    def subject_spans(self, base: TaskModel, samples: Sequence[Sample]) -> list[Span]:
        """Where each sample's subject stands in its row of ``input_ids``: first and last token.

        Raises:
            DataError: a sample without a subject, or one whose text does not hold it.
        """
        ...

    def other_answers(self, base: TaskModel, answer: str) -> list[str]:
        """Answers that the model could give in this one's place."""
        ...

    def logits(self, base: TaskModel, outputs: Tensor, targets: Tensor) -> Tensor:
        """Logits where something is scored.

        Args:
            base: the task model.
            outputs: what the head reads (..., A, D); logits (..., C) of a classifier.
            targets: (...), or (..., A) of text.

        Returns:
            (..., C) of a classifier; of text (P, C), the positions with a target one after another.
        """
        ...

    def logits_beside(
        self, base: TaskModel, reference: Tensor, outputs: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits of the base's outputs and of an edited model's, true to their difference.

        Args:
            base: the task model.
            reference: what the base gives to the head, shaped as ``outputs``.
            outputs: as in ``logits``.
            targets: as in ``logits``.
        """
        ...

    def losses(self, base: TaskModel, logits: Tensor, targets: Tensor) -> Tensor:
        """Negative log-likelihood (...) of the right answers, of text a mean over its tokens.

        Args:
            base: the task model.
            logits: as ``logits`` gives them.
            targets: (...), or (..., A) of text.
        """
        ...

    def answer_losses(self, base: TaskModel, logits: Tensor, targets: Tensor) -> Tensor:
        """The same of whole answers, what an edit is trained on: of text a sum over its tokens.

        An answer is right only if all of it is. In a mean its first token, which is the hard one,
        would weigh the less the longer the answer is.
        """
        ...

    def divergence(self, base_logits: Tensor, edited: Tensor, targets: Tensor) -> Tensor:
        """KL(base || edited) (...), a mean over scored positions; shapes as in ``losses``."""
        ...

    def correct(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Whether each answer is right, of text under teacher forcing: bool (...)."""
        ...

    def leads(self, base: TaskModel, logits: Tensor, targets: Tensor) -> Tensor:
        """Nats by which each right answer leads the next best (...), negative where it does not.

        Of text at the token where it leads by least, its end among them. Arguments as in
        ``losses``.
        """
        ...


class LabelTask(Task, Protocol):
    """A task that a classifier's logits answer."""

    def targets(self, base: TaskModel, samples: Sequence[Sample]) -> Tensor:
        """Numbers (B,) of the samples' labels.

        Raises:
            DataError: a label that the model does not know.
        """
        ...

    def label_names(self, base: TaskModel, numbers: Tensor) -> list[str]:
        """Names of labels, of their numbers (B,)."""
        ...


class WordTask(Task, Protocol):
    """A task whose answers a model generates, token by token.

    Attributes:
        stop: characters that end an answer; "" where nothing but the model's end token does.
        max_new_tokens: tokens of an answer at most.
    """

    stop: str
    max_new_tokens: int

    def prompt_tokens(self, base: TaskModel, samples: Sequence[Sample]) -> list[list[int]]:
        """Tokens of the prompts that samples are asked by.

        Raises:
            DataError: a prompt that is too long for the model.
        """
        ...

    def spoken(self, base: TaskModel, logits: Tensor, targets: Tensor) -> Tensor:
        """Whether free greedy generation gives just this answer and ends it: bool (...)."""
        ...

    def unended(self) -> Self:
        """The same task where an answer's end is not part of it, as the field compares answers."""
        ...

    def bare(self, max_length: int) -> Self:
        """The same where a prompt is a sample's text and nothing else, and no end is asked for.

        Args:
            max_length: longest prompt in tokens.
        """
        ...


def in_words(task: Task) -> TypeGuard[WordTask]:
    """Whether a task is answered in words, see ``Task.generates``."""
    return task.generates


def in_labels(task: Task) -> TypeGuard[LabelTask]:
    """Whether a task is answered by labels, see ``Task.generates``."""
    return not task.generates


def task_settings(task: Task) -> dict[str, object]:
    """A task's settings, for cache keys."""
    kept = sorted(vars(task).items())
    return {k: v for k, v in kept if isinstance(v, str | int | tuple)}
