"""A task model that does not know its task: what editors do to it says nothing of them."""

from __future__ import annotations

from collections import Counter

from saledit.data.asking import Asked
from saledit.run.setup.prepare import Prepared

_MOST = 250  # records, which splitting asks first as well
_FEWEST = 20  # records of a label, and of all others


def doubt(prepared: Prepared) -> str | None:
    """What to say of a classifier that does not tell one of its labels from the others.

    Its answers there lie beside the edge, so that any edit turns many of them, right or wrong, for
    next to no KL. Processes that share a run come here together.

    Returns:
        A line about the label that is told least, where the share of its records to which it is
        said is within two standard errors of the share of other records, or below.
    """
    if prepared.task.generates:
        return None
    samples = [record.sample for record in prepared.records.validation[:_MOST]]
    with prepared.ui.progress("asking the model: labels", len(samples)) as bar:
        asked = Asked(prepared.base, prepared.task, prepared.config.cache, bar.update)
        answers = [answer.text for answer in asked(samples)]
    pairs = Counter(zip((sample.target for sample in samples), answers, strict=True))
    found = []
    for label, own in Counter(sample.target for sample in samples).items():
        others = len(samples) - own
        if min(own, others) < _FEWEST:
            continue
        right = pairs[label, label]
        wrong = sum(n for (target, said), n in pairs.items() if said == label != target)
        hit, false = right / own, wrong / others
        error = (hit * (1 - hit) / own + false * (1 - false) / others) ** 0.5
        if hit - false <= 2 * error:
            found.append((hit - false, label, hit, own, false))
    if not found:
        return None
    _, label, hit, own, false = min(found)
    return (
        f"the task model does not know {label!r}: it says so of {hit:.0%} of the {own} validation "
        f"records that are, and of {false:.0%} of the others; edits then turn many of its answers, "
        "right or wrong, so fine-tune it further first"
    )
