"""From a plain encoder to a task model."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_text
import torch
from lightning.pytorch.callbacks import Callback
from tiny import LABELS, build, samples, save

from saledit.config import FinetuneConfig
from saledit.errors import ConfigError, JobError, SiteError
from saledit.finetune import _key, finetuned
from saledit.forward.scoring import base_logits, forward
from saledit.models import TaskModel, load_classifier
from saledit.records import Record, Sample
from saledit.tasks.nli import Nli
from saledit.tasks.prompts import END, IGNORED

CONFIG = FinetuneConfig(enabled=True, epochs=12, batch_size=8, learning_rate=0.003)


class Steps(Callback):
    """Counts training steps."""

    def __init__(self) -> None:
        self.count = 0

    def on_train_batch_end(self, *_args: Any, **_options: Any) -> None:
        self.count += 1


@pytest.fixture
def encoder(tmp_path: Path) -> str:
    folder = tmp_path / "encoder"
    save(build("bert"), folder)
    return str(folder)


def records() -> list[Record]:
    """Each label has a word of its own, said over and over; the second text varies."""
    words = sorted(set(" ".join(s.inputs[0] for s in samples(9)).split()))
    return [
        Record(Sample(s.id, (f"{words[i % 3]} " * 6, s.inputs[1].split()[0]), LABELS[i % 3]), ())
        for i, s in enumerate(samples(48))
    ]


@pytest.fixture
def run(encoder: str, tmp_path: Path) -> Callable[..., tuple[TaskModel, int]]:
    def run(config: FinetuneConfig = CONFIG, **options: Any) -> tuple[TaskModel, int]:
        steps = Steps()
        chosen: Sequence[Record] = options.pop("records", None) or records()

        def load(name: str) -> TaskModel:
            return load_classifier(name, sorted(LABELS) if name == encoder else None)

        base = finetuned(
            encoder, Nli(), chosen, load, config, tmp_path / "cache", [steps], **options
        )
        return base, steps.count

    return run


def accuracy(base: TaskModel) -> float:
    chosen = [record.sample for record in records()]
    seen = Nli().encode(base, chosen)
    return float(Nli().correct(base_logits(base, seen.inputs), seen.targets).float().mean())


def test_it_learns_its_records_and_is_frozen(run: Callable[..., tuple[TaskModel, int]]) -> None:
    base, steps = run()
    assert steps == CONFIG.epochs * 48 / 8
    assert accuracy(base) > 0.9
    assert sorted(base.labels) == sorted(LABELS)
    assert not base.model.training
    assert not any(p.requires_grad for p in base.model.parameters())


def test_it_is_made_once_and_again_where_anything_differs(
    run: Callable[..., tuple[TaskModel, int]],
) -> None:
    short = replace(CONFIG, epochs=1)
    first, steps = run(short)
    again, none = run(short)
    assert (steps, none) == (6, 0)
    assert again.fingerprint == first.fingerprint
    other, steps = run(replace(short, seed=1))
    assert steps == 6
    assert other.fingerprint != first.fingerprint
    assert run(short, records=records()[:40])[1] == 5


def test_what_is_learned_is_told_apart_by_rewordings_of_questions() -> None:
    base = tiny_text.build("llama")
    known, new = (
        [Record(s, (replace(s, inputs=(f"{s.inputs[0]} {word}",)),)) for s in tiny_text.samples(3)]
        for word in ("a", "b")
    )
    task = tiny_text.task()
    assert _key(base, task, known, CONFIG) != _key(base, task, new, CONFIG)
    assert _key(base, task, known, CONFIG) == _key(base, task, known, CONFIG)


def test_a_check_comes_before_the_training(
    run: Callable[..., tuple[TaskModel, int]], tmp_path: Path
) -> None:
    with pytest.raises(SiteError, match=r"site\.layer: expected a block from 0 to 2, got 9"):
        run(check=lambda base: base.layer(9))
    with pytest.raises(ConfigError, match=r"model\.finetune\.precision: unknown name 'half'"):
        run(replace(CONFIG, precision="half"))
    assert not (tmp_path / "cache").exists()


def test_divergence_leaves_no_task_model(
    run: Callable[..., tuple[TaskModel, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = Nli.losses
    monkeypatch.setattr(Nli, "losses", lambda *given: losses(*given) * torch.nan)
    with pytest.raises(JobError, match=r"fine-tuning diverged"):
        run(replace(CONFIG, epochs=1))
    assert not list((tmp_path / "cache").glob("finetuned-*"))


def test_ctrl_c_comes_out_as_what_it_is(
    run: Callable[..., tuple[TaskModel, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning makes an exit of it, with SIGINT switched off: a caller would end, too."""

    def stopped(*_args: Any, **_options: Any) -> None:
        raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(Steps, "on_train_batch_end", stopped)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize(
    ("device", "wanted"), [("cpu", ("cpu", 1)), ("cuda:2", ("cuda", [2])), ("cuda", ("cuda", [0]))]
)
def test_where_it_is_trained(
    run: Callable[..., tuple[TaskModel, int]], monkeypatch: pytest.MonkeyPatch, device: str,
    wanted: tuple[str, Any],
) -> None:  # fmt: skip
    def trainer(**settings: Any) -> None:
        assert (settings["accelerator"], settings["devices"]) == wanted
        raise KeyboardInterrupt

    monkeypatch.setattr("saledit.finetune.L.Trainer", trainer)
    with pytest.raises(KeyboardInterrupt):
        run(device=torch.device(device))


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5", "bart"])
def test_every_weight_learns_by_the_models_own_loss(family: str) -> None:
    """The head too, tied or not: it is frozen in every other use of these models."""
    base, task = tiny_text.build(family), tiny_text.task().unended()
    seen = task.encode(base, tiny_text.samples(3))
    base.model.requires_grad_(True)
    outputs = forward(base, seen.inputs, seen.at)
    wanted = seen.targets.masked_fill(seen.targets == END, IGNORED)  # one of several tokens
    logits = task.logits(base, outputs, wanted)
    task.losses(base, logits, wanted).sum().backward()
    found = {name: p.grad for name, p in base.model.named_parameters()}
    base.model.zero_grad()
    assert all(p.grad is None for p in base.model.parameters())
    whole = base.model(**seen.inputs).logits  # (B, T, C)
    places = seen.at[..., None].expand(-1, -1, whole.shape[-1])
    scored = wanted != IGNORED
    nll = torch.nn.functional.cross_entropy(
        whole.gather(1, places)[scored], wanted[scored], reduction="none"
    )
    counts = scored.sum(1)
    (nll / counts.repeat_interleave(counts)).sum().backward()
    for name, p in base.model.named_parameters():
        assert (found[name] is None) == (p.grad is None), name
        if p.grad is not None:
            assert p.grad.abs().max() > 0, name
            torch.testing.assert_close(found[name], p.grad, rtol=1e-3, atol=1e-6, msg=name)


def test_a_head_that_learns_is_read_as_it_is_now() -> None:
    base = tiny_text.build("gpt2")
    weight = base.model.get_output_embeddings().weight
    x = torch.randn(2, weight.shape[1])
    frozen = base.project(x, torch.bfloat16)
    weight.requires_grad_(True)
    with torch.no_grad():
        weight.mul_(3)
    torch.testing.assert_close(base.project(x, torch.bfloat16), 3 * frozen, rtol=0.02, atol=0.02)
