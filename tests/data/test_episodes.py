"""Edit batches and the order in which samples are dealt out."""

from __future__ import annotations

from collections import Counter
from copy import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from tiny import build, samples
from torch import Tensor

from saledit.cache import opening
from saledit.cache.bank import BankSpec
from saledit.config import ScheduleConfig, TrainConfig
from saledit.data.datamodule import EditDataModule, Episodes, TestEpisodes, _deck
from saledit.data.episodes import EditBatch
from saledit.data.made import reworded
from saledit.data.part_banks import PartBanks, open_banks
from saledit.data.splits import Part
from saledit.editors.terms import Ranks, Terms
from saledit.forward.rows import Rows
from saledit.forward.suffix import run
from saledit.models import TaskModel
from saledit.tasks.nli import Nli

N_FAIL, N_PASS, PER_FAIL, RANK = 7, 9, 3, 4


@pytest.fixture(scope="module")
def base() -> TaskModel:
    return build("bert")


@pytest.fixture(scope="module")
def part() -> Part:
    chosen = samples(N_FAIL + N_PASS + 30, seed=4)
    spare = iter(chosen[N_FAIL + N_PASS :])
    # 0, 1, 2, 3, 0, 1, 2 rewordings
    adapt = tuple(tuple(next(spare) for _ in range(i % 4)) for i in range(N_FAIL))
    return Part(tuple(chosen[:N_FAIL]), adapt, tuple(chosen[N_FAIL : N_FAIL + N_PASS]))


@pytest.fixture(scope="module")
def banks(base: TaskModel, part: Part, tmp_path_factory: pytest.TempPathFactory) -> PartBanks:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "_SHARD", 4)
        (made,) = open_banks(
            base, Nli(), part, [BankSpec(base.layer(1), RANK)], tmp_path_factory.mktemp("banks")
        )
        yield made


def dealt(length: int, edits: int = 2, k: int = 2, seed: int = 0, epoch: int = 0) -> list[Tensor]:
    """Positions of the failures of an epoch's batches."""
    seen: list[Tensor] = []

    class Spy:
        n_real, n_made = N_FAIL, 0

        def draw_passes(self, fail: Tensor, count: int, draws: torch.Generator) -> Tensor:
            return torch.randint(N_PASS, (len(fail), count), generator=draws)

        def draw_rewordings(self, fail: Tensor, draws: torch.Generator) -> None:
            return None

        def batch(self, fail: Tensor, passing: Tensor, rank: int, column: object) -> None:
            assert passing.shape == (edits, 3)
            seen.append(torch.cat([fail, passing], 1))

    episodes = Episodes(Spy(), k, edits, 3, RANK, length, seed, epoch)  # type: ignore[arg-type]
    assert len(episodes) == length
    for i in range(length):
        episodes[i]
    return seen


def test_rows_of_an_edit_lie_side_by_side(base: TaskModel, part: Part, banks: PartBanks) -> None:
    fail, passing = torch.tensor([[6, 1], [3, 0], [2, 2]]), torch.tensor([[8], [0], [4]])
    batch = banks.batch(fail, passing, RANK)
    logits = run(base, banks.fail.entry, batch.rows.states, batch.rows.inputs)
    grouped = logits.view(3, -1, logits.shape[-1])
    known = {s.id: banks.fail.logits[i] for i, s in enumerate(part.fail)}
    rewordings = [s for group in part.adapt for s in group]
    known |= {s.id: banks.adapt.logits[i] for i, s in enumerate(rewordings)}
    known |= {s.id: banks.passing.logits[i] for i, s in enumerate(part.passing)}
    assert grouped.shape[1] == 2 + 2 * PER_FAIL + 1
    for e in range(3):
        row = [known[part.fail[i].id] for i in fail[e]]
        for i in fail[e].tolist():
            own = [known[s.id] for s in part.adapt[i]]
            row += own + [banks.adapt.logits[0]] * (PER_FAIL - len(own))
        row += [known[part.passing[i].id] for i in passing[e]]
        torch.testing.assert_close(grouped[e], torch.stack(row), rtol=1e-4, atol=1e-4)


