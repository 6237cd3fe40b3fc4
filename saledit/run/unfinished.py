"""What a test has on disk until its results are: edits that took long are not made twice."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from saledit import distributed
from saledit.artifact import EDITS_FACTS, REVISION, TrainedEditor, load_edits, save_edits
from saledit.delta import Edits
from saledit.errors import JobError, UserError
from saledit.files import read_json
from saledit.files.values import seal_of
from saledit.models import fingerprint
from saledit.run.setup.prepare import Prepared

_SLOW = 5.0  # seconds that a batch of edits takes at least that is worth keeping
_ROOM = 4 << 30  # bytes that are kept at most
_KEPT = {"seconds": float, "seal": str}


class Unfinished(Protocol):
    """What lies on disk for a test that may be cut off."""

    @property
    def seconds_before(self) -> float:
        """What it took before the test was cut off."""

    def remove(self) -> None:
        """Forget it: the results are written."""


def mark_of(prepared: Prepared, trained: TrainedEditor) -> str:
    """A fingerprint of all that a test's edits depend on, 32 hexadecimal digits."""
    digest = hashlib.blake2b(b"%d" % REVISION, digest_size=16)
    # Of the editor as it is tested, which may be otherwise than the run that was prepared.
    digest.update(prepared.fingerprint(trained.config, prepared.test).encode())
    digest.update(fingerprint(trained.editor).encode())
    for sample in trained.held:
        digest.update(f"{sample!r}\n".encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


class SlowEdits:
    """Edits of the schedule "batch" that took long to make, such as those of fine-tuning.

    Each batch of edits is one folder, which appears whole. Those of trained editors, made in an
    instant, never get here; nor do those of processes in step, which would have to agree on what
    they find.

    Args:
        prepared: what is tested.
        trained: makes the edits.
        at_once: edits of a batch: other batches are other edits.
    """

    def __init__(self, prepared: Prepared, trained: TrainedEditor, at_once: int) -> None:
        self._base, self._bytes, self.seconds_before = prepared.base, 0, 0.0
        own = f"edits-{mark_of(prepared, trained)}-{at_once}"
        self._folder = prepared.config.cache / own

    def get(self, i: int, make: Callable[[], Edits]) -> Edits:
        """Batch i as it lies on disk, or else as it is made.

        Args:
            i: its number.
            make: makes its edits (E,).
        """
        if self._base.weights.is_divided:
            return make()
        found = self._load(i)
        if found is not None:
            return found
        began = time.monotonic()
        edits = make()
        seconds = time.monotonic() - began
        size = sum(part.nbytes for part in edits.tensors())
        if seconds >= _SLOW and self._bytes + size <= _ROOM:
            self._bytes += size
            told = {"fingerprint": self._base.fingerprint}
            facts = {"seconds": seconds, "seal": seal_of([i, seconds])}
            with suppress(JobError):  # on a full disk a test can still come to its end
                save_edits(self._folder / str(i), edits, {"base_model": told, **facts})
        return edits

    def _load(self, i: int) -> Edits | None:
        """None where nothing is, or it is damaged: it is made anew."""
        path = self._folder / str(i)
        try:
            facts = read_json(path / EDITS_FACTS, "slow edits", _KEPT)
            if facts["seal"] != seal_of([i, facts["seconds"]]):
                return None
            # The folder's name says of which weights; to hash them for each batch takes long.
            edits = load_edits(path, self._base.model, batched=True, exact=False)
        except UserError:
            return None
        self.seconds_before += facts["seconds"]
        self._bytes += sum(part.nbytes for part in edits.tensors())
        return edits.map(lambda part: part.to(self._base.device))

    def remove(self) -> None:
        """Forget edits that are judged and written down."""
        if distributed.is_main():
            shutil.rmtree(self._folder, ignore_errors=True)
