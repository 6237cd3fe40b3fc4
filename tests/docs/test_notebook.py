"""The notebook of the documentation runs from its first cell to its last."""

from __future__ import annotations

import ast
import shutil
import tempfile
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
manager = pytest.importorskip("jupyter_client.manager")

NOTEBOOK = Path(__file__).parents[2] / "docs" / "first_fix.ipynb"
#: In the place of the notebook's own numbers, which take minutes.
BUDGET = {
    "model.finetune.records": 320,
    "model.finetune.epochs": 1,
    "data.limit": 300,
    "data.max_failures": 60,
    "data.max_passes": 100,
    "data.max_test_failures": 20,
    "data.max_test_passes": 40,
    "train.epochs": 1,
    "train.steps_per_epoch": 20,
    "train.validation_edits": 10,
    "test.passes_per_edit": 10,
}
_OFFLINE = """
import socket

def refuse(_socket, address):
    raise RuntimeError(f"tests never use a network: connection to {address!r} refused")

socket.socket.connect = socket.socket.connect_ex = refuse
"""


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(cell) -> str:
    return "".join(
        o.get("text", "") or o.get("data", {}).get("text/plain", "") for o in cell.outputs
    )


def test_it_is_valid(notebook) -> None:
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)


def test_its_first_cell_holds_numbers_that_can_be_replaced(notebook) -> None:
    first = code_of(notebook)[0]
    assert first.metadata["tags"] == ["parameters"]
    names = [node.targets[0].id for node in ast.parse(first.source).body]
    assert names == ["BUDGET", "THREADS"]


def test_its_outputs_are_of_one_whole_run_and_small(notebook) -> None:
    cells = code_of(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(o.output_type == "error" for cell in cells for o in cell.outputs)
    assert sum(len(outputs(cell)) for cell in cells) < 5_000
    home = str(Path.home())
    assert not any(home in outputs(cell) or "/tmp/" in outputs(cell) for cell in cells)


@pytest.mark.docs
def test_it_runs(notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, *rest = code_of(notebook)
    first.source = f"{_OFFLINE}\nBUDGET = {BUDGET!r}\nTHREADS = 1"
    monkeypatch.setenv("TMPDIR", str(tmp_path / "runs"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    for name in ("runs", "work"):
        (tmp_path / name).mkdir()
    where = {"metadata": {"path": str(tmp_path / "work")}}
    # Through sockets in the file system, not over TCP; their paths may not be long.
    with tempfile.TemporaryDirectory(dir="/tmp") as sockets:
        kernel = manager.AsyncKernelManager(
            kernel_name="python3", transport="ipc", ip=f"{sockets}/kernel"
        )
        nbclient.NotebookClient(notebook, timeout=150, km=kernel, resources=where).execute()
    assert not any(o.output_type == "error" for cell in rest for o in cell.outputs)
    last = outputs(code_of(notebook)[-1])
    assert last == "([('fix', False), ('undo', False)], [])"
    # What runs write lies below the temporary folder.
    assert not list((tmp_path / "work").iterdir())
    (made,) = (tmp_path / "runs").glob("first-fix-*")
    assert (made / "worldfacts" / "results.json").exists()
    shutil.rmtree(made)
