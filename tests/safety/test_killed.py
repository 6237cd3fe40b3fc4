"""``kill -9`` at random moments of fit, fix, undo and caching: nothing is lost, nothing is half.

    SALEDIT_KILLS=200 python -m pytest -m slow tests/safety/test_killed.py -s

Commands run as processes of their own, forked from one that has imported saledit, and are killed
after a random share of the time that they take. Only those that were still running count. The
default of a quick run is in ``_KILLS``; every count is split between the two tests.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from tiny import build, samples, save
from whole_runs import FakeUi, rows

from saledit import config as configuration
from saledit.artifact import load_edits
from saledit.config import RunConfig
from saledit.export import SETTLED, state
from saledit.files import write_jsonl
from saledit.ledger import EditFolder
from saledit.models import load_classifier
from saledit.run import log

_KILLS = int(os.environ.get("SALEDIT_KILLS", "200"))
_EACH = 6  # kills of a run before it may come to its end
_WHOLE = 0.3  # share of fixes and undos that nobody kills, so that there is something to undo
_FORMS = ("delta", "merged", "lora")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]


def _command(words: Sequence[str], said: str) -> None:
    """What a child does; what it says goes into a file."""
    stream = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    import torch

    from saledit.cli import main

    torch.set_num_threads(1)
    sys.exit(main([*words, "--quiet"]))


class Killer:
    """Runs commands, and kills them at random."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._made = multiprocessing.get_context("forkserver")
        self._made.set_forkserver_preload(["saledit.run", "saledit.cli", "peft"])
        self._said, self.draws = folder / "said.txt", random.Random(seed)
        self.kills: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self._seconds: dict[str, float] = {}

    def run(self, kind: str, *words: str) -> str:
        """Let a command come to its end; what it said. Its time is how long its kind takes."""
        began = time.perf_counter()
        child = self._started(words)
        child.join()
        said = self._said.read_text(encoding="utf-8", errors="replace")
        assert child.exitcode == 0, said
        self._seconds.setdefault(kind, time.perf_counter() - began)
        return said

    def kill(self, kind: str, *words: str) -> bool:
        """Start a command and kill it; whether it was still running."""
        child = self._started(words)
        child.join(self.draws.uniform(0, self._seconds[kind]))
        if child.exitcode is None:
            os.kill(child.pid, signal.SIGKILL)
        child.join()
        killed = child.exitcode == -signal.SIGKILL
        said = self._said.read_text(encoding="utf-8", errors="replace")
        # A command that got to its end did what it should: no leftover of a kill stops it.
        assert killed or child.exitcode == 0, (words, said)
        (self.kills if killed else self.done)[kind] += 1
        return killed

    def _started(self, words: Sequence[str]) -> multiprocessing.process.BaseProcess:
        child = self._made.Process(target=_command, args=(words, str(self._said)))
        child.start()
        return child


