"""Banks: what is kept on disk equals a direct run of the base."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_text
import torch
from quick import quick
from tiny import (
    ENDS,
    FAMILIES,
    LABELS,
    N_BLOCKS,
    PAD,
    build,
    encode,
    random_edits,
    samples,
    targets,
)
from torch import Tensor
from torch.nn import functional as F

from saledit.cache import opening
from saledit.cache.bank import Bank, BankSpec
from saledit.cache.opening import bank_key, memory_bank, memory_banks, open_bank, open_several
from saledit.delta import LowRank
from saledit.errors import JobError
from saledit.forward.rows import join
from saledit.forward.scoring import base_logits
from saledit.forward.suffix import capture, run
from saledit.models import TaskModel
from saledit.overlay import applied
from saledit.records import Sample
from saledit.tap import tap
from saledit.tasks.nli import Nli

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
N = 11
TASK = Nli()


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_SHARD", 4)  # 11 samples: 4 + 4 + 3


@pytest.fixture(params=FAMILIES)
def base(request: pytest.FixtureRequest) -> TaskModel:
    return build(request.param)


@pytest.fixture
def bert() -> TaskModel:
    return build("bert")


def index_with_repeats(seed: int = 0) -> Tensor:
    return torch.randint(N, (9,), generator=torch.Generator().manual_seed(seed))


def shards(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


@pytest.mark.parametrize("block", quick(ENDS, range(N_BLOCKS)))
@torch.no_grad()
def test_rows_run_to_the_logits_of_the_whole_model(
    base: TaskModel, block: int, tmp_path: Path
) -> None:
    chosen = samples(N)
    layer = base.layer(block)
    bank = open_bank(base, TASK, chosen, BankSpec(layer, batch_tokens=64), tmp_path)
    assert len(bank) == N
    assert len(shards(tmp_path)) == 3
    index = index_with_repeats(block)
    picked = [chosen[i] for i in index.tolist()]
    assert torch.equal(bank.targets[index], targets(base, picked))
    inputs = encode(base, picked)
    assert torch.equal(bank.lengths[index], inputs["attention_mask"].sum(1))
    torch.testing.assert_close(bank.logits[index], base_logits(base, inputs), **CLOSE)
    rows = bank.rows(index)
    assert rows.inputs.keys() == inputs.keys()
    real = inputs["attention_mask"].bool()
    for name, tensor in inputs.items():
        assert torch.equal(rows.inputs[name] * real, tensor * real), name
    torch.testing.assert_close(
        run(base, bank.entry, rows.states, rows.inputs), base_logits(base, inputs), **CLOSE
    )
    edits = random_edits(layer.sites, batch=(3,))
    with applied(base.model, edits):
        seen = run(base, bank.entry, rows.states, rows.inputs)
        torch.testing.assert_close(seen, base_logits(base, inputs), **CLOSE)


@pytest.mark.parametrize("block", quick(ENDS, range(N_BLOCKS)))
@torch.no_grad()
def test_states_are_those_of_each_sample_alone(base: TaskModel, block: int, tmp_path: Path) -> None:
    chosen = samples(N)
    bank = open_bank(base, TASK, chosen, BankSpec(base.layer(block)), tmp_path)
    index = index_with_repeats()
    rows = bank.rows(index)
    for row, i in enumerate(index.tolist()):
        with capture(base, bank.entry) as states:
            base.model(**encode(base, [chosen[i]]))
        assert rows.states.keys() == states.keys()
        for name, tensor in states.items():
            got = rows.states[name][row, : tensor.shape[1]]
            torch.testing.assert_close(got, tensor[0], **CLOSE)


def gradient(base: TaskModel, sample: Sample, bank: Bank) -> list[LowRank]:
    """Factors of one sample's own loss, tapped from the whole model."""
    with tap(base.model, bank.layer.sites) as tape:
        logits = base.model(**encode(base, [sample])).logits
    factors = tape.factors(F.cross_entropy(logits, targets(base, [sample])))
    return [factors[site] for site in bank.layer.sites]


@pytest.mark.parametrize("block", quick(ENDS, range(N_BLOCKS)))
@pytest.mark.parametrize("rank", [2, 64])
def test_factors_are_the_best_of_each_sample_s_gradient(
    base: TaskModel, block: int, rank: int, tmp_path: Path
) -> None:
    chosen = samples(N)
    bank = open_bank(base, TASK, chosen, BankSpec(base.layer(block), rank=rank), tmp_path)
    index = index_with_repeats().view(3, 3)
    found = bank.factors(index)
    terms = 1 if bank.entry.first_token_only else rank  # one token, one term
    assert [pair.u.shape for pair in found] == [(3, 3, terms, s.d_in) for s in bank.layer.sites]
    assert [pair.v.shape for pair in found] == [(3, 3, terms, s.d_out) for s in bank.layer.sites]
    for place in ((0, 0), (1, 2), (2, 1)):
        i = int(index[place])
        for pair, whole in zip(found, gradient(base, chosen[i], bank), strict=True):
            want = whole.dense()[0]
            singular = torch.linalg.svdvals(want)
            error = torch.linalg.matrix_norm(pair.dense()[place] - want)
            torch.testing.assert_close(
                error, singular[rank:].norm(), rtol=1e-3, atol=1e-5 * float(singular[0])
            )


