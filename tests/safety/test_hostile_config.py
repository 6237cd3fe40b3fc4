"""Configurations: settings and nothing else, whatever stands in the YAML."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hostile import KINDS, blocked, byte_changes, counts, fuzz, refused, restructured, tolerated
from hypothesis import strategies as st

from saledit import config
from saledit.config import RunConfig

SECRET = "a-secret-of-the-environment"
LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
BAD: dict[str, str] = {
    "billion laughs": LAUGHS,
    "an alias": "name: &a b\noutput: *a\n",
    "an alias of itself": "trainer: &a {b: *a}\n",
    "a merge": "<<: {seed: 5}\n",
    "a python object": "name: !!python/object/apply:os.system [echo]\n",
    "a python name": "name: !!python/name:os.system\n",
    "binary": "name: !!binary aGVsbG8=\n",
    "a set": "trainer: !!set {a, b}\n",
    "an ordered map": "trainer: {a: !!omap [a: 1]}\n",
    "a tag of its own": "name: !mine x\n",
    "an int that is none": "seed: !!int abc\n",
    "a truth that is none": "name: !!bool maybe\n",
    "a time that is none": "name: !!timestamp x\n",
    "the environment": "output: ${oc.env:SALEDIT_SECRET}\n",
    "the environment in a list": "site: {maps: ['${oc.env:SALEDIT_SECRET}']}\n",
    "the environment in the trainer": "trainer: {a: {b: 'x${oc.env:SALEDIT_SECRET}'}}\n",
    "an interpolation": "name: ${output}\n",
    "interpolations that grow": "trainer: {a: '${.b}${.b}', b: '${.c}${.c}', c: x}\n",
    "a node": "task: ${model}\n",
    "code": "name: ${oc.decode:'__import__'}\n",
    "an escaped one": "name: \\${x}\n",
    "half of one": "name: '${'\n",
    "a missing value": "name: ???\n",
    "a key twice": "seed: 1\nseed: 2\n",
    "two documents": "seed: 1\n---\nseed: 2\n",
    "a list": "- a\n- b\n",
    "text": "hello\n",
    "a key that is a list": "? [a]\n: b\n",
    "a number for a key": "{1: 2}\n",
    "deep": "trainer: " + "[" * 400 + "]" * 400,
    "deeper": "name: " + "[" * 50_000,
    "a long number": "seed: " + "9" * 5000,
    "a large number": "train: {epochs: " + "9" * 30 + "}",
    "infinity": "train: {seconds: .inf}\n",
    "NaN": "loss: {edit: .nan}\n",
    "a negative seed": "seed: -1\n",
    "a null byte": "name: a\0b\n",
    "a name that leads out": "name: ../../etc\n",
    "a section that is none": "task: null\n",
    "a section that is text": "task: nli\n",
    "a wrong type": "seed: [1]\n",
    "an unknown key": "hello: 1\n",
    "include of a number": "include: 5\n",
    "include of nothing": "include: [null]\n",
    "include of a map": "include: {a: b}\n",
    "include of the root": "include: [/]\n",
    "include of above": "include: [..]\n",
    "include of a null byte": 'include: ["a\\0b"]\n',
    "include of a long name": "include: [" + "a" * 5000 + "]\n",
    "include of what is no YAML": "include: [/etc/passwd]\n",
    "include of a device": "include: [/dev/zero]\n",
    "include of itself": "include: a.yaml\n",
    "large": "name: '" + "x" * 200_000 + "'\n",
}


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALEDIT_SECRET", SECRET)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", BAD)
def test_more_than_settings_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(BAD[kind])
    message = refused(lambda: config.load(path))
    assert SECRET not in message
    assert "root:x:0" not in message  # what an included file holds is not told
    assert len(message) < 3000
    assert [p.name for p in tmp_path.iterdir()] == ["a.yaml"]


@pytest.mark.parametrize(
    "given",
    ["name=${oc.env:SALEDIT_SECRET}", "trainer.x=!!python/name:os.system", "trainer.x=&a [*a]",
     "trainer.x=" + "[" * 3000, "name=[[[", "a..b=1", "[=1", "=", "seed", "name[0]=1", "seed=1e400",
     "train.seconds=.inf", "\0=1", "seed=" + "9" * 5000],
)  # fmt: skip
def test_overrides_are_held_to_the_same(given: str) -> None:
    assert SECRET not in refused(lambda: config.load(None, [given]))


def test_includes_do_not_grow_without_bound(tmp_path: Path) -> None:
    """Each file twice in the one before: 2^40 files if all were read."""
    for i in range(40):
        (tmp_path / f"{i}.yaml").write_text(f"include: ['{i + 1}', '{i + 1}']\n")
    (tmp_path / "40.yaml").write_text("seed: 1\n")
    assert "at most 50 files" in refused(lambda: config.load(tmp_path / "0.yaml"))
    for i in range(2000):
        (tmp_path / f"{i}.yaml").write_text(f"include: '{i + 1}'\n")
    refused(lambda: config.load(tmp_path / "0.yaml"))


def test_includes_beside_and_above_still_work(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("seed: 7\nname: base\n")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.yaml").write_text("include: ../base\nname: a\n")
    found = config.load(tmp_path / "in" / "a.yaml")
    assert (found.seed, found.name) == (7, "a")


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_other_encodings_are_refused(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes("name: é\n".encode(encoding))
    refused(lambda: config.load(path), "a.yaml")


def test_windows_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfseed: 3\r\nname: a\r\n")
    assert config.load(path).seed == 3


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    blocked(tmp_path / "a.yaml", kind)
    (tmp_path / "b.yaml").write_text("include: a\n")
    refused(lambda: config.load(tmp_path / "a.yaml"), "a.yaml")
    refused(lambda: config.load(tmp_path / "b.yaml"))


def reads_back(found: RunConfig, path: Path) -> None:
    """What was read can be written, and is read as the same."""
    assert SECRET not in config.to_yaml(found)
    path.write_text(config.to_yaml(found), encoding="utf-8")
    assert config.load(path) == found


@counts(40)
def test_fuzz_configurations(examples: int, tmp_path: Path) -> None:
    text = (
        "name: mine\nseed: 3\ntask: {name: nli, subjects: [a, b]}\neditor:\n  steps: [1.0, 2.0]\n"
        "  mend: {rank: 8, whiten: 0.1}\ntrain: {epochs: 3, seconds: 1.5}\n"
        "trainer: {accelerator: cpu, devices: 1}\ndata:\n  train: a.jsonl  # mine\n"
    )
    path, again, few = tmp_path / "a.yaml", tmp_path / "b.yaml", examples < 1000

    def structure(seed: int) -> Callable[[bytes], bytes]:
        return lambda data: yaml.safe_dump(restructured(yaml.safe_load(data), seed)).encode()

    def example(change: Callable[[bytes], bytes]) -> None:
        path.write_bytes(change(text.encode()))
        tolerated(lambda: config.load(path), lambda found: reads_back(found, again))

    changes = byte_changes() | st.integers(0, 2**63).map(structure)
    fuzz(examples, changes, example, few)


@counts(30)
def test_fuzz_overrides(examples: int, tmp_path: Path) -> None:
    givens = ["seed=3", "task.subjects=[a,b]", "editor.mend.rank=8", "trainer.devices=2"]
    again, few = tmp_path / "b.yaml", examples < 1000

    def example(change: tuple[str, Callable[[bytes], bytes]]) -> None:
        given = change[1](change[0].encode()).decode("utf-8", "replace")
        tolerated(lambda: config.load(None, [given]), lambda found: reads_back(found, again))

    fuzz(examples, st.tuples(st.sampled_from(givens), byte_changes()), example, few)
