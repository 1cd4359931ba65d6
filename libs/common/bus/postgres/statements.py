"""The tables of the bus and the statements on them. One statement is one transaction."""

CHANNEL = "tides_bus"

CREATE_SCHEMA = "create schema bus"
CREATE = """
create table bus.queue (
    name text primary key,
    expires_s double precision,
    delivery_limit integer not null
);
create table bus.binding (
    pattern text not null,
    queue text not null references bus.queue (name) on delete cascade,
    matcher text,
    primary key (pattern, queue)
);
create table bus.message (
    id bigint generated always as identity primary key,
    queue text not null,
    message_id text not null,
    key text not null,
    headers jsonb not null,
    body bytea not null,
    visible_at timestamptz not null default now(),
    expires_at timestamptz,
    deliveries integer not null default 0,
    dead_at timestamptz,
    reason text
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
create index message_alive on bus.message (queue, id) where dead_at is null;
create index message_dead on bus.message (id) where dead_at is not null;
create index message_expiring on bus.message (expires_at) where expires_at is not null;
comment on column bus.binding.matcher is 'Regular expression of a pattern with * or #; null: a plain key.';
comment on column bus.message.visible_at is 'Free to be taken from then on: the end of a lease or of a pause.';
"""

DECLARE_QUEUE = """
insert into bus.queue (name, expires_s, delivery_limit) values ($1, $2, $3)
on conflict (name) do update set expires_s = excluded.expires_s, delivery_limit = excluded.delivery_limit"""

BIND = "insert into bus.binding (queue, pattern, matcher) values ($1, $2, $3) on conflict do nothing"

KNOWS = "select exists (select from bus.queue where name = $1)"

# A message with a target goes to that queue alone, else wherever a binding matches.
PUBLISH = """
with incoming as (
    select * from unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::text[])
        with ordinality as i (message_id, key, headers, body, target, position)
), inserted as (
    insert into bus.message (queue, message_id, key, headers, body, expires_at)
    select q.name, i.message_id, i.key, i.headers::jsonb, i.body, now() + q.expires_s * interval '1 second'
    from incoming i
    cross join lateral (
        select i.target as queue where i.target is not null
        union select b.queue from bus.binding b
            where i.target is null and b.matcher is null and b.pattern = i.key
        union select b.queue from bus.binding b
            where i.target is null and b.matcher is not null and i.key ~ b.matcher
    ) as bound
    join bus.queue q on q.name = bound.queue
    order by i.position
    returning queue
), queues as (select distinct queue from inserted)
select queue, pg_notify('tides_bus', $6::text || ' ' || queue) from queues"""

CLAIM = """
with wanted as (select * from unnest($1::text[], $2::int[]) as w (queue, room)),
picked as (
    select m.id from wanted w
    join bus.queue q on q.name = w.queue
    cross join lateral (
        select id from bus.message
        where queue = w.queue and dead_at is null and visible_at <= now()
            and (expires_at is null or expires_at > now()) and deliveries < q.delivery_limit
        order by id limit w.room for update skip locked
    ) m
)
update bus.message m
set visible_at = now() + $3::float8 * interval '1 second', deliveries = deliveries + 1
from picked where m.id = picked.id
returning m.id, m.queue, m.message_id, m.key, m.headers::text as headers, m.body, m.deliveries"""

# `deliveries` fences: whoever lost the lease to another taker changes nothing.
EXTEND = """
update bus.message m set visible_at = now() + $3::float8 * interval '1 second'
from unnest($1::bigint[], $2::int[]) as held (id, deliveries)
where m.id = held.id and m.deliveries = held.deliveries and m.dead_at is null"""

FINISH = "delete from bus.message where id = any($1::bigint[])"

# Without a pause a message is parked.
FAIL = """
update bus.message m
set visible_at = now() + coalesce(failed.pause_s, 0) * interval '1 second', reason = failed.reason,
    dead_at = case when failed.pause_s is null then now() end
from unnest($1::bigint[], $2::int[], $3::float8[], $4::text[]) as failed (id, deliveries, pause_s, reason)
where m.id = failed.id and m.deliveries = failed.deliveries and m.dead_at is null"""

RELEASE = """
update bus.message m set visible_at = now(), deliveries = greatest(m.deliveries - 1, 0)
from unnest($1::bigint[], $2::int[]) as held (id, deliveries)
where m.id = held.id and m.deliveries = held.deliveries and m.dead_at is null
returning m.queue, pg_notify('tides_bus', $3::text || ' ' || m.queue)"""

DROP_EXPIRED = "delete from bus.message where expires_at <= now() and visible_at <= now() and dead_at is null"

# Messages whose every delivery ended with the death of the consumer.
BURY_FATAL = """
update bus.message m
set dead_at = now(), reason = coalesce(m.reason, 'every consumer ended while handling it')
from bus.queue q
where q.name = m.queue and m.dead_at is null and m.visible_at <= now() and m.deliveries >= q.delivery_limit
returning m.queue, m.message_id, m.key"""

DEPTH = """
select count(*) from bus.message
where queue = any($1::text[]) and dead_at is null
    and (expires_at is null or expires_at > now() or (deliveries > 0 and visible_at > now()))"""

LOOK = """
select q.name, count(m.id) filter (where m.deliveries = 0 or m.visible_at <= now()) as waiting
from bus.queue q
left join bus.message m on m.queue = q.name and m.dead_at is null and (m.expires_at is null or m.expires_at > now())
where q.name = any($1::text[]) group by q.name"""

COUNT_DEAD = "select count(*) from bus.message where dead_at is not null"

DEAD = """
select id, queue, message_id, key, headers::text as headers, body, reason from bus.message
where dead_at is not null order by id limit $1"""

RETRY_DEAD = """
update bus.message m
set dead_at = null, reason = null, deliveries = 0, visible_at = now(),
    expires_at = now() + q.expires_s * interval '1 second'
from bus.queue q
where q.name = m.queue and m.dead_at is not null and ($1::bigint is null or m.id = $1)
returning m.queue, pg_notify('tides_bus', $2::text || ' ' || m.queue)"""


def matcher_of(pattern: str) -> str | None:
    """The regular expression of an AMQP topic pattern (`*`: one word, `#`: any number of them).

    None where the pattern is a plain key.
    """
    words = pattern.split(".")
    if "*" not in words and "#" not in words:
        return None
    expression, separator = "", ""
    for word in words:
        if word == "#":
            expression += r"(\.[^.]+)*" if separator else r"([^.]+\.)*"
        else:
            expression += separator + (r"[^.]+" if word == "*" else _escaped(word))
            separator = r"\."
    return f"^{expression}$" if separator else ".*"


def _escaped(word: str) -> str:
    return "".join(letter if letter.isalnum() or letter == "_" else f"\\{letter}" for letter in word)
