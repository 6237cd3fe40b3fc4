"""How an edited model writes: varied text or one thing over and over, and on what it was taught.

Source: Meng et al., NeurIPS 2022 (ROME): generation entropy GE and reference score RS.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, float64

from saledit.data.splits import Part
from saledit.delta import Edits
from saledit.metrics import Mean
from saledit.models import TaskModel
from saledit.records import Sample
from saledit.tasks.base import WordTask
from saledit.tasks.decoding import continue_freely

_TOKENS = 100  # of a continuation, as in the CounterFact evaluation
_WEIGHTS = {2: 2 / 3, 3: 4 / 3}  # of the entropies of n-grams
_LENGTH = 256  # tokens of a beginning at most


def ngram_entropy(text: str) -> float:
    """Weighted mean of the entropies of a text's 2- and 3-grams of words, in bits.

    Source: generation entropy GE of Meng et al., NeurIPS 2022 (ROME), whose tables print it times
    100. 0 for a text of fewer than two words.
    """
    words = text.split()
    total = 0.0
    for n, weight in _WEIGHTS.items():
        grams = Counter(zip(*(words[i:] for i in range(n)), strict=False))
        count = sum(grams.values())
        total += weight * -sum(m / count * math.log2(m / count) for m in grams.values())
    return total / len(_WEIGHTS)


class TfIdf:
    """Texts as vectors of words, weighed by how few of some documents hold them.

    tf-idf as scikit-learn's ``TfidfVectorizer`` has it by default: counts times
    ln((1 + N) / (1 + n)) + 1, divided by the norm; words that no document holds do not count.

    Args:
        documents: N texts.
    """

    def __init__(self, documents: Sequence[str]) -> None:
        self._n = len(documents)
        self._in = Counter(word for text in documents for word in set(_words(text)))

    def similarity(self, one: str, other: str) -> float:
        """Cosine of two texts' vectors; 0 where one has no word."""
        a, b = self._vector(one), self._vector(other)
        return sum(weight * b[word] for word, weight in a.items() if word in b)

    def _vector(self, text: str) -> dict[str, float]:
        counts = Counter(_words(text))
        all_ = 1 + self._n
        found = {
            word: n * (math.log(all_ / (1 + self._in[word])) + 1)
            for word, n in counts.items()
            if word in self._in
        }
        norm = math.sqrt(sum(v * v for v in found.values())) or 1.0
        return {word: value / norm for word, value in found.items()}


def _words(text: str) -> list[str]:
    return [w for w in "".join(c if c.isalnum() else " " for c in text.lower()).split() if w[1:]]


@dataclass(slots=True)
class _Means:
    """Of one model: mean entropy of its continuations, and mean likeness to the references."""

    entropy: Mean = field(default_factory=Mean)
    likeness: Mean = field(default_factory=Mean)


class Fluency:
    """Free continuations, without and with edits.

    Of generation each failure's own prompt is gone on with; of questions the beginnings that its
    record brings, where it brings any. Decoding is greedy (the published numbers draw from the five
    likeliest tokens, which is less apt to repeat itself). Entropy counts the continuation alone.

    Args:
        base: the task model.
        task: makes the prompts.
        part: the failures.
        most: failures to look at; 0 for none.
    """

    def __init__(self, base: TaskModel, task: WordTask, part: Part, most: int) -> None:
        self._base, self._part = base, part
        self._task = task if task.by_perplexity else task.bare(min(_LENGTH, base.max_length))
        self._tfidf = TfIdf([text for own in part.writing for text in own.references])
        self._before, self._after = _Means(), _Means()
        writes = [i for i in range(len(part.fail)) if self._beginnings(i)]
        self._chosen = frozenset(writes[:most])

    def count(self, members: Tensor, edits: Edits) -> None:
        """Let the model write on failures (E, K), each under its edit of a batch (E,)."""
        asked = [
            (edit, i, self._beginnings(i))
            for edit, own in enumerate(members.tolist())
            for i in own
            if i in self._chosen
        ]
        if not asked:
            return
        samples = [sample for *_, own in asked for sample in own]
        which = torch.tensor([edit for edit, _, own in asked for _ in own])
        for means, given in ((self._before, None), (self._after, edits)):
            texts = iter(continue_freely(self._base, self._task, samples, given, which, _TOKENS))
            for _, i, own in asked:
                self._judge(means, i, own, [next(texts) for _ in own])

    def _beginnings(self, i: int) -> tuple[Sample, ...]:
        failure = self._part.fail[i]
        if self._task.by_perplexity:
            return (failure,)
        prompts = self._part.writing[i].prompts if self._part.writing else ()
        return tuple(
            replace(failure, id=f"{failure.id}>{n}", inputs=(text,))
            for n, text in enumerate(prompts)
        )

    def _judge(self, means: _Means, i: int, asked: Sequence[Sample], texts: Sequence[str]) -> None:
        means.entropy.update(torch.tensor([ngram_entropy(t) for t in texts], dtype=float64))
        references = self._part.writing[i].references if self._part.writing else ()
        if references:
            said = " ".join(f"{s.inputs[0]}{t}" for s, t in zip(asked, texts, strict=True))
            found = self._tfidf.similarity(said, " ".join(references))
            means.likeness.update(torch.tensor([found], dtype=float64))

    def compute(self) -> dict[str, float]:
        """``fluency_`` and ``consistency_``, before and after; nothing of what was not counted."""
        out = {}
        for when, means in (("before", self._before), ("after", self._after)):
            for name, mean in (("fluency", means.entropy), ("consistency", means.likeness)):
                if mean.count():
                    out[f"{name}_{when}"] = float(mean.compute())
        return out
