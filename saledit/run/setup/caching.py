"""The cached samples of a run's parts, with progress."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from saledit.cache.bank import Bank, BankSpec
from saledit.cache.covariance import Corpus, check_tokens, second_moments, sum_up
from saledit.cache.opening import Opener, open_several
from saledit.config import CachesConfig
from saledit.config.editors import MomentsConfig
from saledit.data.part_banks import PartBanks, few, n_rewordings, open_banks
from saledit.data.sources import source_digest, stream_texts
from saledit.data.splits import Part
from saledit.editors.base import Editor
from saledit.errors import ConfigError, did_you_mean
from saledit.models import SEQ2SEQ, TaskModel
from saledit.records import Sample
from saledit.run.setup.prepare import Prepared
from saledit.site import Layer
from saledit.tasks.base import Task

_DTYPES = {"as computed": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def banks_of(
    prepared: Prepared, part: Part, layer: Layer, editor: Editor, moments: bool = False
) -> PartBanks:
    """Cached samples of a part for a layer; see ``banks_at``."""
    return banks_at(prepared, part, [layer], editor, moments)[0]


def banks_at(
    prepared: Prepared, part: Part, layers: Sequence[Layer], editor: Editor, moments: bool = False
) -> list[PartBanks]:
    """Cached samples of a part for several layers; what is missing is computed in one pass.

    Args:
        prepared: the task model.
        part: the samples.
        layers: the layers.
        editor: what it needs to know of failures is with them.
        moments: sum up second moments of the pass samples.
    """
    config = prepared.config
    n = len(part.fail) + len(part.made) + n_rewordings(part) + len(part.passing)
    dtype = kept_as(config.caches)
    rank = config.editor.sample_rank if editor.needs_gradients else 0
    specs = [BankSpec(layer, rank, moments, dtype=dtype) for layer in layers]
    where = ", ".join(str(layer.index) for layer in layers)
    with prepared.ui.progress(f"caching {n} samples at layer {where}", n) as bar:
        done = 0

        def advance(now: int, total: int) -> None:
            nonlocal done
            bar.update(done + now)
            done += total if now == total else 0

        return open_banks(
            prepared.base, prepared.task, part, specs, config.cache, advance, editor.needs_text,
            prepared.room,
        )  # fmt: skip


def plain_banks(
    prepared: Prepared, task: Task, samples: Sequence[Sample], layers: Sequence[Layer], what: str
) -> list[Bank]:
    """Cached samples for runs above layers alone, without gradient factors; as ``banks_at``."""
    specs = [BankSpec(layer, dtype=kept_as(prepared.config.caches)) for layer in layers]
    where = ", ".join(str(layer.index) for layer in layers)
    n = len(samples)
    with prepared.ui.progress(f"caching {n} {what} at layer {where}", n) as bar:
        return open_several(
            prepared.base, task, samples, specs, prepared.config.cache,
            lambda done, _total: bar.update(done), prepared.room,
        )  # fmt: skip


def opener(prepared: Prepared, layer: Layer, what: str) -> Opener:
    """Opens one of ``plain_banks``; for measures, which know neither a run nor its folders."""
    return lambda task, samples: plain_banks(prepared, task, samples, [layer], what)[0]


def kept_as(caches: CachesConfig) -> torch.dtype | None:
    """What states and gradient factors are kept as; None for as they are computed.

    Raises:
        ConfigError: no such type, or less than no memory.
    """
    if caches.dtype not in _DTYPES:
        raise ConfigError(
            f"caches.dtype: unknown name '{caches.dtype}'; {did_you_mean(caches.dtype, _DTYPES)}"
        )
    if caches.memory_mb < 0:
        raise ConfigError(f"caches.memory_mb: expected at least 0, got {caches.memory_mb}")
    return _DTYPES[caches.dtype]


def takes_moments(prepared: Prepared, editor: Editor) -> bool:
    """Whether the banks of the training part are to sum up second moments for an editor."""
    return editor.needs_moments and not prepared.config.editor.moments.corpus


def learned_by(prepared: Prepared, editor: Editor) -> Part:
    """The training samples that an editor reads.

    Of one that is not trained nothing is asked but its first rate, which is found on a batch, and
    statistics of the pass samples.
    """
    config, every = prepared.config, prepared.train
    if editor.is_trained:
        return every
    k = config.schedule.batch_size
    n = config.train.edits(k)
    sums = takes_moments(prepared, editor)
    return few(every, n * k, len(every.passing) if sums else n * config.train.passes_per_edit)


def moments_of(prepared: Prepared, train: PartBanks, editor: Editor) -> list[Tensor]:
    """The second moments that an editor wants, over the text that is named for them.

    Args:
        prepared: the task model.
        train: the training part, whose pass samples count where no text is named. They may be too
            few for full rank where the editor does not need it: whitening adds a ridge, and takes
            what there is. A text may not.
        editor: its sites are those of the part's layer.

    Raises:
        DataError: there are too few tokens.
    """
    c, own = prepared.config.editor.moments, _own(train.passing.layer, editor)
    if not c.corpus:
        if editor.needs_full_rank:
            check_tokens(
                _tokens(prepared.base, train.passing), own.sites, "pass samples",
                "name a text by editor.moments.corpus, or give more pass samples",
            )  # fmt: skip
        return train.passing.moments(own.sites)
    with prepared.ui.progress(f"second moments over {c.corpus}", c.tokens) as bar:
        return second_moments(prepared.base, own, _corpus(c), prepared.config.cache, bar.update)


def _own(layer: Layer, editor: Editor) -> Layer:
    """What an editor wants second moments of."""
    return Layer(layer.index, editor.moment_sites(layer.sites))


def _tokens(base: TaskModel, bank: Bank) -> int:
    """Over how many tokens the second moments of a bank's maps are."""
    if bank.entry.first_token_only:
        return len(bank)
    read = bank.lengths
    if bank.answer_lengths is not None and base.kind == SEQ2SEQ and not base.in_encoder:
        read = bank.answer_lengths  # what the decoder reads
    return int(read.sum())


def sum_moments(prepared: Prepared, layers: Sequence[Layer], editor: Editor) -> None:
    """Get ready what ``moments_of`` of each layer reads, in one pass over the text."""
    c = prepared.config.editor.moments
    if c.corpus:
        with prepared.ui.progress(f"second moments over {c.corpus}", c.tokens) as bar:
            own = [_own(layer, editor) for layer in layers]
            sum_up(prepared.base, own, _corpus(c), prepared.config.cache, bar.update)


def _corpus(c: MomentsConfig) -> Corpus:
    return Corpus(source_digest(c.corpus), lambda: stream_texts(c.corpus), c.tokens, c.window)
