"""The cached, batched training step against the plain path of ``oracle.py``."""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_text
import torch
from oracle import Oracle, PlainEdit
from quick import quick
from tiny import ENDS, N_BLOCKS, build, samples
from torch import Tensor

from saledit.cache import opening
from saledit.cache.bank import BankSpec
from saledit.calibration import calibrate
from saledit.config import LossConfig, TrainConfig
from saledit.data.episodes import EditBatch
from saledit.data.part_banks import PartBanks, open_banks
from saledit.data.splits import Part
from saledit.delta import Edits
from saledit.editors.looks import edits_of_look, turn
from saledit.editors.mend import Mend
from saledit.editors.stepping import StepSearch
from saledit.judging.judged import judged
from saledit.losses import Multiplier
from saledit.models import TaskModel
from saledit.module import EditModule
from saledit.outcomes import Outcome, outcome
from saledit.tasks.base import Task
from saledit.tasks.nli import Nli

TASK = Nli()
WEIGHTS = LossConfig(edit=0.7, locality=1.3)
EDITS, PASSES = 2, 3


@dataclass
class Case:
    """A layer of a tiny model with cached samples."""

    base: TaskModel
    part: Part
    banks: PartBanks
    module: EditModule
    sample_rank: int
    gradient_rank: int

    def draw(self, k: int, passes: int = PASSES) -> tuple[Tensor, Tensor]:
        generator, n = torch.Generator().manual_seed(k), len(self.part.fail)
        rounds = -(-EDITS * k // n)  # some of them several times where there are too few
        deck = torch.cat([torch.randperm(n, generator=generator) for _ in range(rounds)])
        passing = torch.randint(len(self.part.passing), (EDITS, passes), generator=generator)
        return deck[: EDITS * k].view(EDITS, k), passing

    def batch(self, fail: Tensor, passing: Tensor) -> EditBatch:
        return self.banks.batch(fail, passing, self.gradient_rank)

    def plain(self, fail: Tensor, passing: Tensor) -> list[PlainEdit]:
        return [
            PlainEdit(
                [self.part.fail[i] for i in group],
                [sample for i in group for sample in self.part.adapt[i]],
                [self.part.passing[i] for i in held],
            )
            for group, held in zip(fail.tolist(), passing.tolist(), strict=True)
        ]

    def oracle(self) -> Oracle:
        sites = self.module.editor.sites
        return Oracle(self.base, TASK, sites, self.sample_rank, self.gradient_rank)


def make_case(
    folder: Path, family: str, block: int, *, sample_rank: int = 4, gradient_rank: int = 6,
    style: str = "bottleneck", dtype: torch.dtype = torch.float64,
) -> Case:  # fmt: skip
    in_words = family.startswith("text/")
    base = tiny_text.build(family.removeprefix("text/")) if in_words else build(family)
    base.model.to(dtype)
    task: Task = tiny_text.task() if in_words else TASK
    chosen = tiny_text.samples(24) if in_words else samples(24)
    # 0, 1 or 2 rewordings a failure, so that some rows are fillers.
    adapt = tuple(tuple(chosen[8 + i : 8 + i + i % 3]) for i in range(8))
    part = Part(tuple(chosen[:8]), adapt, tuple(chosen[16:]))
    layer = base.layer(block)
    spec = BankSpec(layer, sample_rank, moments=True, batch_tokens=80)
    (banks,) = open_banks(base, task, part, [spec], folder)
    torch.manual_seed(0)
    editor = Mend(layer.sites, rank=5, style=style)
    editor.to(base.model.dtype)
    module = EditModule(base, task, editor, banks.fail.entry, WEIGHTS)
    case = Case(base, part, banks, module, sample_rank, gradient_rank)
    editor.prime(case.batch(*case.draw(3)).terms.pairs, banks.passing.moments())
    with torch.no_grad():  # away from the identity start, where most gradients are 0
        for name, parameter in editor.named_parameters():
            if not name.endswith("log_rate"):
                parameter.add_(0.2 * torch.randn_like(parameter))
        editor.scale_rate(4.0)
    return case


def gradients(editor: torch.nn.Module, loss: Tensor) -> dict[str, Tensor]:
    named = {name: p for name, p in editor.named_parameters() if p.requires_grad}
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


def compare(case: Case, k: int, loss_tolerance: float, grad_tolerance: float) -> None:
    fail, passing = case.draw(k)
    loss, seen = case.module._loss(case.batch(fail, passing))
    # In training the normaliser takes the batch in first and is then used: the copy, which no
    # longer learns, is the editor that the batch saw.
    plain = copy.deepcopy(case.module.editor).eval()
    locality = WEIGHTS.locality / k**0.5
    expected = case.oracle().loss(plain, case.plain(fail, passing), WEIGHTS.edit, locality)
    assert seen["locality_kl"] > 1e-3, "an edit that changes nothing proves nothing"
    assert abs(loss.item() - expected.item()) < loss_tolerance * max(1.0, expected.item())
    cached, direct = gradients(case.module.editor, loss), gradients(plain, expected)
    for name, right in direct.items():
        assert right.norm() > 0, f"{name} has no gradient"
        assert (cached[name] - right).norm() <= grad_tolerance * right.norm(), name


@pytest.mark.parametrize("rows", quick([5], [1, 5, 11]))
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("style", quick(["bottleneck"], ["bottleneck", "published"]))
@pytest.mark.parametrize("margin", [0.0, 1e-3])
def test_rows_in_parts_are_rows_at_once(
    k: int, rows: int, style: str, margin: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers of failures that the parts do not divide are counted once each, too."""
    case = make_case(tmp_path, "bert", 1, style=style)
    if margin:
        case.module.multiplier = Multiplier(2.0, margin)
    batch = case.batch(*case.draw(k))
    case.module.eval()  # the normaliser stays as it is
    whole, logged = case.module._loss(batch)
    want = gradients(case.module, whole)
    assert ("multiplier.weight" in want) == bool(margin)
    monkeypatch.setattr("saledit.outcomes._ROWS", rows)
    assert len(batch) // rows > 0
    loss, again = case.module._loss(batch)
    torch.testing.assert_close(loss, whole)
    for name, value in logged.items():
        torch.testing.assert_close(again[name], value)
    found = gradients(case.module, loss)
    assert found.keys() == want.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, want[name])


IN_PARTS = ("bert", "text/gpt2", "text/t5")
MANY = 10**6  # rows or words


@pytest.mark.parametrize(
    ("family", "k", "passes", "rows", "words"),
    [
        *((family, 1, 40, 6, MANY) for family in IN_PARTS),
        ("bert", 9, 1, 2, MANY),  # parts with rows of one kind alone
        ("text/t5", 9, 1, 2, MANY),
        *((family, 9, 1, MANY, 14) for family in IN_PARTS),
        pytest.param("bert", 1000, 1, 50, MANY, marks=pytest.mark.long),
        ("bert", 1000, 30, 2048, MANY),
    ],
)
def test_parts_keep_to_their_size_however_many_failures_an_edit_has(
    family: str, k: int, passes: int, rows: int, words: int, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    case = make_case(tmp_path, family, 1)
    case.module.loss_weights = replace(WEIGHTS, penalty="root-kl")
    batch = case.batch(*case.draw(k, passes))
    case.module.eval()
    seen: list[EditBatch] = []

    def noted(*args: Any) -> Outcome:
        seen.append(args[-1])
        return outcome(*args)

    def step(rows: int, words: int) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        seen.clear()
        monkeypatch.setattr("saledit.outcomes._ROWS", rows)
        monkeypatch.setattr("saledit.models.base._LOGITS", words * case.base.vocabulary)
        loss, logged = case.module._loss(batch)
        return loss, logged, gradients(case.module.editor, loss)

    monkeypatch.setattr("saledit.module.outcome", noted)
    want = step(MANY, MANY)
    assert [len(part) for part in seen] == [len(batch)]
    found = step(rows, words)
    assert len(seen) > 1
    width = batch.n_scored // len(batch)
    assert max(map(len, seen)) <= rows
    assert max(part.n_scored for part in seen) <= max(words, EDITS * width)
    assert sum(map(len, seen)) == len(batch)
    # Text is scored in single precision.
    close = {"rtol": 1e-9, "atol": 1e-12} if family == "bert" else {"rtol": 1e-4, "atol": 1e-6}
    accuracies = [logged.pop("edit_accuracy") for _, logged, _ in (found, want)]
    torch.testing.assert_close(found, want, **close, check_dtype=False)
    torch.testing.assert_close(*accuracies)


@pytest.mark.parametrize("family", ["bert", "text/gpt2", "text/t5"])
@pytest.mark.parametrize(("rows", "words"), [(7, MANY), (MANY, 9), (1, 1)])
def test_edits_are_judged_in_parts_as_in_one(
    family: str, rows: int, words: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One edit of a thousand failures would else hold the logits of all their rows."""
    case = make_case(tmp_path, family, 1)
    fail, passing = case.draw(3)
    batch, entry, task = case.batch(fail, passing), case.banks.fail.entry, case.module.task
    edits = case.module.editor.eval()(case.module.request(batch)).detach() * 30.0  # change answers
    monkeypatch.setattr(type(task), "by_perplexity", True)  # so that likelihoods are counted
    sizes: list[int] = []

    def noted(*args: Any) -> Outcome:
        sizes.append(len(args[-1]))
        return outcome(*args)

    monkeypatch.setattr("saledit.judging.judged.outcome", noted)
    monkeypatch.setattr("saledit.models.base._LOGITS", MANY * case.base.vocabulary)
    whole = judged(case.base, task, entry, edits, batch)
    assert sizes == [len(batch)]
    assert 0 < int(whole.passing.right.sum()) < whole.passing.right.numel() or family != "bert"
    monkeypatch.setattr("saledit.outcomes._ROWS", rows)
    monkeypatch.setattr("saledit.models.base._LOGITS", words * case.base.vocabulary)
    sizes.clear()
    parts = judged(case.base, task, entry, edits, batch)
    assert len(sizes) > 1
    assert max(sizes) < len(batch)
    assert sum(sizes) == len(batch)
    torch.testing.assert_close(asdict(parts), asdict(whole), rtol=1e-4, atol=1e-6)


class ThroughHalf(torch.autograd.Function):
    """What lies behind it computes its gradients in float16."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].half().to(gradients[0].dtype)


def test_slopes_of_parts_are_scaled_as_the_trainer_scales_its_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make_case(tmp_path, "bert", 1)
    batch = case.batch(*case.draw(3))
    case.module.eval()
    real, small = case.module.loss_of, 1e-7

    def loss_of(edits: Edits, *args: Any) -> tuple[Tensor, Outcome]:
        loss, seen = real(edits.map(ThroughHalf.apply), *args)
        return small * loss, seen

    def plain(edits: Edits, *args: Any) -> tuple[Tensor, Outcome]:
        loss, seen = real(edits, *args)
        return small * loss, seen

    monkeypatch.setattr(case.module, "loss_of", plain)
    want = gradients(case.module.editor, case.module._loss(batch)[0])
    monkeypatch.setattr(case.module, "loss_of", loss_of)
    monkeypatch.setattr("saledit.outcomes._ROWS", 5)

    def apart(scale: float | None) -> float:
        scaler = None if scale is None else SimpleNamespace(get_scale=lambda: scale)
        case.module._trainer = SimpleNamespace(
            precision_plugin=SimpleNamespace(scaler=scaler), training=False, global_step=0
        )
        found = gradients(case.module.editor, case.module._loss(batch)[0])
        errors = [(found[name] - want[name]).norm() / want[name].norm() for name in want]
        return float(torch.stack(errors).max())

    assert apart(None) > 0.5  # most of it underflows
    assert apart(2.0**20) < 1e-2
    assert apart(2.0**60) == math.inf or math.isnan(apart(2.0**60))  # for the trainer to see


def test_a_margin_is_of_the_kl_itself(tmp_path: Path) -> None:
    case = make_case(tmp_path, "bert", 1)
    batch = case.batch(*case.draw(1))
    case.module.eval()
    case.module.multiplier = Multiplier(2.0, 1e-3)
    found = []
    for name in ("kl", "root-kl"):
        case.module.loss_weights = replace(case.module.loss_weights, penalty=name)
        found.append(float(case.module._loss(batch)[0]))
    assert found[0] == found[1]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_SHARD", 5)  # samples of one edit come from several shards


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("block", quick([1], range(N_BLOCKS)))
@pytest.mark.parametrize(
    "family", quick(["bert", "llama"], ["bert", "distilbert", "gpt2", "llama"])
)
def test_cached_batched_is_plain_one_by_one(
    family: str, block: int, k: int, tmp_path: Path
) -> None:
    compare(make_case(tmp_path, family, block), k, 1e-9, 1e-7)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("block", quick([0], ENDS))
def test_single_precision_costs_rounding_only(block: int, k: int, tmp_path: Path) -> None:
    # Processors add up in different orders: 1.6e-5 at most with AVX2, less with AVX-512.
    compare(make_case(tmp_path, "bert", block, dtype=torch.float32), k, 5e-5, 1e-3)


@pytest.mark.parametrize("style", ["bottleneck", "published"])
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("family", quick(["bert"], ["bert", "gpt2"]))
def test_nothing_is_lost_with_all_terms(family: str, k: int, style: str, tmp_path: Path) -> None:
    case = make_case(tmp_path, family, 0, sample_rank=24, gradient_rank=96, style=style)
    compare(case, k, 1e-9, 1e-7)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_training_step_takes_the_batch_into_the_normaliser_first(
    family: str, tmp_path: Path
) -> None:
    case = make_case(tmp_path, family, 1)
    before = case.module.editor.normalizers[0].mean.clone()
    case.module.train()
    compare(case, 1, 1e-9, 1e-7)
    assert not torch.equal(case.module.editor.normalizers[0].mean, before)


def test_edits_of_a_batch_do_not_see_each_other(tmp_path: Path) -> None:
    case = make_case(tmp_path, "bert", 0)
    case.module.eval()
    fail, passing = case.draw(1)

    def seen(fail: Tensor, passing: Tensor) -> Outcome:
        batch = case.batch(fail, passing)
        return case.module.loss_of(case.module.editor(case.module.request(batch)), batch)[1]

    together = seen(fail, passing)
    for i in range(EDITS):
        alone = seen(fail[i : i + 1], passing[i : i + 1])
        torch.testing.assert_close(together.edit[i], alone.edit[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(together.passing[i], alone.passing[0], rtol=1e-5, atol=1e-5)


def test_calibration_keeps_the_size_of_the_least_loss(tmp_path: Path) -> None:
    case = make_case(tmp_path, "bert", 1)
    batch, grid = case.batch(*case.draw(2)), (1e-3, 0.1, 1.0, 1e3, 1e9)
    rates = case.module.editor.state_dict()["log_rate"].clone()
    with torch.no_grad():
        case.module.eval()
        edits = case.module.editor(case.module.request(batch))
        losses = [float(case.module.loss_of(edits * factor, batch)[0]) for factor in grid]
    best = grid[losses.index(min(losses))]
    assert 1e-3 < best < 1e9, "a grid whose end wins proves nothing"
    assert calibrate(case.module, [batch], grid) == best
    after = case.module.editor.state_dict()["log_rate"]
    torch.testing.assert_close(after, rates + math.log(best))
    assert case.module.editor.training


def test_calibration_has_no_more_rows_in_memory_than_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it would run out of it before the first step."""
    case = make_case(tmp_path, "bert", 1)
    batch, seen, at = case.batch(*case.draw(3)), list[int](), list[float]()
    real = case.module.loss_of

    def loss_of(edits: Edits, part: EditBatch, *shares: float) -> Any:
        loss, told = real(edits, part, *shares)
        seen.append(len(part))
        at.append(float(loss))
        return loss, told

    monkeypatch.setattr(case.module, "loss_of", loss_of)
    want = calibrate(case.module, [batch], (1e-3, 0.1, 1.0, 1e3))
    whole = list(at)
    assert seen == [len(batch)] * 4
    case.module.editor.scale_rate(1 / want)
    seen.clear(), at.clear()
    monkeypatch.setattr("saledit.outcomes._ROWS", rows := 2 * len(batch.targets))
    assert calibrate(case.module, [batch], (1e-3, 0.1, 1.0, 1e3)) == want
    assert len(seen) > 4
    assert max(seen) <= rows
    each = len(at) // 4
    parts = [sum(at[i : i + each]) for i in range(0, len(at), each)]
    assert parts == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ([[1.0, 9.0], [2.0, 3.0], [4.0, 4.0]], 0.3),  # by the mean, not by the first batch
        ([[math.nan, 1.0], [math.inf, 0.0], [5.0, 5.0]], 1.0),  # one that broke is none
    ],
)
def test_calibration_hears_all_batches_and_no_nan(
    losses: list[list[float]], best: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make_case(tmp_path, "bert", 1)
    batches = [case.batch(*case.draw(2)), case.batch(*case.draw(3))]
    given = iter([torch.tensor(loss) for of_rate in losses for loss in of_rate])
    monkeypatch.setattr(case.module, "loss_of", lambda _edits, _batch: (next(given), None))
    tried: list[int] = []
    assert calibrate(case.module, batches, (0.1, 0.3, 1.0), tried.append) == best
    assert tried == [1, 2, 3]


def test_training_is_on_each_look_in_its_turn(tmp_path: Path) -> None:
    """The loss of a step is that of the edits after its look; only the look's step learns."""
    case = make_case(tmp_path, "bert", 1)
    batch, module = case.batch(*case.draw(2)), case.module
    enough = 1e-6
    module.search = StepSearch(looks=8, enough=enough)
    module.train_config = TrainConfig(looks=3)  # of eight, training is on three
    begun = copy.deepcopy(module.editor.state_dict())
    losses = []
    for step in range(5):
        module.editor.load_state_dict(begun)
        module._trainer = SimpleNamespace(global_step=step, training=False)
        loss = module._loss(batch)[0]
        module.editor.load_state_dict(begun)
        edits = edits_of_look(module.editor, module.request(batch), turn(step, 3), enough)
        torch.testing.assert_close(loss, module.loss_of(edits, batch)[0])
        losses.append(round(loss.item(), 4))
    assert len(set(losses)) == 3


@pytest.mark.parametrize("look", [0, 1])
def test_a_look_s_loss_is_the_same_in_parts(
    look: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make_case(tmp_path, "bert", 1)
    batch, module = case.batch(*case.draw(2)), case.module
    begun = copy.deepcopy(module.editor.state_dict())
    module.search = StepSearch(looks=2, enough=0.0)
    step = next(i for i in range(9) if turn(i, 2) == look)
    module._trainer = SimpleNamespace(global_step=step, training=False)

    def slopes() -> dict[str, Tensor]:
        module.editor.load_state_dict(begun)
        return gradients(module.editor, module._loss(batch)[0])

    whole = slopes()
    monkeypatch.setattr("saledit.outcomes._ROWS", len(batch) // 3)
    parts = slopes()
    assert whole.keys() == parts.keys()
    for name, slope in whole.items():
        torch.testing.assert_close(parts[name], slope, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("family", ["bert", "gpt2"])
@torch.no_grad()
def test_each_edit_of_a_batch_goes_as_far_as_its_own_failures_need(
    family: str, k: int, tmp_path: Path
) -> None:
    case, factors = make_case(tmp_path, family, 1), (0.1, 0.3, 1.0, 3.0)
    fail, passing = case.draw(k)
    batch, entry = case.batch(fail, passing), case.banks.fail.entry
    edits = case.module.editor.eval()(case.module.request(batch))

    def losses(tried: Edits) -> Tensor:
        seen = outcome(case.base, TASK, entry, tried, batch)
        return TASK.losses(case.base, seen.edit, batch.targets)[:, :k].mean(1)

    table = torch.stack([losses(edits * factor) for factor in factors])
    enough = table.min(0).values.max().item() + 1e-9  # just enough for the worse one
    found = StepSearch(factors, enough)(edits, case.module.request(batch).losses)
    for i in range(EDITS):
        want = factors[next(j for j in range(len(factors)) if table[j, i] <= enough)]
        for site, delta in found.items():
            torch.testing.assert_close(delta[i].dense(), edits[site][i].dense() * want)
