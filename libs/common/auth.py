"""Who asks, and may they: signed access tokens, roles, and the mark that every route must carry."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

from fastapi import Request
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, OKPKey

from libs.common.clock import Clock, WallClock
from libs.common.errors import forbidden, unauthorised

ALGORITHM = "Ed25519"
ISSUER = "tides-identity"
AUDIENCE = "tides"
LIFETIME = timedelta(minutes=10)
LEEWAY_S = 30
_LONGEST_TOKEN = 4096


class Role(StrEnum):
    """What a user may do: an admin all that an operator may, an operator all that a viewer may."""

    ADMIN = "admin"
    OPERATOR = "operator"
    VIEWER = "viewer"
    SERVICE = "service"


_ABOVE: dict[Role, frozenset[Role]] = {
    Role.ADMIN: frozenset({Role.ADMIN}),
    Role.OPERATOR: frozenset({Role.ADMIN, Role.OPERATOR}),
    Role.VIEWER: frozenset({Role.ADMIN, Role.OPERATOR, Role.VIEWER}),
    Role.SERVICE: frozenset({Role.SERVICE}),
}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, as the access token says."""

    user_id: UUID
    name: str
    role: Role
    organisation_id: UUID
    token_id: UUID
    """The personal token or login that the access token was made from."""


class Revocations:
    """The personal tokens that are void, in memory; fed from the table and by `identity.token_revoked.v1`."""

    def __init__(self) -> None:
        self._void: set[UUID] = set()

    def add(self, token_id: UUID) -> None:
        """Void from now on."""
        self._void.add(token_id)

    def load(self, token_ids: Iterable[UUID]) -> None:
        """Void these too."""
        self._void.update(token_ids)

    def __contains__(self, token_id: UUID) -> bool:
        return token_id in self._void


class Signer:
    """Makes access tokens; identity alone holds one. `private` is an Ed25519 key as JWK (JSON) or PEM."""

    def __init__(self, private: str, clock: Clock | None = None) -> None:
        self._key = _import_key(private)
        if not self._key.is_private:
            raise ValueError("TIDES_SIGNING_KEY: this is a public key; give the private one")
        self._key.ensure_kid()
        self._clock = clock or WallClock()

    def sign(self, principal: Principal) -> str:
        """An access token, good for `LIFETIME`."""
        now = int(self._clock.now().timestamp())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(principal.user_id),
            "iat": now,
            "exp": now + int(LIFETIME.total_seconds()),
            "jti": uuid4().hex,
            "name": principal.name,
            "role": principal.role.value,
            "org": str(principal.organisation_id),
            "tid": str(principal.token_id),
        }
        return jwt.encode({"alg": ALGORITHM, "kid": self._key.kid}, claims, self._key, algorithms=[ALGORITHM])

    def public_keys(self) -> str:
        """What a Verifier needs, as a JWK set."""
        return json.dumps({"keys": [self._key.as_dict(private=False)]})


class Verifier:
    """Reads access tokens. `keys` is public: JWK set, JWK or PEM. `is_revoked`: is a token id void?"""

    def __init__(
        self, keys: str, clock: Clock | None = None, is_revoked: Callable[[UUID], bool] | None = None
    ) -> None:
        self._keys = _import_keys(keys)
        self._clock = clock or WallClock()
        self.revocations = Revocations()
        """Consulted unless `is_revoked` is given; fed by whoever hears of revocations."""
        self._is_revoked = is_revoked or self.revocations.__contains__

    def verify(self, token: str) -> Principal:
        """Who the token speaks for. Raises a 401 Problem that says nothing about the key."""
        if len(token) > _LONGEST_TOKEN:
            raise unauthorised("The access token is not valid.")
        try:
            claims = jwt.decode(token, self._keys, algorithms=[ALGORITHM]).claims
            self._rules().validate(claims)
            principal = _principal_of(claims)
        except (JoseError, ValueError, KeyError, TypeError):
            raise unauthorised(
                "The access token is not valid or has ended.", "Exchange your personal token for a new one."
            ) from None
        if self._is_revoked(principal.token_id):
            raise unauthorised("The token has been revoked.", "Log in again, or use another personal token.")
        return principal

    def _rules(self) -> jwt.JWTClaimsRegistry:
        present: jwt.ClaimsOption = {"essential": True}
        return jwt.JWTClaimsRegistry(
            now=int(self._clock.now().timestamp()),
            leeway=LEEWAY_S,
            iss={"essential": True, "value": ISSUER},
            aud={"essential": True, "value": AUDIENCE},
            exp=present,
            iat=present,
            jti=present,
            sub=present,
        )


