"""Several processes train as one does: the same splits, losses and editor."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from processes import (
    TORCHRUN,
    TWO,
    check_same,
    check_tested_alike,
    command,
    shared_run,
    verb,
)
from whole_runs import ui

from saledit import cli, distributed
from saledit.config import RunConfig
from saledit.errors import ConfigError, JobError
from saledit.moments import Normalizer
from saledit.run import fit
from saledit.run import test as run_test
from saledit.run.setup import launching
from saledit.run.setup.launching import alone
from saledit.run.setup.placing import accelerator_left, device_of


@pytest.mark.long
def test_two_processes_are_one(make: Callable[..., RunConfig], home: Path, tmp_path: Path) -> None:
    own = ("train.epochs=2", "editor.looks=2", "editor.enough=0.01")
    one, two = make("one", *TWO[1:], *own), make("two", *TWO, *own)
    first = fit(one, False, ui())
    shutil.rmtree(home / "cache")  # so that both ask and cache, each its share
    done = shared_run(command(two, tmp_path))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)  # said once
    assert told["processes"] == 2
    assert told["splits"] == first["splits"]
    for name in ("found", "made"):  # whichever process has made a shard
        assert told["cache"][name] == first["cache"][name]
    check_same(one, two)
    # Test batches are divided as well, and what all have counted is brought together.
    alone_ = run_test(str(two.folder), ["trainer.devices=1"], ui())
    done = shared_run(verb("test", two.folder))
    assert done.returncode == 0, done.stderr
    check_tested_alike(two, alone_, json.loads(done.stdout))


@pytest.mark.slow
@pytest.mark.parametrize("editor", ["malmen", "enn", "ke", "mend"])
def test_torchrun_starts_the_processes(
    make: Callable[..., RunConfig], home: Path, tmp_path: Path, editor: str
) -> None:
    own = (f"editor.name={editor}", "train.seconds=1000")
    one, two = make("one", *TWO[1:], *own), make("two", *TWO, *own)
    fit(one, False, ui())
    shutil.rmtree(home / "cache")
    done = shared_run(command(two, tmp_path, *TORCHRUN))
    assert done.returncode == 0, done.stderr
    check_same(one, two)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [(), TORCHRUN], ids=["lightning", "torchrun"])
def test_a_model_is_fine_tuned_by_the_first_process(
    make: Callable[..., RunConfig], home: Path, tmp_path: Path, launcher: tuple[str, ...]
) -> None:
    tuned = ("model.finetune.enabled=true", "model.finetune.records=40")
    shutil.rmtree(home / "cache", ignore_errors=True)
    config = make("tuned", *TWO, *tuned)
    done = shared_run(command(config, tmp_path, *launcher))
    assert done.returncode == 0, done.stderr
    (folder,) = (home / "cache").glob("finetuned-*/")
    assert (folder / "config.json").exists()


@pytest.mark.slow
def test_each_process_lays_its_own_edits_on_each_other(
    make: Callable[..., RunConfig], tmp_path: Path
) -> None:
    config = make("laid", *TWO, "train.earlier=3")
    done = shared_run(command(config, tmp_path))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["processes"] == 2


@pytest.mark.slow
def test_a_shared_run_goes_on(make: Callable[..., RunConfig], tmp_path: Path) -> None:
    own = (*TWO, "train.decay=false")  # whose end is that of all epochs
    whole, part = make("whole", *own), make("part", *own)
    for config, more in (
        (whole, ()), (part, ("train.epochs=1",)), (part, ("--resume",)),
    ):  # fmt: skip
        done = shared_run(command(config, tmp_path, more=more))
        assert done.returncode == 0, done.stderr
    check_same(whole, part)


@pytest.mark.slow
def test_an_error_is_said_once(make: Callable[..., RunConfig], tmp_path: Path) -> None:
    config = make("wrong", *TWO, "train.edits_per_step=1")
    done = shared_run(command(config, tmp_path))
    assert done.returncode == 2
    assert done.stderr.count("train.edits_per_step: expected at least 2") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("strategy", ["deepspeed", "ddp_spawn", "nonsense"])
def test_other_strategies_are_refused(make: Callable[..., RunConfig], strategy: str) -> None:
    config = make("divided", f"trainer.strategy={strategy}")
    with pytest.raises(ConfigError, match=r"trainer\.strategy: expected auto, ddp or fsdp"):
        fit(config, False, ui())


def test_one_process_is_made_of_several() -> None:
    assert alone({"devices": 2, "strategy": "ddp", "precision": 32}) == {
        "devices": 1, "precision": 32,
    }  # fmt: skip
    assert alone({"devices": [3, 4]}) == {"devices": [3]}
    assert alone({"accelerator": "cpu", "devices": 1}) == {"accelerator": "cpu", "devices": 1}


def test_what_the_first_process_makes_the_others_wait_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[Path] = []
    place = tmp_path / "made"

    def make() -> None:
        place.mkdir()
        made.append(place)

    distributed.once(place, make)
    distributed.once(place, make)
    assert made == [place]
    monkeypatch.setitem(sys.modules, "torch.distributed", Peers(1, None))
    later = tmp_path / "later"
    monkeypatch.setattr(distributed.time, "sleep", lambda _seconds: later.mkdir())
    distributed.once(later, make)
    assert made == [place]  # this process makes nothing
    parents = iter([1, 2])
    monkeypatch.setattr(distributed.os, "getppid", lambda: next(parents))
    with pytest.raises(JobError, match="expected the first process to make it"):
        distributed.once(tmp_path / "never", make)


def test_a_world_of_one() -> None:
    assert (distributed.world_size(), distributed.rank(), distributed.is_main()) == (1, 0, True)
    assert distributed.broadcast([1]) == [1]
    assert distributed.map_shares([3, 4], lambda items: [x + 1 for x in items]) == [4, 5]
    tensor = torch.ones(2)
    assert distributed.all_gather(tensor)[0] is tensor
    distributed.barrier()


class Peers:
    """``torch.distributed`` of two processes of which this is one, with the other's words given."""

    def __init__(self, rank: int, other: object) -> None:
        self.rank, self.other = rank, other

    def is_available(self) -> bool:
        return True

    is_initialized = is_available

    def get_world_size(self) -> int:
        return 2

    def get_rank(self) -> int:
        return self.rank

    def all_gather_object(self, out: list, own: object) -> None:
        out[self.rank], out[1 - self.rank] = own, self.other

    def all_gather(self, out: list, own: torch.Tensor) -> None:
        out[self.rank].copy_(own)
        out[1 - self.rank].copy_(self.other)


