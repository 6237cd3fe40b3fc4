"""Second moments as they are added up: in double precision, of each input once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from saledit.cache.running import RunningSums, means


def batches(n: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Inputs of two kinds (4, 5, .), and which tokens count."""
    draws = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(4, 5, 3, generator=draws),
            torch.randn(4, 5, 6, generator=draws),
            torch.rand(4, 5, generator=draws) < 0.6,
        )
        for _ in range(n)
    ]


def test_sites_that_read_one_input_have_one_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    products: list[int] = []
    real = torch.Tensor.addmm_
    monkeypatch.setattr(
        torch.Tensor, "addmm_", lambda self, *a: products.append(len(self)) or real(self, *a)
    )
    sums, given = RunningSums(), batches(3)
    for x, y, mask in given:
        # A view of one tensor is the same input, a copy is another.
        sums.add([x, y, x[:], x.clone()], [mask] * 4)
    assert products == [3, 6, 3] * 3
    found = sums.tensors()
    assert found["same_as"].tolist() == [0, 1, 0, 3]
    assert set(found) == {"same_as", *(f"{k}.{i}" for k in ("moment", "count") for i in (0, 1, 3))}
    one, two, three, four = means(found, "cpu", range(4))
    assert one is three
    assert torch.equal(one, four)
    for kind, mean in ((0, one), (1, two)):
        z = torch.cat([batch[kind][batch[2]] for batch in given]).double()
        torch.testing.assert_close(mean, z.mT @ z / len(z), rtol=1e-13, atol=1e-13)
    assert means(found, "cpu", [1])[0].shape == (6, 6)


def test_a_sink_does_not_drown_what_others_leave() -> None:
    """One token of a batch a hundred thousand times as large as all others."""
    sums, draws = RunningSums(), torch.Generator().manual_seed(0)
    seen = []
    for _ in range(20):
        x = torch.randn(100, 4, generator=draws)
        x[0] *= 1e5
        seen.append(x)
        sums.add([x], [torch.ones(100, dtype=torch.bool)])
    (found,) = means(sums.tensors(), "cpu", [0])
    z = torch.cat(seen).double()
    assert found.dtype == torch.double
    torch.testing.assert_close(found, z.mT @ z / len(z), rtol=1e-12, atol=0)


def test_sums_are_gone_on_with_and_what_they_are_of_is_left_alone() -> None:
    given, whole, first = batches(4), RunningSums(), RunningSums()
    for x, y, mask in given:
        whole.add([x, y, x], [mask] * 3)
    for x, y, mask in given[:2]:
        first.add([x, y, x], [mask] * 3)
    kept = {name: tensor.clone() for name, tensor in first.tensors().items()}
    again = RunningSums.of(kept, "cpu")
    for x, y, mask in given[2:]:
        again.add([x, y, x], [mask] * 3)
    for name, tensor in whole.tensors().items():
        assert torch.equal(tensor, again.tensors()[name])
    assert all(torch.equal(tensor, kept[name]) for name, tensor in first.tensors().items())
    assert RunningSums().tensors() == {}
