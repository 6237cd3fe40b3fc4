"""The cached samples of a run's parts, with progress."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from saledit.bank import BankSpec
from saledit.covariance import Corpus, second_moments
from saledit.data.part_banks import PartBanks, open_banks
from saledit.data.sources import source_digest, stream_texts
from saledit.data.splits import Part
from saledit.editors.base import Editor
from saledit.run.prepare import Prepared
from saledit.site import Layer


def banks_of(
    prepared: Prepared, part: Part, layer: Layer, moments: bool = False, texts: bool = False
) -> PartBanks:
    """Cached samples of a part for a layer."""
    return banks_at(prepared, part, [layer], moments, texts)[0]


def banks_at(
    prepared: Prepared, part: Part, layers: Sequence[Layer], moments: bool = False,
    texts: bool = False,
) -> list[PartBanks]:  # fmt: skip
    """Cached samples of a part for several layers; what is missing is computed in one pass."""
    config = prepared.config
    rewordings = {sample for group in (*part.adapt, *part.made_adapt) for sample in group}
    n = len(part.fail) + len(part.made) + len(rewordings) + len(part.passing)
    specs = [BankSpec(layer, rank=config.editor.sample_rank, moments=moments) for layer in layers]
    where = ", ".join(str(layer.index) for layer in layers)
    with prepared.ui.progress(f"caching {n} samples at layer {where}", n) as bar:
        done = 0

        def advance(now: int, total: int) -> None:
            nonlocal done
            bar.update(done + now)
            done += total if now == total else 0

        return open_banks(prepared.base, prepared.task, part, specs, config.cache, advance, texts)


def takes_moments(prepared: Prepared, editor: Editor) -> bool:
    """Whether the banks of the training part are to sum up second moments for an editor."""
    return editor.needs_moments and not prepared.config.editor.moments.corpus


def moments_of(prepared: Prepared, train: PartBanks) -> list[Tensor]:
    """Second moments of the inputs of a layer's sites, over the text that is named for them.

    Args:
        prepared: the task model.
        train: the training part, whose pass samples count where no text is named.
    """
    c, layer = prepared.config.editor.moments, train.passing.layer
    if not c.corpus:
        return train.passing.moments()
    corpus = Corpus(source_digest(c.corpus), lambda: stream_texts(c.corpus), c.tokens, c.window)
    with prepared.ui.progress(f"second moments over {c.corpus}", c.tokens) as bar:
        return second_moments(prepared.base, layer, corpus, prepared.config.cache, bar.update)
