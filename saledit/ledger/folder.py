"""The folder of ``saledit fix``: a ledger, and the edits of each of its entries.

    ledger.jsonl        what was done, see ``saledit.ledger.chain``
    entries/0/          what the editor changes before any edit, of an editor that does
    entries/N/          the edits that entry N made, and what the editor remembers of them

Beside them stands what the entries in force add up to (``saledit.export``), which is made of these
and can be made again. An entry's folder is written first, and it counts once its line is in the
ledger. So a process may end at any moment: what it left is either an entry or is not.
"""

from __future__ import annotations

import glob
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saledit.artifact import EDITS_FACTS, EDITS_WEIGHTS, MEMORY, load_memory, read_edits, save_edits
from saledit.delta import Edits
from saledit.errors import ArtifactError, UserError
from saledit.files import alone, file_hash
from saledit.ledger.chain import BEGIN, FIX, UNDO, Entry, append, follow, read
from saledit.ledger.checking import check_entries, check_links
from saledit.site import Site

LEDGER = "ledger.jsonl"
ENTRIES = "entries"


class EditFolder:
    """A folder of edits with its ledger, as it stands or as it is about to.

    Args:
        path: the folder; it need not exist.
        entries: all entries.
        written: how many of them are in the file.
    """

    def __init__(self, path: Path, entries: Sequence[Entry], written: int) -> None:
        self.path, self.entries, self._written = path, tuple(entries), written

    @classmethod
    def read(cls, path: Path) -> EditFolder:
        """The folder as it stands.

        Raises:
            ArtifactError: the ledger is broken or was changed.
        """
        check_links([path / LEDGER, path / ENTRIES])
        entries = read(path / LEDGER)
        check_links((path / ENTRIES).glob("*"))
        check_entries(path / LEDGER, entries)
        return cls(path, entries, len(entries))

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator[EditFolder]:
        """The folder, kept for this process.

        What killed processes left beside it is removed at the beginning, and at the end what this
        one put on disk for entries that did not get into the ledger.

        Raises:
            JobError: another process is writing there.
            ArtifactError: the ledger is broken or was changed.
        """
        path = path.absolute()  # "." has no name to put another beside
        with alone(path):
            folder = cls.read(path)
            _sweep(path, inside=bool(folder.entries))
            before = _numbers(path)
            try:
                yield folder
            finally:
                with suppress(ArtifactError):  # of a ledger that broke meanwhile nothing is removed
                    _forget(path, _numbers(path) - before - set(range(len(read(path / LEDGER)))))

    @property
    def is_new(self) -> bool:
        """Whether nothing is there, but what a killed process may have left of its first fix."""
        if self.entries or not self.path.exists():
            return not self.entries
        if not self.path.is_dir() or {p.name for p in self.path.iterdir()} - {ENTRIES}:
            return False
        left = list((self.path / ENTRIES).glob("*"))
        return all(p.name.startswith(".") or (p / EDITS_FACTS).exists() for p in left)

    @property
    def head(self) -> Mapping[str, Any]:
        """What was told at the beginning: base model, task, sites, format."""
        return self.entries[0].facts

    @property
    def hash(self) -> str:
        """Of the last entry, and so of all."""
        return self.entries[-1].hash if self.entries else ""

    @property
    def in_force(self) -> list[Entry]:
        """The fixes that have not been taken back."""
        undone = {entry.facts.get("of") for entry in self.entries if entry.action == UNDO}
        return [e for e in self.entries if e.action == FIX and e.id not in undone]

    @property
    def ground(self) -> Edits:
        """What the editor changes before any edit; in force as long as any fix is.

        Raises:
            ArtifactError: the files are missing or were changed.
        """
        return self._edits(self.entries[0]) if self.head.get("files") else Edits({})

    @property
    def steps(self) -> Edits:
        """The sum of the fixes in force, in their order: always the same to the last bit.

        Raises:
            ArtifactError: the files of an entry are missing or were changed.
        """
        return reduce(Edits.__add__, (self._edits(entry) for entry in self.in_force), Edits({}))

    @property
    def edits(self) -> Edits:
        """All that is in force.

        Raises:
            ArtifactError: the files of an entry are missing or were changed.
        """
        return self.ground + self.steps if self.in_force else Edits({})

    def memory(self, editor: str) -> Mapping[str, Tensor]:
        """What an editor of this name remembers of its fixes in force, in their order.

        Raises:
            ArtifactError: the file of an entry is missing or was changed, or they do not fit
                together.
        """
        total: dict[str, Tensor] = {}
        for entry in self.in_force:
            if entry.facts["editor"]["name"] != editor:
                continue
            place = self._place(entry.id)
            if MEMORY in entry.facts.get("files", {}) or (place / MEMORY).exists():
                self.told(entry, MEMORY)
            for name, own in load_memory(place).items():
                known = total.get(name)
                row = own.shape[1:] if known is None else known.shape[1:]
                if not own.dim() or own.shape[1:] != row:
                    raise ArtifactError(
                        f"{place / MEMORY}: expected rows of {tuple(row)} numbers of {name}, as "
                        f"in earlier fixes, got {tuple(own.shape)}; take it from a backup"
                    )
                total[name] = own if known is None else torch.cat([known, own])
        return total

    def told(self, entry: Entry, name: str) -> Path:
        """A file of an entry, checked against the ledger.

        Raises:
            ArtifactError: it is missing or was changed.
        """
        path = self._place(entry.id) / name
        if file_hash(path) != entry.facts.get("files", {}).get(name):
            raise ArtifactError(
                f"{path}: expected the file that entry {entry.id} of the ledger tells of, got "
                f"{'another' if path.exists() else 'none'}; take it from a backup"
            )
        return path

    def begun(self, facts: Mapping[str, Any], ground: Edits) -> EditFolder:
        """With a beginning.

        Args:
            facts: what holds for all entries.
            ground: what the editor changes before any edit.

        Raises:
            JobError: the disk is full.
        """
        return self._with(BEGIN, self._kept(ground, {}, facts) if ground else facts)

    def fixed(
        self, steps: Edits, memory: Mapping[str, Tensor], facts: Mapping[str, Any],
        about: Mapping[str, Any],
    ) -> EditFolder:  # fmt: skip
        """With a fix in force.

        Args:
            steps: its own edits.
            memory: what the editor remembers of this fix.
            facts: what the ledger tells of it.
            about: what ``edits.json`` of the entry tells beside.

        Raises:
            JobError: the disk is full.
        """
        return self._with(FIX, self._kept(steps, memory, facts, about))

    def undone(self, number: int | None) -> EditFolder:
        """Without a fix; later ones stay.

        Args:
            number: its entry; None for the last in force.

        Raises:
            UserError: there is no such fix in force.
        """
        known = [entry.id for entry in self.in_force]
        if not known:
            raise UserError(f"{self.path}: expected a fix to take back, got none in force")
        number = known[-1] if number is None else number
        if number not in known:
            raise UserError(
                f"undo: expected a fix in force ({', '.join(map(str, known))}), got {number}; "
                f"see: saledit log {self.path}"
            )
        return self._with(UNDO, {"of": number})

    def commit(self) -> None:
        """Write the new entries into the ledger: from here on they count.

        Raises:
            JobError: the disk is full; nothing was changed.
        """
        append(self.path / LEDGER, self.entries[self._written :])

    def _with(self, action: str, facts: Mapping[str, Any]) -> EditFolder:
        entry = follow(self.entries, action, facts)
        return EditFolder(self.path, (*self.entries, entry), self._written)

    def _kept(
        self, edits: Edits, memory: Mapping[str, Tensor], facts: Mapping[str, Any],
        about: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Put edits where the next entry has them; the facts, and the files' hashes."""
        number = len(self.entries)
        folder = self._place(number)
        save_edits(folder, edits, {"entry": number, **(about or {})}, memory)
        return {**facts, "files": {p.name: file_hash(p) for p in sorted(folder.iterdir())}}

    def _edits(self, entry: Entry) -> Edits:
        for name in {EDITS_FACTS, EDITS_WEIGHTS, *entry.facts.get("files", {})}:
            self.told(entry, name)
        return read_edits(self._place(entry.id), self._site)

    def _site(self, name: str) -> Site:
        known = {row["name"]: row for row in self.head["sites"]}
        if name not in known:
            raise ArtifactError(f"{self.path}: expected edits of {', '.join(known)}, got {name}")
        return Site(**{f.name: known[name][f.name] for f in fields(Site)})

    def _place(self, number: int) -> Path:
        return self.path / ENTRIES / str(number)


def _numbers(path: Path) -> set[int]:
    """Entries that have a folder."""
    return {int(p.name) for p in (path / ENTRIES).glob("*") if p.name.isdecimal()}


def _forget(path: Path, numbers: set[int]) -> None:
    """Remove folders of entries, and what is empty then."""
    for number in numbers:
        shutil.rmtree(path / ENTRIES / str(number), ignore_errors=True)
    for place in (path / ENTRIES, path):
        with suppress(OSError):
            place.rmdir()


def _sweep(path: Path, inside: bool) -> None:
    """Remove what writers left that were killed; nobody else writes here now."""
    left = list(path.parent.glob(f".{glob.escape(path.name)}.*.part"))
    if inside:
        left += [p for place in (path / ENTRIES, path) for p in place.glob(".*.part")]
    for part in left:
        if part.is_dir() and not part.is_symlink():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)
