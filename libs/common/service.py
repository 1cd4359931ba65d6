"""A service is a value: its name, tables, app, what it hears and how it beats. The runner owns everything else."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from sqlalchemy import MetaData
from sqlalchemy.orm import InstrumentedAttribute

from libs.common.auth import Verifier
from libs.common.bus.base import Bus
from libs.common.clock import Clock
from libs.common.contracts.base import Event, StateEvent
from libs.common.db import Database, Session
from libs.common.figures import Figures
from libs.common.metrics import Metrics
from libs.common.secrets import Vault
from libs.common.settings import Settings
from libs.common.tracing import OFF, Tracing
from libs.common.wake import Activity, Wake


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the runner lends to every service at composition."""

    settings: Settings
    clock: Clock
    bus: Bus
    vault: Vault
    verifier: Verifier
    activity: Activity
    open_database: Callable[[str], Database]
    """By schema name, which is the service's name."""
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    """Where a service registers instruments of its own; served at `/metrics`."""
    tracing: Tracing = OFF
    """Where a service notes work that a message did not begin; what messages begin is noted already."""
    metrics: Metrics = field(init=False)
    """The instruments that all services of the process share."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", Metrics(self.registry))

    def wake(self) -> Wake:
        """A new signal, counted in this process's activity."""
        return Wake(self.activity)


React = Callable[[Session, Any], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Hears:
    """One event and the transaction it causes: inbox row, `react`, outbox rows, commit, acknowledge."""

    event: type[Event]
    react: React
    once: bool = True
    """False: `react` is a no-op on a repeat by itself, so no inbox row is written."""
    expires_s: float | None = None
    prefetch: int = 10
    wakes: tuple[Wake, ...] = ()
    """Beats that should look now instead of at their next time."""


Page = tuple[Sequence[StateEvent], Any]
"""States, and the position after which to read on; None at the end."""


@dataclass(frozen=True, slots=True)
class Tells:
    """A state that the service publishes, and how to read all of it again for who comes late."""

    event: type[StateEvent]
    read: Callable[[Session, Any], Awaitable[Page]]
    """The next few states after a position, at first None: as they were last published, also of what is gone."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A column of sealed secrets in a table whose primary key is one UUID; the runner lets it follow the newest key."""

    column: InstrumentedAttribute[str]
    context: Callable[[Any], bytes] | None = None
    """The associated data of a row's secret. None: a copy that another service tells, which follows by its event."""
    tell: Callable[[Session, Any, datetime], Awaitable[None]] | None = None
    """Tells who holds copies of a re-sealed row, in the same transaction."""


@dataclass(frozen=True, slots=True)
class Beat:
    """A loop: claim (tx), act on the cloud (no tx), settle (tx). The next beat is the retry."""

    name: str
    every_s: float
    run: Callable[[], Awaitable[float | None]]
    """Does what is due; may return the seconds until it next wants to run, if sooner than `every_s`."""
    wake: Wake


@dataclass(frozen=True, slots=True)
class Service:
    """What `build(runtime)` of a service's main returns."""

    name: str
    metadata: MetaData
    migrations: str
    """Import path of the alembic version scripts, e.g. `services.registry.migrations`."""
    database: Database
    app: FastAPI
    prefixes: tuple[str, ...]
    """URL prefixes that belong to the app, e.g. `/v1/resources`."""
    hears: Sequence[Hears] = ()
    tells: Sequence[Tells] = ()
    """Every state that it publishes; the runner answers who asks."""
    seals: Sequence[Sealed] = ()
    """Every column that holds sealed secrets."""
    beats: Sequence[Beat] = ()
    figures: Sequence[Figures] = ()
    """Gauges of what stands in its database; the runner reads and shows them."""
    closes: Sequence[Callable[[], Awaitable[None]]] = field(default=())
    """Called in order at an orderly stop, after beats and consumers have ended."""


def queue_name(service: str, key: str) -> str:
    """The queue in which replicas of a service compete for an event."""
    return f"{service}.{key}"
