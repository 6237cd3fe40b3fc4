"""The contract of every registered editor on every family, and Mend against its definition."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import FAMILIES, build, encode, samples, untouched
from torch import Tensor
from torch.nn import functional as F

from saledit.bank import Bank, BankSpec
from saledit.cache import memory_bank
from saledit.delta import Edits, LowRank
from saledit.editors.base import Editor, aggregate
from saledit.editors.interference import decouple
from saledit.editors.mend import Mend
from saledit.editors.request import Request
from saledit.files import read_tensors, write_tensors
from saledit.overlay import applied
from saledit.records import Sample
from saledit.registry import EDITORS, look_up
from saledit.requests import damage, hold
from saledit.scoring import base_logits
from saledit.site import Site
from saledit.suffix import run
from saledit.tasks.nli import Nli

BLOCK = 1
E, K, RANK = 3, 2, 4


class Case:
    """A tiny model and E edits of K failures each."""

    def __init__(self, family: str) -> None:
        self.base = build(family)
        self.layer = self.base.layer(BLOCK)
        self.bank = self._bank()
        self.index = torch.arange(E * K).view(E, K)
        self.gradients = aggregate(
            self.bank.factors(self.index), self.bank.losses[self.index], RANK
        )
        others = samples(E * K + 4)[E * K :]
        self.held = hold(self.base, Nli(), others, self.layer)
        self.request = Request(self.gradients, self.losses, self.damage)

    def _bank(self) -> Bank:
        """Failures: the target is the model's second choice."""
        chosen = samples(E * K)
        names = self.base.model.config.id2label
        second = base_logits(self.base, encode(self.base, chosen)).topk(2).indices[:, 1]
        wrong = [Sample(s.id, s.inputs, names[int(i)]) for s, i in zip(chosen, second, strict=True)]
        return memory_bank(self.base, Nli(), wrong, BankSpec(self.layer, rank=RANK, moments=True))

    def alone(self, i: int) -> Request:
        """The request of one of the edits."""
        one = [pair[i : i + 1] for pair in self.gradients]
        return Request(one, lambda edits: self._losses(edits, self.index[i : i + 1]), self.damage)

    def losses(self, edits: Edits) -> Tensor:
        """Mean loss of each edit's own failures (E,)."""
        return self._losses(edits, self.index)

    def _losses(self, edits: Edits, index: Tensor) -> Tensor:
        rows = self.bank.rows(index.flatten())
        with applied(self.base.model, edits):
            logits = run(self.base, self.bank.entry, rows.states, rows.inputs)
        targets = self.bank.targets[index.flatten()]
        return F.cross_entropy(logits, targets, reduction="none").view(index.shape).mean(1)

    def damage(self, edits: Edits) -> Tensor:
        """What edits do to held samples (E,)."""
        return damage(self.base, Nli(), self.bank.entry, self.held)(edits)

    def editor(self, name: str, seed: int = 0) -> Editor:
        """A primed editor."""
        torch.manual_seed(seed)
        editor: Editor = look_up(EDITORS, name, "editor.name")(self.layer.sites)
        editor.prime(self.gradients, self.bank.moments() if editor.needs_moments else None)
        return editor

    def train(self, editor: Editor, steps: int) -> list[float]:
        """Adam on the edit loss; the losses before each step."""
        parameters = [p for p in editor.parameters() if p.requires_grad]
        editor.train()
        seen = []
        optimizer = torch.optim.Adam(parameters, lr=0.01) if parameters else None
        for _ in range(steps):
            loss = self.losses(editor(self.request)).mean()
            seen.append(loss.item())
            if optimizer is not None:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return seen


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


