"""The installation that the environment names: services as values, the database, the bus. Nothing is made."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from libs.common.auth import Verifier, generate_signing_keys
from libs.common.bus.base import Bus
from libs.common.clock import WallClock
from libs.common.contracts.replay import StatesAsked
from libs.common.contracts.supply import TokenRevoked
from libs.common.db import Database, async_url
from libs.common.secrets import fresh_key, parse_keys
from libs.common.service import Runtime, Service, queue_name
from libs.common.settings import Settings
from libs.common.wake import Activity, Wake
from services.cli.keep import FILE
from services.cli.run import SERVICES, database_of

CONNECT_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Installation:
    """An installation as the environment names it."""

    settings: Settings
    """With the address of the database, also of an embedded one."""
    services: tuple[Service, ...]
    engine: AsyncEngine
    """As whom the address names, not as a service."""
    key_ids: tuple[str, ...]
    """Of the sealing keys that are configured, newest last; empty: this environment has none."""

    @property
    def bus_url(self) -> str:
        """Where the bus is, with its password."""
        return self.settings.bus_dsn


@asynccontextmanager
async def found(settings: Settings) -> AsyncIterator[Installation]:
    """The installation, for as long as the block lasts. Raises NothingHere, InvalidSettings."""
    database_url = database_of(settings)
    whole = settings.model_copy(update={"database_url": SecretStr(database_url)})
    keys = settings.sealing_keys.get_secret_value() or _kept_keys(settings)
    services = compose(whole)
    timeout = {"timeout": CONNECT_WITHIN_S}
    engine = create_async_engine(async_url(database_url), poolclass=NullPool, connect_args=timeout)
    try:
        yield Installation(whole, services, engine, tuple(parse_keys(keys)))
    finally:
        await engine.dispose()
        for service in services:
            await service.database.dispose()


def _kept_keys(settings: Settings) -> str:
    """The keys of an installation on embedded defaults; none are made where there are none."""
    try:
        kept = json.loads((settings.data_dir / FILE).read_text(encoding="utf-8"))
        return str(kept["sealing_keys"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def compose(settings: Settings) -> tuple[Service, ...]:
    """Every service as a value. It opens and seals nothing: its keys are of the moment. Raises InvalidSettings."""
    private, public = generate_signing_keys()
    own: dict[str, Any] = {
        "sealing_keys": SecretStr(f"doctor:{fresh_key()}"),
        "signing_key": SecretStr(private),
        "verify_keys": public,
        "installation_id": UUID(int=0),
        "bootstrap_admin_token": None,
        "pool_size": 1,
    }
    given = settings.model_copy(update=own)
    activity = Activity()

    def open_database(schema: str) -> Database:
        return Database(given.database_dsn, schema, committed=Wake(activity), pool_size=1)

    runtime = Runtime(
        settings=given,
        clock=WallClock(),
        bus=cast(Bus, None),
        vault=given.vault(),
        verifier=Verifier(public),
        activity=activity,
        open_database=open_database,
    )
    return tuple(import_module(f"services.{name}.main").build(runtime) for name in SERVICES)


def queues_of(service: Service) -> Sequence[str]:
    """The queues in which a running service listens."""
    keys = [hears.event.key for hears in service.hears] + [TokenRevoked.key]
    keys += [StatesAsked.key] if service.tells else []
    return [queue_name(service.name, key) for key in keys]
