"""Many jobs in one statement, as if added one by one, but for those that something stands in the way of."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from cqrs_ddd_advanced_core.background_jobs.entity import JobStatus
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyBackgroundJobRepository
from tests.advanced.jobs.conftest import LEASE, Import, Report, ids

S = JobStatus


async def test_ten_thousand_jobs_are_one_statement(engine, jobs):
    """All in the queue, in the order given."""
    made = [Import(path=f"{number}.csv") for number in range(10_000)]
    inserts = []
    sa.event.listen(
        engine.sync_engine, "before_cursor_execute", lambda _c, _u, text, *_: inserts.append(text[:6]) if text else None
    )
    assert await jobs.enqueue_many(made) == ids(made)
    assert inserts.count("INSERT") == 1
    assert (await jobs.count_by_status())[S.PENDING] == 10_000
    assert ids(await jobs.claim(10, worker_id="w", lease=LEASE)) == ids(made)[:10]


async def test_what_is_enqueued_comes_back_whole(jobs):
    """As if it had been added: every field, times in any zone, delays from when they are saved."""
    zone = timezone(timedelta(hours=2))
    full = Import(
        path="é'\"\\.csv", last_line=2, queue="q", priority=3, run_at=datetime(2030, 1, 1, tzinfo=zone), unique_key="u",
        correlation_id="c", total_items=2**40, processed_items=1, max_retries=9, result="text",
    )  # fmt: skip
    put_off = Import()
    put_off.mark_for_retry(timedelta(hours=1))
    plain = Import()
    assert await jobs.enqueue_many([full, put_off, plain]) == [full.id, put_off.id, plain.id]
    for job in (full, put_off, plain):
        assert await jobs.get(job.id) == job
    assert timedelta(minutes=59) < put_off.run_at - datetime.now(UTC) < timedelta(minutes=61)
    assert ids(await jobs.claim(9, worker_id="w", lease=LEASE)) == [plain.id]
    full.mark_as_running()
    await jobs.add(full)  # it is a stored one now
    assert await jobs.enqueue_many([]) == []


async def test_jobs_that_are_there_are_left_out(jobs, reports):
    """By id, or by the key of a live job, in the table or earlier in the batch; nothing is overwritten."""
    await jobs.add(Import(id="old", path="old.csv"))
    await jobs.add(Import(id="live", unique_key="k1"))
    await jobs.add(Import(id="over", unique_key="k2", status=S.FAILED))
    await reports.add(Report(id="other", unique_key="k3"))
    batch = [
        Import(id="old"),
        Import(id="z", unique_key="k3"),
        Import(id="a", unique_key="k1"),
        Import(id="b", unique_key="k2"),
        Import(id="c", unique_key="k3"),
        Import(id="d"),
    ]
    assert await jobs.enqueue_many(batch) == ["z", "b", "d"]
    assert (await jobs.get("old")).path == "old.csv"
    assert not await jobs.exists("a")
    assert not await jobs.exists("c")
    assert await jobs.enqueue_many([Import(id=name) for name in ("z", "e")]) == ["e"]


async def test_batches_that_share_keys_do_not_block_each_other(jobs):
    """Ten at once, each with the same keys in another order: each key is enqueued once, and none fails."""
    keys = [f"k{number}" for number in range(40)]
    orders = [keys[number:] + keys[:number] for number in range(10)]
    batches = [[Import(unique_key=key) for key in order] for order in orders]
    enqueued = await asyncio.gather(*(jobs.enqueue_many(batch) for batch in batches))
    assert sum(map(len, enqueued)) == 40
    assert (await jobs.count_by_status())[S.PENDING] == 40


async def test_what_is_rolled_back_can_be_enqueued_again(session_factory, jobs):
    """The objects are new ones again."""
    job = Import(id="j1")
    job.mark_for_retry(timedelta(hours=1))
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        assert await jobs.enqueue_many([job], uow=uow) == ["j1"]
        await uow.rollback()
    assert (job.delay, job.run_at) == (timedelta(hours=1), None)
    assert await jobs.enqueue_many([job]) == ["j1"]


async def test_a_batch_that_makes_no_sense_is_refused(jobs):
    """Nothing of it is written."""
    stored = await jobs.add(Import(id="j1"))
    for job in (stored, Import(id="j2", status=S.RUNNING)):
        with pytest.raises(ValueError, match=f"job '{job.id}' is stored already, or not PENDING"):
            await jobs.enqueue_many([Import(), job])
    with pytest.raises(ValueError, match="job 'j3' is in the batch twice"):
        await jobs.enqueue_many([Import(id="j3"), Import(id="j3")])
    with pytest.raises(TypeError, match="stores Import, not Report"):
        await jobs.enqueue_many([Import(), Report()])
    assert ids(await jobs.list()) == ["j1"]


async def test_a_delay_of_nothing(jobs):
    """It is a delay like any other, for one job and for many."""
    for number, count in enumerate((1, 3)):
        made = [Import(id=f"{number}-{each}") for each in range(count)]
        for job in made:
            job.set_run_at(None, delay=timedelta(0))
        assert await jobs.enqueue_many(made) == [job.id for job in made]
        assert len(await jobs.claim(count, worker_id="w", lease=LEASE)) == count


class Urgent(SQLAlchemyBackgroundJobRepository):
    """A repository with its own way to make rows."""

    def to_model(self, entity):
        model = super().to_model(entity)
        model.priority = 7
        return model


async def test_rows_that_a_subclass_makes(session_factory):
    """Many jobs are stored as the subclass has it, as one is."""
    urgent = Urgent(Import, session_factory=session_factory)
    await urgent.enqueue_many([Import(id=f"many-{each}", last_line=each) for each in range(3)])
    await urgent.add(Import(id="one"))
    assert {job.id: job.priority for job in await urgent.list()} == {"many-0": 7, "many-1": 7, "many-2": 7, "one": 7}
    assert (await urgent.get("many-2")).last_line == 2


LATER = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=timezone(timedelta(hours=15, minutes=59)))
ODD = [
    {},
    {"run_at": LATER},
    {"run_at": datetime.max.replace(tzinfo=UTC)},
    {"priority": -(2**31) + 1, "total_items": 2**40, "processed_items": 3, "max_retries": 0},
    {"queue": "é\t\\x'\":%(a)s {b}", "correlation_id": "\\N", "path": "\\u0000"},
    {"error": "e\ne", "started_at": LATER, "retry_count": 2, "last_line": 2**70},
]


@pytest.mark.parametrize("fields", ODD, ids=map(str, range(len(ODD))))
async def test_one_by_itself_is_stored_as_one_of_several(jobs, row_of, fields):
    """Column by column, whatever is in it."""
    await jobs.enqueue_many([Import(id="alone", **fields)])
    await jobs.enqueue_many([Import(id="one of two", **fields), Import(id="other")])
    alone, together = dict(await row_of("alone")), dict(await row_of("one of two"))
    for row in (alone, together):
        del row["id"], row["created_at"], row["updated_at"]
        row["state"].pop("created_at")
        row["waits"] = (row.pop("due_at") - datetime.now(UTC)).total_seconds() > 60
    assert alone == together


@pytest.mark.parametrize(
    "fields", [{"path": "a\0b"}, {"path": "\ud800"}, {"correlation_id": "a\0b"}, {"queue": "\ud800"}]
)
async def test_one_by_itself_is_refused_as_one_of_several(jobs, fields):
    """With the same words."""
    said = []
    for others in ([], [Import()]):
        with pytest.raises(ValueError) as caught:
            await jobs.enqueue_many([Import(**fields), *others])
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert sum((await jobs.count_by_status()).values()) == 0


class Wide(Import):
    unique_key: str | None = None


@pytest.mark.parametrize("others", [0, 1])
async def test_nothing_is_cut_off(session_factory, others):
    """What is too long for its column is refused, where the database knows how long that is, and never shortened."""
    wide = SQLAlchemyBackgroundJobRepository(Wide, session_factory=session_factory)
    keys = ["k" * 255 + end for end in ("a", "b")]
    try:
        assert len(await wide.enqueue_many([Wide(unique_key=key) for key in keys[: others + 1]])) == others + 1
    except DBAPIError as error:
        assert "too long" in str(error)  # noqa: PT017  (SQLite takes it)
        assert sum((await wide.count_by_status()).values()) == 0
    else:
        assert {job.unique_key for job in await wide.list()} == set(keys[: others + 1])


@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("priority", 1.5),
        ("priority", 2**31),
        ("total_items", 2**63),
        ("retry_count", "1"),
        ("run_at", LATER.replace(tzinfo=None)),
    ],
)
async def test_what_was_never_checked_is(jobs, others, name, value):
    """Numbers and times of jobs that pydantic has not seen are refused by name."""
    odd = Import.model_construct(**{**dict(Import()), name: value})
    with pytest.raises(ValueError, match=name):
        await jobs.enqueue_many([odd, *(Import() for _ in range(others))])
    assert sum((await jobs.count_by_status()).values()) == 0
