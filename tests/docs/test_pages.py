"""What the pages tell of is what the code has."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
import yaml
from editing import Case, E
from tiny import untouched

from saledit.editors.base import Editor
from saledit.editors.looks import edits_for
from saledit.errors import ConfigError
from saledit.registry import EDITORS, PICKERS, TASKS
from saledit.report.results import KEYS
from saledit.verbs import VERBS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS / "_ext"))

import generated  # noqa: E402


def text_of(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(EDITORS))
def test_every_editor_has_its_formula_and_source(name: str) -> None:
    page = text_of("editors.md")
    section = re.search(rf"^### `{name}`.*?(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)
    assert section, f"docs/editors.md has no section on {name}"
    assert re.search(r"^    \S", section.group(), re.MULTILINE), "no formula"
    # The plainest one is of no paper, and says so.
    assert re.search(r"(19|20)\d\d|from no paper", section.group()), "no source"


def test_every_preset_of_an_editor_is_told_of() -> None:
    page = text_of("editors.md")
    presets = (path.stem for path in (ROOT / "configs" / "editors").glob("*.yaml"))
    names = {re.sub(r"-(smollm2|gpt2-xl|gpt-j|llama-2-7b|llama-3-8b)$", "", p) for p in presets}
    assert not [name for name in sorted(names) if f"`{name}`" not in page]


def test_the_page_of_verbs_has_every_verb_and_argument() -> None:
    page = generated.filled(text_of("verbs.md"))
    assert "<!-- generated" not in page
    for name, verb in VERBS.items():
        section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        assert verb.summary[1:] in section
        for example in verb.examples:
            assert f"$ {example}" in section
        for argument in verb.arguments:
            shown = argument.name if argument.name[0] == "-" else argument.options["metavar"]
            assert f"| `{shown}" in section, (name, argument.name)


def test_other_parts_are_made() -> None:
    assert "`schedule.batch_size`" in generated.filled(text_of("configuration.md"))
    names = generated.registry()
    assert all(f"`{name}`" in names for table in (EDITORS, PICKERS, TASKS) for name in table)
    with pytest.raises(KeyError):
        generated.filled("<!-- generated: nothing -->")


def test_files_are_told_of_by_their_keys() -> None:
    page = text_of("formats.md")
    assert not [key for key in KEYS if f"`{key}`" not in page]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["data.md", "tasks.md", "editors.md", "getting-started.md"])
def test_blocks_of_data_can_be_read(page: str) -> None:
    for block in blocks(page, "yaml"):
        assert isinstance(yaml.safe_load(block), dict)
    for block in blocks(page, "json"):
        for line in block.splitlines():
            assert isinstance(json.loads(line), dict)


def test_the_page_on_extending_has_every_attribute_of_an_editor() -> None:
    page = text_of("extending.md")
    for name, value in vars(Editor).items():
        if isinstance(value, bool):
            assert f"| `{name}` | {value} |" in page, name


def test_the_editor_of_the_page_on_extending_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    source = next(block for block in blocks("extending.md", "python") if "(Editor)" in block)
    module = types.ModuleType("curvature")
    monkeypatch.setitem(sys.modules, "curvature", module)
    exec(compile(source, "docs/extending.md", "exec"), vars(module))
    case = Case("bert")
    torch.manual_seed(0)
    module.Curvature.check({"rate": 0.5})
    with pytest.raises(ConfigError, match=r"editor\.curvature\.rate: expected above 0, got -1\.0"):
        module.Curvature.check({"rate": -1.0})
    editor = module.Curvature(case.layer.sites)
    assert isinstance(editor, Editor)
    with untouched(case.base.model):
        losses = case.train(editor, 30)
        edits = edits_for(editor.eval(), case.request)
    assert case.losses(edits).mean() < 0.8 * losses[0]
    assert list(edits) == list(case.layer.sites)
    assert edits.batch_shape == (E,)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the repository, to be changed."""
    junk = shutil.ignore_patterns("__pycache__", "_build", "_bundled")
    for name in ("saledit", "configs", "docs", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=junk)
    for name in ("data", "pyproject.toml", "README.md"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def insert(path: Path, text: str, before: str) -> None:
    found = path.read_text(encoding="utf-8")
    assert found.count(before) == 1
    path.write_text(found.replace(before, text + before), encoding="utf-8")


@pytest.mark.long
def test_the_page_on_extending_is_enough(copy: Path) -> None:
    source, line, options, entry = blocks("extending.md", "python")
    (preset,), (section,) = blocks("extending.md", "yaml"), blocks("extending.md", "markdown")
    (copy / "saledit/editors/curvature.py").write_text(source, encoding="utf-8")
    (copy / "configs/editors/curvature.yaml").write_text(preset, encoding="utf-8")
    insert(copy / "saledit/registry.py", line, before='        "mend": ')
    insert(copy / "docs/editors.md", f"{section}\n", before="### `malmen`\n")
    config, head = (
        copy / "saledit/config/editors.py",
        "@dataclass(frozen=True)\nclass EditorConfig:\n",
    )
    insert(config, f"{options}\n\n", before=head)
    with config.open("a", encoding="utf-8") as stream:
        stream.write(entry.removeprefix(f"{head}    ...\n"))

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *words],
            cwd=copy, env={**os.environ, "PYTHONPATH": str(copy)}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    looking = [
        "editors/test_contract.py",
        "cli/test_configs.py",
        "docs/test_pages.py",
        "test_architecture.py",
    ]
    tests = call(
        "pytest", "-q", "-n0", "-p", "no:cacheprovider", "-k", "curvature or preset",
        *(f"tests/{name}" for name in looking),
    )  # fmt: skip
    assert tests.returncode == 0, tests.stdout[-3000:]
    assert int(re.findall(r"(\d+) passed", tests.stdout)[-1]) > 10, "the editor was found"
    for gate in (["check"], ["format", "--check"]):
        assert (done := call("ruff", *gate, "saledit")).returncode == 0, done.stdout
    rate = "editor.curvature.rate=-1"
    fit = call("saledit", "fit", "nli/quickstart", "editor.name=curvature", rate)
    assert "editor.curvature.rate: expected above 0, got -1.0" in fit.stderr
    assert fit.returncode == 2
