"""``saledit quickstart``, the first command that a newcomer types, on a tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from shown import flat, shown
from whole_runs import check_answers, ui

from saledit import config as configuration
from saledit.artifact import load_editor
from saledit.config import RunConfig
from saledit.errors import ConfigError
from saledit.files import write_text
from saledit.ledger import EditFolder
from saledit.report.story import _FILES
from saledit.run import quickstart, story


@pytest.fixture
def tiny_story(
    make: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> RunConfig:
    """A configuration of seconds in the place of the bundled one."""
    picked = ("site.select=trial-step", "site.layer=-1", "site.samples=6")
    config = make("story", *picked, "train.epochs=1", "schedule.batch_size=3")
    path = tmp_path / "tiny.yaml"
    path.write_text(configuration.to_yaml(config), encoding="utf-8")
    monkeypatch.setattr(story, "_CONFIGS", {"nli": str(path)})
    return config


def test_the_story_is_told_and_its_files_are_there(tiny_story: RunConfig, tmp_path: Path) -> None:
    out = tmp_path / "out"
    old = out / tiny_story.name / "fixed" / "old"
    write_text(old, "of the story as it was told before")
    told = quickstart(str(out), "nli", ui())
    folder = Path(told["fit"]["run"])
    assert folder == out / tiny_story.name
    assert not old.exists()
    for name, _ in _FILES:
        assert (folder / name).exists(), name
    assert json.loads((folder / "results.json").read_text(encoding="utf-8")) == told["test"]
    check_answers(folder / "answers.jsonl", told["test"])
    assert load_editor(folder).layer.index == told["fit"]["saliency"]["pick"]
    fixed = told["fix"]
    given = (folder / "failures.jsonl").read_text(encoding="utf-8").splitlines()
    assert 0 < len(given) == fixed["n_failures"] == fixed["n_wrong_before"] <= 10
    assert len({json.loads(line)["hypothesis"] for line in given}) == len(given)
    assert len(EditFolder.read(folder / "fixed").in_force) == 1

    page = flat(shown("quickstart", told))
    counts, metrics = told["test"]["counts"], told["test"]["metrics"]
    for part in (
        f"{counts['fail']} of its failures were kept apart for the test",
        f"{fixed['n_fixed']} of {len(given)} are fixed. Of {fixed['check']['n']} other answers",
        f"Layer {told['fit']['layer']} (of 0 to 2, from the input up) was edited",
        f"Edit accuracy {metrics['edit_accuracy']:.1%} (unedited ",
        *(f"{name} {what}" for name, what in _FILES),
    ):
        assert part in page
    for command in told["next"]:
        assert command in page


def test_a_story_of_another_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="--task: unknown name 'nil'; did you mean 'nli'"):
        quickstart(None, "nil", ui())


def test_the_stories_are_bundled() -> None:
    for name in story._CONFIGS.values():
        configuration.load(name)
