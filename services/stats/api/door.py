"""What a request needs of the service, and who may send it."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from libs.common.auth import Principal, Role, allow
from libs.common.clock import Clock
from libs.common.db import Database
from libs.common.wake import Wake


@dataclass(frozen=True, slots=True)
class Door:
    """On the app since composition."""

    database: Database
    clock: Clock
    replay: Wake
    """Of the beat that runs backtests."""


def door_of(request: Request) -> Door:
    """The door of the app that was asked."""
    door: Door = request.app.state.door
    return door


Viewer = Annotated[Principal, Depends(allow(Role.VIEWER))]
Operator = Annotated[Principal, Depends(allow(Role.OPERATOR))]
HasDoor = Annotated[Door, Depends(door_of)]
