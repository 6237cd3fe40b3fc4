"""A task model that does not know its task: what editors do to it says nothing of them."""

from __future__ import annotations

from collections import Counter

from saledit.data.asking import Asked
from saledit.run.setup.prepare import Prepared

_MOST = 250  # records, which splitting asks first as well
_FEWEST = 50


def doubt(prepared: Prepared) -> str | None:
    """What to say of a classifier that is hardly better than its records' commonest label.

    All its answers lie beside the edge, so that any edit turns many of them, right or wrong, for
    next to no KL. Processes that share a run come here together.

    Returns:
        A line where the share of right answers is within two standard errors of the label's.
    """
    if prepared.task.generates:
        return None
    samples = [record.sample for record in prepared.records.validation[:_MOST]]
    if len(samples) < _FEWEST:
        return None
    asked = Asked(prepared.base, prepared.task, prepared.config.cache, lambda _done: None)
    right = sum(answer.right for answer in asked(samples)) / len(samples)
    label, n = Counter(sample.target for sample in samples).most_common(1)[0]
    common = n / len(samples)
    error = (common * (1 - common) / len(samples)) ** 0.5
    if right > common + 2 * error:
        return None
    return (
        f"the task model answers {right:.0%} of {len(samples)} validation records right, and "
        f"{label!r} to all would be right for {common:.0%}: it hardly knows its task, and an edit "
        "turns many of its answers, right or wrong; fine-tune it further first"
    )
