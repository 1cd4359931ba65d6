"""`/v1/resources`: viewers read, operators register and change, admins delete."""

from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse

from libs.common.auth import Principal, Role, allow
from libs.common.contracts.resource import Mode
from libs.common.db import Database
from libs.common.errors import conflict, forbidden, invalid
from libs.common.paging import Cursor, IfMatch, Limit, Page, page_of, read_cursor, require_match, set_etag
from libs.common.repeats import HasOnce
from libs.common.service import Runtime
from libs.providers.base import ProviderError
from services.registry.api.abandonments import Abandonments, AbandonmentShown
from services.registry.api.alternates import check_alternate, refuse_unfit, try_alternate
from services.registry.api.probe import (
    ask_cloud,
    check_endpoint,
    check_name,
    check_site,
    explain,
    failed_validation,
)
from services.registry.api.shapes import (
    CheckGiven,
    ModeGiven,
    ResourceChange,
    ResourceGiven,
    ResourceShown,
    ValidationShown,
    show,
)
from services.registry.api.sites import Sites
from services.registry.api.sizes import SizesShown, show_sizes
from services.registry.api.trials import Trials
from services.registry.domain import Credential, Endpoint, Seen
from services.registry.models import Resource
from services.registry.usecases import failing_over, modes, registering
from services.registry.usecases.credentials import (
    endpoint_in_use,
    endpoint_of,
    is_other_login,
    secret_context,
)

Viewer = Annotated[Principal, Depends(allow(Role.VIEWER))]
Operator = Annotated[Principal, Depends(allow(Role.OPERATOR))]
Admin = Annotated[Principal, Depends(allow(Role.ADMIN))]
Validate = Annotated[bool, Query(description="False: keep it without asking the cloud; for admins.")]

Abandon = Annotated[
    bool,
    Query(
        description="Forget it now, without asking a cloud that does not answer; says which machines may be left."
    ),
]

_ENDPOINT = ("url", "username", "ca_pem", "thumbprint", "settings")


def routers(database: Database, runtime: Runtime, trials: Trials) -> list[APIRouter]:
    """Everything of registry."""
    doors = _Doors(database, runtime, trials)
    router = APIRouter(prefix="/v1/resources", tags=["resources"])
    router.post("", status_code=201, summary="Register a cloud")(doors.create)
    router.get("", summary="List resources")(doors.list)
    router.get("/{resource_id}", summary="Read a resource")(doors.read)
    router.get("/{resource_id}/sizes", summary="List the sizes of machines that fit its hosts")(doors.sizes)
    router.patch("/{resource_id}", summary="Change a resource")(doors.change)
    router.delete("/{resource_id}", status_code=202, summary="Drain a resource, then forget it")(doors.delete)
    router.post("/{resource_id}/mode", summary="Say how far Tides may go")(doors.set_mode)
    router.post("/{resource_id}/validate", summary="Ask the cloud what it is and what it lacks")(
        doors.validate
    )
    router.post(
        "/{resource_id}/check",
        summary="Try every call of the driver on one machine, which is taken away again",
        response_class=StreamingResponse,
        responses={200: {"content": {"application/x-ndjson": {}}, "description": "A line for each step."}},
    )(doors.check)
    router.delete("/{resource_id}/alarm", summary="Acknowledge the sweeper's alarm")(doors.clear_alarm)
    return [router, doors.abandonments.router(), Sites(database).router()]


