"""Hours that are over are added up, and kept as five-minute means and maxima when their samples have gone."""

from datetime import datetime, timedelta

from sqlalchemy import delete, select, text

from libs.common.db import Session
from services.stats.domain.samples import MEASURES
from services.stats.models import dirty_hour, five_minutes
from services.stats.usecases.figures import CLUSTER_FIGURES, ORGANISATION_FIGURES

HOURS_AT_ONCE = 24
SETTLED_AFTER = timedelta(hours=1, minutes=2)
KEEP_FIVE_MINUTES = timedelta(days=400)

_CHOSEN = """
    chosen as (
        select * from unnest(cast(:ids as uuid[]), cast(:hours as timestamptz[])) as c (cluster_id, hour)
    )
"""
_ROLL_CLUSTERS = text(f"""
    with {_CHOSEN}, {CLUSTER_FIGURES}
    insert into cluster_hour (cluster_id, hour, samples, core_s, lent_s, contended_s)
    select cluster_id, hour, samples, core_s, lent_s, contended_s from figures
    on conflict (cluster_id, hour) do update set samples = excluded.samples, core_s = excluded.core_s,
        lent_s = excluded.lent_s, contended_s = excluded.contended_s
""")
_FORGET_ORGANISATIONS = text(f"""
    with {_CHOSEN}
    delete from organisation_hour o using chosen c where o.cluster_id = c.cluster_id and o.hour = c.hour
""")
_ROLL_ORGANISATIONS = text(f"""
    with {_CHOSEN}, {ORGANISATION_FIGURES}
    insert into organisation_hour (cluster_id, hour, organisation_id, core_s)
    select cluster_id, hour, organisation_id, core_s from figures
""")
_FORGET_FIVE_MINUTES = text(f"""
    with {_CHOSEN}
    delete from five_minutes f using chosen c
    where f.cluster_id = c.cluster_id and f.at >= c.hour and f.at < c.hour + interval '1 hour'
""")


def _fold(source: str, host: str) -> str:
    bucket = "date_bin('5 minutes', at - interval '1 microsecond', hour)"
    kept = ", ".join(f"avg({name}), max({name})" for name in MEASURES)
    return f"select cluster_id, {bucket}, {host}, count(*), {kept} from {source} group by 1, 2, 3"


def sum_of_hosts(name: str) -> str:
    """How hosts' columns become the cluster's: a percentage is no sum."""
    return f"{'avg' if name == 'contention_percent' else 'sum'}({name}) as {name}"


_ROLL_FIVE_MINUTES = text(f"""
    with {_CHOSEN},
    measured as (
        select c.hour, s.* from chosen c
        join host_sample s on s.cluster_id = c.cluster_id
            and s.at > c.hour and s.at <= c.hour + interval '1 hour'
    ),
    whole as (
        select cluster_id, hour, at, {", ".join(sum_of_hosts(name) for name in MEASURES)}
        from measured group by cluster_id, hour, at
    )
    insert into five_minutes (cluster_id, at, host, samples,
        {", ".join(f"{name}_mean, {name}_max" for name in MEASURES)})
    {_fold("measured", "host")} union all {_fold("whole", "''")}
""")


async def roll_up(session: Session, now: datetime) -> int:
    """Add up some hours that are over and have changed; returns how many."""
    query = (
        select(dirty_hour.c.cluster_id, dirty_hour.c.hour)
        .where(dirty_hour.c.hour <= now - SETTLED_AFTER)
        .order_by(dirty_hour.c.hour, dirty_hour.c.cluster_id)
        .limit(HOURS_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    rows = (await session.execute(query)).all()
    if not rows:
        return 0
    chosen = {"ids": [row.cluster_id for row in rows], "hours": [row.hour for row in rows]}
    for statement in (
        _ROLL_CLUSTERS,
        _FORGET_ORGANISATIONS,
        _ROLL_ORGANISATIONS,
        _FORGET_FIVE_MINUTES,
        _ROLL_FIVE_MINUTES,
    ):
        await session.execute(statement, chosen)
    for row in rows:
        await session.execute(
            delete(dirty_hour).where(dirty_hour.c.cluster_id == row.cluster_id, dirty_hour.c.hour == row.hour)
        )
    return len(rows)


async def forget_five_minutes(session: Session, now: datetime) -> None:
    """Forget five-minute means of more than 400 days ago; the hours stay."""
    await session.execute(delete(five_minutes).where(five_minutes.c.at < now - KEEP_FIVE_MINUTES))
