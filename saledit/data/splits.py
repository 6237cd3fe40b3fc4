"""Pass, fail and adapt: what the task model itself gets right and wrong."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain, islice
from operator import attrgetter
from pathlib import Path

from saledit.data.asking import Asked
from saledit.data.hashes import Known, number
from saledit.data.made import Made, counterfactual, reworded
from saledit.data.matters import CHUNK, Begun, add_kept, add_right, own
from saledit.data.rewordings import Rewriter, adapt_samples
from saledit.data.spool import Spool, groups_in, samples_in
from saledit.data.views import Joined, Mapped, Picked
from saledit.errors import DataError
from saledit.models import TaskModel
from saledit.records import TEXT, Record, Sample, Writing
from saledit.tasks.base import Task


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


_SAMPLE: Callable[[Record], Sample] = attrgetter("sample")
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

    fail: Sequence[Sample]
    adapt: Sequence[tuple[Sample, ...]]
    passing: Sequence[Sample]
    made: Sequence[Sample] = ()
    made_adapt: Sequence[tuple[Sample, ...]] = ()
    made_from: Sequence[int] = ()
    own_from: Sequence[int] = ()
    near: Sequence[tuple[Sample, ...]] = ()
    writing: Sequence[Writing] = ()

    def digest(self) -> str:
        """A fingerprint of all that is in it."""
        digest = hashlib.blake2b(digest_size=16)
        for field in fields(self):
            digest.update(f"{field.name}\n".encode())
            for value in getattr(self, field.name):
                digest.update(f"{value!r}\n".encode("utf-8", "backslashreplace"))
        return digest.hexdigest()

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
    seen: Container[tuple[str, ...]] = frozenset(),
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
        seen: ``Sample.words`` of what is left out: of a training's samples what is measured.

    Returns:
        The part.

    Raises:
        DataError: the model makes no mistake, or nothing but mistakes.
    """
    ask = Asked(base, task, folder, progress)
    if task.by_perplexity and not locality:
        # Passages serve as failures or as what must not change, not as both.
        limits = replace(limits, failures=min(limits.failures, (len(records) + 1) // 2))
    failing, right, passing, rest = _sorted_out(
        task, records, limits, ask, samples_in(folder), seen
    )
    if not failing:
        raise DataError(
            f"{limits.key}: expected samples that {base.name} answers wrongly, got none among "
            f"{len(records)}: the model makes no mistake here; give other data or another model"
        )
    n_sources = 0 if task.generates else min(limits.made, limits.passes, len(right))
    sources = Picked(right, range(n_sources))
    known = (record.sample for record in learned)
    add_right(passing, (s for s in known if s.words not in seen), limits.passes, ask)
    if len(passing) < limits.passes:
        others: Iterable[Sample] = chain(locality, (s for r in records for s in r.locality))
        if limits.own_answers and task.generates:
            others = chain(others, (record.sample for record in rest))
            # An edit of one failure is to leave the others to their own edits. Of records beyond
            # the failures there may be few, and a KL term learns few samples by heart.
            if not task.by_perplexity:
                others = chain(others, (record.sample for record in failing))
        others = (sample for sample in others if sample.words not in seen)
        add_kept(
            passing, others, Begun(failing), limits.passes, ask, limits.own_answers,
            task.by_perplexity,
        )  # fmt: skip
    if not passing:
        raise DataError(
            f"{limits.key}: expected samples that {base.name} answers rightly, got none among "
            f"{len(records)}; {_REMEDIES[task.generates]}"
        )
    groups = adapt_samples(Joined(failing, sources), limits.rewordings, rewriter, folder)
    n, fail, own = len(failing), samples_in(folder), _places(failing, passing)
    fail.extend(record.sample for record in failing)  # looked at more often than their records
    adapt = Picked(groups, range(n))
    if task.generates:
        found: Iterable[Made] = islice(reworded(fail, adapt, own), limits.made)
    else:
        other = Picked(groups, range(n, len(groups)))
        found = counterfactual(base, task, Mapped(_SAMPLE, sources), other)
    made, made_adapt, made_from = samples_in(folder), groups_in(folder), list[int]()
    for one in found:
        made.append(one.sample)
        made_adapt.append(one.rewordings)
        made_from.append(one.apart)
    return Part(
        fail,
        adapt,
        passing,
        made,
        made_adapt,
        tuple(made_from),
        own,
        Mapped(attrgetter("locality"), failing),
        Mapped(attrgetter("writing"), failing),
    )


def _places(failing: Sequence[Record], passing: Sequence[Sample]) -> tuple[int, ...]:
    """Where the failures' own questions stand among the pass samples; () if nowhere."""
    # By their words, too: two sources may give one id to different questions.
    places = Known(number(sample.id, *sample.inputs) for sample in passing)
    asked = (record.sample for record in failing)
    found = tuple(places.place(sample.id, *sample.inputs) for sample in asked)
    return found if any(place >= 0 for place in found) else ()


def _is_of(record: Record, seen: Container[tuple[str, ...]]) -> bool:
    return any(sample.words in seen for sample in (record.sample, *record.rewordings))


def _sorted_out(
    task: Task,
    records: Sequence[Record],
    limits: Limits,
    ask: Asked,
    passing: Spool[Sample],
    seen: Container[tuple[str, ...]],
) -> tuple[Sequence[Record], Sequence[Record], Spool[Sample], Sequence[Record]]:
    """Records answered wrongly, those answered rightly (in ``passing``), and what is left over."""
    failing, right, used = array("q"), array("q"), bytearray(len(records))
    for start in range(0, len(records), CHUNK):
        found = enumerate(records[start : start + CHUNK], start=start)
        # What is near a record of one side may be a record of another.
        free = ((i, record) for i, record in found if not _is_of(record, seen))
        chunk = [(i, record.sample) for i, record in free if record.sample.kind != TEXT]
        said = ask([sample for _, sample in chunk])
        for (i, sample), answer in zip(chunk, said, strict=True):
            if not answer.right:
                failing.append(i)
                continue
            right.append(i)
            if len(passing) < limits.passes and not task.by_perplexity:
                passing.append(own(answer, sample))
        # Of texts none is right or wrong: what must stay is given apart. In training the model's
        # own answers fill up what is right.
        enough = len(right) >= limits.passes or task.by_perplexity
        enough |= limits.own_answers and task.generates
        if len(failing) >= limits.failures and enough:
            break
    del failing[limits.failures :]
    for i in (*failing, *right):
        used[i] = True
    rest = Picked(records, (i for i, is_used in enumerate(used) if not is_used))
    if task.by_perplexity:
        del right[:]
    return Picked(records, failing), Picked(records, right), passing, rest
