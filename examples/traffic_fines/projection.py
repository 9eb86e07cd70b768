"""What each event does to its case's row."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias

from read_models import fines

from cqrs_ddd_advanced_core.projections import Projection

if TYPE_CHECKING:
    from cqrs_ddd_advanced_core import StoredEvent

Row: TypeAlias = dict[str, Any]

_NEW = {"fine_total": Decimal(0), "expense": Decimal(0), "paid": Decimal(0), "status": "open"}
_STATUS_AFTER = {
    "InsertDateAppealToPrefecture": "appealed",
    "SendAppealToPrefecture": "appealed",
    "AppealToJudge": "appealed",
    "NotifyResultAppealToOffender": "open",
    "SendForCreditCollection": "in collection",
}


fines_by_case = Projection("fines", fines, aggregate_types=["Fine"])


@fines_by_case.fold("*")
def fold(row: Row | None, event: StoredEvent) -> Row:
    """Return the row of a case as it is after the event; the row given stays as it is.

    fine_total is what is due without expenses: the fine, until a penalty takes its place. expense and paid add up.
    _version is the case's version, and so the number of its events.

    Args:
        row: as it was after the case's previous event; None before its first.
        event: the case's next, with version and position.
    """
    new = {"case_id": event.aggregate_id, **(row or _NEW)}
    match event.event_type:
        case "CreateFine" | "AddPenalty":
            new["fine_total"] = Decimal(event.payload["amount"])
        case "SendFine":
            new["expense"] += Decimal(event.payload["expense"])
        case "Payment":
            new["paid"] += Decimal(event.payload["payment_amount"])
    return new | {
        "last_activity": event.event_type,
        "last_timestamp": event.occurred_at,
        "status": _status(new, event.event_type),
        "_version": event.version,
    }


def _status(row: Row, event_type: str) -> str:
    """Return where the case stands.

    Paid is paid, whatever else happened: fine and expenses are covered. Otherwise a case in collection stays there
    (appeals are recorded late at times), and the others are where the last event brought them.
    """
    if row["paid"] >= row["fine_total"] + row["expense"]:
        return "paid"
    if row["status"] == "in collection":
        return "in collection"
    before = "open" if row["status"] == "paid" else row["status"]
    return _STATUS_AFTER.get(event_type, before)
