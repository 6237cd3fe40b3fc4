"""Which text second moments of a run are over, and when it is too little."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import tiny_text as text
from whole_runs import ui

from saledit.artifact import load_editor
from saledit.cache.bank import BankSpec
from saledit.cache.filling import build
from saledit.cache.opening import memory_bank
from saledit.config import RunConfig
from saledit.errors import DataError
from saledit.files import write_jsonl
from saledit.run import fit
from saledit.run.setup import caching
from saledit.tasks.nli import Nli

LOCATE = ("editor.name=locate", "editor.locate.at=last", "editor.locate.contexts=0",
          "editor.locate.value_steps=1", "editor.locate.shrink=0.1")  # fmt: skip


def test_too_few_pass_samples_are_refused_of_editors_that_preserve(
    make: Callable[..., RunConfig], tmp_path: Path
) -> None:
    few = ("data.max_passes=1", "train.epochs=1", "train.steps_per_epoch=1")
    line = r"expected at least 24 tokens of pass samples, as many as the site has inputs, got \d+; "
    config = make("few", *few, *LOCATE)
    with pytest.raises(DataError, match=line + r"name a text by editor\.moments\.corpus, or give"):
        fit(config, False, ui())
    corpus = tmp_path / "corpus.jsonl"
    write_jsonl(corpus, [{"text": " ".join(s.inputs)} for s in tiny.samples(20, seed=5)])
    told = make("told", *few, *LOCATE, f"editor.moments.corpus={corpus}")
    fit(told, False, ui())
    editor = load_editor(told.folder).editor
    assert any(bool(moment.any()) for moment in editor.buffers())
    # Whitening adds a ridge, and is of as many tokens as there are.
    fit(make("whitened", *few, "editor.mend.whiten=0.1"), False, ui())


@pytest.mark.parametrize(
    ("name", "block"),
    [("nli bert", 1), ("nli bert", tiny.N_BLOCKS - 1), ("llama", 1), ("t5", 1), ("t5/encoder", 1)],
)
def test_tokens_are_counted_as_they_are_summed_up(name: str, block: int) -> None:
    if "nli" in name:
        base, task, samples = tiny.build(name.removeprefix("nli ")), Nli(), tiny.samples(7)
    else:
        base, task, samples = text.build(name), text.task(), text.samples(7)
    spec = BankSpec(base.layer(block), moments=True)
    ((_, sums),) = build(base, task, samples, [spec])
    wanted = int(sums[f"count.{len(spec.layer.sites) - 1}"])
    assert caching._tokens(base, memory_bank(base, task, samples, spec)) == wanted > 0
