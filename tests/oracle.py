"""An independent path to the editor's loss: no bank, no suffix run, no batch, no low-rank product.

Every text runs alone through the whole model. The gradient of a failure is autograd's, with respect
to the weight itself, and its terms come from the SVD of that matrix. An edited model is the model
with dense edited weights. What this path and ``EditModule`` share is the editor alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from saledit.delta import Edits, LowRank
from saledit.editors.base import Editor
from saledit.editors.request import Request
from saledit.models import TaskModel
from saledit.records import Sample
from saledit.site import Site
from saledit.tasks.base import Task


@dataclass(frozen=True)
class PlainEdit:
    """The texts of one edit."""

    fail: Sequence[Sample]
    adapt: Sequence[Sample]
    passing: Sequence[Sample]


@dataclass(frozen=True)
class Oracle:
    """The plain path of one layer.

    Attributes:
        base: the task model.
        task: encodes the texts.
        sites: the edited sites.
        sample_rank: terms kept of each failure's gradient.
        gradient_rank: terms kept of the aggregated gradient.
    """

    base: TaskModel
    task: Task
    sites: Sequence[Site]
    sample_rank: int
    gradient_rank: int

    def logits(self, sample: Sample, edits: Edits | None = None) -> Tensor:
        """Logits (C,) of one text, run alone with edited weights."""
        changed = {}
        for site, delta in (edits or {}).items():
            weight = self._weight(site)
            dense = delta.v[0].mT @ delta.u[0]  # (D_out, D_in)
            changed[f"{site.name}.weight"] = weight + (dense.mT if site.transposed else dense)
        inputs = self.task.encode(self.base, [sample]).inputs
        return functional_call(self.base.model, changed, (), inputs).logits[0]

    def target(self, sample: Sample) -> Tensor:
        """The right answer's number."""
        return self.task.encode(self.base, [sample]).targets[0]

    def request(self, failures: Sequence[Sample]) -> Request:
        """What an editor is given for one edit: u (1, R, D_in), v (1, R, D_out) a site."""
        single = [self._step(sample) for sample in failures]
        shares: Counter[tuple[int, int]] = Counter()  # by failure and number
        for terms in zip(*single, strict=True):  # a site's, of each failure
            sizes = {
                (j, n): float(pair.u[n].norm() * pair.v[n].norm())
                for j, pair in enumerate(terms)
                for n in range(pair.rank)
            }
            shares.update({at: size / max(sizes.values()) for at, size in sizes.items()})
        largest = {j: max((s, at) for at, s in shares.items() if at[0] == j)[1] for j, _ in shares}
        rest = [at for at, _ in shares.most_common() if at not in largest.values()]
        most = max(self.gradient_rank, len(failures)) if self.gradient_rank else len(shares)
        kept = sorted([*largest.values(), *rest[: most - len(largest)]])
        pairs = []
        for i in range(len(self.sites)):
            filled = [self._filled(terms[i]) for terms in single]
            pairs.append(
                LowRank(
                    torch.stack([filled[j].u[n] for j, n in kept])[None],
                    torch.stack([filled[j].v[n] for j, n in kept])[None],
                )
            )
        return Request(pairs, owners=torch.tensor([[j for j, _ in kept]]))

    def _filled(self, pair: LowRank) -> LowRank:
        """Filled up with terms of zeros, where another site has more of them."""
        gap = (0, 0, 0, self.sample_rank - pair.rank)
        return LowRank(F.pad(pair.u, gap), F.pad(pair.v, gap))

    def loss(
        self, editor: Editor, edits: Sequence[PlainEdit], c_edit: float, c_loc: float
    ) -> Tensor:
        """The loss of several edits, text by text."""
        nll, kl = [], []
        for one in edits:
            deltas = editor(self.request(one.fail))
            for sample in (*one.fail, *one.adapt):
                log_p = self.logits(sample, deltas).log_softmax(-1)
                nll.append(-log_p[self.target(sample)])
            for sample in one.passing:
                with torch.no_grad():
                    before = self.logits(sample).log_softmax(-1)
                after = self.logits(sample, deltas).log_softmax(-1)
                kl.append((before.exp() * (before - after)).sum())
        return c_edit * torch.stack(nll).mean() + c_loc * torch.stack(kl).mean()

    def dense_gradients(self, sample: Sample) -> list[Tensor]:
        """Gradient (D_out, D_in) of one text's own loss at each site."""
        return [gradient for gradient, _ in self._dense(sample)]

    def _dense(self, sample: Sample) -> list[tuple[Tensor, Tensor]]:
        """For each site the gradient and the mean of the site's inputs (D_in,)."""
        means: dict[str, Tensor] = {}
        handles = [
            self.base.model.get_submodule(site.name).register_forward_pre_hook(
                lambda _module, args, name=site.name: means.update({name: args[0][0].detach()})
            )
            for site in self.sites
        ]
        leaves = {
            f"{site.name}.weight": self._weight(site).clone().requires_grad_()
            for site in self.sites
        }
        inputs = self.task.encode(self.base, [sample]).inputs
        with torch.enable_grad():
            logits = functional_call(self.base.model, leaves, (), inputs).logits[0]
            loss = F.cross_entropy(logits, self.target(sample))
            grads = torch.autograd.grad(loss, list(leaves.values()))
        for handle in handles:
            handle.remove()
        out = []
        for site, grad in zip(self.sites, grads, strict=True):
            tokens = means[site.name]  # (T, D_in)
            tokens = tokens[:1] if self._first_token_only(site) else tokens
            out.append((grad.mT if site.transposed else grad, tokens.mean(0)))
        return out

    def _first_token_only(self, site: Site) -> bool:
        """Above its last block a model with a pooling head reads the first token alone."""
        top = self.base.block_name(self.base.n_blocks - 1)
        return self.base.pools_first_token and site.name.startswith(f"{top}.")

    def _terms(self, sample: Sample) -> list[LowRank]:
        return [leading_terms(g, mean, self.sample_rank) for g, mean in self._dense(sample)]

    def _step(self, sample: Sample) -> list[LowRank]:
        """One failure's gradient, as the step that brings a linear loss to zero."""
        terms = self._terms(sample)
        loss = F.cross_entropy(self.logits(sample), self.target(sample)).detach()
        norm = torch.cat([(t.v.mT @ t.u).flatten() for t in terms]).norm()
        half = loss.sqrt() / norm
        return [LowRank(t.u * half, t.v * half) for t in terms]

    def _weight(self, site: Site) -> Tensor:
        return self.base.model.get_submodule(site.name).weight.detach()


def leading_terms(matrix: Tensor, along: Tensor, rank: int) -> LowRank:
    """Leading singular terms of a dense matrix (D_out, D_in), each u pointing along a vector."""
    left, sigma, right = torch.linalg.svd(matrix, full_matrices=False)
    keep = (sigma > 1e3 * torch.finfo(sigma.dtype).eps * sigma[0])[:rank]
    left, sigma, right = left.mT[:rank][keep], sigma[:rank][keep], right[:rank][keep]
    sign = torch.where(right @ along < 0, -1.0, 1.0).to(sigma.dtype)
    scale = (sigma.sqrt() * sign)[:, None]
    return LowRank(right * scale, left * scale)
