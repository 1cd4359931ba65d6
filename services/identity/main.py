"""Composition of identity."""

from libs.common import personal_tokens
from libs.common.app import create_app
from libs.common.auth import Signer
from libs.common.clock import Clock, WallClock
from libs.common.service import Beat, Runtime, Service
from libs.common.settings import InvalidSettings, Settings
from services.identity.api import ROUTERS, Door
from services.identity.models import Base
from services.identity.reconcile import EVERY_S, keep_due
from services.identity.usecases.passwords import Passwords

NAME = "identity"


def build(runtime: Runtime, clock: Clock | None = None, passwords: Passwords | None = None) -> Service:
    """Tokens and lock-outs live on wall time, whatever the runtime has: people do. Raises InvalidSettings."""
    clock = clock or WallClock()
    settings = runtime.settings
    database = runtime.open_database(NAME)
    app = create_app(
        NAME, routers=ROUTERS, settings=settings, verifier=runtime.verifier, title="Tides: users and tokens"
    )
    app.state.door = Door(
        database, clock, _signer(settings, clock), runtime.verifier, passwords or Passwords()
    )
    return Service(
        name=NAME,
        metadata=Base.metadata,
        migrations="services.identity.migrations",
        database=database,
        app=app,
        prefixes=("/v1/users", "/v1/tokens", "/v1/sessions", "/v1/me", "/v1/organisations", "/v1/audit"),
        beats=(Beat("keep", EVERY_S, keep_due(database, clock, _first_token(settings)), runtime.wake()),),
    )


def _signer(settings: Settings, clock: Clock) -> Signer:
    if settings.signing_key is None:
        raise InvalidSettings(
            "TIDES_SIGNING_KEY is not set; identity needs it to sign access tokens: `tides keys`"
        )
    try:
        return Signer(settings.signing_key.get_secret_value(), clock)
    except ValueError as error:
        raise InvalidSettings(f"TIDES_SIGNING_KEY: {error}; `tides keys` makes one") from None


def _first_token(settings: Settings) -> str | None:
    token = settings.bootstrap_admin_token
    if token is None:
        return None
    if personal_tokens.parse(token.get_secret_value()) is None:
        raise InvalidSettings(
            "TIDES_BOOTSTRAP_ADMIN_TOKEN: not tides_<32 hex digits>_<43 characters>; `tides keys` makes one"
        )
    return token.get_secret_value()
