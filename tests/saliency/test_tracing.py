"""Causal tracing against runs of one row at a time, and what its parts promise."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_text as text
import torch
from quick import quick
from tiny import N_BLOCKS, build, samples, untouched
from torch import Tensor

from saledit.config import SiteConfig, TraceConfig
from saledit.errors import ConfigError, DataError
from saledit.forward.scoring import forward
from saledit.models import SEQ2SEQ, TaskModel
from saledit.records import OWN, TEXT, Sample
from saledit.run.picking import make_picker
from saledit.saliency.base import Probes
from saledit.saliency.interventions import beginning, content, embedding_spread, text_table
from saledit.saliency.tracing import CausalTracing
from saledit.tasks.base import Encoded, Task
from saledit.tasks.nli import Nli

CLASSIFIERS = ("bert", "distilbert", "gpt2", "llama")
WRITERS = ("gpt2", "llama", "opt", "gemma2", "t5", "bart", "t5/encoder")


def case(name: str, n: int = 4) -> tuple[TaskModel, Task, list[Sample]]:
    if name.startswith("nli "):
        return build(name.removeprefix("nli ")), Nli(), samples(n, seed=2)
    return text.build(name), text.task().unended(), text.samples(n)


QUICK = ("nli bert", "gpt2", "llama", "t5")
NAMES = (*(f"nli {name}" for name in CLASSIFIERS), *WRITERS)


def probability(base: TaskModel, task: Task, seen: Encoded) -> float:
    logits = task.logits(base, forward(base, seen.inputs, seen.at), seen.targets)
    return float((-task.losses(base, logits, seen.targets)).exp())


def own_tokens(base: TaskModel, seen: Encoded) -> list[int]:
    """Positions of one row's text, the slow way."""
    special = {*base.tokenizer.all_special_ids} - {base.tokenizer.unk_token_id}
    ids = seen.inputs["input_ids"][0].tolist()
    last = len(ids) - 1
    if seen.at is not None and base.kind != SEQ2SEQ:
        last = int(seen.at[0, 0])
    found = [i for i, token in enumerate(ids) if token not in special and i <= last]
    return found or [i for i in range(last + 1) if seen.inputs["attention_mask"][0, i]]


