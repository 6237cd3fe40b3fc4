"""Edits in several looks: gradients of models under edits, and what is stepped from them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_text
import torch
from editing import fresh, numbers, prime
from hypothesis import given
from hypothesis import strategies as st
from quick import quick
from tiny_text import STACKED
from torch import Tensor

from saledit.cache.bank import BankSpec
from saledit.cache.opening import memory_bank
from saledit.config import load
from saledit.data.episodes import EditBatch
from saledit.data.part_banks import open_banks
from saledit.data.splits import Part
from saledit.delta import Edits, LowRank
from saledit.editors.base import Editor
from saledit.editors.looks import edits_for, edits_of_look, steps_for, turn
from saledit.editors.request import Request
from saledit.editors.step import Step
from saledit.editors.stepping import StepSearch
from saledit.editors.terms import aggregate
from saledit.errors import ConfigError
from saledit.models import TaskModel
from saledit.moments import whitened
from saledit.overlay import applied
from saledit.records import Sample
from saledit.requests import hold, request_for
from saledit.session import EditSession
from saledit.site import Layer, Site
from saledit.tasks.answering import answers
from saledit.tasks.base import Task
from saledit.tasks.nli import Nli

E, K, SAMPLE, RANK = 3, 2, 3, 4


class Case:
    """A tiny model and a batch of E edits of K failures each, as training and tests have it."""

    def __init__(self, family: str, layer: Layer, base: TaskModel, task: Task, folder: Path):
        self.base, self.task, self.layer = base, task, layer
        made = tiny_text.samples(E * K + 4) if task.generates else tiny.samples(E * K + 4)
        self.failures, self.others = made[: E * K], made[E * K :]
        part = Part(tuple(self.failures), ((),) * (E * K), tuple(self.others))
        spec = BankSpec(layer, SAMPLE)
        (self.banks,) = open_banks(base, task, part, [spec], folder, texts=True)
        self.held = hold(base, task, self.others, layer)
        self.batch = self._batch()
        self.request = self.asked(self.batch)

    def _batch(self) -> EditBatch:
        index = torch.arange(E * K).view(E, K)
        return self.banks.batch(index, torch.arange(2).expand(E, 2), RANK)

    def asked(self, batch: EditBatch) -> Request:
        """A batch's request."""
        return request_for(self.base, self.task, self.banks.fail.entry, batch, self.held)

    def own(self, i: int) -> list[Sample]:
        """The failures of one edit."""
        return self.failures[i * K : i * K + K]

    def editor(self, name: str) -> Editor:
        """A primed editor."""
        torch.manual_seed(0)
        editor = fresh(name, self.base, self.layer)
        spec = BankSpec(self.layer, moments=True)
        bank = memory_bank(self.base, self.task, self.others, spec)
        prime(editor, self.batch.terms.pairs, bank)
        return editor.eval()

    def session(self, editor: Editor, search: StepSearch | None = None) -> EditSession:
        """A fresh session."""
        return EditSession(
            self.base, self.task, editor, self.layer, SAMPLE, RANK, search, self.others
        )


def some_edits(sites: tuple[Site, ...], size: float) -> Edits:
    """Random edits (E,) whose sizes are not alike."""
    torch.manual_seed(1)
    deltas = {}
    for site in sites:
        u, v = torch.randn(E, 2, site.d_in), torch.randn(E, 2, site.d_out)
        deltas[site] = LowRank(u, v * size / (site.d_in * site.d_out) ** 0.5)
    return Edits(deltas) * torch.linspace(0.5, 1.5, E)


def one(edits: Edits, i: int) -> Edits:
    """One of a batch."""
    return edits.map(lambda part: part[i])


#: The layer of a few blocks, by its index and how many there are.
LAYERS = {"middle": (1, 1), "last": (2, 1), "two": (2, 2)}


@pytest.fixture(scope="module")
def case_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Case]:
    @cache
    def made(family: str, kind: str, which: str = "middle", maps: str = "") -> Case:
        text = kind == "text"
        base = tiny_text.build(family) if text else tiny.build(family)
        index, span = LAYERS[which]
        layer = base.layer(index, [maps] if maps else (), span)
        folder = tmp_path_factory.mktemp("banks")
        return Case(family, layer, base, tiny_text.task() if text else Nli(), folder)

    return made


EVERY = quick(
    ["bert-classifier", "gpt2-text", "llama-text", "t5-text", "bart/encoder-text"],
    {f"{family}-classifier": (family, "classifier") for family in tiny.FAMILIES}
    | {f"{family}-text": (family, "text") for family in STACKED},
)


