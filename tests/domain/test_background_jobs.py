"""Jobs without a database: transitions, the one counter of attempts, delays and progress."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

import cqrs_ddd_advanced_core
from cqrs_ddd_advanced_core.background_jobs.entity import BaseBackgroundJob, JobStatus
from tests.domain.transitions import check_transition

S = JobStatus
LIVE = {S.PENDING, S.RUNNING}
ACTIONS = {
    "run": (lambda job: job.mark_as_running(), S.RUNNING, {S.PENDING}),
    "complete": (lambda job: job.mark_as_completed(), S.COMPLETED, LIVE | {S.COMPLETED}),
    "retry": (lambda job: job.mark_for_retry(), S.PENDING, LIVE),
    "fail": (lambda job: job.mark_as_failed("why"), S.FAILED, LIVE | {S.FAILED}),
    "cancel": (lambda job: job.cancel("why"), S.CANCELLED, LIVE | {S.CANCELLED}),
}


class Import(BaseBackgroundJob):
    path: str = "a.csv"
    last_line: int = 0


def job(status=S.PENDING, **fields):
    return Import(id="j1", status=status, **fields)


@pytest.mark.parametrize("status", S)
@pytest.mark.parametrize("action", ACTIONS)
def test_each_transition_is_legal_or_refused(status, action):
    """What is refused says from where to where, and has changed nothing."""
    it = job(status, run_at=datetime(2026, 1, 1, tzinfo=UTC))
    check_transition(it, "job 'j1'", ACTIONS[action])
    if status not in ACTIONS[action][2]:
        assert it.delay is None  # which is no field


@pytest.mark.parametrize("action", ["complete", "fail", "cancel"])
def test_a_terminal_status_entered_again_changes_nothing(action):
    """Neither result, error, reason nor the time of the end is lost."""
    do, status, _ = ACTIONS[action]
    ended = datetime(2026, 1, 1, tzinfo=UTC)
    it = job(status, result=1, error="first", cancellation_reason="first", finished_at=ended)
    before = it.model_dump()
    do(it)
    it.mark_as_completed(2) if action == "complete" else None
    assert it.model_dump() == before
    assert it.status.is_terminal


@pytest.mark.parametrize("max_retries", [0, 1, 3])
def test_a_job_runs_at_most_once_more_than_it_is_retried(max_retries):
    """The loop of a worker ends in FAILED with the last error, and the counter where it was."""
    it = job(max_retries=max_retries)
    runs = 0
    while not it.status.is_terminal:
        it.mark_as_running()
        runs += 1
        if it.retry_count < it.max_retries:
            it.mark_for_retry()
        else:
            it.mark_as_failed(f"failure {runs}")
    assert runs == max_retries + 1
    assert (it.status, it.error, it.retry_count) == (S.FAILED, f"failure {runs}", max_retries)
    assert it.started_at <= it.finished_at


def test_completion_keeps_a_result():
    """The one given, or what the job has set itself; an error of an earlier attempt is gone."""
    it = job(S.RUNNING, error="earlier")
    it.mark_as_completed({"lines": 3})
    assert (it.result, it.error) == ({"lines": 3}, None)
    other = job(S.RUNNING, result="own")
    other.mark_as_completed()
    assert other.result == "own"


def test_a_retry_waits_for_a_duration_until_it_is_saved():
    """It is no point in time yet, survives copies and pickling, and ends with the waiting."""
    it = job(S.RUNNING, run_at=datetime(2026, 1, 1, tzinfo=UTC))
    it.mark_for_retry(timedelta(minutes=5))
    assert (it.status, it.retry_count, it.run_at, it.delay) == (S.PENDING, 1, None, timedelta(minutes=5))
    assert pickle.loads(pickle.dumps(it.model_copy())).delay == timedelta(minutes=5)
    it.mark_as_running()
    assert (it.delay, it.retry_count) == (None, 1)
    it.mark_for_retry(timedelta(0))
    it.run_at = datetime(2026, 1, 1, tzinfo=UTC)  # a time that is set afterwards is the later word
    assert (it.delay, it.retry_count) == (None, 2)


def test_delays_grow_exponentially_with_jitter():
    """Doubled each time up to the longest; half of it is left to chance, and none is twice the same."""
    for failures, seconds in enumerate([10, 20, 40, 80]):
        delays = {job(retry_count=failures).next_delay().total_seconds() for _ in range(50)}
        assert seconds / 2 <= min(delays) < max(delays) <= seconds
        assert len(delays) > 40
    assert timedelta(minutes=30) <= job(retry_count=2**31 - 1).next_delay() <= timedelta(hours=1)
    it = job(S.RUNNING)
    it.mark_for_retry()
    assert timedelta(seconds=5) <= it.delay <= timedelta(seconds=10)

    class Eager(BaseBackgroundJob):
        first_delay = timedelta(0)

    assert Eager().next_delay() == timedelta(0)


@pytest.mark.parametrize("delay", [5, timedelta(seconds=-1)])
def test_a_delay_that_makes_no_sense_is_refused(delay):
    """The job is as it was."""
    it = job(S.RUNNING)
    with pytest.raises(ValueError, match="mark_for_retry: delay is a timedelta from 0"):
        it.mark_for_retry(delay)
    assert (it.status, it.retry_count) == (S.RUNNING, 0)


@pytest.mark.parametrize(
    ("processed", "total", "progress"), [(0, 0, 0.0), (5, 0, 0.0), (0, 3, 0.0), (1, 4, 0.25), (4, 4, 1.0), (9, 4, 1.0)]
)
def test_progress_is_a_share(processed, total, progress):
    """Between 0.0 and 1.0, and 0.0 where nobody knows how much there is."""
    assert job(processed_items=processed, total_items=total).progress == progress


def test_an_error_is_kept_as_text():
    """With its class; a text as it is."""
    it, other = job(S.RUNNING), job(S.RUNNING)
    it.mark_as_failed(ValueError("no such file"))
    other.mark_as_failed("no such file")
    assert (it.error, other.error) == ("ValueError: no such file", "no such file")


@pytest.mark.parametrize("name", ["run_at", "created_at", "started_at", "finished_at"])
def test_naive_times_are_refused(name):
    """At construction and afterwards, and the error names the field."""
    naive = datetime(2026, 5, 1)  # noqa: DTZ001
    with pytest.raises(ValueError, match=name):
        job(**{name: naive})
    with pytest.raises(ValueError, match=name):
        setattr(job(), name, naive)


def test_ids_are_uuids_in_the_order_of_their_making():
    """Also when many are made within one millisecond of the clock."""
    made = []
    for _ in range(200):
        made.append(Import().id)
        while Import().id[:18] == made[-1][:18]:  # the clock's next tick, some 250 ns
            pass
    assert made == sorted(made)
    assert {UUID(each).version for each in made} == {7}
    assert len({Import().id for _ in range(10_000)}) == 10_000


def test_a_job_survives_its_journey_through_json():
    """Fields of the subclass included."""
    it = job(total_items=3, result={"a": [1]}, last_line=7, unique_key="a.csv", queue="slow", priority=-5)
    assert Import.model_validate_json(it.model_dump_json()) == it
    assert it.job_type == "Import"
    assert cqrs_ddd_advanced_core.JobStatus is JobStatus
