"""The records of a run, apart from each other and looked at before a model is loaded."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from saledit.building import make_task, needs_subjects
from saledit.config import EditorConfig, RunConfig
from saledit.data.choices import load_choices
from saledit.data.partition import apart_from, partition
from saledit.data.sources import check_texts, load_records
from saledit.data.views import Joined
from saledit.errors import ConfigError, DataError
from saledit.records import TEXT, Record, Sample
from saledit.run.setup.suiting import check_each
from saledit.tasks.base import Task
from saledit.tasks.subjects import check_subject

_ORDER = 0  # seed of the order of test records: results of all seeds are about the same ones

#: Sides whose failures an editor edits: where it is fitted, and where it is tested.
VALIDATION, TEST = "validation", "test"
FITTED_AND_TESTED = (VALIDATION, TEST)


@dataclass(frozen=True, slots=True)
class RunRecords:
    """Records by what is done with them, on no two sides a text or a subject.

    Attributes:
        learned: what the task model is fine-tuned on here.
        train: what the editor learns from.
        validation: what decides when to stop.
        test: what the results are about.
        locality: of other matters, of ``data.locality``; they may share some with ``learned``.
    """

    learned: Sequence[Record]
    train: Sequence[Record]
    validation: Sequence[Record]
    test: Sequence[Record]
    locality: Sequence[Record]

    @property
    def pool(self) -> Sequence[Record]:
        """Those of training and validation."""
        return Joined(self.train, self.validation)


def read_records(
    config: RunConfig, task: Task, edited: Collection[str] = FITTED_AND_TESTED
) -> RunRecords:
    """Read a run's data, and refuse what its editor could do nothing with.

    Args:
        config: the run.
        task: parses the rows.
        edited: sides whose failures are to be edited. An editor is fitted where ``VALIDATION`` is
            among them, and needs its corpus there.

    Raises:
        ConfigError: no data are named.
        DataError: broken data, too few of them, a corpus without text, something else where a
            sequence is to look, or a record without the subject that the editor needs.
        JobError: the cache's folder cannot be written.
    """
    d, f = config.data, config.model.finetune
    if not d.train:
        raise ConfigError("data.train: expected a file or a hub name, got nothing; name your data")
    if VALIDATION in edited:
        _check_corpus(config)
    if TEST in edited:
        _check_watched(config)

    def load(source: str, limit: int) -> Sequence[Record]:
        return load_records(task, source, limit=limit, folder=config.cache)

    pool = load(d.train, d.limit)
    test = load(d.test, d.limit) if d.test else ()
    learned: Sequence[Record] = ()
    if f.enabled and f.data:
        learned = load(f.data, f.records)
        pool = apart_from(pool, learned)
    elif f.enabled:
        learned, pool = partition(pool, [f.records], f.seed)
        if not pool:
            raise DataError(
                f"{d.train}: expected records beyond the {f.records} of model.finetune.records, "
                "got none; lower it, so that failures can come from the rest"
            )
    if not d.test:
        test, pool = partition(pool, [round(d.test_share * len(pool))], config.seed)
    # In an order of its own: the first failures of a file by topic would be of one topic.
    (test,) = partition(apart_from(test, Joined(learned, pool)), [], _ORDER)
    if not test or not pool:
        side = "test" if not test else "train"
        raise DataError(
            f"data.{side}: expected records that share no text and no subject with the others, "
            "got none; check task.subjects and that the files differ"
        )
    locality = Joined(*(load(source, d.limit) for source in d.locality))
    others = apart_from(locality, Joined(pool, test))
    validation, train = partition(pool, [max(1, round(d.validation * len(pool)))], config.seed)
    for side, records, source in (
        (VALIDATION, validation, d.train),
        (TEST, test, d.test or d.train),
    ):
        if side in edited:
            check_subjects(config.editor, (record.sample for record in records), source)
    return RunRecords(learned, train, validation, test, others)


def check_data(configs: Iterable[RunConfig]) -> None:
    """Refuse runs whose data are broken, or nothing to their editors, before one of them begins.

    Args:
        configs: runs that are to fit and test an editor; those of the same records read them once.
            Seeds divide the same files, so they are read by one of them where no editor asks for
            more of its own part.

    Raises:
        ConfigError, DataError: see ``read_records``.
    """
    seen = []
    for config in configs:
        _check_corpus(config)
        _check_watched(config)
        seed = config.seed if needs_subjects(config.editor) else None
        source = (config.task, config.data, config.model.finetune, seed)
        if source not in seen:
            seen.append(source)
            read_records(config, make_task(config.task))


def _check_corpus(config: RunConfig) -> None:
    if corpus := config.editor.moments.corpus:
        check_texts(corpus)


def _check_watched(config: RunConfig) -> None:
    """Refuse what a sequence is to look at, before hours of training end there."""
    t = config.test
    if not (t.every and config.schedule.cumulative):
        return
    if t.texts:
        check_texts(t.texts)
    if t.abilities:
        load_choices(t.abilities, t.n_abilities)


def check_subjects(editor: EditorConfig, samples: Iterable[Sample], source: str) -> None:
    """Refuse samples that might be edited and do not say what they are about.

    Args:
        editor: one that needs no subjects takes them all.
        samples: possible failures; a passage is none.
        source: where they are from, for messages.

    Raises:
        DataError: some have no subject, or their texts do not hold it; how many, and which.
    """
    if not needs_subjects(editor):
        return
    asked = (sample for sample in samples if sample.kind != TEXT)
    check_each(asked, lambda s: check_subject(s, s.inputs, f"{source}, {s.id}"))
