"""Pass, fail and adapt: what the task model itself gets right and wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from saledit.data.asking import Asked
from saledit.data.made import counterfactual, reworded
from saledit.data.rewordings import Rewriter, adapt_samples
from saledit.errors import DataError
from saledit.models import TaskModel
from saledit.records import Answer, Record, Sample, Writing
from saledit.tasks.base import Task
from saledit.tasks.prompts import TEXT


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes of a part.

    Attributes:
        key: the configuration key that the records came from, for messages.
        failures: failures at most.
        passes: pass samples at most.
        rewordings: rewordings of each failure at most.
        made: pass samples at most that counterfactual failures are made of; of text rewordings
            at most that also stand for their failure.
        own_answers: True to keep samples of other matters, and the failures, with the model's own
            answer, right or wrong: what it says is what an editor in training learns to leave
            alone.
    """

    key: str
    failures: int
    passes: int
    rewordings: int
    made: int = 0
    own_answers: bool = False


_CHUNK = 256  # records asked at a time
_REMEDIES = {
    False: "check that its labels mean what the data's do",
    True: "name questions that it can answer, or other ones, in data.locality; or change "
    "task.template",
}


@dataclass(frozen=True, slots=True)
class Part:
    """One side of a split.

    Attributes:
        fail: samples that the task model answers wrongly.
        adapt: for each of them its rewordings, possibly none.
        passing: samples that the task model answers rightly.
        made: further failures for training, so that an editor meets texts that it has not
            learned by heart. Of a classifier they are counterfactual: pass samples with another
            answer for a target, far more than there are real failures. Of text they are
            rewordings in the place of their failure. Nothing is ever measured on them.
        made_adapt: for each of them its rewordings.
        made_from: for each of them the position in ``passing`` that never stands beside it: its
            pass sample, or what the model says to its failure; -1 for none.
        own_from: for each of ``fail`` the position in ``passing`` of what the model says to it,
            which every other edit has to leave alone; -1 for none of them, () for all none.
        near: for each of ``fail`` the samples of other matters that its record brings.
        writing: for each of ``fail`` what the model is let write on.
    """

    fail: tuple[Sample, ...]
    adapt: tuple[tuple[Sample, ...], ...]
    passing: tuple[Sample, ...]
    made: tuple[Sample, ...] = ()
    made_adapt: tuple[tuple[Sample, ...], ...] = ()
    made_from: tuple[int, ...] = ()
    own_from: tuple[int, ...] = ()
    near: tuple[tuple[Sample, ...], ...] = ()
    writing: tuple[Writing, ...] = ()

    def counts(self) -> dict[str, object]:
        """Sizes, and the kinds of the rewordings."""
        kinds = Counter(sample.kind for group in self.adapt for sample in group)
        return {
            "fail": len(self.fail),
            "adapt": sum(kinds.values()),
            "adapt_kinds": dict(sorted(kinds.items())),
            "pass": len(self.passing),
            "made": len(self.made),
        }


