"""Layer pickers against slow, dense definitions."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

import pytest
import tiny_text as text
import torch
from quick import quick
from tiny import N_BLOCKS, build, encode, samples, targets, untouched
from torch import Tensor
from torch.nn import functional as F

from saledit.cache.bank import BankSpec
from saledit.cache.opening import memory_bank
from saledit.delta import LowRank
from saledit.forward.scoring import base_logits
from saledit.models import TaskModel
from saledit.moments import whitener
from saledit.overlay import applied
from saledit.records import Sample
from saledit.saliency.base import LayerScore, Probes, Saliency
from saledit.saliency.gradient import GradientSaliency
from saledit.saliency.trial import STEPS, TrialStep, directions, normalized_steps
from saledit.site import Layer
from saledit.tasks.nli import Nli

FAMILIES = ("bert", "distilbert", "gpt2", "llama")
TASK = Nli()


def answer(base: TaskModel, sample: Sample, rank: int) -> Sample:
    """The sample with the model's first (0) or another choice as its target."""
    logits = base_logits(base, encode(base, [sample]))[0]
    names = base.model.config.id2label
    return replace(sample, target=names[int(logits.argsort(descending=True)[rank])])


def probes(base: TaskModel, adapt: bool = True) -> Probes:
    chosen = samples(15, seed=2)
    return Probes(
        [answer(base, s, 1) for s in chosen[:5]],
        [answer(base, s, 1) for s in chosen[5:10]] if adapt else [],
        [answer(base, s, 0) for s in chosen[10:]],
    )


def dense_gradients(base: TaskModel, sample: Sample, layer: Layer) -> list[Tensor]:
    """Weight gradients of one text's loss, by autograd, run alone."""
    maps = [base.model.get_submodule(site.name).weight for site in layer.sites]
    for weight in maps:
        weight.requires_grad_(True)
    loss = F.cross_entropy(base.model(**encode(base, [sample])).logits, targets(base, [sample]))
    grads = torch.autograd.grad(loss, maps)
    for weight in maps:
        weight.requires_grad_(False)
    return list(grads)


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_dense_gradients(family: str) -> None:
    base = build(family)
    read = probes(base)
    every = [*read.passing, *read.fail, *read.adapt]
    with untouched(base.model):
        # Small batches: the sums go over several of them.
        table = GradientSaliency(batch_tokens=64)(base, TASK, base.layers(), read)
    assert [s.layer for s in table.scores] == list(range(N_BLOCKS))
    for layer, score in zip(base.layers(), table.scores, strict=True):
        grads = [dense_gradients(base, sample, layer) for sample in every]
        means = [torch.stack(of_site).mean(0) for of_site in zip(*grads, strict=True)]
        total = sum(float(mean.abs().sum()) for mean in means)
        assert score.details["mean_abs"] == pytest.approx(total / layer.n_parameters, rel=1e-4)
        norms = [float(torch.stack([g.norm() for g in of]).norm()) for of in grads]
        assert score.details["frobenius"] == pytest.approx(sum(norms) / len(every), rel=1e-4)
        weights = [base.model.get_submodule(site.name).weight for site in layer.sites]
        size = float(torch.cat([w.flatten() for w in weights]).norm())
        assert score.details["weight_norm"] == pytest.approx(size, rel=1e-5)
        assert score.score == score.details["mean_abs"]
    assert table.forward_passes == table.backward_passes == 15
    assert table.seconds > 0


@pytest.mark.parametrize("per_parameter", [False, True])
@pytest.mark.parametrize("name", ["mean_abs", "frobenius"])
def test_the_configured_score_picks(name: str, per_parameter: bool) -> None:
    base = build("bert")
    table = GradientSaliency(name, per_parameter)(base, TASK, base.layers(), probes(base))
    wanted = [
        s.details[name] / (s.details["weight_norm"] if per_parameter else 1) for s in table.scores
    ]
    assert [s.score for s in table.scores] == pytest.approx(wanted)
    assert table.pick == max(range(N_BLOCKS), key=wanted.__getitem__)
    assert name in table.method
    assert ("parameter norm" in table.method) == per_parameter


def test_scores_do_not_depend_on_the_batches() -> None:
    base = build("gpt2")
    read = probes(base)
    alone, together = (
        GradientSaliency(batch_tokens=tokens)(base, TASK, base.layers(), read)
        for tokens in (1, 10_000)
    )
    for a, b in zip(alone.scores, together.scores, strict=True):
        assert a.details == pytest.approx(b.details, rel=1e-4)


