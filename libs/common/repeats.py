"""Idempotency keys: a POST that is sent again makes nothing twice and has the answer of the first, for a day."""

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, TypeVar
from uuid import UUID

from fastapi import Depends, FastAPI, Header, Request, Response
from pydantic import BaseModel
from sqlalchemy import delete, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from starlette.responses import JSONResponse

from libs.common.auth import Principal
from libs.common.db import Database, Session
from libs.common.errors import Problem, conflict, invalid
from libs.common.secrets import Unsealable, Vault
from libs.common.settings import Settings
from libs.common.tables import answered_request

KEPT_FOR = timedelta(hours=24)
HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
_FORGET_AT_ONCE = 100
_LOCK_NOT_AVAILABLE = "55P03"
_KEPT_HEADERS = ("location", "etag")
Shown = TypeVar("Shown", bound=BaseModel)


class Replayed(Exception):
    """The request was answered before; this is the answer. Whatever was begun is rolled back."""

    def __init__(self, response: Response) -> None:
        super().__init__("answered before")
        self.response = response


@dataclass(slots=True)
class Once:
    """One request that creates; without a key it is a plain one. A refusal is not kept: it is tried again."""

    key: str | None
    digest: str
    """Of all that was sent: the same key with anything else is a mistake."""
    request: Request
    response: Response
    answer: dict[str, Any] | None = None

    async def look(self, session: Session) -> None:
        """Answer now if it was answered before; where a cloud is asked before the transaction that writes."""
        if self.key is not None:
            await self._replay(session)

    @asynccontextmanager
    async def transaction(self, database: Database) -> AsyncIterator[Session]:
        """The transaction that creates: key, answer and rows commit together. A twin waits for its end, or 409.

        What is created must be shown by `answers` before the block ends.
        """
        async with database.transaction() as session:
            if self.key is None:
                yield session
                return
            await self._claim(session)
            yield session
            if self.answer is None:
                raise RuntimeError("nothing was answered")
            kept = json.dumps({"digest": self.digest, **self.answer})
            values = {"sealed": self._vault().seal(kept, self._context())}
            await session.execute(update(answered_request).where(self._is_ours()).values(**values))

    def answers(self, shown: Shown, status: int = 201) -> Shown:
        """Keep the answer, with what the response's headers say by now; gives it back."""
        headers = {name: text for name, text in self.response.headers.items() if name in _KEPT_HEADERS}
        self.answer = {"status": status, "headers": headers, "body": shown.model_dump(mode="json")}
        return shown

    async def _claim(self, session: Session) -> None:
        await _forget(session)
        await session.execute(delete(answered_request).where(self._is_ours(), _is_old()))
        row = insert(answered_request).values(user_id=self._user_id(), key=self.key, sealed="")
        try:
            claimed = await session.execute(row.on_conflict_do_nothing().returning(answered_request.c.key))
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
                raise
            raise _refuse_twin() from None
        if claimed.first() is None:
            await self._replay(session)
            raise _refuse_twin()

    async def _replay(self, session: Session) -> None:
        found = select(answered_request.c.sealed).where(self._is_ours(), ~_is_old())
        sealed = (await session.execute(found)).scalar_one_or_none()
        if sealed is None:
            return
        try:
            kept = json.loads(self._vault().open(sealed, self._context()))
        except Unsealable:
            detail = "What was answered to this key cannot be read any more."
            raise conflict(detail, "Look whether it was made; else use a new key.", HEADER) from None
        if kept["digest"] != self.digest:
            raise _refuse_other()
        raise Replayed(
            JSONResponse(kept["body"], kept["status"], headers={**kept["headers"], REPLAYED: "true"})
        )

    def _is_ours(self) -> Any:
        return (answered_request.c.user_id == self._user_id()) & (answered_request.c.key == self.key)

    def _user_id(self) -> UUID:
        principal: Principal = self.request.state.principal
        return principal.user_id

    def _context(self) -> bytes:
        return f"answer/{self._user_id()}/{self.key}".encode()

    def _vault(self) -> Vault:
        settings: Settings = self.request.app.state.settings
        return settings.vault()


async def once_of(
    request: Request,
    response: Response,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=200,
            pattern="^[!-~]+$",
            description="Chosen by the caller: for 24 hours the same key gives the same answer, made once.",
        ),
    ] = None,
) -> Once:
    """The dependency of a route that creates; it must name its principal too."""
    address = f"{request.method} {request.url.path}?{request.url.query}\n".encode()
    digest = hashlib.sha256(address + await request.body()).hexdigest() if idempotency_key else ""
    return Once(idempotency_key, digest, request, response)


HasOnce = Annotated[Once, Depends(once_of)]


def install_replay(app: FastAPI, settings: Settings) -> None:
    """Let the app's routes depend on `HasOnce`. An answer may hold a token's text, so it is kept sealed."""
    app.state.settings = settings

    async def on_replayed(_request: Request, error: Exception) -> Response:
        assert isinstance(error, Replayed)
        return error.response

    app.add_exception_handler(Replayed, on_replayed)


def _refuse_other() -> Problem:
    return invalid(HEADER, "This key was sent with another request.", "Choose a new key for each request.")


def _refuse_twin() -> Problem:
    detail = "A request with this key is being worked on."
    return conflict(detail, "Send it again in a moment.", HEADER)


def _is_old() -> Any:
    return answered_request.c.at < func.clock_timestamp() - KEPT_FOR


async def _forget(session: Session) -> None:
    own = (answered_request.c.user_id, answered_request.c.key)
    old = select(*own).where(_is_old()).limit(_FORGET_AT_ONCE).with_for_update(skip_locked=True)
    await session.execute(delete(answered_request).where(tuple_(*own).in_(old)))
