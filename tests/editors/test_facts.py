"""Facts: keys and wanted outputs against a slow loop over whole models, one fact at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_text as text
import torch
from quick import quick
from torch import Tensor
from torch.nn import functional as F

from saledit.cache.bank import BankSpec
from saledit.cache.opening import memory_bank
from saledit.delta import Edits, LowRank
from saledit.editors.locating import Facts, FactSpec
from saledit.errors import JobError, SiteError
from saledit.facts.contexts import sampled
from saledit.facts.found import FactsFound
from saledit.facts.wanted import Prompts, _Rows, facts_at_once, wanted_change
from saledit.forward.places import touched
from saledit.forward.scoring import forward
from saledit.models import CLASSIFIER, TaskModel
from saledit.overlay import merge
from saledit.records import Sample
from saledit.tasks.base import Encoded, Task, in_words
from saledit.tasks.nli import Nli
from saledit.tasks.prompts import IGNORED

BLOCK = 1
SPEC = FactSpec("subject", 0, 6, 0.05, 0.3, 0.1, 0.5, enough=1e-3)
CONTEXTS = ("ba be .", "go .")
#: "told" how to begin, which is asked of no decoder.
NAMES = (
    "gpt2", "llama", "opt", "gemma2", "t5/encoder", "bart/encoder told", "nli gpt2",
    "gpt2 by template", "bart/encoder told by template",
)  # fmt: skip
TEMPLATE = " by template"
QUICK = ("llama", "nli gpt2", "bart/encoder told", "bart told last", "gpt2 by template")
OWN = {"as it is": {}, "block": {"measure": "block", "clamp": 0.02}, "no KL": {"kl": 0.0}}
LAST = ("nli bert", "nli distilbert", "nli llama", "llama", "t5", "bart", "bart told")


def case(name: str, n: int = 4) -> tuple[TaskModel, Task, list[Sample]]:
    """Samples whose subject is a word in the middle of their text."""
    if name.startswith("nli "):
        base, task, chosen = tiny.build(name.removeprefix("nli ")), Nli(), tiny.samples(n)
    else:
        task = text.task(template="Q: {question} A:" if name.endswith(TEMPLATE) else "")
        base = text.build(name.removesuffix(TEMPLATE).removesuffix(" told"))
        chosen = text.samples(n)
        if name.endswith(" told"):
            base.model.generation_config.forced_bos_token_id = text.BOS
    words = [s.inputs[0].split() for s in chosen]
    about = [own[len(own) // 2] for own in words]
    return base, task, [replace(s, subject=a) for s, a in zip(chosen, about, strict=True)]


def place(base: TaskModel, task: Task, sample: Sample, seen: Encoded, at: str) -> int:
    if at == "subject":
        return task.subject_spans(base, [sample])[0][1]
    if base.kind == CLASSIFIER:
        length = seen.inputs["input_ids"].shape[1]
        return length - 1 if base.family.generates else 0
    assert seen.at is not None
    return int(seen.at[0, _first(seen.targets)])


def _first(targets: Tensor) -> int:
    """The first position of an answer that is scored."""
    return int((targets[0] != IGNORED).nonzero()[0])


def slow_fact(
    base: TaskModel, task: Task, sample: Sample, spec: FactSpec, contexts: tuple[str, ...]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Key, bare key, wanted change of the bare output, mean output, of one failure."""
    module = base.model.get_submodule(base.layer(BLOCK).sites[-1].name)
    variants = [sample]
    for context in contexts:
        variants.append(
            replace(sample, inputs=(f"{context} {sample.inputs[0]}", *sample.inputs[1:]))
        )

    # What is said of a subject at large is no answer to a question.
    bare = task.bare(base.max_length) if in_words(task) else task

    def run(one: Sample, delta: Tensor | None, first_only: bool = False) -> tuple[Tensor, ...]:
        asks = bare if first_only else task
        seen = asks.encode(base, [one])
        where, kept = place(base, asks, one, seen, spec.at), []

        def hook(_module, args, output):
            x = args[0].reshape(-1, args[0].shape[-1])[where]
            kept.append((x, output.reshape(-1, output.shape[-1])[where]))
            if delta is None:
                return None
            flat = output.reshape(-1, output.shape[-1]).clone()
            flat[where] = flat[where] + delta
            return flat.view(output.shape)

        handle = module.register_forward_hook(hook)
        outputs = forward(base, seen.inputs, seen.at)
        handle.remove()
        targets = seen.targets
        if first_only and targets.dim() > 1:
            targets = targets.clone()
            targets[:, _first(targets) + 1 :] = IGNORED
        logits = task.logits(base, outputs, targets)
        return task.losses(base, logits, targets)[0], logits, *kept[0]

    states = [run(v, None)[2:] for v in variants]
    key = torch.stack([x for x, _ in states]).mean(0)
    bare_key, output = states[0]
    size = output.norm()
    if spec.measure == "block":
        size = block_output(base, task, sample, spec.at).norm()
    about = replace(sample, inputs=(f"{sample.subject} is a",))
    watched = spec.kl > 0 and task.generates and spec.at == "subject"
    before = run(about, None, True)[1].log_softmax(-1) if watched else None
    delta = torch.zeros_like(output).requires_grad_()
    optimizer = torch.optim.Adam([delta], lr=spec.rate)
    for _ in range(spec.steps):
        loss = torch.stack([run(v, delta)[0] for v in variants]).mean()
        if before is not None:
            after = run(about, delta, True)[1].log_softmax(-1)
            loss = loss + spec.kl * (after.exp() * (after - before)).sum()
        loss = loss + spec.decay * (delta.square().sum() + 1e-24).sqrt() / size**2
        if loss < spec.enough:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            limit = spec.clamp * size
            if delta.norm() > limit:
                delta.mul_(limit / delta.norm())
    mean = torch.stack([y for _, y in states]).mean(0)
    return key, bare_key, delta.detach(), mean


