"""Second moments of a bank: one sum over its shards, in which each counts once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tiny_text
import torch
from tiny import build, encode, samples
from torch import Tensor

from saledit import distributed
from saledit.cache import opening
from saledit.cache.bank import Bank, BankSpec
from saledit.cache.opening import memory_bank, open_bank, open_several
from saledit.cache.room import Room
from saledit.cache.shards import Shard
from saledit.cache.sums import open_sums, sum_up, summed
from saledit.errors import ArtifactError
from saledit.models import TaskModel
from saledit.tap import tap
from saledit.tasks.nli import Nli

N, TASK = 11, Nli()


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_SHARD", 4)  # 11 samples: 4 + 4 + 3


@pytest.fixture(scope="module", params=["bert", "llama"])
def base(request: pytest.FixtureRequest) -> TaskModel:
    return build(request.param)


def spec_of(base: TaskModel) -> BankSpec:
    return BankSpec(base.layer(1), moments=True)


def opened(base: TaskModel, folder: Path, room: Room | None = None) -> Bank:
    return open_bank(base, TASK, samples(N), spec_of(base), folder, room=room)


def place_of(folder: Path) -> Path:
    (path,) = folder.rglob("moments.safetensors")
    return path


def means(base: TaskModel) -> list[Tensor]:
    """Of all samples, each by itself."""
    layer = base.layer(1)
    seen: list[list[Tensor]] = [[] for _ in layer.sites]
    with torch.no_grad():
        for sample in samples(N):
            with tap(base.model, layer.sites) as tape:
                base.model(**encode(base, [sample]))
            for kept, site in zip(seen, layer.sites, strict=True):
                kept.append(tape.inputs[site][0].double())
    return [(x := torch.cat(parts)).T @ x / len(x) for parts in seen]


def assert_same(bank: Bank, want: list[Tensor]) -> None:
    for got, moment in zip(bank.moments(), want, strict=True):
        assert torch.equal(got, moment)


def assert_right(bank: Bank, base: TaskModel) -> None:
    # States of a sample alone and of one in a batch are single precision.
    for got, want in zip(bank.moments(), means(base), strict=True):
        assert got.dtype == torch.float64
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_sums_are_of_all_samples(base: TaskModel, tmp_path: Path) -> None:
    bank = opened(base, tmp_path)
    assert_right(bank, base)
    assert_same(memory_bank(base, TASK, samples(N), spec_of(base)), bank.moments())
    assert_same(opened(base, tmp_path), bank.moments())
    parts = [memory_bank(base, TASK, samples(N)[i : i + 4], spec_of(base)) for i in (0, 4, 8)]
    tokens = [float(part.lengths.sum()) for part in parts]
    for i, got in enumerate(bank.moments()):
        total = sum(n * part.moments()[i] for n, part in zip(tokens, parts, strict=True))
        torch.testing.assert_close(got, total / sum(tokens), rtol=1e-13, atol=1e-13)


def test_a_bank_keeps_one_matrix_for_each_input(base: TaskModel, tmp_path: Path) -> None:
    room = Room()
    opened(base, tmp_path, room)
    files = sorted(tmp_path.rglob("*.safetensors"))
    assert [path.name[:6] for path in files] == ["moment", "shard-", "shard-", "shard-"]
    assert room.size == sum(path.stat().st_size for path in files)
    sums = Shard(files[0])
    sites = base.layer(1).sites
    # bert: intermediate and output; llama: gate and up read one input, and down another
    firsts = [0, 1] if len(sites) == 2 else [0, 0, 2]
    assert sums["same_as"].tolist() == firsts
    assert sums["shards"].tolist() == [0, 1, 2]
    names = {f"{kind}.{i}" for kind in ("moment", "count") for i in firsts}
    assert set(sums) == names | {"same_as", "shards"}
    for i in firsts:
        assert sums[f"moment.{i}"].shape == (sites[i].d_in, sites[i].d_in)
        assert sums[f"moment.{i}"].dtype == torch.float64
    assert not any(
        "moment" in name or "count" in name for path in files[1:] for name in Shard(path)
    )


def test_a_bank_without_them_keeps_none(base: TaskModel, tmp_path: Path) -> None:
    open_bank(base, TASK, samples(N), BankSpec(base.layer(1)), tmp_path)
    assert {path.name[:6] for path in tmp_path.rglob("*.safetensors")} == {"shard-"}


class Killed(BaseException):
    """The end of a process."""


@pytest.mark.parametrize("before", ["sum", "shard"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_shard_counts_once_whenever_a_build_is_killed(
    base: TaskModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, number: int
) -> None:
    whole = opened(base, tmp_path / "whole").moments()
    name = {"sum": "sum_up", "shard": "keep_tensors"}[before]
    real, left = getattr(opening, name), [number]

    def killed(*args: Any) -> None:
        if not left[0]:
            raise Killed
        left[0] -= 1
        real(*args)

    monkeypatch.setattr(opening, name, killed)
    with pytest.raises(Killed):
        opened(base, tmp_path / "cut")
    monkeypatch.setattr(opening, name, real)
    here = tmp_path / "cut" / place_of(tmp_path / "whole").parent.name
    assert len([*here.glob("shard-*.safetensors")]) == number
    assert summed(here) == [*range(number + (before == "shard"))]
    bank = opened(base, tmp_path / "cut")
    assert_same(bank, whole)
    one, other = (place_of(tmp_path / home).read_bytes() for home in ("whole", "cut"))
    assert one == other


def test_what_is_not_in_the_sum_is_made_again(
    base: TaskModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = opened(base, tmp_path).moments()
    sums = place_of(tmp_path)
    content = sums.read_bytes()
    shard = next(tmp_path.rglob("shard-00001.safetensors"))
    was = shard.read_bytes()
    # Only two shards are in: all others of the files are whole.
    sums.unlink()
    first = [memory_bank(base, TASK, samples(N)[i : i + 4], spec_of(base)) for i in (0, 8)]
    for number, bank in zip((0, 2), first, strict=True):
        assert bank._sums is not None
        sum_up(sums.parent, number, {**bank._sums})
    assert summed(sums.parent) == [0, 2]
    room, asked = Room(), []
    real = opening.build

    def build_and_tell(base: Any, task: Any, chosen: Any, specs: Any) -> Any:
        asked.append((len(chosen), [spec.moments for spec in specs]))
        return real(base, task, chosen, specs)

    monkeypatch.setattr(opening, "build", build_and_tell)
    again = opened(base, tmp_path, room)
    assert asked == [(4, [True])]
    assert (room.found, room.made) == (2, 1)
    for got, want in zip(again.moments(), whole, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-13)
    assert shard.read_bytes() == was
    # The other way round: a shard that is gone is in the sum already.
    sums.write_bytes(content)
    shard.unlink()
    assert_same(opened(base, tmp_path), whole)
    assert asked[1:] == [(4, [False])]
    assert (shard.read_bytes(), sums.read_bytes()) == (was, content)


@pytest.mark.parametrize("damage", ["cut", "empty", "garbage", "gone", "other"])
def test_a_damaged_sum_is_made_anew(base: TaskModel, tmp_path: Path, damage: str) -> None:
    whole = opened(base, tmp_path).moments()
    sums = place_of(tmp_path)
    content = sums.read_bytes()
    other = content.replace(b'"seal":"', b'"seal":"0', 1)
    damaged = {"cut": content[:-9], "empty": b"", "garbage": b"\x80" * 99, "other": other}
    sums.unlink()
    if damage in damaged:
        sums.write_bytes(damaged[damage])
    assert_same(opened(base, tmp_path), whole)
    assert sums.read_bytes() == content


def test_of_several_layers_each_has_its_own(base: TaskModel, tmp_path: Path) -> None:
    specs = [BankSpec(layer, moments=True) for layer in base.layers()]
    specs[2] = BankSpec(base.layer(2))
    for known in (specs[1:2], specs):  # the first is there when the others are made
        banks = open_several(base, TASK, samples(N), known, tmp_path)
    assert len([*tmp_path.rglob("moments.safetensors")]) == len(specs) - 1
    for spec, bank in zip(specs, banks, strict=True):
        if spec.moments:
            assert_same(bank, memory_bank(base, TASK, samples(N), spec).moments())


def test_what_sites_of_an_encoder_decoder_share(tmp_path: Path) -> None:
    """Cross attention: q reads the decoder's states, k and v the encoder's."""
    base, task, chosen = tiny_text.build("t5"), tiny_text.task(), tiny_text.samples(N)
    for layer in base.layers():
        spec = BankSpec(layer, moments=True)
        bank = open_bank(base, task, chosen, spec, tmp_path)
        assert_same(memory_bank(base, task, chosen, spec), bank.moments())


def test_processes_share_a_sum(
    base: TaskModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of two its own shards, the second one first; then the sum is whole for both."""
    whole = opened(base, tmp_path / "whole").moments()
    monkeypatch.setattr(distributed, "world_size", lambda: 2)

    def meet(new: list[bool], _n: int) -> list[bool]:
        raise Killed

    monkeypatch.setattr(distributed, "all_gather_shares", meet)
    for rank, held in ((1, [1]), (0, [0, 1, 2])):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        with pytest.raises(Killed):
            opened(base, tmp_path / "two")
        assert summed(place_of(tmp_path / "two").parent) == held
    monkeypatch.setattr(distributed, "all_gather_shares", lambda new, n: [True] * n)
    banks = [opened(base, tmp_path / "two") for _ in range(2)]
    assert_same(banks[0], banks[1].moments())
    for got, want in zip(banks[0].moments(), whole, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-13)


