"""``editor.bound``: what an edit may cost, of each step of a sequence."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from editing import Case, K
from quick import quick
from whole_runs import ui

from saledit.artifact import load_editor
from saledit.building import check_editor
from saledit.cache.bank import BankSpec
from saledit.cache.opening import memory_bank
from saledit.config import EditorConfig, RunConfig
from saledit.editors.stepping import StepSearch
from saledit.errors import ConfigError
from saledit.forward.scoring import base_logits
from saledit.losses import locality_kl
from saledit.overlay import applied
from saledit.run import fit
from saledit.run import test as run_test
from saledit.run.setup.prepare import prepare
from saledit.session import EditSession
from saledit.tasks.nli import Nli


@pytest.mark.parametrize("bound", quick([0.002], [0.0, 0.002]))
def test_no_step_of_a_sequence_costs_more(bound: float, make: Callable[..., RunConfig]) -> None:
    config = make("bound", f"editor.bound={bound}", "editor.steps=[1.0,4.0]", "editor.enough=0.01")
    fit(config, False, ui())
    trained = load_editor(config.folder)
    prepared = prepare(config, ui())
    base, session = prepared.base, trained.session(prepared.base)
    held = trained.held or None
    assert (held is not None) == bool(bound)
    asked = prepared.task.encode(base, held or prepared.validation.passing)

    def logits() -> torch.Tensor:
        with torch.no_grad(), applied(base.model, session.edits):
            return base_logits(base, asked.inputs, asked.at)

    costs = []
    for failure in prepared.test.fail[:6]:
        before = logits()
        session.step([failure])
        costs.append(float(locality_kl(before, logits()).mean()))
    assert max(costs) > 1e-5
    if bound:
        assert max(costs) <= 1.01 * bound
    else:
        assert max(costs) > 0.004, "a bound that nothing comes near proves nothing"


@pytest.mark.long
def test_a_bound_may_be_set_for_a_test_alone(make: Callable[..., RunConfig]) -> None:
    config = make(
        "free", "schedule.cumulative=true", "editor.steps=[1.0,4.0]", "editor.enough=0.01"
    )
    fit(config, False, ui())
    free = run_test(str(config.folder), [], ui())["metrics"]
    bound = run_test(str(config.folder), ["editor.bound=1e-4"], ui())["metrics"]
    assert bound["locality_kl"] < 0.5 * free["locality_kl"]


def test_what_a_trained_editor_has_no_ear_for_is_refused(make: Callable[..., RunConfig]) -> None:
    config = make("deaf", "train.epochs=1")
    fit(config, False, ui())
    for setting in ("editor.mend.rank=3", "editor.name=ft", "editor.moments.tokens=7"):
        with pytest.raises(ConfigError, match=r"expected what the editor was trained with.*fit"):
            run_test(str(config.folder), [setting], ui())
    with pytest.raises(ConfigError, match=r"editor\.bound: expected 0 for enn"):
        check_editor(EditorConfig(name="enn", bound=0.1))


@torch.no_grad()
def test_what_an_edit_costs_is_counted_from_the_model_before_it() -> None:
    case = Case("bert")
    editor = case.editor("mend").eval()
    session = EditSession(
        case.base, Nli(), editor, case.layer, 4, 4, StepSearch((1.0,), 0.3, bound=1e9), case.others
    )
    first = session.step(case.failures[:K])
    session.go_on(first * 30.0, {})
    with applied(case.base.model, session.edits):
        bank = memory_bank(case.base, Nli(), case.failures[K : 2 * K], BankSpec(case.layer, rank=4))
    request = session._request(bank, case.failures[K : 2 * K])
    nothing = (first * 0.0).expand(1)
    assert float(request.damage(nothing)) < 1e-6
    assert float(request.damage((first * 30.0).expand(1))) > 1e-3
