"""KnowledgeEditor against its definition, one failure at a time and with dense gradients."""

from __future__ import annotations

import pytest
import tiny_text
import torch
from editing import Case, E, K
from tiny import encode
from torch import Tensor

from saledit.cache.bank import BankSpec
from saledit.cache.opening import memory_bank
from saledit.data.conditions import NOTHING, conditions
from saledit.delta import LowRank
from saledit.editors.ke import KnowledgeEditor
from saledit.editors.request import Request
from saledit.forward.scoring import base_logits
from saledit.site import Site
from saledit.tasks.nli import Nli
from saledit.tasks.prompts import END, IGNORED

SITES = (Site("a", 5, 4), Site("b", 4, 6))
N, T, D = 3, 7, 8


def lstm(cells: torch.nn.LSTM, x: Tensor, backwards: bool) -> Tensor:
    """The last hidden state of one direction over x (T, D), by the equations of the cell."""
    end = "_reverse" if backwards else ""
    w_x, w_h, b_x, b_h = (
        getattr(cells, f"{name}_l0{end}")
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    h = c = x.new_zeros(cells.hidden_size)
    for row in x.flip(0) if backwards else x:
        i, f, g, o = (w_x @ row + b_x + w_h @ h + b_h).chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
    return h


def weight_normed(layer: torch.nn.Module) -> Tensor:
    g, v = (getattr(layer.parametrizations.weight, f"original{i}") for i in (0, 1))
    return g * v / v.norm(dim=1, keepdim=True)


@torch.no_grad()
def test_ke_is_its_definition() -> None:
    torch.manual_seed(0)
    editor = KnowledgeEditor(SITES, D, lstm=6, condition=9, hidden=7).double().eval()
    for parameter in editor.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    texts = torch.randn(N, 2, T, D, dtype=torch.float64)
    lengths = torch.tensor([[7, 3], [1, 4], [5, 6]])
    real = torch.arange(T) < lengths[..., None]
    gradients = [
        LowRank(*(torch.randn(N, 3, d, dtype=torch.float64) for d in (s.d_in, s.d_out)))
        for s in SITES
    ]
    edits = editor(Request(gradients, condition=lambda: (texts, real)))
    for e in range(N):
        h = torch.zeros(9, dtype=torch.float64)
        for k in range(2):
            own = texts[e, k, : int(lengths[e, k])]
            both = torch.cat([lstm(editor.reader, own, back) for back in (False, True)])
            h += (editor.told.weight @ both + editor.told.bias).tanh() / 2
        for i, site in enumerate(SITES):
            first, _, last = editor.nets[i]
            middle = (weight_normed(first) @ h + first.bias).tanh()
            parts = weight_normed(last) @ middle + last.bias
            a, b, c, d, scale = parts.split([site.d_out, site.d_in, site.d_out, site.d_in, 1])
            gate = torch.outer(a.softmax(0), b)
            offset = torch.outer(c.softmax(0), d)
            dense = gradients[i].dense()[e]
            want = editor.log_rate[i].exp() * scale.sigmoid() * (dense * gate + offset)
            torch.testing.assert_close(edits[site].dense()[e], want)


@torch.no_grad()
def test_untrained_it_steps_down_the_gradient() -> None:
    torch.manual_seed(0)
    editor = KnowledgeEditor(SITES, D).eval()
    gradients = [LowRank(torch.randn(1, 3, s.d_in), torch.randn(1, 3, s.d_out)) for s in SITES]
    told = (torch.randn(1, 1, T, D), torch.ones(1, 1, T, dtype=torch.bool))
    edits = editor(Request(gradients, condition=lambda: told))
    for pair, delta in zip(gradients, edits.values(), strict=True):
        gradient, change = pair.dense().flatten(), delta.dense().flatten()
        assert torch.cosine_similarity(gradient, change, dim=0) < -0.7


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_a_condition_is_the_input_the_model_s_answer_and_the_right_one(family: str) -> None:
    case = Case(family)
    told = conditions(case.base, Nli(), case.bank, case.failures)
    inputs = encode(case.base, case.failures)
    names = case.base.model.config.id2label
    said = base_logits(case.base, inputs).argmax(-1)
    for i, line in enumerate(told):
        words = [names[int(said[i])], case.failures[i].target]
        answers = [
            t for w in words for t in case.base.tokenizer(w, add_special_tokens=False)["input_ids"]
        ]
        own = inputs["input_ids"][i][inputs["attention_mask"][i].bool()].tolist()
        assert line[line != NOTHING].tolist() == own + answers
        assert answers
    assert case.request.condition()[0].shape[:2] == (E, K)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_a_condition_holds_the_right_answer_of_a_text_once(family: str) -> None:
    """A causal model is run on prompt and answer; what it says stands behind the prompt alone."""
    base, qa = tiny_text.build(family), tiny_text.task()
    samples = tiny_text.samples(5)
    bank = memory_bank(base, qa, samples, BankSpec(base.layer(1)))
    told = conditions(base, qa, bank, samples)
    encoded = qa.encode(base, samples)
    logits = qa.logits(base, bank.outputs(torch.arange(5)), encoded.targets)
    said = torch.split(logits.argmax(-1), (encoded.targets != IGNORED).sum(1).tolist())
    for i, line in enumerate(told):
        scored = encoded.targets[i] != IGNORED
        ids = encoded.inputs["input_ids"][i][encoded.inputs["attention_mask"][i].bool()].tolist()
        if family == "llama":
            ids = ids[: int(encoded.at[i, 0]) + 1]
        right = [t for t in encoded.targets[i][scored].tolist() if t != END]
        assert line[line != NOTHING].tolist() == [*ids, *said[i].tolist(), *right]