@pytest.mark.parametrize("block", quick(ENDS, range(N_BLOCKS)))
def test_factors_do_not_depend_on_the_company(base: TaskModel, block: int) -> None:
    # Signs and the number of terms feed the editor's normaliser: padding must not move them.
    chosen = samples(N)
    spec = BankSpec(base.layer(block), rank=6)
    together = memory_bank(base, TASK, chosen, spec).factors(torch.arange(N))
    for i, sample in enumerate(chosen):
        alone = memory_bank(base, TASK, [sample], spec).factors(torch.tensor([0]))
        for many, one in zip(together, alone, strict=True):
            assert torch.equal((many.v[i] != 0).any(-1), (one.v[0] != 0).any(-1))
            scale = float(one.u.abs().max() + one.v.abs().max())
            torch.testing.assert_close(many.u[i], one.u[0], rtol=1e-2, atol=1e-3 * scale)
            torch.testing.assert_close(many.v[i], one.v[0], rtol=1e-2, atol=1e-3 * scale)


@torch.no_grad()
def test_moments_are_means_over_tokens(base: TaskModel, tmp_path: Path) -> None:
    chosen = samples(N)
    for block in (1, N_BLOCKS - 1):
        layer = base.layer(block)
        bank = open_bank(base, TASK, chosen, BankSpec(layer, moments=True), tmp_path)
        seen: list[list[Tensor]] = [[] for _ in layer.sites]
        for sample in chosen:
            with tap(base.model, layer.sites) as tape:
                base.model(**encode(base, [sample]))
            for kept, site in zip(seen, layer.sites, strict=True):
                x = tape.inputs[site][0]
                kept.append(x[:1] if bank.entry.first_token_only else x)
        for got, parts in zip(bank.moments(), seen, strict=True):
            x = torch.cat(parts).double()
            torch.testing.assert_close(got, x.T @ x / len(x), rtol=1e-4, atol=1e-5)


