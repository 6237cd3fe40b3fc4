"""How often a model that answers a question right also answers its rewordings right.

    python benchmarks/consistency.py --data FOLDER --sets pararel worldfacts zsre
    python benchmarks/consistency.py --data FOLDER --sets counterfact \
        --set task.fields.answer=ground_truth

What an edit teaches is asked for in other words, and a model does not know in all words what it
knows in some. Adaptation is to be read against that: of the questions of a test file that the
unedited model answers right (greedy, any accepted answer), the share of their rewordings that
it answers right too. Of CounterFact the true answers are asked for, not the edit's.
"""

from __future__ import annotations

import argparse

from table import files

from saledit import config as configuration
from saledit.building import load_model, make_task
from saledit.config import RunConfig
from saledit.data.sources import load_records
from saledit.report import quiet_libraries
from saledit.tasks.answering import answers


def consistency(config: RunConfig, limit: int) -> tuple[int, int, int, int]:
    """Questions asked, those answered right, their rewordings, and how many of these are right."""
    task = make_task(config.task)
    base = load_model(task, config.model, config.cache)
    records = load_records(task, config.data.test, limit=limit)
    asked = answers(base, task, [record.sample for record in records])
    known = [r for r, answer in zip(records, asked, strict=True) if answer.right]
    rewordings = [sample for record in known for sample in record.rewordings]
    right = sum(answer.right for answer in answers(base, task, rewordings))
    return len(records), len(known), len(rewordings), right


def main() -> None:
    """Print one line a set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder with one folder a set; none for bundled sets")
    parser.add_argument("--sets", nargs="+", default=["worldfacts"])
    parser.add_argument("--limit", type=int, default=1000, help="questions of a set at most")
    parser.add_argument("--set", nargs="*", default=[])
    args = parser.parse_args()
    quiet_libraries()
    print("| set | questions | right | rewordings of these | right | share |\n|" + "---|" * 6)
    for name in args.sets:
        config = configuration.load(f"qa/{name}", [*files(args, name), *args.set])
        asked, known, rewordings, right = consistency(config, args.limit)
        share = right / max(1, rewordings)
        print(f"| {name} | {asked} | {known} | {rewordings} | {right} | {share:.3f} |", flush=True)


if __name__ == "__main__":
    main()