class _Doors:
    """The routes; each is one or two transactions, with the network between them."""

    def __init__(self, database: Database, runtime: Runtime, trials: Trials) -> None:
        self._database = database
        self._trials = trials
        self._runtime = runtime
        self.abandonments = Abandonments(database, runtime)

    async def create(
        self, body: ResourceGiven, who: Operator, response: Response, once: HasOnce, validate: Validate = True
    ) -> ResourceShown:
        """Keeps the resource in mode `observe`, unless the cloud refuses it or is registered already."""
        name = check_name(body.name)
        about = {"name": name, "interval_s": body.interval_s, "requires_probe": body.requires_probe}
        about |= _standing(body)
        given = body.model_dump(include=set(_ENDPOINT))
        endpoint = await check_endpoint(body.provider, given, body.password, "", self._runtime.vault)
        _refuse_unasked(who, validate)
        async with self._database.transaction() as session:
            await once.look(session)
            await registering.refuse_duplicate(session, who, endpoint.identity, None)
            await registering.refuse_same_name(session, who.organisation_id, name)
        seen = await self._probe(who, endpoint, None) if validate else None
        async with once.transaction(self._database) as session:
            now = self._runtime.clock.now()
            resource = await registering.register(session, who, about, endpoint, seen, now)
            response.headers["Location"] = f"/v1/resources/{resource.id}"
            return once.answers(_shown(resource, response))

    async def list(
        self,
        who: Viewer,
        limit: Limit = 50,
        cursor: Cursor = None,
        name: Annotated[str | None, Query(max_length=100)] = None,
        mode: Mode | None = None,
    ) -> Page[ResourceShown]:
        """Oldest first; of the caller's organisation, for an admin of all."""
        after: UUID | None = read_cursor(cursor, UUID)[0] if cursor else None
        asked: dict[str, Any] = {"name": name, "mode": mode}
        wanted = {field: value for field, value in asked.items() if value is not None}
        async with self._database.transaction() as session:
            rows = await registering.list_page(session, who, after, limit, wanted)
        return page_of(rows, limit, show, lambda row: (str(row.id),))

    async def read(self, resource_id: UUID, who: Viewer, response: Response) -> ResourceShown:
        """With health, the newest validation and the inventory; never with the password."""
        async with self._database.transaction() as session:
            resource = await registering.find(session, who, resource_id)
        return _shown(resource, response)

    async def change(
        self,
        resource_id: UUID,
        body: ResourceChange,
        who: Operator,
        response: Response,
        if_match: IfMatch = None,
        validate: Validate = True,
    ) -> ResourceShown:
        """Another address or pin needs the password again, for the old one is sealed to the old address."""
        async with self._database.transaction() as session:
            known = await registering.find(session, who, resource_id)
        require_match(if_match, known.revision)
        registering.refuse_deleting(known)
        about = _about(body)
        if known.requires_probe and body.requires_probe is False and who.role is not Role.ADMIN:
            raise forbidden("Only an administrator may take the probe back.", "Leave `requires_probe` out.")
        endpoint = await self._changed_endpoint(known, body)
        alternate = self._changed_alternate(known, body, endpoint or endpoint_of(known))
        if endpoint is not None or alternate is not None:
            _refuse_unasked(who, validate)
        seen = await self._probe(who, _asked(known, endpoint), known.id) if endpoint and validate else None
        if alternate is not None and validate:
            await try_alternate(alternate, endpoint or endpoint_of(known), known, seen, self._runtime)
        sets_alternate = "alternate" in body.model_fields_set
        async with self._database.transaction() as session:
            wanted = registering.Change(about, endpoint, seen, sets_alternate, alternate)
            resource = await registering.change(
                session, who, (known.id, known.revision), wanted, self._runtime.clock.now()
            )
        return _shown(resource, response)

    async def sizes(self, resource_id: UUID, who: Viewer) -> SizesShown:
        """Parts of a host, in whole cores that cross no NUMA node, with memory in proportion."""
        async with self._database.transaction() as session:
            return show_sizes(await registering.find(session, who, resource_id))

    async def delete(
        self,
        resource_id: UUID,
        who: Admin,
        response: Response,
        force: bool = False,
        abandon: Abandon = False,
    ) -> ResourceShown | AbandonmentShown:
        """The resource drains; it is gone when nothing of ours is left on it, or at once when it is abandoned."""
        if abandon and force:
            raise invalid("force", "Who abandons a cloud asks nothing of it.", "Give `force` or `abandon`.")
        if abandon:
            response.headers["Location"] = f"/v1/abandonments/{resource_id}"
            return await self.abandonments.abandon(resource_id, who)
        async with self._database.transaction() as session:
            now = self._runtime.clock.now()
            resource = await modes.remove(session, who, resource_id, force, now)
        return _shown(resource, response)

    async def set_mode(
        self, resource_id: UUID, body: ModeGiven, who: Operator, response: Response
    ) -> ResourceShown:
        """`paused` takes nothing away from machines that run; `observe` and `draining` give them back with grace.

        With a probe the resource goes on observing until one machine of it has reached a project; `probe` says how far
        it is, and why it failed.
        """
        wish = modes.Wish(body.mode, body.force, body.probe, timedelta(seconds=body.probe_for_s))
        modes.check_wish(wish)
        async with self._database.transaction() as session:
            now = self._runtime.clock.now()
            resource = await modes.set_mode(session, who, resource_id, wish, now)
        return _shown(resource, response)

    async def validate(self, resource_id: UUID, who: Operator) -> ValidationShown:
        """Facts, missing privileges with what each disables, warnings. A refusal is a 422, and remembered."""
        async with self._database.transaction() as session:
            known = await registering.find(session, who, resource_id)
        try:
            seen = await ask_cloud(endpoint_of(known), known.id, self._runtime)
        except ProviderError as error:
            validation = failed_validation(error, self._runtime.clock.now())
            async with self._database.transaction() as session:
                await registering.keep_failed_validation(session, (known.id, known.revision), validation)
            raise explain(error) from None
        async with self._database.transaction() as session:
            resource = await registering.keep_validation(session, (known.id, known.revision), seen)
            failing_over.back_to_first(session, resource, self._runtime.clock.now())
        return ValidationShown.model_validate(seen.validation)

    async def check(
        self, resource_id: UUID, body: CheckGiven, who: Operator, request: Request
    ) -> StreamingResponse:
        """Only while the resource observes. Lines of JSON: `call`, `ok`, `ms`, `note`; who hangs up ends it cleanly."""
        async with self._database.transaction() as session:
            known = await registering.find(session, who, resource_id)
        if known.probe_id is not None:
            raise conflict("A probe of the resource goes on.", "Wait for its end, or set `observe` again.")
        if known.mode is not Mode.OBSERVE or known.deleting:
            raise conflict(
                f"The resource is in mode {known.mode.value}.", "Set it to `observe` before it is tried out."
            )
        lines = self._trials.lines(request, endpoint_in_use(known), body.cluster, body.template)
        return StreamingResponse(lines, media_type="application/x-ndjson")

    async def clear_alarm(self, resource_id: UUID, who: Operator, response: Response) -> ResourceShown:
        """The alarm is no longer shown; what the sweeper may do is said to workload."""
        async with self._database.transaction() as session:
            resource = await registering.clear_alarm(session, who, resource_id)
        return _shown(resource, response)

    async def _probe(self, who: Principal, endpoint: Endpoint, resource_id: UUID | None) -> Seen:
        try:
            seen = await ask_cloud(endpoint, resource_id, self._runtime)
        except ProviderError as error:
            raise explain(error) from None
        async with self._database.transaction() as session:
            await registering.refuse_duplicate(
                session, who, endpoint.identity, seen.instance_identity, resource_id
            )
        return seen

    def _changed_alternate(
        self, known: Resource, body: ResourceChange, endpoint: Endpoint
    ) -> Credential | None:
        """The alternate that was given, sealed for the endpoint; None where none was. Raises 422."""
        if "alternate" not in body.model_fields_set:
            refuse_unfit(known, endpoint)
        return check_alternate(body.alternate, endpoint, self._runtime) if body.alternate else None

    async def _changed_endpoint(self, known: Resource, body: ResourceChange) -> Endpoint | None:
        """The endpoint after the change, None when the change does not touch it. Raises 422."""
        changed = body.model_fields_set & {*_ENDPOINT, "password"}
        if not changed:
            return None
        given = {field: getattr(body if field in changed else known, field) for field in _ENDPOINT}
        for field in ("url", "username", "settings"):
            if given[field] is None:
                raise invalid(field, f"The {field} cannot be taken away.", "Leave the field out to keep it.")
        endpoint = await check_endpoint(
            known.provider, given, body.password, known.sealed_secret, self._runtime.vault
        )
        if body.password is None and secret_context(endpoint) != secret_context(known):
            raise invalid(
                "password",
                "Another address, authority or thumbprint needs the password again.",
                "Send `password` with this change.",
            )
        return endpoint


