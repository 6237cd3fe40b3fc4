"""Locate-then-solve editors: what they set, what they remember, what they refuse."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import tiny_text as text
import torch
from quick import quick
from tiny import untouched
from torch import Tensor

from saledit.cache.bank import BankSpec
from saledit.cache.opening import memory_bank
from saledit.config.editors import LocateConfig
from saledit.delta import Edits, LowRank
from saledit.editors.locate import Locate
from saledit.editors.locating import Facts, FactSpec
from saledit.editors.solvers import SOLVERS, Preserved, SolverSettings
from saledit.editors.stepping import StepSearch
from saledit.errors import ArtifactError, ConfigError, DataError, ModelError, UserError
from saledit.facts.contexts import sampled
from saledit.facts.found import FactsFound
from saledit.models import TaskModel
from saledit.overlay import applied, merge
from saledit.records import Sample
from saledit.session import EditSession
from saledit.site import Site

BLOCK, QA = 1, text.task()
SPEC = FactSpec("subject", 0, 6, 0.05, 0.3, 0.1, 0.5)
OWN = SolverSettings(weight=1.0, ridge=0.1, threshold=0.02, norm=10.0)
CONTEXTS = ("ba be .", "go .")
BASE = text.build("llama")
LAYER = BASE.layer(BLOCK)
SITE = LAYER.sites[-1]
NUMBERS = LocateConfig(
    contexts=2, weight=1e-3, value_rate=0.1, shrink=0.1, threshold=5.0, norm=0.01
)


def asked(n: int) -> list[Sample]:
    chosen = text.samples(n)
    return [replace(s, subject=s.inputs[0].split()[len(s.inputs[0].split()) // 2]) for s in chosen]


FAILURES = asked(6)


def bare(solver: str, **settings: object) -> Locate:
    """An editor that has not been primed."""
    numbers = asdict(replace(NUMBERS, solver=solver, **settings))  # type: ignore[arg-type]
    return Locate(LAYER.sites, **numbers).eval()


def editor(solver: str, **settings: object) -> Locate:
    made = bare(solver, **settings)
    bank = memory_bank(BASE, QA, text.samples(40), BankSpec(LAYER, moments=True))
    made.prime([], bank.moments(made.moment_sites(made.sites)))
    return made


def session(made: Locate) -> EditSession:
    return EditSession(BASE, QA, made, LAYER, 4, 4)


@pytest.mark.parametrize("solver", SOLVERS)
def test_an_edit_makes_its_failure_likelier(solver: str) -> None:
    made = editor(solver)
    with untouched(BASE.model):
        edits = session(made).step(FAILURES[:1])
    assert list(edits) == [SITE]
    before = memory_bank(BASE, QA, FAILURES[:1], BankSpec(LAYER))
    with applied(BASE.model, edits):
        after = memory_bank(BASE, QA, FAILURES[:1], BankSpec(LAYER))
    assert float(after.losses) < 0.97 * float(before.losses)


@pytest.mark.parametrize("solver", ["r-rome", "emmet"])
def test_an_exact_edit_gives_its_key_the_wanted_output(solver: str) -> None:
    made = editor(solver)
    own = FAILURES[:1]
    edits = session(made).step(own)
    facts = facts_at_base(made, own)
    lacking = facts.residuals if solver == "r-rome" else facts.bare_residuals
    torch.testing.assert_close(facts.keys @ edits[SITE].dense().mT, lacking, rtol=1e-4, atol=1e-5)


def facts_at_base(made: Locate, own: list[Sample]) -> Facts:
    """The facts (K,) of some failures, before any edit."""
    contexts = sampled(BASE, made._spec.contexts)
    source = FactsFound(BASE, QA, BLOCK, [SITE], [own], made._spec, contexts)
    return source.at(0, Edits({})).view(len(own))


@pytest.mark.parametrize("at", ["subject", "last"])
@pytest.mark.parametrize("name", quick(["llama"], ["llama", "gpt2", "opt"]))
@pytest.mark.parametrize("rows", quick([4], [512, 4]))
def test_memit_spreads_what_is_missing_over_blocks(
    name: str, at: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the whole model with weights written into it, block after block."""
    monkeypatch.setattr("saledit.facts.rows._ROWS", rows)
    base = text.build(name)
    layer, own = base.layer(1, (), 2), asked(2)
    numbers = asdict(replace(NUMBERS, at=at))
    made = Locate(layer.sites, **numbers)
    bank = memory_bank(base, QA, text.samples(40), BankSpec(layer, moments=True))
    made.prime([], bank.moments(made.moment_sites(made.sites)))
    with untouched(base.model):
        edits = EditSession(base, QA, made.eval(), layer, 4, 4).step(own)
    sites = [base.layer(i).sites[-1] for i in range(2)]
    assert list(edits) == sites

    contexts = sampled(base, 2)
    variants = [[s, *(replace(s, inputs=(f"{c} {s.inputs[0]}",)) for c in contexts)] for s in own]

    def seen(model: TaskModel, site: Site) -> tuple[Tensor, Tensor]:
        """Mean keys at a site, and what block 1 gives at the bare prompts."""
        keys, tops = [], []
        for group in variants:
            mean = []
            for n, one in enumerate(group):
                encoded = QA.encode(model, [one])
                place = encoded.at[0, 0]
                if at == "subject":
                    ((_, place),) = QA.subject_spans(model, [one])
                kept: dict[str, Tensor] = {}
                hooks = [
                    model.model.get_submodule(site.name).register_forward_hook(
                        lambda _m, args, _o, kept=kept: kept.update(key=args[0].flatten(0, -2))
                    ),
                    model.block(1).register_forward_hook(
                        lambda _m, _a, o, kept=kept: kept.update(
                            top=(o[0] if isinstance(o, tuple) else o).flatten(0, -2)
                        )
                    ),
                ]
                text.run_whole(model, encoded, Edits({}))
                for hook in hooks:
                    hook.remove()
                mean.append(kept["key"][place])
                if n == 0:
                    tops.append(kept["top"][place])
            keys.append(torch.stack(mean).mean(0))
        return torch.stack(keys), torch.stack(tops)

    source = FactsFound(base, QA, 1, sites[1:], [own], made._spec, contexts)
    delta = source.at(0, Edits({})).view(len(own)).bare_residuals
    goal = seen(base, sites[1])[1] + delta
    other = text.build(name)
    for number, site in enumerate(sites):
        keys, top = seen(other, site)
        residuals = (goal - top) / (2 - number)
        facts = Facts(keys, residuals, keys, residuals)
        kept = made._preserved(list(layer.sites).index(site))
        want = SOLVERS["memit"](facts, kept, None, made._numbers)
        torch.testing.assert_close(
            edits[site].dense(), want.dense(), rtol=2e-3, atol=1e-4 * float(want.norm())
        )
        merge(other.model, Edits({site: want}))


