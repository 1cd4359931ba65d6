"""What BOINC clients ask of their account manager; one of ours never gets an error, for it would fall silent."""

import asyncio
from uuid import UUID

import structlog
from fastapi import APIRouter, Depends, Request, Response

from libs.boinc.manager import (
    ManagerRequest,
    NoRequest,
    parse_request,
    render_config,
    render_error,
    render_reply,
)
from libs.common.auth import public
from libs.common.errors import not_found
from services.contribution.api.door import Door, HasDoor
from services.contribution.settings import Manager
from services.contribution.usecases import managing

log = structlog.get_logger(__name__)

ANSWER_S = 5.0
"""A client waits longer; whoever waits for our database does not help it."""
_IN_A_THREAD = 64 * 1024
_XML = "text/xml; charset=us-ascii"
_BAD_PASSWORD, _BAD_XML = -206, -112

boinc = APIRouter(prefix="/boinc", tags=["boinc"], dependencies=[Depends(public)])


@boinc.get("/get_project_config.php", response_class=Response)
async def read_config(door: HasDoor) -> Response:
    """What a person's BOINC Manager asks before it attaches; 404 where this installation is no account manager."""
    return Response(render_config(_manager(door).name), media_type=_XML)


@boinc.post("/rpc.php", response_class=Response)
async def contact(request: Request, door: HasDoor) -> Response:
    """One contact of one client, in BOINC's own XML whatever its content type says."""
    manager = _manager(door)
    body = await request.body()
    try:
        asked = (
            await asyncio.to_thread(parse_request, body) if len(body) > _IN_A_THREAD else parse_request(body)
        )
    except NoRequest as error:
        door.contacts.ended.labels("no request").inc()
        return Response(render_error(_BAD_XML, str(error)), media_type=_XML)
    return Response(await _answer(door, manager, asked), media_type=_XML)


async def _answer(door: Door, manager: Manager, asked: ManagerRequest) -> bytes:
    try:
        async with asyncio.timeout(ANSWER_S), door.database.transaction() as session:
            reply = await managing.answer(session, manager, door.vault, asked, door.clock.now())
            said = render_reply(reply)
        end = "answered"
    except managing.Stranger as stranger:
        said, end = render_error(_BAD_PASSWORD, "This token is not known here."), _tell(stranger.machine_id)
    except Exception as error:
        # The text of a database's error may quote what was written.
        log.error("boinc.contact_failed", error=type(error).__name__)
        said, end = render_reply(managing.change_nothing(manager, asked)), "trouble"
    door.contacts.ended.labels(end).inc()
    return said


def _tell(machine_id: UUID | None) -> str:
    if machine_id is None:
        return "stranger"
    log.warning("boinc.spent_token_used", machine=str(machine_id))
    return "spent token"


def _manager(door: Door) -> Manager:
    if door.manager is None:
        raise not_found("account manager")
    return door.manager
