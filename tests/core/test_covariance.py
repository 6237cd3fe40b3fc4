"""Second moments over text against plain sums, cut off and gone on with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import tiny
import tiny_text as text
import torch
from quick import quick

from saledit.cache import blocksums, covariance
from saledit.cache.covariance import Corpus, second_moments, sum_up
from saledit.data.sources import source_digest, stream_texts
from saledit.errors import DataError, ModelError
from saledit.files import kept_tensors, write_jsonl
from saledit.models import TaskModel
from saledit.site import Layer

NAMES = ("nli bert", "nli llama", "gpt2", "opt", "llama", "t5/encoder")


def texts(n: int = 150) -> list[str]:
    return [" ".join(sample.inputs) for sample in tiny.samples(n, seed=5)]


def last_map(base: TaskModel, block: int) -> Layer:
    """The map that a block's MLP ends with."""
    return Layer(block, base.layer(block).sites[-1:])


def corpus(tokens: int = 10_000, window: int = 64, name: str = "c") -> Corpus:
    return Corpus(name, texts, tokens, window)


def dense(base: TaskModel, lines: list[str], window: int, tokens: int) -> torch.Tensor:
    """One text at a time, the whole model, in the order of the batches' sums (any)."""
    site, rows = base.layer(1).sites[-1], []
    handle = base.model.get_submodule(site.name).register_forward_pre_hook(
        lambda _m, args: rows.append(args[0].reshape(-1, args[0].shape[-1]))
    )
    for line in lines:
        ids = base.tokenizer(line, return_tensors="pt", truncation=True, max_length=window)
        if ids["input_ids"].shape[1]:
            reader = base.model.get_encoder() if base.in_encoder else base.model
            reader(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"])
    handle.remove()
    x = torch.cat(rows).double()
    assert len(x) <= tokens
    return (x.mT @ x / len(x)).float()


@pytest.mark.parametrize("name", quick(["nli bert", "llama", "t5/encoder"], NAMES))
def test_moments_are_those_of_plain_sums(name: str, tmp_path: Path) -> None:
    build = (tiny.build, name.removeprefix("nli ")) if "nli" in name else (text.build, name)
    base = build[0](build[1])
    with tiny.untouched(base.model):
        (found,) = second_moments(base, last_map(base, 1), corpus(window=7), tmp_path)
        torch.testing.assert_close(found, dense(base, texts(), 7, 10_000), rtol=1e-4, atol=1e-5)


def test_several_sites_in_one_pass_and_no_more_tokens_than_asked(tmp_path: Path) -> None:
    base = text.build("llama")
    told: list[int] = []
    layer = base.layer(2, (), 3)
    together = second_moments(base, layer, corpus(tokens=400), tmp_path, told.append)
    assert told[-1] == 400
    assert len(together) == len(layer.sites) == 9
    for block in range(3):
        (alone,) = second_moments(base, last_map(base, block), corpus(tokens=400), tmp_path)
        torch.testing.assert_close(together[3 * block + 2], alone)
        assert torch.equal(alone, alone.mT)


def test_where_only_the_first_token_is_read_only_it_counts(tmp_path: Path) -> None:
    base = tiny.build("bert")
    layer = last_map(base, tiny.N_BLOCKS - 1)
    (found,) = second_moments(base, layer, corpus(), tmp_path)
    rows = []
    handle = base.model.get_submodule(layer.sites[0].name).register_forward_pre_hook(
        lambda _m, args: rows.append(args[0][0, 0])
    )
    for line in texts():
        base.model(**base.tokenizer(line, return_tensors="pt"))
    handle.remove()
    first = torch.stack(rows)
    assert len(first) == 150
    torch.testing.assert_close(found, first.mT @ first / 150, rtol=1e-4, atol=1e-5)


def test_sums_are_in_double_precision(tmp_path: Path) -> None:
    base, seen = text.build("llama"), []
    site = base.layer(1).sites[-1]
    handle = base.model.get_submodule(site.name).register_forward_pre_hook(
        lambda _m, args: seen.append(args[0].clone())
    )
    mask: list[torch.Tensor] = []
    other = base.model.register_forward_pre_hook(
        lambda _m, _a, given: mask.append(given["attention_mask"].bool()), with_kwargs=True
    )
    second_moments(base, last_map(base, 1), corpus(), tmp_path)
    handle.remove()
    other.remove()
    z = torch.cat([x[own] for x, own in zip(seen, mask, strict=True)]).double()
    (kept,) = tmp_path.glob("moments-*")
    found, _ = kept_tensors(kept, "sums")
    assert found["count.0"] == len(z)
    torch.testing.assert_close(found["moment.0"], z.mT @ z, rtol=1e-12, atol=1e-12)


def test_blocks_that_layers_share_are_summed_up_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, products = text.build("llama"), []
    real = torch.Tensor.addmm_
    monkeypatch.setattr(
        torch.Tensor, "addmm_", lambda self, *a: products.append(len(self)) or real(self, *a)
    )
    monkeypatch.setattr(covariance, "_BATCH_TOKENS", 10**6)  # a batch a group of texts: 3
    site = base.layer(0).sites[0]
    layer = base.layer(2, (), 3)
    whole = second_moments(base, layer, corpus(), tmp_path / "whole")
    # Of nine maps gate and up read one input, so six are summed up.
    assert sorted(products) == sorted([site.d_in, layer.sites[2].d_in] * 3 * 3)
    assert all(whole[i] is whole[i + 1] for i in (0, 3, 6))
    products.clear()
    spans = [base.layer(i, (), 2) for i in (1, 2)]
    sum_up(base, [*spans, layer], corpus(), tmp_path / "spans")
    assert len(products) == 6 * 3
    assert len([*(tmp_path / "spans").glob("moments-*")]) == 3
    found = second_moments(base, layer, corpus(), tmp_path / "spans")
    assert all(map(torch.equal, found, whole))
    assert len(products) == 6 * 3


def writes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are written, as they are."""
    written: list[str] = []
    real = blocksums.keep_tensors

    def keep(path: Path, *rest: Any) -> None:
        written.append(path.name)
        real(path, *rest)

    monkeypatch.setattr(blocksums, "keep_tensors", keep)
    return written


def test_sums_are_written_now_and_then_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, written = text.build("llama"), writes(monkeypatch)
    layer = base.layer(1)
    second_moments(base, layer, corpus(), tmp_path / "one")
    assert len(written) == 1, "a short pass writes at its end alone"
    second_moments(base, layer, corpus(), tmp_path / "one")
    assert len(written) == 1
    monkeypatch.setattr(covariance, "_KEEP", -1.0)
    monkeypatch.setattr(covariance, "_BATCH_TOKENS", 100)
    second_moments(base, layer, corpus(), tmp_path / "two")
    assert len(written) > 10, "a long one behind a batch"


class Cut(BaseException):
    """An interruption."""


def test_a_pass_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    base = text.build("gpt2")
    site = base.layer(1).sites[-1]
    given = []

    def counted() -> Iterator[str]:
        for line in texts():
            given.append(line)
            yield line

    whole = second_moments(base, last_map(base, 1), corpus(), tmp_path / "whole")
    source = Corpus("c", counted, 10_000, 64)
    with pytest.raises(Cut):
        second_moments(base, last_map(base, 1), source, tmp_path / "cut", stop_after(500))
    assert 0 < len(given) < 150
    ran = []
    handle = base.model.get_submodule(site.name).register_forward_pre_hook(
        lambda _m, args: ran.append(args[0].shape[0])
    )
    again = second_moments(base, last_map(base, 1), source, tmp_path / "cut")
    assert sum(ran) == 150 - 64, "what was summed up is not run again"
    assert torch.equal(again[0], whole[0])
    ran.clear()
    assert torch.equal(
        second_moments(base, last_map(base, 1), source, tmp_path / "cut")[0], whole[0]
    )
    handle.remove()
    assert not ran


@pytest.mark.parametrize("where", ["forward", "sums", "writing"])
@pytest.mark.parametrize("batch", [1, 2, 5, 9])
def test_an_interruption_at_any_place_loses_and_repeats_nothing(
    batch: int, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the middle of a group of texts, and in the middle of an addition."""
    monkeypatch.setattr(covariance, "_BATCH_TOKENS", 150)
    base, left, ran = text.build("llama"), [batch], []
    layer = base.layer(1, (), 2)
    whole = second_moments(base, layer, corpus(), tmp_path / "whole")
    if where == "writing":
        monkeypatch.setattr(covariance, "_KEEP", -1.0)

    def count_down(place: str) -> None:
        left[0] -= place == where
        if left[0] == 0 and place == where:
            raise KeyboardInterrupt

    real, keep = torch.Tensor.addmm_, blocksums.keep_tensors
    with monkeypatch.context() as patched:
        patched.setattr(
            torch.Tensor, "addmm_", lambda self, *a: count_down("sums") or real(self, *a)
        )
        patched.setattr(blocksums, "keep_tensors", lambda *a: count_down("writing") or keep(*a))
        handle = base.block(0).register_forward_pre_hook(lambda *_: count_down("forward"))
        with pytest.raises(KeyboardInterrupt):
            second_moments(base, layer, corpus(), tmp_path / "cut")
        handle.remove()
    handle = base.block(0).register_forward_pre_hook(lambda *_: ran.append(1))
    again = second_moments(base, layer, corpus(), tmp_path / "cut")
    handle.remove()
    assert all(map(torch.equal, again, whole))
    if where == "forward":
        handle = base.block(0).register_forward_pre_hook(lambda *_: ran.append(-1))
        second_moments(base, layer, corpus(name="other"), tmp_path / "count")
        handle.remove()
        assert sum(ran) == 1 - batch, "batches that were added up are not run again"


@pytest.mark.parametrize(("room", "passes"), [(1 << 30, 1), (1, 3)])
@pytest.mark.parametrize("name", ["llama", "nli bert"])
def test_all_layers_in_one_pass(
    name: str, room: int, passes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny.build("bert") if name == "nli bert" else text.build(name)
    layers, ran = base.layers(), []
    alone = [second_moments(base, layer, corpus(), tmp_path / "alone") for layer in layers]
    with pytest.raises(Cut):  # one of them has come further than the others before
        second_moments(base, layers[1], corpus(), tmp_path / "all", stop_after(500))
    monkeypatch.setattr("saledit.moments._ROOM", room)
    handle = base.block(0).register_forward_pre_hook(
        lambda _m, args, kwargs: ran.append(len((*args, *kwargs.values())[0])), with_kwargs=True
    )
    sum_up(base, layers, corpus(), tmp_path / "all")
    assert sum(ran) == 150 * passes - (64 if room == 1 else 0)
    ran.clear()
    for layer, want in zip(layers, alone, strict=True):
        found = second_moments(base, layer, corpus(), tmp_path / "all")
        assert len(found) == len(want)
        assert all(map(torch.equal, found, want))
    handle.remove()
    assert not ran


def stop_after(most: int) -> Callable[[int], None]:
    def stop(tokens: int) -> None:
        if tokens > most:
            raise Cut

    return stop


def test_what_is_kept_is_of_this_model_text_and_number(tmp_path: Path) -> None:
    base = text.build("gpt2")

    def files() -> int:
        return len([*tmp_path.glob("moments-*")])

    second_moments(base, last_map(base, 1), corpus(), tmp_path)
    others: list[Callable[[], object]] = [
        lambda: second_moments(text.build("gpt2", seed=1), last_map(base, 1), corpus(), tmp_path),
        lambda: second_moments(base, last_map(base, 1), corpus(name="other"), tmp_path),
        lambda: second_moments(base, last_map(base, 1), corpus(tokens=300), tmp_path),
        lambda: second_moments(base, last_map(base, 1), corpus(window=5), tmp_path),
        lambda: second_moments(base, last_map(base, 0), corpus(), tmp_path),
    ]
    for n, other in enumerate(others, start=2):
        other()
        assert files() == n
    second_moments(base, last_map(base, 1), corpus(), tmp_path)
    assert files() == 6


def test_broken_sums_are_made_anew(tmp_path: Path) -> None:
    base = text.build("gpt2")
    (first,) = second_moments(base, last_map(base, 1), corpus(), tmp_path)
    (kept,) = tmp_path.glob("moments-*")
    kept.write_bytes(kept.read_bytes()[:100])
    assert torch.equal(second_moments(base, last_map(base, 1), corpus(), tmp_path)[0], first)


def test_too_little_text_is_refused(tmp_path: Path) -> None:
    base = text.build("gpt2")
    with pytest.raises(DataError, match=r"expected at least 24 tokens of text.*got 10"):
        second_moments(base, last_map(base, 1), corpus(tokens=10), tmp_path)


def test_a_decoder_behind_an_encoder_reads_no_text(tmp_path: Path) -> None:
    base = text.build("t5")
    with pytest.raises(ModelError, match=r"add model\.stack=encoder"):
        second_moments(base, last_map(base, 1), corpus(), tmp_path)


def test_texts_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_jsonl(path, [{"text": "one"}, {"text": "two"}, {"txt": "three"}])
    found = stream_texts(str(path))
    assert [next(found), next(found)] == ["one", "two"]
    with pytest.raises(DataError, match=r"a.jsonl:3: expected text in 'text', got nothing; did"):
        next(found)
    digest = source_digest(str(path))
    path.write_text(path.read_text() + "\n")
    assert source_digest(str(path)) != digest


class Hub:
    """The data set ``org/text``, of which each row counts as it is fetched."""

    def __init__(self, lines: list[str], breaks_at: int = -1) -> None:
        self.lines, self.breaks_at = lines, breaks_at
        self.fetched = 0
        self.calls: list[tuple[object, ...]] = []

    def load_dataset(self, name: str, config: str | None, **options: object) -> object:
        self.calls.append((name, config, options))
        if not options.get("streaming"):
            return datasets.Dataset.from_list([{"text": line} for line in self.lines])
        return datasets.IterableDataset(datasets.iterable_dataset.ExamplesIterable(self._rows, {}))

    def _rows(self) -> Iterator[tuple[int, dict[str, str]]]:
        for i, line in enumerate(self.lines):
            if i == self.breaks_at:
                raise ConnectionError("the line is dead")
            self.fetched += 1
            yield i, {"text": line}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    found = Hub(texts(1000))
    monkeypatch.setattr(datasets, "load_dataset", found.load_dataset)
    return found


def of_hub(source: str, tokens: int) -> Corpus:
    return Corpus(source_digest(source), lambda: stream_texts(source), tokens, 64)


def test_of_a_hub_data_set_only_what_is_read_is_fetched(hub: Hub, tmp_path: Path) -> None:
    base, source = text.build("gpt2"), "org/text@en:validation"
    (found,) = second_moments(base, last_map(base, 1), of_hub(source, 400), tmp_path)
    assert hub.calls == [("org/text", "en", {"split": "validation", "streaming": True})]
    assert 0 < hub.fetched <= 128
    local = Corpus("local", lambda: iter(hub.lines), 400, 64)
    assert torch.equal(second_moments(base, last_map(base, 1), local, tmp_path)[0], found)


def test_a_pass_over_a_hub_data_set_goes_on(hub: Hub, tmp_path: Path) -> None:
    base, source, ran = text.build("gpt2"), of_hub("org/text", 3000), []
    (whole,) = second_moments(base, last_map(base, 1), source, tmp_path / "whole")
    hub.breaks_at = 130
    line = r"org/text:131: expected a row of a hub data set, got an error \(the line is dead\)"
    with pytest.raises(DataError, match=line):
        second_moments(base, last_map(base, 1), source, tmp_path / "cut")
    hub.breaks_at, hub.fetched = -1, 0
    site = base.model.get_submodule(base.layer(1).sites[-1].name)
    handle = site.register_forward_pre_hook(lambda _m, args: ran.append(args[0].shape[0]))
    (again,) = second_moments(base, last_map(base, 1), source, tmp_path / "cut")
    handle.remove()
    assert torch.equal(again, whole)
    assert 0 < sum(ran) == hub.fetched - 128, "records that were summed up are not run again"


def test_a_part_of_a_split_is_downloaded(hub: Hub) -> None:
    assert next(stream_texts("org/text:train[:5]")) == hub.lines[0]
    assert hub.calls == [("org/text", None, {"split": "train[:5]"})]
    assert not hub.fetched


def test_no_more_tokens_than_asked_over_many_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(covariance, "_BATCH_TOKENS", 32)
    base, told = text.build("llama"), []
    covariance.second_moments(base, last_map(base, 1), corpus(tokens=400), tmp_path, told.append)
    assert told[-1] == 400
