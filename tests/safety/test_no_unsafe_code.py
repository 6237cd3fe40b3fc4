"""No call that could run what a file says, and no file opened beside the checked readers."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "saledit"
SOURCES = sorted(p for p in PACKAGE.rglob("*.py") if "__pycache__" not in p.parts)

MODULES = {
    *("pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "runpy", "code"),
    *("xml", "tarfile", "imp", "ctypes"),
}
CALLS = {
    *("eval", "exec", "compile", "__import__", "input", "open"),
    *("torch.save", "torch.hub.load", "torch.jit.load", "torch.serialization.add_safe_globals"),
    *("np.load", "numpy.load", "pd.read_pickle", "pandas.read_pickle", "os.system", "os.popen"),
    *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "yaml.unsafe_load_all"),
    *("OmegaConf.load", "OmegaConf.register_new_resolver", "OmegaConf.register_resolver"),
    *("OmegaConf.unsafe_merge", "hydra.utils.instantiate", "tempfile.mktemp"),
}
METHODS = {"read_text", "read_bytes", "extractall", "load_from_checkpoint", "allow_pickle"}
#: file -> what it does all the same, safely.
ALLOWED = {
    "files/reading.py": {".open"},  # os.open, with all that it has to be held to
    "files/writing.py": {".open"},
    "export/settling.py": {".open"},  # to sync what it wrote itself
    "models/heap.py": {"ctypes"},  # of the C library's own allocator
    "cache/room.py": {".read_bytes"},  # of the system's own count
    "report/plots.py": {".open"},  # to write
    "run/peaks.py": {".open"},  # of what the system tells of this process
    "report/page/render.py": {".read_text"},  # of the package's own files
    "cli.py": {".open"},  # of the null device
    "registry.py": {"import_module"},  # of a closed table
    "lazy.py": {"import_module"},  # of the package's own modules, from a table beside the names
    # weights_only, behind a check of its packing; what it saves is Lightning's own format
    "run/resuming.py": {"torch.load", "torch.save"},
    "models/checking.py": {"json.loads"},  # as leniently as transformers, of bounded bytes
    "models/fingerprints.py": {"json.loads"},  # of what the tokenizer has just said
    "data/spool.py": {"json.loads"},  # of what this process has written into a file without a name
    "cache/blocksums.py": {"json.loads"},  # of sealed metadata
    "files/values.py": {"json.loads"},
}
# Names that hold the weights of others: each call has to say what it does not do.
LOADERS = {"from_pretrained": "trust_remote_code", "from_config": "trust_remote_code"}


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def unsafe(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, what) of everything that a file of the package may not do."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                names = [] if node.level else [node.module or ""]
            for name in names:
                if name.split(".")[0] in MODULES:
                    yield node.lineno, name
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        last = name.rpartition(".")[2]
        given = {ast.unparse(k) for k in node.keywords}
        if name in CALLS or (last in METHODS and name != "read_text" and "." in name):
            yield node.lineno, name if name in CALLS else f".{last}"
        if last == "open" and name != "open":
            yield node.lineno, ".open"
        if last == "import_module":
            yield node.lineno, "import_module"
        if name in ("torch.load", "json.load", "json.loads"):
            yield node.lineno, name
        if name == "torch.load" and "weights_only=True" not in given:
            yield node.lineno, "torch.load without weights_only=True"
        if "trust_remote_code=True" in given or "allow_pickle=True" in given:
            yield node.lineno, "trust_remote_code=True"
        if last in LOADERS and not given & {"trust_remote_code=False", "**SAFE", "**file",
                                            "**options"}:  # fmt: skip
            yield node.lineno, f"{last} without trust_remote_code=False"
        if name == "subprocess.Popen" and any("shell" in text for text in given):
            yield node.lineno, "a shell"


@pytest.mark.parametrize("source", SOURCES, ids=relative)
def test_a_file_does_nothing_unsafe(source: Path) -> None:
    allowed = ALLOWED.get(relative(source), set())
    tree = ast.parse(source.read_text(encoding="utf-8"))
    found = [f"{relative(source)}:{n}: {what}" for n, what in unsafe(tree) if what not in allowed]
    assert not found, "; ".join(found)


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from dill import x", "import a, marshal", "eval('1')", "exec('1')",
        "__import__('os')", "compile('1', '', 'eval')", "open('a')", "path.open()",
        "path.read_text()", "path.read_bytes()", "yaml.load(x)", "yaml.unsafe_load(x)",
        "torch.load(x)", "torch.load(x, weights_only=False)", "torch.save(x, y)", "np.load(x)",
        "json.loads(x)", "json.load(x)", "importlib.import_module(x)", "os.system(x)",
        "A.from_pretrained(x)", "A.from_pretrained(x, trust_remote_code=True)", "a.extractall()",
        "A.load_from_checkpoint(x)", "OmegaConf.register_new_resolver('a', f)",
        "subprocess.Popen(x, shell=True)", "input()",
    ],
)  # fmt: skip
def test_the_search_finds_what_is_unsafe(code: str) -> None:
    assert list(unsafe(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    ["model.eval()", "yaml.safe_dump(x)", "read_text(path)", "A.from_pretrained(x, **SAFE)",
     "files.read_json(path, 'it')", "re.compile(x)", "from saledit.codes import x"],
)  # fmt: skip
def test_the_search_leaves_the_rest_alone(code: str) -> None:
    assert not list(unsafe(ast.parse(code)))