@pytest.mark.parametrize("which", LAYERS)
@pytest.mark.parametrize(("family", "kind"), EVERY)
def test_gradients_under_edits_are_those_of_a_model_that_has_them(
    case_of: Callable[..., Case], family: str, kind: str, which: str
) -> None:
    case = case_of(family, kind, which)
    assert_gradients(case)


@pytest.mark.parametrize(
    ("family", "kind", "maps"),
    [
        ("bert", "classifier", "attention.self.query"),
        ("llama", "classifier", "self_attn.v_proj"),
        ("gpt2", "text", "attn.c_attn"),
        ("t5", "text", "layer.0.SelfAttention.v"),
        ("t5", "text", "layer.1.EncDecAttention.k"),  # reads the prompt, not the answer
        ("bart", "text", "encoder_attn.v_proj"),
    ],
)
def test_gradients_at_attention(
    case_of: Callable[..., Case], family: str, kind: str, maps: str
) -> None:
    assert_gradients(case_of(family, kind, "last", maps))


def test_gradients_of_a_decoder_that_is_told_how_to_begin(tmp_path: Path) -> None:
    """What is forced on it is read, though nothing is scored there."""
    base = tiny_text.build("bart")
    base.model.generation_config.forced_bos_token_id = tiny_text.BOS
    case = Case("bart", base.layer(1), base, tiny_text.task(), tmp_path)
    assert (case.batch.targets[..., 0] == -100).all(), "nothing is forced"
    assert_gradients(case)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_autocast_has_no_part_in_gradients(case_of: Callable[..., Case], family: str) -> None:
    case = case_of(family, "classifier")
    edits, every = some_edits(case.layer.sites, 1.0), torch.arange(E)
    plain = case.request.again(case.layer.sites, edits, every)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = case.request.again(case.layer.sites, edits, every)
    for a, b in zip(plain.gradients, mixed.gradients, strict=True):
        assert torch.equal(a.u, b.u)
        assert torch.equal(a.v, b.v)


def test_what_gives_no_numbers_has_no_gradient(case_of: Callable[..., Case]) -> None:
    """Nor do the others suffer from it."""
    case = case_of("bert", "classifier")
    edits, every = some_edits(case.layer.sites, 1.0), torch.arange(E)
    broken = edits * torch.tensor([1.0, torch.nan, 1.0])
    seen = case.request.again(case.layer.sites, broken, every)
    plain = case.request.again(case.layer.sites, edits, every)
    for got, want in zip(seen.gradients, plain.gradients, strict=True):
        assert not got.v[1].any()
        assert_same(got.dense()[[0, 2]], want.dense()[[0, 2]])


def assert_gradients(case: Case) -> None:
    edits, index = some_edits(case.layer.sites, 1.0), torch.tensor([2, 0, 1])
    some = edits.map(lambda part: part[index])
    seen = case.request.again(case.layer.sites, some, index)
    plain = case.request.again(case.layer.sites, some * 0, index)
    for at, i in enumerate(index.tolist()):
        with applied(case.base.model, one(edits, i)):
            bank = memory_bank(case.base, case.task, case.own(i), BankSpec(case.layer, SAMPLE))
        every = torch.arange(K)[None]
        wanted = aggregate(bank.factors(every), bank.losses_of(every), RANK).pairs
        for got, bare, want in zip(seen.gradients, plain.gradients, wanted, strict=True):
            assert_same(got.dense()[at], want.dense()[0])
            assert_same(got.u[at], want.u[0])  # in each term, and its sign
            assert not torch.allclose(got.dense(), bare.dense())
    for got, bare in zip(plain.gradients, case.batch.terms.pairs, strict=True):
        assert_same(got.dense(), bare.dense()[index])
        assert_same(got.u, bare.u[index])


def assert_same(mine: Tensor, want: Tensor, rtol: float = 1e-3) -> None:
    torch.testing.assert_close(mine, want, rtol=rtol, atol=rtol * float(want.abs().max()))


