"""The contract of every registered editor on language models, each stack of every family.

Of presets on one of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import torch
from editing import FEW, asked_by, fresh, layer_of, numbers, pairs, prime, sites_of, train
from quick import quick
from tiny import untouched
from tiny_text import STACKED, build, run_whole, samples, task
from torch import Tensor

from saledit.cache.bank import BankSpec
from saledit.cache.opening import memory_bank
from saledit.data.conditions import conditions, embedded
from saledit.data.part_banks import open_banks
from saledit.data.splits import Part
from saledit.delta import Edits, LowRank
from saledit.delta.routed import Routed
from saledit.editors.base import Editor
from saledit.editors.looks import edits_for
from saledit.editors.request import Request
from saledit.editors.stepping import StepSearch
from saledit.editors.terms import aggregate
from saledit.errors import NoNumbersError
from saledit.files import read_tensors, write_tensors
from saledit.forward.rows import run_edits
from saledit.forward.scoring import logits_of
from saledit.models import TaskModel
from saledit.overlay import applied, merge
from saledit.records import Sample
from saledit.requests import damage, facts_of, hold, request_for
from saledit.session import EditSession
from saledit.tap import Tape

E, K, RANK = 2, 2, 4
QA = task()


class Case:
    """A tiny language model and E edits of K failures each; as ``editing.Case``."""

    def __init__(self, name: str, span: int = 1, rank: int = RANK) -> None:
        self.base, self.rank = build(name), rank
        self.layer = layer_of(self.base, span)
        self.failures = samples(E * K)
        spec = BankSpec(self.layer, rank=RANK, moments=True)
        self.bank = memory_bank(self.base, QA, self.failures, spec)
        self.index = torch.arange(E * K).view(E, K)
        self.rows = self.bank.rows(self.index.flatten())
        terms = aggregate(self.bank.factors(self.index), self.bank.losses[self.index], rank)
        self.gradients = terms.pairs

        self.name, self.others = name, samples(E * K + 4)[E * K :]
        held = hold(self.base, QA, self.others, self.layer)
        harm = damage(self.base, QA, self.bank.entry, held)
        told = conditions(self.base, QA, self.bank, self.failures)[self.index]
        own = [self.failures[e * K : e * K + K] for e in range(E)]
        facts = facts_of(self.base, QA, self.bank.entry, own)
        self.request = Request(
            self.gradients, self.losses, harm, lambda: embedded(self.base, told), facts,
            owners=terms.owners,
        )  # fmt: skip

    def losses(self, edits: Edits) -> Tensor:
        """Mean loss of each edit's own failures (E,)."""
        targets = self.bank.targets_of(self.index)
        outputs = run_edits(self.base, self.bank.entry, self.rows, edits)
        return QA.losses(self.base, QA.logits(self.base, outputs, targets), targets).mean(1)

    def session(
        self, editor: Editor, search: StepSearch | None = None, base: TaskModel | None = None
    ) -> EditSession:
        """A fresh session, on this model or another."""
        return EditSession(
            base or self.base, QA, editor, self.layer, RANK, self.rank, search, self.others
        )

    def editor(self, name: str, seed: int = 0) -> Editor:
        """A primed editor."""
        torch.manual_seed(seed)
        editor = fresh(name, self.base, self.layer)
        prime(editor, self.gradients, self.bank)
        return editor

    def train(self, editor: Editor, steps: int) -> list[float]:
        """As ``editing.train``, and ready for use."""
        seen = train(editor, self.request, steps)
        editor.eval()
        return seen


case_of = cache(Case)


@pytest.fixture(params=pairs(STACKED, ["gpt2"], of_presets="gpt2"))
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


@pytest.fixture
def case(pair: tuple[str, str]) -> Case:
    return case_of(pair[0], *asked_by(pair[1]))


@pytest.fixture
def name(pair: tuple[str, str]) -> str:
    return pair[1]