def test_fillers_weigh_nothing(part: Part, banks: PartBanks) -> None:
    fail = torch.arange(N_FAIL - 1).view(2, 3)
    batch = banks.batch(fail, torch.zeros(2, 2, dtype=torch.long), RANK)
    assert batch.n_fail == 3
    assert batch.weights.shape == batch.targets.shape == (2, 3 + 3 * PER_FAIL)
    assert (batch.weights[:, :3] == 1).all()
    wanted = [[[1.0] * (i % 4) + [0.0] * (PER_FAIL - i % 4) for i in row] for row in fail.tolist()]
    assert torch.equal(batch.weights[:, 3:].view(2, 3, PER_FAIL), torch.tensor(wanted))
    targets = batch.targets[:, 3:].view(2, 3, PER_FAIL)
    for e, row in enumerate(fail.tolist()):
        for j, i in enumerate(row):
            expected = Nli().targets(build("bert"), part.adapt[i])
            assert torch.equal(targets[e, j, : i % 4], expected)


def test_training_takes_one_rewording_of_each_failure(banks: PartBanks) -> None:
    draws = torch.Generator().manual_seed(0)
    fail = torch.arange(N_FAIL)[None].repeat(40, 1)  # 40 edits of all failures
    column = banks.draw_rewordings(fail, draws)
    assert column is not None
    batch = banks.batch(fail, torch.zeros(40, 1, dtype=torch.long), RANK, column)
    assert batch.targets.shape == (40, 2 * N_FAIL)
    own = torch.tensor([float(i % 4 > 0) for i in range(N_FAIL)])
    assert torch.equal(batch.weights[:, N_FAIL:], own.expand(40, -1))
    for i in range(N_FAIL):  # each of its rewordings has its turn
        assert set(column[:, i].tolist()) == set(range(max(1, i % 4)))
    index = banks.adapt_index[fail, column]
    assert torch.equal(batch.targets[:, N_FAIL:], banks.adapt.targets[index])


def test_without_rewordings_there_are_no_fillers(
    base: TaskModel, part: Part, tmp_path: Path
) -> None:
    bare = Part(part.fail, ((),) * N_FAIL, part.passing)
    (made,) = open_banks(base, Nli(), bare, [BankSpec(base.layer(2), RANK)], tmp_path)
    assert made.adapt is None
    batch = made.batch(torch.tensor([[0, 1]]), torch.tensor([[3]]), RANK)
    assert batch.targets.shape == batch.weights.shape == (1, 2)


def test_the_steps_of_an_edit_s_failures_are_summed(base: TaskModel, banks: PartBanks) -> None:
    fail = torch.tensor([[0, 4], [5, 2]])
    batch = banks.batch(fail, torch.zeros(2, 1, dtype=torch.long), 2 * RANK)
    single = [pair.dense() for pair in banks.fail.factors(fail)]  # a site: (E, K, D_out, D_in)
    squares = torch.stack([dense.square().sum((-2, -1)) for dense in single]).sum(0)
    losses = Nli().losses(base, banks.fail.logits[fail], banks.fail.targets[fail])
    for pair, dense in zip(batch.terms.pairs, single, strict=True):
        expected = (dense * (losses / squares)[..., None, None]).sum(1)
        torch.testing.assert_close(pair.dense(), expected, rtol=1e-4, atol=1e-4)
    cut = banks.batch(fail, torch.zeros(2, 1, dtype=torch.long), 3)
    assert all(pair.rank == 3 for pair in cut.terms.pairs)


def equal(a: EditBatch, b: EditBatch) -> bool:
    pairs = [(a.targets, b.targets), (a.weights, b.weights), (a.base_outputs, b.base_outputs)]
    pairs += [(a.rows.inputs["input_ids"], b.rows.inputs["input_ids"])]
    pairs += [(x.u, y.u) for x, y in zip(a.terms.pairs, b.terms.pairs, strict=True)]
    return all(x.shape == y.shape and torch.equal(x, y) for x, y in pairs)


