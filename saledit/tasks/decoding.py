"""Free greedy generation under edits, in batches, with the key-value cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from string import punctuation
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.functional.text import squad
from transformers import GenerationConfig

from saledit.delta import Edits
from saledit.models import SEQ2SEQ, TaskModel
from saledit.overlay import applied
from saledit.records import Answer, Sample
from saledit.tasks.base import WordTask
from saledit.tasks.batching import by_length
from saledit.tasks.ends import end_tokens, stop_tables
from saledit.tasks.prompts import decoder_start

_NO_PUNCTUATION = str.maketrans("", "", punctuation)
_BATCH_TOKENS = 2048  # padded tokens of prompts at a time


@torch.no_grad()
def generate(
    base: TaskModel,
    task: WordTask,
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
    # An answer that holds a stop character itself must not be cut short by it.
    stops = [_stops_for(task, sample) for sample in samples]
    wanted = _wanted(base, task, samples)
    said = _say(base, task, samples, stops, wanted, edits, which)
    return [
        replace(judge(task, sample, text), ended=ended or _is_counted(base, task))
        for sample, (text, ended) in zip(samples, said, strict=True)
    ]


@torch.no_grad()
def continue_freely(
    base: TaskModel,
    task: WordTask,
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
        new_tokens: tokens at most; fewer where the context is full.

    Returns:
        A continuation of each prompt.
    """
    n = len(samples)
    said = _say(base, task, samples, [""] * n, [new_tokens] * n, edits, which)
    return [text for text, _ in said]


def _stops_for(task: WordTask, sample: Sample) -> str:
    answers = "".join(sample.accepted or (sample.target,))
    return "".join(c for c in task.stop if c not in answers)


def _is_counted(base: TaskModel, task: WordTask) -> bool:
    """Whether nothing ends an answer but its number of tokens."""
    return not task.stop and base.kind != SEQ2SEQ


def _wanted(base: TaskModel, task: WordTask, samples: Sequence[Sample]) -> list[int]:
    """How many tokens an answer may have: where nothing ends it, as many as its target."""
    if not samples or not _is_counted(base, task):
        return [task.max_new_tokens] * len(samples)
    scored = task.encode(base, samples).scored
    assert scored is not None
    return [int(n) for n in scored.sum(1)]