def make_part(
    base: TaskModel,
    task: Task,
    records: Sequence[Record],
    limits: Limits,
    rewriter: Rewriter | None,
    folder: Path,
    learned: Sequence[Record] = (),
    locality: Sequence[Sample] = (),
    progress: Callable[[int], object] = lambda _done: None,
    seen: frozenset[tuple[str, ...]] = frozenset(),
) -> Part:
    """Run the task model over records and sort them into pass, fail and adapt.

    What the model answers and how a text is reworded is remembered on disk, so a split
    with another seed or other limits is made of what is known. No more records are asked than
    the limits need.

    Args:
        base: the task model.
        task: the task.
        records: the records, none of them seen in fine-tuning.
        limits: sizes.
        rewriter: makes rewordings of failures that bring none; None for no rewordings.
        folder: where the memos are.
        learned: records of the fine-tuning, for training alone. The right answers among them
            fill up the pass samples where the records have too few: a KL term that sees
            every pass sample a hundred times is met by learning them by heart.
        locality: further samples that must stay as they are.
        progress: called with the number of records that were asked.
        seen: ``matter_key`` of what training sees; none of it is a sample of other matters here.

    Returns:
        The part.

    Raises:
        DataError: the model makes no mistake, or nothing but mistakes.
    """
    ask = Asked(base, task, folder, progress)
    if task.by_perplexity and not locality:
        # Passages serve as failures or as what must not change, not as both.
        limits = replace(limits, failures=min(limits.failures, (len(records) + 1) // 2))
    failing, right, rest = _sorted_out(task, records, limits, ask)
    if not failing:
        raise DataError(
            f"{limits.key}: expected samples that {base.name} answers wrongly, got none among "
            f"{len(records)}: the model makes no mistake here; give other data or another model"
        )
    right = right[: limits.passes]
    sources = [] if task.generates else right[: limits.made]
    passing = [_own(answer, record.sample) for record, answer in right]
    room = limits.passes - len(passing)
    if room and learned:
        found = zip(learned, ask([record.sample for record in learned]), strict=True)
        passing += [_own(answer, record.sample) for record, answer in found if answer.right][:room]
    room = limits.passes - len(passing)
    if room:
        others = [*locality, *(s for r in records for s in r.locality)]
        if limits.own_answers and task.generates:
            others += [record.sample for record in rest]
            # An edit of one failure is to leave the others to their own edits. Of records beyond
            # the failures there may be few, and a KL term learns few samples by heart.
            others += [] if task.by_perplexity else [record.sample for record in failing]
        others = [sample for sample in others if matter_key(sample) not in seen]
        passing += _kept(task, others, {r.sample.id for r in failing}, limits, room, ask)
    if not passing:
        raise DataError(
            f"{limits.key}: expected samples that {base.name} answers rightly, got none among "
            f"{len(records)}; {_REMEDIES[task.generates]}"
        )
    asked = [*failing, *(record for record, _ in sources)]
    groups = adapt_samples(asked, limits.rewordings, rewriter, folder)
    fail, own = tuple(record.sample for record in failing), _places(failing, passing)
    if task.generates:
        made = reworded(fail, groups, own)[: limits.made]
    else:
        asked_otherwise = [record.sample for record, _ in sources]
        made = counterfactual(base, task, asked_otherwise, groups[len(fail) :])
    return Part(
        fail,
        groups[: len(fail)],
        tuple(passing),
        tuple(one.sample for one in made),
        tuple(one.rewordings for one in made),
        tuple(one.apart for one in made),
        own,
        tuple(record.locality for record in failing),
        tuple(record.writing for record in failing),
    )


def _places(failing: Sequence[Record], passing: Sequence[Sample]) -> tuple[int, ...]:
    """Where the failures' own questions stand among the pass samples; () if nowhere."""
    places = {sample.id: i for i, sample in enumerate(passing)}
    found = tuple(places.get(record.sample.id, -1) for record in failing)
    return found if any(place >= 0 for place in found) else ()


def _sorted_out(
    task: Task, records: Sequence[Record], limits: Limits, ask: Asked
) -> tuple[list[Record], list[tuple[Record, Answer]], list[Record]]:
    """Records answered wrongly, those answered rightly with the answer, and what is left over."""
    failing: list[Record] = []
    right: list[tuple[Record, Answer]] = []
    for start in range(0, len(records), _CHUNK):
        chunk = [r for r in records[start : start + _CHUNK] if r.sample.kind != TEXT]
        for record, answer in zip(chunk, ask([r.sample for r in chunk]), strict=True):
            if answer.right:
                right.append((record, answer))
            else:
                failing.append(record)
        # Of texts none is right or wrong: what must stay is given apart. In training the model's
        # own answers fill up what is right.
        enough = len(right) >= limits.passes or task.by_perplexity
        enough |= limits.own_answers and task.generates
        if len(failing) >= limits.failures and enough:
            break
    used = {record.sample.id for record in failing[: limits.failures]}
    used |= {record.sample.id for record, _ in right}
    rest = [record for record in records if record.sample.id not in used]
    return failing[: limits.failures], [] if task.by_perplexity else right, rest


def _kept(
    task: Task, samples: Sequence[Sample], failing: set[str], limits: Limits, room: int, ask: Asked
) -> list[Sample]:
    """Samples of other matters: those answered right, in training also the model's own answers."""
    # A passage that begins with the prompt of a failure is no other matter.
    others = [s for s in samples if s.kind != TEXT or s.id.split("@")[0] not in failing]
    if not limits.own_answers:  # what has no right answer cannot be answered right
        others = [s for s in others if s.target or s.kind == TEXT]
    out: dict[tuple[str, ...], Sample] = {}
    for start in range(0, len(others), _CHUNK):
        if len(out) >= room:
            break
        chunk = others[start : start + _CHUNK]
        for sample, answer in zip(chunk, ask(chunk), strict=True):
            # Words that were cut off are no answer: a row of them is long, and half of its
            # positions are of a kind that no question is judged by.
            if answer.text and (answer.right or (answer.ended and limits.own_answers)):
                own = _own(answer, sample)
                out.setdefault((*own.inputs, own.target), own)
    return list(out.values())[:room]


def _own(answer: Answer, sample: Sample) -> Sample:
    """A sample with the model's own words for a target: they are what must not change."""
    if (
        sample.kind == TEXT
        or not answer.text
        or (answer.right and sample.target and not sample.accepted)
    ):
        return sample
    accepted = sample.accepted if answer.right else (answer.text,)
    return replace(sample, target=answer.text, accepted=accepted)


def matter_key(sample: Sample) -> tuple[str, ...]:
    """What two samples of other matters share where they are the same question or passage."""
    return (*sample.inputs, sample.target if sample.kind == TEXT else "")


def other_matters(task: Task, records: Sequence[Record]) -> list[Sample]:
    """What must stay as it is in records that are given for that: passages, or the questions."""
    if task.by_perplexity:
        return [sample for record in records for sample in record.locality or (record.sample,)]
    return [record.sample for record in records]
