"""Sequences of edits: one after another on the same model, looked at on the way, gone on with."""

from __future__ import annotations

import shutil
import time
from itertools import islice
from typing import Any

import torch

from saledit import distributed
from saledit.artifact import EDITS_FACTS, TrainedEditor, load_edits, load_memory, save_edits
from saledit.data.choices import load_choices
from saledit.data.part_banks import PartBanks
from saledit.data.sources import stream_texts
from saledit.delta import Edits
from saledit.errors import NoNumbersError, UserError
from saledit.files import read_json
from saledit.files.values import seal_of
from saledit.run.measures.course import Course
from saledit.run.measures.tally import Tally
from saledit.run.measures.watching import Abilities, Passages, Watched
from saledit.run.setup.caching import opener
from saledit.run.setup.origins import origins
from saledit.run.setup.prepare import Prepared
from saledit.run.unfinished import mark_of
from saledit.session import EditSession
from saledit.tasks.base import in_words

Points = list[dict[str, Any]]
_Facts = tuple[int, int, float, Points]
_NOTHING: _Facts = (0, 0, 0.0, [])
_KEEP = 60.0  # seconds after which a sequence is put on disk


@torch.no_grad()
def pile_up(
    prepared: Prepared, trained: TrainedEditor, tally: Tally, course: Course | None, kept: Kept
) -> tuple[int, int | None]:
    """Schedules "sequential" and "sequential-batched": edits accumulate, judged at the end.

    What has been done is put on disk at each look, and every minute, and a sequence that was cut
    off goes on from there. It ends early where the model is so broken that it gives no numbers, or
    no edit can be made of what it gives: that is what it was to show.

    Returns:
        How many edits were made, without steps whose failures the earlier ones had mended; and
        after how many failures it ended early, None where it did not.
    """
    part, every = prepared.test, prepared.config.test.every  # failures, whatever K
    session, k = trained.session(prepared.base), prepared.config.schedule.batch_size
    starts = range(0, len(part.fail), k)
    points = [] if course is None else course.points
    edited, made = kept.restore(session, points)
    looked = points[-1]["n_failures"] if points else 0
    if course is not None and not points:
        course.look(Edits({}), 0, 0)
    last, now, is_broken = time.monotonic(), edited, False
    with prepared.ui.progress("editing", len(starts)) as bar:
        for done, start in enumerate(starts, start=1):
            if start < edited:
                continue
            # Also of one that was cut off behind its last look.
            if is_broken or (course is not None and course.is_lost):
                break
            try:
                made += bool(session.step(part.fail[start : start + k]))
                now = min(start + k, len(part.fail))
            except NoNumbersError as error:
                prepared.ui.stage(f"the sequence ends before edit {done}: {error}")
                is_broken = True
            is_last = is_broken or done == len(starts)
            # What has broken is looked at where it ends, whenever that is.
            due = course is not None and now > looked and (is_last or now - looked >= every)
            if course is not None and due:
                course.look(session.edits, now, looked)
                looked = now
            if due or is_last or time.monotonic() - last > _KEEP:
                kept.keep(session, points, now, made)
                last = time.monotonic()
            bar.update(done, "" if course is None else course.said())
    prepared.ui.stage("judging all edits together")
    tally.count_final(session.edits)
    return made, now if now < len(part.fail) else None


def course_of(prepared: Prepared, trained: TrainedEditor, banks: PartBanks) -> Course | None:
    """What is looked at along a sequence; None where nothing is."""
    c = prepared.config.test
    if not c.every:
        return None
    base, task, layer = prepared.base, prepared.task, trained.layer
    watched: list[Watched] = []
    if c.texts and task.generates and not task.by_perplexity:
        texts = list(islice(stream_texts(c.texts), c.n_texts))
        watched.append(Passages(base, task, texts, opener(prepared, layer, "passages")))
    if c.abilities and in_words(task):
        choices = load_choices(c.abilities, c.n_abilities)
        watched.append(Abilities(base, task, choices, opener(prepared, layer, "small prompts")))
    return Course(base, task, prepared.test, banks, layer, watched)


_KEPT = {"edited": int, "made": int, "seconds": float, "points": [{"n_failures": int}], "seal": str}


class Kept:
    """A sequence on disk: its edits, what the editor remembers, and the course so far.

    Attributes:
        seconds_before: what it took before it was cut off.
    """

    def __init__(self, prepared: Prepared, trained: TrainedEditor) -> None:
        self._base, self._began, self.seconds_before = prepared.base, time.monotonic(), 0.0
        # Its looks are held against each other, so they are all of the same texts and prompts.
        watched = {k: v for k, v in origins(prepared.config).items() if k.startswith("test.")}
        mark = seal_of([mark_of(prepared, trained), watched])
        self._folder = prepared.config.cache / f"sequence-{mark}"

    def keep(self, session: EditSession, points: Points, edited: int, made: int) -> None:
        """Put things on disk as they are; the folder appears whole.

        Args:
            session: the edits so far.
            points: what the course found so far.
            edited: failures.
            made: edits.
        """
        steps, memory = session.state
        told = {"fingerprint": self._base.fingerprint}
        seconds = self.seconds_before + time.monotonic() - self._began
        facts = {"edited": edited, "made": made, "seconds": seconds, "points": points}
        facts["seal"] = seal_of([edited, made, seconds, points])
        if distributed.is_main():
            save_edits(self._folder, steps, {"base_model": told, **facts}, memory)

    def restore(self, session: EditSession, points: Points) -> tuple[int, int]:
        """Take up what is there; failures edited and edits made, 0 where there is nothing."""
        edited, made, seconds, found = distributed.broadcast(
            self._facts() if distributed.is_main() else _NOTHING
        )
        if not edited:
            return 0, 0
        try:
            steps, memory = load_edits(self._folder, self._base.model), load_memory(self._folder)
        except UserError:
            return 0, 0
        device = self._base.device
        session.go_on(
            steps.map(lambda tensor: tensor.to(device)),
            {name: tensor.to(device) for name, tensor in memory.items()},
        )
        points.extend(found)
        self.seconds_before = seconds
        return edited, made

    def _facts(self) -> _Facts:
        """How far it has come; nowhere if nothing is there, or it is damaged: it begins anew."""
        try:
            facts = read_json(self._folder / EDITS_FACTS, "a sequence of edits", _KEPT)
        except UserError:
            return _NOTHING
        own = (facts["edited"], facts["made"], facts["seconds"], facts["points"])
        return own if facts["seal"] == seal_of([*own]) else _NOTHING

    def remove(self) -> None:
        """Forget a sequence whose results are written."""
        if distributed.is_main():
            shutil.rmtree(self._folder, ignore_errors=True)
