"""A furnished house and every route that its documents name, each with a body that it takes."""

import io
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from yarl import URL

from tests.service.documented import Route, Words, example, routes
from tests.service.lone_service import Answer
from tests.service.whole_house import POLICY, WEAK_KEY, Whole, open_furnished
from tools.parts import postgres

DOORS = ("identity", "registry", "policy", "templates", "contribution")
"""Services that keep what people send."""
LOGIN = {"name": "grace", "password": "a nanosecond is a foot"}
NOWHERE = "urn:tides:problem:not-found"
"""A garbled address may be no route's at all."""
FULL_POLICY = POLICY | {
    "time_zone": "Europe/Berlin",
    "windows": [{"days": ["mon"], "start": "22:00", "end": "06:00"}],
}


@dataclass
class Doors:
    """Every route, and a body that each takes."""

    whole: Whole
    ids: dict[str, str]
    routes: list[Route]

    def body_of(self, route: Route) -> Any:
        """One that is accepted; a new one each time where only one of it may be."""
        special: dict[str, Any] = {"POST /v1/sessions": LOGIN}
        if route.name in special:
            return special[route.name]
        if route.service == "policy" and route.schema == {"type": "object"}:
            return FULL_POLICY | {"name": uuid4().hex}
        return None if route.schema is None else example(route.schema, self._words(route))

    def _words(self, route: Route) -> Words:
        known: dict[str, Any] = {
            **{name: value for name, value in self.ids.items() if name.endswith("_id")},
            "organisation_id": str(self.whole.organisation),
            "scope": self.ids["scope"],
            "provider": "simulated",
            "password": "a nanosecond is a foot",
            "username": "tides",
            "authenticator": WEAK_KEY,
            "account_id": None,
            "derived_from": None,  # an id of a version on the same resource
            "reference": "boinc-worker",
            "resource_ids": [self.ids["resource_id"]],
            "ca_pem": None,
            "thumbprint": None,
            "probe": None,  # only with `lend`
            "settings": {},
            "disk_gib": 64,
            "url": lambda: f"sim://{uuid4().hex}",
        }
        if "projects" in route.path:
            known["url"] = lambda: f"https://{uuid4().hex}.example/"
        return known

    async def send(
        self,
        route: Route,
        body: Any,
        *,
        ids: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """The request, made from whatever revision; a cloud is not asked."""
        path = route.path.format_map({"terms_sha256": "0" * 64, **self.ids, **(ids or {})})
        query = "?validate=false" if route.path == "/v1/resources" else ""
        more: dict[str, Any] = {} if body is None else {"json": body}
        more = {"data": io.BytesIO(body)} if isinstance(body, bytes) else more
        headers = {"If-Match": "*", "Content-Type": "application/json", **(headers or {})}
        whole = self.whole
        url = URL(f"{whole.run.url}{path}{query}", encoded=True)
        answer = await whole.ask(route.method, str(url)[len(whole.run.url) :], headers=headers, **more)
        said = answer.body.get("type") if is_problem(answer) else None
        in_document = said == NOWHERE or str(answer.status) in route.operation["responses"]
        assert in_document, f"{route.name}: {answer.status} is not documented"
        return answer

    async def rows(self) -> dict[str, Any]:
        """How many rows every table has that people fill, and what users, policies and contributions are."""
        tables = await self.whole.fetch(
            "select schemaname, tablename from pg_tables where schemaname = any($1::text[])"
            " and tablename <> all(array['outbox', 'inbox', 'login_attempts'])",
            DOORS,
        )
        found: dict[str, Any] = {}
        for table in tables:
            name = f'"{table["schemaname"]}"."{table["tablename"]}"'
            ever_same = table["schemaname"] in ("identity", "policy", "contribution")
            content = "md5(string_agg(t::text, ',' order by t::text))" if ever_same else "null"
            found[name] = await self.whole.fetch(f"select count(*), {content} as content from {name} t")
        return found


@asynccontextmanager
async def open_doors(postgres_url: str) -> AsyncIterator[Doors]:
    """A house on a database of its own, until the block ends."""
    name = f"t_{uuid4().hex}"
    url = await postgres.create_database(postgres_url, name)
    async with open_furnished(url) as (whole, ids):
        await whole.made("/v1/users", LOGIN | {"role": "viewer"})
        yield Doors(whole, ids, routes(whole.run.services))
    await postgres.drop_database(postgres_url, name)


def is_problem(answer: Answer) -> bool:
    """Whether it is told as a problem, whole."""
    kind = answer.headers["content-type"]
    return kind == "application/problem+json" and {"type", "title", "status", "detail"} <= answer.body.keys()
