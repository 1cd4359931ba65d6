"""The driver: URLs of simulated clouds, and logging in to them."""

import posixpath
import re
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from libs.common.clock import Clock
from libs.common.secrets import Unsealable, Vault
from libs.providers.base import Cause, Connection, LoginRefused, Rejected, sealing_context
from libs.providers.simulated.cloud import Cloud
from libs.providers.simulated.passwords import fresh_salt, hash_password, is_password
from libs.providers.simulated.session import SimulatedProvider, reach
from libs.providers.simulated.settings import SimulatedSettings
from libs.providers.simulated.state import build_state
from libs.providers.simulated.store import FileStore, MemoryStore, Store

MOST_REGISTERED = 50
"""Clouds in memory that come into being by being registered; more only by restarting the process."""
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
_FORMS = "use sim://<name> for a cloud in memory or sim:///<path>.json for one in a file"


def canonical_url(url: str) -> str:
    """The one spelling of a simulated cloud's URL. Raises ValueError with a sentence."""
    parts = urlsplit(url.strip())
    if parts.scheme.lower() != "sim":
        raise ValueError(f"a simulated cloud's URL begins with sim: {_FORMS}")
    if parts.query or parts.fragment:
        raise ValueError(f"a simulated cloud's URL has neither query nor fragment: {_FORMS}")
    if parts.netloc:
        name = parts.netloc.lower()
        if parts.path not in ("", "/") or not _NAME.fullmatch(name):
            raise ValueError(f"a cloud's name is letters, digits, dots and dashes: {_FORMS}")
        return f"sim://{name}"
    if "\x00" in parts.path or not parts.path.startswith("/") or not parts.path.endswith(".json"):
        raise ValueError(f"a cloud file has an absolute path that ends in .json: {_FORMS}")
    return f"sim:///{posixpath.normpath(parts.path).lstrip('/')}"


class SimulatedDriver:
    """Clouds in memory live in the driver, and are shared by all sessions of the process."""

    name = "simulated"
    settings: type[BaseModel] = SimulatedSettings

    def __init__(self) -> None:
        self._memory: dict[str, MemoryStore] = {}
        self._registered: set[str] = set()

    def identify(self, url: str, settings: BaseModel) -> str:
        return canonical_url(url)

    async def open(self, connection: Connection, vault: Vault, clock: Clock) -> SimulatedProvider:
        url = _checked_url(connection.url)
        settings = _checked_settings(connection)
        context = sealing_context(connection.url, connection.ca_pem, connection.thumbprint)
        try:
            password = vault.open(connection.sealed_secret, context)
        except Unsealable as error:
            raise Rejected(Cause.AUTH, str(error)) from None
        if not password:
            raise Rejected(Cause.AUTH, "the password is empty")
        cloud = Cloud(url, self._store(url), clock)
        if cloud.store.read() is None:
            self._make_room(cloud)
            if self._create(cloud.store, password, settings):
                self._registered.add(url)
        await reach(cloud)
        state = cloud.state()
        if not is_password(password, state.salt, state.password_hash):
            raise LoginRefused(Cause.AUTH, "wrong password")
        return SimulatedProvider(cloud, settings, connection.installation_id)

    def create_cloud(self, url: str, password: str, settings: SimulatedSettings, clock: Clock) -> Cloud:
        """A new cloud with this password. Raises ValueError when it exists or the password is empty."""
        if not password:
            raise ValueError("a cloud needs a password")
        cloud = Cloud(canonical_url(url), self._store(canonical_url(url)), clock)
        if not self._create(cloud.store, password, settings):
            raise ValueError(f"{cloud.url} exists already")
        return cloud

    def attach_cloud(self, url: str, clock: Clock) -> Cloud:
        """A cloud that exists, without logging in: for control and truth. Raises LookupError when it does
        not."""
        cloud = Cloud(canonical_url(url), self._store(canonical_url(url)), clock)
        if cloud.store.read() is None:
            raise LookupError(f"{cloud.url} does not exist")
        return cloud

    def forget_cloud(self, url: str) -> None:
        """Drop a cloud in memory; sessions that are open keep what they have."""
        self._memory.pop(canonical_url(url), None)
        self._registered.discard(canonical_url(url))

    def _store(self, url: str) -> Store:
        path = urlsplit(url).path
        return FileStore(Path(path)) if path else self._memory.setdefault(url, MemoryStore())

    def _make_room(self, cloud: Cloud) -> None:
        """Who may register a resource may not write files, nor fill the memory. Raises Rejected."""
        if isinstance(cloud.store, FileStore):
            raise Rejected(Cause.INVALID, "there is no simulated cloud at this path; `tides demo` makes one")
        if len(self._registered) >= MOST_REGISTERED:
            self.forget_cloud(cloud.url)
            raise Rejected(
                Cause.INVALID,
                f"this process keeps {MOST_REGISTERED} simulated clouds already, which is the most; "
                "use one of them, or restart it",
            )

    def _create(self, store: Store, password: str, settings: SimulatedSettings) -> bool:
        salt = fresh_salt()
        return store.create(build_state(settings, salt, hash_password(password, salt)))


def _checked_url(url: str) -> str:
    try:
        return canonical_url(url)
    except ValueError as error:
        raise Rejected(Cause.INVALID, str(error)) from None


def _checked_settings(connection: Connection) -> SimulatedSettings:
    try:
        return SimulatedSettings.model_validate(dict(connection.settings))
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise Rejected(
            Cause.INVALID, f"settings {'.'.join(map(str, first['loc']))}: {first['msg']}"
        ) from None
