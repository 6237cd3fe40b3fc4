"""Rewordings as failures. (Counterfactual failures: test_splits.py.)"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from saledit.data.made import reworded
from saledit.records import Sample


def sample(name: str) -> Sample:
    return Sample(name, (f"text {name}",), "x")


@given(st.lists(st.integers(0, 4), max_size=6))
def test_every_wording_of_a_failure_is_the_failure_once(sizes: list[int]) -> None:
    fail = [sample(str(i)) for i in range(len(sizes))]
    groups = [tuple(sample(f"{i}#{j}") for j in range(n)) for i, n in enumerate(sizes)]
    made = reworded(fail, groups, tuple(range(10, 10 + len(fail))))
    assert sorted(one.sample.id for one in made) == sorted(s.id for g in groups for s in g)
    for one in made:
        i = int(one.sample.id.split("#")[0])
        assert {one.sample, *one.rewordings} == {fail[i], *groups[i]}
        assert one.rewordings[0] == fail[i]  # a run may keep the first alone
        assert len(one.rewordings) == sizes[i]
        assert one.apart == 10 + i
    # The first rewordings come first, so that a limit takes as many failures as it can.
    columns = [int(one.sample.id.split("#")[1]) for one in made]
    assert columns == sorted(columns)
    assert all(one.apart == -1 for one in reworded(fail, groups, ()))
