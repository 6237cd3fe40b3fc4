"""Nodes: two launchers on this machine, as torchrun and srun start them on two.

Each has one process and knows the other by an address and a port alone.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from processes import TWO, check_same, verb
from whole_runs import ui

from saledit.config import RunConfig, to_yaml
from saledit.run import fit
from saledit.run import test as run_test

NODES = ("trainer.devices=1", "trainer.num_nodes=2", *TWO[1:])
_OURS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def by_torchrun(words: Sequence[str], node: int, port: int) -> tuple[list[str], dict[str, str]]:
    """Words of one node's torchrun, and its variables."""
    launcher = ("-m", "torch.distributed.run", "--nnodes=2", f"--node-rank={node}")
    launcher += ("--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={port}")
    return [sys.executable, *launcher, *words], {}


def by_srun(words: Sequence[str], node: int, port: int) -> tuple[list[str], dict[str, str]]:
    """Words of one task, and the variables that srun gives it."""
    own = {
        "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_PROCID": str(node), "SLURM_LOCALID": "0", "SLURM_NODEID": str(node),
        "SLURM_NNODES": "2", "SLURM_NODELIST": "127.0.0.1", "SLURM_JOB_NAME": "edits",
        "SLURM_JOB_ID": "7", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    return [sys.executable, *words], own


Start = Callable[[Sequence[str], int, int], tuple[list[str], dict[str, str]]]


def on_two_nodes(start: Start, words: Sequence[str]) -> list[tuple[str, str]]:
    """What each node has said, on either stream."""
    clean = {k: v for k, v in os.environ.items() if k not in _OURS and not k.startswith("SLURM")}
    port, tasks = free_port(), []
    for node in (0, 1):
        line, own = start(words, node, port)
        tasks.append(
            subprocess.Popen(
                line, env={**clean, **own}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                text=True,
            )
        )  # fmt: skip
    try:
        said = [task.communicate(timeout=170) for task in tasks]
    finally:
        for task in tasks:
            task.kill()
    assert [task.returncode for task in tasks] == [0, 0], said
    return said


@pytest.mark.slow
@pytest.mark.parametrize("start", [by_torchrun, by_srun])
def test_two_nodes_are_one(
    make: Callable[..., RunConfig], home: Path, start: Start, tmp_path: Path
) -> None:
    one, two = make("one", *TWO[1:], "train.epochs=2"), make("two", *NODES, "train.epochs=2")
    first = fit(one, False, ui())
    shutil.rmtree(home / "cache")
    path = tmp_path / "two.yaml"
    path.write_text(to_yaml(two), encoding="utf-8")
    said = on_two_nodes(start, verb("fit", path)[1:])
    told = json.loads(said[0][0])
    assert not said[1][0]  # said once
    assert told["processes"] == 2
    assert told["splits"] == first["splits"]
    check_same(one, two)
    alone = run_test(str(two.folder), ["trainer.devices=1", "trainer.num_nodes=1"], ui())
    said = on_two_nodes(start, verb("test", two.folder)[1:])
    two_tested = json.loads(said[0][0])
    assert alone["per_edit"] == two_tested["per_edit"]
    assert two_tested["processes"] == 2
