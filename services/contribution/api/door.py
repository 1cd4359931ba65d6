"""What a request needs of the service."""

from dataclasses import dataclass, field
from typing import Annotated

import structlog
from fastapi import Depends, Request
from prometheus_client import CollectorRegistry, Counter
from pydantic import BaseModel, ConfigDict

from libs.boinc.web import Reach
from libs.common.clock import Clock
from libs.common.db import Database
from libs.common.secrets import Vault
from libs.common.wake import Wake
from services.contribution.api.limits import MOST_KNOWN, Limits, Verdict
from services.contribution.settings import Manager
from services.contribution.usecases import tokens

log = structlog.get_logger(__name__)


class Body(BaseModel):
    """A request's body: nothing beyond what is named."""

    model_config = ConfigDict(extra="forbid")


class Contacts:
    """How contacts of BOINC clients end."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.ended = Counter(
            "tides_boinc_contacts", "Contacts of BOINC clients by their end.", ("end",), registry=registry
        )


@dataclass(frozen=True, slots=True)
class Door:
    """On the app since composition."""

    database: Database
    clock: Clock
    vault: Vault
    manager: Manager | None
    """None: this installation is no account manager."""
    contacts: Contacts
    visits_due: Wake
    """Wakes who asks projects."""
    reach: Reach
    """Where projects are asked."""
    expects_agents: bool = False
    """Whether machines are made with an agent that reports here."""
    limits: Limits = field(default_factory=Limits)


def door_of(request: Request) -> Door:
    """The door of the app that was asked."""
    door: Door = request.app.state.door
    return door


HasDoor = Annotated[Door, Depends(door_of)]


async def may_come(door: Door, token: str, address: str) -> Verdict:
    """Whether whoever has this token may come from there now.

    Where strangers have used up the address it is read, now and then, whose tokens are known: a machine of ours that
    comes for the first time since this process began is not held back for them.
    """
    verdict = door.limits.ask(token, address)
    if not verdict.wait_s or verdict.is_known or not door.limits.may_learn():
        return verdict
    try:
        async with door.database.transaction() as session:
            door.limits.learn(await tokens.known_hashes(session, MOST_KNOWN))
    except Exception as error:
        # Without the database nobody can be let in either.
        log.error("limits.not_learnt", error=type(error).__name__)
        return verdict
    return door.limits.ask(token, address)


def address_of(request: Request) -> str:
    """Where somebody comes from; behind a proxy, where the proxy says."""
    return request.client.host if request.client else ""
