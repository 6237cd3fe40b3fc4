"""Answers in words: what question answering and generation have in common.

Targets are tokens (B, A): the next token of each scored position; ``END`` where the answer has
to end, whichever of the model's ways to end it takes; ``IGNORED`` at positions without a target.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from saledit.config import TaskConfig
from saledit.errors import ConfigError, DataError
from saledit.forward.scoring import logits_beside, logits_of
from saledit.losses import locality_kl
from saledit.models import TaskModel
from saledit.records import TEXT, Record, Sample, Writing
from saledit.tasks.base import Encoded
from saledit.tasks.counterfact import flattened
from saledit.tasks.ends import stop_tables
from saledit.tasks.fields import filled, named_fields, text_of, texts_of, values_of
from saledit.tasks.prompts import END, IGNORED, QUESTION, Prompter
from saledit.tasks.scored import all_by_sample, least_by_sample, mean_by_sample
from saledit.tasks.subjects import Span, stands_in, subject_of

#: Fields of every task of this kind, behind the prompt and the answer.
OPTIONAL = (
    "answers", "rephrases", "locality", "locality_answer", "subject", "rival", "generation",
    "references",
)  # fmt: skip


class TextTask(ABC):
    """A prompt and its continuation.

    Args:
        fields: names of the data's fields where they differ from the task's own.
        subjects: fields whose values no two splits may share.
        max_length: longest prompt with its answer, in tokens.
        template: prompt around ``{question}``; "" for the question alone.
        chat: ask through the model's chat template.
        stop: characters that end an answer; "" where nothing but the model's end token does.
        max_new_tokens: tokens of an answer at most under free generation.
    """

    name = TEXT
    settings: tuple[str, ...] = ("template", "chat", "stop", "max_new_tokens")
    generates = True
    by_perplexity = False
    # Of tens of thousands of tokens a small change of all probabilities already moves some answer,
    # and training takes less of that away: trained editors rank layers as steps at this price do.
    kl_price = 50.0
    names: tuple[str, ...] = ()  # prompt, answer, then what is optional

    def __init__(
        self, fields: Mapping[str, str] | None = None, subjects: Sequence[str] = (),
        max_length: int = 128, template: str = "", chat: bool = False, stop: str = "",
        max_new_tokens: int = 16,
    ) -> None:  # fmt: skip
        if template and QUESTION not in template:
            raise ConfigError(
                f"task.template: expected a text with '{QUESTION}' in it, got '{template}'"
            )
        self.fields = named_fields(fields or {}, self.names)
        self.spelling = tuple(self.fields.items())  # for cache keys
        self.subjects = tuple(subjects)
        self.max_length, self.max_new_tokens = max_length, max_new_tokens
        self.template, self.chat, self.stop = template or QUESTION, chat, stop
        self._prompter = Prompter(self.template, chat, bool(stop), max_length)

    @classmethod
    @abstractmethod
    def of(cls, config: TaskConfig) -> TextTask:
        """The task that a configuration describes."""

    def parse(self, row: Mapping[str, Any], where: str) -> Record:
        """Read a prompt with its answer, and what is optional beside them.

        Raises:
            DataError: a field is missing or is not text.
        """
        row = flattened(row, self.fields, where)
        prompt, answer = self.names[:2]
        name = str(row.get("id") or where)
        # With an answer beside it, it is a question whose field has another name.
        if TEXT in row and not {self.fields[prompt], self.fields[answer]} & row.keys():
            return Record(Sample(name, ("",), text_of(row, TEXT, where), TEXT))
        question = text_of(row, self.fields[prompt], where, "task.fields")
        target = text_of(row, self.fields[answer], where, "task.fields")
        for field, text in ((prompt, question), (answer, target)):
            if not text.strip():
                raise DataError(
                    f"{where}: expected text in '{self.fields[field]}', got an empty one"
                )
        others = filled(row, self.fields["answers"], where)
        accepted = tuple(dict.fromkeys([target, *others]))
        rephrases = dict.fromkeys(filled(row, self.fields["rephrases"], where))
        subject = subject_of(row, self.fields["subject"], (question,))
        rival = next(iter(filled(row, self.fields["rival"], where)), "")
        rewordings = tuple(
            Sample(
                f"{name}#{i}",
                (text,),
                target,
                "rephrase",
                accepted,
                subject if stands_in(subject, (text,)) else "",
                rival,
            )
            for i, text in enumerate(rephrases)
            if text != question
        )
        return Record(
            Sample(name, (question,), target, "", accepted, subject, rival),
            rewordings,
            tuple(s for field in self.subjects for s in values_of(row, field, where)),
            self._locality(row, name, where, target if rival else ""),
            Writing(
                # CounterFact says some of them several times, for draws; here nothing is drawn.
                tuple(dict.fromkeys(filled(row, self.fields["generation"], where))),
                tuple(filled(row, self.fields["references"], where)),
            ),
        )

    def _locality(
        self, row: Mapping[str, Any], name: str, where: str, rival: str
    ) -> tuple[Sample, ...]:
        """Samples of other matters: objects with the task's own fields, a list, or bare texts.

        A bare text without an answer has no right one: it counts for what the model says to it.
        Their rival is the edit's target, which is not to spread.
        """
        value, field = row.get(self.fields["locality"]), self.fields["locality_answer"]
        if value is None:
            return ()
        items = value if isinstance(value, list) else [value]
        answers = texts_of(row, field, where) if filled(row, field, where) else []
        if answers and len(answers) != len(items):
            raise DataError(
                f"{where}: expected an answer in '{field}' to each of {len(items)} in "
                f"'{self.fields['locality']}', got {len(answers)}"
            )
        out = []
        for i, item in enumerate(items):
            if isinstance(item, str):
                if not item.strip():  # a blank cell of a table
                    continue
                known = tuple(answers[i : i + 1])
                out.append(Sample(f"{name}@{i}", (item,), "".join(known), "", known, "", rival))
                continue
            if not isinstance(item, Mapping):
                raise DataError(
                    f"{where}: expected '{self.fields['locality']}' to hold objects with "
                    f"{' and '.join(self.names[:2])}, got {type(item).__name__}"
                )
            question = text_of(item, self.names[0], where)
            answer = text_of(item, self.names[1], where)
            out.append(Sample(f"{name}@{i}", (question,), answer, "", (answer,), "", rival))
        return tuple(out)

    def row(self, sample: Sample) -> dict[str, Any]:
        """A sample as a row of a data file; what splits go by is not kept."""
        if sample.kind == TEXT:
            return {"id": sample.id, TEXT: sample.target}
        prompt, answer = self.names[:2]
        row = {"id": sample.id, self.fields[prompt]: sample.inputs[0]}
        row[self.fields[answer]] = sample.target
        if sample.subject:
            row[self.fields["subject"]] = sample.subject
        if sample.rival:
            row[self.fields["rival"]] = sample.rival
        others = [a for a in sample.accepted if a != sample.target]
        return row | ({self.fields["answers"]: list(sample.accepted)} if others else {})

    def other_answers(self, base: TaskModel, answer: str) -> list[str]:
        """None: failures of the model itself are plentiful."""
        return []

    def unended(self) -> Self:
        """The same task where an answer's end is not part of it, as the field compares answers."""
        other = copy.copy(self)
        other.stop = ""
        other._prompter = Prompter(self.template, self.chat, False, self.max_length)
        return other

    def bare(self, max_length: int) -> Self:
        """The same where a prompt is a sample's text and nothing else, and no end is asked for.

        Args:
            max_length: longest prompt in tokens.
        """
        other = copy.copy(self)
        other.stop, other.template, other.chat, other.max_length = "", QUESTION, False, max_length
        other._prompter = Prompter(QUESTION, False, False, max_length)
        return other

    def prompt_tokens(self, base: TaskModel, samples: Sequence[Sample]) -> list[list[int]]:
        """Tokens of the prompts, see ``Prompter``."""
        return self._prompter.prompt_tokens(base, samples)

    def subject_spans(self, base: TaskModel, samples: Sequence[Sample]) -> list[Span]:
        """See ``Task.subject_spans``."""
        return self._prompter.subject_spans(base, samples)

    def encode(self, base: TaskModel, samples: Sequence[Sample]) -> Encoded:
        """Prompt and answer behind one another, or for encoder and decoder; see ``Task``.

        Raises:
            DataError: an answer that tokenises to nothing, or a text that is too long.
        """
        return self._prompter.encode(base, samples)

    def logits(self, base: TaskModel, outputs: Tensor, targets: Tensor) -> Tensor:
        """Logits (P, C) of the positions that have a target, of outputs (..., A, D)."""
        return logits_of(base, outputs, targets != IGNORED)

    def logits_beside(
        self, base: TaskModel, reference: Tensor, outputs: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Both (P, C), see ``saledit.forward.scoring.logits_beside``."""
        return logits_beside(base, reference, outputs, targets != IGNORED)

    def losses(self, base: TaskModel, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean negative log-likelihood a position (...), logits (P, C), targets (..., A).

        At ``END`` it is that of any of the tokens that end an answer: an edit need not
        decide how.
        """
        wanted = targets[targets != IGNORED]  # (P,)
        logits = logits.float()
        chosen = logits.gather(-1, wanted.clamp_min(0)[:, None]).squeeze(-1)
        last = wanted == END
        if bool(last.any()):
            ends = stop_tables(base, self.stop)[0].nonzero().squeeze(1).to(logits.device)
            chosen = chosen.masked_scatter(last, logits[last][:, ends].logsumexp(-1))
        return mean_by_sample(logits.logsumexp(-1) - chosen, targets)

    def answer_losses(self, base: TaskModel, logits: Tensor, targets: Tensor) -> Tensor:
        """Negative log-likelihood of whole answers (...): the sum over their positions."""
        return self.losses(base, logits, targets) * (targets != IGNORED).sum(-1)

    def divergence(self, base_logits: Tensor, edited: Tensor, targets: Tensor) -> Tensor:
        """Mean KL(base || edited) a position (...), logits (P, C), targets (..., A)."""
        return mean_by_sample(locality_kl(base_logits.float(), edited.float()), targets)

    def correct(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Whether all answer tokens are right under teacher forcing, the end not counted."""
        wanted = targets[targets != IGNORED]
        return all_by_sample((logits.argmax(-1) == wanted) | (wanted == END), targets)

    def spoken(self, base: TaskModel, logits: Tensor, targets: Tensor) -> Tensor:
        """Whether free greedy generation gives just this answer and ends it: bool (...).

        Greedy generation takes the highest logit at each step. So it gives a known answer if and
        only if the answer's tokens are the highest under teacher forcing, and no generation is
        needed to know it.
        """
        wanted, best = targets[targets != IGNORED], logits.argmax(-1)
        ended = stop_tables(base, self.stop)[0].to(best.device)[best]
        return all_by_sample(torch.where(wanted == END, ended, best == wanted), targets)

    def leads(self, base: TaskModel, logits: Tensor, targets: Tensor) -> Tensor:
        """Nats by which each answer is spoken rather than another (...), see ``Task.leads``.

        At a token: its logit minus the highest of the others. At the end: the highest of the
        tokens that end an answer minus the highest of those that do not.
        """
        wanted = targets[targets != IGNORED]
        ends = stop_tables(base, self.stop)[0].to(logits.device)
        at_end, token = wanted == END, wanted.clamp_min(0)[:, None]
        best = logits.topk(2, -1)
        # The highest of the others is the second where the token itself is the highest.
        other = torch.where(best.indices[:, 0] == token[:, 0], best.values[:, 1], best.values[:, 0])
        lead = logits.gather(-1, token)[:, 0] - other
        over = logits[at_end]
        stays = over.masked_fill(ends, -torch.inf).amax(-1)
        lead[at_end] = over.masked_fill(~ends, -torch.inf).amax(-1) - stays
        return least_by_sample(lead, targets)
