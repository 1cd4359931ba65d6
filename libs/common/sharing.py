"""How a service shares out what it works on among its replicas: signs of life and leases, by the database's clock.

Only who has lived as long as a lease is left a part: a replica that dies again and again takes nothing along.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import and_, delete, exists, func, or_, select, true, union
from sqlalchemy.dialects.postgresql import insert

from libs.common.db import Session

RENEW_AFTER = timedelta(seconds=2)
KEEP = timedelta(hours=1)


def fair_share(resources: int, replicas: int) -> int:
    """How many resources one replica may hold: rounded up, so that all together hold all."""
    return -(-resources // max(1, replicas))


@dataclass(frozen=True, slots=True)
class Share:
    """What one replica holds, and who else is alive."""

    resources: int
    held: int
    is_proven: bool
    """Whether it has lived as long as a lease."""
    others: int
    proven: int
    """Of the others those that have lived so long."""

    @property
    def keeps(self) -> int:
        """What is held above this is handed back, for others who will not have died before they take it."""
        return fair_share(self.resources, 1 + self.proven)

    @property
    def takes(self) -> int:
        """Up to so many it takes of what is free; a newcomer leaves that to the proven, if there are any."""
        if self.is_proven:
            return self.keeps
        return 0 if self.proven else fair_share(self.resources, 1 + self.others)


@dataclass(frozen=True, slots=True)
class Sharing:
    """The tables of a service in which it stands who is alive, and who holds what."""

    replica: type[Any]
    """With `token`, `since` and `alive_until`."""
    resource: type[Any]
    """With `gone`, `lease_token` and `lease_until`."""
    lease: timedelta

    async def say_alive(self, session: Session, token: UUID, **about: object) -> None:
        """So that others leave this replica its share, also while it holds nothing yet."""
        clock = func.clock_timestamp()
        alive = insert(self.replica).values(token=token, alive_until=clock + self.lease, **about)
        await session.execute(
            alive.on_conflict_do_update(
                index_elements=["token"],
                set_={"alive_until": clock + self.lease},
                where=self.replica.alive_until < clock + self.lease - RENEW_AFTER,
            )
        )

    async def look(self, session: Session, token: UUID) -> Share:
        """The share of a replica that has just said that it is alive."""
        replica, resource, clock = self.replica, self.resource, func.clock_timestamp()
        is_held = resource.lease_until > clock
        # By the last that was heard of it: one that died young does not grow older.
        is_proven = replica.alive_until >= replica.since + 2 * self.lease
        is_known = exists().where(replica.token == resource.lease_token)
        # A replica of a program of before says of itself nothing but its leases.
        of_before = and_(is_held, resource.lease_token.is_not(None), ~is_known, resource.gone.is_(False))
        living = union(
            select(replica.token.label("token"), is_proven.label("is_proven")).where(
                or_(replica.alive_until > clock, replica.token == token)
            ),
            select(resource.lease_token, true()).where(of_before),
        ).subquery()
        is_other = living.c.token != token
        who = select(
            func.coalesce(func.bool_or(living.c.is_proven).filter(~is_other), False).label("is_proven"),
            func.count().filter(is_other).label("others"),
            func.count().filter(is_other, living.c.is_proven).label("proven"),
        ).subquery()
        what = select(
            func.count().label("resources"),
            func.count().filter(is_held, resource.lease_token == token).label("held"),
        ).where(resource.gone.is_(False))
        counted = what.subquery()
        return Share(*(await session.execute(select(counted, who).join(who, true()))).one())

    async def leave(self, session: Session, token: UUID) -> None:
        """An orderly end: nobody leaves this replica anything any more."""
        await session.execute(delete(self.replica).where(self.replica.token == token))

    async def forget(self, session: Session) -> None:
        """Forget replicas that ended long ago."""
        await session.execute(
            delete(self.replica).where(self.replica.alive_until < func.clock_timestamp() - KEEP)
        )