def numbered(edits: int, edit: int, passing: int, width: int) -> EditBatch:
    """A batch of text whose rows, targets and outputs are their own numbers."""
    size = edit + passing
    number = torch.arange(edits * size).view(edits, size)
    rows = Rows({"input_ids": number.view(-1, 1)}, {}, number.view(-1, 1).repeat(1, width))
    weights = (number[:, :edit] % 3 > 0).float()  # fillers among them
    wide = number[..., None].repeat(1, 1, width)
    empty = torch.zeros(0, dtype=torch.long)
    return EditBatch(
        Terms([], empty), rows, wide[:, :edit], weights, edit,
        wide[:, edit:, :, None].double(), wide[:, edit:], (empty, empty, empty), Ranks(1, 1),
    )  # fmt: skip


@given(
    st.integers(1, 4), st.integers(1, 80), st.integers(1, 80), st.integers(1, 4),
    st.integers(1, 90), st.integers(1, 200), st.integers(0, 3),
)  # fmt: skip
@example(1, 1000, 1, 1, 50, 50, 0)
@example(2, 2000, 1, 2, 50, 99, 0)
@example(2, 1, 1000, 3, 50, 60, 0)
@example(1, 1000, 1000, 1, 50, 50, 1)
@example(1, 1, 1, 1, 1, 1, 0)
def test_parts_are_no_larger_than_they_may_be_and_each_row_is_in_one(
    edits: int, edit: int, passing: int, width: int, rows: int, positions: int, more: int
) -> None:
    batch = numbered(edits, edit, passing, width)
    size = edit + passing
    n = batch.cuts(rows, positions)
    assert (n == 1) == (size == 1 or (len(batch) <= rows and batch.n_scored <= positions))
    parts = list(batch.parts(n + more))  # of several processes each cuts as often as any
    assert len(parts) == min(n + more, size)
    weight, total = torch.zeros(2, dtype=torch.double), float(batch.weights.sum())
    seen = []
    for cut in parts:
        part, share, pass_share = cut.batch, cut.share, cut.pass_share
        every = torch.arange(len(batch)).view(edits, -1)
        assert torch.equal(part.targets[..., 0], every[:, cut.edit])
        assert torch.equal(part.pass_targets[..., 0], every[:, edit + cut.passing])
        assert len(part) <= max(rows, edits)  # a row of each edit at least
        assert part.n_scored <= max(positions, edits * width)
        ids = part.rows.inputs["input_ids"].view(edits, -1)
        assert torch.equal(ids, torch.cat([part.targets, part.pass_targets], 1)[..., 0])
        assert torch.equal(part.base_outputs[..., 0], part.pass_targets.double())
        assert torch.equal(part.weights, (part.targets[..., 0] % 3 > 0).float())
        assert share * total == pytest.approx(float(part.weights.sum()), rel=1e-12)
        assert pass_share * passing == pytest.approx(part.pass_targets.shape[1], rel=1e-12)
        weight += torch.tensor([share, pass_share])
        seen.append(ids)
    assert torch.equal(torch.cat(seen, 1).sort(1).values, torch.arange(len(batch)).view(edits, -1))
    torch.testing.assert_close(weight, torch.tensor([float(total > 0), 1.0]).double())


def test_a_batch_depends_on_seed_epoch_and_number_alone(banks: PartBanks) -> None:
    def episodes(seed: int = 0, epoch: int = 3, length: int = 6) -> Episodes:
        return Episodes(banks, 2, 3, 4, RANK, length, seed, epoch)

    first, second = episodes(), episodes()
    second[0], second[1]  # what was drawn before does not matter
    for i in (4, 2, 2, 5):
        assert equal(first[i], second[i])
    assert not equal(first[0], first[1])
    assert not equal(first[0], episodes(epoch=4)[0])
    assert not equal(first[0], episodes(seed=1)[0])
    # Nor does the length of the epoch: a deck is dealt from its top.
    assert equal(first[1], episodes(length=2)[1])