def test_several_layers_in_one_pass_are_one_by_one(base: TaskModel) -> None:
    chosen = samples(N)
    specs = [BankSpec(layer, rank=3, moments=True) for layer in base.layers()]
    for spec, bank in zip(specs, memory_banks(base, TASK, chosen, specs), strict=True):
        alone = memory_bank(base, TASK, chosen, spec)
        for got, want in zip(bank._shards, alone._shards, strict=True):
            assert got.keys() == want.keys()
            for name in want:
                torch.testing.assert_close(got[name], want[name], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(bank.moments(), alone.moments(), rtol=1e-3, atol=1e-4)


def test_a_bank_on_disk_is_the_bank_in_memory(bert: TaskModel, tmp_path: Path) -> None:
    spec = BankSpec(bert.layer(1), rank=3, moments=True)
    here = memory_bank(bert, TASK, samples(N), spec)
    built = open_bank(bert, TASK, samples(N), spec, tmp_path)
    opened = open_bank(bert, TASK, samples(N), spec, tmp_path)
    for want, first, second in zip(here._shards, built._shards, opened._shards, strict=True):
        assert all(torch.equal(want[name], first[name]) for name in want)
        assert all(torch.equal(want[name], second[name]) for name in want)


def test_a_memory_bank_is_of_the_model_as_edited(bert: TaskModel) -> None:
    edits = random_edits(bert.layer(0).sites)
    inputs = encode(bert, samples(N))
    with applied(bert.model, edits):
        bank = memory_bank(bert, TASK, samples(N), BankSpec(bert.layer(1)))
        want = base_logits(bert, inputs)
    torch.testing.assert_close(bank.logits, want, **CLOSE)
    assert (want - base_logits(bert, inputs)).abs().max() > 1e-2


def test_joined_rows_lie_group_by_group(base: TaskModel) -> None:
    chosen = sorted(samples(N), key=lambda s: len(s.inputs[0].split()) + len(s.inputs[1].split()))
    for block in (1, N_BLOCKS - 1):
        layer = base.layer(block)
        bank = memory_bank(base, TASK, chosen, BankSpec(layer))
        short, long = torch.tensor([0, 1, 2, 0]), torch.tensor([N - 1, 3])
        rows = join([bank.rows(short), bank.rows(long)], 2, [2, 1])
        order = torch.tensor([0, 1, N - 1, 2, 0, 3])
        edits = random_edits(layer.sites, batch=(2,))
        with torch.no_grad(), applied(base.model, edits):
            got = run(base, bank.entry, rows.states, rows.inputs)
            want = base_logits(base, encode(base, [chosen[i] for i in order.tolist()]))
        torch.testing.assert_close(got, want, **CLOSE)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Sizes of the shards that are built."""
    sizes: list[int] = []
    real = opening.build

    def build_and_count(base: Any, task: Any, chosen: Any, specs: Any) -> Any:
        sizes.append(len(chosen))
        return real(base, task, chosen, specs)

    monkeypatch.setattr(opening, "build", build_and_count)
    return sizes


def test_an_interrupted_build_goes_on(bert: TaskModel, tmp_path: Path, counted: list[int]) -> None:
    spec = BankSpec(bert.layer(1), rank=2)
    first = open_bank(bert, TASK, samples(N), spec, tmp_path)
    assert counted == [4, 4, 3]
    files = shards(tmp_path)
    content = files[1].read_bytes()
    files[1].unlink()
    times = {path: path.stat().st_mtime_ns for path in (files[0], files[2])}
    seen: list[tuple[int, int]] = []
    again = open_bank(bert, TASK, samples(N), spec, tmp_path, lambda *at: seen.append(at))
    assert counted == [4, 4, 3, 4]
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert files[1].read_bytes() == content
    assert seen == [(4, 11), (8, 11), (11, 11)]
    assert torch.equal(first.logits, again.logits)


def test_of_several_layers_those_that_are_missing_are_built_in_one_pass(
    bert: TaskModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = [BankSpec(layer, rank=2, moments=True) for layer in bert.layers()]
    known = open_bank(bert, TASK, samples(N), specs[1], tmp_path)
    built: list[list[int]] = []
    real = opening.build

    def build_and_tell(base: Any, task: Any, chosen: Any, wanted: Any) -> Any:
        built.append([spec.layer.index for spec in wanted])
        return real(base, task, chosen, wanted)

    monkeypatch.setattr(opening, "build", build_and_tell)
    banks = open_several(bert, TASK, samples(N), specs, tmp_path)
    others = [spec.layer.index for spec in specs if spec is not specs[1]]
    assert built == [others] * 3
    assert [bank.layer for bank in banks] == [spec.layer for spec in specs]
    assert torch.equal(banks[1].logits, known.logits)
    for spec, bank in zip(specs, banks, strict=True):
        alone = memory_bank(bert, TASK, samples(N), spec)
        torch.testing.assert_close(bank.moments(), alone.moments())
        index = torch.arange(N)
        for got, want in zip(bank.factors(index), alone.factors(index), strict=True):
            torch.testing.assert_close(got.dense(), want.dense(), rtol=1e-3, atol=1e-4)


def test_a_build_that_is_killed_leaves_whole_shards(
    bert: TaskModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[int]
) -> None:
    spec = BankSpec(bert.layer(1))
    real = opening.keep_tensors

    def killed(path: Path, tensors: dict[str, Tensor]) -> None:
        if "00001" in path.name:
            raise JobError("the disk is full")
        real(path, tensors)

    monkeypatch.setattr(opening, "keep_tensors", killed)
    with pytest.raises(JobError):
        open_bank(bert, TASK, samples(N), spec, tmp_path)
    assert [path.name for path in shards(tmp_path)] == ["shard-00000.safetensors"]
    monkeypatch.setattr(opening, "keep_tensors", real)
    open_bank(bert, TASK, samples(N), spec, tmp_path)
    assert counted == [4, 4, 4, 3]


@pytest.mark.parametrize("damage", ["cut", "empty", "garbage"])
def test_a_damaged_shard_is_built_again(
    bert: TaskModel, tmp_path: Path, counted: list[int], damage: str
) -> None:
    spec = BankSpec(bert.layer(1), rank=2)
    open_bank(bert, TASK, samples(N), spec, tmp_path)
    counted.clear()
    broken = shards(tmp_path)[2]
    content = broken.read_bytes()
    broken.write_bytes({"cut": content[:-9], "empty": b"", "garbage": b"\x80" * 99}[damage])
    bank = open_bank(bert, TASK, samples(N), spec, tmp_path)
    assert counted == [3]
    assert broken.read_bytes() == content
    torch.testing.assert_close(bank.logits, base_logits(bert, encode(bert, samples(N))), **CLOSE)


def test_the_key_does_not_know_the_last_call_or_where_the_model_came_from(bert: TaskModel) -> None:
    key = bank_key(build("bert"), TASK, samples(N), BankSpec(bert.layer(1)))
    padded = build("bert")
    padded.tokenizer(["ba", "ba be"], padding="max_length", truncation=True, max_length=7)
    padded.model.config._name_or_path = "elsewhere"
    assert bank_key(padded, TASK, samples(N), BankSpec(bert.layer(1))) == key


def test_the_key_knows_what_the_numbers_depend_on(bert: TaskModel) -> None:
    layer = bert.layer(1)
    key = bank_key(bert, TASK, samples(N), BankSpec(layer))
    assert bank_key(build("bert"), Nli(), samples(N), BankSpec(layer)) == key

    other = samples(N)
    other[3] = Sample("3", other[3].inputs, next(t for t in LABELS if t != other[3].target))
    words = samples(N)
    words[3] = Sample("3", (words[3].inputs[0], "ba"), words[3].target)
    relabelled = build("bert")
    relabelled.model.config.label2id = {label: 2 - i for i, label in enumerate(LABELS)}
    chatty, respelt, other_act = build("bert"), build("bert"), build("bert")
    chatty.tokenizer.chat_template = "{{ messages[0].content }}"
    respelt.tokenizer.add_tokens(["zzz"])
    other_act.model.config.hidden_act = "relu"
    touched = build("bert")
    with torch.no_grad():
        touched.model.get_submodule(layer.sites[0].name).weight[0, 0] += 1e-6
    changed = [
        bank_key(build("bert", seed=1), TASK, samples(N), BankSpec(layer)),
        bank_key(touched, TASK, samples(N), BankSpec(layer)),
        bank_key(relabelled, TASK, samples(N), BankSpec(layer)),
        bank_key(chatty, TASK, samples(N), BankSpec(layer)),
        bank_key(respelt, TASK, samples(N), BankSpec(layer)),
        bank_key(other_act, TASK, samples(N), BankSpec(layer)),
        bank_key(bert, TASK, samples(N, seed=1), BankSpec(layer)),
        bank_key(bert, TASK, samples(N)[::-1], BankSpec(layer)),
        bank_key(bert, TASK, samples(N - 1), BankSpec(layer)),
        bank_key(bert, TASK, other, BankSpec(layer)),
        bank_key(bert, TASK, words, BankSpec(layer)),
        bank_key(bert, TASK, samples(N), BankSpec(bert.layer(2))),
        bank_key(bert, TASK, samples(N), BankSpec(bert.layer(1, ["output.dense"]))),
        bank_key(bert, TASK, samples(N), BankSpec(layer, rank=1)),
        bank_key(bert, TASK, samples(N), BankSpec(layer, moments=True)),
        bank_key(bert, Nli(max_length=12), samples(N), BankSpec(layer)),
    ]
    assert len({key, *changed}) == len(changed) + 1


def test_left_padding_tokenizers_are_turned_round() -> None:
    base = build("llama")
    want = memory_bank(base, TASK, samples(N), BankSpec(base.layer(1), rank=2))
    base.tokenizer.padding_side = "left"
    inputs = encode(base, samples(N))
    assert inputs["attention_mask"][:, 0].all()
    assert (inputs["input_ids"][inputs["attention_mask"] == 0] == PAD).all()
    got = memory_bank(base, TASK, samples(N), BankSpec(base.layer(1), rank=2))
    assert all(torch.equal(a[k], b[k]) for a, b in zip(got._shards, want._shards, strict=True)
               for k in a)  # fmt: skip


def test_what_half_precision_cannot_hold_is_refused() -> None:
    base = build("bert")
    spec = BankSpec(base.layer(1), dtype=torch.float16)
    memory_bank(base, Nli(), samples(3), spec)
    with torch.no_grad():
        for module in base.model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.weight.mul_(1e6)
    with pytest.raises(JobError, match=r"up to 65504.*set caches\.dtype=bfloat16"):
        memory_bank(base, Nli(), samples(3), spec)


def test_another_end_of_answers_makes_another_bank() -> None:
    base = tiny_text.build("llama")
    keys = [bank_key(base, tiny_text.task(), tiny_text.samples(2), BankSpec(base.layer(1)))]
    other = tiny_text.build("llama")
    other.model.generation_config.eos_token_id = 7
    keys.append(bank_key(other, tiny_text.task(), tiny_text.samples(2), BankSpec(other.layer(1))))
    assert base.fingerprint == other.fingerprint
    assert len(set(keys)) == 2


def test_the_key_knows_what_states_are_kept_as() -> None:
    base = build("bert")
    keys = {
        bank_key(base, Nli(), samples(3), BankSpec(base.layer(1), dtype=d))
        for d in (None, torch.bfloat16, torch.float16)
    }
    assert len(keys) == 3
