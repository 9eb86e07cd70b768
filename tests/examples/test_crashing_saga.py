"""The example whose workers die: what they have left is brought to its end, on both databases."""

from __future__ import annotations

import subprocess
import sys

from tests.support.databases import ROOT

SAGAS = """\
The sagas:
   Alice: COMPLETED
      pay: COMPLETED, begun 2 times
      book_room: COMPLETED, begun 1 times
      confirm: COMPLETED, begun 1 times
   Bob: CANCELLED, as step 'confirm' failed: PermissionError: Bob is not welcome here
      pay: COMPENSATED, begun 1 times
      book_room: COMPENSATED, begun 1 times
      confirm: FAILED, begun 1 times
"""
DONE = {
    "charge Alice 100 (asked for 2 times)",
    "room for Alice (asked for 1 times)",
    "confirmation of: room for Alice (asked for 1 times)",
    "charge Bob 100 (asked for 1 times)",
    "room for Bob (asked for 1 times)",
    "cancellation of: room for Bob (asked for 1 times)",
    "refund of: charge Bob 100 (asked for 2 times)",
}


def test_what_dead_workers_leave_is_brought_to_its_end(empty_database, tmp_path):
    """Two crashes at the worst moments; each effect is there once, and both sagas have ended."""
    command = [sys.executable, "examples/crashing_saga/main.py", "--books", str(tmp_path / "books.db")]
    done = subprocess.run(
        [*command, "--url", empty_database.url], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert SAGAS in done.stdout
    assert {line.strip() for line in done.stdout.splitlines()[-len(DONE) :]} == DONE
    assert done.stdout.count("and the power fails") == 2