def test_rows_may_be_gone_through_in_parts(
    case_of: Callable[..., Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = case_of("bert", "classifier")
    edits, every = some_edits(case.layer.sites, 1.0), torch.arange(E)
    whole = case.request.again(case.layer.sites, edits, every)
    monkeypatch.setattr(type(case.base), "pass_tokens", 1)  # a failure of each edit at a time
    parts = case.request.again(case.layer.sites, edits, every)
    for a, b in zip(whole.gradients, parts.gradients, strict=True):
        assert_same(a.dense(), b.dense(), 1e-5)


@torch.no_grad()
def test_logits_of_an_edit_s_rows_need_not_be_there_at_once(
    case_of: Callable[..., Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither those of its failures, nor those of the pass samples beside the editor."""
    case = case_of("gpt2", "text")
    edits, sizes = some_edits(case.layer.sites, 1.0), list[int]()
    real = TaskModel.project

    def noted(self: TaskModel, x: Tensor, *rest: Any) -> Tensor:
        sizes.append(len(x))
        return real(self, x, *rest)

    monkeypatch.setattr(TaskModel, "project", noted)
    whole = [case.request.losses(edits), case.request.damage(edits)]
    most = max(sizes)
    sizes.clear()
    monkeypatch.setattr("saledit.models.base._LOGITS", 12 * case.base.vocabulary)
    parts = [case.request.losses(edits), case.request.damage(edits)]
    assert max(sizes) <= 12 < most
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)


def test_again_is_of_the_same_failures(case_of: Callable[..., Case]) -> None:
    """Losses, damage and conditions of some edits are those of the whole batch."""
    case = case_of("gpt2", "text")
    edits, index = some_edits(case.layer.sites, 1.0), torch.tensor([2, 1])
    some = edits.map(lambda part: part[index])
    seen = case.request.again(case.layer.sites, some, index)
    for measure in ("losses", "damage"):
        all_, own = getattr(case.request, measure)(edits), getattr(seen, measure)(some)
        torch.testing.assert_close(own, all_[index])
        # On top of edits that are made already both are counted together with them.
        mine = getattr(seen.on_top(some), measure)(some * 0.5)
        torch.testing.assert_close(mine, getattr(case.request, measure)(edits * 1.5)[index])
    for mine, all_ in zip(seen.condition(), case.request.condition(), strict=True):
        assert torch.equal(mine, all_[index])
    last = some.map(lambda part: part[1:])
    twice = seen.on_top(some).again(case.layer.sites, last * 0.5, torch.tensor([1]))
    want = case.request.again(case.layer.sites, edits.map(lambda part: part[1:2]) * 1.5, index[1:])
    for mine, other in zip(twice.gradients, want.gradients, strict=True):
        assert_same(mine.dense(), other.dense())
    torch.testing.assert_close(
        twice.losses(last * 0.5),
        case.request.losses(edits * 1.5)[1:2],
    )


NAMES = ("mend", "malmen", "ke")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("family", "kind"), [("bert", "classifier"), ("llama", "text")])
@torch.no_grad()
def test_a_look_is_a_step_of_the_model_as_it_is_by_then(
    case_of: Callable[..., Case], family: str, kind: str, name: str
) -> None:
    """What two looks make is what a session makes in two steps of the same failures."""
    case = case_of(family, kind)
    editor = small(case.editor(name))
    search = StepSearch(enough=1e-9, looks=2)
    together = steps_for(editor, case.request, search)
    first = steps_for(editor, case.request)
    judged = case.request.losses(editor.resident.expand(E) + first)
    changed = False
    for i in range(E):
        plain = case.session(editor)
        plain.step(case.own(i))
        plain.step(case.own(i))
        at_once = case.session(editor, search)
        at_once.step(case.own(i))
        left = case.request.losses((editor.resident + plain._steps).expand(E))[i]
        worse = left >= judged[i]
        changed |= not bool(worse)
        for site in case.layer.sites:
            want = one(first, i)[site].dense() if worse else plain._steps[site].dense()
            tolerance = 2e-2 if name == "ke" else 2e-3
            assert_same(numbers(one(together, i)[site]), want, tolerance)
            assert_same(numbers(at_once._steps[site]), want, tolerance)
    assert changed


def small(editor: Editor) -> Editor:
    """So that one look does not mend all."""
    editor.scale_rate(0.1)
    return editor


@torch.no_grad()
def test_what_looks_may_cost_is_counted_together(case_of: Callable[..., Case]) -> None:
    case, bound = case_of("bert", "classifier"), 1e-3
    editor = Step(case.layer.sites, whiten=0, bound=bound, enough=1e-9)
    first = steps_for(editor, case.request)
    twice = steps_for(editor, case.request, StepSearch(enough=1e-9, looks=2))
    assert (case.request.damage(first) > bound / 2).all()  # nearly as far as it may
    assert (case.request.damage(twice) <= bound * (1 + 1e-3)).all()
    mend = small(case.editor("mend"))
    free, bounded = (
        steps_for(mend, case.request, StepSearch(enough=1e-9, looks=3, bound=b)) for b in (0, 1e-6)
    )
    assert (case.request.damage(free) > 1e-6).all()
    assert (case.request.damage(bounded) <= 1e-6 * (1 + 1e-2)).all()


@torch.no_grad()
def test_what_is_mended_is_left_alone_and_nothing_gets_worse(
    case_of: Callable[..., Case],
) -> None:
    case = case_of("bert", "classifier")
    editor = small(case.editor("mend"))
    first = steps_for(editor, case.request)
    losses = case.request.losses(first)
    middle = float(losses.sort().values[1])
    edits = steps_for(editor, case.request, StepSearch(enough=middle, looks=2))
    after = case.request.losses(edits)
    done = losses <= middle
    assert 0 < done.sum() < E
    for site in case.layer.sites:
        assert_same(edits[site].dense()[done], first[site].dense()[done], 1e-6)
        assert not torch.allclose(edits[site].dense()[~done], first[site].dense()[~done])
    assert (after[~done] < losses[~done]).all()
    # A look that would make it worse is not made, nor is any after it.
    editor.scale_rate(1e4)
    wild = steps_for(editor, case.request)
    found = steps_for(editor, case.request, StepSearch(enough=1e-9, looks=4))
    assert (case.request.losses(found) <= case.request.losses(wild) + 1e-6).all()


@torch.no_grad()
def test_a_session_leaves_alone_what_its_steps_have_mended(case_of: Callable[..., Case]) -> None:
    """A trained editor's step is as long for a failure that is right by now."""
    case = case_of("bert", "classifier")
    editor = case.editor("mend")
    session = case.session(editor, StepSearch(enough=1e9))
    tiny_step = session.step(case.own(0)) * 1e-9
    said = answers(case.base, case.task, case.own(1))
    right = [replace(s, target=a.text) for s, a in zip(case.own(1), said, strict=True)]
    wrong = [
        replace(s, target=next(label for label in tiny.LABELS if label != a.text))
        for s, a in zip(case.own(1), said, strict=True)
    ]
    for failures, enough, is_made in (
        (right, 1e9, False),
        (wrong, 1e9, True),
        ([*right[:-1], *wrong[-1:]], 1e9, True),  # one that is not mended takes the others along
        (right, 1e-9, True),
    ):
        session = case.session(editor, StepSearch(enough=enough))
        session.go_on(tiny_step, {})
        before = session.edits
        step = session.step(failures)
        assert bool(len(step)) == is_made
        for site, delta in session.edits.items():
            assert torch.equal(delta.dense(), before[site].dense()) != is_made
    # Without a step before it there is nothing that could have mended them.
    assert len(case.session(editor, StepSearch(enough=1e9)).step(right))


@torch.no_grad()
def test_a_text_is_mended_where_it_is_said_to_its_end(case_of: Callable[..., Case]) -> None:
    """By the loss of the whole answer, and not where the model says more than the answer."""
    case = case_of("gpt2", "text")
    editor, task = case.editor("mend"), case.task
    tiny_step = case.session(editor, StepSearch(enough=1e9)).step(case.own(0)) * 1e-9
    samples = tiny_text.samples(60)
    with applied(case.base.model, tiny_step):
        said = answers(case.base, task, samples)
    found = [(s, a) for s, a in zip(samples, said, strict=True) if a.text]
    asked, cut = ([(s, a) for s, a in found if a.ended is ended][:3] for ended in (True, False))
    assert asked
    assert cut

    def is_left(sample: Sample, target: str, enough: float) -> bool:
        session = case.session(editor, StepSearch(enough=enough))
        session.go_on(tiny_step, {})
        return not session.step([replace(sample, target=target, accepted=(target,))])

    for sample, answer in asked:
        assert is_left(sample, answer.text, 1e9)
        right = [replace(sample, target=answer.text)]
        encoded = task.encode(case.base, right)
        bank = memory_bank(case.base, task, right, BankSpec(case.layer))
        logits = task.logits(case.base, bank.outputs(torch.arange(1)), encoded.targets)
        whole = float(task.answer_losses(case.base, logits, encoded.targets))
        assert is_left(sample, answer.text, whole + 1e-2)
        assert not is_left(sample, answer.text, whole - 1e-2)
    for sample, answer in cut:
        assert not is_left(sample, answer.text, 1e9)


@pytest.mark.parametrize("name", ["mend", "step"])
@torch.no_grad()
def test_inputs_are_whitened_at_their_own_precision(
    case_of: Callable[..., Case], name: str
) -> None:
    case = case_of("bert", "classifier")
    editor = case.editor(name)

    def found() -> list[Tensor]:
        pairs = enumerate(case.batch.terms.pairs)
        return [whitened(pair.u, getattr(editor, f"whitener_{i}")) for i, pair in pairs]

    whole = found()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = found()
    assert not torch.equal(whole[0], case.batch.terms.pairs[0].u)
    for one_, other in zip(whole, mixed, strict=True):
        assert torch.equal(one_, other)


@torch.no_grad()
def test_looks_end_where_all_is_mended(case_of: Callable[..., Case]) -> None:
    case = case_of("bert", "classifier")

    def never(*_args: object) -> Request:
        raise AssertionError("asked")

    editor, request = case.editor("mend"), replace(case.request, again=never)
    found = steps_for(editor, request, StepSearch(enough=1e9, looks=5))
    for site, delta in steps_for(editor, request).items():
        assert torch.equal(found[site].dense(), delta.dense())
    broken = replace(request, losses=lambda edits: torch.full((E,), torch.nan))
    steps_for(editor, broken, StepSearch(looks=3))  # what gives no numbers is not looked at


@pytest.mark.parametrize("name", ["enn", "ft", "memoe", "locate"])
def test_an_editor_that_looks_by_itself_has_one_look(
    case_of: Callable[..., Case], name: str
) -> None:
    """Whatever is set for those beside it in a comparison; also where it is trained."""
    case, often = case_of("bert", "classifier"), StepSearch(enough=1e-9, looks=3)
    editor = case.editor(name)
    wanted = steps_for(editor, case.request)
    assert_edits(steps_for(editor, case.request, often), wanted)
    assert_edits(edits_of_look(editor, case.request, 2) + editor.resident * -1.0, wanted)


@pytest.mark.parametrize("name", ["mend", "ke"])
def test_training_is_on_one_look_from_what_those_before_have_left(
    case_of: Callable[..., Case], name: str
) -> None:
    case = case_of("bert", "classifier")
    editor = small(case.editor(name))
    assert_edits(edits_of_look(editor, case.request, 0), edits_for(editor, case.request))
    with torch.no_grad():
        first = editor(case.request)
    other = copy.deepcopy(editor).train()  # statistics go on in each forward pass
    losses = case.request.losses(first).detach()
    enough = float(losses.sort().values[0])  # one of the edits has mended what it is for
    index = (losses > enough).nonzero()[:, 0]
    some = first.map(lambda part: part[index])
    seen = case.request.again(editor.sites, some, index).on_top(some)

    def slopes(edits: Edits, of: Editor) -> list[Tensor]:
        loss = case.request.losses(edits).sum()
        found = torch.autograd.grad(loss, list(of.parameters()), allow_unused=True)
        return [torch.zeros(1) if g is None else g for g in found]

    editor.train()
    own = edits_of_look(editor, case.request, 1, enough)
    assert editor.training

    def spread(part: Tensor) -> Tensor:
        return part.new_zeros(E, *part.shape[1:]).index_copy(0, index, part)

    wanted = first + other(seen).map(spread)
    assert_edits(own, wanted)
    for mine, want in zip(slopes(own, editor), slopes(wanted, other), strict=True):
        assert_same(mine, want)


def assert_edits(mine: Edits, want: Edits) -> None:
    for site, delta in want.items():
        assert_same(numbers(mine[site]).detach(), numbers(delta).detach())


def test_statistics_learn_nothing_of_edits_that_have_no_further_look(
    case_of: Callable[..., Case],
) -> None:
    """A test never looks at them again, so its terms are not of their kind."""
    case = case_of("bert", "classifier")
    editor = small(case.editor("mend"))
    losses = case.request.losses(steps_for(editor, case.request))
    levels, seen = losses.detach().sort().values.tolist(), list[int]()
    for enough in (levels[-1] + 1, levels[1], 0.0):
        own = copy.deepcopy(editor).train()
        edits_of_look(own, case.request, 1, enough)
        counted = own.normalizers[0].count - editor.normalizers[0].count
        seen.append(int(counted))
    assert seen[0] == 0
    assert seen[1] == seen[2] // E


@pytest.mark.parametrize("key", ["editor.looks", "train.looks"])
def test_looks_that_there_are_not(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key}: expected .*1.*, got 0"):
        load(None, [f"{key}=0"])


@given(st.integers(1, 6), st.integers(1, 12), st.integers(0, 1000))
def test_looks_have_equal_turns_whatever_the_rhythm(looks: int, every: int, first: int) -> None:
    """Also among the steps that are logged."""
    turns = [turn(first + every * i, looks) for i in range(600)]
    for look in range(looks):
        assert abs(turns.count(look) / 600 - 1 / looks) < 0.03
