-- What the listener and the commands ask of the database: one block per query, named in its first line.
-- Parameters are psycopg2's, by name.

-- lesser_owners --
-- asked before all else: code of these roles would run with the rights of this superuser. Nothing but the
-- catalogue is read, whatever is on the session's path
set local search_path = pg_catalog, pg_temp;
select distinct r.rolname as owner, session_user as superuser
from (
    select n.nspowner as owner from pg_namespace n where n.nspname = 'dagstop'
    union all
    select c.relowner from pg_class c where c.relnamespace = to_regnamespace('dagstop')::oid
    union all
    select p.proowner from pg_proc p where p.pronamespace = to_regnamespace('dagstop')::oid
    union all
    select c.relowner
    from pg_trigger t
    join pg_class c on c.oid = t.tgrelid
    join pg_proc p on p.oid = t.tgfoid
    where p.pronamespace = to_regnamespace('dagstop')::oid
) as o
join pg_roles r on r.oid = o.owner
-- a member of a superuser's role can become that, as a superuser can become all
where exists (select from pg_roles s where s.rolsuper and pg_has_role(session_user, s.oid, 'member'))
    and not exists (select from pg_roles s where s.rolsuper and pg_has_role(r.oid, s.oid, 'member'))
order by r.rolname;

-- open_orders --
select * from dagstop.open_orders(%(host)s, %(ids)s::bigint[], %(max_orders)s::integer);

-- rung_orders --
select * from dagstop.open_orders(%(host)s, dagstop.rung_for(%(host)s, %(max_orders)s), %(max_orders)s::integer);

-- would_be_order --
select * from dagstop.would_be_order(%(dag_id)s, %(run_id)s, %(task_id)s);

-- task_states --
select * from dagstop.task_states(%(ti_ids)s::text[], %(keys)s::jsonb);

-- write_report --
select dagstop.write_report(
    %(order_id)s, %(host)s, %(outcome)s, %(first_signal_at)s::timestamptz, %(last_death_at)s::timestamptz, %(detail)s::jsonb
);

-- heartbeat --
select * from dagstop.heartbeat(%(host)s, %(listener_id)s::uuid, %(version)s, %(detail)s::jsonb);

-- chores --
-- a message of its own: Postgres refuses it inside a transaction
call dagstop.do_chores();

-- settle --
-- what follows a final report: closes the order if it was the last one, tells Airflow's audit log
call dagstop.do_chores(%(ids)s::bigint[]);

-- retire --
select dagstop.retire(%(host)s, %(listener_id)s::uuid);

-- trigger_health --
select * from dagstop.trigger_health();

-- listeners --
select
    *, seen_at > (select clock_timestamp() - dagstop.seconds_of('live_seconds')) as live,
    host in (select dagstop.gone_hosts()) as gone, clock_timestamp() as db_now
from dagstop.listener
order by host;

-- forget_host --
select dagstop.forget_host(%(host)s) as forgotten;

-- superuser_listeners --
-- the hosts whose listener logs in as a superuser, where code of a lesser role is what it calls
select h.host, h.role_name
from dagstop.host_role h
join pg_roles r on r.rolname::text = h.role_name
where r.rolsuper and exists (
    select from pg_namespace n join pg_roles o on o.oid = n.nspowner where n.nspname = 'dagstop' and not o.rolsuper
)
order by h.host;

-- status --
-- those that are shown are chosen first: the view would work out for all what they wait for
select *, clock_timestamp() as db_now
from dagstop.open_order
where order_id = any (array(
    select id from dagstop.stop_order
    where closed_at is null
        and created_at > (select clock_timestamp() - dagstop.seconds_of('order_seconds'))
    order by created_at, id
    limit %(limit)s
))
order by order_id;

-- history --
select *, clock_timestamp() as db_now
from dagstop.history
where (%(dag_id)s::text is null or dag_id = %(dag_id)s) and (%(run_id)s::text is null or run_id = %(run_id)s)
order by order_id desc, host
limit %(limit)s;

-- not_clear --
-- where the latest orders of the last day left something alive or unseen; not those that were to stop nothing
select
    o.id, o.dag_id, o.run_id, o.logical_date, o.task_id, o.map_index, r.host, r.outcome, r.detail
from dagstop.stop_order o
join dagstop.report r on r.order_id = o.id
where o.created_at > (select clock_timestamp() - interval '1 day')
    and r.outcome not in ('stopped', 'superseded', 'nothing_found')
    and o.hands_off is null
    and not exists (
        select from dagstop.stop_order later
        where later.dag_id = o.dag_id and later.run_id is not distinct from o.run_id and later.id > o.id
            and later.logical_date is not distinct from o.logical_date
            and (
                later.task_id is null
                or (later.task_id is not distinct from o.task_id and later.map_index is not distinct from o.map_index)
            )
    )
order by o.id desc, r.host
limit %(limit)s;

-- settings --
select name, value, comment from dagstop.setting order by name;

-- set_setting --
insert into dagstop.setting (name, value, comment)
values (%(setting)s, %(value)s, %(comment)s)
on conflict (name) do update set value = excluded.value;

-- unset_setting --
-- every reader has the default for a row that is not there
delete from dagstop.setting where name = %(setting)s;

-- in_recovery --
select pg_is_in_recovery() as in_recovery;

-- read_only --
select current_setting('transaction_read_only') = 'on' as read_only;

-- revision --
select version_num from dagstop.alembic_version;

-- task_hosts --
select hostname, tasks from dagstop.task_hosts() order by hostname;

-- running_in_failed_runs --
select * from dagstop.running_in_failed_runs();