@pytest.fixture(params=sorted(EDITORS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def assert_same(a: Edits, b: Edits) -> None:
    assert list(a) == list(b)
    for site in a:
        assert torch.equal(a[site].dense(), b[site].dense())


def test_training_mends_failures_and_leaves_the_base_alone(case: Case, name: str) -> None:
    with untouched(case.base.model):
        editor = case.editor(name)
        losses = case.train(editor, 30)
        editor.eval()
        edits = editor(case.request)
        final = case.losses(edits).mean().item()
    assert all(math.isfinite(loss) for loss in losses)
    if any(p.requires_grad for p in editor.parameters()):
        assert final < 0.8 * losses[0]
    assert final < F.cross_entropy(case.bank.logits, case.bank.targets).item()
    assert list(edits) == list(case.layer.sites)
    assert edits.batch_shape == (E,)
    for site, delta in edits.items():
        assert delta.dense().shape == (E, site.d_out, site.d_in)
        assert delta.dense().isfinite().all()
        assert (delta.norm() > 0).all()


def test_same_seed_same_bytes(case: Case, name: str, tmp_path: Path) -> None:
    for run_name in ("a", "b"):
        editor = case.editor(name, seed=7)
        case.train(editor, 5)
        write_tensors(tmp_path / run_name, editor.state_dict())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_state_dict_is_the_whole_editor(case: Case, name: str, tmp_path: Path) -> None:
    editor = case.editor(name)
    case.train(editor, 3)
    editor.eval()
    write_tensors(tmp_path / "editor", editor.state_dict())
    torch.manual_seed(99)
    loaded: Editor = look_up(EDITORS, name, "editor.name")(case.layer.sites)
    loaded.load_state_dict(read_tensors(tmp_path / "editor", "an editor"))
    loaded.eval()
    assert_same(editor(case.request), loaded(case.request))


def test_using_an_editor_does_not_change_it(case: Case, name: str) -> None:
    editor = case.editor(name).eval()
    before = {key: value.clone() for key, value in editor.state_dict().items()}
    given = [LowRank(pair.u.clone(), pair.v.clone()) for pair in case.gradients]
    first, second = editor(case.request), editor(case.request)
    assert_same(first, second)
    assert all(torch.equal(before[key], value) for key, value in editor.state_dict().items())
    for pair, old in zip(case.gradients, given, strict=True):
        assert torch.equal(pair.u, old.u)
        assert torch.equal(pair.v, old.v)


def test_edits_of_a_batch_are_one_by_one(case: Case, name: str) -> None:
    editor = case.editor(name)
    case.train(editor, 3)
    editor.eval()
    together = editor(case.request)
    for i in range(E):
        alone = editor(case.alone(i))
        for site in together:
            want = together[site].dense()[i].detach()
            scale = float(want.abs().max())
            torch.testing.assert_close(
                alone[site].detach().dense()[0], want, rtol=1e-4, atol=1e-5 * scale
            )


def test_zero_terms_are_padding(case: Case, name: str) -> None:
    editor = case.editor(name)
    case.train(editor, 3)
    padded = [
        LowRank(F.pad(pair.u, (0, 0, 1, 2)), F.pad(pair.v, (0, 0, 1, 2))) for pair in case.gradients
    ]
    editor.eval()
    plain, more = (
        editor(case.request).detach(),
        editor(replace(case.request, gradients=padded)).detach(),
    )
    for site in plain:
        want = plain[site].dense()
        scale = float(want.abs().max())
        torch.testing.assert_close(more[site].dense(), want, rtol=1e-4, atol=1e-5 * scale)


def test_the_rate_scales_every_delta(case: Case, name: str) -> None:
    editor = case.editor(name).eval()
    before = editor(case.request)
    editor.scale_rate(2.5)
    after = editor(case.request)
    for site in before:
        torch.testing.assert_close(after[site].dense(), 2.5 * before[site].dense())


# Mend against its definition, in slow code that shares nothing with the module.

STYLES = ("bottleneck", "published")
SITES = (Site("a", 5, 4), Site("b", 4, 6), Site("c", 5, 4))


def random_gradients(sites: tuple[Site, ...], seed: int, n_edits: int = 3) -> list[LowRank]:
    generator = torch.Generator().manual_seed(seed)

    def factor(size: int) -> Tensor:
        return torch.randn(n_edits, 5, size, dtype=torch.float64, generator=generator)

    pairs = [LowRank(factor(site.d_in), 0.01 * factor(site.d_out)) for site in sites]
    for pair in pairs:
        pair.v[0, 2:] = 0  # fillers; their u must not matter
    return pairs


def random_moments(sites: tuple[Site, ...], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    roots = [torch.randn(9, s.d_in, dtype=torch.float64, generator=generator) for s in sites]
    return [root.T @ root / 9 for root in roots]


def slow_terms(pair: LowRank, moment: Tensor | None, ridge: float) -> list[list[Tensor]]:
    """For each edit its real terms [W u; g]."""
    edits = []
    for u_terms, g_terms in zip(pair.u, pair.v, strict=True):
        terms = []
        for u, g in zip(u_terms, g_terms, strict=True):
            if g.abs().sum() == 0:
                continue
            if moment is not None:
                c = ridge * torch.trace(moment) / len(moment)
                u = c * torch.linalg.inv(moment + c * torch.eye(len(moment)).double()) @ u
            terms.append(torch.cat([u, g]))
        edits.append(terms)
    return edits


def slow_mend(
    editor: Mend, gradients: list[LowRank], moments: list[Tensor] | None,
    first: list[LowRank], style: str, ridge: float,
) -> dict[Site, Tensor]:  # fmt: skip
    """The class docstring's formula, term by term; ``first`` is what primed the statistics."""
    state = editor.state_dict()
    shapes = [(site.d_in, site.d_out) for site in editor.sites]
    out = {}
    for i, site in enumerate(editor.sites):
        moment = moments[i] if moments is not None else None
        seen = torch.stack([term for edit in slow_terms(first[i], moment, ridge) for term in edit])
        mean = seen.sum(0) / len(seen)
        std = ((seen - mean).pow(2).sum(0) / len(seen)).sqrt()
        std = std + 1e-4 * std.mean()
        net = f"nets.{site.d_in}x{site.d_out}.blocks"
        place = shapes[:i].count(shapes[i])
        deltas = []
        for terms in slow_terms(gradients[i], moment, ridge):
            total = torch.zeros(site.d_out, site.d_in, dtype=torch.float64)
            for term in terms:
                z = start = (term - mean) / std
                for b in range(2):
                    down, up, bias, scale, shift = (
                        state[f"{net}.{b}.{part}"]
                        for part in ("down", "up", "bias", "scale", "shift")
                    )
                    low = down.T @ z
                    if style == "published":  # equation 3 of the paper
                        z = z + (scale[place] * (up.T @ low + bias) + shift[place]).clamp(min=0)
                    else:
                        z = z + up.T @ (scale[place] * (low + bias) + shift[place]).clamp(min=0)
                if style == "bottleneck":  # a correction of the step, not of z
                    size_u = seen[:, : site.d_in].square().mean().sqrt()
                    size_g = seen[:, site.d_in :].square().mean().sqrt()
                    own = torch.cat([term[: site.d_in] / size_u, term[site.d_in :] / size_g])
                    z = own + (z - start)
                total += torch.outer(z[site.d_in :], z[: site.d_in])
            rate = state["log_rate"][i].exp() / (site.d_in * site.d_out) ** 0.5
            deltas.append(-rate * total)
        out[site] = torch.stack(deltas)
    return out


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("ridge", [0.0, 0.3], ids=["plain", "whitened"])
@torch.no_grad()
def test_mend_is_its_definition(style: str, ridge: float) -> None:
    torch.manual_seed(0)
    editor = Mend(SITES, rank=3, n_blocks=2, style=style, whiten=ridge, decouple=0, rate=0.7)
    editor.double()
    for parameter in editor.parameters():
        parameter.add_(torch.randn_like(parameter))
    first, gradients = random_gradients(SITES, 1), random_gradients(SITES, 2)
    moments = random_moments(SITES, 3) if ridge else None
    editor.prime(first, moments)
    editor.eval()
    want = slow_mend(editor, gradients, moments, first, style, ridge)
    for site, delta in editor(Request(gradients)).items():
        torch.testing.assert_close(delta.dense(), want[site], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("style", STYLES)
@torch.no_grad()
def test_mend_learns_its_statistics_in_training_only(style: str) -> None:
    editor = Mend(SITES, rank=3, style=style, whiten=0, decouple=0).double()
    first, second = random_gradients(SITES, 1), random_gradients(SITES, 2)
    editor.prime(first, None)
    editor.train()
    seen = editor(second)
    both = [
        LowRank(torch.cat([a.u, b.u]), torch.cat([a.v, b.v]))
        for a, b in zip(first, second, strict=True)
    ]
    want = slow_mend(editor, second, None, both, style, 0)
    for site, delta in seen.items():  # with the statistics of the batch already in
        torch.testing.assert_close(delta.dense(), want[site], rtol=1e-6, atol=1e-8)
    editor.eval()
    editor(first)
    for normalizer in editor.normalizers:
        assert normalizer.count == 2 * (5 + 5 + 2)


@torch.no_grad()
def test_mend_starts_as_a_step_down_the_gradient() -> None:
    editor = Mend(SITES, rank=3, whiten=0, decouple=0, rate=0.5).double()
    gradients = random_gradients(SITES, 1)
    gradients[0] = gradients[0] * 3.0  # sites share a step as they share the gradient
    editor.prime(gradients, None)
    editor.eval()
    dense = [pair.dense() for pair in gradients]
    factors = [
        delta.dense() / grad
        for delta, grad in zip(editor(Request(gradients)).values(), dense, strict=True)
    ]
    for factor in factors:
        torch.testing.assert_close(factor, factors[0].flatten()[0].expand_as(factor))
    assert factors[0].max() < 0


@torch.no_grad()
def test_published_mend_starts_as_a_step_down_the_gradient_normalised_per_dimension() -> None:
    editor = Mend(SITES, rank=3, style="published", whiten=0, decouple=0, rate=0.5).double()
    gradients = random_gradients(SITES, 1)
    editor.prime(gradients, None)
    editor.eval()
    for i, (site, delta) in enumerate(editor(Request(gradients)).items()):
        z = torch.cat([gradients[i].u, gradients[i].v], -1)
        real = (gradients[i].v != 0).any(-1)
        mean, std = z[real].mean(0), z[real].std(0, correction=0)
        z = (z - mean) / (std + 1e-4 * std.mean()) * real.unsqueeze(-1)
        u, g = z.split([site.d_in, site.d_out], -1)
        want = -0.5 / math.sqrt(site.d_in * site.d_out) * torch.einsum("ero,eri->eoi", g, u)
        torch.testing.assert_close(delta.dense(), want, rtol=1e-6, atol=1e-8)


@torch.no_grad()
def test_mend_decouples_the_terms_of_an_edit_by_their_inputs() -> None:
    gradients, moments = random_gradients(SITES, 1), random_moments(SITES, 3)
    apart, plain = (Mend(SITES, rank=3, decouple=s).double().eval() for s in (0.5, 0.0))
    apart.prime(gradients, moments)
    plain.load_state_dict(apart.state_dict())
    sums = plain(gradients)
    for pair, (site, delta) in zip(gradients, apart(gradients).items(), strict=True):
        inputs = pair.u * (pair.v != 0).any(-1, keepdim=True)
        term_sum = sums[site]
        assert isinstance(term_sum, LowRank)
        want = decouple(term_sum, inputs, 0.5)
        torch.testing.assert_close(delta.dense(), want.dense())
        assert not torch.allclose(delta.dense(), term_sum.dense())


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("whiten", [0.0, 0.1])
def test_mend_s_first_delta_descends(case: Case, style: str, whiten: float) -> None:
    editor = Mend(case.layer.sites, style=style, whiten=whiten, rate=0.5)
    editor.prime(case.gradients, case.bank.moments() if whiten else None)
    editor.eval()
    edits = editor(case.request)
    with torch.no_grad():
        # The derivative of each edit's loss along its delta, from the gradient itself ...
        slope = torch.zeros(E)
        whole = [pair.dense().sum(1) for pair in case.bank.factors(case.index)]
        for gradient, delta in zip(whole, edits.values(), strict=True):
            slope += (gradient * delta.dense()).sum((-2, -1))
        # ... and the loss after a small step.
        nothing, small = case.losses(edits * 0.0), case.losses(edits * 1e-3)
    assert slope.sum() < 0
    assert small.mean() < nothing.mean()
    # K is how many losses a gradient sums up.
    torch.testing.assert_close((small - nothing) * K, 1e-3 * slope, rtol=0.1, atol=2e-5)


@torch.no_grad()
def test_aggregate_is_the_sum_of_the_steps_that_bring_linear_losses_to_zero() -> None:
    generator = torch.Generator().manual_seed(0)

    def factors(d_in: int, d_out: int) -> LowRank:
        sizes = torch.tensor([1.0, 100.0, 0.01]).double()[:, None, None]
        u = torch.randn(2, 3, 2, d_in, dtype=torch.float64, generator=generator)
        return LowRank(u * sizes, torch.randn(2, 3, 2, d_out, dtype=u.dtype, generator=generator))

    pairs = [factors(7, 8), factors(8, 5)]
    losses = torch.rand(2, 3, dtype=torch.float64, generator=generator)
    squares = sum(pair.dense().square().sum((-2, -1)) for pair in pairs)  # (E, K)
    wholes = [(pair.dense() * (losses / squares)[..., None, None]).sum(1) for pair in pairs]
    for rank in (6, 10):
        for exact, whole in zip(aggregate(pairs, losses, rank), wholes, strict=True):
            torch.testing.assert_close(exact.dense(), whole)
    cut = aggregate(pairs, losses, 2)[0]
    assert cut.u.shape == (2, 2, 7)
    error = torch.linalg.matrix_norm(cut.dense() - wholes[0])
    torch.testing.assert_close(error, torch.linalg.svdvals(wholes[0])[:, 2:].norm(dim=-1))


@torch.no_grad()
def test_a_failure_without_any_gradient_adds_nothing() -> None:
    u, v = torch.randn(1, 2, 1, 4), torch.randn(1, 2, 1, 3)
    v[0, 1] = 0
    (pair,) = aggregate([LowRank(u, v)], torch.full((1, 2), 3.0), 5)
    assert pair.dense().isfinite().all()
    alone = v[0, 0].mT @ u[0, 0]
    torch.testing.assert_close(pair.dense()[0], 3 * alone / alone.norm() ** 2)
