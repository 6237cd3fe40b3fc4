"""Generation: how a prompt goes on; what must not change is the probability of other text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saledit.config import TaskConfig
from saledit.records import TEXT, Record, Sample
from saledit.tasks.fields import text_of, values_of
from saledit.tasks.text import OPTIONAL, TextTask

_PROMPT_WORDS, _TARGET_WORDS = 24, 8
_LEAST_WORDS = _PROMPT_WORDS + _TARGET_WORDS


class Generation(TextTask):
    """Continuations that have to be met word by word.

    Records: ``prompt``, ``target``, optional ``rephrases``, ``locality``; or ``text``, a passage:
    among the failures its first 24 words are a prompt and the next 8 the target, reworded as MEND
    does for WikiText by leaving out the first half of the prompt; among the samples that must
    not change all of it is scored.
    """

    name = "generation"
    by_perplexity = True
    settings = ("max_new_tokens",)
    names = ("prompt", "target", *OPTIONAL)

    @classmethod
    def of(cls, config: TaskConfig) -> Generation:
        """The task that a configuration describes.

        Raises:
            ConfigError: a field that this task does not have.
        """
        return cls(
            config.fields, config.subjects, config.max_length, "", False, "", config.max_new_tokens
        )

    def parse(self, row: Mapping[str, Any], where: str) -> Record:
        """Read a prompt with its target, or a passage.

        Raises:
            DataError: a field is missing or is not text.
        """
        if TEXT not in row or self.fields["prompt"] in row:
            return super().parse(row, where)
        words = text_of(row, TEXT, where).split()
        name = str(row.get("id") or where)
        passage = Sample(name, ("",), " ".join(words), TEXT)
        if len(words) < _LEAST_WORDS:
            return Record(passage)
        prompt, target = words[:_PROMPT_WORDS], " ".join(words[_PROMPT_WORDS:_LEAST_WORDS])
        shorter = " ".join(prompt[_PROMPT_WORDS // 2 :])
        return Record(
            Sample(name, (" ".join(prompt),), target),
            (Sample(f"{name}#0", (shorter,), target, "shorter"),),
            tuple(s for field in self.subjects for s in values_of(row, field, where)),
            (Sample(f"{name}@0", ("",), passage.target, TEXT),),
        )
