"""Writes the frozen schemas: events, the bus, every service's API.

`python -m tools.schemas` writes, `--check` says what differs from what is checked in. Events are additive-only:
a change that breaks a reader is neither written nor accepted, unless `--unreleased` says that nobody reads yet.
"""

import difflib
import json
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from inspect import getdoc
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from pydantic.json_schema import models_json_schema

from libs.common.auth import Verifier, generate_signing_keys
from libs.common.bus.base import Bus
from libs.common.bus.rabbit.wire import INTERNAL, PUBLIC
from libs.common.clock import WallClock
from libs.common.contracts.catalogue import CATALOGUE, Entry
from libs.common.db import Database
from libs.common.secrets import fresh_key
from libs.common.service import Runtime, Service
from libs.common.settings import Settings
from libs.common.wake import Activity, Wake
from tools.additive import breaks

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "schemas"
_DIFF_LINES = 60


def service_names() -> list[str]:
    """Every folder of services with a composition and tables of its own."""
    return sorted(path.parent.name for path in (ROOT / "services").glob("*/main.py") if _has_tables(path))


def compose(registry: CollectorRegistry | None = None) -> list[Service]:
    """Every service as a value, on a runtime that connects to nothing; its instruments are in the registry."""
    private, public = generate_signing_keys()
    settings = Settings(
        database_url=SecretStr("postgresql://nobody@localhost/nothing"),
        sealing_keys=SecretStr(f"schemas:{fresh_key()}"),
        signing_key=SecretStr(private),
        verify_keys=public,
        installation_id=UUID(int=0),
        developer_mode=False,
    )
    activity = Activity()
    runtime = Runtime(
        settings=settings,
        clock=WallClock(),
        bus=cast(Bus, object()),
        vault=settings.vault(),
        verifier=Verifier(public),
        activity=activity,
        open_database=lambda name: Database(settings.database_dsn, name, committed=Wake(activity)),
        registry=registry or CollectorRegistry(),
    )
    return [import_module(f"services.{name}.main").build(runtime) for name in service_names()]


def event_schemas() -> dict[str, Any]:
    """The catalogue by key: each row and the JSON schema of its body, complete in itself."""
    return {
        entry.event.key: {
            "publisher": entry.publisher,
            "consumers": sorted(entry.consumers),
            "kind": entry.kind.value,
            "public": entry.public,
            "identity": entry.identity,
            "schema": entry.event.model_json_schema(),
        }
        for entry in CATALOGUE
    }


def bus_document() -> dict[str, Any]:
    """The bus as an AsyncAPI 3 document; a public event has a second channel, on the exchange for outsiders."""
    _, schemas = models_json_schema(
        [(entry.event, "validation") for entry in CATALOGUE], ref_template="#/components/schemas/{model}"
    )
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for entry in CATALOGUE:
        channels |= _channels_of(entry)
        operations |= _operations_of(entry)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Tides events",
            "version": "1",
            "description": "At least once, in no promised order. Events only ever grow: ignore what you do not know.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": {entry.event.key: _message_of(entry) for entry in CATALOGUE},
            "schemas": {**schemas["$defs"], "CloudEventHeaders": _HEADERS},
        },
    }


def documents(services: Iterable[Service]) -> dict[str, str]:
    """Every frozen file by its name below `schemas/`."""
    found = {"events.json": event_schemas(), "asyncapi.json": bus_document()}
    found |= {f"openapi/{service.name}.json": service.app.openapi() for service in services}
    return {name: _text_of(document) for name, document in found.items()}


def differences(fresh: Mapping[str, str], folder: Path = FOLDER) -> list[str]:
    """What the checked-in files say otherwise, as diffs cut to size."""
    known = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.json"))}
    found = [f"schemas/{name} belongs to nothing any more" for name in known if name not in fresh]
    for name, text in sorted(fresh.items()):
        before = known[name].read_text(encoding="utf-8") if name in known else ""
        if before != text:
            lines = list(
                difflib.unified_diff(
                    before.splitlines(),
                    text.splitlines(),
                    f"checked in: {name}",
                    f"code: {name}",
                    lineterm="",
                )
            )
            cut = [f"... {len(lines) - _DIFF_LINES} lines more"] if len(lines) > _DIFF_LINES else []
            found.append("\n".join(lines[:_DIFF_LINES] + cut))
    return found


