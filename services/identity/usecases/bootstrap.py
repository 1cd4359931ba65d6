"""The first start: somebody must be there to let others in."""

from datetime import datetime, timedelta

import structlog
from sqlalchemy import func, or_, select

from libs.common import personal_tokens
from libs.common.auth import Role
from libs.common.db import Session
from libs.common.ids import new_id
from services.identity.domain import ADMIN, MAX_TOKEN_DAYS
from services.identity.models import Organisation, Token, User
from services.identity.usecases.auditing import By, What, note
from services.identity.usecases.tokens import Kind, add_token

log = structlog.get_logger(__name__)

DEFAULT_ORGANISATION = "default"


async def bootstrap(session: Session, admin_token: str | None, now: datetime) -> None:
    """Make sure of the organisation `default` and of an administrator; a repeat changes nothing.

    The token is registered for the user `admin` only while no administrator can come in. No password is set.
    """
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtext("identity.bootstrap"))))
    organisation = (
        await session.scalars(select(Organisation).order_by(Organisation.created_at).limit(1))
    ).first()
    if organisation is None:
        organisation = Organisation(id=new_id(), name=DEFAULT_ORGANISATION, created_at=now)
        session.add(organisation)
        await session.flush()
    admin = (await session.scalars(select(User).where(User.name == ADMIN))).first()
    if admin is None:
        if (await session.scalars(select(User.id).limit(1))).first() is not None:
            return
        admin = User(
            id=new_id(), organisation_id=organisation.id, name=ADMIN, role=ADMIN,
            revision=1, created_at=now, updated_at=now,
        )  # fmt: skip
        session.add(admin)
        await session.flush()
        note(session, By(), What.STARTED, admin, now, organisation=organisation.name)
        log.info("identity.bootstrapped", user=ADMIN, organisation=organisation.name)
    if admin_token and not await _somebody_can_come_in(session, now):
        await _let_in(session, admin, admin_token, now)


async def _somebody_can_come_in(session: Session, now: datetime) -> bool:
    """Whether an administrator has a password or a token that is good."""
    good = select(Token.user_id).where(Token.revoked_at.is_(None), Token.expires_at > now)
    may = or_(User.password_hash.is_not(None), User.id.in_(good))
    admins = select(User.id).where(User.role == Role.ADMIN, User.disabled_at.is_(None), may).limit(1)
    return (await session.scalars(admins)).first() is not None


async def _let_in(session: Session, admin: User, admin_token: str, now: datetime) -> None:
    """At the first start, and again where the last administrator is locked out: who holds the settings may."""
    parsed = personal_tokens.parse(admin_token)
    if parsed is not None and await session.get(Token, parsed[0]) is not None:
        log.warning(
            "identity.first_token_spent", user=ADMIN, remedy="set a fresh one: `tides keys` prints it"
        )
        return
    admin.disabled_at, admin.role = None, ADMIN
    fresh = add_token(
        session,
        admin,
        admin_token,
        Kind.PERSONAL,
        "first start",
        now + timedelta(days=MAX_TOKEN_DAYS),
        now,
    )
    note(session, By(), What.TOKEN_CREATED, fresh.token, now, user=ADMIN)
    log.info("identity.first_token_registered", user=ADMIN)
