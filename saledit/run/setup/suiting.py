"""Whether records suit who is to read them, before a model is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from saledit.errors import DataError
from saledit.models import TaskModel
from saledit.records import Sample
from saledit.report import Ui
from saledit.tasks.base import Task, in_labels

_NAMED = 8  # of samples that are wrong
_READ = 512  # samples whose length is looked at
_CUT = 0.01  # share of them that is worth a word


def check_labels(base: TaskModel, task: Task, samples: Iterable[Sample], source: str) -> None:
    """Refuse labels that a classifier does not have; answers in words are not looked at.

    Args:
        base: the task model.
        task: knows where labels are.
        samples: of one source.
        source: where they are from, for messages.

    Raises:
        DataError: the first such label, how many more, and of which samples.
    """
    if in_labels(task):
        check_each(samples, lambda sample: task.targets(base, [sample]), f"{source}, ")


def check_each(
    samples: Iterable[Sample], check: Callable[[Sample], object], where: str = ""
) -> None:
    """Refuse samples together: by what is wrong with the first, and how many are like it.

    Args:
        samples: all of them are looked at.
        check: raises where one is wrong.
        where: what the message begins with.

    Raises:
        DataError: as the check, of the first; how many more, and which.
    """
    first, others = None, list[str]()
    for sample in samples:
        try:
            check(sample)
        except DataError as error:
            if first is None:
                first = error
            else:
                others.append(sample.id)
    if first is None:
        return
    named = ", ".join(others[:_NAMED]) + (", …" if len(others) > _NAMED else "")
    told = f" ({len(others)} more like it: {named})" if others else ""
    raise DataError(f"{where}{first}{told}") from first


def tell_cut(base: TaskModel, task: Task, samples: Sequence[Sample], source: str, ui: Ui) -> None:
    """Say where a classifier does not read its texts to their end.

    What is too long for a prompt is an error of its own; a classifier reads the beginning.

    Args:
        base: the task model.
        task: encodes; ``max_length`` is the longest row that it makes.
        samples: of one source; some of them are looked at, spread over all.
        source: where they are from.
        ui: where it is said.
    """
    most = min(getattr(task, "max_length", base.max_length), base.max_length)
    if not in_labels(task) or not samples:
        return
    some = [samples[i] for i in range(0, len(samples), -(-len(samples) // _READ))]
    lengths = task.encode(base, some).inputs["attention_mask"].sum(1)
    n = int((lengths >= most).sum())
    if n > _CUT * len(some):
        ui.stage(
            f"{source}: of {len(some)} texts looked at, {n} fill the {most} tokens that are read "
            f"(task.max_length, {base.max_length} at most); what is beyond is cut off"
        )
