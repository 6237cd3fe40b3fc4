"""Mapped caches within bounds, and in fewer digits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import build, samples
from torch import Tensor

from saledit.cache import opening, room
from saledit.cache.bank import Bank, BankSpec
from saledit.cache.opening import bank_key, memory_bank, open_bank
from saledit.cache.room import Room
from saledit.cache.shards import Shard, open_shard
from saledit.config import CachesConfig
from saledit.errors import ArtifactError, ConfigError
from saledit.forward.suffix import run
from saledit.models import TaskModel
from saledit.run.setup.caching import kept_as
from saledit.tasks.nli import Nli

N = 11


@pytest.fixture(scope="module")
def bert() -> TaskModel:
    return build("bert")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_SHARD", 4)


def numbers(bank: Bank) -> list[Tensor]:
    index = torch.tensor([9, 0, 5, 2, 10])
    rows = bank.rows(index)
    factors = [x for pair in bank.factors(index) for x in (pair.u, pair.v)]
    return [*rows.states.values(), *rows.inputs.values(), bank.outputs(index), *factors]


class Pages:
    """What the system says of mapped pages; everything that is touched stays until it is let go."""

    def __init__(self) -> None:
        self.here = 0

    def __call__(self) -> int:
        return self.here


def test_a_bank_is_the_same_however_often_it_is_let_go(
    bert: TaskModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = BankSpec(bert.layer(1), rank=2)
    whole = open_bank(bert, Nli(), samples(N), spec, tmp_path)
    pages = Pages()
    monkeypatch.setattr(room, "_file_pages", pages)
    bound = Room(most=1)
    bank = open_bank(bert, Nli(), samples(N), spec, tmp_path, room=bound)
    pages.here = 10**6
    for _ in range(3):
        for one, other in zip(numbers(whole), numbers(bank), strict=True):
            assert torch.equal(one, other)
    assert bound.dropped > 3
    assert open_bank(bert, Nli(), samples(N), spec, tmp_path, room=(free := Room()))
    numbers(bank)
    assert free.dropped == 0


def test_pages_are_asked_for_only_when_enough_was_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, let_go = [], []
    monkeypatch.setattr(room, "_file_pages", lambda: asked.append(1) or 500)

    class Mapped:
        def drop(self) -> None:
            let_go.append(1)

    here = Room(most=10**7)
    here.hold(Mapped(), 7)
    asked.clear()
    here.touched(1, 100)
    assert not asked
    here.touched(100, 100)  # 512 kB a row may have come with them
    assert asked
    assert not let_go  # the system has dropped them already
    monkeypatch.setattr(room, "_file_pages", lambda: -1)  # it does not say
    here.touched(1, 10**7)
    assert let_go


def test_what_opening_brings_in_is_let_go_before_more_is_opened(
    bert: TaskModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With a shard all of it may come, whatever was read: the system knows, an estimate does not.
    in_memory: list[int] = []
    here = Room(most=2500)

    class Mapped:
        def drop(self) -> None:
            in_memory.clear()

    monkeypatch.setattr(room, "_file_pages", lambda: sum(in_memory))
    for _ in range(20):
        in_memory.append(1000)
        here.hold(Mapped(), 10)
        assert sum(in_memory) <= 2500
    assert here.dropped == 6
    # Nor do small tensors of many shards, copied when a bank is opened, hold on to the pages.
    looks: list[int] = []
    bank = open_bank(bert, Nli(), samples(N), BankSpec(bert.layer(1)), tmp_path, room=here)
    monkeypatch.setattr(Room, "look", lambda _self: looks.append(1))
    again = open_bank(bert, Nli(), samples(N), BankSpec(bert.layer(1)), tmp_path, room=Room(1))
    shards = len(list(tmp_path.rglob("shard-*.safetensors")))
    assert len(looks) >= 2 * shards
    assert torch.equal(bank.losses, again.losses)


def test_what_was_found_and_made_is_counted(bert: TaskModel, tmp_path: Path) -> None:
    spec, first, second = BankSpec(bert.layer(1), rank=2), Room(), Room()
    open_bank(bert, Nli(), samples(N), spec, tmp_path, room=first)
    assert (first.found, first.made) == (0, 3)
    assert first.as_json()["hit_rate"] == 0
    assert first.seconds > 0
    open_bank(bert, Nli(), samples(N), spec, tmp_path, room=second)
    assert (second.found, second.made, second.seconds) == (3, 0, 0)
    files = sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors"))
    assert second.size == files
    assert second.as_json()["hit_rate"] == 1


def test_a_shard_that_is_gone_is_said_by_name(bert: TaskModel, tmp_path: Path) -> None:
    open_bank(bert, Nli(), samples(N), BankSpec(bert.layer(1)), tmp_path)
    path = next(tmp_path.rglob("*.safetensors"))
    shard = Shard(path)
    path.unlink()
    assert "losses" in shard
    shard.drop()
    with pytest.raises(ArtifactError, match="a shard of cached states"):
        shard["losses"]
    assert open_shard(path) is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_fewer_digits_are_kept_of_states_and_factors_alone(
    bert: TaskModel, tmp_path: Path, dtype: torch.dtype
) -> None:
    layer, chosen = bert.layer(1), samples(N)
    plain = memory_bank(bert, Nli(), chosen, BankSpec(layer, rank=2))
    spec = BankSpec(layer, rank=2, dtype=dtype)
    assert bank_key(bert, Nli(), chosen, spec) != bank_key(
        bert, Nli(), chosen, BankSpec(layer, rank=2)
    )
    short = open_bank(bert, Nli(), chosen, spec, tmp_path)
    eps = torch.finfo(dtype).eps
    for one, other in zip(numbers(plain), numbers(short), strict=True):
        assert one.dtype == other.dtype
        assert (one - other).abs().max() <= eps * one.abs().max()
    index = torch.arange(N)
    assert torch.equal(plain.outputs(index), short.outputs(index))
    rows = short.rows(index)
    with torch.no_grad():
        again = run(bert, short.entry, rows.states, rows.inputs)
    assert (again - short.logits).abs().max() < 20 * eps * short.logits.abs().max()
    kept = Shard(next(tmp_path.rglob("*.safetensors")))
    assert kept["u.0"].dtype == kept["tokens.states.attention"].dtype == dtype
    assert kept["outputs"].dtype == kept["losses"].dtype == torch.float32


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dtype": "bf16"}, r"caches\.dtype: unknown name 'bf16'.*bfloat16"),
        ({"memory_mb": -1}, r"caches\.memory_mb: expected at least 0, got -1"),
    ],
)
def test_wrong_settings_are_refused(settings: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        kept_as(CachesConfig(**settings))