def block_output(base: TaskModel, task: Task, sample: Sample, at: str) -> Tensor:
    seen, kept = task.encode(base, [sample]), []

    def hook(_module, _args, output):
        first = output[0] if isinstance(output, tuple) else output
        kept.append(first.reshape(-1, first.shape[-1]))

    handle = base.block(BLOCK).register_forward_hook(hook)
    with torch.no_grad():
        forward(base, seen.inputs, seen.at)
    handle.remove()
    return kept[0][place(base, task, sample, seen, at)]


def found(base: TaskModel, task: Task, chosen: list[Sample], spec: FactSpec) -> Facts:
    contexts = () if base.kind == CLASSIFIER else CONTEXTS
    site = base.layer(BLOCK).sites[-1]
    source = FactsFound(base, task, BLOCK, [site], [[s] for s in chosen], spec, contexts)
    return source.at(0, Edits({})).view(len(chosen))


@pytest.mark.parametrize("name", quick(QUICK, [*NAMES, *(f"{name} last" for name in LAST)]))
@pytest.mark.parametrize("own", quick(["as it is", "block"], OWN))
def test_facts_are_those_of_a_slow_loop(
    name: str, own: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if own:  # rows of every length in a run of their own
        monkeypatch.setattr("saledit.facts.wanted._A_RUN", {"cpu": 0})
    spec = replace(SPEC, at="last" if name.endswith(" last") else "subject", **own)
    base, task, chosen = case(name.removesuffix(" last"))
    base.model.double()
    with tiny.untouched(base.model):
        facts = found(base, task, chosen, spec)
    contexts = () if base.kind == CLASSIFIER else CONTEXTS
    for i, sample in enumerate(chosen):
        key, bare, delta, mean = slow_fact(base, task, sample, spec, contexts)
        torch.testing.assert_close(facts.keys[i], key, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(facts.bare_keys[i], bare, rtol=1e-5, atol=1e-7)
        assert delta.norm() > 1e-3
        torch.testing.assert_close(facts.bare_residuals[i], delta, rtol=1e-4, atol=1e-6)
        # What is wanted of the bare prompt is what is missing at the mean key.
        site = base.model.get_submodule(base.layer(BLOCK).sites[-1].name)
        wanted = site(bare) + delta - mean
        torch.testing.assert_close(facts.residuals[i], wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_rows_as_long_as_an_answer_are_not_taken_for_one(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the last block the MLP is run at an answer's positions alone, if they are few."""
    base, task = text.build(name), text.task()
    words, last = text.WORDS, base.n_blocks - 1
    asked = [Sample(f"{n}", (" ".join(words[:n]),), words[n]) for n in range(1, 7)]
    asked.append(Sample("long", (" ".join(words[:12]),), " ".join(words[3:7])))
    spec, sites = replace(SPEC, at="last"), [base.layer(last).sites[-1]]
    monkeypatch.setattr("saledit.facts.wanted._A_RUN", {"cpu": 0})  # each length by itself

    def values(chosen: list[Sample]) -> Tensor:
        source = FactsFound(base, task, last, sites, [[s] for s in chosen], spec, ())
        return source.at(0, Edits({})).view(len(chosen)).bare_residuals

    together = values(asked)
    assert (together.norm(dim=1) > 1e-3).all()
    for i, sample in enumerate(asked):
        torch.testing.assert_close(together[i], values([sample])[0], rtol=1e-3, atol=1e-4)


def test_autocast_has_no_part_in_facts() -> None:
    base, task, chosen = case("llama")
    plain = found(base, task, chosen, SPEC)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = found(base, task, chosen, SPEC)
    for part in ("keys", "residuals", "bare_keys", "bare_residuals"):
        assert torch.equal(getattr(plain, part), getattr(mixed, part))


@pytest.mark.parametrize("name", ["llama", "t5/encoder"])
@pytest.mark.long
def test_facts_beside_each_other_are_those_alone(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, task, chosen = case(name, 6)
    spec = replace(SPEC, enough=1.0, steps=12)  # some are done early
    together = found(base, task, chosen, spec)
    for i, sample in enumerate(chosen):
        alone = found(base, task, [sample], spec)
        torch.testing.assert_close(
            together.bare_residuals[i], alone.bare_residuals[0], rtol=1e-3, atol=1e-4
        )
    monkeypatch.setattr("saledit.facts.wanted._LOGITS", 1)
    monkeypatch.setattr("saledit.facts.rows._ROWS", 3)
    split = found(base, task, chosen, spec)
    torch.testing.assert_close(split.residuals, together.residuals, rtol=1e-3, atol=1e-4)


def test_the_clamp_and_the_end_are_kept() -> None:
    base, task, chosen = case("llama", 6)
    short = found(base, task, chosen, replace(SPEC, clamp=0.1, rate=1.0, steps=10, enough=0.0))
    site = base.model.get_submodule(base.layer(BLOCK).sites[-1].name)
    for i in range(6):
        output = F.linear(short.bare_keys[i], site.weight, site.bias)
        assert short.bare_residuals[i].norm() <= 0.1001 * output.norm()
    done = found(base, task, chosen, replace(SPEC, enough=1e9))
    assert not done.bare_residuals.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_facts_of_half_a_precision_are_nearly_the_same(dtype: torch.dtype) -> None:
    base, task, chosen = case("llama")
    whole = found(base, task, chosen, SPEC)
    base.model.to(dtype)
    half = found(base, task, chosen, SPEC)
    assert half.residuals.dtype == half.keys.dtype == torch.float32
    # Adam makes whole steps of slopes that are nearly nothing: values differ by more than keys.
    values = {} if dtype == torch.bfloat16 else {"bare_residuals": 16}
    for name, digits in {"keys": 4, "bare_keys": 4, **values}.items():
        one, other = getattr(whole, name), getattr(half, name)
        apart = (one - other).norm() / one.norm()
        assert 0 < apart < 2 * digits * torch.finfo(dtype).eps, name


def test_a_loss_that_is_not_finite_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, task, chosen = case("llama", 2)
    losses = type(task).losses
    monkeypatch.setattr(type(task), "losses", lambda *args: losses(*args) * float("nan"))
    site = base.layer(BLOCK).sites[-1]
    own = [[sample] for sample in chosen]
    source = FactsFound(base, task, BLOCK, [site], own, SPEC, folder=tmp_path)
    with pytest.raises(JobError, match="expected a finite loss of a fact's value"):
        source.at(0, Edits({}))
    assert not list(tmp_path.rglob("*.safetensors"))
    # A model that edits have broken is looked at all the same.
    none = LowRank(torch.zeros(1, site.d_in), torch.zeros(1, site.d_out))
    again = FactsFound(base, task, BLOCK, [site], own, SPEC, steps=Edits({site: none}))
    assert not again.at(0, Edits({})).bare_residuals.any()


def test_a_value_that_is_lost_on_the_way_keeps_its_last_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base, task, chosen = case("llama", 3)
    base.model.double()
    spec = replace(SPEC, enough=0.0)
    whole, first = (found(base, task, chosen, replace(spec, steps=n)) for n in (6, 2))
    real, calls = _Rows.losses, []

    def losses(self: _Rows, leaf: Tensor, active: Tensor, *more: Any) -> Tensor:
        calls.append(active)
        own = real(self, leaf, active, *more)
        return own * torch.tensor([1, torch.nan, 1]) if len(calls) == 3 else own

    monkeypatch.setattr(_Rows, "losses", losses)
    got = found(base, task, chosen, spec).bare_residuals
    torch.testing.assert_close(got[1], first.bare_residuals[1])
    torch.testing.assert_close(got[[0, 2]], whole.bare_residuals[[0, 2]])


def test_as_many_facts_are_searched_at_once_as_their_logits_leave_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base, task, chosen = case("llama", 5)
    bank = memory_bank(base, task, chosen * 3, BankSpec(base.layer(BLOCK)))
    assert bank.answer_lengths is not None
    of = torch.arange(5).repeat(3)  # three rows a fact
    read = Prompts(bank, torch.zeros(15, dtype=torch.long), of, 15)
    a_fact = 3 * int(bank.answer_lengths.max()) * base.vocabulary
    for room, n in ((2 * a_fact, 2), (3 * a_fact - 1, 2), (3 * a_fact, 3), (1, 1)):
        monkeypatch.setattr("saledit.facts.wanted._LOGITS", room)
        assert facts_at_once(base, read, 5) == n


def test_shares_of_a_change_that_is_below_rounding_are_no_norm_behind_the_mlp() -> None:
    """In half a precision a small change is lost in what it is added to; that is no reason."""
    base, task, chosen = case("llama", 2)
    base.model.to(torch.bfloat16)
    sites = [base.layer(i).sites[-1] for i in (0, 1)]
    small = replace(SPEC, clamp=1e-4)
    own = [[sample] for sample in chosen]
    source = FactsFound(base, task, 0, sites, own, small)
    assert all(source.at(i, Edits({})).residuals.isfinite().all() for i in (0, 1))


@pytest.mark.parametrize("n_sites", [1, 2])
@pytest.mark.parametrize("name", ["gpt2", "llama", "opt"])
def test_on_top_of_edits_facts_are_those_of_the_model_that_has_them(
    name: str, n_sites: int
) -> None:
    """Edits so far as an overlay, against the same in the weights; twice would show."""
    first = BLOCK + 1 - n_sites
    sites = [text.build(name).layer(first + i).sites[-1] for i in range(n_sites)]
    steps = tiny.random_edits(sites, rank=1, seed=5)
    got = []
    for merged in (False, True):
        base, task, chosen = case(name, 2)
        if merged:
            merge(base.model, steps)
        source = FactsFound(
            base, task, first, sites, [[sample] for sample in chosen], replace(SPEC, kl=3.0),
            steps=None if merged else steps,
        )  # fmt: skip
        got.append([source.at(i, Edits({})) for i in range(n_sites)])
    for facts, wanted in zip(*got, strict=True):
        for part in ("keys", "residuals", "bare_keys", "bare_residuals"):
            torch.testing.assert_close(
                getattr(facts, part), getattr(wanted, part), rtol=1e-3, atol=1e-4, msg=part
            )


def test_contexts_are_the_model_s_own_and_always_the_same() -> None:
    base = text.build("llama")
    torch.manual_seed(1)
    first = sampled(base, 4)
    state = torch.random.get_rng_state()
    torch.manual_seed(2)
    assert sampled(text.build("llama"), 4) == first
    torch.manual_seed(1)
    sampled(text.build("gpt2"), 2)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert len(first) == 4
    assert all(context.strip(" .") and context.endswith(".") for context in first)
    assert sampled(tiny.build("bert"), 4) == ()
    assert sampled(base, 0) == ()


def test_beginnings_in_which_nothing_is_said_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    base = text.build("llama")
    word = base.tokenizer(text.WORDS[0], add_special_tokens=False).input_ids[0]

    def generate(ids: Tensor, **_: object) -> Tensor:
        said = torch.full((len(ids), 10), text.EOS)
        said[1, 0] = word
        return torch.cat([ids, said], 1)

    monkeypatch.setattr(base.model, "generate", generate)
    assert sampled(base, 3) == (f"{text.WORDS[0]}.",)


def test_a_place_that_is_not_run_is_refused() -> None:
    module = torch.nn.Linear(3, 2)
    with (
        touched(module, torch.tensor([5, 1]), lambda _x, _y: None),
        pytest.raises(ValueError, match="touched: expected positions that the module is run at"),
    ):
        module(torch.zeros(2, 4, 3))


@pytest.mark.parametrize("flat", [False, True])
def test_one_position_is_read_and_changed(flat: bool) -> None:
    module, x = torch.nn.Linear(3, 2), torch.randn(2, 4, 3)
    places, seen = torch.tensor([3, 1]), []
    add = torch.randn(2, 2)
    plain = module(x)

    def touch(given: Tensor, gives: Tensor) -> Tensor:
        seen.extend([given, gives])
        return add

    with touched(module, places, touch):
        changed = module(x.flatten(0, 1) if flat else x).view(2, 4, 2)
    torch.testing.assert_close(seen[0], torch.stack([x[0, 3], x[1, 1]]))
    torch.testing.assert_close(seen[1], torch.stack([plain[0, 3], plain[1, 1]]))
    plain = plain.clone()
    plain[0, 3] += add[0]
    plain[1, 1] += add[1]
    torch.testing.assert_close(changed, plain)


def test_values_are_found_once_and_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, task, chosen = case("llama")
    site = base.layer(BLOCK).sites[-1]

    def ask(some: list[Sample], spec: FactSpec = SPEC, steps: Edits | None = None) -> Facts:
        own = [[sample] for sample in some]
        source = FactsFound(base, task, BLOCK, [site], own, spec, CONTEXTS, steps, tmp_path)
        return source.at(0, Edits({})).view(len(some))

    asked: list[int] = []

    def counted(*args: Any) -> Tensor:
        asked.append(len(args[7]))
        return wanted_change(*args)

    monkeypatch.setattr("saledit.facts.found.wanted_change", counted)
    first = ask(chosen[:3])
    assert torch.equal(first.residuals, found(base, task, chosen[:3], SPEC).residuals)
    asked.clear()
    again = ask(chosen)
    assert asked == [1]  # of the one that was not known
    assert torch.equal(again.bare_residuals[:3], first.bare_residuals)

    # Edits that share a failure find its value once: nothing is kept on disk of an edited model.
    none = Edits({site: LowRank(torch.zeros(1, site.d_in), torch.zeros(1, site.d_out))})
    asked.clear()
    shared = ask([chosen[1], chosen[0], chosen[1], chosen[1]], steps=none)
    assert asked == [2]
    torch.testing.assert_close(
        shared.bare_residuals, again.bare_residuals[[1, 0, 1, 1]], rtol=1e-3, atol=1e-4
    )

    def misses(**change: Any) -> int:
        asked.clear()
        ask(**{"some": chosen, **change})
        return sum(asked)

    assert misses() == 0
    assert misses(spec=replace(SPEC, steps=5)) == 4
    assert misses(some=[replace(chosen[0], target="ba")]) == 1
    step = Edits({site: LowRank(torch.zeros(1, site.d_in), torch.zeros(1, site.d_out))})
    assert misses(steps=step) == misses(steps=step) == 4  # of an edited model nothing is kept
    for file in tmp_path.rglob("*.safetensors"):
        file.write_bytes(b"broken")
    assert misses() == 4
    assert misses() == 0


@pytest.mark.parametrize(("name", "enough"), [("llama", 3.2), ("t5/encoder", 2.83)])
def test_facts_that_are_done_early_are_those_alone(
    name: str, enough: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, task, chosen = case(name, 6)
    base.model.double()
    seen, real = [], _Rows.losses

    def losses(self: _Rows, leaf: Tensor, active: Tensor, *more: Any) -> Any:
        seen.append(int(active.sum()))
        return real(self, leaf, active, *more)

    monkeypatch.setattr(_Rows, "losses", losses)
    spec = replace(SPEC, enough=enough, steps=12)
    together = found(base, task, chosen, spec)
    assert len(set(seen)) > 1, "some are done early"
    for i, sample in enumerate(chosen):
        alone = found(base, task, [sample], spec)
        torch.testing.assert_close(
            together.bare_residuals[i], alone.bare_residuals[0], rtol=1e-6, atol=1e-8
        )


def test_a_long_answer_that_is_done_first_leaves_the_short_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base, task, chosen = case("llama", 2)
    base.model.double()
    own = [replace(s, target=" ".join(text.WORDS[i : i + 3 * i + 1])) for i, s in enumerate(chosen)]
    alone = found(base, task, own[:1], SPEC)
    real = _Rows.losses

    def losses(self: _Rows, leaf: Tensor, active: Tensor, *more: Any) -> Tensor:
        return real(self, leaf, active, *more) * (leaf.new_tensor([1, 0])[active])

    monkeypatch.setattr(_Rows, "losses", losses)
    together = found(base, task, own, SPEC)
    torch.testing.assert_close(together.bare_residuals[0], alone.bare_residuals[0])


def test_values_are_of_this_model_site_contexts_task_and_subject(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, task, chosen = case("llama")
    asked: list[int] = []

    def noted(*given: Any) -> Any:
        asked.append(len(given[7]))
        return wanted_change(*given)

    monkeypatch.setattr("saledit.facts.found.wanted_change", noted)

    def misses(**other: Any) -> int:
        """How many values are searched, and not found on disk."""
        asked.clear()
        told = {"base": base, "task": task, "block": 1, "some": chosen, "contexts": CONTEXTS}
        own = told | other
        site = own["base"].layer(own["block"]).sites[-1]
        failures = [[sample] for sample in own["some"]]
        FactsFound(
            own["base"], own["task"], own["block"], [site], failures, SPEC, own["contexts"], None,
            tmp_path,
        ).at(0, Edits({}))  # fmt: skip
        return sum(asked)

    n = len(chosen)
    assert misses() == n
    assert misses() == 0
    assert misses(contexts=CONTEXTS[:1]) == n
    assert misses(block=0) == n
    assert misses(base=text.build("llama", seed=1)) == n
    assert misses(task=text.task(template="Q: {question} A:")) == n
    other = next(w for w in chosen[0].inputs[0].split() if w != chosen[0].subject)
    assert misses(some=[replace(chosen[0], subject=other)]) == 1


def test_subjects_are_not_looked_for_where_one_token_is_run() -> None:
    base = tiny.build("bert")
    _, task, chosen = case("nli bert", 1)
    last = tiny.N_BLOCKS - 1
    site = base.layer(last).sites[-1]
    with pytest.raises(SiteError, match=r"editor\.locate\.at: .*a lower site\.layer"):
        FactsFound(base, task, last, [site], [chosen], SPEC).at(0, Edits({}))
