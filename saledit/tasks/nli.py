"""Classification of a sentence pair or a claim: NLI and fact verification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, tensor
from transformers import BatchEncoding

from saledit.config import TaskConfig
from saledit.errors import DataError, did_you_mean
from saledit.losses import locality_kl
from saledit.models import TaskModel
from saledit.records import Record, Sample
from saledit.tasks.base import Encoded
from saledit.tasks.fields import named_fields, text_of, values_of
from saledit.tasks.subjects import Span, span, stands_in, subject_of
from saledit.widths import wide


class Nli:
    """Two- or three-label classification; label names come from the data.

    Args:
        fields: names of the data's fields where they are not ``premise``, ``hypothesis``,
            ``label`` and (optional) ``subject``; ``premise: ""`` for a claim alone.
        subjects: fields whose values no two splits may share.
        max_length: longest input in tokens; longer ones are truncated.
    """

    name = "nli"
    settings = ()
    generates = False
    by_perplexity = False
    # What a step disturbs an editor learns to leave alone, best at the top, where training is quick
    kl_price = 0.5

    def __init__(
        self,
        fields: Mapping[str, str] | None = None,
        subjects: Sequence[str] = (),
        max_length: int = 128,
    ) -> None:
        names = named_fields(fields or {}, ("premise", "hypothesis", "label", "subject"))
        self.fields = tuple(f for f in (names["premise"], names["hypothesis"]) if f)
        self.label, self.subject = names["label"], names["subject"]
        self.subjects = tuple(subjects)
        self.max_length = max_length

    @classmethod
    def of(cls, config: TaskConfig) -> Nli:
        """The task that a configuration describes.

        Raises:
            ConfigError: a field that this task does not have.
        """
        return cls(config.fields, config.subjects, config.max_length)

    def parse(self, row: Mapping[str, Any], where: str) -> Record:
        """Read ``premise``, ``hypothesis``, ``label``, optional ``id`` and ``paraphrases``.

        A paraphrase that names only one of the fields keeps the others.

        Raises:
            DataError: a field is missing or is not text, or all texts are blank.

        Example:
            >>> row = {"premise": "A man sleeps.", "hypothesis": "He runs.", "label": "no"}
            >>> record = Nli().parse(row, "mistakes.jsonl:1")
            >>> record.sample.inputs, record.sample.target, record.sample.id
            (('A man sleeps.', 'He runs.'), 'no', 'mistakes.jsonl:1')
        """
        inputs = tuple(text_of(row, field, where, "task.fields") for field in self.fields)
        if not any(text.strip() for text in inputs):
            fields = " or ".join(f"'{field}'" for field in self.fields)
            raise DataError(f"{where}: expected words in {fields}, got blanks; leave the row out")
        target = text_of(row, self.label, where, "task.fields")
        name = str(row.get("id") or where)
        subject = subject_of(row, self.subject, inputs)
        others = [self._reworded(row, other, where) for other in row.get("paraphrases") or ()]
        rewordings = tuple(
            Sample(
                f"{name}#{i}",
                texts,
                target,
                kind,
                subject=subject if stands_in(subject, texts) else "",
            )
            for i, (texts, kind) in enumerate(others)
        )
        return Record(
            Sample(name, inputs, target, subject=subject),
            tuple(r for r in rewordings if r.inputs != inputs),
            tuple(subject for field in self.subjects for subject in values_of(row, field, where)),
        )

    def _reworded(
        self, row: Mapping[str, Any], other: Any, where: str
    ) -> tuple[tuple[str, ...], str]:
        """The texts of a rewording, and its kind."""
        if not isinstance(other, Mapping):
            raise DataError(
                f"{where}: expected 'paraphrases' to hold objects with "
                f"{' and '.join(self.fields)}, got {type(other).__name__}"
            )
        texts = tuple(
            text_of(other if other.get(field) is not None else row, field, where)
            for field in self.fields
        )
        return texts, str(other.get("kind") or "paraphrase")

    def row(self, sample: Sample) -> dict[str, Any]:
        """A sample as a row of a data file; what splits go by is not kept."""
        texts = dict(zip(self.fields, sample.inputs, strict=True))
        about = {self.subject: sample.subject} if sample.subject else {}
        return {"id": sample.id, **texts, self.label: sample.target, **about}

    def encode(self, base: TaskModel, samples: Sequence[Sample]) -> Encoded:
        """Tokenise, pad to the longest, truncate to ``max_length``; see ``Task.encode``."""
        tokens = self._tokens(base, samples).convert_to_tensors("pt")
        return Encoded(dict(tokens), self.targets(base, samples))

    def subject_spans(self, base: TaskModel, samples: Sequence[Sample]) -> list[Span]:
        """See ``Task.subject_spans``."""
        tokens = self._tokens(base, samples)
        return [span(tokens, i, s.inputs, s) for i, s in enumerate(samples)]

    def _tokens(self, base: TaskModel, samples: Sequence[Sample]) -> BatchEncoding:
        columns = [list(c) for c in zip(*(sample.inputs for sample in samples), strict=True)]
        tokens: BatchEncoding = base.tokenizer(
            *columns,
            padding=True,
            padding_side="right",  # banks keep a row's first tokens; some decoders pad left
            truncation="longest_first",
            max_length=min(self.max_length, base.max_length),
        )
        return tokens

    def targets(self, base: TaskModel, samples: Sequence[Sample]) -> Tensor:
        """Numbers (B,) of the samples' labels.

        Raises:
            DataError: a label that the model does not know.
        """
        known = base.labels
        for sample in samples:
            if sample.target not in known:
                raise DataError(
                    f"{sample.id}: expected a label of {base.name} in '{self.label}', got "
                    f"'{sample.target}'; {did_you_mean(sample.target, known)}"
                )
        return tensor([known[sample.target] for sample in samples])

    def other_answers(self, base: TaskModel, answer: str) -> list[str]:
        """All other labels of the model."""
        return [label for label in base.labels if label != answer]

    def logits(self, base: TaskModel, outputs: Tensor, targets: Tensor) -> Tensor:
        """The outputs themselves."""
        return outputs

    def logits_beside(
        self, base: TaskModel, reference: Tensor, outputs: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The outputs themselves."""
        return reference, outputs

    def losses(self, base: TaskModel, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy (...) of logits (..., C)."""
        flat = F.cross_entropy(wide(logits).flatten(0, -2), targets.flatten(), reduction="none")
        return flat.view(targets.shape)

    def answer_losses(self, base: TaskModel, logits: Tensor, targets: Tensor) -> Tensor:
        """The same: an answer is one label."""
        return self.losses(base, logits, targets)

    def divergence(self, base_logits: Tensor, edited: Tensor, targets: Tensor) -> Tensor:
        """KL(base || edited) (...) of logits (..., C)."""
        return locality_kl(wide(base_logits), wide(edited))

    def correct(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Whether the highest logit is the target's."""
        return logits.argmax(-1) == targets

    def leads(self, base: TaskModel, logits: Tensor, targets: Tensor) -> Tensor:
        """Logit of the right label minus the highest of the others (...)."""
        right = logits.gather(-1, targets[..., None])
        others = logits.scatter(-1, targets[..., None], float("-inf"))
        return (right - others.amax(-1, keepdim=True)).squeeze(-1)

    def label_names(self, base: TaskModel, numbers: Tensor) -> list[str]:
        """Names of labels, of their numbers (B,)."""
        names = {number: label for label, number in base.labels.items()}
        return [names[number] for number in numbers.tolist()]