@pytest.mark.parametrize("solver", ["rome", "r-rome"])
def test_one_fact_at_a_time(solver: str) -> None:
    with pytest.raises(UserError, match=rf"{solver} solves for one failure at a time"):
        session(editor(solver)).step(FAILURES[:2])


def test_spread_edits_beside_each_other_are_those_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = BASE.layer(1, (), 2)
    sites = [BASE.layer(i).sites[-1] for i in range(2)]
    own = [[sample] for sample in FAILURES[:3]]

    def ask(some: list[list[Sample]]) -> Facts:
        source = FactsFound(BASE, QA, 0, sites, some, replace(SPEC, at="last"), CONTEXTS)
        draws = torch.Generator().manual_seed(0)
        delta = torch.randn(3, 1, sites[0].d_in, generator=draws)
        below = Edits({sites[0]: LowRank(delta, torch.ones(3, 1, sites[0].d_out))})
        if len(some) == 1:
            i = own.index(some[0])
            below = below.map(lambda tensor: tensor[i : i + 1])
        return source.at(1, below)

    assert layer.index == 0
    together = ask(own)
    monkeypatch.setattr("saledit.facts.rows._ROWS", 7)  # two edits of three rows each
    parted = ask(own)
    torch.testing.assert_close(parted.residuals, together.residuals)
    for i in range(3):
        alone = ask([own[i]])
        torch.testing.assert_close(alone.keys[0], together.keys[i], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(alone.residuals[0], together.residuals[i], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["gemma2", "bart/encoder"])
def test_no_change_is_spread_below_a_norm(name: str) -> None:
    base = text.build(name)
    sites = [base.layer(i).sites[-1] for i in range(2)]
    source = FactsFound(base, QA, 0, sites, [text.samples(1)], replace(SPEC, at="last"))
    with pytest.raises(ConfigError, match=r"site\.span: expected 1 for editor.locate"):
        source.at(0, Edits({}))


def test_subjects_are_not_looked_for_in_a_decoder() -> None:
    base = text.build("t5")
    site = base.layer(1).sites[-1]
    source = FactsFound(base, QA, 1, [site], [text.samples(1)], replace(SPEC, at="subject"))
    with pytest.raises(ConfigError, match=r"set editor\.locate\.at=last or model.stack=encoder"):
        source.at(0, Edits({}))


def test_what_no_solver_can_do_is_said() -> None:
    settings = asdict(NUMBERS) | {"solver": "rome"}
    with pytest.raises(ConfigError, match="rome solves for one failure at a time, expected 1"):
        Locate.check_failures(settings, 4)
    Locate.check_failures(settings, 1)
    Locate.check_failures(settings | {"solver": "emmet"}, 4)
    keys, lacks = torch.ones(2, 3), torch.eye(2)
    facts = Facts(keys, lacks, keys, lacks)
    with pytest.raises(UserError, match="expected failures whose keys differ"):
        SOLVERS["emmet"](facts, Preserved(torch.eye(3)), None, replace(OWN, ridge=0.0))
    with pytest.raises(ModelError, match=r"editor\.locate\.threshold: expected some eigenvalues"):
        SOLVERS["alphaedit"](facts, Preserved(torch.eye(3)), None, OWN)
    # What is added to the second moment is none of its own.
    delta = SOLVERS["alphaedit"](facts, Preserved(0.001 * torch.eye(3), 999.0), None, OWN)
    assert delta.u.any()


def test_alphaedit_remembers_the_keys_of_a_sequence() -> None:
    made, others = editor("alphaedit"), FAILURES[2:4]
    known = session(made)
    known.step(FAILURES[:2])
    second = known.step(others)
    facts = facts_at_base(made, FAILURES[:2])
    forgetful = session(made)
    forgetful.step(FAILURES[:2])
    forgetful.go_on(forgetful.state[0], {})
    other = forgetful.step(others)

    def moves(edits) -> float:
        return float((facts.keys @ edits[SITE].dense().mT).norm())

    assert moves(second) < 0.9 * moves(other)


def test_what_alphaedit_remembers_other_solvers_leave_alone() -> None:
    made = editor("alphaedit")
    one = session(made)
    one.step(FAILURES[:2])
    steps, memory = one.state
    other = session(editor("memit"))
    other.go_on(steps, memory)
    other.step(FAILURES[2:4])
    assert memory
    assert other.state[1].keys() == memory.keys()
    assert all(torch.equal(other.state[1][name], kept) for name, kept in memory.items())


def test_what_was_worked_out_of_a_moment_goes_with_it() -> None:
    made, other = editor("memit"), editor("memit")
    other.prime([], [9.0 * other._moment(other._ends[0])])
    first = session(made).step(FAILURES[:1])
    made.load_state_dict(other.state_dict())
    again, wanted = (session(one).step(FAILURES[:1]) for one in (made, other))
    torch.testing.assert_close(again[SITE].dense(), wanted[SITE].dense())
    assert not torch.allclose(first[SITE].dense(), again[SITE].dense())


@pytest.mark.parametrize("solver", SOLVERS)
def test_an_editor_that_was_not_primed_solves_nothing(
    solver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, searched = bare(solver), []
    made.prime([], None)
    line = (
        rf"expected an editor that knows the second moment of the inputs of {SITE.name}, got none"
    )
    with monkeypatch.context() as patched:
        patched.setattr(Locate, "_facts", lambda *_: searched.append(1))
        with pytest.raises(UserError, match=line + r"; give it moments with prime\(\)"):
            session(made).step(FAILURES[:1])
    assert not searched, "it is told before facts are looked for"
    # What is saved of it tells, too, one way and the other.
    again = bare(solver)
    again.load_state_dict(made.state_dict())
    with pytest.raises(UserError, match=line):
        session(again).step(FAILURES[:1])
    again.load_state_dict(editor(solver).state_dict())
    assert session(again).step(FAILURES[:1])[SITE].norm() > 0


def test_a_failure_without_a_subject_is_named() -> None:
    nameless = replace(FAILURES[0], subject="", id="q17")
    with pytest.raises(DataError, match="q17: expected a subject in its text"):
        session(editor("memit")).step([nameless])
    assert session(editor("memit", at="last")).step([nameless])


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("solver", "romme", r"editor.locate.solver: unknown name 'romme'; did you mean 'rome'"),
        ("at", "first", r"editor.locate.at: unknown name 'first'"),
        ("contexts", -1, r"editor.locate.contexts: expected at least 0, got -1"),
        ("value_steps", 0, r"editor.locate.value_steps: expected at least 1, got 0"),
        ("clamp", 0.0, r"editor.locate.clamp: expected above 0, got 0"),
        ("weight", float("nan"), r"editor.locate.weight: expected above 0, got nan"),
    ],
)
def test_bad_settings_are_refused(key: str, value: object, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        Locate.check({**asdict(LocateConfig()), key: value})


def test_nothing_is_added_to_what_is_kept_of_a_moment() -> None:
    made = bare("alphaedit", shrink=0.3)
    moment = torch.diag(torch.arange(1.0, SITE.d_in + 1))
    made.prime([], [moment])
    kept = made._preserved(made._ends[-1])
    assert kept.null_space(SITE.d_in + 0.5).basis.shape[1] == SITE.d_in  # the largest is d_in
    median = float(moment.diagonal().median())
    added = (kept.factor @ kept.factor.mT).diagonal() - moment.diagonal()
    torch.testing.assert_close(added, torch.full_like(added, 0.3 * median), rtol=1e-12, atol=1e-12)


def remembering() -> tuple[Locate, EditSession]:
    """AlphaEdit over two blocks, and a session of it."""
    layer = BASE.layer(BLOCK, (), 2)
    numbers = asdict(replace(NUMBERS, solver="alphaedit", contexts=0))
    made = Locate(layer.sites, **numbers).eval()
    bank = memory_bank(BASE, QA, text.samples(40), BankSpec(layer, moments=True))
    made.prime([], bank.moments(made.moment_sites(made.sites)))
    return made, EditSession(BASE, QA, made, layer, 4, 4)


def key_of(sample: Sample, site: Site, edits: Edits) -> Tensor:
    """What a site reads at the last token of the subject, by a run of the whole model."""
    ((_, place),) = QA.subject_spans(BASE, [sample])
    read: list[Tensor] = []
    hook = BASE.model.get_submodule(site.name).register_forward_hook(
        lambda _module, given, _out: read.append(given[0].flatten(0, -2))
    )
    text.run_whole(BASE, QA.encode(BASE, [sample]), edits)
    hook.remove()
    return read[0][place]


@torch.no_grad()
def test_alphaedit_remembers_at_each_block_the_keys_under_the_edits_below() -> None:
    made, own = remembering()
    first = own.step(FAILURES[:2])
    seen = own.state[1]
    assert len(seen) == 2
    sites = [made.sites[i] for i in made._ends]
    for number, i in enumerate(made._ends):
        below = Edits({site: first[site] for site in first if site in sites[:number]})
        k = torch.stack([key_of(sample, sites[number], below) for sample in FAILURES[:2]])
        torch.testing.assert_close(seen[f"keys_{i}"], k, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_alphaedit_goes_by_each_block_s_own_memory() -> None:
    def step(*full: int) -> Edits:
        """After a memory that holds all inputs of some of the blocks."""
        own, eye = remembering()[1], torch.eye(SITE.d_in)
        own.go_on(
            Edits({}), {f"keys_{i}": (1e2 if j in full else 0.0) * eye for j, i in enumerate(ends)}
        )
        return own.step(FAILURES[:1])

    made, _ = remembering()
    ends = made._ends
    low, high = (made.sites[i] for i in ends)
    free = step()
    for full, held, other in ((0, low, high), (1, high, low)):
        edits = step(full)
        assert edits[held].norm() < 0.01 * free[held].norm()
        assert edits[other].norm() > 0.1 * free[other].norm()


@pytest.mark.parametrize(
    "other", [{"past_2": torch.eye(SITE.d_in)}, {"keys_2": torch.ones(3, 5)}, {"keys_0": SITE.d_in}]
)
def test_what_others_have_remembered_is_refused(other: dict[str, Tensor]) -> None:
    own = session(editor("alphaedit"))
    own.go_on(Edits({}), {name: torch.as_tensor(value) for name, value in other.items()})
    name = next(iter(other))
    with pytest.raises(
        ArtifactError, match=rf"remembers {name} of .*give another folder \(--out\)"
    ):
        own.step(FAILURES[:1])


def test_given_up_edits_leave_no_keys() -> None:
    own = session(editor("alphaedit"))
    own.step(FAILURES[:1])
    before = {name: value.clone() for name, value in own.state[1].items()}
    own._search = StepSearch((1.0,), 0.3, bound=1e-30)
    own._held = text.samples(5, seed=4)
    given_up = own.step(FAILURES[1:2])
    assert not any(delta.dense().any() for delta in given_up.values())
    assert before
    assert all(torch.equal(value, own.state[1][name]) for name, value in before.items())
