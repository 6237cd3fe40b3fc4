"""From a configuration to a task model and its pass, fail and adapt samples."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

from saledit import config as configuration
from saledit.building import load_model, make_task
from saledit.cache.room import Room
from saledit.config import RunConfig, SiteConfig
from saledit.data.hashes import Known, number
from saledit.data.matters import other_matters
from saledit.data.partition import partition
from saledit.data.rewriter import RuleRewriter, by_rules
from saledit.data.splits import Limits, Part, make_part
from saledit.data.views import Mapped
from saledit.errors import ConfigError
from saledit.finetune import finetuned
from saledit.models import SEQ2SEQ, TaskModel
from saledit.models.precision import precision_here
from saledit.records import Record
from saledit.report import Ui, training_bar
from saledit.run.peaks import Peaks
from saledit.run.setup.launching import divides
from saledit.run.setup.origins import corpus_digest
from saledit.run.setup.placing import accelerator_left, device_of
from saledit.run.setup.reading import (
    FITTED_AND_TESTED,
    TEST,
    VALIDATION,
    RunRecords,
    read_records,
)
from saledit.run.setup.suiting import check_labels, tell_cut
from saledit.tasks.base import Task

PARTS = ("train", "validation", "test")


@dataclass
class Prepared:
    """A task model and the records to edit it with.

    Parts are made when they are first asked for, and cached on disk.

    Attributes:
        config: the configuration.
        base: the task model.
        task: the task.
        records: what its samples are made of.
        ui: where progress is shown.
    """

    config: RunConfig
    base: TaskModel
    task: Task
    records: RunRecords
    ui: Ui

    @cached_property
    def room(self) -> Room:
        """What mapped caches may take, and what the caches of this run took so far."""
        return Room(self.config.caches.memory_mb * 2**20)

    @cached_property
    def peaks(self) -> Peaks:
        """What memory this process takes, apart from what runs share."""
        return Peaks(self.base.device)

    @cached_property
    def _other_sides(self) -> list[Sequence[Record]]:
        """Records of other matters: for validation, for the test, and the rest for training."""
        d, n = self.config.data, len(self.records.locality)
        sizes = [round(d.validation * n), round(d.test_share * n)]
        return partition(self.records.locality, sizes, self.config.seed)

    def of(self, config: RunConfig) -> Prepared:
        """The same model and samples for a run that differs in what comes after them."""
        other = copy.copy(self)  # with the parts that are made
        other.config = config
        return other

    def fingerprint(self, config: RunConfig, *parts: Part) -> str:
        """Of a run's settings but its name, the model, and all samples of some parts."""
        plain = replace(config, name="", output="")
        head = (self.base.reading, configuration.to_yaml(plain), *(p.digest() for p in parts))
        return hashlib.blake2b("\n".join(head).encode(), digest_size=16).hexdigest()

    @cached_property
    def learned_from(self) -> str:
        """Fingerprint of the model and of all samples and texts that training reads."""
        corpus = corpus_digest(self.config.editor.moments)
        head = (self.base.reading, corpus, self.train.digest(), self.validation.digest())
        return hashlib.blake2b("\n".join(head).encode(), digest_size=16).hexdigest()

    @cached_property
    def train(self) -> Part:
        """Samples that the editor learns from."""
        d = self.config.data
        made = d.max_made if self.config.train.made else 0
        limits = (d.max_failures, d.max_passes, made)
        r = self.records
        return self._part(2, r.train, "data.train", *limits, r.learned)

    @cached_property
    def validation(self) -> Part:
        """Samples that decide when to stop."""
        d = self.config.data
        records = self.records.validation
        return self._part(0, records, "data.train", d.max_failures, d.max_passes)

    @cached_property
    def test(self) -> Part:
        """Samples that the results are about."""
        d = self.config.data
        key = "data.test" if d.test else "data.train"
        return self._part(1, self.records.test, key, d.max_test_failures, d.max_test_passes)

    @cached_property
    def _tested(self) -> Known:
        """What is tested, prompts near an edit among it: a validation looks at nothing of it."""
        return _matters(self.records.test, self._other_sides[1])

    @cached_property
    def _measured(self) -> Known:
        """What is tested or validated: training sees nothing of it."""
        r, sides = self.records, self._other_sides
        return _matters(r.test, sides[1], r.validation, sides[0])

    def counts(self, parts: Sequence[str] = PARTS) -> dict[str, dict[str, object]]:
        """Sizes of some parts, which are made. Processes that share a run come here together."""
        return {name: getattr(self, name).counts() for name in parts}

    def _part(
        self,
        side: int,
        records: Sequence[Record],
        key: str,
        failures: int,
        passes: int,
        made: int = 0,
        learned: Sequence[Record] = (),
    ) -> Part:
        adapt, task = self.config.data.adapt, self.task
        limits = Limits(key, failures, passes, adapt.per_failure, made, own_answers=side == 2)
        rewriter = RuleRewriter(adapt, self.base.device) if by_rules(adapt, task) else None
        others = other_matters(task, self._other_sides[side])
        name = ("validation", "test", "training")[side]
        most = len(learned) + len(others) + sum(1 + len(r.locality) for r in records)
        # Records of two sides are apart, but both may bring one question that is to stay as it is.
        seen = (self._tested, Known(), self._measured)[side]
        with self.ui.progress(f"asking the model: {name}", most) as bar:
            return make_part(
                self.base, task, records, limits, rewriter, self.config.cache, learned, others,
                bar.update, seen,
            )  # fmt: skip


