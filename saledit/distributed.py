"""The processes that share a run. In a run of one process all of this does nothing.

Every process reads the same configuration and comes to the same calls in the same order. What only
one may decide or write is up to the first; what takes long is divided.

Where the model is divided between them (``models/divided.py``) they also go through it in step:
nothing that the model has a part in is left to one of them (``in_step``).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from saledit.errors import JobError
from saledit.files import one_at_a_time

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
_LOOK = 0.2  # seconds between two looks
_RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK")  # torchrun's word, SLURM's, Lightning's


def world_size() -> int:
    """Processes that share the run."""
    group = _group()
    return 1 if group is None else int(group.get_world_size())


def rank() -> int:
    """Which of them this is, from 0."""
    group = _group()
    return 0 if group is None else int(group.get_rank())


def is_main() -> bool:
    """Whether this is the process that writes and speaks."""
    return rank() == 0


def was_launched_beside() -> bool:
    """Whether a launcher started this process as another one than the first."""
    found = (os.environ.get(name, "0") for name in _RANKS)
    first = next((text for text in found if text.isdigit() and text != "0"), "0")
    return first != "0"


def barrier() -> None:
    """Wait for all processes."""
    group = _group()
    if group is not None:
        group.barrier()


def once(place: Path, make: Callable[[], object]) -> None:
    """Let a folder be made where it is not there yet: by the first process, the others wait.

    They wait however long it takes, which no barrier does, and cannot make it in its stead:
    transformers saves nothing in a process that is not the first.

    Args:
        place: the folder; it has to appear whole.
        make: makes it.

    Raises:
        JobError: the process that started this one has ended meanwhile.
    """
    parent = os.getppid()
    while not place.is_dir():
        if is_main():
            with one_at_a_time(place):  # runs beside this one wait here
                if not place.is_dir():
                    make()
        elif os.getppid() != parent:
            raise JobError(f"{place}: expected the first process to make it, got its end")
        else:
            time.sleep(_LOOK)


@contextmanager
def one_run_at_a_time(*paths: Path, in_step: bool = False) -> Iterator[None]:
    """Hold the locks of files: runs beside this one wait, and so do its other processes.

    Args:
        paths: the files that are to be made.
        in_step: the processes of this run hold the locks as one, and only the first writes; the
            others find what it has written behind this.
    """
    with ExitStack() as locks:
        if not in_step or is_main():
            for path in sorted(set(paths)):  # in one order, so that no two wait for each other
                locks.enter_context(one_at_a_time(path))
        if in_step:
            barrier()
        yield
        if in_step:
            barrier()


def all_max(number: int) -> int:
    """The largest of the numbers that the processes have."""
    group = _group()
    if group is None:
        return number
    numbers = [0] * world_size()
    group.all_gather_object(numbers, number)
    return max(numbers)


def all_min(number: int) -> int:
    """The smallest of the numbers that the processes have."""
    return -all_max(-number)


def broadcast(value: T) -> T:
    """What the first process has for a value."""
    group = _group()
    if group is None:
        return value
    box = [value]
    group.broadcast_object_list(box, src=0)
    return box[0]


def all_gather(tensor: Tensor) -> list[Tensor]:
    """A tensor of each process, in their order; all of one shape."""
    group = _group()
    if group is None:
        return [tensor]
    out = [tensor.new_empty(tensor.shape) for _ in range(world_size())]
    group.all_gather(out, tensor.contiguous())
    return out


def map_shares(
    items: Sequence[T], work: Callable[[list[T]], Sequence[Any]], in_step: bool = False
) -> list[Any]:
    """Work on items, every process on its share of them.

    Args:
        items: the same in every process.
        work: gives a value for each of the items that it is given.
        in_step: all processes work on all of them.

    Returns:
        The values of all items, in order, in every process.
    """
    group = _group()
    if group is None or in_step:
        return list(work(list(items)))
    own = list(items[rank() :: world_size()])
    return all_gather_shares(list(work(own)) if own else [], len(items))


def all_gather_shares(own: Sequence[T], n: int) -> list[T]:
    """The n results of work of which this process has done every so many-th, from its rank on."""
    group = _group()
    if group is None:
        return list(own)
    shares: list[Any] = [None] * world_size()
    group.all_gather_object(shares, list(own))
    out: list[Any] = [None] * n
    for i, share in enumerate(shares):
        out[i :: len(shares)] = share
    return out


def _group() -> Any:
    """``torch.distributed`` where several processes share the run."""
    group: Any = sys.modules.get("torch.distributed")  # not there: nothing has started processes
    if group is None or not group.is_available() or not group.is_initialized():
        return None
    return group if group.get_world_size() > 1 else None
