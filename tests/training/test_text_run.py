"""Whole runs of text tasks on tiny models: fit, test, fix, saliency, resume."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny_text
import torch
from processes import TORCHRUN, check_tested_alike, command, shared_run, verb
from quick import quick
from tiny import save, untouched
from whole_runs import ANY, check_answers, questions, sentence

import saledit
from saledit import config as configuration
from saledit import run
from saledit.artifact import load_editor
from saledit.cache.bank import BankSpec
from saledit.cache.opening import memory_bank
from saledit.config import RunConfig
from saledit.errors import ConfigError
from saledit.files import read_tensors, write_jsonl
from saledit.models import TaskModel, load_text_model
from saledit.records import Sample
from saledit.report import Ui
from saledit.run.setup.prepare import prepare
from saledit.tasks.answering import answers
from saledit.tasks.decoding import generate
from saledit.tasks.qa import Qa
from saledit.tasks.text import TextTask

N, N_BYSTANDERS = 80, 20
STOP = tiny_text.STOP
MODELS = ("llama", "t5", "bart/encoder")
SMALL = (
    "task.name=qa",
    f"task.stop='{STOP}'",
    "task.max_new_tokens=4",
    "site.select=fixed",
    "site.layer=1",
    "editor.mend.rank=6",
    "editor.sample_rank=4",
    "editor.gradient_rank=6",
    "schedule.batch_size=2",
    "train.epochs=2",
    "train.steps_per_epoch=4",
    "train.edits_per_step=3",
    "train.passes_per_edit=3",
    "train.validation_edits=4",
    "train.validation_passes=3",
    "test.passes_per_edit=4",
    "data.validation=0.25",
    "trainer.accelerator=cpu",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("text")


@pytest.fixture
def make(home: Path, tmp_path: Path) -> Callable[..., RunConfig]:
    """Configurations of small runs on a named tiny model."""

    def make(name: str, *overrides: str) -> RunConfig:
        folder = home / name.replace("/", "-")
        if not folder.exists():
            base = tiny_text.build(name)
            save(base, folder / "model")
            write_jsonl(folder / "data.jsonl", questions(base, N, 0))
            write_jsonl(folder / "others.jsonl", questions(base, N_BYSTANDERS, 1))
        own = [
            f"output={home}",
            f"name={tmp_path.name}-{folder.name}",
            f"model.name={folder / 'model'}",
            f"model.stack={'encoder' if '/' in name else 'decoder'}",
            f"data.train={folder / 'data.jsonl'}",
            f"data.locality=[{folder / 'others.jsonl'}]",
        ]
        # A text has no stop characters, and a task refuses what it does not have.
        small = [s for s in SMALL if "task.name=generation" not in overrides or "stop" not in s]
        return configuration.load(None, [*own, *small, *overrides])

    return make


@pytest.mark.parametrize("name", quick(["llama"], MODELS))
def test_fit_test_and_fix(name: str, make: Callable[..., RunConfig], tmp_path: Path) -> None:
    config = make(name)
    with Ui(quiet=True) as ui:
        fitted = run.fit(config, False, ui)
        results = run.test(str(config.folder), [], ui)
        splits = fitted["splits"]
        assert all(splits[side]["fail"] and splits[side]["pass"] for side in splits)
        # The model's own answers, right or wrong, are left alone in training only.
        assert splits["train"]["pass"] > splits["validation"]["pass"]
        stack = "encoder" if "/" in name else "decoder"
        if name != "llama":
            assert all(f"{stack}." in site for site in fitted["sites"])
        metrics, spoken = results["metrics"], results["metrics"]["generated"]
        assert spoken["pass_accuracy_before"] == 1
        assert spoken["drawdown"] == pytest.approx(1 - spoken["pass_accuracy_after"])
        assert 0 < spoken["share_decided"] <= 1
        if spoken["share_decided"] == 1:
            assert spoken["drawdown_decided"] == pytest.approx(spoken["drawdown"])
        for key in ("fail_accuracy", "adapt_accuracy", "edit_accuracy"):
            assert 0 <= spoken[key] <= 1
            assert 0 <= metrics[key] <= 1
        assert spoken["fail_f1"] >= spoken["fail_accuracy"]
        assert results["unedited"]["generated"]["fail_accuracy"] == 0
        check_answers(config.folder / "answers.jsonl", results, spoken=True)

        failures = tmp_path / "failures.jsonl"
        kept = [json.loads(line) for line in Path(config.data.train).read_text().splitlines()]
        write_jsonl(failures, kept[:6])
        fixed = run.fix(str(config.folder), str(failures), str(tmp_path / "fixed"), ANY, ui)
    assert fixed["n_wrong_before"] == sum(not row["was_right"] for row in fixed["rows"])
    assert fixed["check"]["accuracy_before"] == 1
    # What is written is what was shown.
    base = tiny_text.build(name)
    task = Qa(stop=STOP, max_new_tokens=4)
    asked = [Sample(r["id"], (r["inputs"][0],), r["target"]) for r in fixed["rows"]]
    with untouched(base.model):
        edits = saledit.load_edits(tmp_path / "fixed", base.model)
        said = [answer.text for answer in generate(base, task, asked, edits)]
    assert said == [row["after"] for row in fixed["rows"]]
    # A bare model may know of no padding, as most language models do.
    base.model.config.pad_token_id = base.tokenizer.pad_token = None
    made = saledit.load_editor(config.folder).edit(base.model, kept[:2], base.tokenizer)
    assert made.finite().all()
    assert base.model.config.pad_token_id is not None


@pytest.mark.gpu
@pytest.mark.parametrize("select", ["fixed", "trial-step", "gradient"])
@pytest.mark.parametrize("name", MODELS)
def test_an_accelerator_gives_the_cpu_s_numbers(
    name: str, select: str, make: Callable[..., RunConfig], tmp_path: Path
) -> None:
    found = []
    for kind in ("cpu", "gpu"):
        # A cache of its own: the accelerator asks and caches itself.
        own = [f"output={tmp_path / kind}", f"trainer.accelerator={kind}", "trainer.devices=1"]
        own += [f"site.select={select}", f"site.layer={1 if select == 'fixed' else -1}"]
        config = make(name, *own)
        failures = tmp_path / "failures.jsonl"
        known = Path(config.data.train).read_text(encoding="utf-8").splitlines()
        failures.write_text("\n".join(known[:6]) + "\n", encoding="utf-8")
        with Ui(quiet=True) as ui:
            fitted = run.fit(config, False, ui)
            tested = run.test(str(config.folder), [], ui)
            out = str(tmp_path / f"{kind}-fix")
            fixed = run.fix(str(config.folder), str(failures), out, ANY, ui)
        found.append((fitted, tested, fixed))
    (fit_a, test_a, fix_a), (fit_b, test_b, fix_b) = found
    assert fit_a["layer"] == fit_b["layer"]
    assert fit_a["splits"] == fit_b["splits"]
    assert fit_a["validation"]["loss"] == pytest.approx(fit_b["validation"]["loss"], rel=0.02)
    kl = [tested["metrics"]["locality_kl"] for tested in (test_a, test_b)]
    assert kl[0] == pytest.approx(kl[1], rel=0.05, abs=1e-5)
    assert test_a["unedited"] == test_b["unedited"]
    assert fix_a["n_wrong_before"] == fix_b["n_wrong_before"]
    # The edits of one device act on a model on the other.
    base = tiny_text.build(name)
    edits = saledit.load_edits(tmp_path / "gpu-fix", base.model)
    base.model.to("cuda")
    asked = [Sample(r["id"], (r["inputs"][0],), r["target"]) for r in fix_b["rows"]]
    said = generate(base, Qa(stop=STOP, max_new_tokens=4), asked, edits)
    assert [answer.text for answer in said] == [row["after"] for row in fix_b["rows"]]


@pytest.mark.long
def test_the_schedules_judge_the_same_failures(
    make: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make("llama")
    asked: list[int] = []

    def noted(base: TaskModel, task: TextTask, samples: Sequence[Sample], *more: Any) -> Any:
        asked.append(len(samples))
        return generate(base, task, samples, *more)

    monkeypatch.setattr("saledit.run.measures.spoken.generate", noted)
    with Ui(quiet=True) as ui:
        run.fit(config, False, ui)
        asked.clear()
        one = run.test(str(config.folder), ["schedule.cumulative=true"], ui)
        share = sum(asked) / sum(one["counts"][part] for part in ("fail", "adapt", "pass"))
        assert one["metrics"]["generated"]["share_generated"] == pytest.approx(share)
        all_at_once = run.test(
            str(config.folder), ["schedule.batch_size=1000", "test.passes_per_edit=0"], ui
        )
    assert one["schedule"]["mode"] == "sequential-batched"
    assert all_at_once["n_edits"] == 1
    for found, name in (
        (one, "schedule.cumulative=true"),
        (all_at_once, "schedule.batch_size=1000_test.passes_per_edit=0"),
    ):
        assert found["counts"] == one["counts"]
        check_answers(config.folder / f"answers-{name}.jsonl", found, spoken=True)
        assert math.isfinite(found["metrics"]["locality_kl"])


@pytest.mark.long
@pytest.mark.parametrize("looks", [1, 3])  # three in turn: the second epoch begins with the second
def test_a_resumed_run_ends_as_an_uninterrupted_one(
    looks: int, make: Callable[..., RunConfig]
) -> None:
    steady = ("train.decay=false", "train.patience=9", f"editor.looks={looks}")
    whole, cut = make("llama", "name=whole", *steady), make("llama", "name=cut", *steady)
    with Ui(quiet=True) as ui:
        run.fit(whole, False, ui)
        run.fit(make("llama", "name=cut", "train.epochs=1", *steady), False, ui)
        first = read_tensors(cut.folder / "editor.safetensors", "an editor")
        run.fit(cut, True, ui)
    ends = [read_tensors(c.folder / "editor.safetensors", "an editor") for c in (whole, cut)]
    assert all(ends[0][name].equal(ends[1][name]) for name in first)
    assert any(not ends[0][name].equal(first[name]) for name in first)


@pytest.mark.long
def test_a_tested_editor_may_look_more_often_than_it_was_trained_to(
    make: Callable[..., RunConfig],
) -> None:
    config = make("llama", "schedule.batch_size=2")
    with Ui(quiet=True) as ui:
        run.fit(config, False, ui)
        once, often = (
            run.test(str(config.folder), [*free, "editor.enough=0.001"], ui)
            for free in ([], ["editor.looks=3"])
        )
        mended = [measured["metrics"]["fail_accuracy"] for measured in (once, often)]
        assert mended[0] < mended[1]
        session = load_editor(config.folder)  # as it was trained
        assert session.search.looks == 1


@pytest.fixture
def texts(home: Path) -> list[str]:
    rng = random.Random(5)
    texts = [" ".join(rng.choices(tiny_text.WORDS, k=40)) for _ in range(60)]
    write_jsonl(home / "texts.jsonl", [{"text": text} for text in texts])
    return texts


GENERATION = ("task.name=generation", "data.locality=[]", "data.max_failures=20",
              "data.max_test_failures=5")  # fmt: skip


@pytest.mark.long
def test_generation_is_held_to_the_perplexity_of_texts(
    make: Callable[..., RunConfig], home: Path, texts: list[str]
) -> None:
    config = make("gpt2", *GENERATION, f"data.train={home / 'texts.jsonl'}")
    with Ui(quiet=True) as ui:
        run.fit(config, False, ui)
        found = run.test(str(config.folder), [], ui)["metrics"]
        write_jsonl(home / "wrong.jsonl", [{"text": text} for text in texts[:4]])
        wrong, out = str(home / "wrong.jsonl"), str(home / "fixed-text")
        check = run.fix(str(config.folder), wrong, out, None, ui)["check"]
    assert check["n"] > 0
    assert check["perplexity_after"] != check["perplexity_before"]
    assert check["drawdown"] == pytest.approx(
        check["perplexity_after"] / check["perplexity_before"] - 1, rel=1e-4
    )
    rise = found["perplexity_after"] / found["perplexity_before"] - 1
    assert found["drawdown"] == pytest.approx(rise, rel=1e-4)
    assert found["perplexity_rise"] == pytest.approx(
        found["perplexity_after"] - found["perplexity_before"]
    )
    assert "drawdown" not in found["generated"]
    # Bits of a hundred tokens' 2- and 3-grams: none of one token over and over, never above log2.
    for name in ("fluency_before", "fluency_after"):
        assert 0 <= found[name] < math.log2(100)


def test_what_is_tested_is_no_pass_sample_of_the_training(
    make: Callable[..., RunConfig], home: Path, tmp_path: Path
) -> None:
    base = tiny_text.build("llama")
    make("llama")
    lines = (home / "llama" / "data.jsonl").read_text().splitlines()
    # Every record brings the same other question, and its true answer is what the model says.
    (said,) = answers(base, Qa(stop=STOP, max_new_tokens=4), [Sample("o", ("ba be bi",), "x")])
    other = {"question": "ba be bi", "answer": said.text or "x"}
    data = tmp_path / "data.jsonl"
    write_jsonl(data, [json.loads(line) | {"locality": other} for line in lines])
    config = make("llama", f"data.train={data}", "data.locality=[]")
    with Ui(quiet=True) as ui:
        prepared = prepare(config, ui)
        asked = {
            side: [sample.inputs for sample in getattr(prepared, side).passing]
            for side in ("train", "validation", "test")
        }
    assert ("ba be bi",) in asked["test"]
    assert ("ba be bi",) not in asked["train"] + asked["validation"]


def test_every_edit_leaves_the_other_failures_alone(make: Callable[..., RunConfig]) -> None:
    with Ui(quiet=True) as ui:
        prepared = prepare(make("llama", "task.stop=' bi'"), ui)
        train, others = prepared.train, (prepared.validation, prepared.test)
    places = [(i, place) for i, place in enumerate(train.own_from) if place >= 0]
    assert places
    said = answers(prepared.base, prepared.task, [train.fail[i] for i, _ in places])
    for (i, place), answer in zip(places, said, strict=True):
        assert train.passing[place].inputs == train.fail[i].inputs
        assert train.passing[place].target == answer.text != train.fail[i].target
    assert not any(part.own_from for part in others), "only what was right is measured"


def test_a_test_file_sorted_by_topic_is_no_test_of_its_first_topic(
    make: Callable[..., RunConfig], tmp_path: Path
) -> None:
    data, rng = tmp_path / "test.jsonl", random.Random(7)
    asked = [f"{topic} {sentence(rng)} {i}" for topic in ("first", "last") for i in range(30)]
    write_jsonl(data, [{"question": q, "answer": "bi bi bi bi bi"} for q in asked])
    config = make("llama", f"data.test={data}", "data.max_test_failures=12")
    with Ui(quiet=True) as ui:
        failures = prepare(config, ui).test.fail
        again = prepare(make("llama", *(f"data.test={data}", "seed=4")), ui).test.fail
    topics = [sample.inputs[0].split()[0] for sample in failures]
    assert min(topics.count("first"), topics.count("last")) >= 3
    assert again[:12] == failures, "another seed is tested on the same failures"


@pytest.mark.parametrize("select", ["gradient", "trial-step", "causal-tracing"])
def test_layers_are_scored(select: str, make: Callable[..., RunConfig]) -> None:
    config = make("llama", f"site.select={select}", "site.samples=5")
    with Ui(quiet=True) as ui:
        table = run.saliency(config, ui)
    assert [row["layer"] for row in table["layers"]] == [0, 1, 2]
    assert all(math.isfinite(row["score"]) for row in table["layers"])


@pytest.mark.long
def test_a_model_can_be_taught_first(make: Callable[..., RunConfig], home: Path) -> None:
    make("gpt2")
    known = home / "gpt2" / "others.jsonl"
    config = make(
        "gpt2", "model.finetune.enabled=true", f"model.finetune.data={known}",
        "model.finetune.epochs=60", "model.finetune.learning_rate=0.01",
        "model.finetune.batch_size=8", "train.epochs=1",
    )  # fmt: skip
    with Ui(quiet=True) as ui:
        fitted = run.fit(config, False, ui)
    task = Qa(stop=STOP, max_new_tokens=4)
    taught = load_text_model(fitted["base_model"]["name"], home)
    lines = [json.loads(line) for line in known.read_text().splitlines()]
    asked = [Sample(r["id"], (r["question"],), r["answer"], "", (r["answer"],)) for r in lines]
    before = sum(a.right for a in answers(tiny_text.build("gpt2"), task, asked))
    assert sum(a.right for a in answers(taught, task, asked)) > before


def test_passages_beside_a_sequence_are_refused_before_a_training_of_what_cannot_score_them(
    make: Callable[..., RunConfig], tmp_path: Path
) -> None:
    texts = tmp_path / "texts.jsonl"
    write_jsonl(texts, [{"text": "ba be bi"}])
    config = make("t5", "schedule.cumulative=true", "test.every=2", f"test.texts={texts}")
    with Ui(quiet=True) as ui, pytest.raises(ConfigError, match=r"^test.texts: expected none for"):
        run.fit(config, False, ui)
    assert not list(config.folder.glob("*.ckpt"))


SOLVER = ("editor.name=locate", "editor.locate.at=last", "editor.locate.shrink=0.1")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("llama", ("test.fluency=4", "editor.looks=2", "editor.enough=1e-3")),
        ("t5", ("site.select=gradient", "site.samples=6", "site.layer=-1")),
        ("bart/encoder", ("schedule.cumulative=true", "test.every=3")),
        ("llama", (*SOLVER, "editor.locate.solver=memit", "editor.locate.contexts=2")),
        ("gpt2", (*GENERATION, "test.fluency=4")),
    ],
    ids=["llama", "t5", "bart in turn", "memit", "generation"],
)
def test_processes_say_together_what_one_says(
    name: str, own: tuple[str, ...], strategy: str, make: Callable[..., RunConfig], home: Path,
    tmp_path: Path, texts: list[str],
) -> None:  # fmt: skip
    data = (f"data.train={home / 'texts.jsonl'}",) if own[0] == GENERATION[0] else ()
    two = ("trainer.devices=2", f"trainer.strategy={strategy}", "train.edits_per_step=4")
    config = make(name, *data, *two, *own)
    shutil.rmtree(home / "cache", ignore_errors=True)
    done = shared_run(command(config, tmp_path, *TORCHRUN))
    assert done.returncode == 0, done.stderr
    with Ui(quiet=True) as ui:
        shutil.rmtree(home / "cache")
        alone = run.test(str(config.folder), ["trainer.devices=1"], ui)
    shutil.rmtree(home / "cache")
    done = shared_run(verb("test", config.folder, *TORCHRUN))
    assert done.returncode == 0, done.stderr
    check_tested_alike(config, alone, json.loads(done.stdout))


@pytest.mark.long
@pytest.mark.parametrize("dtype", quick(["float16"], ["bfloat16", "float16"]))
def test_a_base_of_half_precision_has_an_editor_of_single(
    dtype: str, make: Callable[..., RunConfig], tmp_path: Path
) -> None:
    config = make("llama", f"name={dtype}", f"model.dtype={dtype}", "train.epochs=1")
    failures = tmp_path / "failures.jsonl"
    failures.write_text("\n".join(Path(config.data.train).read_text().splitlines()[:4]))
    with Ui(quiet=True) as ui:
        run.fit(config, False, ui)
        found = run.test(str(config.folder), [], ui)
        fixed = run.fix(str(config.folder), str(failures), str(tmp_path / "fixed"), None, ui)
        prepared = prepare(config, ui)
    assert math.isfinite(found["metrics"]["locality_kl"])
    assert fixed["check"]["accuracy_before"] == 1
    weights = read_tensors(config.folder / "editor.safetensors", "an editor")
    assert {w.dtype for w in weights.values() if w.is_floating_point()} <= {
        torch.float32, torch.float64,
    }  # fmt: skip
    # Gradient factors are of single precision too, and near those of the base in float32.
    half, whole = prepared.base, tiny_text.build("llama")
    assert half.dtype == getattr(torch, dtype)
    samples, index = prepared.train.fail[:6], torch.arange(6)
    factors = []
    for base in (half, whole):
        bank = memory_bank(base, prepared.task, samples, BankSpec(base.layer(1), rank=2))
        factors += [[pair.dense().double() for pair in bank.factors(index)]]
        assert all(pair.u.dtype == torch.float32 for pair in bank.factors(index))
    for one, other in zip(*factors, strict=True):
        error = (one - other).norm() / other.norm()
        assert error < 30 * torch.finfo(half.dtype).eps