def sums_of(seed: int, same_as: Sequence[int] = (0, 1, 0)) -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(5, d, generator=draws).double() for d in (3, 4))
    out = {"same_as": torch.tensor(same_as)}
    for i in set(same_as):
        inputs = (x, y, x)[i]
        out |= {f"moment.{i}": inputs.T @ inputs, f"count.{i}": torch.tensor(len(inputs))}
    return out


def test_many_add_up_at_once(tmp_path: Path) -> None:
    n = 24
    with ThreadPoolExecutor(8) as pool:
        # Each twice: whoever comes second has nothing to add.
        [*pool.map(lambda i: sum_up(tmp_path, i % n, sums_of(i % n)), range(2 * n))]
    assert summed(tmp_path) == [*range(n)]
    sums = open_sums(tmp_path, n)
    assert sums["same_as"].tolist() == [0, 1, 0]
    assert set(sums) == {"moment.0", "count.0", "moment.1", "count.1", "same_as", "shards"}
    for i in (0, 1):
        want = sum(sums_of(seed)[f"moment.{i}"] for seed in range(n))
        torch.testing.assert_close(sums[f"moment.{i}"], want, rtol=1e-13, atol=1e-13)
        assert sums[f"count.{i}"] == 5 * n
    with pytest.raises(ArtifactError, match="of 25 shards, got those of 24; start again"):
        open_sums(tmp_path, n + 1)


def test_sums_that_tell_other_inputs_apart_are_not_added_to(tmp_path: Path) -> None:
    """Those of another version, say: the shards are then made again."""
    sum_up(tmp_path, 0, sums_of(0, (0, 1, 2)))
    sum_up(tmp_path, 1, sums_of(1))
    assert summed(tmp_path) == [1]
    assert torch.equal(open_sums(tmp_path, 1)["moment.0"], sums_of(1)["moment.0"])
