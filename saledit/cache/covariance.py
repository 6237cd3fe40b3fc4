"""Second moments of a site's inputs over running text: what closed-form edits must leave alone.

ROME and its kin take C = E[k k^T] over Wikipedia (Meng et al., 2022, appendix E.1). Here any text
is streamed through the model up to the sites, not further and without its head; batches are summed
up in double precision and put on disk as they come, and a pass that was cut off goes on from there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from saledit import distributed
from saledit.errors import ArtifactError, DataError, ModelError
from saledit.files import keep_tensors, kept_tensors
from saledit.forward.places import Reached
from saledit.forward.suffix import entry_for
from saledit.models import SEQ2SEQ, TaskModel
from saledit.moments import layers_at_once
from saledit.site import Layer, Site
from saledit.tasks.batching import by_length
from saledit.widths import wide

_TEXTS = 64  # put in order of length at a time, and on disk when they are done
_BATCH_TOKENS = 4096
_SCHEMA = 1

Progress = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Corpus:
    """Running text.

    Attributes:
        name: fingerprint of the texts, for the key of what is kept.
        texts: gives the texts, in the same order every time.
        tokens: how many are read at most.
        window: tokens of a text at most.
        first_only: only the first token of each text counts.
    """

    name: str
    texts: Callable[[], Iterable[str]]
    tokens: int
    window: int
    first_only: bool = False


def second_moments(
    base: TaskModel, layer: Layer, corpus: Corpus, folder: Path,
    progress: Progress | None = None,
) -> list[Tensor]:  # fmt: skip
    """Mean of x x^T over the inputs x of each site, at every token of the text that is read there.

    Args:
        base: the task model.
        layer: whose sites; where the model reads the first token alone above them, that is all.
        corpus: the text.
        folder: where sums are kept.
        progress: told how many tokens have been read.

    Returns:
        For each site (D_in, D_in), float32, on the model's device.

    Raises:
        ModelError: the sites are in a decoder that reads no running text of its own.
        DataError: there is too little text for second moments of full rank.
    """
    (own,) = _summed(base, [layer], corpus, folder, progress)
    sums = own.sums
    check_tokens(sums.tokens, own.sites, "text", "name a longer text")
    return [(total / sums.tokens).float().to(base.device) for total in sums.totals]


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

    (Layers whose sums do not fit into a gigabyte together take several.)
    """
    for some in layers_at_once(layers):
        _summed(base, some, corpus, folder, progress)


@dataclass(slots=True)
class _Own:
    """What is summed up of a layer.

    Attributes:
        sites: its sites.
        first_only: only the first token of each text counts.
        kept: where the sums are kept.
        sums: how far they have come.
    """

    sites: Sequence[Site]
    first_only: bool
    kept: Path
    sums: _Sums

    def counted(self, mask: Tensor, tokens: int) -> Tensor:
        """Places in a batch, of bool (B, T), that are to be added: up to so many tokens in all."""
        if self.first_only:
            mask = mask & (torch.arange(mask.shape[1], device=mask.device) == 0)
        return mask.flatten().nonzero().squeeze(1)[: max(0, tokens - self.sums.tokens)]


def _summed(
    base: TaskModel, layers: Sequence[Layer], corpus: Corpus, folder: Path,
    progress: Progress | None,
) -> list[_Own]:  # fmt: skip
    """The sums of layers; what is missing of them is made in one pass over the text."""
    if base.kind == SEQ2SEQ and not base.in_encoder:
        raise ModelError(
            f"editor.moments.corpus: {base.name} reads running text in its encoder only; "
            "add model.stack=encoder, or leave the corpus out"
        )
    found = []
    for layer in layers:
        sites = layer.sites
        first = entry_for(base, layer.index, tuple(s.name for s in sites)).first_token_only
        key = _key(base, sites, replace(corpus, first_only=first))
        found.append((sites, first, folder / f"moments-{key}.safetensors"))
    with distributed.one_run_at_a_time(*(p for *_, p in found), in_step=base.weights.is_divided):
        all_ = [_Own(sites, first, kept, _Sums.read(kept, sites)) for sites, first, kept in found]
        if any(not own.sums.is_whole for own in all_):
            _go_on(base, all_, corpus, progress)
    return all_


@dataclass(slots=True)
class _Sums:
    """How far a pass has come: sums over tokens, and how many texts they are of."""

    totals: list[Tensor]
    tokens: int = 0
    texts: int = 0
    is_whole: bool = False

    @classmethod
    def read(cls, path: Path, sites: Sequence[Site]) -> _Sums:
        """What is on disk, or a fresh start where there is nothing that can be used."""
        with suppress(ArtifactError, KeyError, ValueError):
            found, told = kept_tensors(path, "second moments")
            totals = [found[f"sum.{i}"].clone() for i in range(len(sites))]
            if all(torch.isfinite(total).all() for total in totals):
                return cls(totals, **json.loads(told["progress"]))
        return cls([torch.zeros(site.d_in, site.d_in, dtype=torch.double) for site in sites])

    def write(self, path: Path) -> None:
        tensors = {f"sum.{i}": total for i, total in enumerate(self.totals)}
        told = {"tokens": self.tokens, "texts": self.texts, "is_whole": self.is_whole}
        keep_tensors(path, tensors, {"progress": json.dumps(told)})


def _go_on(
    base: TaskModel, layers: Sequence[_Own], corpus: Corpus, progress: Progress | None
) -> None:
    at = min(own.sums.texts for own in layers if not own.sums.is_whole)
    texts = islice(iter(corpus.texts()), at, None)
    while any(not own.sums.is_whole for own in layers):
        some = list(islice(texts, _TEXTS))
        # Others have come further before, and wait for their turn.
        here = [own for own in layers if not own.sums.is_whole and own.sums.texts == at]
        for inputs in _batches(base, some, corpus.window):
            mask = inputs["attention_mask"].bool()
            read = [own.counted(mask, corpus.tokens) for own in here]
            if not any(len(places) for places in read):
                break
            _add(base, here, inputs, read)
        at += len(some)
        for own in here:
            own.sums.texts = at
            own.sums.is_whole = not some or own.sums.tokens >= corpus.tokens
            if base.weights.writes:
                own.sums.write(own.kept)
        if progress is not None and here:
            progress(here[0].sums.tokens)


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
def _add(
    base: TaskModel, layers: Sequence[_Own], inputs: dict[str, Tensor], read: Sequence[Tensor]
) -> None:
    """Add some tokens of a batch to the sums of layers, for each by their places in all of it."""
    reader: Any = base.model.get_encoder() if base.kind == SEQ2SEQ else base.model
    sites = list(dict.fromkeys(site for own in layers for site in own.sites))
    with _inputs_of(base.model, sites) as seen, suppress(Reached):
        reader(**inputs)
    for own, places in zip(layers, read, strict=True):
        for total, site in zip(own.sums.totals, own.sites, strict=True):
            x = seen[site].flatten(0, -2)[places]
            x = wide(x)
            total += (x.mT @ x).double().cpu()
        own.sums.tokens += len(places)


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


def _key(base: TaskModel, sites: Sequence[Site], corpus: Corpus) -> str:
    head = [
        _SCHEMA, base.reading, base.blocks_path, [site.name for site in sites], corpus.name,
        corpus.tokens, corpus.window, corpus.first_only,
    ]  # fmt: skip
    return hashlib.blake2b(json.dumps(head).encode(), digest_size=16).hexdigest()