def _matters(*sides: Sequence[Record]) -> Known:
    """All questions and passages of some records."""
    return Known(
        number(*sample.words)
        for record in chain(*sides)
        for sample in (record.sample, *record.rewordings, *record.locality)
    )


def prepare(config: RunConfig, ui: Ui, edited: Collection[str] = FITTED_AND_TESTED) -> Prepared:
    """Load the data and the task model, fine-tuning it where the configuration says so.

    Args:
        config: the run.
        ui: where progress is shown.
        edited: as in ``read_records``.

    Raises:
        UserError: the data or the model is wrong.
        JobError: fine-tuning failed.
    """
    device = device_of(config.trainer)  # refused before minutes are spent
    is_divided = divides(config.trainer)
    stream = config.model.stream or is_divided  # no process reads all of it into memory
    task = make_task(config.task)
    f = config.model.finetune
    if skipped := accelerator_left(config.trainer, device):
        ui.stage(f"{skipped} has no double precision, which whitening takes: all on the CPU")
    for wanted in (config.trainer.get("precision"), f.precision if f.enabled else None):
        if (found := precision_here(wanted, device.type)) != wanted:
            ui.stage(f"this processor has no {wanted}: {found} in its place")
    ui.stage("reading data")
    records = read_records(config, task, edited)
    learned = records.learned
    if f.enabled:
        # Of what is learned alone: a misspelt label elsewhere would be a class that nothing is of.
        labels = sorted({record.sample.target for record in learned})
        ui.stage(f"task model: {config.model.name}, fine-tuned on {len(learned)} records")
        bar = training_bar(ui, "fine-tuning", "finetune/loss")

        def load(name: str) -> TaskModel:
            is_trained = name != config.model.name
            fresh = None if task.generates or is_trained else labels
            model = replace(config.model, name=name, stream=stream and is_trained)
            if not is_trained:  # weights of half precision would lose most of what a step changes
                model = replace(model, dtype="float32")
            return load_model(task, model, config.cache, fresh)

        base = finetuned(
            config.model.name, task, learned, load, f, config.cache, [bar],
            _site_check(config.site), device,
        )  # fmt: skip
    else:
        ui.stage(f"task model: {config.model.name}")
        base = load_model(task, replace(config.model, stream=stream), config.cache)
    _check_passages(config, base)
    _check_records(config, base, task, records, edited, ui)
    if is_divided:
        from saledit.models.divided import divided  # slow, and of several processes only

        base = divided(base, device)
    base.weights.to(device)
    return Prepared(config, base, task, records, ui)


def _check_passages(config: RunConfig, base: TaskModel) -> None:
    """Refuse passages beside a sequence, before a training, of a model that cannot score them."""
    t = config.test
    if base.kind == SEQ2SEQ and t.texts and t.every and config.schedule.cumulative:
        raise ConfigError(
            f"test.texts: expected none for {base.name}, got {t.texts}: an encoder-decoder has no "
            "probability of a text of its own; leave it out"
        )


def _check_records(
    config: RunConfig,
    base: TaskModel,
    task: Task,
    records: RunRecords,
    edited: Collection[str],
    ui: Ui,
) -> None:
    """Refuse labels that the model does not have, and say what it does not read to its end."""
    d = config.data
    for side, source, some in (
        (VALIDATION, d.train, records.pool),
        (TEST, d.test or d.train, records.test),
    ):
        if side in edited:
            samples = Mapped(lambda record: record.sample, some)
            check_labels(base, task, samples, source)
            tell_cut(base, task, samples, source, ui)


def _site_check(site: SiteConfig) -> Callable[[TaskModel], object]:
    """Raises where a model has no such layer or map."""
    if site.select == "fixed":
        return lambda base: base.layer(site.layer, site.maps, site.span)
    return lambda base: base.layers(site.maps)
