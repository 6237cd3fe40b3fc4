"""MALMEN against its definition: a least-squares problem, solved as one in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from saledit.delta import Dense, LowRank
from saledit.editors.malmen import Malmen
from saledit.editors.mend import Mend
from saledit.editors.request import Request
from saledit.editors.terms import aggregate
from saledit.moments import whitener
from saledit.site import Site

SITES = (Site("a", 5, 4), Site("b", 4, 6), Site("c", 5, 4))


def gradients(terms: int, seed: int = 0) -> list[LowRank]:
    draws = torch.Generator().manual_seed(seed)

    def factor(size: int) -> Tensor:
        return torch.randn(3, terms, size, dtype=torch.float64, generator=draws)

    pairs = [LowRank(factor(site.d_in), 0.01 * factor(site.d_out)) for site in SITES]
    for pair in pairs:
        pair.v[0, 2:] = 0  # padding; its u must not matter
    return pairs


def moment(site: Site) -> Tensor:
    root = torch.randn(9, site.d_in, dtype=torch.float64)
    return root.T @ root / 9


def slow(keys: Tensor, wanted: Tensor, ridge: float, prior: Tensor) -> Tensor:
    """argmin |K X - D|^2 + ridge tr(X^T prior X), by least squares of the stacked problem."""
    root = torch.linalg.cholesky(prior).T
    above = torch.cat([keys, math.sqrt(ridge) * root])
    below = torch.cat([wanted, wanted.new_zeros(len(root), wanted.shape[1])])
    return torch.linalg.lstsq(above, below).solution.T


@pytest.mark.parametrize("terms", [3, 12], ids=["among terms", "among dimensions"])
@pytest.mark.parametrize("whiten", [0.0, 0.3])
@torch.no_grad()
def test_malmen_is_the_ridge_solution_of_what_terms_do_alone(terms: int, whiten: float) -> None:
    torch.manual_seed(0)
    editor = Malmen(SITES, rank=3, style="published", whiten=whiten).double().eval()
    for parameter in editor.parameters():
        parameter.add_(torch.randn_like(parameter))
    given, moments = gradients(terms), [moment(site) for site in SITES]
    editor.prime(gradients(terms, 1), moments if whiten else None)
    # The same network with a plain sum says what each term is.
    sums = Mend(SITES, rank=3, style="published", whiten=whiten, decouple=0).double().eval()
    sums.load_state_dict({n: t for n, t in editor.state_dict().items() if n != "log_ridge"})
    together = editor(Request(given))
    for i, (site, terms_of) in enumerate(sums(Request(given)).items()):
        assert isinstance(terms_of, LowRank)
        prior = torch.eye(site.d_in, dtype=torch.float64)
        if whiten:
            prior = torch.linalg.inv(whitener(moments[i], whiten))
        for e in range(3):
            real = (given[i].v[e] != 0).any(-1)
            u, v, raw = terms_of.u[e][real], terms_of.v[e][real], given[i].u[e][real]
            keys = raw / raw.norm(dim=1, keepdim=True)
            wanted = torch.stack([(a @ k) * b for a, b, k in zip(u, v, keys, strict=True)])
            want = slow(keys, wanted, float(editor.log_ridge[i].exp()), prior)
            torch.testing.assert_close(together[site].dense()[e], want, rtol=1e-6, atol=1e-9)
    kind = LowRank if terms <= 4 else Dense
    assert all(isinstance(delta, kind) for delta in together.values())


@torch.no_grad()
def test_without_a_ridge_every_failure_gets_what_it_would_alone() -> None:
    (given,) = gradients(3, 2)[:1]
    given.v[0] = gradients(3, 3)[0].v[1]  # no padding
    editor = Malmen(SITES[:1], rank=3, whiten=0).double().eval()
    editor.log_ridge.fill_(-40.0)
    editor.prime([given], None)
    together = editor(Request([given]))[SITES[0]].dense()
    for j in range(3):
        one = LowRank(given.u[:, j : j + 1], given.v[:, j : j + 1])
        alone = editor(Request([one]))[SITES[0]].dense()
        effect = [torch.einsum("eoi,ei->eo", d, given.u[:, j]) for d in (together, alone)]
        torch.testing.assert_close(*effect)


@pytest.mark.parametrize("k", [1, 3, 7])
def test_all_terms_are_kept_where_none_are_to_be_cut(k: int) -> None:
    draws = torch.Generator().manual_seed(0)
    pair = LowRank(*(torch.randn(2, k, 3, d, generator=draws) for d in (5, 4)))
    (kept,) = aggregate([pair], torch.rand(2, k, generator=draws), 0).pairs
    assert kept.rank == 3 * k
