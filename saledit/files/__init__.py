"""Files: written whole or not at all; read as what they should be, or refused with one line.

Nothing here imports torch before tensors are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from saledit.files.reading import (
    file_hash,
    is_file,
    is_folder,
    known_hash,
    open_regular,
    read_bytes,
    read_text,
    reason,
)
from saledit.files.store import Store
from saledit.files.values import keep_json, kept_json, misfit, parse_json, read_json
from saledit.files.writing import (
    alone,
    beside,
    new_folder,
    one_at_a_time,
    write_json,
    write_jsonl,
    write_text,
)
from saledit.lazy import lazily

if TYPE_CHECKING:
    from saledit.files.tensors import (
        check_numbers,
        keep_tensors,
        kept_tensors,
        read_header,
        read_metadata,
        read_tensors,
        write_tensors,
    )

__all__ = [
    "Store",
    "alone",
    "beside",
    "check_numbers",
    "file_hash",
    "is_file",
    "is_folder",
    "keep_json",
    "keep_tensors",
    "kept_json",
    "kept_tensors",
    "known_hash",
    "misfit",
    "new_folder",
    "one_at_a_time",
    "open_regular",
    "parse_json",
    "read_bytes",
    "read_header",
    "read_json",
    "read_metadata",
    "read_tensors",
    "read_text",
    "reason",
    "write_json",
    "write_jsonl",
    "write_tensors",
    "write_text",
]

_TENSORS = (
    "check_numbers", "keep_tensors", "kept_tensors", "read_header", "read_metadata",
    "read_tensors", "write_tensors",
)  # fmt: skip
__getattr__ = lazily(__name__, dict.fromkeys(_TENSORS, "saledit.files.tensors"))
