"""What a run that was cut off left in its folder, checked before it is gone on with."""

from __future__ import annotations

import errno
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, EarlyStopping, LambdaCallback

from saledit.artifact import REVISION
from saledit.errors import ArtifactError, SaleditError
from saledit.files import misfit, open_regular, reason
from saledit.files.writing import replacing

LAST, BEST = "last.ckpt", "best.ckpt"
_REMEDY = "start anew without --resume"
#: Of an ``OSError`` that is about what lies there. Others (a permission, a disk that hangs) may be
#: over at the next try, and a checkpoint that is called broken is thrown away.
_OF_THE_FILE = (None, errno.ENOENT, errno.EISDIR, errno.EINVAL, errno.ELOOP, errno.ENOTDIR)
#: What torch says in a bare ``RuntimeError`` where main memory, a device or the network gives out.
_OF_THE_MACHINE = ("DefaultCPUAllocator", "CUDA error", "NCCL")
_STATE = {"global_step": int, "epoch": int, "state_dict": dict, "callbacks?": {str: object}}


class WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints beside their place and moves them there whole; reads those of a run.

    Lightning writes them to the system's folder for temporary files; where that is another disk,
    moving is copying, over the only good one.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write one.

        Raises:
            JobError: the disk is full or the place cannot be written.
        """
        assert storage_options is None
        with replacing(Path(path)) as part:
            try:
                torch.save(checkpoint, part)
            except RuntimeError as error:  # torch's word for a full disk
                raise OSError(reason(error)) from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read one for the trainer, looked through as by ``steps_of``.

        Raises:
            ArtifactError: it is broken, packed so that it fills memory, or names other files.
        """
        return _read(Path(path))