@given(st.integers(1, 40), st.integers(1, 200), st.integers(1, 45), st.integers(0, 9))
@example(12, 200, 10, 0)
def test_a_deck_deals_every_card_about_equally_often_and_none_twice_in_an_edit(
    n: int, length: int, k: int, seed: int
) -> None:
    deck = _deck(n, length, k, torch.Generator().manual_seed(seed)).tolist()
    assert len(deck) == length
    counts = Counter(deck)
    often = [counts[i] for i in range(n)]
    assert max(often) - min(often) <= 1
    for first in range(0, length, k):
        edit = deck[first : first + k]
        assert k > n or len(set(edit)) == len(edit)
    draws = torch.Generator().manual_seed(seed)
    if n % k == 0:  # whole shuffles, as they come
        assert (
            deck
            == [x for _ in range(0, length, n) for x in torch.randperm(n, generator=draws)][:length]
        )


def test_an_epoch_deals_every_failure_about_equally_often() -> None:
    batches = dealt(length=10, edits=3, k=2)  # 60 places for 7 failures
    counts = Counter(torch.cat([b[:, :2].flatten() for b in batches]).tolist())
    assert sorted(counts) == list(range(N_FAIL))
    assert max(counts.values()) - min(counts.values()) <= 1
    passes = Counter(torch.cat([b[:, 2:].flatten() for b in batches]).tolist())
    assert sorted(passes) == list(range(N_PASS))


def test_epochs_and_seeds_deal_anew() -> None:
    def fingerprint(seed: int, epoch: int) -> tuple[int, ...]:
        return tuple(torch.cat(dealt(3, seed=seed, epoch=epoch)).flatten().tolist())

    seen = {fingerprint(seed, epoch) for seed in range(4) for epoch in range(4)}
    assert len(seen) == 16
    assert fingerprint(2, 3) == fingerprint(2, 3)


@pytest.mark.parametrize(
    ("k", "edits", "shapes"),
    [
        (1, 3, [(3, 1), (3, 1), (1, 1)]),
        (3, 2, [(2, 3), (1, 1)]),
        (2, 2, [(2, 2), (1, 2), (1, 1)]),
        (7, 4, [(1, 7)]),
        (9, 4, [(1, 7)]),
    ],
)
def test_each_failure_is_tested_once_and_the_last_edit_may_be_smaller(
    banks: PartBanks, k: int, edits: int, shapes: list[tuple[int, int]]
) -> None:
    test = TestEpisodes(banks, k, edits, 4, RANK, 0)
    assert [tuple(group.shape) for group in test.groups] == shapes
    flat = torch.cat([group.flatten() for group in test.groups]).tolist()
    assert flat == list(range(N_FAIL))
    assert len(test) == len(shapes)
    for i, (e, size) in enumerate(shapes):
        batch = test[i]
        assert batch.n_fail == size
        assert batch.targets.shape[0] == e
        assert batch.base_outputs.shape[:2] == (e, 4)


def test_dealt_edits_hold_every_failure_about_equally_often(banks: PartBanks) -> None:
    test = TestEpisodes(banks, 3, 4, 4, RANK, 0, dealt=10)
    assert [tuple(group.shape) for group in test.groups] == [(4, 3), (4, 3), (2, 3)]
    times = torch.cat([group.flatten() for group in test.groups]).bincount(minlength=N_FAIL)
    assert times.tolist() != [0] * N_FAIL
    assert times.max() - times.min() <= 1
    again = TestEpisodes(banks, 3, 4, 4, RANK, 0, dealt=10)
    assert all(torch.equal(a, b) for a, b in zip(test.groups, again.groups, strict=True))


