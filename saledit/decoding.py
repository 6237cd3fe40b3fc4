"""Free greedy generation under edits, in batches, with the key-value cache."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor
from torchmetrics.functional.text import squad

from saledit.batching import by_length
from saledit.delta import Edits
from saledit.models import SEQ2SEQ, TaskModel
from saledit.overlay import applied
from saledit.records import Answer, Sample
from saledit.tasks.ends import end_tokens, stop_tables
from saledit.tasks.text import TextTask

_BATCH_TOKENS = 2048


@torch.no_grad()
def generate(
    base: TaskModel,
    task: TextTask,
    samples: Sequence[Sample],
    edits: Edits | None = None,
    which: Tensor | None = None,
) -> list[Answer]:
    """Let a model answer.

    Args:
        base: the task model.
        task: makes the prompts and knows where an answer ends.
        samples: questions with their right answers.
        edits: applied in doing so: one for all samples, or a batch of shape (E,).
        which: for a batch of edits the edit of each sample, (n,).

    Returns:
        An answer to each sample.
    """
    prompts = task.prompt_tokens(base, samples)
    texts = [""] * len(samples)
    # An answer that holds a stop character itself must not be cut short by it.
    stops = [_stops_for(task, sample) for sample in samples]
    for stop in sorted(set(stops)):
        members = [i for i, own in enumerate(stops) if own == stop]
        for group in by_length([len(prompts[i]) for i in members], _BATCH_TOKENS):
            index = [members[j] for j in group]
            own = edits
            if edits is not None and which is not None:
                rows = which[index]
                own = Edits({site: delta[rows] for site, delta in edits.items()})
            new = _new_tokens(base, task, samples, index)
            found = _generate(base, task, [prompts[i] for i in index], own, stop, new)
            for i, text in zip(index, found, strict=True):
                texts[i] = text
    return [judge(task, sample, text) for sample, text in zip(samples, texts, strict=True)]


@torch.no_grad()
def continue_freely(
    base: TaskModel,
    task: TextTask,
    samples: Sequence[Sample],
    edits: Edits | None,
    which: Tensor,
    new_tokens: int,
) -> list[str]:
    """Let a model go on with prompts until its end token, without a stop rule.

    Args:
        base: the task model.
        task: makes the prompts.
        samples: the prompts.
        edits: a batch of edits (E,), or None.
        which: the edit of each sample, (n,).
        new_tokens: tokens at most.

    Returns:
        A continuation of each prompt.
    """
    own = None
    if edits is not None:
        own = Edits({site: delta[which] for site, delta in edits.items()})
    return _generate(base, task, task.prompt_tokens(base, samples), own, "", new_tokens)


def _stops_for(task: TextTask, sample: Sample) -> str:
    answers = "".join(sample.accepted or (sample.target,))
    return "".join(c for c in task.stop if c not in answers)


def _new_tokens(
    base: TaskModel, task: TextTask, samples: Sequence[Sample], index: Sequence[int]
) -> int:
    """How long answers may be; where nothing ends a continuation, as long as the longest target."""
    if task.stop or base.kind == SEQ2SEQ:
        return task.max_new_tokens
    encoded = task.encode(base, [samples[i] for i in index])
    return encoded.targets.shape[1]


def _generate(
    base: TaskModel,
    task: TextTask,
    prompts: Sequence[Sequence[int]],
    edits: Edits | None,
    stop: str,
    new_tokens: int,
) -> list[str]:
    width = max(map(len, prompts))
    # A model has no position beyond its context.
    read = 1 if base.kind == SEQ2SEQ else width
    new_tokens = max(1, min(new_tokens, base.max_length - read))
    pad = base.model.config.pad_token_id
    # Padding on the left, so that all rows go on at the same place.
    ids = torch.full((len(prompts), width), pad)
    mask = torch.zeros_like(ids)
    for i, prompt in enumerate(prompts):
        ids[i, width - len(prompt) :] = torch.tensor(prompt)
        mask[i, width - len(prompt) :] = 1
    ends = stop_tables(base, stop)[1].nonzero().squeeze(1).tolist() if stop else []
    with ExitStack() as stack:
        if edits is not None:
            stack.enter_context(applied(base.model, edits))
        device = base.model.device
        found = base.model.generate(  # type: ignore[operator]
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            do_sample=False,
            num_beams=1,
            max_new_tokens=new_tokens,
            eos_token_id=sorted({*ends, *end_tokens(base)}) or None,
            pad_token_id=pad,
        )
    new = found if base.kind == SEQ2SEQ else found[:, width:]
    texts: list[str] = base.tokenizer.batch_decode(new, skip_special_tokens=True)
    return texts


def judge(task: TextTask, sample: Sample, text: str) -> Answer:
    """Hold a text against the accepted answers.

    An answer ends at a stop character; where several stand in the text, at whichever makes it
    right. (Otherwise "Washington, D.C." could never be right.)

    Args:
        task: knows the stop characters.
        sample: with its accepted answers.
        text: what the model generated.
    """
    answers = list(sample.accepted or (sample.target,))
    if not task.stop:
        answers = [sample.target]
    cuts = [text[:i] for i, c in enumerate(text) if c in task.stop and text[:i].strip()]
    cuts = list(dict.fromkeys([*cuts, text]))
    scores = [_squad(cut, answers) for cut in cuts]
    for cut, (exact, _) in zip(cuts, scores, strict=True):
        if exact:
            return Answer(cut.strip(), True, 1.0)
    return Answer(cuts[0].strip(), False, scores[0][1])


def _squad(text: str, answers: Sequence[str]) -> tuple[bool, float]:
    """Normalised exact match and F1 (Rajpurkar et al., EMNLP 2016), best over the answers."""
    found = squad(
        {"prediction_text": text, "id": "0"},
        {"answers": {"answer_start": [0] * len(answers), "text": list(answers)}, "id": "0"},
    )
    return bool(found["exact_match"] > 0), float(found["f1"]) / 100
