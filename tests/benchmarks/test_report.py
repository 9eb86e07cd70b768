"""What a run is told as: table, drawing, JSON and the comparison of two of them."""

from __future__ import annotations

import asyncio
import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.bench import opened
from benchmarks.compare import changes, read
from benchmarks.families import FAMILIES
from benchmarks.measuring import Result, measure
from benchmarks.plot import as_svg
from benchmarks.report import FIGURES, GROWTH, as_markdown, as_text, write_page
from benchmarks.running import Options
from benchmarks.targets import TARGETS, Target
from benchmarks.workload import Side, Workload

FACTS = {"cpu": "a fast one", "fsync": "on", "pinned": "Nothing is pinned.", "run": "Once."}
NAME = "append 1 event, own transaction"


def a_result(library=3.0, raw=2.0, **others):
    seconds = {
        "library": [library, library, library * 2],
        "raw": [raw] * 3,
        **{name: [t] for name, t in others.items()},
    }
    return Result("append", "postgresql", NAME, 1_000_000, "one INSERT", seconds)


def test_figures_are_medians_of_one_operation():
    """The ratio is of the medians, the difference in microseconds, the spread from the shortest to the longest run."""
    result = a_result()
    assert (result.microseconds("library"), result.spread("library")) == (3.0, (3.0, 6.0))
    assert (result.times(), result.added) == (1.5, 1.0)
    assert result.times("pgqueuer") is None


def test_a_target_is_judged_by_ratio_difference_and_lead():
    """Each limit is met, missed, or not measured where the other side is missing."""
    target = Target(1.4, 1.0, {"eventsourcing": 2, "pgqueuer": 2})
    judged = target.judged(a_result(eventsourcing=6.0))
    assert [kept for _, kept in judged] == [False, True, True, None]


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_every_target_is_of_a_workload(kind, databases):
    """No target is left behind by a workload that has been renamed."""

    async def names(family, database):
        async with opened(database, smaller=1000, log=None, peers=False) as bench:
            return [workload.name for workload in await family.workloads(bench)]

    found = set()
    for family in FAMILIES:
        if kind in family.databases:
            with databases.fresh(kind) as database:
                found.update(asyncio.run(names(family, database)))
    assert TARGETS[kind].keys() <= found


def test_the_page_keeps_what_stands_around_the_figures(tmp_path):
    """Writing the figures again replaces those that were there, and nothing else."""
    page, (begin, end) = tmp_path / "performance.md", FIGURES
    page.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    for library in (3.0, 2.5):
        write_page(page, as_markdown(FACTS, [a_result(library)]))
    text = page.read_text()
    assert text.startswith(f"before\n{begin}\n")
    assert text.endswith(f"{end}\nafter\n")
    assert text.count("| append 1 event, own transaction | 2.5 (2.5..5.0) | 2.0 (2.0..2.0) | 1.25 | +0.5 |") == 1
    assert "3.0" not in text
    assert "old" not in text


def test_the_page_of_the_project_has_its_markers():
    """docs/performance.md can be written to, and shows the drawing."""
    text = (Path(__file__).parents[2] / "docs" / "performance.md").read_text()
    places = [text.index(marker) for marker in (*GROWTH, *FIGURES)]
    assert places == sorted(places)
    assert "(performance.svg)" in text


def test_the_drawing_is_well_formed():
    """The SVG is XML with a bar for each workload that has a raw side."""
    without_raw = replace(a_result(), name="JobWorker <1>", seconds={"library": [1.0], "pgqueuer": [2.0]})
    drawing = ET.fromstring(as_svg([a_result(), without_raw]))
    bars = [each for each in drawing.iter() if each.get("class") == "bar"]
    assert len(bars) == 1


def test_runs_are_compared_by_their_ratios(tmp_path):
    """A machine that is slower as a whole changes nothing; a slower library does."""
    path = tmp_path / "earlier.json"
    path.write_text(json.dumps({"facts": FACTS, "results": [a_result(eventsourcing=6.0).to_dict()]}))
    earlier = read(path)
    slower_machine = {("postgresql", NAME): a_result(6.0, 4.0, eventsourcing=12.0)}
    assert all("(+0%)" in line for line in changes(earlier, slower_machine))
    slower_library = {("postgresql", NAME): a_result(6.0, 2.0, eventsourcing=6.0)}
    assert ["slower" in line for line in changes(earlier, slower_library)] == [True, True]
    assert changes({}, slower_library) == [f"postgresql {NAME:<62} new"]


async def test_sides_take_turns_and_the_first_repetition_is_not_counted():
    """Each repetition begins with another side; what is prepared comes before each run."""
    done = []

    def side(name):
        async def run(repetition):
            done.append((name, repetition))

        async def prepare(repetition):
            done.append((f"before {name}", repetition))

        return Side(name, run, prepare)

    workload = Workload("work", 1, (side("library"), side("raw")), "")
    short = Workload("short", 1, (side("once"),), "", at_most=1)
    times = await measure([workload, short], 2)
    assert {name: len(each) for name, each in times["work"].items()} == {"library": 2, "raw": 2}
    assert len(times["short"]["once"]) == 1
    runs = [name for name, _ in done if not name.startswith("before") and name != "once"]
    assert runs == ["library", "raw", "raw", "library", "library", "raw"]
    assert done[:2] == [("before library", 0), ("library", 0)]


def test_options_choose_families_and_workloads():
    """A family is chosen by how its name begins, a workload by a part of its name."""
    options = Options(only=("append", "bulk/again"))
    assert options.wants("append", NAME)
    assert not options.wants("concurrent-append")
    assert options.wants("bulk")
    assert options.wants("bulk", "bulk_upsert 1,000 documents, again")
    assert not options.wants("bulk", "bulk_upsert 1,000 documents, fresh")
    assert Options().wants("sagas", "anything")


def test_the_terminal_shows_ratio_and_target():
    """A line has the ratio, the difference, the lead over others, and whether the target is met."""
    text = as_text([a_result(eventsourcing=6.0)])
    assert "ratio 1.50, +1 us, 2.00 times eventsourcing" in text
    assert "≤ 1.60 met; 1.3 times eventsourcing met" in text