@pytest.mark.parametrize(("passes", "count"), [(0, N_PASS), (4, 4), (99, N_PASS)])
def test_pass_samples_of_a_test_edit_are_drawn_without_repeats(
    banks: PartBanks, passes: int, count: int
) -> None:
    test = TestEpisodes(banks, 2, 2, passes, RANK, seed=1)
    for drawn in test._passing:
        assert all(len(set(row.tolist())) == len(row) == count for row in drawn)
    again = TestEpisodes(banks, 2, 2, passes, RANK, seed=1)
    assert all(equal(test[i], again[i]) for i in range(len(test)))


def test_the_data_module_deals_by_configuration(banks: PartBanks) -> None:
    config = TrainConfig(edits_per_step=2, passes_per_edit=5, steps_per_epoch=3, validation_edits=4)
    data = EditDataModule(banks, banks, ScheduleConfig(batch_size=50), config, RANK, seed=0)
    batches = list(data.train_dataloader())
    assert len(batches) == 3
    # An edit holds no more failures than there are.
    assert {(b.targets.shape[0], b.n_fail) for b in batches} == {(2, N_FAIL)}
    assert all(equal(a, b) for a, b in zip(batches, data.train_dataloader(), strict=True))
    # Four edits, two at a time, the same ones in every epoch.
    held = list(data.val_dataloader())
    assert [(b.targets.shape[0], b.n_fail) for b in held] == [(2, N_FAIL)] * 2
    assert all(equal(a, b) for a, b in zip(held, data.val_dataloader(), strict=True))


def test_all_pass_samples_of_a_validation_are_counted(banks: PartBanks) -> None:
    """0 stands for all of them, as in a test: their logits have to fit as well."""
    seen = []
    for passes in (0, 99, N_PASS, 1):
        config = TrainConfig(edits_per_step=6, validation_edits=6, validation_passes=passes)
        schedule = ScheduleConfig(batch_size=2)
        rows = 2 * (1 + PER_FAIL) + N_PASS
        data = EditDataModule(banks, banks, schedule, config, RANK, 0, positions=2 * rows)
        seen.append([(len(b.targets), b.pass_targets.shape[1]) for b in data.val_dataloader()])
    assert seen == [[(2, N_PASS)] * 3] * 3 + [[(3, 1)] * 2]


def test_made_failures_share_the_rewordings_that_are_known(
    base: TaskModel, part: Part, tmp_path: Path
) -> None:
    made = list(reworded(part.fail, part.adapt, ()))
    own = replace(
        part, made=tuple(m.sample for m in made), made_from=(-1,) * len(made),
        made_adapt=tuple(m.rewordings for m in made),
    )  # fmt: skip
    spec = BankSpec(base.layer(1), RANK)
    (plain,), (more,) = (open_banks(base, Nli(), p, [spec], tmp_path) for p in (part, own))
    assert plain.adapt is not None
    assert more.adapt is not None
    # Only the failures themselves are new as rewordings.
    reworded_ones = sum(1 for group in part.adapt if group)
    assert len(more.adapt) == len(plain.adapt) + reworded_ones
    assert torch.equal(more.adapt_index[:N_FAIL, : plain.adapt_index.shape[1]], plain.adapt_index)
    for i, one in enumerate(made, start=N_FAIL):
        places = more.adapt_index[i][more.adapt_weight[i] > 0]
        wanted = [base.tokenizer(*s.inputs)["input_ids"] for s in one.rewordings]
        rows = more.adapt.rows(places)
        for ids, mask, own_ids in zip(
            rows.inputs["input_ids"], rows.inputs["attention_mask"], wanted, strict=True
        ):
            assert ids[mask.bool()].tolist() == own_ids


