"""What the stores promise, whichever database is behind them. The docstrings are the contract.

For every method: with an open unit of work it joins that transaction and does not commit it; otherwise it works in a
transaction of its own, committed before it returns. Conflicts leave a joined transaction usable. Bad input is a
ValueError that names it, and changes nothing.
"""

from cqrs_ddd_advanced_core.ports.events import IEventStore
from cqrs_ddd_advanced_core.ports.jobs import IBackgroundJobRepository
from cqrs_ddd_advanced_core.ports.projections import IProjectionPositionStore, IProjectionStore
from cqrs_ddd_advanced_core.ports.sagas import ISagaRepository
from cqrs_ddd_advanced_core.ports.snapshots import ISnapshotStore

__all__ = [
    "IBackgroundJobRepository",
    "IEventStore",
    "IProjectionPositionStore",
    "IProjectionStore",
    "ISagaRepository",
    "ISnapshotStore",
]
