"""Banks of language models: what they keep gives back the base's logits and gradients."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from quick import quick
from tiny import ENDS, N_BLOCKS, random_edits, untouched
from tiny_text import STACKED, build, layers_of, run_whole, samples, slow_gradients, task
from torch import Tensor

from saledit.cache import opening
from saledit.cache.bank import BankSpec
from saledit.cache.opening import bank_key, memory_bank, memory_banks, open_bank
from saledit.delta import Edits
from saledit.forward.rows import join, run_edits
from saledit.forward.scoring import logits_of
from saledit.forward.suffix import run
from saledit.models import TaskModel
from saledit.overlay import applied
from saledit.records import Sample
from saledit.tasks.generation import Generation
from saledit.tasks.text import TextTask

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
N = 9
QA = task()


@pytest.fixture(scope="module", params=STACKED)
def base(request: pytest.FixtureRequest) -> TaskModel:
    return build(request.param)


@pytest.fixture(params=quick(ENDS, range(N_BLOCKS)))
def block(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_SHARD", 4)  # 9 samples: 4 + 4 + 1


def passages(n: int) -> list[Sample]:
    return [Sample(s.id, ("",), f"{s.inputs[0]} ba {s.target}", "text") for s in samples(n)]


def test_rows_run_to_the_logits_of_the_whole_model(base: TaskModel, block: int) -> None:
    chosen = samples(N)
    index = torch.randint(N, (6,), generator=torch.Generator().manual_seed(block))
    picked = QA.encode(base, [chosen[i] for i in index.tolist()])
    assert picked.scored is not None
    specs = [BankSpec(layer, batch_tokens=90) for layer in layers_of(base, block)]
    plain = run_whole(base, picked)
    for bank in memory_banks(base, QA, chosen, specs):
        assert len(bank) == N
        assert torch.equal(bank.targets_of(index), picked.targets)
        assert torch.equal(bank.lengths[index], picked.inputs["attention_mask"].sum(1))
        rows = bank.rows(index)
        outputs = logits_of(base, bank.outputs(index))
        assert outputs.shape == plain.shape
        torch.testing.assert_close(outputs[picked.scored], plain[picked.scored], **CLOSE)
        edits = random_edits(bank.layer.sites, batch=(3,), seed=block)
        with torch.no_grad(), applied(base.model, edits):
            got = logits_of(base, run(base, bank.entry, rows.states, rows.inputs, rows.at))
        want = run_whole(base, picked, edits)
        torch.testing.assert_close(got[picked.scored], want[picked.scored], **CLOSE)


@torch.no_grad()
def test_a_batch_of_edits_is_one_by_one(base: TaskModel) -> None:
    n_edits, size = 2, 4
    chosen = samples(n_edits * size)
    for i in (1, 2, 5, 6):  # long answers to short prompts, too
        chosen[i] = replace(chosen[i], inputs=(chosen[i].target,), target=chosen[i].inputs[0])
    for layer in layers_of(base, 1):
        bank = memory_bank(base, QA, chosen, BankSpec(layer))
        edits = random_edits(layer.sites, batch=(n_edits,))
        rows = bank.rows(torch.arange(len(chosen)))
        together = logits_of(base, run_edits(base, bank.entry, rows, edits))
        assert together.shape[:2] == (n_edits, size)
        for i, sample in enumerate(chosen):
            alone = QA.encode(base, [sample])
            want = run_whole(base, alone, one_of(edits, i // size))[0]
            got = together.flatten(0, 1)[i, : len(want)]
            torch.testing.assert_close(got, want, **CLOSE)


def one_of(edits: Edits, i: int) -> Edits:
    return Edits({site: delta[i] for site, delta in edits.items()})


@pytest.mark.parametrize("name", ["gpt2", "opt", "t5", "bart/encoder"])
def test_rows_of_several_banks_lie_group_by_group(name: str) -> None:
    base = build(name)
    first, second = samples(N), samples(N, seed=1)
    spec = BankSpec(base.layer(1))
    banks = [memory_bank(base, QA, chosen, spec) for chosen in (first, second)]
    order = [torch.tensor([0, 1, 2, 0]), torch.tensor([N - 1, 3])]
    rows = join([b.rows(i) for b, i in zip(banks, order, strict=True)], 2, [2, 1])
    together = [first[0], first[1], second[N - 1], first[2], first[0], second[3]]
    edits = random_edits(spec.layer.sites, batch=(2,))
    with torch.no_grad():
        logits = logits_of(base, run_edits(base, banks[0].entry, rows, edits)).flatten(0, 1)
    for i, sample in enumerate(together):
        want = run_whole(base, QA.encode(base, [sample]), one_of(edits, i // 3))[0]
        torch.testing.assert_close(logits[i, : len(want)], want, **CLOSE)


def assert_factors(base: TaskModel, specs: list[BankSpec], chosen: list[Sample], of: TextTask):
    with untouched(base.model):
        banks = memory_banks(base, of, chosen, specs)
    pairs = [pair for bank in banks for pair in bank.factors(torch.arange(len(chosen)))]
    sites = [site for spec in specs for site in spec.layer.sites]
    for i, sample in enumerate(chosen):
        wanted = slow_gradients(base, sites, sample, of)
        for site, pair, want in zip(sites, pairs, wanted, strict=True):
            scale = float(want.abs().max())
            assert scale > 0
            torch.testing.assert_close(
                pair.dense()[i],
                want,
                rtol=1e-3,
                atol=1e-4 * scale,
                msg=lambda m: f"{site}: {m}",  # noqa: B023
            )


@pytest.mark.parametrize("where", quick(["mlp"], {"mlp": 0, "attention": 1}))
def test_factors_are_each_sample_s_gradient(base: TaskModel, block: int, where: int) -> None:
    spec = BankSpec(layers_of(base, block)[where], rank=24)
    assert_factors(base, [spec], samples(3), QA)


@pytest.mark.parametrize("name", ["gpt2", "opt post-norm", "gemma2"])
def test_passages_are_scored_at_all_their_tokens(name: str) -> None:
    base, of = build(name), Generation(max_length=40)
    chosen = [*passages(3), *samples(2)]
    spec = BankSpec(base.layer(1), rank=24)
    assert_factors(base, [spec], chosen, of)
    encoded = of.encode(base, chosen)
    assert encoded.scored is not None
    bank = memory_bank(base, of, chosen, spec)
    rows = bank.rows(torch.arange(5))
    edits = random_edits(spec.layer.sites)
    with torch.no_grad(), applied(base.model, edits):
        got = logits_of(base, run(base, bank.entry, rows.states, rows.inputs, rows.at))
    want = run_whole(base, encoded, edits)
    torch.testing.assert_close(got[encoded.scored], want[encoded.scored], **CLOSE)


@pytest.mark.parametrize("where", [0, 1], ids=["mlp", "attention"])
def test_moments_are_means_over_the_tokens_that_a_site_reads(base: TaskModel, where: int) -> None:
    chosen = samples(6)
    layer = layers_of(base, 1)[where]
    seen: dict[str, list[Tensor]] = {site.name: [] for site in layer.sites}
    handles = [
        base.model.get_submodule(name).register_forward_pre_hook(
            lambda _module, args, parts=parts: parts.append(args[0].flatten(0, -2))
        )
        for name, parts in seen.items()
    ]
    for sample in chosen:
        run_whole(base, QA.encode(base, [sample]))
    for handle in handles:
        handle.remove()
    moments = memory_bank(base, QA, chosen, BankSpec(layer, moments=True)).moments()
    for site, got in zip(layer.sites, moments, strict=True):
        x = torch.cat(seen[site.name]).double()
        torch.testing.assert_close(got, x.T @ x / len(x), rtol=1e-4, atol=1e-5)


def test_a_bank_on_disk_is_the_bank_in_memory(tmp_path: Path) -> None:
    base = build("t5")
    spec = BankSpec(base.layer(1), rank=3, moments=True)
    here = memory_bank(base, QA, samples(N), spec)
    open_bank(base, QA, samples(N), spec, tmp_path)
    there = open_bank(base, QA, samples(N), spec, tmp_path)
    for want, got in zip(here._shards, there._shards, strict=True):
        assert want.keys() == got.keys()
        assert all(torch.equal(want[name], got[name]) for name in want)
    assert all(map(torch.equal, here.moments(), there.moments()))


def test_the_key_knows_what_the_numbers_depend_on() -> None:
    base = build("t5")
    spec = BankSpec(base.layer(1))
    plain = [replace(sample, target="ba") for sample in samples(2)]
    one, passage = plain[0], replace(plain[0], kind="text")
    encoder = build("t5/encoder")
    keys = [
        bank_key(base, QA, plain, spec),
        bank_key(base, QA, plain[::-1], spec),
        bank_key(base, QA, [one], spec),
        bank_key(base, QA, [passage], spec),
        bank_key(base, task(template="{question} ba"), plain, spec),
        bank_key(base, task(stop="."), plain, spec),
        bank_key(base, task(chat=True), plain, spec),
        bank_key(base, Generation(max_length=60), plain, spec),
        bank_key(encoder, QA, plain, BankSpec(encoder.layer(1))),
    ]
    assert len(set(keys)) == len(keys)
