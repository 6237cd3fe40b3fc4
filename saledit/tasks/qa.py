"""Question answering: a question or an unfinished statement, and its answer in words."""

from __future__ import annotations

from saledit.config import TaskConfig
from saledit.tasks.text import OPTIONAL, TextTask


class Qa(TextTask):
    """Questions with short answers; an answer ends where a stop character or the end token stands.

    Records: ``question``, ``answer``, optional ``answers`` (all that count as right),
    ``rephrases`` (a text or a list), ``locality`` (an object, or a list, with ``question`` and
    ``answer``; or a bare question, its answer in ``locality_answer``), ``subject``,
    ``rival`` (the answer that the right one has to be likelier than), ``generation`` (beginnings
    that the edited model is let write on) and ``references`` (texts that this is held against).
    Or CounterFact's own records.
    """

    name = "qa"
    names = ("question", "answer", *OPTIONAL)

    @classmethod
    def of(cls, config: TaskConfig) -> Qa:
        """The task that a configuration describes.

        Raises:
            ConfigError: a field that this task does not have, or a template without a place.
        """
        return cls(
            config.fields, config.subjects, config.max_length, config.template, config.chat,
            config.stop, config.max_new_tokens,
        )  # fmt: skip