def _say(
    base: TaskModel,
    task: WordTask,
    samples: Sequence[Sample],
    stops: Sequence[str],
    wanted: Sequence[int],
    edits: Edits | None,
    which: Tensor | None,
) -> list[tuple[str, bool]]:
    """Generate in batches of like length, stop characters and number of new tokens.

    Returns:
        For each sample its text, and whether that came to an end of its own.
    """
    prompts = task.prompt_tokens(base, samples)
    if edits is not None and edits.batch_shape == (1,):
        # One of everything may be as large as the matrices: a copy a row would be many of them.
        edits, which = Edits({site: delta[0] for site, delta in edits.items()}), None
    out = [("", True)] * len(samples)
    kinds: dict[tuple[str, int], list[int]] = {}
    for i, (stop, most) in enumerate(zip(stops, wanted, strict=True)):
        # A model has no position beyond its context.
        read = 1 if base.kind == SEQ2SEQ else len(prompts[i])
        kinds.setdefault((stop, max(1, min(most, base.max_length - read))), []).append(i)
    at_once = min(_BATCH_TOKENS, base.pass_tokens // 2)
    for (stop, most), members in sorted(kinds.items()):
        for group in by_length([len(prompts[i]) for i in members], at_once):
            index = [members[j] for j in group]
            own = edits
            if edits is not None and which is not None:
                rows = which[index]
                own = Edits({site: delta[rows] for site, delta in edits.items()})
            found = _generate(base, [prompts[i] for i in index], own, stop, most)
            for i, said in zip(index, found, strict=True):
                out[i] = said
    return out


def _generate(
    base: TaskModel,
    prompts: Sequence[Sequence[int]],
    edits: Edits | None,
    stop: str,
    new_tokens: int,
) -> list[tuple[str, bool]]:
    width = max(map(len, prompts))
    pad = base.model.config.pad_token_id
    # Padding on the left, so that all rows go on at the same place; not for an encoder, which may
    # count positions from there.
    ids = torch.full((len(prompts), width), pad)
    mask = torch.zeros_like(ids)
    for i, prompt in enumerate(prompts):
        first = 0 if base.kind == SEQ2SEQ else width - len(prompt)
        ids[i, first : first + len(prompt)] = torch.tensor(prompt)
        mask[i, first : first + len(prompt)] = 1
    stops = stop_tables(base, stop)[1].nonzero().squeeze(1).tolist() if stop else []
    ends = sorted({*stops, *end_tokens(base)})
    with ExitStack() as stack:
        if edits is not None:
            stack.enter_context(applied(base.model, edits))
        stack.enter_context(_greedily(base, ends, new_tokens))
        # What transformers hands the head is a slice of all positions, for which torch copies the
        # matrix once a row in half precision on a CPU (14 times the time, a GB a row of an 8 B).
        head: Any = base.model.get_output_embeddings()
        stack.enter_context(base.leaving_head())
        stack.callback(head.register_forward_pre_hook(_in_order).remove)
        found = base.model.generate(  # type: ignore[operator]
            input_ids=ids.to(base.device), attention_mask=mask.to(base.device)
        )
    new = base.weights.broadcast(found if base.kind == SEQ2SEQ else found[:, width:])
    texts: list[str] = base.tokenizer.batch_decode(new, skip_special_tokens=True)
    # What has ended is filled up with padding.
    last = set(ends) | {pad}
    return list(zip(texts, [token in last for token in new[:, -1].tolist()], strict=True))


def _in_order(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (args[0].contiguous(), *args[1:])


@contextmanager
def _greedily(base: TaskModel, ends: Sequence[int], new_tokens: int) -> Iterator[None]:
    """Greedy decoding and nothing else, whatever the model's own settings of generation say.

    A model may bring a repetition penalty or beams; what it says under these is not what its
    logits say, by which edits are judged.
    """
    own: Any = base.model.generation_config
    start = decoder_start(base) if base.kind == SEQ2SEQ else []
    base.model.generation_config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=new_tokens,
        eos_token_id=list(ends) or None,
        pad_token_id=base.model.config.pad_token_id,
        decoder_start_token_id=start[0] if start else None,
        forced_bos_token_id=start[1] if len(start) > 1 else None,
    )
    try:
        yield
    finally:
        base.model.generation_config = own


def judge(task: WordTask, sample: Sample, text: str) -> Answer:
    """Hold a text against the accepted answers.

    An answer ends at a stop character; where several stand in the text, at whichever makes it
    right. (Otherwise "Washington, D.C." could never be right.)

    Args:
        task: knows the stop characters.
        sample: with its accepted answers.
        text: what the model generated.
    """
    answers = _accepted(task, sample)
    cuts = [text[:i] for i, c in enumerate(text) if c in task.stop and text[:i].strip()]
    cuts = list(dict.fromkeys([*cuts, text]))
    if not any(answers):  # nothing is right; "the" would be, for normalised it is nothing
        return Answer(cuts[0].strip(), False, 0.0)
    scores = [_held_against(cut, answers) for cut in cuts]
    for cut, (exact, _) in zip(cuts, scores, strict=True):
        if exact:
            return Answer(cut.strip(), True, 1.0)
    return Answer(cuts[0].strip(), False, scores[0][1])


def has_others(task: WordTask, sample: Sample) -> bool:
    """Whether another answer than its target is accepted for a sample."""
    return any(answer != sample.target for answer in _accepted(task, sample))


def _accepted(task: WordTask, sample: Sample) -> list[str]:
    """The answers that a text is held against: where nothing ends one, the target alone."""
    return list(sample.accepted or (sample.target,)) if task.stop else [sample.target]


def _held_against(text: str, answers: Sequence[str]) -> tuple[bool, float]:
    """Exact match and F1, best over the answers.

    By SQuAD's rule an answer of articles and punctuation alone ("A", "-") is nothing, as which any
    other such text, and none at all, would be right; it is held against the text as it stands.
    """
    bare = [answer for answer in answers if _is_nothing(answer)]
    if text.strip().lower() in (answer.strip().lower() for answer in bare):
        return True, 1.0
    words = [answer for answer in answers if answer not in bare]
    return _squad(text, words) if words else (False, 0.0)


def _is_nothing(answer: str) -> bool:
    """Whether SQuAD's normalisation leaves nothing of it."""
    plain = answer.lower().translate(_NO_PUNCTUATION)
    return all(word in ("a", "an", "the") for word in plain.split())


def _squad(text: str, answers: Sequence[str]) -> tuple[bool, float]:
    """Normalised exact match and F1 (Rajpurkar et al., EMNLP 2016), best over the answers."""
    found = squad(
        {"prediction_text": text, "id": "0"},
        {"answers": {"answer_start": [0] * len(answers), "text": list(answers)}, "id": "0"},
    )
    return bool(found["exact_match"] > 0), float(found["f1"]) / 100
