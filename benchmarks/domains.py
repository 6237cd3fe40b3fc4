"""Out of domain: editors trained on one set, applied to the failures of others.

    python benchmarks/domains.py --data FOLDER --runs checkpoints/nli-table/snli-k1-s*

FOLDER holds breaking_nli/test.jsonl.gz (Glockner et al., ACL 2018) and cad_nli/test.jsonl.gz
(Kaushik et al., ICLR 2020), whose revised premises and hypotheses become records of their own. Each
run is a folder of ``saledit fit``; what its own training saw is left out of the test.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from table import COLUMNS, averages

from saledit.files import write_jsonl
from saledit.report import Ui, quiet_libraries
from saledit.run import test


def revised(path: Path) -> Iterator[Mapping[str, Any]]:
    """Each record of CAD and its revisions, which change the label."""
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        for line in stream:
            row = json.loads(line)
            lists = [row.pop(f"revised_{side}", []) for side in ("premises", "hypotheses")]
            yield row
            for i, other in enumerate(other for revisions in lists for other in revisions):
                yield {"id": f"{row['id']}-{i}", **other}


def main() -> None:
    """Test the runs on both sets and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder with one folder a set")
    parser.add_argument("--runs", nargs="+", required=True, help="runs of one configuration")
    parser.add_argument("--set", nargs="*", default=[], help="further key=value overrides")
    args = parser.parse_args()
    quiet_libraries()
    data = Path(args.data)
    flat = Path(args.runs[0]).parent / "cad_nli-revised.jsonl"
    write_jsonl(flat, list(revised(data / "cad_nli" / "test.jsonl.gz")))
    files = {"Breaking NLI": data / "breaking_nli" / "test.jsonl.gz", "CAD": flat}
    print("| set | failures | k | runs | " + " | ".join(COLUMNS) + " |\n|" + "---|" * 9)
    with Ui() as ui:
        for name, file in files.items():
            found = [test(run, [f"data.test={file}", *args.set], ui) for run in args.runs]
            k, n = found[0]["schedule"]["batch_size"], found[0]["counts"]["fail"]
            bare = found[0]["unedited"]
            before = " | ".join(f"{bare[c]:.3f}" for c in COLUMNS[:3])
            print(f"| {name} | {n} | unedited | | {before} | 0 | 0 |")
            print(f"| {name} | {n} | {k} | {len(found)} | " + " | ".join(averages(found)) + " |")


if __name__ == "__main__":
    main()
