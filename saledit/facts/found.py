"""Failures as facts: the key that stands for each at a site, and what its output lacks there.

The key is the site's input at one position, the last token of the subject (or of the prompt). What
has to be added to the output there is found by gradient (``saledit.facts.wanted``). Of several
blocks the change is wanted of the top one and spread over all: each is asked for its share of what
is still missing behind the blocks below it (Meng et al., ICLR 2023 (MEMIT), section 4.3, algorithm
1).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from saledit.cache.bank import Bank, BankSpec
from saledit.cache.opening import memory_bank
from saledit.delta import Edits
from saledit.editors.locating import Facts, FactSpec
from saledit.errors import ConfigError, SiteError
from saledit.facts.rows import last_places, parts, states, variants
from saledit.facts.values import Values
from saledit.facts.wanted import Prompts, facts_at_once, wanted_change
from saledit.forward.places import Reached, Touch, touched
from saledit.forward.suffix import run
from saledit.models import SEQ2SEQ, TaskModel
from saledit.overlay import applied
from saledit.records import Sample
from saledit.site import Layer, Site
from saledit.tasks.base import Task, in_words
from saledit.widths import wide_type

_APART = 0.05  # of a change, by which two ways to it may differ


class FactsFound:
    """The facts (E, K) of failures at the sites of one block or several.

    Args:
        base: the task model.
        task: encodes and scores.
        block: the lowest site's block, where suffix runs enter.
        sites: a linear map of each block, from the lowest, without gaps.
        samples: for each of E edits its K failures, with their right answers.
        spec: how they are found.
        contexts: what is put before the prompts.
        steps: edits that are applied to the model before.
        folder: where what is wanted of an unedited model is kept; None to keep nothing.

    Raises:
        DataError: the subject of a failure cannot be found in its text.
        ConfigError: subjects are looked for where their tokens are not run, or a change is to be
            spread over blocks whose shares do not add up.
    """

    def __init__(
        self, base: TaskModel, task: Task, block: int, sites: Sequence[Site],
        samples: Sequence[Sequence[Sample]], spec: FactSpec, contexts: Sequence[str] = (),
        steps: Edits | None = None, folder: Path | None = None,
    ) -> None:  # fmt: skip
        self._base, self._task, self._sites, self._spec = base, task, tuple(sites), spec
        self._layer, self._steps = Layer(block, self._sites), steps or Edits({})
        self._samples = [sample for own in samples for sample in own]
        self._shape = (len(samples), len(samples[0]))
        self._contexts = contexts
        self._kept: Values | None = None
        if folder is not None and not self._steps:
            self._kept = Values(folder, base, task, self._sites[-1], spec, contexts)

    @cached_property
    def _every(self) -> Prompts:
        """All rows, those of what is to stay behind those that are asked."""
        samples, of = variants(self._samples, self._contexts)
        base, task, spec = self._base, self._task, self._spec
        at_subject = spec.at == "subject"
        stays: Bank | None = None
        with applied(base.model, self._steps):
            bank = memory_bank(base, task, samples, BankSpec(self._layer))
            if at_subject:
                self._check_places(bank)
                places = self._subject_ends(task, samples)
            else:
                places = last_places(base, bank)
            if spec.kl > 0 and at_subject and in_words(task):
                # What is said of the subject at large: not as an answer, but as the text goes on.
                bare, about = task.bare(base.max_length), [_at_large(s) for s in self._samples]
                stays = memory_bank(base, bare, about, BankSpec(self._layer))
                places = torch.cat([places, self._subject_ends(bare, about)])
                of = torch.cat([of, torch.arange(len(about))])
        return Prompts(bank, places.to(base.device), of, len(samples), stays)

    def _subject_ends(self, task: Task, samples: Sequence[Sample]) -> Tensor:
        return torch.tensor([last for _, last in task.subject_spans(self._base, samples)])

    def _check_places(self, bank: Bank) -> None:
        """Refuse to look for subjects where their tokens are not run, or nothing comes of them.

        Raises:
            ConfigError: in a decoder that is given the text by its encoder.
            SiteError: in the last block, behind which only what is scored is read; an encoder is
                read as a whole.
        """
        base, index = self._base, self._layer.index
        beside = base.kind == SEQ2SEQ and not base.in_encoder
        last = f"{base.block_name(base.n_blocks - 1)}."
        is_last = base.kind != SEQ2SEQ and self._sites[-1].name.startswith(last)
        if beside or is_last or bank.entry.first_token_only:
            other = "model.stack=encoder" if beside else "a lower site.layer"
            raise (ConfigError if beside else SiteError)(
                f"editor.locate.at: subjects do not stand in what is read of block {index} of "
                f"{base.name}, expected last, got subject; set editor.locate.at=last or {other}"
            )

    @cached_property
    def _prompts(self) -> Prompts:
        return self._every.first(self._every.n_asked)

    @cached_property
    def _top(self) -> Facts:
        """The facts (N, ...) at the highest site, with nothing changed below it."""
        base, n = self._base, len(self._samples)
        prompts = self._prompts  # applies the edits so far itself, and they would add up
        with applied(base.model, self._steps):
            module = base.model.get_submodule(self._sites[-1].name)
            keys, outputs = states(base, prompts, module)
            bare = outputs[:n]  # the bare prompts stand first
            delta = self._wanted(bare)
        return Facts(self._means(keys), bare + delta - self._means(outputs), keys[:n], delta)

    def _wanted(self, bare: Tensor) -> Tensor:
        """What to add (N, D) to the outputs at the bare prompts."""
        base, samples = self._base, self._samples
        kept = self._kept
        known = [None if kept is None else kept.read(s) for s in samples]
        known = base.weights.broadcast(known)
        delta = torch.zeros_like(bare)
        for i, value in enumerate(known):
            if value is not None:
                delta[i] = value.to(delta)
        # Edits may share failures, or hold one several times: what is wanted is found once.
        first = {s: i for i, s in reversed([*enumerate(samples)]) if known[i] is None}
        missing = torch.tensor([*first.values()], dtype=torch.long).sort().values
        if not len(missing):
            return delta
        every, block = self._every, self._layer.index + len(self._sites) - 1
        measure = bare.norm(dim=1)
        if self._spec.measure == "block":
            measure = states(base, every.first(len(bare)), base.block(block))[1].norm(dim=1)
        for some in torch.split(missing, facts_at_once(base, every, len(samples))):
            delta[some] = wanted_change(
                base, self._task, self._sites[-1], block, every, bare[some], measure[some], some,
                self._spec, bool(self._steps),
            )  # fmt: skip
            if kept is not None and base.weights.writes:
                for i in some.tolist():
                    kept.write(samples[i], delta[i])
        return delta[torch.tensor([first.get(s, i) for i, s in enumerate(samples)])]

    @property
    def n_facts(self) -> int:
        """K."""
        return self._shape[1]

    def at(self, number: int, edits: Edits) -> Facts:
        """The facts (E, K) at a site.

        Args:
            number: which of the sites.
            edits: what is changed (E,) at the sites below it.

        Returns:
            Keys under these edits, and this site's share of what is then missing. They are found at
            the model's own precision, also in a training that casts: an edit of rounded keys would
            be another one than is made after it.
        """
        with torch.autocast(self._base.device.type, enabled=False):
            return self._at(number, edits)

    def _at(self, number: int, edits: Edits) -> Facts:
        n_sites = len(self._sites)
        if n_sites == 1:
            return self._top.view(*self._shape)
        goal, n = self._goal, len(self._samples)  # first: both apply the edits so far
        with applied(self._base.model, self._steps):
            keys, hidden = self._under(edits, self._sites[number])
        missing = (goal - hidden[:n]) / (n_sites - number)
        return Facts(self._means(keys), missing, keys[:n], missing).view(*self._shape)

    @cached_property
    def _goal(self) -> Tensor:
        """What the top block should give (N, D) at the bare prompts."""
        delta = self._top.bare_residuals
        n, prompts, site = len(delta), self._prompts, self._sites[-1]
        added = torch.cat([delta, delta.new_zeros(len(prompts.of) - n, delta.shape[1])])
        with applied(self._base.model, self._steps):
            _, hidden = self._under(Edits({}), site)
            _, moved = self._under(Edits({}), site, added)
        goal = hidden[:n] + delta
        # Rounded as the states are.
        eps = torch.finfo(self._base.dtype).eps
        if (moved[:n] - goal).norm() > _APART * delta.norm() + eps * hidden[:n].norm():
            raise ConfigError(
                f"site.span: expected 1 for editor.locate on {self._base.name}, got "
                f"{len(self._sites)}: a norm stands behind its MLPs, so the blocks' shares of a "
                "change do not add up; set site.span=1"
            )
        return goal

    def _under(
        self, edits: Edits, site: Site, added: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Keys (R, D_in) at a site, and what the top block gives (R, D), under edits (E,).

        Args:
            edits: what is changed.
            site: whose inputs are the keys.
            added: what is added (R, D_out) to the site's outputs.
        """
        base, prompts = self._base, self._prompts
        top = base.block(self._layer.index + len(self._sites) - 1)
        module = base.model.get_submodule(site.name)
        # Rows of an edit lie side by side.
        order = (prompts.of // self._shape[1]).argsort(stable=True)
        keys: list[Tensor] = []
        hidden: list[Tensor] = []

        def at_site(own: Tensor | None) -> Touch:
            def touch(x: Tensor, _y: Tensor) -> Tensor | None:
                keys.append(x)
                return own

            return touch

        def at_top(_x: Tensor, y: Tensor) -> None:
            hidden.append(y)
            raise Reached  # the blocks above have nothing to say

        for index, some in parts(order, edits):
            rows, places = prompts.bank.rows(index), prompts.places[index]
            own = None if added is None else added[index]
            with torch.no_grad(), suppress(Reached), ExitStack() as stack:
                stack.enter_context(applied(base.model, some))
                stack.enter_context(touched(module, places, at_site(own), rows))
                stack.enter_context(touched(top, places, at_top, rows))
                run(base, prompts.bank.entry, rows.states, rows.inputs, rows.at)
        back = order.argsort()
        wide = wide_type(keys[0].dtype)
        return torch.cat(keys)[back].to(wide), torch.cat(hidden)[back].to(wide)

    def _means(self, states: Tensor) -> Tensor:
        """Means (N, D) of states (R, D) over the variants of each fact."""
        n = len(self._samples)
        of = self._prompts.of.to(states.device)
        count = torch.bincount(of, minlength=n).to(states)[:, None]
        return states.new_zeros(n, states.shape[1]).index_add_(0, of, states) / count


def _at_large(sample: Sample) -> Sample:
    """A text that is about a failure's subject and asks for nothing."""
    return replace(sample, id=f"{sample.id}<is", inputs=(f"{sample.subject} is a",), rival="")