def generate_signing_keys() -> tuple[str, str]:
    """A fresh (private JWK, public JWK set), both JSON, for the first start of an installation."""
    key = OKPKey.generate_key("Ed25519", private=True)
    key.ensure_kid()
    return json.dumps(key.as_dict(private=True)), json.dumps({"keys": [key.as_dict(private=False)]})


@dataclass(frozen=True, slots=True)
class Allow:
    """The mark of a protected route; as a dependency it gives the Principal, or refuses with 401 or 403."""

    roles: frozenset[Role]

    async def __call__(self, request: Request) -> Principal:
        verifier: Verifier = request.app.state.verifier
        principal = verifier.verify(bearer_of(request.headers))
        request.state.principal = principal
        if principal.role not in self.roles:
            raise forbidden(
                f"Your role is {principal.role}; this takes {' or '.join(sorted(self.roles))}.",
                "Ask an administrator.",
            )
        return principal


def allow(*roles: Role) -> Allow:
    """Let these roles pass and those above: `Depends(allow(Role.OPERATOR))` is for operators and admins."""
    if not roles:
        raise ValueError("allow() needs at least one role; a route for everybody depends on `public`")
    return Allow(frozenset().union(*(_ABOVE[role] for role in roles)))


async def public() -> None:
    """The mark of a route that asks for no access token: `dependencies=[Depends(public)]`."""


def marks_of(calls: Iterable[Callable[..., Any]]) -> frozenset[str]:
    """What a route's dependencies let pass: role names, or `public`; empty when the route carries no mark.

    Several `allow` marks on one route must all pass, so they intersect.
    """
    calls = list(calls)
    allowed = [frozenset(role.value for role in call.roles) for call in calls if isinstance(call, Allow)]
    if allowed:
        return frozenset.intersection(*allowed)
    return frozenset({"public"}) if public in calls else frozenset()


def bearer_of(headers: Mapping[str, str]) -> str:
    """The access token that a request carries. Raises a 401 Problem where there is none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise unauthorised(
            "This needs an access token.",
            "Send `Authorization: Bearer ...` with a token from /v1/tokens/exchange.",
        )
    return token.strip()


def _principal_of(claims: dict[str, Any]) -> Principal:
    return Principal(
        user_id=UUID(str(claims["sub"])),
        name=str(claims["name"]),
        role=Role(claims["role"]),
        organisation_id=UUID(str(claims["org"])),
        token_id=UUID(str(claims["tid"])),
    )


def _import_key(text: str) -> OKPKey:
    try:
        key = OKPKey.import_key(json.loads(text) if text.lstrip().startswith("{") else text)
    except (JoseError, ValueError, TypeError):
        raise ValueError("not an Ed25519 key in JWK or PEM form") from None
    if key.curve_name != "Ed25519":
        raise ValueError("not an Ed25519 key in JWK or PEM form")
    return key


def _import_keys(text: str) -> KeySet:
    if not text.lstrip().startswith("{"):
        found = [_import_key(text)] if text.strip() else []
    else:
        data = json.loads(text)
        found = [_import_key(json.dumps(item)) for item in data.get("keys", [data])]
    if not found:
        raise ValueError("TIDES_VERIFY_KEYS: no key; give identity's public key as JWK set or PEM")
    return KeySet([OKPKey.import_key(key.as_dict(private=False)) for key in found])
