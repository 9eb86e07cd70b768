"""The web interface: routes that translate between HTTP and the use cases, and decide nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator  # noqa: TC003  (FastAPI reads annotations at run time)
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, cast

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Query, Request, Response, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.exceptions import (
    OptimisticConcurrencyError,
    PersistenceError,
    ProjectionPausedError,
    ProjectionWaitError,
)
from orders_service.domain import Draft, Line, NotAllowedError, Status, Text
from orders_service.orders import KeyReusedError, Receipt, UnknownOrderError
from orders_service.wiring import Parts

if TYPE_CHECKING:
    from orders_service.workers import Workers

READ_YOUR_WRITES_SECONDS = 5.0

_STATUS_OF: dict[type[Exception], int] = {
    UnknownOrderError: status.HTTP_404_NOT_FOUND,
    NotAllowedError: status.HTTP_409_CONFLICT,
    OptimisticConcurrencyError: status.HTTP_409_CONFLICT,
    KeyReusedError: 422,
    ProjectionWaitError: status.HTTP_503_SERVICE_UNAVAILABLE,
    ProjectionPausedError: status.HTTP_503_SERVICE_UNAVAILABLE,
}

router = APIRouter()


class NewAddress(BaseModel):
    """A change of address, by a client that has seen this version of the order."""

    address: Text = Field(max_length=500)
    version: int = Field(ge=1)


class OrderView(BaseModel):
    """An order as the read model has it."""

    order_id: str
    status: Status
    email: str
    address: str
    lines: list[Line]
    total: Decimal
    reason: str | None
    placed_at: datetime
    version: int = Field(validation_alias="order_version")


def get_parts(request: Request) -> Parts:
    """Return what the lifespan has built."""
    return cast("Parts", request.app.state.parts)


RequestParts = Annotated[Parts, Depends(get_parts)]


async def get_unit_of_work(parts: RequestParts) -> AsyncIterator[SQLAlchemyUnitOfWork]:
    """Open the request's unit of work, which takes no connection before its first statement.

    It is committed when the route returns, or rolled back when it raises.
    """
    async with parts.unit_of_work() as uow:
        yield uow


# scope="function" commits before the answer is sent. By default FastAPI does so after it, and a client would be told
# that something is done which then may fail.
RequestUnitOfWork = Annotated[SQLAlchemyUnitOfWork, Depends(get_unit_of_work, scope="function")]


@router.post("/orders", status_code=status.HTTP_201_CREATED)
async def place_order(
    draft: Draft,
    parts: RequestParts,
    uow: RequestUnitOfWork,
    response: Response,
    idempotency_key: Annotated[str, Header(min_length=1, max_length=255)],
) -> Receipt:
    """Place an order. Repeat the request with the same key when no answer has come: there will be one order."""
    receipt = await parts.orders.place(draft, idempotency_key, uow)
    response.headers["Location"] = f"/orders/{receipt.order_id}?after={receipt.position}"
    return receipt


@router.put("/orders/{order_id}/address")
async def change_address(order_id: str, new: NewAddress, parts: RequestParts, uow: RequestUnitOfWork) -> Receipt:
    """Send an order elsewhere."""
    return await parts.orders.change_address(order_id, new.address, new.version, uow)


@router.get("/orders/{order_id}")
async def show_order(
    order_id: str, parts: RequestParts, after: Annotated[int | None, Query(ge=0, lt=2**63)] = None
) -> OrderView:
    """Show an order; with `after`, as it is once the event at that position is in the read model."""
    if after is not None:
        await parts.positions.wait_for("orders", after, timeout=READ_YOUR_WRITES_SECONDS)
    row = await parts.views.find_one("orders", order_id)
    if row is None:
        raise UnknownOrderError(f"there is no order {order_id}")
    return OrderView.model_validate(row)


@router.get("/orders")
async def list_orders(
    parts: RequestParts,
    status: Status | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> list[OrderView]:
    """List orders, the newest first."""
    wanted: dict[str, Any] = {} if status is None else {"status": status}
    rows = await parts.views.find("orders", wanted, sort=[("placed_at", -1)], limit=limit)
    return [OrderView.model_validate(row) for row in rows]


@router.get("/health")
async def health(request: Request) -> dict[str, str]:
    """Say whether this process is any good, or should be started anew. The database is not asked."""
    workers: Workers | None = request.app.state.workers
    if workers is not None and workers.dead:
        raise HTTPException(status.HTTP_503_SERVICE_UNAVAILABLE, f"no longer running: {', '.join(workers.dead)}")
    return {"status": "ok"}


@router.get("/ready")
async def ready(parts: RequestParts) -> dict[str, str]:
    """Say whether requests can be served: the database is there, and migrated."""
    try:
        await parts.verify()
    except PersistenceError as error:
        raise HTTPException(status.HTTP_503_SERVICE_UNAVAILABLE, str(error)) from error
    except Exception as error:  # drivers raise errors of their own while they connect
        raise HTTPException(status.HTTP_503_SERVICE_UNAVAILABLE, "the database cannot be reached") from error
    return {"status": "ready"}


def add_error_handlers(app: FastAPI) -> None:
    """Give each error that clients can cause its status, with the message as the detail."""

    async def answer(_request: Request, error: Exception) -> JSONResponse:
        code = next(_STATUS_OF[kind] for kind in type(error).__mro__ if kind in _STATUS_OF)
        return JSONResponse({"detail": str(error)}, code)

    async def refuse(_request: Request, error: Exception) -> JSONResponse:
        """Answer as FastAPI does, without the input, which may be secret, or text that cannot be sent back."""
        found = cast("RequestValidationError", error).errors()
        return JSONResponse({"detail": [{name: each[name] for name in ("loc", "msg", "type")} for each in found]}, 422)

    app.add_exception_handler(RequestValidationError, refuse)
    for kind in _STATUS_OF:
        app.add_exception_handler(kind, answer)
