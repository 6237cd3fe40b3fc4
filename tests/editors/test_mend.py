"""Mend against its definition, in slow code that shares nothing with the module."""

from __future__ import annotations

import math

import pytest
import torch
from editing import Case, E, K
from tiny import FAMILIES
from torch import Tensor

from saledit.delta import LowRank
from saledit.editors.hypernet import Hypernet
from saledit.editors.interference import decouple
from saledit.editors.mend import Mend
from saledit.editors.request import Request
from saledit.editors.terms import aggregate
from saledit.site import Site


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def test_mend_s_rate_scales_its_deltas(case: Case) -> None:
    editor = case.editor("mend").eval()
    before = editor(case.request)
    editor.scale_rate(2.5)
    after = editor(case.request)
    for site in before:
        torch.testing.assert_close(after[site].dense(), 2.5 * before[site].dense())


STYLES = ("bottleneck", "published")


@pytest.mark.parametrize("style", STYLES)
def test_no_part_of_the_network_is_stuck_at_its_start(style: str) -> None:
    """Behind a relu at zero the published blocks would never learn."""
    torch.manual_seed(0)
    net = Hypernet(9, 4, 2, 1, style)
    start = {name: p.detach().clone() for name, p in net.named_parameters()}
    z, wanted = torch.randn(20, 9), torch.randn(20, 9)
    torch.testing.assert_close(net(z, 0), z)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (net(z, 0) - wanted).square().mean().backward()
        optimizer.step()
    assert not [name for name, p in net.named_parameters() if torch.equal(p, start[name])]


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
    seen = editor(Request(second))
    both = [
        LowRank(torch.cat([a.u, b.u]), torch.cat([a.v, b.v]))
        for a, b in zip(first, second, strict=True)
    ]
    want = slow_mend(editor, second, None, both, style, 0)
    for site, delta in seen.items():  # with the statistics of the batch already in
        torch.testing.assert_close(delta.dense(), want[site], rtol=1e-6, atol=1e-8)
    editor.eval()
    editor(Request(first))
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
    sums = plain(Request(gradients))
    for pair, (site, delta) in zip(gradients, apart(Request(gradients)).items(), strict=True):
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
        for exact, whole in zip(aggregate(pairs, losses, rank).pairs, wholes, strict=True):
            torch.testing.assert_close(exact.dense(), whole)


@torch.no_grad()
def test_what_is_cut_are_the_smallest_terms_and_none_is_of_two_failures() -> None:
    """Singular directions of the sum would be nearer to it, and each a mixture of failures."""
    draws = torch.Generator().manual_seed(0)
    # Terms of failures 0, 1, 2 in the order of their size; one of failure 1 is padding.
    sizes = torch.tensor([[[9.0, 8.0], [0.5, 0.0], [4.0, 3.0]]]).sqrt()[..., None]
    unit = [torch.nn.functional.normalize(torch.randn(1, 3, 2, d, generator=draws), dim=-1)
            for d in (7, 8)]  # fmt: skip
    pair = LowRank(unit[0] * sizes, unit[1] * sizes)
    square = pair.norm() ** 2
    for rank, wanted in (
        (0, [0, 1, 2, 4, 5]),  # padding is no term
        (5, [0, 1, 2, 4, 5]),
        (4, [0, 1, 2, 4]),
        (3, [0, 2, 4]),  # of each failure one
        (1, [0, 2, 4]),
    ):
        terms = aggregate([pair], square, rank)  # scaled by 1
        assert terms.owners.tolist() == [[i // 2 for i in wanted]]
        (kept,) = terms.pairs
        for mine, whole in ((kept.u, pair.u), (kept.v, pair.v)):
            torch.testing.assert_close(mine, whole.flatten(1, 2)[:, wanted])


@torch.no_grad()
def test_terms_are_the_same_at_all_sites_however_these_differ_in_scale() -> None:
    draws = torch.Generator().manual_seed(0)
    first = LowRank(
        torch.randn(2, 4, 3, 5, generator=draws), torch.randn(2, 4, 3, 6, generator=draws)
    )
    terms = aggregate([first, LowRank(first.u * 1e2, first.v * 1e2)], torch.ones(2, 4), 7)
    assert terms.owners.shape == (2, 7)
    small, large = (pair.dense() for pair in terms.pairs)
    torch.testing.assert_close(small * 1e4, large)


@torch.no_grad()
def test_a_failure_without_any_gradient_adds_nothing() -> None:
    u, v = torch.randn(1, 2, 1, 4), torch.randn(1, 2, 1, 3)
    v[0, 1] = 0
    (pair,) = aggregate([LowRank(u, v)], torch.full((1, 2), 3.0), 5).pairs
    assert pair.dense().isfinite().all()
    alone = v[0, 0].mT @ u[0, 0]
    torch.testing.assert_close(pair.dense()[0], 3 * alone / alone.norm() ** 2)


def test_a_loss_that_is_rounded_below_zero_makes_no_nan() -> None:
    pair = LowRank(torch.ones(1, 2, 1, 3), torch.ones(1, 2, 1, 4))
    terms = aggregate([pair], torch.tensor([[-1e-7, 1.0]]), 0)
    assert torch.isfinite(terms.pairs[0].dense()).all()
    assert terms.owners.tolist() == [[1]]


@torch.no_grad()
def test_the_first_rate_is_the_norm_of_a_delta_of_one_term() -> None:
    for rate in (0.5, 2.0):
        editor = Mend(SITES, rank=3, whiten=0, decouple=0, rate=rate).double()
        many = [
            LowRank(torch.randn(400, 1, s.d_in).double(), torch.randn(400, 1, s.d_out).double())
            for s in SITES
        ]
        editor.prime(many, None)
        norms = editor.eval()(Request(many)).norm()
        assert float(norms.square().mean().sqrt()) == pytest.approx(rate, rel=0.05)
