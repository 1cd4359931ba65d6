"""The SQL by which core-hours and contention come from samples: one text for roll-ups and for hours not rolled up.

An interval belongs to the hour in which it ends; core-seconds are our MHz over the MHz of one core of that host, times
its length; lent time is host-time with our machines on, contended time the part of it with the host above 90 %.
"""

UNKNOWN_CORE_MHZ = 2600
CONTENDED_ABOVE = 0.9

_MEASURED = f"""
    measured as (
        select c.cluster_id, c.hour, s.at,
            coalesce(s.cpu_ours_mhz, 0) * s.interval_s / case
                when h.cores > 0 and s.cpu_capacity_mhz > 0 then s.cpu_capacity_mhz / h.cores
                else {UNKNOWN_CORE_MHZ} end as core_s,
            case when s.machines > 0 and s.cpu_used_mhz is not null and s.cpu_capacity_mhz > 0
                then s.interval_s else 0 end as lent_s,
            case when s.machines > 0 and s.cpu_capacity_mhz > 0
                and s.cpu_used_mhz > {CONTENDED_ABOVE} * s.cpu_capacity_mhz
                then s.interval_s else 0 end as contended_s
        from chosen c
        join host_sample s on s.cluster_id = c.cluster_id
            and s.at > c.hour and s.at <= c.hour + interval '1 hour'
        left join host h on h.cluster_id = s.cluster_id and h.host = s.host
    )
"""

CLUSTER_FIGURES = f"""
    {_MEASURED},
    counted as (
        select c.cluster_id, c.hour, count(*) as samples
        from chosen c
        join cluster_sample s on s.cluster_id = c.cluster_id
            and s.at > c.hour and s.at <= c.hour + interval '1 hour'
        group by c.cluster_id, c.hour
    ),
    summed as (
        select cluster_id, hour, sum(core_s) as core_s, sum(lent_s) as lent_s, sum(contended_s) as contended_s
        from measured group by cluster_id, hour
    ),
    figures as (
        select n.cluster_id, n.hour, n.samples, coalesce(m.core_s, 0) as core_s,
            coalesce(m.lent_s, 0) as lent_s, coalesce(m.contended_s, 0) as contended_s
        from counted n left join summed m using (cluster_id, hour)
    )
"""
"""After a CTE `chosen(cluster_id, hour)`: what each of these hours adds up to, in `figures`."""

ORGANISATION_FIGURES = f"""
    {_MEASURED},
    per_tick as (
        select cluster_id, hour, at, sum(core_s) as core_s
        from measured group by cluster_id, hour, at having sum(core_s) > 0
    ),
    running as (
        select t.cluster_id, t.hour, t.at, t.core_s, m.organisation_id, sum(m.vcpus) as vcpus
        from per_tick t
        left join machine_span m on m.cluster_id = t.cluster_id
            and m.running_from < t.at and (m.running_to is null or m.running_to >= t.at)
        group by t.cluster_id, t.hour, t.at, t.core_s, m.organisation_id
    ),
    shared as (
        select cluster_id, hour, coalesce(organisation_id, cast('{{nobody}}' as uuid)) as organisation_id,
            core_s * coalesce(vcpus / sum(vcpus) over (partition by cluster_id, at), 1) as core_s
        from running
    ),
    figures as (
        select cluster_id, hour, organisation_id, sum(core_s) as core_s
        from shared group by cluster_id, hour, organisation_id
    )
"""
"""The same by organisation: each tick goes to the organisations by their share of the vCPUs that ran then."""

NOBODY = "00000000-0000-0000-0000-000000000000"
"""Stands for the organisation of work that no machine is known for."""

ORGANISATION_FIGURES = ORGANISATION_FIGURES.format(nobody=NOBODY)
