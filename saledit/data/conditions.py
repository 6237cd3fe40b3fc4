"""Conditions: what an editor that reads text is told about failures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from saledit.cache.bank import Bank
from saledit.models import CAUSAL, TaskModel
from saledit.records import Sample
from saledit.tasks.base import Task
from saledit.tasks.prompts import IGNORED

NOTHING = -1  # behind the last token of a shorter condition
_ROWS = 32


@torch.no_grad()
def conditions(base: TaskModel, task: Task, bank: Bank, samples: Sequence[Sample]) -> Tensor:
    """Each failure as one line of tokens: the input, what the model says, the right answer.

    Source: De Cao et al., EMNLP 2021, section 4.1. Of text "what the model says" is its choice
    at each position of the right answer (teacher-forced), which the bank knows already.

    Args:
        base: the task model.
        task: encodes the samples.
        bank: their cached outputs.
        samples: the failures, N.

    Returns:
        Tokens (N, T) with ``NOTHING`` behind the last; int64.
    """
    lines = []
    for start in range(0, len(samples), _ROWS):
        index = torch.arange(start, min(start + _ROWS, len(samples)))
        encoded = task.encode(base, [samples[i] for i in index.tolist()])
        targets = bank.targets_of(index).cpu()
        said = task.logits(base, bank.outputs(index), bank.targets_of(index)).argmax(-1).cpu()
        spoken = _tokens(base, said, targets)
        right = _tokens(base, targets[targets != IGNORED], targets)
        real = encoded.inputs["attention_mask"].bool().cpu()
        if base.kind == CAUSAL and encoded.at is not None:
            # The right answer stands behind the prompt; the first scored position ends that.
            end = encoded.at[:, :1].cpu()
            real = real & (torch.arange(real.shape[1])[None] <= end)
        for ids, mask, *answers in zip(
            encoded.inputs["input_ids"].cpu(), real, spoken, right, strict=True
        ):
            lines.append(torch.cat([ids[mask], *answers]))
    return pad_sequence(lines, batch_first=True, padding_value=NOTHING)


def _tokens(base: TaskModel, answers: Tensor, targets: Tensor) -> list[Tensor]:
    """Answers of some samples in tokens: of a classifier its labels' names."""
    if targets.dim() > 1:  # tokens already, one sample behind the other
        return list(torch.split(answers, (targets != IGNORED).sum(1).tolist()))
    names = {number: name for name, number in base.labels.items()}
    own = [base.tokenizer(names[int(i)], add_special_tokens=False)["input_ids"] for i in answers]
    return [torch.tensor(ids, dtype=torch.long) for ids in own]


def embedded(base: TaskModel, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The model's own embeddings of tokens (..., T): (..., T, D), and which are real (..., T)."""
    real = tokens != NOTHING
    table = base.model.get_input_embeddings()
    found: Tensor = table(tokens.clamp_min(0).to(base.device))
    return found.detach(), real.to(base.device)