@pytest.mark.parametrize("pair", pairs(STACKED, ["gpt2"], "gpt2", every=True), indirect=True)
def test_training_mends_failures_and_leaves_the_base_alone(case: Case, name: str) -> None:
    with untouched(case.base.model):
        editor = case.editor(name)
        losses = case.train(editor, 12)
        edits = edits_for(editor, case.request).detach()
        final = case.losses(edits).mean().item()
    assert all(math.isfinite(loss) for loss in losses)
    if any(p.requires_grad for p in editor.parameters()):
        # A gate on the gradient of T5's tiny encoder leaves .976; all others lose more.
        assert final < (0.98 if name == "ke" else 0.95) * losses[0]
    assert final < case.bank.losses.mean()
    assert list(edits) == sites_of(editor, case.layer)
    assert edits.batch_shape == (E,)
    for site, delta in edits.items():
        assert isinstance(delta, Routed) or delta.dense().shape == (E, site.d_out, site.d_in)
        assert numbers(delta).isfinite().all()
        assert numbers(delta).flatten(1).any(1).all()


def test_same_seed_same_bytes(case: Case, name: str, tmp_path: Path) -> None:
    for run_name in ("a", "b"):
        editor = case.editor(name, seed=7)
        case.train(editor, 3)
        write_tensors(tmp_path / run_name, editor.state_dict())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@torch.no_grad()
def test_a_saved_editor_gives_the_same_logits(case: Case, name: str, tmp_path: Path) -> None:
    editor = case.editor(name)
    with torch.enable_grad():
        case.train(editor, 2)
    write_tensors(tmp_path / "editor", editor.state_dict())
    torch.manual_seed(99)
    loaded = fresh(name, case.base, case.layer)
    loaded.load_state_dict(read_tensors(tmp_path / "editor", "an editor"))
    loaded.eval()
    one, other = (
        logits_of(case.base, run_edits(case.base, case.bank.entry, case.rows, e(case.request)))
        for e in (editor, loaded)
    )
    assert torch.equal(one, other)


@contextmanager
def written(case: Case, edits: Edits) -> Iterator[TaskModel]:
    """A model with edits in its weights; those that are no matrices lie around it."""
    other = build(case.name)
    if edits.are_routed:
        with applied(other.model, edits):
            yield other
    else:
        merge(other.model, edits)
        yield other


@torch.no_grad()
def test_a_session_s_edits_pile_up(case: Case, name: str) -> None:
    """The second step is the one that a model with the first written into its weights is given."""
    editor = case.editor(name).eval()
    session = case.session(editor)
    first, second = case.failures[:K], case.failures[K:]
    with untouched(case.base.model):
        one = session.step(first)
        two = session.step(second)
    with written(case, one) as merged:
        wanted = case.session(editor, base=merged).step(second)
    encoded = QA.encode(case.base, case.failures)
    for site, delta in two.items():
        want = numbers(wanted[site])
        torch.testing.assert_close(
            numbers(delta), want, rtol=1e-3, atol=1e-3 * float(want.abs().max())
        )
    assert not torch.equal(
        run_whole(case.base, encoded, session.edits), run_whole(case.base, encoded, one)
    )


