"""The web application: `uvicorn --factory orders_service.main:create_app`."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI

from orders_service.api import add_error_handlers, router
from orders_service.settings import Settings
from orders_service.wiring import open_parts
from orders_service.workers import Workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from orders_service.outside import Outside


def create_app(settings: Settings | None = None, outside: Outside | None = None) -> FastAPI:
    """Make the application. It touches no database before it is started.

    Args:
        settings: of the environment unless given.
        outside: other people's services, the stand-ins unless given.
    """
    chosen = settings or Settings.from_environment()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        """Refuse to start on a database that is not migrated; let the work in the background end before the engine."""
        async with AsyncExitStack() as stack:
            app.state.parts = parts = await stack.enter_async_context(open_parts(chosen, outside))
            app.state.workers = await stack.enter_async_context(Workers(parts)) if chosen.with_workers else None
            yield

    app = FastAPI(title="Orders", lifespan=lifespan)
    app.include_router(router)
    add_error_handlers(app)
    return app
