"""What a person calls by name, found by name or id."""

from dataclasses import dataclass
from typing import Any

from services.cli.client import Client, Failed, plain


@dataclass(frozen=True, slots=True)
class Kind:
    """A collection of named things."""

    noun: str
    path: str
    within: str | None = None
    """The field that tells things of one name apart: `WITHIN/NAME` names one of several."""


RESOURCE = Kind("resource", "/v1/resources")
POLICY = Kind("policy", "/v1/policies")
TEMPLATE = Kind("template", "/v1/templates")
PROJECT = Kind("project", "/v1/projects")
CLUSTER = Kind("cluster", "/v1/clusters", within="resource")
MACHINE = Kind("machine", "/v1/machines")
USER = Kind("user", "/v1/users")

Item = dict[str, Any]


async def find(client: Client, kind: Kind, wanted: str) -> Item:
    """The one thing of this name or id. Raises Failed with what there is instead."""
    items = await client.pages(kind.path)
    found = [item for item in items if wanted in _spellings(kind, item)]
    if len(found) == 1:
        return found[0]
    if found:
        told = [_telling(kind, item) for item in found]
        if len(set(told)) < len(told):  # two resources may bear one name
            told = [str(item["id"]) for item in found]
        ways = ", ".join(plain(way) for way in told)
        raise Failed(f"{len(found)} things are called {plain(wanted)!r}; say which {kind.noun}: {ways}")
    names = ", ".join(sorted({plain(item["name"]) for item in items}))
    there = f"there are: {names}" if names else "there are none yet"
    raise Failed(f"no {kind.noun} is called {plain(wanted)!r}; {there}")


def _spellings(kind: Kind, item: Item) -> tuple[str, ...]:
    return (item["id"], item["name"], _telling(kind, item))


def _telling(kind: Kind, item: Item) -> str:
    return f"{item[kind.within]}/{item['name']}" if kind.within else str(item["id"])
