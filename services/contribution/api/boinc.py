"""What BOINC clients ask of their account manager; one of ours never gets an error, for it would fall silent."""

import asyncio
import re
from uuid import UUID

import structlog
from fastapi import APIRouter, Depends, Request, Response

from libs.boinc.lenient import unescape
from libs.boinc.manager import (
    ManagerRequest,
    NoRequest,
    parse_request,
    render_config,
    render_error,
    render_reply,
)
from libs.common.auth import public
from libs.common.errors import answer, not_found, too_often
from services.contribution.api.door import Door, HasDoor, address_of, may_come
from services.contribution.api.limits import Verdict
from services.contribution.domain import REPEAT_S
from services.contribution.settings import Manager
from services.contribution.usecases import managing

log = structlog.get_logger(__name__)

ANSWER_S = 5.0
"""A client waits longer; whoever waits for our database does not help it."""
_IN_A_THREAD = 64 * 1024
_XML = "text/xml; charset=us-ascii"
_TOKEN = re.compile(rb"<authenticator>\s*([^<>]{0,200}?)\s*</authenticator>")
_TOKEN_WITHIN = 4096
"""A client writes its token first."""
_OPAQUE, _OPAQUE_WITHIN = b"<opaque>", 512
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
    body, address = await request.body(), address_of(request)
    token = _token_in(body)
    if (verdict := await may_come(door, token, address)).wait_s:
        return _later(door, manager, verdict, body)
    try:
        asked = (
            await asyncio.to_thread(parse_request, body) if len(body) > _IN_A_THREAD else parse_request(body)
        )
    except NoRequest as error:
        door.contacts.ended.labels("no request").inc()
        return Response(render_error(_BAD_XML, str(error)), media_type=_XML)
    is_other = asked.authenticator != token  # written as no client does
    if is_other and (verdict := await may_come(door, asked.authenticator, address)).wait_s:
        return _later(door, manager, verdict, body)
    said, is_known = await _answer(door, manager, asked)
    door.limits.note(asked.authenticator, address, known=is_known)
    return Response(said, media_type=_XML)


def _token_in(body: bytes) -> str:
    """The token of a request that nobody has read yet: whose turn it is comes before the work of reading."""
    found = _TOKEN.search(body, 0, _TOKEN_WITHIN)
    return unescape(found[1].decode("utf-8", "replace")) if found else ""


def _opaque_in(body: bytes) -> str:
    """What the client was given to keep, of a request that nobody reads: in time linear in its length."""
    begin = body.find(_OPAQUE) + len(_OPAQUE)
    end = body.find(b"</opaque>", begin, begin + _OPAQUE_WITHIN)
    return body[begin:end].decode("utf-8", "replace").strip() if begin >= len(_OPAQUE) and end > 0 else ""


def _later(door: Door, manager: Manager, verdict: Verdict, body: bytes) -> Response:
    """What is answered to who comes too often.

    An error would silence a client of ours for hours: unless it is known for a stranger, it goes on as it is, and
    comes later. It is handed back what it keeps for us, which it would lose with a reply that has none.
    """
    door.contacts.ended.labels("too often").inc()
    if verdict.is_known is False:
        return answer(too_often(verdict.wait_s))
    return Response(
        render_reply(managing.change_nothing(manager, _opaque_in(body), REPEAT_S)), media_type=_XML
    )


async def _answer(door: Door, manager: Manager, asked: ManagerRequest) -> tuple[bytes, bool | None]:
    """The reply, and whether the token is one of ours; None: nobody can say just now."""
    known: bool | None = None
    try:
        async with asyncio.timeout(ANSWER_S), door.database.transaction() as session:
            reply = await managing.answer(session, manager, door.vault, asked, door.clock.now())
            said = render_reply(reply)
        end, known = "answered", True
    except managing.Stranger as stranger:
        said, end = render_error(_BAD_PASSWORD, "This token is not known here."), _tell(stranger.machine_id)
        known = False
    except Exception as error:
        # The text of a database's error may quote what was written.
        log.error("boinc.contact_failed", error=type(error).__name__)
        said, end = render_reply(managing.change_nothing(manager, asked.opaque)), "trouble"
    door.contacts.ended.labels(end).inc()
    return said, known


def _tell(machine_id: UUID | None) -> str:
    if machine_id is None:
        return "stranger"
    log.warning("boinc.spent_token_used", machine=str(machine_id))
    return "spent token"


def _manager(door: Door) -> Manager:
    if door.manager is None:
        raise not_found("account manager")
    return door.manager