def broken_events(folder: Path = FOLDER) -> list[str]:
    """How the events of the code break readers of the checked-in ones."""
    path = folder / "events.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return breaks(*({key: row["schema"] for key, row in rows.items()} for rows in (known, event_schemas())))


def write(fresh: Mapping[str, str], folder: Path = FOLDER) -> None:
    """Make the folder hold these files and no other schema."""
    for path in folder.rglob("*.json"):
        if path.relative_to(folder).as_posix() not in fresh:
            path.unlink()
    for name, text in fresh.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Write or check; non-zero when an event breaks its readers or a file is stale."""
    unknown = set(arguments) - {"--check", "--unreleased"}
    if unknown:
        print(f"no such argument: {' '.join(sorted(unknown))}; there are --check and --unreleased")
        return 2
    complaints = [] if "--unreleased" in arguments else broken_events()
    fresh = documents(compose())
    if "--check" in arguments:
        stale = differences(fresh)
        complaints += [*stale, "run ./dev schemas and commit what it writes"] if stale else []
    elif not complaints:
        write(fresh)
    print("\n".join(complaints) or f"{len(fresh)} schemas are those of the code")
    return 1 if complaints else 0


_HEADERS: dict[str, Any] = {
    "type": "object",
    "description": "CloudEvents 1.0 attributes; the body is the event itself.",
    "required": ["ce-id", "ce-source", "ce-specversion", "ce-subject", "ce-time", "ce-type"],
    "properties": {
        "ce-id": {"type": "string", "format": "uuid", "description": "The same id is the same message."},
        "ce-source": {"type": "string", "format": "uri-reference"},
        "ce-specversion": {"const": "1.0"},
        "ce-subject": {"type": "string"},
        "ce-time": {"type": "string", "format": "date-time"},
        "ce-type": {"type": "string", "description": "The event's key."},
    },
}


_PROJECT: dict[str, Any] = {
    "parameters": {
        "project_id": {"description": "The id of the project in Tides, which its subscriber is let to."}
    }
}


def _channels_of(entry: Entry) -> dict[str, Any]:
    key = entry.event.key
    exchanges = {key: INTERNAL} | ({f"public.{key}": PUBLIC} if entry.public else {})
    return {
        name: {
            "address": entry.public_address if exchange == PUBLIC else key,
            **(_PROJECT if exchange == PUBLIC and entry.public_address != key else {}),
            "messages": {key: {"$ref": f"#/components/messages/{key}"}},
            "bindings": {
                "amqp": {
                    "is": "routingKey",
                    "exchange": {"name": exchange, "type": "topic", "durable": True, "autoDelete": False},
                    "bindingVersion": "0.3.0",
                }
            },
        }
        for name, exchange in exchanges.items()
    }


def _operations_of(entry: Entry) -> dict[str, Any]:
    def operation(action: str, channel: str) -> dict[str, Any]:
        return {
            "action": action,
            "channel": {"$ref": f"#/channels/{channel}"},
            "messages": [{"$ref": f"#/channels/{channel}/messages/{key}"}],
        }

    key = entry.event.key
    found = {f"{entry.publisher}.says.{key}": operation("send", key)}
    if entry.public:
        found[f"{entry.publisher}.says.public.{key}"] = operation("send", f"public.{key}")
    return found | {f"{name}.hears.{key}": operation("receive", key) for name in entry.consumers}


def _message_of(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.event.key,
        "title": entry.event.__name__,
        "summary": getdoc(entry.event),
        "headers": {"$ref": "#/components/schemas/CloudEventHeaders"},
        "payload": {"$ref": f"#/components/schemas/{entry.event.__name__}"},
        "x-kind": entry.kind.value,
        "x-identity": entry.identity,
    }


def _text_of(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _has_tables(main_file: Path) -> bool:
    return any((main_file.parent / name).exists() for name in ("models.py", "models"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
