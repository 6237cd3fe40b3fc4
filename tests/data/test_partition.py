"""Divisions of records: disjoint, whole, and with no text or subject on two sides."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from saledit.data.partition import apart_from, partition, roots
from saledit.records import Record, Sample

Draw = st.DrawFn


@st.composite
def record_lists(draw: Draw, most: int = 40, texts: int = 60, subjects: int = 15) -> list[Record]:
    """Records that now and then share a text, a rewording or a subject."""

    def inputs(n: int) -> tuple[str, ...]:
        # The same text in other letters and signs is the same text.
        return (draw(st.sampled_from(["text {}", "Text {}!", " TEXT  {}."])).format(n),)

    out = []
    for i in range(draw(st.integers(0, most))):
        n, *others = draw(st.lists(st.integers(0, texts), min_size=1, max_size=3))
        names = draw(st.lists(st.integers(0, subjects), max_size=2))
        label = draw(st.sampled_from("ab"))
        rewordings = tuple(
            Sample(f"{i}#{j}", inputs(other), label) for j, other in enumerate(others)
        )
        sample = Sample(str(i), inputs(n), label)
        out.append(Record(sample, rewordings, tuple(f"s{name}" for name in names)))
    return out


def keys(records: Sequence[Record]) -> set[str]:
    return {key for record in records for key in record.keys()}  # noqa: SIM118


def ids(records: Sequence[Record]) -> list[str]:
    return [record.sample.id for record in records]


def components(records: Sequence[Record]) -> list[list[int]]:
    """Positions by component, in order of first appearance."""
    groups: dict[int, list[int]] = {}
    for i, root in enumerate(roots(records).tolist()):
        groups.setdefault(root, []).append(i)
    return list(groups.values())


sizes = st.lists(st.integers(0, 20), min_size=1, max_size=3)
seeds = st.integers(0, 5)


@given(record_lists(), sizes, seeds)
@settings(max_examples=60, deadline=None)
def test_parts_are_disjoint_and_cover_all(
    records: list[Record], room: list[int], seed: int
) -> None:
    parts = partition(records, room, seed)
    assert len(parts) == len(room) + 1
    assert Counter(name for part in parts for name in ids(part)) == Counter(ids(records))
    for i, part in enumerate(parts):
        for other in parts[i + 1 :]:
            assert not keys(part) & keys(other)


@given(record_lists(), sizes, seeds)
@settings(max_examples=60, deadline=None)
def test_sizes_are_right_up_to_one_component(
    records: list[Record], room: list[int], seed: int
) -> None:
    parts = partition(records, room, seed)
    largest = max(map(len, components(records)), default=0)
    for i, wanted in enumerate(room):
        assert len(parts[i]) <= wanted
        # Records that fitted here never went further down.
        assert len(parts[i]) > wanted - largest or not any(parts[i + 1 :])


@given(record_lists(), sizes, seeds, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_order_and_names_of_records_do_not_matter(
    records: list[Record], room: list[int], seed: int, rng: random.Random
) -> None:
    moved = rng.sample(records, len(records))
    expected = partition(records, room, seed)
    assert [set(ids(part)) for part in partition(moved, room, seed)] == [
        set(ids(part)) for part in expected
    ]
    renamed = [
        Record(Sample(f"x{i}", r.sample.inputs, r.sample.target), r.rewordings, r.subjects)
        for i, r in enumerate(records)
    ]
    assert [[r.sample.inputs for r in part] for part in partition(renamed, room, seed)] == [
        [r.sample.inputs for r in part] for part in expected
    ]


@given(record_lists(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_components_are_the_finest_division(records: list[Record], rng: random.Random) -> None:
    groups = components(records)
    assert sorted(i for group in groups for i in group) == list(range(len(records)))
    assert [group[0] for group in groups] == sorted(group[0] for group in groups)
    found = [keys([records[i] for i in group]) for group in groups]
    for i, one in enumerate(found):
        assert not any(one & other for other in found[i + 1 :])
    for group in groups:  # from any member every other one is reached
        members = set(group)
        reached, todo = set(), {rng.choice(group)}
        while todo:
            reached |= todo
            near = keys([records[i] for i in todo])
            todo = {i for i in members - reached if near & records[i].keys()}
        assert reached == members


@given(record_lists(), record_lists())
@settings(max_examples=40, deadline=None)
def test_apart_from_keeps_all_that_share_nothing(
    records: list[Record], others: list[Record]
) -> None:
    kept = apart_from(records, others)
    assert not keys(kept) & keys(others)
    dropped = [r for r in records if r not in kept]
    assert all(r.keys() & keys(others) for r in dropped)
    assert list(kept) == [r for r in records if r in kept]


def plain(n: int) -> list[Record]:
    return [Record(Sample(str(i), (f"text number {i}",), "a")) for i in range(n)]


def test_records_alone_are_divided_exactly_and_by_chance() -> None:
    records = plain(1000)
    parts = partition(records, [100, 200], seed=0)
    assert list(map(len, parts)) == [100, 200, 700]
    position = {r.sample.id: i for i, r in enumerate(records)}
    mean = sum(position[name] for name in ids(parts[0])) / 100
    assert 400 < mean < 600
    other = partition(records, [100, 200], seed=1)
    assert len(set(ids(parts[0])) & set(ids(other[0]))) < 30
    assert partition(records, [100, 200], seed=0) == parts


def test_one_component_larger_than_a_part_goes_to_the_last() -> None:
    family = [Record(r.sample, (), ("same",)) for r in plain(30)]
    lone = [Record(Sample(f"l{i}", (f"lonely {i}",), "a")) for i in range(10)]
    small, rest = partition([*family, *lone], [8], seed=3)
    assert len(small) == 8
    assert {r.subjects for r in small} == {()}
    assert len(rest) == 32


def test_a_chain_holds_together() -> None:
    chain = [Record(Sample(str(i), (f"t{i}",), "a"), (), (f"s{i}", f"s{i + 1}")) for i in range(50)]
    random.Random(0).shuffle(chain)
    assert len(components(chain)) == 1
    assert partition([], [3], 0) == [(), ()]


def test_parts_are_alike_in_the_sizes_of_their_components() -> None:
    """Ranked by the first of their ranks, large components all went into the first part."""
    records = []
    for i in range(300):
        size = 5 if i % 2 else 1
        records += [
            Record(Sample(f"{i}.{j}", (f"text {i} {j}",), "yes"), subjects=(f"subject {i}",))
            for j in range(size)
        ]
    first, _ = partition(records, [450], seed=0)
    alone = sum(
        record.sample.id.endswith(".0") and int(record.sample.id[:-2]) % 2 == 0 for record in first
    )
    assert 50 <= alone <= 100, "about half of the 150 that stand alone"
