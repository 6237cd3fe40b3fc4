"""Classification of a sentence pair or a claim: NLI and fact verification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, tensor

from saledit.errors import DataError, did_you_mean
from saledit.models import TaskModel
from saledit.records import Record, Sample


class Nli:
    """Two- or three-label classification; label names come from the data.

    Args:
        premise: name of the field with the premise; "" for a claim alone.
        hypothesis: name of the field with the hypothesis or claim.
        label: name of the field with the label.
        subjects: fields whose values no two splits may share.
        max_length: longest input in tokens; longer ones are truncated.
    """

    name = "nli"

    def __init__(
        self,
        premise: str = "premise",
        hypothesis: str = "hypothesis",
        label: str = "label",
        subjects: Sequence[str] = (),
        max_length: int = 128,
    ) -> None:
        self.fields = tuple(field for field in (premise, hypothesis) if field)
        self.label = label
        self.subjects = tuple(subjects)
        self.max_length = max_length

    def parse(self, row: Mapping[str, Any], where: str) -> Record:
        """Read ``premise``, ``hypothesis``, ``label``, optional ``id`` and ``paraphrases``.

        A paraphrase that names only one of the fields keeps the others.

        Raises:
            DataError: a field is missing or is not text.
        """
        inputs = tuple(self._text(row, field, where) for field in self.fields)
        target = self._text(row, self.label, where)
        name = str(row.get("id") or where)
        rewordings = tuple(
            Sample(
                f"{name}#{i}",
                self._reworded(row, other, where),
                target,
                str(other.get("kind") or "paraphrase"),
            )
            for i, other in enumerate(row.get("paraphrases") or ())
        )
        return Record(
            Sample(name, inputs, target),
            tuple(r for r in rewordings if r.inputs != inputs),
            tuple(subject for field in self.subjects for subject in _values(row, field, where)),
        )

    def _text(self, row: Mapping[str, Any], field: str, where: str) -> str:
        value = row.get(field)
        if not isinstance(value, str):
            # A typo in the field's name is the usual cause.
            remedy = did_you_mean(field, row) if field not in row else "give it as a string"
            got = "nothing" if value is None else type(value).__name__
            raise DataError(f"{where}: expected text in '{field}', got {got}; {remedy}")
        return value

    def _reworded(self, row: Mapping[str, Any], other: Any, where: str) -> tuple[str, ...]:
        if not isinstance(other, Mapping):
            raise DataError(
                f"{where}: expected 'paraphrases' to hold objects with "
                f"{' and '.join(self.fields)}, got {type(other).__name__}"
            )
        return tuple(
            self._text(other if other.get(field) is not None else row, field, where)
            for field in self.fields
        )

    def row(self, sample: Sample) -> dict[str, Any]:
        """A sample as a row of a data file; its subjects are not kept."""
        texts = dict(zip(self.fields, sample.inputs, strict=True))
        return {"id": sample.id, **texts, self.label: sample.target}

    def encode(self, base: TaskModel, inputs: Sequence[tuple[str, ...]]) -> dict[str, Tensor]:
        """Tokenise, pad to the longest, truncate to ``max_length``; (B, T) each."""
        columns = [list(column) for column in zip(*inputs, strict=True)]
        encoded = base.tokenizer(
            *columns,
            padding=True,
            padding_side="right",  # banks keep a row's first tokens; some decoders pad left
            truncation="longest_first",
            max_length=min(self.max_length, base.max_length),
            return_tensors="pt",
        )
        return dict(encoded)

    def targets(self, base: TaskModel, answers: Sequence[str]) -> Tensor:
        """Label numbers (B,).

        Raises:
            DataError: a label that the model does not know.
        """
        known = base.labels
        for answer in answers:
            if answer not in known:
                raise DataError(
                    f"{self.label}: expected a label of {base.name}, got '{answer}'; "
                    + did_you_mean(answer, known)
                )
        return tensor([known[answer] for answer in answers])

    def other_answers(self, base: TaskModel, answer: str) -> list[str]:
        """All other labels of the model."""
        return [label for label in base.labels if label != answer]

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy (...) of logits (..., C)."""
        flat = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none")
        return flat.view(targets.shape)

    def correct(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Whether the highest logit is the target's."""
        return logits.argmax(-1) == targets

    def answer(self, base: TaskModel, logits: Tensor) -> list[str]:
        """Label names of the highest logits."""
        names = {number: label for label, number in base.labels.items()}
        return [names[int(i)] for i in logits.argmax(-1)]


def _values(row: Mapping[str, Any], field: str, where: str) -> list[str]:
    value = row.get(field)
    if value is None:
        if field not in row:
            raise DataError(
                f"{where}: no field '{field}' (task.subjects); {did_you_mean(field, row)}"
            )
        return []
    return [str(v) for v in value] if isinstance(value, list) else [str(value)]
