"""What every route of identity works with."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from libs.common.auth import LIFETIME, Principal, Role, Signer, Verifier, allow
from libs.common.clock import Clock
from libs.common.db import Database
from services.identity.domain import MAX_PASSWORD, NAME
from services.identity.models import User
from services.identity.usecases.auditing import By
from services.identity.usecases.passwords import Passwords


@dataclass(frozen=True, slots=True)
class Door:
    """Given to the app by `build`, in `app.state.door`."""

    database: Database
    clock: Clock
    signer: Signer
    verifier: Verifier
    passwords: Passwords
    address: str | None = None
    """Where the request comes from."""

    def now(self) -> datetime:
        """The present on this service's clock."""
        return self.clock.now()

    def by(self, caller: Principal | User | None) -> By:
        """Who does it, for the audit."""
        if caller is None:
            return By(address=self.address)
        user_id = caller.id if isinstance(caller, User) else caller.user_id
        return By(user_id, caller.name, self.address)

    def void(self, token_ids: Iterable[UUID]) -> None:
        """Refuse these in this process at once; the others hear of it by event."""
        self.verifier.revocations.load(token_ids)


def _door(request: Request) -> Door:
    door: Door = request.app.state.door
    return replace(door, address=request.client.host[:64] if request.client else None)


HasDoor = Annotated[Door, Depends(_door)]
Anyone = Annotated[Principal, Depends(allow(Role.VIEWER, Role.SERVICE))]
"""Whoever has an access token."""
Admin = Annotated[Principal, Depends(allow(Role.ADMIN))]

Name = Annotated[
    str, Field(pattern=f"^{NAME.pattern}$", max_length=63, description="Lower case, digits, . _ @ -")
]
Password = Annotated[str, Field(max_length=MAX_PASSWORD)]


class Body(BaseModel):
    """A request's body: unknown fields are refused, and a repr shows nothing of it."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    def __repr_args__(self) -> list[tuple[str | None, object]]:
        return []


class AccessOut(BaseModel):
    """A short-lived access token, sent as `Authorization: Bearer ...`."""

    access_token: str = Field(repr=False)
    token_type: str = "Bearer"
    expires_in: int = int(LIFETIME.total_seconds())
