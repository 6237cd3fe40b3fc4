"""Second moments of a site's inputs over running text: what closed-form edits must leave alone.

ROME and its kin take C = E[k k^T] over Wikipedia (Meng et al., 2022, appendix E.1). Here any text
is streamed through the model up to the sites, not further and without its head. An input is summed
up once, whatever sites and layers it is read by, and where the model is. A pass writes its sums now
and then, at its end and where it is cut off, and goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from saledit import distributed
from saledit.cache.blocksums import BlockSums
from saledit.cache.running import means
from saledit.errors import DataError, ModelError
from saledit.forward.places import Reached
from saledit.forward.suffix import entry_for
from saledit.models import SEQ2SEQ, TaskModel
from saledit.moments import layers_at_once
from saledit.site import Layer, Site
from saledit.tasks.batching import by_length

_TEXTS = 64  # put in order of length at a time
_BATCH_TOKENS = 4096
_KEEP = 60.0  # seconds after which sums are put on disk
_SCHEMA = 2

Progress = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Corpus:
    """Running text.

    Attributes:
        name: fingerprint of the texts, for the key of what is kept.
        texts: gives the texts, in the same order every time.
        tokens: how many are read at most.
        window: tokens of a text at most.
    """

    name: str
    texts: Callable[[], Iterable[str]]
    tokens: int
    window: int


def second_moments(
    base: TaskModel, layer: Layer, corpus: Corpus, folder: Path,
    progress: Progress | None = None,
) -> list[Tensor]:  # fmt: skip
    """Mean of x x^T over the inputs x of each site, at every token of the text that is read there.

    Args:
        base: the task model.
        layer: whose sites, or those of them that matter; where the model reads the first token
            alone above them, that is all.
        corpus: the text.
        folder: where sums are kept.
        progress: told how many tokens have been read.

    Returns:
        For each site (D_in, D_in), float32, on the model's device; of one input the same one.

    Raises:
        ModelError: the sites are in a decoder that reads no running text of its own.
        DataError: there is too little text for second moments of full rank.
    """
    parts = _summed(base, [layer], corpus, folder, progress)
    check_tokens(parts[0].place.tokens, layer.sites, "text", "name a longer text")
    found: dict[Site, Tensor] = {}
    for part in parts:
        own = means(part.sums, base.device, range(len(part.sites)))
        single = {id(mean): mean.float() for mean in own}
        found |= {site: single[id(mean)] for site, mean in zip(part.sites, own, strict=True)}
    return [found[site] for site in layer.sites]


def check_tokens(found: int, sites: Sequence[Site], what: str, remedy: str) -> None:
    """Refuse second moments over so few tokens that they cannot be of full rank.

    Args:
        found: how many they are over.
        sites: whose inputs.
        what: what the tokens are of, for the message.
        remedy: what can be done about it.

    Raises:
        DataError: fewer than a site has inputs.
    """
    needed = max(site.d_in for site in sites)
    if found < needed:
        raise DataError(
            f"editor.moments.corpus: expected at least {needed} tokens of {what}, as many as the "
            f"site has inputs, got {found}; {remedy}"
        )


def sum_up(
    base: TaskModel, layers: Sequence[Layer], corpus: Corpus, folder: Path,
    progress: Progress | None = None,
) -> None:  # fmt: skip
    """Put on disk what ``second_moments`` of each layer reads, with one pass over the text.

    (Layers whose sums do not fit into a gigabyte together take several. Those of one are summed up
    together whatever they take: its editor is to hold them, too.)
    """
    for some in layers_at_once(layers):
        _summed(base, some, corpus, folder, progress)


def _summed(
    base: TaskModel, layers: Sequence[Layer], corpus: Corpus, folder: Path,
    progress: Progress | None,
) -> list[BlockSums]:  # fmt: skip
    """The sums of layers, by blocks; what is missing of them is made in one pass over the text."""
    if base.kind == SEQ2SEQ and not base.in_encoder:
        raise ModelError(
            f"editor.moments.corpus: {base.name} reads running text in its encoder only; "
            "add model.stack=encoder, or leave the corpus out"
        )
    found: dict[Path, tuple[tuple[Site, ...], bool]] = {}
    for layer in layers:
        first = entry_for(base, layer.index, tuple(s.name for s in layer.sites)).first_token_only
        for sites in _by_block(base, layer.sites):
            key = _key(base, sites, corpus, first)
            found[folder / f"moments-{key}.safetensors"] = (sites, first)
    with distributed.one_run_at_a_time(*found, in_step=base.weights.is_divided):
        parts = [BlockSums(path, *own) for path, own in found.items()]
        missing = [part for part in parts if not part.place.is_whole]
        if missing:
            _go_on(base, missing, corpus, progress)
    # Of processes in step one has written, and the others find it.
    return [BlockSums(path, *own) for path, own in found.items()] if missing else parts


def _by_block(base: TaskModel, sites: Sequence[Site]) -> list[tuple[Site, ...]]:
    """The sites of each block."""
    blocks = [f"{base.block_name(i)}." for i in range(base.n_blocks)]
    own = [tuple(site for site in sites if site.name.startswith(name)) for name in blocks]
    return [some for some in own if some]


def _go_on(
    base: TaskModel, parts: Sequence[BlockSums], corpus: Corpus, progress: Progress | None
) -> None:
    """Add to sums what is missing of them."""
    last = time.monotonic()

    def write() -> None:
        if base.weights.writes:
            for part in parts:
                part.write()

    for part in parts:
        part.begin(base.device)
    at = min(part.place.texts for part in parts)
    texts = islice(iter(corpus.texts()), at, None)
    try:
        while any(not part.place.is_whole for part in parts):
            some = list(islice(texts, _TEXTS))
            # Others have come further before, and wait for their turn.
            here = [p for p in parts if not p.place.is_whole and p.place.texts == at]
            for number, inputs in enumerate(_batches(base, some, corpus.window)):
                open_ = [part for part in here if part.place.tokens < corpus.tokens]
                if not open_:
                    break
                if turn := [part for part in open_ if part.place.batches == number]:
                    _add(base, turn, inputs, corpus.tokens)
                if time.monotonic() - last > _KEEP:
                    write()
                    last = time.monotonic()
            at += len(some)
            for part in here:
                part.end_of_group(at, not some or part.place.tokens >= corpus.tokens)
            if progress is not None and here:
                progress(here[0].place.tokens)
    finally:  # also of an interruption: what has been added up is not to be added up again
        write()


def _batches(base: TaskModel, texts: Sequence[str], window: int) -> Iterator[dict[str, Tensor]]:
    """Texts as padded batches of like length; those without any token are left out."""
    if not texts:
        return
    length = min(window, base.max_length)
    found = base.tokenizer(list(texts), truncation=True, max_length=length)
    rows = [row for row in found["input_ids"] if row]
    padding = base.model.config.pad_token_id or 0
    for index in by_length([len(row) for row in rows], _BATCH_TOKENS):
        some = [torch.tensor(rows[i]) for i in index]
        lengths = torch.tensor([len(row) for row in some])
        ids = pad_sequence(some, batch_first=True, padding_value=padding)
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        yield {"input_ids": ids.to(base.device), "attention_mask": mask.to(base.device)}


@torch.no_grad()
def _add(base: TaskModel, parts: Sequence[BlockSums], inputs: dict[str, Tensor], most: int) -> None:
    """Add a batch to sums, up to so many tokens in all of each."""
    reader: Any = base.model.get_encoder() if base.kind == SEQ2SEQ else base.model
    mask = inputs["attention_mask"].bool()
    with _inputs_of(base.model, [s for p in parts for s in p.sites]) as seen, suppress(Reached):
        reader(**inputs)
    for part in parts:
        part.add(seen, part.counted(mask, most))


@contextmanager
def _inputs_of(model: nn.Module, sites: Sequence[Site]) -> Iterator[dict[Site, Tensor]]:
    """What sites are given; the run ends where all have been reached."""
    seen: dict[Site, Tensor] = {}

    def hook_for(site: Site) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_module: nn.Module, args: tuple[Any, ...]) -> None:
            seen[site] = args[0]
            if len(seen) == len(sites):
                raise Reached

        return hook

    with ExitStack() as hooks:
        for site in sites:
            module = model.get_submodule(site.name)
            hooks.callback(module.register_forward_pre_hook(hook_for(site)).remove)
        yield seen


def _key(base: TaskModel, sites: Sequence[Site], corpus: Corpus, first_only: bool) -> str:
    head = [
        _SCHEMA, base.reading, base.blocks_path, [site.name for site in sites], corpus.name,
        corpus.tokens, corpus.window, first_only,
    ]  # fmt: skip
    return hashlib.blake2b(json.dumps(head).encode(), digest_size=16).hexdigest()