def _asked(known: Resource, endpoint: Endpoint) -> Endpoint:
    """As whom a changed endpoint is validated: a first credential that is refused is not tried without need."""
    if is_other_login(known, endpoint):
        return endpoint
    in_use = endpoint_in_use(known)
    return replace(endpoint, username=in_use.username, sealed_secret=in_use.sealed_secret)


def _refuse_unasked(who: Principal, validate: bool) -> None:
    """Raise 403: whoever is let in by the cloud may claim it, and without asking only an administrator."""
    if not validate and who.role is not Role.ADMIN:
        raise forbidden("Only an administrator may keep a cloud that was not asked.", "Leave `validate` out.")


def _standing(body: ResourceGiven | ResourceChange) -> dict[str, Any]:
    """Where it stands and what is there, as far as that was given; null takes it away."""
    about: dict[str, Any] = {}
    if "site" in body.model_fields_set:
        about["site"] = None if body.site is None else check_site(body.site)
    if "declared" in body.model_fields_set:
        about["declared"] = None if body.declared is None else body.declared.model_dump()
    return about


def _about(body: ResourceChange) -> dict[str, Any]:
    about = _standing(body)
    if "stand_in_id" in body.model_fields_set:
        about["stand_in_id"] = body.stand_in_id
    if body.name is not None:
        about["name"] = check_name(body.name)
    if body.interval_s is not None:
        about["interval_s"] = body.interval_s
    if body.requires_probe is not None:
        about["requires_probe"] = body.requires_probe
    return about


def _shown(resource: Resource, response: Response) -> ResourceShown:
    set_etag(response, resource.revision)
    return show(resource)