def _hashes(folder: Path) -> dict[str, str]:
    """Of all files below a folder but hidden ones (locks, parts of what is being written)."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    base = build("bert")
    save(base, folder / "model")
    write_jsonl(folder / "data.jsonl", rows(base, samples(120)))
    for seed in range(4):
        wrong = rows(base, samples(5, seed=7 + seed), wrong_share=1.0)
        write_jsonl(folder / f"wrong{seed}.jsonl", wrong)
    return folder


def _config(home: Path, output: Path) -> tuple[RunConfig, Path]:
    config = configuration.load(
        None,
        [
            f"output={output}", "name=run", f"model.name={home / 'model'}",
            f"data.train={home / 'data.jsonl'}", "data.adapt.rewrite=false",
            "data.adapt.similarity_model=''", "site.select=gradient", "site.samples=8",
            "editor.mend.rank=6", "schedule.batch_size=3", "train.epochs=6",
            "train.steps_per_epoch=4", "train.edits_per_step=4", "train.passes_per_edit=3",
            "train.patience=9", "trainer.accelerator=cpu",
        ],
    )  # fmt: skip
    path = output / "config.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(configuration.to_yaml(config), encoding="utf-8")
    return config, path


@pytest.fixture(scope="module")
def killer(home: Path) -> Iterator[Killer]:
    os.environ["OMP_NUM_THREADS"] = "1"
    killer = Killer(home, seed=0)
    yield killer
    print(f"\nkilled: {dict(killer.kills)}; came to their end before: {dict(killer.done)}")


@pytest.fixture(scope="module")
def whole(home: Path, killer: Killer) -> RunConfig:
    """A run that nobody killed, and its caches."""
    config, path = _config(home, home / "whole")
    killer.run("fit warm-up", "fit", str(path))
    killer.run("test", "test", str(config.folder))
    # Without its caches again, as those runs are that are to be killed.
    _, path = _config(home, home / "again")
    killer.run("fit", "fit", str(path))
    return config


#: What tells the time, or where it was made.
_OWN = ("events.out", "fit.json", "hparams.yaml", "config.yaml", "results.json")
_TIMED = {"last.ckpt", "best.ckpt", "saliency.json"}


def _trained(folder: Path) -> dict[str, str]:
    return {name: print_ for name, print_ in _hashes(folder).items() if not name.startswith(_OWN)}


def _caches(folder: Path) -> dict[str, str]:
    """Of all files of a cache but memos, which grow, and hold their rows in the order of asking."""
    return {name: print_ for name, print_ in _hashes(folder).items() if ".sqlite" not in name}


def _memos(folder: Path) -> dict[str, list[tuple[object, ...]]]:
    """What memos hold. To read one takes back what was cut off."""
    out = {}
    for path in folder.glob("*.sqlite"):
        with closing(sqlite3.connect(path)) as store:
            out[path.name] = store.execute("SELECT * FROM kept ORDER BY key").fetchall()
    return out


def _resume(config: RunConfig) -> tuple[str, ...]:
    return ("--resume",) if (config.folder / "config.yaml").exists() else ()


def _pick(folder: Path) -> dict[str, object]:
    table = json.loads((folder / "saliency.json").read_text(encoding="utf-8"))
    return {name: value for name, value in table.items() if name != "seconds"}


def test_fit_and_caching(home: Path, whole: RunConfig, killer: Killer, tmp_path: Path) -> None:
    """A run that is killed again and again ends as one that was not, and so do its caches."""
    base, wanted = _hashes(home / "model"), _trained(whole.folder)
    caches = _caches(whole.cache)
    round_ = 0
    while killer.kills["fit"] + killer.kills["test"] < _KILLS * 2 // 5:
        config, path = _config(home, tmp_path / str(round_))
        for _ in range(_EACH):
            # What it resumes from is there or is not; either way it goes on.
            if not killer.kill("fit", "fit", str(path), *_resume(config)):
                break
            # What stands in the cache under its name is whole, at any moment. (Sums grow.)
            found = _caches(config.cache) if config.cache.exists() else {}
            grown = (".json", "moments.safetensors")
            assert all(caches.get(n) == h for n, h in found.items() if not n.endswith(grown))
            assert _hashes(home / "model") == base
        killer.run("fit to its end", "fit", str(path), *_resume(config))
        for _ in range(_EACH // 3):
            killer.kill("test", "test", str(config.folder))
        killer.run("test to its end", "test", str(config.folder))
        ended = _trained(config.folder)
        assert ended.keys() == wanted.keys()
        assert {n for n in wanted if ended[n] != wanted[n]} <= _TIMED
        assert _pick(config.folder) == _pick(whole.folder)
        ended = _caches(config.cache)
        assert ended.keys() == caches.keys()
        assert _memos(config.cache) == _memos(whole.cache)
        timed = {name for name in caches if name.startswith("layers-")}
        assert {name for name in caches if ended[name] != caches[name]} <= timed
        round_ += 1
    assert _hashes(home / "model") == base


def test_fix_and_undo(home: Path, whole: RunConfig, killer: Killer, tmp_path: Path) -> None:
    """A fix or an undo is done or is not done, and the same fixes in force are the same bits."""
    places = {form: tmp_path / form for form in _FORMS}
    run, base = _hashes(whole.folder), _hashes(home / "model")
    model = load_classifier(str(home / "model")).model
    bits: dict[tuple[str, tuple[int, ...]], str] = {}

    def fix(form: str, number: int) -> tuple[str, ...]:
        wrong = str(home / f"wrong{number}.jsonl")
        out = ("--out", str(places[form]), "--format", form, "--min-fixed", "0")
        return "fix", str(whole.folder), "--failures", wrong, *out

    def in_force(form: str) -> tuple[int, ...]:
        """Read as any reader would, after what was cut off has been finished."""
        if not (places[form] / "ledger.jsonl").exists():
            return ()
        told = log(str(places[form]), FakeUi())  # type: ignore[arg-type]
        folder = EditFolder.read(places[form])
        assert state(folder) == SETTLED
        now = tuple(row["id"] for row in told["entries"] if row["in_force"])
        assert not told["changed"]
        written = load_edits(places[form], model)
        assert written.keys() == folder.edits.keys()
        # Readable by people and machines, and always the same for the same fixes.
        print_ = _hashes(places[form])["edits.safetensors"]
        steps = tuple(_step(folder, number) for number in now)
        assert bits.setdefault((form, *steps), print_) == print_
        return now

    for form in _FORMS:
        killer.run(f"fix {form}", *fix(form, 0))
        killer.run(f"undo {form}", "undo", str(places[form]))
    start = sum(killer.kills.values())
    while sum(killer.kills.values()) - start < _KILLS - _KILLS * 2 // 5:
        form = killer.draws.choice(_FORMS)
        before = in_force(form)
        if before and (len(before) > 2 or killer.draws.random() < 0.6):
            gone = killer.draws.choice(before)
            kind, words = f"undo {form}", ("undo", str(places[form]), str(gone))
            after = tuple(number for number in before if number != gone)
        else:
            # Failures that are mended already are none: an order in which each is asked once.
            kind, words = f"fix {form}", fix(form, len(before) % 4)
            after = (*before, len(EditFolder.read(places[form]).entries))
        killed = False
        if killer.draws.random() < _WHOLE:
            killer.run(kind, *words)
        else:
            killed = killer.kill(kind, *words)
        now = in_force(form)
        assert now in ({before, after} if killed else {after})
        assert _hashes(whole.folder) == run
        assert _hashes(home / "model") == base


def _step(folder: EditFolder, number: int) -> str:
    """What one fix did, by its files."""
    return folder.entries[number].facts["files"]["edits.safetensors"]
