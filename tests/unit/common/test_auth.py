"""Access tokens: what is believed, what is not, and which marks a route carries."""

import json
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from joserfc import jwt
from joserfc.jwk import OKPKey

from libs.common.auth import (
    ALGORITHM,
    AUDIENCE,
    ISSUER,
    Principal,
    Role,
    Signer,
    Verifier,
    allow,
    generate_signing_keys,
    marks_of,
    public,
)
from libs.common.clock import SteppedClock, WallClock
from libs.common.errors import Problem

PRIVATE, PUBLIC = generate_signing_keys()


def a_principal(role: Role = Role.OPERATOR) -> Principal:
    return Principal(uuid4(), "ida", role, uuid4(), uuid4())


def refused(verifier: Verifier, token: str) -> Problem:
    with pytest.raises(Problem) as caught:
        verifier.verify(token)
    assert caught.value.status == 401
    return caught.value


def test_a_signed_token_says_who_asks() -> None:
    principal = a_principal()
    assert Verifier(PUBLIC).verify(Signer(PRIVATE).sign(principal)) == principal


def test_a_token_ends_after_ten_minutes_and_a_leeway() -> None:
    clock = SteppedClock(WallClock().now())
    token = Signer(PRIVATE, clock).sign(a_principal())
    verifier = Verifier(PUBLIC, clock)
    for seconds, good in ((599, True), (620, True), (632, False)):
        later = SteppedClock(clock.now() + timedelta(seconds=seconds))
        verifier = Verifier(PUBLIC, later)
        if good:
            verifier.verify(token)
        else:
            refused(verifier, token)
    refused(Verifier(PUBLIC, SteppedClock(clock.now() - timedelta(minutes=2))), token)


def test_a_revoked_token_is_refused_and_others_are_not() -> None:
    verifier, signer = Verifier(PUBLIC), Signer(PRIVATE)
    one, other = a_principal(), a_principal()
    verifier.revocations.add(one.token_id)
    verifier.revocations.load([uuid4()])
    assert refused(verifier, signer.sign(one)).detail == "The token has been revoked."
    assert verifier.verify(signer.sign(other)) == other


@pytest.mark.parametrize(
    "change",
    [
        {"iss": "somebody"},
        {"aud": "elsewhere"},
        {"exp": None},
        {"jti": None},
        {"role": "god"},
        {"sub": "me"},
        {"sub": 7},
        {"tid": None},
        {"org": ["x"]},
    ],
)
def test_a_token_with_other_claims_is_refused(change: dict[str, Any]) -> None:
    now = int(WallClock().now().timestamp())
    claims = {
        "iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + 60, "jti": "x", "sub": str(uuid4()),
        "name": "ida", "role": "admin", "org": str(uuid4()), "tid": str(uuid4()),
    }  # fmt: skip
    key = OKPKey.import_key(json.loads(PRIVATE))

    def signed(given: dict[str, Any]) -> str:
        return jwt.encode({"alg": ALGORITHM, "kid": key.kid}, given, key, algorithms=[ALGORITHM])

    Verifier(PUBLIC).verify(signed(claims))
    changed = {name: value for name, value in {**claims, **change}.items() if value is not None}
    refused(Verifier(PUBLIC), signed(changed))


def test_only_identity_can_sign() -> None:
    other_private, other_public = generate_signing_keys()
    token = Signer(other_private).sign(a_principal())
    refused(Verifier(PUBLIC), token)
    Verifier(other_public).verify(token)
    with pytest.raises(ValueError, match="public key"):
        Signer(json.dumps(json.loads(PUBLIC)["keys"][0]))


def test_several_keys_verify_so_that_they_can_be_changed() -> None:
    new_private, new_public = generate_signing_keys()
    both = json.dumps({"keys": [*json.loads(PUBLIC)["keys"], *json.loads(new_public)["keys"]]})
    for private in (PRIVATE, new_private):
        Verifier(both).verify(Signer(private).sign(a_principal()))


def test_pem_keys_work_as_well() -> None:
    key = OKPKey.generate_key("Ed25519", private=True)
    private, open_ = key.as_pem(private=True).decode(), key.as_pem(private=False).decode()
    Verifier(open_).verify(Signer(private).sign(a_principal()))


@pytest.mark.parametrize("text", ["", "x", "{}", '{"keys": []}', '{"kty": "oct", "k": "c2VjcmV0"}', "[1]"])
def test_a_wrong_key_is_refused_at_the_start_without_being_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="key") as caught:
        Verifier(text)
    assert "c2VjcmV0" not in str(caught.value)


@pytest.mark.parametrize("text", ["", ".", "..", "a.b.c", "x" * 10_000, "é.é.é", "eyJhbGciOiJub25lIn0.e30."])
def test_what_is_no_token_is_refused(text: str) -> None:
    refused(Verifier(PUBLIC), text)


def test_roles_stand_above_each_other_and_service_apart() -> None:
    assert allow(Role.VIEWER).roles == {Role.VIEWER, Role.OPERATOR, Role.ADMIN}
    assert allow(Role.OPERATOR).roles == {Role.OPERATOR, Role.ADMIN}
    assert allow(Role.ADMIN).roles == {Role.ADMIN}
    assert allow(Role.OPERATOR, Role.SERVICE).roles == {Role.OPERATOR, Role.ADMIN, Role.SERVICE}
    with pytest.raises(ValueError, match="at least one role"):
        allow()


def test_marks_of_a_route_are_what_all_of_them_let_pass() -> None:
    assert marks_of([]) == frozenset()
    assert marks_of([public]) == {"public"}
    assert marks_of([allow(Role.VIEWER), allow(Role.ADMIN)]) == {"admin"}
    assert marks_of([public, allow(Role.ADMIN)]) == {"admin"}
