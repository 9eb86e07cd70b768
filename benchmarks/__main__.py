"""Measure the stores beside the raw drivers and beside their peers, in one interleaved run."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.peers import HOW_TO_INSTALL, missing
from benchmarks.plot import as_svg
from benchmarks.report import as_markdown, as_text, write_page
from benchmarks.running import Options, run

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parents[1] / "docs"


def main() -> None:
    """Run with command line arguments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--only", action="append", default=[], metavar="FAMILY[/PART]",
        help="families that begin so, or of those the workloads with PART in their name; may be repeated",
    )  # fmt: skip
    parser.add_argument("--database", choices=("postgresql", "sqlite"), action="append", help="both without it")
    parser.add_argument("--repetitions", type=int, default=5, help="of each workload, that count (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="a hundredth of the sizes")
    parser.add_argument("--without-peers", action="store_true", help="the library and the drivers only")
    parser.add_argument("--events", type=Path, metavar="PATH", help="a CSV file of the traffic fines log")
    parser.add_argument("--output", type=Path, default=RESULTS / "latest.json", help="%(default)s")
    parser.add_argument("--write-docs", action="store_true", help="put table and drawing into docs/")
    given = parser.parse_args()
    options = Options(
        only=tuple(given.only),
        databases=tuple(given.database or ("postgresql", "sqlite")),
        repetitions=given.repetitions,
        quick=given.quick,
        peers=not given.without_peers,
        log=given.events,
    )
    for name in missing() if options.peers else ():
        print(f"{name} is not installed and left out: {HOW_TO_INSTALL}", file=sys.stderr)
    facts, results = run(options, lambda text: print(text, file=sys.stderr))
    print(*(f"{name}: {value}" for name, value in facts.items()), sep="\n")
    print(as_text(results))
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(
        json.dumps({"facts": facts, "results": [each.to_dict() for each in results]}, indent=1) + "\n"
    )
    if given.write_docs:
        write_page(DOCS / "performance.md", as_markdown(facts, results))
        (DOCS / "performance.svg").write_text(as_svg(results))


if __name__ == "__main__":
    main()
