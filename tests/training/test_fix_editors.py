"""``fix`` with every kind of editor: it mends, fixes add up, and are taken back to the bit.

SaLEM's editor and ENN are those of ``test_fix`` and ``test_fix_again``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from quick import quick
from tiny import encode, samples
from whole_runs import ANY, rows, ui

from saledit.artifact import EDITS_WEIGHTS, load_editor, load_edits
from saledit.config import RunConfig
from saledit.delta import Edits
from saledit.files import write_jsonl
from saledit.forward.scoring import base_logits
from saledit.ledger import EditFolder
from saledit.models import TaskModel, load_classifier
from saledit.overlay import applied
from saledit.records import Sample
from saledit.run import fit, fix, log, undo
from saledit.run.fixes.making import Making

# Steps that mend are wanted, whatever they cost: a tiny model has little to be preserved.
FREE = ("loss.locality=0.1", "train.epochs=1", "train.edits_per_step=2", "train.validation_edits=2")
#: Presets, and what makes them quick or strong.
OWN = {
    "step": "editor.step.bound=10",
    "ft": "editor.ft.steps=10",
    "ft-kl": "editor.ft.steps=10",
    "lora-ft": "editor.ft.steps=10",
    "ke": "editor.ke.lstm=8",
    "malmen": "editor.gradient_rank=0",  # its own, which small runs set to another
    "memoe": "editor.memoe.rate=0.02",
}


def failing(base: TaskModel, edits: Edits, seed: int) -> list[dict]:
    """Records that a model gets wrong, as edited."""
    with applied(base.model, edits):
        made = rows(base, samples(3, seed=seed), wrong_share=1.0)
    return [{k: v for k, v in row.items() if k != "paraphrases"} for row in made]


@pytest.mark.parametrize("preset", quick(["ft", "ke"], [*OWN]))
def test_fixes_of_every_editor(
    preset: str, make: Callable[..., RunConfig], home: Path, tmp_path: Path
) -> None:
    config = make(preset, *FREE, OWN[preset], presets=[f"editors/{preset}"])
    fit(config, False, ui())
    base = load_classifier(str(home / "model"))
    out, edits, found, written = tmp_path / "fixed", Edits({}), [], []
    for seed in (7, 11):
        write_jsonl(tmp_path / "f.jsonl", failing(base, edits, seed))
        found.append(fix(str(config.folder), str(tmp_path / "f.jsonl"), str(out), ANY, ui()))
        edits = load_edits(out, base.model)
        written.append((out / EDITS_WEIGHTS).read_bytes())
    assert [fixed["n_wrong_before"] for fixed in found] == [3, 3]
    assert found[0]["n_fixed"]
    # What is written does to the whole model what the result says.
    asked = [Sample(r["id"], tuple(r["inputs"]), r["target"]) for r in found[1]["rows"]]
    with applied(base.model, edits):
        best = base_logits(base, encode(base, asked)).argmax(-1).tolist()
    after = [base.model.config.id2label[i] for i in best]
    assert after == [row["after"] for row in found[1]["rows"]]
    entries = log(str(out), ui())["entries"]
    assert [e["metrics"]["n_fixed"] for e in entries] == [f["n_fixed"] for f in found]
    undo(str(out), None, ui())
    assert (out / EDITS_WEIGHTS).read_bytes() == written[0]
    undo(str(out), None, ui())
    assert not EditFolder.read(out).edits


@pytest.mark.long
def test_no_term_of_an_edit_is_cut(
    make: Callable[..., RunConfig], home: Path, tmp_path: Path
) -> None:
    """An edit of more terms than the gradient that it was made of is written as it was made."""
    few = ("editor.gradient_rank=2", "editor.ft.rank=8", "editor.ft.steps=10")
    config = make("lora", *FREE, *few, presets=["editors/lora-ft"])
    fit(config, False, ui())
    base, out = load_classifier(str(home / "model")), tmp_path / "fixed"
    wrong = failing(base, Edits({}), 7)[:1]
    write_jsonl(tmp_path / "f.jsonl", wrong)
    fix(str(config.folder), str(tmp_path / "f.jsonl"), str(out), ANY, ui())
    trained = load_editor(config.folder)
    (row,) = wrong
    told = Sample(row["id"], (row["premise"], row["hypothesis"]), row["label"])
    made = trained.session(base).step([told])
    written = load_edits(out, base.model)
    for site, delta in made.items():
        torch.testing.assert_close(
            written[site].dense(), delta.dense(), rtol=1e-4, atol=1e-6, msg=site.name
        )


def test_nothing_is_remembered_of_edits_that_were_left_out() -> None:
    """Rows of each group, as AlphaEdit's keys are; a part is made once more."""

    class Session:
        def __init__(self) -> None:
            self.state: Any = (Edits({}), {"keys": torch.tensor([[100.0]])})

        def go_on(self, *state: Any) -> None:
            self.state = state

        def step(self, group: list[int]) -> Edits:
            own = torch.tensor(group, dtype=torch.float)[:, None]
            self.state = (Edits({}), {"keys": torch.cat([self.state[1]["keys"], own])})
            return Edits({})

    session: Any = Session()
    failures: Any = [1, 2, 4, 8, 16]
    begun = session.state
    making = Making(session, failures, 2, 3)
    assert len(making.steps(ui())) == 3
    assert making.memory(begun, range(3))["keys"][:, 0].tolist() == [1, 2, 4, 8, 16]
    assert making.memory(begun, [0, 2])["keys"][:, 0].tolist() == [1, 2, 16]
    assert not making.memory(begun, [])
