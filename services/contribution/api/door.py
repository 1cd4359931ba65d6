"""What a request needs of the service."""

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from prometheus_client import CollectorRegistry, Counter
from pydantic import BaseModel, ConfigDict

from libs.common.clock import Clock
from libs.common.db import Database
from libs.common.secrets import Vault
from libs.common.wake import Wake
from services.contribution.api.limits import Limits
from services.contribution.settings import Manager


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
    expects_agents: bool = False
    """Whether machines are made with an agent that reports here."""
    limits: Limits = field(default_factory=Limits)


def door_of(request: Request) -> Door:
    """The door of the app that was asked."""
    door: Door = request.app.state.door
    return door


HasDoor = Annotated[Door, Depends(door_of)]


def address_of(request: Request) -> str:
    """Where somebody comes from; behind a proxy, where the proxy says."""
    return request.client.host if request.client else ""
