"""Compare a run with an earlier one: by ratios, as the machine may have been faster or slower as a whole."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.measuring import Result
from benchmarks.targets import others
from benchmarks.workload import LIBRARY, RAW

RESULTS = Path(__file__).parent / "results" / "latest.json"
NOISE = 0.05  # a change of less is left unmarked


def read(path: Path) -> dict[tuple[str, str], Result]:
    """Return the results in a file, by database and workload."""
    results = [Result.from_dict(each) for each in json.loads(path.read_text())["results"]]
    return {(result.database, result.name): result for result in results}


def changes(earlier: dict[tuple[str, str], Result], later: dict[tuple[str, str], Result]) -> list[str]:
    """Return a line for each workload: its ratio to every other side, before and after."""
    lines = []
    for key, result in later.items():
        if key not in earlier:
            lines.append(f"{key[0]:<11}{key[1]:<62} new")
            continue
        for side in (RAW, *others(result)):
            before, after = earlier[key].times(side), result.times(side)
            if before is not None and after is not None:
                change = after / before - 1
                mark = "" if abs(change) < NOISE else "  slower" if change > 0 else "  faster"
                lines.append(
                    f"{key[0]:<11}{key[1]:<62}{LIBRARY} / {side:<14}{before:>7.2f} -> {after:.2f} ({change:+.0%}){mark}"
                )
    lines += [f"{key[0]:<11}{key[1]:<62} gone" for key in earlier if key not in later]
    return lines


def main() -> None:
    """Run with command line arguments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("earlier", type=Path, help="the JSON of an earlier run")
    parser.add_argument("later", type=Path, nargs="?", default=RESULTS, help="%(default)s")
    given = parser.parse_args()
    print(*changes(read(given.earlier), read(given.later)), sep="\n")


if __name__ == "__main__":
    main()
