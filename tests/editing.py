"""A tiny classifier and edits of it, for tests of editors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from _pytest.mark.structures import ParameterSet
from tiny import build, encode, samples
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from saledit import config as configuration
from saledit.building import make_editor
from saledit.cache.bank import Bank, BankSpec
from saledit.cache.opening import memory_bank
from saledit.config import EditorConfig, RunConfig
from saledit.config.editors import FtConfig, LocateConfig, MemoeConfig
from saledit.data.conditions import conditions, embedded
from saledit.delta import Delta, Edits, LowRank
from saledit.delta.routed import Routed
from saledit.editors.base import Editor
from saledit.editors.locate import Locate
from saledit.editors.locating import FactSource, FactSpec
from saledit.editors.looks import edits_for
from saledit.editors.request import Request
from saledit.editors.terms import aggregate
from saledit.forward.scoring import base_logits
from saledit.forward.suffix import run
from saledit.models import TaskModel
from saledit.overlay import applied
from saledit.records import Sample
from saledit.registry import EDITORS
from saledit.requests import damage, facts_of, hold
from saledit.site import Layer, Site
from saledit.tasks.nli import Nli

BLOCK = 1
E, K, RANK = 3, 2, 4
STEPS = 6  # of fine-tuning, at most


#: Families between which an editor could tell: an encoder, a decoder whose matrices are stored
#: transposed, and both stacks of an encoder-decoder.
FEW = ("bert", "gpt2", "t5", "bart/encoder")


#: What presets make of the registry's editors, besides ``locate``'s (``test_locate``), and one form
#: that has no preset; as a command line has them. Those that are left out are of default numbers.
PRESETS = (
    "editors/mend",
    "editors/malmen",
    "editors/malmen-whitened",
    "editors/ft-kl",
    "editors/ft-l",
    "editors/lora-ft",
    "editors/enn editor.enn.second_order=false",
)


def pairs(
    families: Sequence[str], quick: Sequence[str], of_presets: str = "", every: bool = False
) -> list[ParameterSet]:
    """Every editor on every family, a parameter (family, editor) each; presets on one family.

    One editor goes through all families; those that are not of ``FEW`` are marked long unless
    ``every`` is set. How a family is read, cached and edited is the same for all editors, so the
    others go through a few, of which ``quick`` are not marked long; through all of them where
    ``every`` is set, which is then long, and everywhere with ``-m slow``.
    """

    def marks(family: str, name: str) -> Any:
        if family in quick:
            return ()
        if name == "mend":
            return () if every or family in FEW else pytest.mark.long
        return pytest.mark.long if family in FEW or every else pytest.mark.slow

    forms = [
        pytest.param((of_presets, name), id=f"{of_presets}-{name.replace(' ', '-')}")
        for name in PRESETS
        if of_presets
    ]
    return forms + [
        pytest.param((family, name), id=f"{family}-{name}", marks=marks(family, name))
        for family in families
        for name in sorted(EDITORS)
    ]


# Random words have no subject, and of a tiny model's text there is little to be preserved.
_LAST = LocateConfig(at="last", contexts=0, weight=0.01, value_rate=0.1, shrink=0.1)
_SHORT = EditorConfig(
    memoe=MemoeConfig(experts=4, steps=5, rate=1e-2, kl=10.0),
    ft=FtConfig(steps=STEPS),
    locate=_LAST,
)


@cache
def config_of(name: str) -> RunConfig:
    """An editor of the registry as configurations have it by default, or one of ``PRESETS``."""
    if name in EDITORS:
        return RunConfig(editor=replace(_SHORT, name=name))
    preset, *overrides = name.split()
    return configuration.load(None, [*overrides, f"editor.ft.steps={STEPS}"], [preset])


def asked_by(name: str) -> tuple[int, int]:
    """How many blocks an editor is for, and how many terms of a gradient: few, or 0 for all."""
    config = config_of(name)
    return config.site.span, RANK if config.editor.gradient_rank else 0


def layer_of(base: TaskModel, span: int) -> Layer:
    """The layer that tests edit: a block in the middle, or all up to a block."""
    return base.layer(max(BLOCK, span - 1), span=span)


def fresh(name: str, base: TaskModel, layer: Layer) -> Editor:
    """An editor before anything is primed or trained; its name is one for ``config_of``."""
    return make_editor(config_of(name).editor, layer.sites, base.embedding_size)


def prime(editor: Editor, gradients: Sequence[LowRank], bank: Bank) -> None:
    """With a bank's second moments, where it wants any."""
    wanted = editor.moment_sites(editor.sites)
    editor.prime(gradients, bank.moments(wanted) if editor.needs_moments else None)


def sites_of(editor: Editor, layer: Layer) -> list[Site]:
    """What an editor changes of a layer: all of it, or the map that its MLP ends with."""
    return list(layer.sites[-1:] if isinstance(editor, Locate) else layer.sites)


