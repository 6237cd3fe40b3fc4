"""The forms that a fix can take: a delta, a merged model, a LoRA adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from saledit.delta import Edits
from saledit.export.lora import low_rank, write_lora
from saledit.export.merged import write_merged
from saledit.models import TaskModel


@dataclass(frozen=True, slots=True)
class Format:
    """One form.

    Attributes:
        shape: from edits and the rank asked for (0 for any) to the edits as they are exported, and
            what is to be told of them.
        write: puts files into a folder, of the base model where ``needs_base``, the edits, and what
            the ledger tells at its beginning.
        needs_base: whether writing reads the base model.
        takes_routed: whether it can hold edits that are no matrices.
    """

    shape: Callable[[Edits, int], tuple[Edits, dict[str, Any]]]
    write: Callable[[Path, TaskModel | None, Edits, Mapping[str, Any]], None]
    needs_base: bool = False
    takes_routed: bool = False


def _as_they_are(edits: Edits, rank: int) -> tuple[Edits, dict[str, Any]]:
    del rank
    return edits, {}


def _nothing_more(
    folder: Path, base: TaskModel | None, edits: Edits, head: Mapping[str, Any]
) -> None:
    """``edits.safetensors`` and ``edits.json`` are written beside every form."""


#: By the name that ``saledit fix --format`` takes.
FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "delta": Format(_as_they_are, _nothing_more, takes_routed=True),
        "merged": Format(_as_they_are, write_merged, needs_base=True),
        "lora": Format(low_rank, write_lora),
    }
)
