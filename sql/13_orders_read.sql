-- Fired by: the listeners and the commands, through queries.sql.
-- Changes: nothing (a fault while reading Airflow's tables is recorded).
-- Leaves alone: Airflow's tables are only read, in the shape that they have at that moment.
-- Security definer: role dagstop_listener has no right on Airflow's tables, and sees of them only
-- what these functions show.
-- Each look at Airflow's tables ends with the error DSLET, which is caught: it lets their locks go at once. A
-- session that leaves its transaction open would else hold up a migration, and with it all of Airflow.

do $$
declare
    earlier regprocedure;
begin
    -- of an earlier release, which gave fewer columns
    for earlier in
        select p.oid from pg_catalog.pg_proc p
        where p.pronamespace = 'dagstop'::regnamespace and p.proname in ('open_orders', 'would_be_order')
            and 'finished_tasks' <> all (p.proargnames)
    loop
        execute pg_catalog.format('drop function %s', earlier);
    end loop;
end
$$;

create or replace function dagstop.rung_for(host text, max_orders integer) returns bigint[]
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan  -- a kill waits for this, and planning takes longer than all else here
set enable_seqscan = off  -- a plan made while the tables were small must not read all of them later
as $$
begin
    return array(
        select o.id from dagstop.stop_order o
        where o.closed_at is null
            -- evaluated once: per order it would dominate the query on a busy day
            and o.created_at > (select clock_timestamp() - dagstop.seconds_of('order_seconds'))
            and not exists (
                select from dagstop.report r
                where r.order_id = o.id and r.host = rung_for.host and r.outcome is not null
            )
        order by o.created_at, o.id
        limit max_orders
    );
end
$$;
comment on function dagstop.rung_for(text, integer) is 'What a notification may mean for a live host: its open orders. Closed ones, which a host that was away may not know, are left to its sweeps: there may be 20,000 of a day.';

create or replace function dagstop.swept_for(host text, max_orders integer) returns bigint[]
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan  -- once after a start, for the sizes that the tables have then
as $$
declare
    -- sooner than the others count it as dead
    alive timestamptz := clock_timestamp() - dagstop.seconds_of('live_seconds') / 2;
    young timestamptz := clock_timestamp() - dagstop.seconds_of('order_seconds');
    picked dagstop.stop_order[];
begin
    -- nothing is closed without the report of a listener that lives, or it says so
    if exists (select from dagstop.listener l where l.host = swept_for.host and l.caught_up and l.seen_at > alive) then
        return dagstop.rung_for(host, max_orders) || array(
            select o.id from dagstop.stop_order o
            where o.closed_without is not null and o.created_at > young and swept_for.host = any (o.closed_without)
                and not exists (
                    select from dagstop.report r
                    where r.order_id = o.id and r.host = swept_for.host and r.outcome is not null
                )
            order by o.created_at
            limit max_orders
        );
    end if;
    picked := array(
        select o from dagstop.stop_order o
        where o.created_at > young
            and not exists (
                select from dagstop.report r
                where r.order_id = o.id and r.host = swept_for.host and r.outcome is not null
            )
        order by o.created_at, o.id
        limit max_orders
    );
    if cardinality(picked) < max_orders and not exists (select from unnest(picked) as o where o.closed_at is not null) then
        update dagstop.listener l
        set caught_up = true
        where l.host = any (array(
            select x.host from dagstop.listener x
            where x.host = swept_for.host and x.seen_at > alive
            for update skip locked
        ));
    end if;
    return array(select o.id from unnest(picked) as o);
end
$$;
comment on function dagstop.swept_for(text, integer) is 'The orders on which a host has no final report yet. Closed ones are searched until none of these is left, and again after the host was away.';

create or replace function dagstop.open_orders(host text, ids bigint[] default null, max_orders integer default 2000)
returns table (
    id bigint, kind text, airflow_schema text, dag_id text, run_id text, logical_date timestamptz, task_id text,
    map_index integer, self_reported boolean, created_at timestamptz, txid bigint, cascaded boolean,
    session_user_name text, application_name text, client_addr inet, backend_pid integer, state_before text,
    closed_at timestamptz, db_now timestamptz, settle_seconds integer, targets jsonb, present jsonb,
    begun jsonb, hands_off text, grace_seconds integer, state_after text,
    finished_tasks text
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan  -- as rung_for
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    picked dagstop.stop_order[];
    settle integer := extract(epoch from dagstop.seconds_of('settle_seconds'));
    finished text := dagstop.setting_of('finished_tasks');
    numbers bigint[];
    rows jsonb[];
    readable text := dagstop.setting_of('airflow_schema');
begin
    numbers := coalesce(ids, dagstop.swept_for(host, max_orders));
    picked := array(select o from dagstop.stop_order o where o.id = any (numbers));
    if cardinality(picked) = 0 then
        return;
    end if;
    begin
        select array_agg(p.number), array_agg(p.present) into numbers, rows from dagstop.present_rows(picked) as p;
        raise sqlstate 'DSLET';
    exception
        when sqlstate 'DSLET' then
            null;
        when others then
            -- the orders must reach the hosts all the same
            readable := null;
            perform dagstop.record_fault('open_orders', sqlstate, sqlerrm, '{"repeats": true}');
    end;
    return query
    select
        o.id, o.kind, o.airflow_schema, o.dag_id, o.run_id, o.logical_date, o.task_id, o.map_index, o.self_reported,
        o.created_at, o.txid,
        o.cascaded and not exists (select from dagstop.refused_write w where w.order_id = o.id and w.pending),
        o.session_user_name, o.application_name, o.client_addr, o.backend_pid,
        o.state_before, o.closed_at, clock_timestamp(), settle,
        coalesce((
            select jsonb_agg(to_jsonb(s) - 'order_id' order by s.task_id, s.map_index)
            from dagstop.stop_target s where s.order_id = o.id
        ), '[]'),
        -- of another Airflow's order, in another schema, these would be some other rows
        case when o.airflow_schema = readable then coalesce(p.present, '[]') end,
        (select b.detail from dagstop.report b where b.order_id = o.id and b.host = open_orders.host),
        coalesce(o.hands_off, d.hands_off), d.grace_seconds, o.state_after, finished
    -- joined, not "= any": one plan for one order and for 2000 must not compare each row with each of them
    from unnest(picked) as o
    join (
        -- once for each DAG, not for each of its orders
        select x.dag_id, dagstop.hands_off_of(x.dag_id) as hands_off, dagstop.grace_of(x.dag_id) as grace_seconds
        from (select distinct y.dag_id from unnest(picked) as y) as x
    ) as d on d.dag_id = o.dag_id
    left join unnest(numbers, rows) as p (number, present) on p.number = o.id
    order by o.id;
end
$$;
comment on function dagstop.open_orders(text, bigint[], integer) is 'The orders on which a host has no final report yet (or just those asked for), each with its targets and with the present rows; present is null where Airflow''s tables could not be read; begun is the detail of that host''s report so far: what was signalled before a listener was cut off or the order was taken up again; hands_off, grace_seconds and finished_tasks are what the settings say now.';

create or replace function dagstop.would_be_order(of_dag text, of_run text, of_task text default null)
returns table (
    id bigint, kind text, airflow_schema text, dag_id text, run_id text, logical_date timestamptz, task_id text,
    map_index integer, self_reported boolean, created_at timestamptz, txid bigint, cascaded boolean,
    session_user_name text, application_name text, client_addr inet, backend_pid integer, state_before text,
    closed_at timestamptz, db_now timestamptz, settle_seconds integer, targets jsonb, present jsonb,
    hands_off text, grace_seconds integer, state_after text,
    finished_tasks text
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    schema_name text := dagstop.setting_of('airflow_schema');
    run_date timestamptz;
    run_state text;
    known boolean;
    asked dagstop.stop_order;
    rows jsonb;
begin
    begin
        perform dagstop.reach(schema_name, 'dag_run', 'access share');
        execute format(
            'select r.%I, r.state, true from %I.dag_run r where r.dag_id = $1 and r.run_id = $2',
            dagstop.date_column_of(schema_name), schema_name
        ) into run_date, run_state, known using of_dag, of_run;
        asked.dag_id := of_dag;
        asked.run_id := of_run;
        asked.logical_date := run_date;
        asked.task_id := of_task;
        select p.present into rows from dagstop.present_rows(array[asked]) as p;
        raise sqlstate 'DSLET';
    exception
        when sqlstate 'DSLET' then
            null;
    end;
    if known is null then
        return;
    end if;
    return query select
        null::bigint, case when of_task is null then 'run' else 'task' end, schema_name, of_dag, of_run, run_date, of_task,
        null::integer, false, clock_timestamp(), null::bigint, false, session_user::text, current_setting('application_name'),
        inet_client_addr(), pg_backend_pid(),
        case when of_task is null then run_state else rows -> 0 ->> 'state' end, null::timestamptz, clock_timestamp(),
        extract(epoch from dagstop.seconds_of('settle_seconds'))::integer,
        coalesce((
            select jsonb_agg((r - 'state' - 'ended_at') || jsonb_build_object('state_before', r -> 'state', 'released_at', null))
            from jsonb_array_elements(rows) as r
        ), '[]'),
        coalesce(rows, '[]'), dagstop.hands_off_of(of_dag), dagstop.grace_of(of_dag), 'failed',
        dagstop.setting_of('finished_tasks');
end
$$;
comment on function dagstop.would_be_order(text, text, text) is 'The order that failing this run or task would write, for explain; it is not written. No row if there is no such run.';

create or replace function dagstop.task_states(ti_ids text[], keys jsonb)
returns table (
    dag_id text, run_id text, logical_date timestamptz, task_id text, map_index integer, ti_id text, state text,
    run_state text, try_number integer, job_id bigint, hostname text, pid integer
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    schema_name text := dagstop.setting_of('airflow_schema');
    columns text[];
    date_column text;
    by_run boolean;
    with_uuid boolean;
begin
    begin
        perform dagstop.reach(schema_name, 'dag_run', 'access share');
        perform dagstop.reach(schema_name, 'task_instance', 'access share');
        columns := dagstop.columns_of(schema_name, 'task_instance');
        date_column := dagstop.date_column_of(schema_name);
        by_run := 'run_id' = any (columns);
        with_uuid := 'id' = any (columns);
        return query execute format(
            $sql$
            select t.dag_id::text, r.run_id::text, %4$s, t.task_id::text, %5$s, %6$s, t.state::text, r.state::text,
                t.try_number::integer, %7$s, t.hostname::text, t.pid::integer
            from (%2$s) as t
            left join %1$I.dag_run r on r.dag_id = t.dag_id and r.%3$I = t.%3$I
            $sql$,
            schema_name,
            case when by_run then format(
                $sql$
                select distinct on (i.dag_id, i.run_id, i.task_id %3$s) i.* from (
                    select i.* from (
                        select k.dag_id, coalesce(k.run_id, d.run_id) as run_id, k.task_id, k.map_index
                        from jsonb_to_recordset($2) as k (dag_id text, run_id text, logical_date timestamptz, task_id text, map_index integer)
                        left join %1$I.dag_run d on k.run_id is null and d.dag_id = k.dag_id and d.%2$I = k.logical_date
                    ) as k
                    join %1$I.task_instance i on i.dag_id = k.dag_id and i.run_id = k.run_id and i.task_id = k.task_id %4$s
                    %5$s
                ) as i
                $sql$,
                schema_name, date_column,
                case when 'map_index' = any (columns) then ', i.map_index' else '' end,
                case when 'map_index' = any (columns) then 'and i.map_index = coalesce(k.map_index, i.map_index)' else '' end,
                case when with_uuid then format('union all select i.* from %I.task_instance i where i.id = any ($1)', schema_name) else '' end
            ) else format(
                $sql$
                select distinct on (i.dag_id, i.execution_date, i.task_id) i.* from (
                    select k.dag_id, k.task_id, coalesce(k.logical_date, d.execution_date) as execution_date
                    from jsonb_to_recordset($2) as k (dag_id text, run_id text, logical_date timestamptz, task_id text)
                    left join %1$I.dag_run d on k.logical_date is null and d.dag_id = k.dag_id and d.run_id = k.run_id
                ) as k
                join %1$I.task_instance i
                    on i.dag_id = k.dag_id and i.execution_date = k.execution_date and i.task_id = k.task_id
                $sql$, schema_name) end,
            case when by_run then 'run_id' else 'execution_date' end,
            case when by_run then format('r.%I', date_column) else 't.execution_date' end,
            case when 'map_index' = any (columns) then 't.map_index::integer' else '-1' end,
            case when with_uuid then 't.id::text' else 'null::text' end,
            case when 'job_id' = any (columns) then 't.job_id::bigint' else 'null::bigint' end
        ) using
            -- a name on a command line that only looks like a uuid must not spoil the answer
            array(
                select u::uuid from unnest(ti_ids) as u
                where u ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
            ),
            coalesce(keys, '[]');
        raise sqlstate 'DSLET';
    exception
        when sqlstate 'DSLET' then
            null;
    end;
end
$$;
comment on function dagstop.task_states(text[], jsonb) is 'What the database says about task instances named by uuid or by dag, run (or date), task and map index; no row for those it does not know.';