def about_a_word(sample: Sample, n: int) -> Sample:
    """The same sample with n words in the middle of its first text for a subject."""
    words = sample.inputs[0].split()
    begin = max(0, len(words) // 2 - n)
    return replace(sample, subject=" ".join(words[begin : begin + n]))


def slow_rome(
    base: TaskModel, task: Task, sample: Sample, number: int, spread: float, width: int,
    what: str, at: str, draws: int,
) -> list[float]:  # fmt: skip
    """Indirect effects of one sample, a run for each draw and layer."""
    seen = task.encode(base, [sample])
    own = own_tokens(base, seen)
    if sample.subject:  # its words stand side by side, the last time they stand there
        words = base.tokenizer.convert_ids_to_tokens(seen.inputs["input_ids"][0, own].tolist())
        name = sample.subject.split()
        n = len(name)
        begin = max(i for i in range(len(words)) if words[i : i + n] == name)
        own = own[begin : begin + n]
    where = [*range(seen.inputs["input_ids"].shape[1])] if at == "all" else own[-1:]
    if base.kind == SEQ2SEQ and not base.in_encoder:
        n = seen.inputs["decoder_input_ids"].shape[1]
        where = [*range(n)] if at == "all" else [int(seen.at[0, 0])]
    generator = torch.Generator().manual_seed(number)
    noise = spread * torch.randn((draws, len(own), base.embedding_size), generator=generator)
    modules = [
        base.block(i) if what == "state" else base.model.get_submodule(layer.sites[-1].name)
        for i, layer in enumerate(base.layers())
    ]

    def run(draw: int | None, restored: range) -> tuple[float, list[Tensor]]:
        gave, calls, handles = [], 0, []

        def corrupt(_module, _args, output):
            nonlocal calls
            calls += 1
            if draw is None or calls > 1:
                return output
            output = output.clone()
            output[0, own] += noise[draw]
            return output

        def hook(i):
            def put_back(_module, _args, output):
                value = output[0] if isinstance(output, tuple) else output
                flat = value.reshape(-1, value.shape[-1]).clone()  # one row
                if i in restored:
                    flat[where] = clean[i][where]
                gave.append(flat)
                new = flat.view(value.shape)
                return (new, *output[1:]) if isinstance(output, tuple) else new

            return put_back

        handles.append(text_table(base).register_forward_hook(corrupt))
        handles += [m.register_forward_hook(hook(i)) for i, m in enumerate(modules)]
        p = probability(base, task, seen)
        for handle in handles:
            handle.remove()
        return p, gave

    clean: list[Tensor] = []
    _, clean = run(None, range(0))
    effects = []
    for layer in range(N_BLOCKS):
        low = layer - width // 2
        window = range(max(0, low), min(N_BLOCKS, low + width))
        found = [run(d, window)[0] - run(d, range(0))[0] for d in range(draws)]
        effects.append(sum(found) / draws)
    return effects


@pytest.mark.parametrize(
    ("what", "at", "window"), [("mlp", "last", 2), ("state", "last", 1), ("mlp", "all", 1)]
)
@pytest.mark.parametrize("name", quick(QUICK, NAMES))
def test_rome_is_that_of_runs_of_one_row(name: str, what: str, at: str, window: int) -> None:
    base, task, chosen = case(name, 3)
    chosen = [about_a_word(chosen[0], 2), about_a_word(chosen[1], 1), chosen[2]]
    picker = CausalTracing("rome", what, at, 2.0, draws=2, window=window)
    with untouched(base.model):
        table = picker(base, task, base.layers(), Probes([], [], chosen))
    spread = 2.0 * embedding_spread(base, task, chosen, 1000)
    effects = torch.tensor(
        [
            slow_rome(base, task, sample, i, spread, window, what, at, 2)
            for i, sample in enumerate(chosen)
        ]
    )
    found = torch.tensor([score.score for score in table.scores])
    assert found.abs().max() > 5e-5  # far above what is compared below
    torch.testing.assert_close(found, effects.mean(0), rtol=1e-3, atol=2e-6)
    errors = torch.tensor([score.details["standard_error"] for score in table.scores])
    expected = effects.std(0, unbiased=False) / len(chosen) ** 0.5
    torch.testing.assert_close(errors, expected, rtol=1e-3, atol=1e-5)
    assert table.forward_passes == 3 + 3 * 2 * (1 + N_BLOCKS)


@pytest.mark.parametrize("name", quick(QUICK, NAMES))
@pytest.mark.parametrize("what", quick(["mlp"], ["mlp", "state"]))  # the other protocol's setting
def test_masking_is_that_of_runs_of_one_row(name: str, what: str) -> None:
    base, task, chosen = case(name)
    with untouched(base.model):
        table = CausalTracing("masking", what)(base, task, base.layers(), Probes([], [], chosen))
    effects, runs = [], 0
    for sample in chosen:
        seen = task.encode(base, [sample])
        own, rows = own_tokens(base, seen), []
        for n in range(1, len(own) + 1):
            hidden = set(own[n:])
            left = [i for i in range(seen.inputs["input_ids"].shape[1]) if i not in hidden]
            short = {
                key: value if "decoder" in key else value[:, left]
                for key, value in seen.inputs.items()
            }
            at = seen.at
            if at is not None and base.kind != SEQ2SEQ:
                at = at - len(hidden)
            read = Encoded(short, seen.targets, at, seen.scored)
            whole, without = probability(base, task, read), []
            for layer in base.layers():
                module = base.model.get_submodule(layer.sites[-1].name)
                handle = module.register_forward_hook(lambda _m, _a, output: output * 0)
                without.append(whole - probability(base, task, read))
                handle.remove()
            rows.append(without)
            runs += 1 + N_BLOCKS
        effects.append(torch.tensor(rows).mean(0))
    found = torch.tensor([score.score for score in table.scores])
    assert found.abs().max() > 1e-4
    torch.testing.assert_close(found, torch.stack(effects).mean(0), rtol=1e-3, atol=2e-6)
    assert table.forward_passes == runs
    assert table.pick == int(found.argmax())


@pytest.mark.parametrize("name", ["nli bert", "llama"])
def test_a_subject_that_is_not_in_the_text_is_none(name: str) -> None:
    base, task, chosen = case(name, 3)
    elsewhere = [replace(sample, subject="Peru") for sample in chosen]
    tables = [
        CausalTracing(draws=2)(base, task, base.layers(), Probes([], [], own))
        for own in (chosen, elsewhere)
    ]
    assert tables[0].scores == tables[1].scores


@pytest.mark.parametrize("protocol", ["rome", "masking"])
def test_a_subject_that_was_cut_off_is_none(protocol: str) -> None:
    base, _, chosen = case("nli bert", 3)
    short = Nli(max_length=6)
    behind = [replace(s, subject=s.inputs[1].split()[-1]) for s in chosen]
    tables = [
        CausalTracing(protocol, draws=2)(base, short, base.layers(), Probes([], [], own))
        for own in (chosen, behind)
    ]
    assert tables[0].scores == tables[1].scores
    assert tables[0].method == tables[1].method


@pytest.mark.parametrize("protocol", ["rome", "masking"])
def test_an_answers_end_has_no_say(protocol: str) -> None:
    base, chosen = text.build("llama"), text.samples(3)
    tables = [
        CausalTracing(protocol, draws=2)(base, task, base.layers(), Probes([], [], chosen))
        for task in (text.task(), text.task().unended())
    ]
    assert text.task().encode(base, chosen).targets.shape[1] > 1  # there is one to be left out
    assert tables[0].scores == tables[1].scores
    assert tables[0].method == tables[1].method


def test_right_answers_about_something_are_read() -> None:
    """No passages, with a subject if any has one, and the model's own words where few are right."""
    plain = text.samples(6)
    right, named = plain[:2], [about_a_word(sample, 1) for sample in plain[2:4]]
    wrong = [replace(about_a_word(sample, 1), kind=OWN) for sample in plain[4:]]
    passage = Sample("p", ("",), "a b c", TEXT)
    every = [*right, *wrong, passage, *named]
    few: dict[str, Any] = {"enough": 2}
    assert CausalTracing("rome", **few).readable(every) == named
    assert CausalTracing("rome", corrupt="text", **few).readable(every) == [*right, *named]
    assert CausalTracing("masking", **few).readable(every) == [*right, *named]
    assert CausalTracing("rome", **few).readable([*right, passage]) == right
    assert CausalTracing("rome", enough=3).readable(every) == [*wrong, *named]
    assert CausalTracing("masking", enough=5).readable(every) == [*right, *wrong, *named]
    with pytest.raises(DataError, match="answered for causal-tracing, got 1 passages"):
        CausalTracing("masking").readable([passage])


@pytest.mark.parametrize("protocol", ["rome", "masking"])
@pytest.mark.parametrize("name", quick(["llama"], ["nli bert", "llama", "t5"]))
def test_scores_do_not_depend_on_the_batches(
    name: str, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, task, chosen = case(name, 6)
    read = Probes([], [], chosen)
    tables = []
    for tokens in (8192, 40):
        for module in ("tracing", "traced"):
            monkeypatch.setattr(f"saledit.saliency.{module}.TOKENS", tokens)
        tables.append(CausalTracing(protocol, draws=3)(base, task, base.layers(), read))
    for one, other in zip(*(table.scores for table in tables), strict=True):
        assert one.score == pytest.approx(other.score, rel=1e-3, abs=1e-6)


def test_all_states_put_back_bring_the_answer_back() -> None:
    base, task, chosen = case("llama")
    picker = CausalTracing("rome", "state", "all", 3.0, 2, window=2 * N_BLOCKS)
    table = picker(base, task, base.layers(), Probes([], [], chosen))
    clean = torch.tensor([probability(base, task, task.encode(base, [s])) for s in chosen]).mean()
    broken = float(table.method.removesuffix(" with noise on 4 whole texts").rpartition(" ")[2])
    assert table.scores[1].score == pytest.approx(float(clean) - broken, abs=1e-3)


def test_a_layer_that_is_not_heard_has_no_effect() -> None:
    base, task, chosen = case("nli bert")
    with torch.no_grad():
        base.block(1).get_submodule("output.LayerNorm").weight.zero_()
    read = Probes([], [], chosen)
    masked = CausalTracing("masking")(base, task, base.layers(), read).scores
    assert [score.score for score in masked[:2]] == pytest.approx([0, 0], abs=1e-6)
    assert abs(masked[2].score) > 1e-4
    # Noise does not get through, so there is nothing to put back.
    for score in CausalTracing("rome", at="all")(base, task, base.layers(), read).scores:
        assert score.score == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_beginning_keeps_what_is_not_text(name: str) -> None:
    base, task, chosen = case(name)
    seen = task.encode(base, chosen)
    own = content(base, seen)
    full = own.sum(1)
    whole = beginning(base, seen, own, full)
    for key, value in seen.inputs.items():
        torch.testing.assert_close(whole.inputs[key], value)
    one = beginning(base, seen, own, torch.ones_like(full))
    kept = one.inputs["attention_mask"].sum(1)
    torch.testing.assert_close(kept, seen.inputs["attention_mask"].sum(1) - full + 1)


@pytest.mark.parametrize(
    ("window", "what", "blocks"), [(0, "mlp", 1), (0, "state", 1), (2, "mlp", 2), (2, "state", 2)]
)
def test_the_window_is_the_published_share_unless_given(
    window: int, what: str, blocks: int
) -> None:
    base, task, chosen = case("nli bert", 1)
    picker = CausalTracing("rome", what, window=window, draws=1)
    table = picker(base, task, base.layers(), Probes([], [], chosen))
    assert f"{what} of {blocks} at last" in table.method


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ({"protocol": "mask"}, "site.trace.protocol: unknown name 'mask'; .*masking"),
        ({"what": "attention"}, "site.trace.what: unknown name"),
        ({"at": "first"}, "site.trace.at: unknown name"),
        ({"draws": 0}, "site.trace.draws: expected at least 1, got 0"),
        ({"window": -1}, "site.trace.window: expected at least 0, got -1"),
        ({"noise": 0.0}, "site.trace.noise: expected a number above 0, got 0"),
        ({"noise": float("nan")}, "site.trace.noise: expected a number above 0, got nan"),
    ],
)
def test_bad_settings_are_refused(setting: dict[str, object], line: str) -> None:
    trace = TraceConfig(**setting)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=line):
        make_picker(SiteConfig(select="causal-tracing", trace=trace))


@pytest.mark.parametrize(("blocks", "width"), [(48, 10), (12, 2), (24, 5), (32, 7), (3, 1)])
def test_the_window_is_ten_blocks_of_forty_eight(blocks: int, width: int) -> None:
    deep: Any = SimpleNamespace(n_blocks=blocks)
    assert CausalTracing("rome", "mlp")._width(deep) == width
    assert CausalTracing("rome", "state")._width(deep) == 1
    assert CausalTracing("rome", "mlp", window=3)._width(deep) == 3