def test_one_layer_alone_scores_as_among_all() -> None:
    base = build("bert")
    read = probes(base)
    whole = GradientSaliency()(base, TASK, base.layers(), read)
    (only,) = GradientSaliency()(base, TASK, [base.layer(1)], read).scores
    assert only.details == pytest.approx(whole.scores[1].details, rel=1e-4)


@pytest.mark.parametrize(
    ("scores", "pick"),
    [([1.0, 3.0, 2.0], 1), ([2.0, 2.0, 1.0], 1), ([-3.0, -1.0, -1.0], 2), ([0.0], 0)],
)
def test_pick_is_the_highest_and_the_top_layer_on_a_tie(scores: list[float], pick: int) -> None:
    rows = tuple(LayerScore(i, score) for i, score in enumerate(scores))
    for order in (rows, rows[::-1]):
        assert Saliency("method", order, 1, 1, 0.1).pick == pick


@pytest.mark.parametrize(
    ("best", "others", "pick"),
    [
        (0.0, 0.0, 1),
        (0.09, 0.0, 1),  # one error above .8 is less than .9
        (0.11, 0.0, 2),
        (0.0, 0.5, 1),  # that of the others does not count
        (0.09, 0.5, 1),
        (1.0, 0.0, 3),
    ],
)
def test_pick_is_the_top_layer_that_is_not_clearly_worse(
    best: float, others: float, pick: int
) -> None:
    rows = tuple(
        LayerScore(i, score, error=best if i == 1 else others)
        for i, score in enumerate([0.5, 0.9, 0.8, 0.2])
    )
    for order in (rows, rows[::-1]):
        assert Saliency("method", order, 1, 1, 0.1).pick == pick


def test_scores_within_the_tolerance_are_equal() -> None:
    rows = tuple(LayerScore(i, score) for i, score in enumerate([0.5, 0.9, 0.86, 0.84]))
    assert [Saliency("m", rows, 1, 1, 0.1, t).pick for t in (0.0, 0.05, 0.07)] == [1, 2, 3]


def test_a_layer_left_out_of_the_last_round_is_not_picked() -> None:
    rows = (LayerScore(0, 0.7), LayerScore(1, 0.5), LayerScore(2, 0.9, final=False))
    assert Saliency("method", rows, 1, 1, 0.1).pick == 0


def test_json_holds_the_whole_table() -> None:
    rows = (LayerScore(0, 0.5, {"step": 1.0}), LayerScore(1, 0.7, {"step": 2.0}, 0.1))
    value = Saliency("method", rows, 3, 2, 0.1).as_json()
    assert value["pick"] == 1
    assert value["layers"] == [
        {"layer": 0, "score": 0.5, "error": 0.0, "final": True, "step": 1.0},
        {"layer": 1, "score": 0.7, "error": 0.1, "final": True, "step": 2.0},
    ]  # fmt: skip
    assert (value["forward_passes"], value["backward_passes"]) == (3, 2)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("block", [0, N_BLOCKS - 1])
