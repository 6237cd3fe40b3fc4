"""Routed edits on whole models: what a row is about, from its first token to its last."""

from __future__ import annotations

import copy

import pytest
import tiny
import tiny_text
import torch
from tiny import samples as pairs
from tiny import untouched
from torch import Tensor

from saledit.cache.bank import BankSpec
from saledit.cache.opening import memory_bank
from saledit.delta import Edits
from saledit.delta.routed import Mixture, Routed
from saledit.errors import UserError
from saledit.forward.rows import run_edits
from saledit.forward.scoring import forward, logits_of
from saledit.forward.suffix import capture, entry_for, run
from saledit.models import SEQ2SEQ, TaskModel
from saledit.overlay import applied, merge
from saledit.site import Site
from saledit.tasks.decoding import generate
from saledit.tasks.nli import Nli

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
MIXTURES = (Mixture(4, 2, 2), Mixture(3, 1, 1))
QA, NLI = tiny_text.task(), Nli()
TEXT = ("gpt2", "opt", "gemma2", "t5", "bart", "t5/encoder", "bart/encoder")
CLASSIFIERS = ("bert", "distilbert", "gpt2", "llama")


def random_edits(base: TaskModel, sites: tuple[Site, ...], batch: tuple[int, ...] = ()) -> Edits:
    """Random routed deltas, large enough to change every logit."""
    draws = torch.Generator().manual_seed(5)

    def part(rows: int, size: int, scale: float) -> Tensor:
        return torch.randn(*batch, rows, size, generator=draws) * scale

    deltas = {}
    for site in sites:
        gate = part(7, site.d_in + base.embedding_size, 1.0)
        u, v = part(11, site.d_in, site.d_in**-0.5), part(11, site.d_out, site.d_out**-0.5)
        deltas[site] = Routed(MIXTURES, gate, u, v)
    return Edits(deltas)


def slow_logits(base: TaskModel, ids: Tensor, edits: Edits, answer: Tensor | None = None) -> Tensor:
    """Logits of one row without padding, in float64, from the definition: no overlay, no anchors.

    Each edited site is replaced by its product with the weight plus, token by token, the chosen
    experts' matrices, chosen by the site's input and the mean of the embeddings.
    """
    model = copy.deepcopy(base.model).double()
    table = model.get_input_embeddings()(ids)[0]  # (T, D_A)
    is_causal = base.kind != SEQ2SEQ and base.family.generates
    for site, delta in edits.items():
        module = model.get_submodule(site.name)

        def forward_slow(x: Tensor, delta: Routed = delta, whole=module.forward) -> Tensor:
            out, flat = whole(x), x.reshape(-1, x.shape[-1])
            added = []
            for t, one in enumerate(flat):
                about = table[: t + 1].mean(0) if is_causal else table.mean(0)
                logits = delta.gate.double() @ torch.cat([one, about])
                total, row, term = 0, 0, 0
                for experts, rank, top_k in delta.mixtures:
                    own = logits[row : row + experts]
                    chosen = own.argsort(descending=True)[:top_k]
                    for share, e in zip(own[chosen].softmax(0), chosen, strict=True):
                        rows = slice(term + int(e) * rank, term + (int(e) + 1) * rank)
                        u, v = delta.u[rows].double(), delta.v[rows].double()
                        total = total + share * (v.T @ (u @ one))
                    row, term = row + experts, term + experts * rank
                added.append(total)
            return out + torch.stack(added).view_as(out)

        module.forward = forward_slow
    more = {} if answer is None else {"decoder_input_ids": answer}
    with torch.no_grad():
        return model(input_ids=ids, **more).logits[0]


