-- What the page asks (`dagstop page`), besides queries.sql: one block per query. All of it only reads.

-- page_orders --
-- the newest orders, older than `before` if that is given; what the page shows of each without its evidence.
-- A filter looks through the newest 5000 at most, of one run (`dag_id` with `run_id` or `date`) where that is
-- given. A host that found nothing is only counted: with many hosts most do.
with chosen as (
    select o.*
    from (
        select * from dagstop.stop_order
        where (%(before)s::bigint is null or id < %(before)s)
            and (%(dag_id)s::text is null or dag_id = %(dag_id)s)
            and (%(run_id)s::text is null or run_id = %(run_id)s)
            and (%(date)s::timestamptz is null or logical_date = %(date)s)
        order by id desc
        limit 5000
    ) as o
    where (%(words)s = '' or strpos(lower(concat_ws(' ', o.dag_id, o.run_id, o.task_id)), lower(%(words)s)) > 0)
        and case %(only)s
            when 'unkillable' then exists (
                select from dagstop.report r
                where r.order_id = o.id and (r.outcome = 'unkillable' or r.detail ? 'problem')
            )
            when 'spared' then exists (
                select from dagstop.report r
                where r.order_id = o.id
                    and exists (
                        select from jsonb_array_elements(coalesce(r.detail -> 'spared', '[]')) as s where not s ? 'whose'
                    )
            )
            when 'not_found' then exists (
                select from dagstop.report r
                where r.order_id = o.id and r.outcome in ('could_not_look', 'not_found')
            )
            when 'refused' then exists (select from dagstop.refused_write w where w.order_id = o.id)
            else true
        end
    order by o.id desc
    limit %(limit)s
)
select
    o.id, o.kind, o.dag_id, o.run_id, o.logical_date, o.task_id, o.map_index, o.created_at, o.session_user_name,
    o.application_name, host(o.client_addr) as client_addr, o.backend_pid, o.self_reported, o.state_before, o.state_after,
    o.cascaded, o.closed_at,
    (select count(*) from dagstop.stop_target t where t.order_id = o.id) as targets,
    (select count(*) from dagstop.refused_write w where w.order_id = o.id) as refused_writes,
    coalesce(r.hosts, '[]') as hosts,
    r.nothing_found
from chosen o
cross join lateral (
    select
        count(*) filter (where found_nothing) as nothing_found,
        jsonb_agg(jsonb_build_object(
            'host', host, 'outcome', outcome, 'first_signal_at', first_signal_at, 'last_death_at', last_death_at,
            'processes', processes, 'containers', containers, 'spared', spared, 'alive', alive,
            'not_found', not_found, 'problem', problem
        ) order by host) filter (where not found_nothing) as hosts
    from (
        select
            p.host, p.outcome, p.first_signal_at, p.last_death_at,
            jsonb_array_length(coalesce(p.detail -> 'processes', '[]')) as processes,
            jsonb_array_length(coalesce(p.detail -> 'containers', '[]')) as containers,
            (
                select count(*) from jsonb_array_elements(coalesce(p.detail -> 'spared', '[]')) as s where not s ? 'whose'
            ) as spared,
            jsonb_array_length(coalesce(p.detail -> 'not_found', '[]')) as not_found,
            (
                select count(*)
                from jsonb_array_elements(
                    coalesce(p.detail -> 'processes', '[]') || coalesce(p.detail -> 'containers', '[]')
                ) as e (item)
                where e.item ->> 'died_at' is null
            ) as alive,
            p.detail ->> 'problem' as problem,
            coalesce(p.outcome = 'nothing_found' and p.detail -> 'not_found' is null, false) as found_nothing
        from dagstop.report p
        where p.order_id = o.id
    ) as each
) as r
order by o.id desc;

-- page_open --
-- the newest of the open orders, and for which of the live hosts each waits; those are chosen first, since
-- the view would work out for all what they wait for
select order_id as id, waiting_for
from dagstop.open_order
where order_id = any (array(select id from dagstop.stop_order where closed_at is null order by created_at desc, id desc limit 40))
order by order_id desc;

-- page_order --
select o.*, host(o.client_addr) as client_addr, w.waiting_for
from dagstop.stop_order o
left join dagstop.open_order w on w.order_id = o.id and w.order_id = %(id)s
where o.id = %(id)s;

-- page_reports --
select host, outcome, first_signal_at, last_death_at, reported_at, detail
from dagstop.report
where order_id = %(id)s
order by outcome is not distinct from 'nothing_found', outcome is not null, host;

-- page_targets --
select task_id, map_index, try_number, hostname, pid, operator, state_before, started_at, released_at
from dagstop.stop_target
where order_id = %(id)s
order by task_id, map_index
limit 500;

-- page_refused --
select at, task_id, map_index, wanted_state, session_user_name, application_name, host(client_addr) as client_addr
from dagstop.refused_write
where order_id = %(id)s
order by id
limit 200;

-- page_numbers --
-- the last day at a glance; all of it by the index on the orders' age
with recent as (
    select * from dagstop.stop_order where created_at > (select clock_timestamp() - interval '1 day')
), still_open as (
    -- as in dagstop.open_order, which would work out for each what it waits for
    select created_at from dagstop.stop_order
    where closed_at is null and created_at > (select clock_timestamp() - dagstop.seconds_of('order_seconds'))
), took as (
    select extract(epoch from max(r.last_death_at) - o.created_at)::float8 as seconds
    from recent o
    join dagstop.report r on r.order_id = o.id
    where r.last_death_at is not null
    group by o.id, o.created_at
)
select
    clock_timestamp() as db_now,
    (select count(*) from recent where kind = 'run') as run_orders,
    (select count(*) from recent where kind = 'task') as task_orders,
    (select count(*) from recent o join dagstop.refused_write w on w.order_id = o.id) as refused_writes,
    (select percentile_cont(0.5) within group (order by seconds) from took) as median_seconds,
    (select max(seconds) from took) as slowest_seconds,
    (select count(*) from dagstop.fault where at > (select clock_timestamp() - interval '1 day')) as faults,
    (select count(*) from still_open) as open_orders,
    (select extract(epoch from clock_timestamp() - min(created_at))::float8 from still_open) as oldest_open_seconds;

-- page_now --
select clock_timestamp() as db_now;