@pytest.fixture(scope="module")
def mixed(base: TaskModel, part: Part, tmp_path_factory: pytest.TempPathFactory) -> PartBanks:
    """Two counterfactual failures of each of the first four pass samples.

    The last but one pass sample is what the model says to failure 0, the last one to failure 2.
    """
    made = [replace(part.passing[i], target=t) for i in range(4) for t in ("neutral", "entailment")]
    own = replace(
        part, made=tuple(made), made_adapt=tuple((s,) for s in made),
        made_from=tuple(i for i in range(4) for _ in range(2)),
        own_from=(N_PASS - 2, -1, N_PASS - 1, *(-1,) * (N_FAIL - 3)),
    )  # fmt: skip
    (made,) = open_banks(
        base, Nli(), own, [BankSpec(base.layer(1), RANK)], tmp_path_factory.mktemp("mixed")
    )
    return made


def test_counterfactual_failures_stand_behind_the_real_ones(mixed: PartBanks) -> None:
    assert (mixed.n_real, mixed.n_made) == (N_FAIL, 8)
    episodes = TestEpisodes(mixed, 2, 2, 4, RANK, seed=0)
    assert sorted(torch.cat([g.flatten() for g in episodes.groups]).tolist()) == list(range(N_FAIL))


@pytest.mark.parametrize("count", [1, 4, N_PASS, 50])
def test_a_pass_sample_never_stands_beside_a_failure_made_of_it_or_the_failure_that_it_is(
    mixed: PartBanks, count: int
) -> None:
    draws = torch.Generator().manual_seed(0)
    fail = torch.tensor([[N_FAIL, 0], [N_FAIL + 3, N_FAIL + 6], [1, 2], [N_FAIL + 1, N_FAIL]])
    sources = [{0, N_PASS - 2}, {1, 3}, {N_PASS - 1}, {0}]
    for _ in range(30):
        drawn = mixed.draw_passes(fail, count, draws).tolist()
        for row, banned in zip(drawn, sources, strict=True):
            assert len(row) == len(set(row)) == min(count, N_PASS - 2)  # two are the most banned
            assert not set(row) & banned


def test_an_edit_that_bans_all_pass_samples_has_one_all_the_same(mixed: PartBanks) -> None:
    few = copy(mixed)
    few.passing = range(2)  # type: ignore[assignment]
    fail = torch.tensor([[N_FAIL, N_FAIL + 2], [N_FAIL, N_FAIL + 1]])  # of 0 and 1, of 0 twice
    for count in (1, 2, 16):
        drawn = few.draw_passes(fail, count, torch.Generator().manual_seed(count))
        assert drawn.shape == (2, 1)
        assert drawn[1].tolist() == [1]


@pytest.mark.parametrize("k", [2, 5, N_FAIL])
def test_no_edit_holds_a_failure_twice(mixed: PartBanks, k: int) -> None:
    for share in (0.0, 0.5, 1.0):
        episodes = Episodes(mixed, k, 2, 3, RANK, 20, 0, 0, share)
        held = TestEpisodes(mixed, k, 2, 3, RANK, 0, dealt=20)
        for edit in [*episodes._deck.view(-1, k), *torch.cat(held.groups)]:
            assert len(set(edit.tolist())) == k


def test_few_made_failures_are_once_in_an_edit_too(mixed: PartBanks) -> None:
    few = copy(mixed)
    few.n_made, few.fail = 3, range(N_FAIL + 3)  # type: ignore[assignment]
    episodes = Episodes(few, 5, 2, 3, RANK, 20, 0, 0, 1.0)
    for edit in episodes._deck.view(-1, 5).tolist():
        assert len(set(edit)) == 5
        assert set(range(N_FAIL, N_FAIL + 3)) < set(edit)


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (0.5, 60, 140), (1.0, 200, 200)])
def test_the_share_of_counterfactual_failures(
    mixed: PartBanks, share: float, least: int, most: int
) -> None:
    episodes = Episodes(mixed, 2, 2, 3, RANK, 50, 0, 0, share)
    made = int((episodes._deck >= N_FAIL).sum())
    assert least <= made <= most
    assert torch.equal(episodes._deck, Episodes(mixed, 2, 2, 3, RANK, 50, 0, 0, share)._deck)