class Case:
    """A tiny model and E edits of K failures each.

    Args:
        family: of ``tiny``.
        span: blocks to be edited.
        rank: terms of an edit's gradient; 0 for all.
    """

    def __init__(self, family: str, span: int = 1, rank: int = RANK) -> None:
        self.name, self.base = family, build(family)
        self.layer = layer_of(self.base, span)
        self.bank = self._bank()
        self.index = torch.arange(E * K).view(E, K)
        terms = aggregate(self.bank.factors(self.index), self.bank.losses[self.index], rank)
        self.gradients, self.owners = terms.pairs, terms.owners
        self.others = samples(E * K + 4)[E * K :]
        self.held = hold(self.base, Nli(), self.others, self.layer)
        told = conditions(self.base, Nli(), self.bank, self.failures)[self.index]
        self.condition = embedded(self.base, told)
        self.request = Request(
            self.gradients, self.losses, self.damage, lambda: self.condition,
            self._facts(range(E)), owners=self.owners,
        )  # fmt: skip

    def _bank(self) -> Bank:
        """Failures: the target is the model's second choice."""
        chosen = samples(E * K)
        names = self.base.model.config.id2label
        second = base_logits(self.base, encode(self.base, chosen)).topk(2).indices[:, 1]
        pairs = zip(chosen, second, strict=True)
        self.failures = [Sample(s.id, s.inputs, names[int(i)]) for s, i in pairs]
        spec = BankSpec(self.layer, rank=RANK, moments=True)
        return memory_bank(self.base, Nli(), self.failures, spec)

    def _facts(self, edits: Iterable[int]) -> Callable[[tuple[Site, ...], FactSpec], FactSource]:
        own = [[self.failures[n] for n in self.index[e].tolist()] for e in edits]
        return facts_of(self.base, Nli(), self.bank.entry, own)

    def alone(self, i: int) -> Request:
        """The request of one of the edits."""
        one = [pair[i : i + 1] for pair in self.gradients]
        own = self.index[i : i + 1]
        texts = [tensor[i : i + 1] for tensor in self.condition]
        return Request(
            one, lambda edits: self._losses(edits, own), self.damage, lambda: (texts[0], texts[1]),
            self._facts([i]), owners=self.owners[i : i + 1],
        )  # fmt: skip

    def losses(self, edits: Edits) -> Tensor:
        """Mean loss of each edit's own failures (E,)."""
        return self._losses(edits, self.index)

    def _losses(self, edits: Edits, index: Tensor) -> Tensor:
        rows = self.bank.rows(index.flatten())
        with applied(self.base.model, edits):
            logits = run(self.base, self.bank.entry, rows.states, rows.inputs)
        targets = self.bank.targets[index.flatten()]
        return F.cross_entropy(logits, targets, reduction="none").view(index.shape).mean(1)

    def damage(self, edits: Edits) -> Tensor:
        """What edits do to held samples (E,)."""
        return damage(self.base, Nli(), self.bank.entry, self.held)(edits)

    def editor(self, name: str, seed: int = 0) -> Editor:
        """A primed editor."""
        torch.manual_seed(seed)
        editor = fresh(name, self.base, self.layer)
        prime(editor, self.gradients, self.bank)
        return editor

    def train(self, editor: Editor, steps: int) -> list[float]:
        """Adam on the edit loss; the losses before each step."""
        return train(editor, self.request, steps)


def train(editor: Editor, request: Request, steps: int) -> list[float]:
    """Adam on the mean loss of a request's own failures; the losses before each step."""
    parameters = [p for p in editor.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=0.01) if parameters else None
    editor.train()
    seen = []
    for _ in range(steps):
        loss = request.losses(edits_for(editor, request)).mean()
        seen.append(loss.item())
        if optimizer is None:
            break  # nothing is learned
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return seen


class SlowEdit:
    """The whole model in float64 with other weights in the place of the site's, for one edit."""

    def __init__(self, case: Case, i: int) -> None:
        self._model = copy.deepcopy(case.base.model).double()
        encoded = encode(case.base, case.failures)
        self._rows = {name: t[i * K : (i + 1) * K] for name, t in encoded.items()}
        self._targets = case.bank.targets[i * K : (i + 1) * K]
        self._held = encode(case.base, case.others)
        self.sites = case.layer.sites

    def loss(self, changes: list[Tensor]) -> Tensor:
        """Mean loss of the edit's failures under changes (D_out, D_in)."""
        return F.cross_entropy(self._logits(self._rows, changes), self._targets)

    def damage(self, changes: list[Tensor]) -> Tensor:
        """Mean KL(base || edited) of the held samples."""
        with torch.no_grad():
            old = self._model(**self._held).logits.log_softmax(-1)
        new = self._logits(self._held, changes).log_softmax(-1)
        return F.kl_div(new, old, reduction="batchmean", log_target=True)

    def _logits(self, rows: dict[str, Tensor], changes: list[Tensor]) -> Tensor:
        weights = {}
        for site, change in zip(self.sites, changes, strict=True):
            old = self._model.get_submodule(site.name).weight
            weights[f"{site.name}.weight"] = old + (change.T if site.transposed else change)
        with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivatives
            logits: Tensor = functional_call(self._model, weights, kwargs=rows).logits
        return logits


def numbers(delta: Delta) -> Tensor:
    """What a delta is, (..., A, B), to be compared: its matrix, or the parts of a routed one."""
    if isinstance(delta, Routed):
        return torch.cat([part.flatten(-2) for part in delta.tensors()], -1)[..., None, :]
    return delta.dense()


def assert_near(mine: Tensor, want: Tensor, rtol: float = 1e-3) -> None:
    want = want.float()
    torch.testing.assert_close(mine, want, rtol=rtol, atol=rtol * float(want.abs().max()))