def test_a_session_takes_gradients_where_they_are_needed(
    case: Case, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor, taken = case.editor(name).eval(), []
    real = Tape.factors
    monkeypatch.setattr(
        Tape, "factors", lambda self, *a, **k: taken.append(1) or real(self, *a, **k)
    )
    case.session(editor).step(case.failures[:K])
    assert bool(taken) == editor.needs_gradients


def test_a_session_stops_where_the_model_gives_no_numbers(case: Case, name: str) -> None:
    """Before an editor makes anything of them, whether it takes gradients or not."""
    session = case.session(case.editor(name).eval())
    site = case.layer.sites[-1]
    broken = Edits(
        {site: LowRank(torch.full((1, site.d_in), torch.nan), torch.ones(1, site.d_out))}
    )
    session.go_on(broken, {})
    with pytest.raises(NoNumbersError, match=r"expected a loss of . that is a number"):
        session.step(case.failures[:K])


@pytest.mark.parametrize("pair", pairs(("gpt2", "t5"), ["gpt2"]), indirect=True)
@torch.no_grad()
def test_a_session_goes_as_far_as_its_failures_need(case: Case, name: str) -> None:
    """The length is the one that the whole edited model would choose, for every step anew."""
    editor, factors = case.editor(name).eval(), (0.25, 1.0, 4.0, 16.0)
    plain = case.session(editor)
    groups = (case.failures[:K], case.failures[K:])
    own = plain.step(groups[0])

    def loss(edits: Edits, failures: list[Sample]) -> float:
        encoded = QA.encode(case.base, failures)
        logits = run_whole(case.base, encoded, edits)[encoded.scored]
        return QA.answer_losses(case.base, logits, encoded.targets).mean().item()

    losses = [loss(own * factor, groups[0]) for factor in factors]
    enough = sorted(losses)[1] + 1e-4  # the second best length will do
    search = StepSearch(factors, enough)
    session = case.session(editor, search)
    with untouched(case.base.model):
        found = session.step(groups[0])
    want = factors[next(i for i, value in enumerate(losses) if value <= enough)]
    for site, delta in found.items():
        torch.testing.assert_close(
            numbers(delta), numbers((own * want)[site]), rtol=1e-3, atol=1e-6
        )

    # The second step is judged on top of the first.
    again = case.session(editor, search)
    again.step(groups[0])
    again._search = StepSearch()
    step = again.step(groups[1])
    session.step(groups[1])
    losses = [loss(found + step * factor, groups[1]) for factor in factors]
    mended = [i for i, value in enumerate(losses) if value <= enough]
    want = factors[mended[0] if mended else losses.index(min(losses))]
    for site, delta in session.edits.items():
        total = numbers((found + step * want)[site])
        torch.testing.assert_close(numbers(delta), total, rtol=1e-3, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("family", quick(FEW, STACKED))
def test_a_request_judges_whole_rows(family: str, tmp_path: Path) -> None:
    """Own failures and held samples as the whole model sees them: no prompt loses its end."""
    case = case_of(family)
    passing = samples(E * K + 3)[E * K :]
    part = Part(tuple(case.failures), ((),) * (E * K), tuple(passing))
    (banks,) = open_banks(case.base, QA, part, [BankSpec(case.layer, RANK)], tmp_path)
    batch = banks.batch(case.index, torch.arange(3).expand(E, 3), RANK)
    held = hold(case.base, QA, case.others, case.layer)
    request = request_for(case.base, QA, banks.fail.entry, batch, held)
    edits = case.editor("mend").eval()(request) * 20
    judged = zip(request.losses(edits), request.damage(edits), strict=True)
    for i, (loss, harm) in enumerate(judged):
        one = Edits({site: delta[i] for site, delta in edits.items()})
        encoded = QA.encode(case.base, [case.failures[int(n)] for n in case.index[i]])
        logits = run_whole(case.base, encoded, one)[encoded.scored]
        want = QA.answer_losses(case.base, logits, encoded.targets).mean()
        torch.testing.assert_close(loss, want, rtol=1e-4, atol=1e-4)
        # Mean over samples of the mean over their scored positions.
        encoded = QA.encode(case.base, case.others)
        old, new = (run_whole(case.base, encoded, e)[encoded.scored] for e in (Edits({}), one))
        kl = (old.softmax(-1) * (old.log_softmax(-1) - new.log_softmax(-1))).sum(-1)
        lengths = encoded.scored.sum(1).tolist()
        want = torch.stack([part.mean() for part in kl.split(lengths)]).mean()
        assert want > 1e-6
        torch.testing.assert_close(harm, want, rtol=1e-2, atol=1e-6)
