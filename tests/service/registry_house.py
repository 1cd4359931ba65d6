"""What tests of registry share: the service alone, clouds to register, and what others hear."""

from typing import Any

from libs.common.auth import Role
from libs.common.contracts.resource import ResourceChanged
from tests.service.lone_service import Answer, Lone

PASSWORD = "correct horse"


FINGERPRINT = ":".join(["AB"] * 32)


def body(url: str, **changes: Any) -> dict[str, Any]:
    given = {
        "name": f"Lab at {url}"[:100], "provider": "simulated", "url": url, "username": "tides", "password": PASSWORD,
    }  # fmt: skip
    return given | changes


def scripted_body(host: str = "vc.example", **changes: Any) -> dict[str, Any]:
    return body(f"https://{host}/sdk", provider="scripted", **changes)


async def register(registry: Lone, given: dict[str, Any], **who: Any) -> dict[str, Any]:
    made = await registry.ask("POST", "/v1/resources", given, **who)
    assert made.status == 201, made.body
    assert made.headers["location"] == f"/v1/resources/{made.body['id']}"
    found: dict[str, Any] = made.body
    return found


async def patch(registry: Lone, resource: dict[str, Any], changes: dict[str, Any], etag: str = "*") -> Answer:
    path = f"/v1/resources/{resource['id']}"
    return await registry.ask("PATCH", path, changes, headers={"If-Match": etag})


async def read(registry: Lone, resource: dict[str, Any]) -> dict[str, Any]:
    answer = await registry.ask("GET", f"/v1/resources/{resource['id']}", role=Role.VIEWER)
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.body
    return found


def states(registry: Lone) -> list[ResourceChanged]:
    """What others know after all that was said, oldest first."""
    said = {event.id: event for event in registry.said if isinstance(event, ResourceChanged)}
    return sorted(said.values(), key=lambda event: event.revision)


async def count(registry: Lone) -> int:
    return len((await registry.ask("GET", "/v1/resources", role=Role.ADMIN)).body["items"])