@pytest.mark.parametrize("name", TEXT)
@torch.no_grad()
def test_the_overlay_is_the_definition_on_text(name: str) -> None:
    base = tiny_text.build(name)
    edits = random_edits(base, base.layer(1).sites)
    encoded = QA.encode(base, tiny_text.samples(3))
    assert encoded.scored is not None
    assert encoded.at is not None
    with untouched(base.model):
        plain, whole = (tiny_text.run_whole(base, encoded, e) for e in (Edits({}), edits))
    assert (whole - plain).abs().max() > 1e-2
    for i, mask in enumerate(encoded.inputs["attention_mask"].bool()):
        ids = encoded.inputs["input_ids"][i : i + 1, mask]
        answer = None
        if base.kind == SEQ2SEQ:
            answer = encoded.inputs["decoder_input_ids"][i : i + 1, encoded.scored[i]]
        want = slow_logits(base, ids, edits, answer)[encoded.at[i][encoded.scored[i]]].float()
        torch.testing.assert_close(whole[i][encoded.scored[i]], want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", CLASSIFIERS)
@torch.no_grad()
def test_the_overlay_is_the_definition_on_classifiers(name: str) -> None:
    base = tiny.build(name)
    edits = random_edits(base, base.layer(1).sites)
    inputs = tiny.encode(base, pairs(3))
    with untouched(base.model), applied(base.model, edits):
        whole = base.model(**inputs).logits
    assert (whole - base.model(**inputs).logits).abs().max() > 1e-2
    if "token_type_ids" in inputs:  # the slow code knows none
        inputs["token_type_ids"] *= 0
        with applied(base.model, edits):
            whole = base.model(**inputs).logits
    for i, mask in enumerate(inputs["attention_mask"].bool()):
        want = slow_logits(base, inputs["input_ids"][i : i + 1, mask], edits).float()
        torch.testing.assert_close(whole[i], want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("block", range(tiny.N_BLOCKS))
@pytest.mark.parametrize("name", TEXT)
@torch.no_grad()
def test_a_suffix_run_is_the_whole_model_on_text(name: str, block: int) -> None:
    base = tiny_text.build(name)
    for layer in tiny_text.layers_of(base, block):
        encoded = QA.encode(base, tiny_text.samples(4))
        entry = entry_for(base, block, tuple(site.name for site in layer.sites))
        with capture(base, entry) as states:
            forward(base, encoded.inputs, encoded.at)
        edits = random_edits(base, layer.sites, (2,))
        whole = tiny_text.run_whole(base, encoded, edits)
        with untouched(base.model), applied(base.model, edits):
            short = logits_of(base, run(base, entry, states, encoded.inputs, encoded.at))
        torch.testing.assert_close(short[encoded.scored], whole[encoded.scored], **CLOSE)


@pytest.mark.parametrize("block", range(tiny.N_BLOCKS))
@pytest.mark.parametrize("name", CLASSIFIERS)
@torch.no_grad()
def test_a_suffix_run_is_the_whole_model_on_classifiers(name: str, block: int) -> None:
    """Of a bank's rows; where only the first token is run the mean still is the row's."""
    base = tiny.build(name)
    layer = base.layer(block)
    chosen = pairs(8)
    bank = memory_bank(base, NLI, chosen, BankSpec(layer))
    edits = random_edits(base, layer.sites, (2,))
    with applied(base.model, edits):
        whole = base.model(**tiny.encode(base, chosen)).logits
    with untouched(base.model):
        short = run_edits(base, bank.entry, bank.rows(torch.arange(8)), edits).flatten(0, 1)
    torch.testing.assert_close(short, whole, **CLOSE)


@pytest.mark.parametrize("name", TEXT)
@torch.no_grad()
def test_generation_with_a_cache_is_the_whole_sequence(name: str) -> None:
    """Prompts of many lengths in one batch, padded; slow code generates each alone, uncached."""
    base = tiny_text.build(name)
    asked = tiny_text.samples(8)
    edits = random_edits(base, base.layer(1).sites)
    with untouched(base.model):
        said = generate(base, QA, asked, edits)
    plain = generate(base, QA, asked)
    assert [a.text for a in said] != [a.text for a in plain]
    with applied(base.model, edits):
        for answer, sample in zip(said, asked, strict=True):
            tokens = tiny_text.greedy(base, sample, most=QA.max_new_tokens)
            words = tiny_text.spell(tokens).rstrip(tiny_text.STOP).strip()
            assert answer.text.rstrip(tiny_text.STOP).strip() == words


@torch.no_grad()
def test_each_row_is_generated_under_its_own_edit() -> None:
    base = tiny_text.build("gpt2")
    asked, which = tiny_text.samples(6), torch.tensor([0, 1, 1, 0, 1, 0])
    edits = random_edits(base, base.layer(1).sites, (2,))
    together = generate(base, QA, asked, edits, which)
    for i, sample in enumerate(asked):
        one = Edits({site: delta[int(which[i])] for site, delta in edits.items()})
        assert generate(base, QA, [sample], one)[0].text == together[i].text


@torch.no_grad()
def test_a_cache_that_another_pass_filled_is_refused() -> None:
    base = tiny_text.build("gpt2")
    ids = torch.tensor([[5, 6, 7]])
    cache = base.model(input_ids=ids).past_key_values
    edits = random_edits(base, base.layer(1).sites)
    with untouched(base.model), applied(base.model, edits):
        with pytest.raises(ValueError, match="cannot go on from a cache of 3 tokens"):
            base.model(input_ids=ids[:, :1], past_key_values=cache)
        fresh = base.model(input_ids=ids).past_key_values
        with pytest.raises(ValueError, match="of 1 rows"):
            base.model(input_ids=ids[:, :1].expand(2, -1), past_key_values=fresh)


@torch.no_grad()
def test_a_model_that_does_not_show_its_tokens_is_refused() -> None:
    base = tiny_text.build("gpt2")
    edits = random_edits(base, base.layer(1).sites)
    embedded = base.model.get_input_embeddings()(torch.tensor([[5, 6, 7]]))
    with untouched(base.model), applied(base.model, edits):
        base.model(input_ids=torch.tensor([[5, 6, 7]]))
        with pytest.raises(ValueError, match="input_ids"):
            base.model(inputs_embeds=embedded)  # not the tokens of the call before
    with pytest.raises(ValueError, match="transformers"), applied(torch.nn.Linear(2, 2), edits):
        pass


@torch.no_grad()
def test_nested_and_added_edits_are_the_same() -> None:
    base = tiny_text.build("gpt2")
    sites = base.layer(1).sites
    one, other = random_edits(base, sites), tiny.random_edits(sites)
    encoded = QA.encode(base, tiny_text.samples(3))
    summed = tiny_text.run_whole(base, encoded, one + one + other)
    with applied(base.model, one), applied(base.model, other):
        nested = tiny_text.run_whole(base, encoded, one)
    torch.testing.assert_close(nested, summed, **CLOSE)


@torch.no_grad()
def test_a_merge_is_refused_and_changes_nothing() -> None:
    base = tiny_text.build("gpt2")
    first, second = base.layer(1).sites
    edits = tiny.random_edits([first]) + random_edits(base, (second,))
    with untouched(base.model), pytest.raises(UserError, match="cannot be merged"):
        merge(base.model, edits)


@torch.no_grad()
def test_a_model_of_bfloat16_keeps_its_dtype() -> None:
    base = tiny.build("bert")
    inputs = tiny.encode(base, pairs(3))
    edits = random_edits(base, base.layer(1).sites)
    with applied(base.model, edits):
        want = base.model(**inputs).logits
    base.model.to(torch.bfloat16)
    with applied(base.model, edits):
        got = base.model(**inputs).logits
    assert got.dtype == torch.bfloat16
    assert (got.float() - want).abs().mean() < 0.3 * want.abs().mean()
