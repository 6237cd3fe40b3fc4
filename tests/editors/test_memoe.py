"""MEMoE against torch's own Adam on gate and experts of a whole model, in float64; its files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from editing import Case, E, SlowEdit
from safetensors.torch import load_file, save_file
from tiny import encode
from torch import Tensor
from torch.nn import functional as F

from saledit.artifact import load_edits, save_edits
from saledit.artifact.edits import EDITS_FACTS, EDITS_WEIGHTS
from saledit.building import check_editor
from saledit.config import EditorConfig
from saledit.config.editors import MemoeConfig
from saledit.delta import Edits
from saledit.delta.routed import Routed
from saledit.editors.memoe import MixtureOfExperts
from saledit.errors import ArtifactError, ConfigError
from saledit.overlay import applied

STEPS, RATE, KL, EXPERTS, TOP_K, RANK = 3, 0.01, 5.0, 3, 2, 2


@pytest.fixture(scope="module", params=["bert", "gpt2", "llama"])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def make(case: Case, **settings: Any) -> MixtureOfExperts:
    given = {"experts": EXPERTS, "top_k": TOP_K, "rank": RANK, "steps": STEPS, "rate": RATE}
    return MixtureOfExperts(
        case.layer.sites, case.base.embedding_size, **{**given, "enough": 0.0, **settings}
    )


class SlowMixture(SlowEdit):
    """The whole model in float64 with experts beside the site, all of them computed and masked."""

    def __init__(self, case: Case, i: int, values: list[Tensor]) -> None:
        super().__init__(case, i)
        with torch.no_grad():
            self._before = self._model(**self._held).logits.log_softmax(-1)
        self._model.register_forward_pre_hook(self._read, with_kwargs=True)
        self._is_causal = case.base.family.generates
        for j, site in enumerate(self.sites):
            module = self._model.get_submodule(site.name)
            own = values[3 * j : 3 * j + 3]
            module.register_forward_hook(
                lambda _module, args, output, own=own: output + self._added(args[0], *own)
            )

    def _read(self, model: torch.nn.Module, _args: Any, kwargs: dict[str, Tensor]) -> None:
        rows = []
        for ids, mask in zip(kwargs["input_ids"], kwargs["attention_mask"].bool(), strict=True):
            table = model.get_input_embeddings()(ids)  # type: ignore[operator]
            n = int(mask.sum())
            means = [
                table[: min(t + 1, n) if self._is_causal else n].mean(0) for t in range(len(ids))
            ]
            rows.append(torch.stack(means))
        self._about = torch.stack(rows).detach()  # (B, T, D_A)

    def _added(self, x: Tensor, gate: Tensor, u: Tensor, v: Tensor) -> Tensor:
        logits = torch.cat([x, self._about[:, : x.shape[1]]], -1) @ gate.T  # (B, T, X)
        least = logits.sort(-1, descending=True).values[..., TOP_K - 1 : TOP_K]
        shares = logits.masked_fill(logits < least, -math.inf).softmax(-1)
        parts = [
            shares[..., e : e + 1]
            * (x @ u[RANK * e : RANK * (e + 1)].T @ v[RANK * e : RANK * (e + 1)])
            for e in range(EXPERTS)
        ]
        return torch.stack(parts).sum(0)

    def damage(self, changes: list[Tensor]) -> Tensor:
        after = self._logits(self._held, changes).log_softmax(-1)
        return F.kl_div(after, self._before, reduction="batchmean", log_target=True)

    @property
    def unchanged(self) -> list[Tensor]:
        """No change of the weights themselves."""
        return [torch.zeros(s.d_out, s.d_in, dtype=torch.float64) for s in self.sites]


@pytest.mark.parametrize("kl", [0.0, KL])
def test_it_is_adam_on_gate_and_experts(case: Case, kl: float) -> None:
    editor = make(case, kl=kl)
    assert editor.needs_held == (kl > 0)
    edits = editor(case.request)
    for i in range(E):
        values = [v[i].double().requires_grad_() for v in editor._start(case.request)]
        begun = [value.detach().clone() for value in values]
        edit = SlowMixture(case, i, values)
        adam = torch.optim.Adam(values, lr=RATE)
        for _ in range(STEPS):
            adam.zero_grad()
            loss = edit.loss(edit.unchanged)
            (loss + kl * edit.damage(edit.unchanged) if kl else loss).backward()
            adam.step()
        mine = [part[i] for delta in edits.values() for part in delta.tensors()]
        for got, want, start in zip(mine, values, begun, strict=True):
            # Adam's steps are signs, which rounding turns where a gradient is about zero.
            off = (got - want.detach().float()).abs() > 1e-3
            assert off.float().mean() < 0.02
            assert (want.detach() - start).abs().max() > RATE / 2


def test_an_edit_ends_when_its_failures_are_mended(case: Case) -> None:
    losses = case.losses(make(case, steps=100, enough=0.1, kl=0.0)(case.request))
    assert (losses <= 0.1).all()
    none = make(case, enough=1e9)(case.request)
    assert not any(delta.tensors()[-1].any() for delta in none.values())


def test_a_gate_of_one_expert_stays_as_it_begins(case: Case) -> None:
    editor = make(case, top_k=1)
    for delta, gate in zip(
        editor(case.request).values(), editor._start(case.request)[::3], strict=True
    ):
        assert torch.equal(delta.tensors()[0], gate)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"experts": 0}, "editor.memoe.experts: expected at least 1, got 0"),
        ({"experts": 2, "top_k": 3}, r"editor.memoe.top_k: expected at most .* \(2\), got 3"),
        ({"top_k": 0}, "editor.memoe.top_k: expected at least 1"),
        ({"rank": 0}, "editor.memoe.rank"),
        ({"steps": 0}, "editor.memoe.steps"),
        ({"rate": 0.0}, "editor.memoe.rate: expected above 0"),
        ({"rate": math.nan}, "editor.memoe.rate"),
        ({"kl": -1.0}, "editor.memoe.kl: expected at least 0, got -1"),
        ({"enough": math.inf}, "editor.memoe.enough"),
    ],
)
def test_settings_that_make_no_mixture_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_editor(EditorConfig(name="memoe", memoe=MemoeConfig(**settings)))


@pytest.fixture(scope="module")
def one() -> Case:
    return Case("bert")


@pytest.fixture
def piled(one: Case) -> Edits:
    """Two edits on each other."""
    edits = make(one)(one.request).detach()
    first, second = (Edits({s: delta[i] for s, delta in edits.items()}) for i in range(2))
    return first + second


def saved(one: Case, edits: Edits, folder: Path) -> Path:
    facts = {"base_model": {"name": one.base.name, "fingerprint": one.base.fingerprint}}
    save_edits(folder, edits, facts)
    return folder


@torch.no_grad()
def test_edits_are_the_same_from_their_files(one: Case, piled: Edits, tmp_path: Path) -> None:
    loaded = load_edits(saved(one, piled, tmp_path / "edits"), one.base.model)
    inputs = encode(one.base, one.failures)
    outputs = []
    for edits in (piled, loaded, Edits({})):
        with applied(one.base.model, edits):
            outputs.append(one.base.model(**inputs).logits)
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    for site, delta in loaded.items():
        want = piled[site]
        assert isinstance(delta, Routed)
        assert isinstance(want, Routed)
        assert delta.mixtures == want.mixtures
        assert len(delta.mixtures) == 2


def _routing(change: Callable[[dict[str, Any], str], None]) -> Callable[[Path, str], None]:
    def spoil(folder: Path, name: str) -> None:
        facts = json.loads((folder / EDITS_FACTS).read_text(encoding="utf-8"))
        change(facts, name)
        (folder / EDITS_FACTS).write_text(json.dumps(facts), encoding="utf-8")

    return spoil


def _weights(change: Callable[[dict[str, Tensor], str], None]) -> Callable[[Path, str], None]:
    def spoil(folder: Path, name: str) -> None:
        tensors = load_file(folder / EDITS_WEIGHTS)
        change(tensors, name)
        save_file({key: t.contiguous() for key, t in tensors.items()}, folder / EDITS_WEIGHTS)

    return spoil


def _cut(part: str, dim: int) -> Callable[[dict[str, Tensor], str], None]:
    def cut(tensors: dict[str, Tensor], name: str) -> None:
        key = f"{name}.{part}"
        tensors[key] = tensors[key].narrow(dim, 0, tensors[key].shape[dim] - 1)

    return cut


def _set(value: Any) -> Callable[[dict[str, Any], str], None]:
    return lambda facts, name: facts["routing"].update({name: value})


SPOILED = {
    "no routing": _routing(lambda facts, _name: facts.pop("routing")),
    "no mixtures": _routing(lambda facts, name: facts["routing"].pop(name)),
    "routing of another kind": _routing(lambda facts, _name: facts.update(routing=[1])),
    "a number": _routing(_set(7)),
    "numbers": _routing(_set([3, 2, 2])),
    "fractions": _routing(_set([[3, 2, 2.0], [3, 2, 2]])),
    "words": _routing(_set(["322", "322"])),
    "two numbers": _routing(_set([[3, 2], [3, 2]])),
    "too few experts": _routing(_set([[3, 2, 2]])),
    "too many chosen": _routing(_set([[3, 2, 4], [3, 2, 2]])),
    "negative": _routing(_set([[3, 2, 2], [3, 2, 2], [-3, -2, 2]])),
    "no gate": _weights(lambda tensors, name: tensors.pop(f"{name}.u")),
    "a narrow gate": _weights(_cut("gate", 1)),
    "a low gate": _weights(_cut("gate", 0)),
    "a low u": _weights(_cut("u", 0)),
    "a narrow v": _weights(_cut("v", 1)),
    "a narrow u": _weights(_cut("u", 1)),
    "a flat gate": _weights(
        lambda tensors, name: tensors.update({f"{name}.gate": tensors[f"{name}.gate"].flatten()})
    ),
}


@pytest.mark.parametrize("how", SPOILED)
def test_files_that_do_not_fit_are_refused(
    one: Case, piled: Edits, tmp_path: Path, how: str
) -> None:
    folder = saved(one, piled, tmp_path / "edits")
    SPOILED[how](folder, one.layer.sites[1].name)
    with pytest.raises(ArtifactError) as caught:
        load_edits(folder, one.base.model)
    assert "\n" not in str(caught.value)
