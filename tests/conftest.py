"""Shared set-up of the tests: no network but this machine's own, nothing in the user's caches.

The environment is set when this file is imported, before any test module can import a hub library;
child processes inherit it. Sockets are blocked from here until pytest ends, in this process only.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any, NoReturn

_CACHE = Path(tempfile.mkdtemp(prefix="saledit-tests-"))

os.environ.update(
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_HOME=str(_CACHE / "hf"),
    HF_DATASETS_CACHE=str(_CACHE / "datasets"),
    TOKENIZERS_PARALLELISM="false",
    MPLBACKEND="Agg",
)
# Older settings that would win over HF_HOME.
for _name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE"):
    os.environ.pop(_name, None)

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

# How long an example takes is the machine's affair.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


class NetworkBlockedError(RuntimeError):
    """A test tried to reach the network.

    Not an `OSError`: libraries take those for a bad line and retry or fall back.
    """


def _refuse(address: object) -> NoReturn:
    raise NetworkBlockedError(f"tests never use a network: connection to {address!r} refused")


def _is_here(sock: socket.socket | None, address: Any) -> bool:
    """Whether an address is on this machine: a browser under test, say."""
    if sock is not None and sock.family == getattr(socket, "AF_UNIX", None):
        return True
    return isinstance(address, tuple) and address[0] in {"127.0.0.1", "::1", "localhost"}


def _create(real: Any) -> Any:
    def create_connection(address: Any, *args: Any, **kwargs: Any) -> Any:
        return real(address, *args, **kwargs) if _is_here(None, address) else _refuse(address)

    return create_connection


def _guarded(real: Any) -> Any:
    def connect(sock: socket.socket, address: Any) -> Any:
        return real(sock, address) if _is_here(sock, address) else _refuse(address)

    return connect


_patch = pytest.MonkeyPatch()
_patch.setattr(socket, "create_connection", _create(socket.create_connection))
_patch.setattr(socket.socket, "connect", _guarded(socket.socket.connect))
_patch.setattr(socket.socket, "connect_ex", _guarded(socket.socket.connect_ex))


def pytest_unconfigure() -> None:
    """Open the sockets again and remove the temporary caches."""
    _patch.undo()
    shutil.rmtree(_CACHE, ignore_errors=True)
