"""Rules about the code itself: size, direction of imports, forbidden calls, light imports."""

from __future__ import annotations

import ast
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "saledit"
MAX_LINES = 300

FORBIDDEN_CALLS = {"print", "eval", "exec"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
# file -> what it may use all the same
ALLOWED = {"cli.py": {"print"}}

HEAVY = {"torch", "lightning", "pytorch_lightning", "transformers", "datasets", "matplotlib"}


def sources() -> list[Path]:
    """Every Python file of the package."""
    return sorted(p for p in PACKAGE.rglob("*.py") if "__pycache__" not in p.parts)


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@pytest.fixture(params=sources(), ids=relative)
def source(request: pytest.FixtureRequest) -> Path:
    return request.param


def forbidden(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, name) of each forbidden call or import; methods (`model.eval()`) are fine."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in FORBIDDEN_CALLS:
                yield node.lineno, node.func.id
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            safe = {ast.unparse(k) for k in node.keywords}
            if "weights_only=True" not in safe:
                yield node.lineno, "torch.load without weights_only=True"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in FORBIDDEN_MODULES:
                    yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            module = "" if node.level else node.module or ""
            if module.split(".")[0] in FORBIDDEN_MODULES:
                yield node.lineno, module


def test_the_package_is_found():
    assert sources()


def test_file_is_short(source: Path):
    lines = len(source.read_text(encoding="utf-8").splitlines())
    assert lines < MAX_LINES, f"{relative(source)} has {lines} lines; split it below {MAX_LINES}"


def test_file_uses_nothing_forbidden(source: Path):
    allowed = ALLOWED.get(relative(source), set())
    tree = ast.parse(source.read_text(encoding="utf-8"))
    found = [
        f"{relative(source)}:{n}: {what}" for n, what in forbidden(tree) if what not in allowed
    ]
    assert not found, "\n".join(found)


def test_public_module_has_a_docstring(source: Path):
    if source.name.startswith("_") and source.name != "__init__.py":
        pytest.skip("private module")
    assert ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))), relative(source)


@pytest.mark.parametrize(
    "code",
    [
        "print(1)",
        "eval('1')",
        "exec('1')",
        "import pickle",
        "from pickle import loads",
        "import a, dill.x",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
    ],
)
def test_the_search_finds_what_is_forbidden(code: str):
    assert list(forbidden(ast.parse(code)))


@pytest.mark.parametrize("code", ["model.eval()", "'print(1)'", "torch.load(f, weights_only=True)"])
def test_the_search_leaves_the_rest_alone(code: str):
    assert not list(forbidden(ast.parse(code)))


def test_imports_point_one_way(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    cli = pytest.importorskip("importlinter.cli")
    monkeypatch.chdir(ROOT)
    status = cli.lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert status == cli.EXIT_STATUS_SUCCESS, capsys.readouterr().out


def test_the_page_on_the_parts_has_the_layers_in_their_order():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    order = [name for layer in layers for name in re.findall(r"\w+", layer) if name != "__main__"]
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    levels = [
        line.split("|")[2] for line in page.splitlines() if re.match(r"\| [a-z ]+ \| `", line)
    ]
    told = {name: i for i, level in enumerate(levels) for name in re.findall(r"`(\w+)/?`", level)}
    assert told.keys() == set(order)
    assert [told[name] for name in order] == sorted(told.values())


@pytest.mark.parametrize("module", ["saledit", "saledit.cli"])
def test_import_is_light(module: str):
    code = f"import sys, {module}; sys.exit(' '.join(sorted({HEAVY!r} & set(sys.modules))))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    # sys.exit("") is status 1 with an empty line; an import that fails leaves a traceback.
    assert not done.stderr.strip(), f"import {module} brings in: {done.stderr.strip()}"


def test_the_network_is_blocked():
    with pytest.raises(RuntimeError, match="never use a network"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock,
        pytest.raises(RuntimeError, match="never use a network"),
    ):
        sock.connect(("192.0.2.1", 9))


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no unix sockets here")
def test_unix_sockets_still_work(tmp_path: Path):
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client,
    ):
        server.bind(str(tmp_path / "s"))
        server.listen(1)
        client.connect(str(tmp_path / "s"))