@pytest.mark.parametrize("rank", [0, 1])
def test_shares_come_back_in_order(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    seen: list[list[int]] = []

    def work(items: list[int]) -> list[int]:
        seen.append(items)
        return [10 * x for x in items]

    items = [0, 1, 2, 3, 4]
    others = [10 * x for x in items[1 - rank :: 2]]
    monkeypatch.setitem(sys.modules, "torch.distributed", Peers(rank, others))
    assert distributed.map_shares(items, work) == [0, 10, 20, 30, 40]
    assert seen == [items[rank::2]]


def test_statistics_of_shares_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(9, 4)
    whole, shared = Normalizer(4), Normalizer(4)
    whole.update(x)
    other = x[1::2]
    mean = other.mean(0)
    told = torch.cat([torch.tensor([4.0]), mean, ((other - mean) ** 2).sum(0)])
    monkeypatch.setitem(sys.modules, "torch.distributed", Peers(0, told))
    shared.update(x[::2], is_share=True)
    assert shared.count == whole.count
    torch.testing.assert_close(shared.mean, whole.mean)
    torch.testing.assert_close(shared.std, whole.std)


def test_processes_beside_the_first_are_told_by_their_launcher(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert not distributed.was_launched_beside()
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert not distributed.was_launched_beside()
    monkeypatch.setenv("RANK", "3")
    assert distributed.was_launched_beside()


def test_every_process_has_its_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setitem(sys.modules, "torch.distributed", Peers(1, None))
    for trainer in ({}, {"devices": 2}, {"accelerator": "gpu", "devices": "auto"}):
        assert device_of(trainer) == torch.device("cuda", 1)
    assert device_of({"accelerator": "cpu", "devices": 1}) == torch.device("cpu")


def test_an_accelerator_without_doubles_is_left_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("mps"))
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    assert accelerator_left({}, cpu) == accelerator_left({"accelerator": "auto"}, cpu) == "mps"
    assert not accelerator_left({"accelerator": "cpu"}, cpu)
    assert not accelerator_left({}, gpu)


def test_a_process_ends_with_the_one_that_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    parents, left = iter([7, 7, 1]), []
    monkeypatch.setattr(launching.os, "getppid", lambda: next(parents))
    monkeypatch.setattr(launching.os, "_exit", left.append)
    monkeypatch.setattr(launching.time, "sleep", lambda _seconds: None)
    launching._leave_with(7)
    assert left == [1]


def test_in_step_all_work_on_everything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Others(Peers):
        def barrier(self) -> None:
            met.append(self.rank)

    met: list[int] = []
    monkeypatch.setitem(sys.modules, "torch.distributed", Others(1, 5))
    assert distributed.map_shares(
        [1, 2, 3], lambda items: [x + 1 for x in items], in_step=True
    ) == [2, 3, 4]
    assert distributed.all_max(3) == 5
    assert distributed.all_max(8) == 8
    # Not the first process: it holds no lock, and waits before and behind.
    with distributed.one_run_at_a_time(tmp_path / "made", in_step=True):
        assert met == [1]
        assert list(tmp_path.iterdir()) == []
    assert met == [1, 1]


def test_all_processes_see_a_loss_that_is_nan_in_one(
    make: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gathered(tensor: torch.Tensor) -> list[torch.Tensor]:
        return [tensor] if tensor.dim() else [tensor, tensor.new_tensor(torch.nan)]

    monkeypatch.setattr(distributed, "all_gather", gathered)
    with pytest.raises(JobError, match="training diverged at step 0"):
        fit(make("nan"), False, ui())


@pytest.mark.parametrize("rank", ["0", "1"])
def test_ctrl_c_is_said_by_the_first_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rank: str
) -> None:
    def interrupted(_words: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_dispatch", interrupted)
    monkeypatch.setattr(cli, "_close_stdout", lambda: None)
    for name in ("RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOCAL_RANK", rank)
    assert cli.main(["fit", "x"]) == 130
    assert bool(capsys.readouterr().err) == (rank == "0")


@pytest.mark.parametrize(
    ("told", "started"),
    [
        ({"TORCHELASTIC_RUN_ID": "1", "RANK": "1", "WORLD_SIZE": "2"}, 2),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "1"}, 2),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "4"}, 4),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, 1),  # a batch script that starts one
        ({}, 1),
    ],
)
def test_processes_that_were_started_are_not_taken_for_one(
    told: dict[str, str], started: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "SLURM_JOB_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert launching._started() == started

    class One:
        world_size = 1

    monkeypatch.setattr(launching, "Fabric", lambda **_options: One())
    if started == 1:
        launching.launch({"devices": 1}, ui())
        return
    with pytest.raises(ConfigError, match=f"expected {started} processes in all"):
        launching.launch({"devices": 1}, ui())


@pytest.mark.parametrize(
    ("devices", "first"), [(8, 1), ("8", 1), ("-1", 1), ([2, 3], [2]), ("2,3", [2]), ("3,", [3])]
)
def test_one_process_takes_the_first_of_the_devices(devices: object, first: object) -> None:
    assert alone({"devices": devices, "strategy": "ddp"}) == {"devices": first}
