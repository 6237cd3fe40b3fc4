"""Sequences of edits: one after another on the same model, looked at on the way, gone on with."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saledit import config as configuration
from saledit.artifact import TrainedEditor, load_edits, save_edits
from saledit.data.part_banks import PartBanks
from saledit.data.sources import stream_texts
from saledit.delta import Edits
from saledit.errors import ArtifactError
from saledit.files import read_json, read_tensors, write_tensors
from saledit.run.course import Course
from saledit.run.prepare import Prepared
from saledit.run.tally import Tally
from saledit.session import EditSession

_MEMORY = "memory.safetensors"


@torch.no_grad()
def pile_up(prepared: Prepared, trained: TrainedEditor, tally: Tally, course: Course | None) -> int:
    """Schedules "sequential" and "sequential-batched": edits accumulate, judged at the end.

    With a course, what has been done is put on disk at each look, and a sequence that was cut off
    goes on from there.

    Returns:
        How many edits were made.
    """
    part, every = prepared.test, prepared.config.test.every
    session, k = trained.session(prepared.base), prepared.config.schedule.batch_size
    starts, looked = range(0, len(part.fail), k), 0
    kept = _Kept(prepared, trained)
    if course is not None:
        looked = kept.restore(session, course)
        if not course.points:
            course.look(session.edits, 0, 0)
    with prepared.ui.progress("editing", len(starts)) as bar:
        for done, start in enumerate(starts, start=1):
            if start < looked:
                continue
            session.step(part.fail[start : start + k])
            if course is not None and (done % every == 0 or done == len(starts)):
                now = min(start + k, len(part.fail))
                course.look(session.edits, now, looked)
                looked = now
                kept.keep(session, course)
            bar.update(done)
    prepared.ui.stage("judging all edits together")
    tally.count_final(session.edits)
    kept.remove()
    return len(starts)


def course_of(prepared: Prepared, trained: TrainedEditor, banks: PartBanks) -> Course | None:
    """What is looked at along a sequence; None where nothing is."""
    config, c = prepared.config, prepared.config.test
    if not c.every:
        return None
    texts = list(islice(stream_texts(c.texts), c.n_texts)) if c.texts else []
    return Course(
        prepared.base, prepared.task, prepared.test, banks, trained.layer, texts, config.cache
    )


class _Kept:
    """A sequence on disk: its edits, what the editor remembers, and the course so far."""

    def __init__(self, prepared: Prepared, trained: TrainedEditor) -> None:
        self._base = prepared.base
        plain = replace(prepared.config, name="", output="")
        head = [configuration.to_yaml(plain), prepared.base.fingerprint]
        head += [f"{sample.inputs} {sample.target}" for sample in prepared.test.fail]
        digest = hashlib.blake2b("\n".join(head).encode(), digest_size=16)
        for name, tensor in sorted(trained.editor.state_dict().items()):
            digest.update(name.encode() + tensor.cpu().contiguous().view(-1).numpy().tobytes())
        self._folder: Path = prepared.config.cache / f"sequence-{digest.hexdigest()}"

    def keep(self, session: EditSession, course: Course) -> None:
        """Put things on disk as they are; the folder appears whole."""
        steps, memory = session.state
        facts: dict[str, Any] = {
            "base_model": {"fingerprint": self._base.fingerprint},
            "points": course.points,
        }
        # Routed edits and what is remembered lie beside each other, the former declared last.
        write_tensors(self._folder.with_suffix(f".{_MEMORY}"), _named(memory, course))
        save_edits(self._folder, steps, facts)

    def restore(self, session: EditSession, course: Course) -> int:
        """Take up what is there; how many failures have been edited, 0 where there is nothing."""
        try:
            facts = read_json(self._folder / "edits.json", "a sequence of edits")
            steps = load_edits(self._folder, self._base.model)
            found = read_tensors(self._folder.with_suffix(f".{_MEMORY}"), "a sequence of edits")
        except ArtifactError:
            return 0
        points = facts["points"]
        if int(found["at"]) != len(points):  # cut off between the two files
            return 0
        memory = {name.removeprefix("own."): t for name, t in found.items() if name != "at"}
        device = self._base.device
        session.go_on(
            Edits({site: delta.to(device) for site, delta in steps.items()}),
            {name: tensor.to(device) for name, tensor in memory.items()},
        )
        course.points.extend(points)
        return int(points[-1]["n_failures"])

    def remove(self) -> None:
        """Forget a sequence that has come to its end."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.with_suffix(f".{_MEMORY}").unlink(missing_ok=True)


def _named(memory: Mapping[str, Tensor], course: Course) -> dict[str, Tensor]:
    own = {f"own.{name}": tensor for name, tensor in memory.items()}
    return own | {"at": torch.tensor(len(course.points))}