class Patience(EarlyStopping):
    """Stops a training that does not get better, also one that is gone on with.

    A checkpoint keeps how long it did not get better, and not that it was over; and it keeps the
    patience of its time, where a run may go on with another one.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the count."""
        super().load_state_dict({**state_dict, "patience": self.patience})

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Be over where it was: here states are restored, and nothing has run."""
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience


class LearnedFrom(Callback):
    """Keeps in checkpoints what a training reads, so that it goes on with nothing else.

    And by which code: of another one, steps are not the same.

    Args:
        mark: fingerprint of the model, the samples and the layer.
        threads: of the processor, where the clock ends the training; 0 where that says nothing.
    """

    def __init__(self, mark: str, threads: int = 0) -> None:
        self.mark, self.threads = mark, threads

    @property
    def state_key(self) -> str:
        """Where it is in a checkpoint."""
        return "saledit.learned_from"

    def state_dict(self) -> dict[str, Any]:
        """The fingerprint."""
        return {"mark": self.mark, "revision": REVISION, "threads": self.threads}

    def steps_of(self, checkpoint: Path | None) -> int:
        """Steps that a checkpoint holds, which has to be of this code, model and samples.

        Raises:
            ArtifactError: it is one, or broken as ``steps_of`` says.
        """
        if checkpoint is None:
            return 0
        state = _read(checkpoint)
        kept = state.get("callbacks", {}).get(self.state_key)
        kept = kept if isinstance(kept, Mapping) else {}
        if kept.get("revision") != REVISION:
            raise ArtifactError(
                f"{checkpoint}: expected a training by this code (revision {REVISION}), got one by "
                f"other code ({kept.get('revision')!s:.20}), whose steps are not the same; "
                f"{_REMEDY}"
            )
        if kept.get("mark") != self.mark:
            raise ArtifactError(
                f"{checkpoint}: expected a training at this layer on the model and the data that "
                f"are there now, got one on others, which have changed since; {_REMEDY}"
            )
        if kept.get("threads") != self.threads:
            before = f"{kept.get('threads')!s:.20}"
            raise ArtifactError(
                f"{checkpoint}: expected a training for train.seconds with as many threads as here "
                f"({self.threads}), got one with {before}; set --threads {before}, or {_REMEDY}"
            )
        return int(state["global_step"])


def steps_of(checkpoint: Path | None) -> int:
    """Optimizer steps that a checkpoint already holds.

    Raises:
        ArtifactError: it is broken, packed so that it fills memory, or names other files.
    """
    return int(_read(checkpoint)["global_step"]) if checkpoint else 0


def _read(checkpoint: Path) -> dict[str, Any]:
    """A checkpoint, read without running any code and looked through."""
    try:
        with open_regular(checkpoint) as stream:
            _check_packing(stream)
            stream.seek(0)
            state = torch.load(stream, map_location="cpu", weights_only=True)
        fault = misfit(state, _STATE)
        if fault or state["global_step"] < 0:
            raise ValueError(fault or "steps below 0")
        callbacks = state.get("callbacks", {})
        home = checkpoint.parent.resolve()
        state["callbacks"] = {name: _brought(own, home) for name, own in callbacks.items()}
        return dict(state)
    except Exception as error:  # a broken file makes torch.load raise almost anything
        if _is_passing(error):
            if isinstance(error, OSError):
                error.filename = error.filename or str(checkpoint)
            raise
        raise ArtifactError(
            f"{checkpoint}: expected a checkpoint of this run, got a broken file "
            f"({reason(error):.200}); {_REMEDY}"
        ) from error


def _is_passing(error: Exception) -> bool:
    """Whether an error tells of the machine, and nothing of a checkpoint."""
    if isinstance(error, OSError):
        return error.errno not in _OF_THE_FILE
    if isinstance(error, MemoryError | torch.OutOfMemoryError | torch.AcceleratorError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _OF_THE_MACHINE)


def _check_packing(stream: BinaryIO) -> None:
    """A checkpoint is a zip of parts that are stored as they are; a packed one may have any size.

    Raises:
        OSError, ValueError, zipfile.BadZipFile: it is none.
    """
    with zipfile.ZipFile(stream) as parts:
        size = os.fstat(stream.fileno()).st_size
        found = parts.infolist()
        if any(part.compress_type != zipfile.ZIP_STORED for part in found):
            raise ValueError("its parts are packed")
        if sum(part.file_size for part in found) > size:
            raise ValueError("its parts are larger than the file")


def _brought(own: Any, home: Path) -> Any:
    """What a callback has kept, with all that it names in the folder where its checkpoint lies.

    Lightning reads and removes files that a checkpoint names, by the absolute paths of the time
    when it was written. They have to be the run's, and the run may have been moved since.

    Raises:
        ValueError: it names something that no run writes.
    """
    if not isinstance(own, Mapping):
        return own
    moved = {
        key: _at(value, home) if str(key).endswith("_path") and value else value
        for key, value in own.items()
    }
    if isinstance(own.get("best_k_models"), Mapping):
        moved["best_k_models"] = {_at(n, home): score for n, score in own["best_k_models"].items()}
    if "dirpath" in own:
        moved["dirpath"] = str(home)
    return moved


def _at(name: Any, home: Path) -> str:
    if not isinstance(name, str) or Path(name).name not in (LAST, BEST):
        raise ValueError(f"the path {name!s:.80}, which is none of {LAST} and {BEST}")
    return str(home / Path(name).name)


@contextmanager
def restoring(trainer: L.Trainer, checkpoint: Path | None, begun: str) -> Iterator[None]:
    """Say of what goes wrong before a trainer has begun that its checkpoint does not fit.

    What may be otherwise at the next try (memory, a device, a file that cannot be read) stays what
    it is: it is no reason to begin anew.

    Args:
        trainer: about to restore the checkpoint.
        checkpoint: None for none.
        begun: the hook of a callback that comes first when all is restored.

    Raises:
        ArtifactError: it does not.
    """
    seen: list[bool] = []
    watch = LambdaCallback(**{begun: lambda *_: seen.append(True)})
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    callbacks.insert(0, watch)
    try:
        yield
    except Exception as error:
        if checkpoint is None or seen or isinstance(error, SaleditError) or _is_passing(error):
            raise
        raise ArtifactError(
            f"{checkpoint}: expected a checkpoint of this run, got one that does not fit "
            f"({reason(error):.200}); {_REMEDY}"
        ) from error
    finally:
        callbacks.remove(watch)