-- recent_faults --
-- backing off from a lock that Airflow holds is not a fault once the next heartbeat has done the rest
select * from dagstop.fault
where at > (select clock_timestamp() - interval '1 day')
    and (sqlstate <> '55P03' or exists (select from dagstop.stop_order where kind = 'run' and not cascaded))
    -- nor is an order that the chores have written since
    and (sqlstate <> 'DS002' or exists (select from dagstop.unwritten_order where id > 0))
order by at desc, id desc
limit 100;

-- fail_run --
-- here and below: Airflow's columns are compared as text with text, or Postgres would prefer the operator
-- that a stranger made for their very type in a schema on the path of whoever types `dagstop stop`
with changed as (
    update {airflow}.dag_run
    set state = 'failed', end_date = coalesce(end_date, now())
    where dag_id::text = %(dag_id)s::text and run_id::text = %(run_id)s::text and state::text is distinct from 'failed'::text
    returning 1
)
select
    exists (select from {airflow}.dag_run where dag_id::text = %(dag_id)s::text and run_id::text = %(run_id)s::text) as found,
    (select count(*) from changed) as changed;

-- stop_again --
select dagstop.stop_again(%(dag_id)s, %(run_id)s);

-- keyed_by_run --
-- task_instance has the run_id since Airflow 2.2, before that the execution_date
select exists (
    select from pg_attribute
    where attrelid = format('%%I.task_instance', %(schema)s::text)::regclass::oid and attname = 'run_id' and not attisdropped
) as keyed_by_run;

-- fail_task --
with changed as (
    update {airflow}.task_instance
    set state = 'failed', end_date = now(), duration = coalesce(extract(epoch from now() - start_date), duration)
    where dag_id::text = %(dag_id)s::text and run_id::text = %(run_id)s::text and task_id::text = %(task_id)s::text
        and (state is null or state::text <> all (array['success', 'failed', 'skipped', 'upstream_failed', 'removed']))
    returning 1
)
select
    exists (
        select from {airflow}.task_instance
        where dag_id::text = %(dag_id)s::text and run_id::text = %(run_id)s::text and task_id::text = %(task_id)s::text
    ) as found,
    (select count(*) from changed) as changed;

-- fail_task_by_date --
with run as (
    select execution_date from {airflow}.dag_run where dag_id::text = %(dag_id)s::text and run_id::text = %(run_id)s::text
), changed as (
    update {airflow}.task_instance
    set state = 'failed', end_date = now(), duration = coalesce(extract(epoch from now() - start_date), duration)
    where dag_id::text = %(dag_id)s::text and execution_date = (select execution_date from run) and task_id::text = %(task_id)s::text
        and (state is null or state::text <> all (array['success', 'failed', 'skipped', 'upstream_failed', 'removed']))
    returning 1
)
select
    exists (
        select from {airflow}.task_instance
        where dag_id::text = %(dag_id)s::text and execution_date = (select execution_date from run) and task_id::text = %(task_id)s::text
    ) as found,
    (select count(*) from changed) as changed;

-- orders_of --
-- the latest order of a run, or the latest one of each task instance of a task
select distinct on (o.task_id, o.map_index) o.id, o.created_at, o.closed_at
from dagstop.stop_order o
where o.dag_id = %(dag_id)s and o.run_id = %(run_id)s and o.task_id is not distinct from %(task_id)s::text
order by o.task_id, o.map_index, o.id desc;

-- progress --
select
    o.id, o.dag_id, o.run_id, o.task_id, o.closed_at,
    coalesce(w.waiting_for, '{}') as waiting_for,
    coalesce((
        select jsonb_agg(jsonb_build_object(
            'host', r.host, 'outcome', r.outcome,
            'processes', jsonb_array_length(coalesce(r.detail -> 'processes', '[]')),
            'containers', jsonb_array_length(coalesce(r.detail -> 'containers', '[]')),
            'spared', jsonb_array_length(coalesce(r.detail -> 'spared', '[]')), 'why', r.detail -> 'spared' -> 0 ->> 'why',
            'problem', r.detail ->> 'problem', 'rest', r.detail - array['processes', 'containers'],
            'alive', (
                select jsonb_agg(item -> 'alive')
                from jsonb_array_elements(
                    coalesce(r.detail -> 'processes', '[]') || coalesce(r.detail -> 'containers', '[]')
                ) as item
                where item ->> 'died_at' is null
            ),
            'milliseconds', 1000 * extract(epoch from r.last_death_at - o.created_at),
            'container_milliseconds', (
                select 1000 * extract(epoch from max((c ->> 'died_at')::timestamptz) - o.created_at)
                from jsonb_array_elements(coalesce(r.detail -> 'containers', '[]')) as c
            )) order by r.host)
        from dagstop.report r
        where r.order_id = o.id
    ), '[]') as reports,
    -- a host on which nobody looked: no listener of that name lives, none had reported before it died
    array(
        select distinct t.hostname
        from dagstop.stop_target t
        where t.order_id = o.id and t.state_before in ('running', 'restarting', 'shutdown')
            and coalesce(t.hostname, '') not in ('', 'localhost')
            and not exists (
                select from dagstop.listener l
                where (l.host = t.hostname or coalesce(l.detail -> 'host_names' ? t.hostname, false))
                    and (
                        (l.seen_at > clock_timestamp() - dagstop.seconds_of('live_seconds') and not l.host = any (coalesce(o.closed_without, '{}')))
                        or exists (
                            select from dagstop.report r
                            where r.order_id = o.id and r.host = l.host and r.outcome is not null
                        )
                    )
            )
            and not exists (
                select from dagstop.report r where r.order_id = o.id and r.host = t.hostname and r.outcome is not null
            )
        order by t.hostname
    ) as unheard
from dagstop.stop_order o
left join dagstop.open_order w on w.order_id = o.id and w.order_id = any (%(ids)s::bigint[])
where o.id = any (%(ids)s::bigint[])
order by o.id;