def test_steps_have_the_requested_norm_and_go_down(family: str, block: int) -> None:
    base = build(family)
    read = probes(base)
    bank = memory_bank(base, TASK, read.fail, BankSpec(base.layer(block), rank=32))
    index = torch.tensor([3, 0, 0, 4])
    pairs = [pair[index] for pair in directions(bank, None)]
    for step in STEPS:
        edits = normalized_steps(bank.layer, pairs, step)
        assert edits.batch_shape == (4,)
        torch.testing.assert_close(edits.norm(), torch.full((4,), step), rtol=1e-4, atol=0)
    edits = normalized_steps(bank.layer, pairs, 1e-3)
    for e, i in enumerate(index.tolist()):
        grads = dense_gradients(base, read.fail[i], base.layer(block))
        length = torch.cat([g.flatten() for g in grads]).norm()
        for site, grad in zip(bank.layer.sites, grads, strict=True):
            expected = -1e-3 * (grad.mT if site.transposed else grad) / length
            torch.testing.assert_close(edits[site].dense()[e], expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("adapt", [True, False])
@pytest.mark.parametrize("whiten", quick([0.5], [0.0, 0.5]))
@pytest.mark.parametrize("family", quick(["bert"], ["bert", "gpt2"]))
def test_trial_scores_are_those_of_whole_runs(family: str, whiten: float, adapt: bool) -> None:
    base = build(family)
    read = probes(base, adapt)
    steps, n = (0.5, 4.0), 2
    with untouched(base.model):
        picker = TrialStep(whiten, steps, rank=32, passes=n, price=3.0)
        table = picker(base, TASK, base.layers(), read)
    draws = torch.Generator().manual_seed(0)
    held = torch.randint(len(read.passing), (len(read.fail), n), generator=draws).tolist()
    for layer, score in zip(base.layers(), table.scores, strict=True):
        bank = memory_bank(base, TASK, read.fail, BankSpec(layer, rank=32))
        pairs = directions(bank, None)
        if whiten:
            moments = memory_bank(base, TASK, read.passing, BankSpec(layer, moments=True)).moments()
            pairs = [
                LowRank(pair.u @ whitener(moment, whiten).to(pair.u.dtype), pair.v)
                for pair, moment in zip(pairs, moments, strict=True)
            ]
        found, gains, errors = {}, {}, {}
        for step in steps:
            mended, kl = [], []
            for i, failure in enumerate(read.fail):
                reworded = read.adapt[i] if adapt else failure
                one = normalized_steps(layer, [pair[i : i + 1] for pair in pairs], step)
                for sample in (failure, reworded):
                    with applied(base.model, one):
                        logits = base_logits(base, encode(base, [sample]))
                    mended.append(bool(logits.argmax() == targets(base, [sample])))
                for j in held[i]:
                    inputs = encode(base, [read.passing[j]])
                    before = base_logits(base, inputs).log_softmax(-1)
                    with applied(base.model, one):
                        after = base_logits(base, inputs).log_softmax(-1)
                    kl.append(float((before.exp() * (before - after)).sum()))
            found[step] = (sum(mended) / len(mended), sum(kl) / len(kl))
            each = [  # two answers and n pass rows of each failure
                sum(mended[2 * i : 2 * i + 2]) / 2
                - sum(min(1, 3 * k) for k in kl[n * i : n * i + n]) / n
                for i in range(len(read.fail))
            ]
            gains[step] = sum(each) / len(each)
            errors[step] = statistics.pstdev(each) / len(each) ** 0.5
        best = max(steps, key=gains.__getitem__)
        share, damage = found[best]
        assert score.details["step"] == best
        assert score.details["mended"] == pytest.approx(share)
        assert score.details["locality_kl"] == pytest.approx(damage, rel=1e-3, abs=1e-5)
        assert score.score == pytest.approx(gains[best], rel=1e-3, abs=1e-5)
        assert score.error == pytest.approx(errors[best], rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_cast_trials_are_nearly_the_same_trials(name: str) -> None:
    base = text.build(name)
    asked = text.samples(12)
    read = Probes(asked[:6], [], asked[6:], asked[6:])
    steps, seen = (1.0, 8.0, 64.0), []
    for dtype in (None, torch.bfloat16):
        picker = TrialStep(steps=steps, price=0.0, dtype=dtype)
        tables = [TrialStep(steps=[step], dtype=dtype) for step in steps]
        seen.append(
            [
                score.details["locality_kl"]
                for one in tables
                for score in one(base, text.task(), base.layers(), read).scores
            ]
        )
        assert picker(base, text.task(), base.layers(), read).pick in range(base.n_blocks)
    whole, cast = map(torch.tensor, seen)
    assert whole.max() > 1e-2
    assert not torch.equal(whole, cast)
    # A KL of two roundings would be a floor under all of them.
    torch.testing.assert_close(cast, whole, rtol=0.1, atol=5e-5)


def test_a_nat_costs_what_the_task_says() -> None:
    base = build("bert")

    class Dear(type(TASK)):  # type: ignore[misc]
        kl_price = 3.0

    own = TrialStep()(base, TASK, base.layers(), probes(base))
    dear = TrialStep()(base, Dear(), base.layers(), probes(base))
    for table, price in ((own, TASK.kl_price), (dear, 3.0)):
        given = TrialStep(price=price)(base, TASK, base.layers(), probes(base))
        assert [s.score for s in table.scores] == [s.score for s in given.scores]
    assert [s.score for s in own.scores] != [s.score for s in dear.scores]


def test_without_any_gradient_no_step_is_taken() -> None:
    base = build("bert")
    with torch.no_grad():  # a norm without weight lets nothing through, above all no gradient
        base.block(N_BLOCKS - 1).get_submodule("output.LayerNorm").weight.zero_()
    table = TrialStep()(base, TASK, base.layers(), probes(base))
    assert [s.details["mended"] for s in table.scores] == [0] * N_BLOCKS
    assert [s.details["locality_kl"] for s in table.scores] == [0] * N_BLOCKS
    assert table.pick == N_BLOCKS - 1


def test_the_layer_that_mends_is_picked() -> None:
    base = build("bert")
    with torch.no_grad():  # blocks 0 and 1 cannot be heard: only the last MLP can mend
        base.block(1).get_submodule("output.LayerNorm").weight.zero_()
    for n_passes in (1, 3):
        table = TrialStep(passes=n_passes, price=0.0)(base, TASK, base.layers(), probes(base))
        mended = [s.details["mended"] for s in table.scores]
        assert mended[:2] == [0, 0]
        assert mended[2] > 0
        assert table.pick == 2


@pytest.mark.parametrize("adapt", [True, False])
def test_what_a_trial_costs_is_counted(adapt: bool) -> None:
    base = build("bert")
    read = probes(base, adapt)
    table = TrialStep(steps=(1.0, 2.0), passes=3)(base, TASK, base.layers(), read)
    assert table.backward_passes == len(read.fail)
    suffixes = 2 * 5 * (2 + 3) * (3 + 2 + 1) / 3  # steps, failures, rows of each, share of blocks
    whole = 5 + 5 + 5 + 5  # the last for the whitening
    assert table.forward_passes == pytest.approx(whole + suffixes)
    assert table.seconds > 0


def test_more_failures_than_one_run_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    base = build("bert")
    read = probes(base)
    whole = TrialStep()(base, TASK, base.layers(), read)
    monkeypatch.setattr("saledit.saliency.trial._EDITS", 2)
    split = TrialStep()(base, TASK, base.layers(), read)
    for a, b in zip(whole.scores, split.scores, strict=True):
        assert a.details == pytest.approx(b.details, rel=1e-4, abs=1e-6)


def test_a_picker_looks_in_several_passes_where_moments_do_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = build("llama")
    whole = TrialStep()(base, TASK, base.layers(), probes(base))
    monkeypatch.setattr("saledit.moments._ROOM", 1)
    parts = TrialStep()(base, TASK, base.layers(), probes(base))
    assert [s.score for s in parts.scores] == [s.score for s in whole.scores]
    assert parts.forward_passes == whole.forward_passes + (N_BLOCKS - 1) * 5  # pass samples


def test_half_precision_does_not_overflow() -> None:
    """One input of a site beyond 256 has a square that float16 has no number for."""
    scores = []
    for dtype in (torch.float32, torch.float16):
        base = build("llama")
        with torch.no_grad():
            mlp = base.block(1).mlp
            mlp.up_proj.weight.mul_(2000)
            mlp.down_proj.weight.div_(2000)
        base.model.to(dtype)
        table = GradientSaliency("frobenius")(base, TASK, base.layers(), probes(build("llama")))
        scores.append(torch.tensor([s.score for s in table.scores]))
    torch.testing.assert_close(scores[1], scores[0], rtol=0.05, atol=0)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_step_too_long_for_half_precision_is_no_pick(family: str) -> None:
    base = build(family)
    maps = [base.model.get_submodule(site.name) for site in base.layer(1).sites]
    with torch.no_grad():  # what is between the maps is large: a change of the second overflows
        for inner in maps[:-1][-1:]:
            inner.weight.mul_(6000)
        maps[-1].weight.div_(6000)
    base.model.to(torch.float16)
    table = TrialStep()(base, TASK, base.layers(), probes(build(family)))
    for score in table.scores:
        assert all(map(math.isfinite, (score.score, score.error, *score.details.values())))
    long = TrialStep(steps=(1e38,))(build(family), TASK, base.layers(), probes(build(family)))
    assert all(score.details["mended"] == 0 for score in long.scores)
    assert all(score.score == pytest.approx(-1) for score in long.scores)


def test_the_norm_of_gradients_needs_no_sum_of_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    base = build("bert")
    both = GradientSaliency("mean_abs")(base, TASK, base.layers(), probes(base))

    def none(*_args: object) -> None:
        raise AssertionError("a weight gradient")

    monkeypatch.setattr("saledit.saliency.gradient._accumulate", none)
    table = GradientSaliency("frobenius")(base, TASK, base.layers(), probes(base))
    for one, other in zip(table.scores, both.scores, strict=True):
        assert one.score == pytest.approx(other.details["frobenius"])
        assert "mean_abs" not in one.details


def test_whitening_is_by_the_background_where_there_is_one() -> None:
    base, chosen = build("bert"), samples(30, seed=2)
    fail, passing, other = chosen[:5], chosen[5:10], chosen[10:]

    def table(**more: list[Sample]) -> list[float]:
        picker = TrialStep(0.5, (0.5, 4.0), rank=4, passes=2, price=3.0)
        return [
            s.details["locality_kl"]
            for s in picker(base, Nli(), base.layers(), Probes(fail, [], passing, **more)).scores
        ]

    assert table(background=passing) == table()
    assert table(background=other) != pytest.approx(table(), rel=1e-3)
    assert table(background=other) == table(background=other)
