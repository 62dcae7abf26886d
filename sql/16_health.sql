-- Fired by: `dagstop check`, `status` and `history`, and each heartbeat.
-- Changes: nothing.
-- Leaves alone: Airflow's tables, which trigger_health does not even lock: it reads the catalogue.

create or replace function dagstop.trigger_health()
returns table (table_name text, trigger_name text, status text, comment text)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    airflow text := dagstop.setting_of('airflow_schema');
    checksum text := dagstop.setting_of('triggers_checksum');
begin
    return query
    select
        e.on_table, e.named,
        case
            when t.oid is null then 'missing'
            when t.tgenabled not in ('O', 'A') then 'disabled'
            when t.tgfoid is distinct from to_regprocedure(e.calls)::oid
                or d.description is null or right(d.description, length(checksum) + 1) <> checksum || ']' then 'outdated'
            else 'installed'
        end,
        d.description
    from (values
        ('dag_run', 'dagstop_order', 'dagstop.order_run()'),
        ('dag_run', 'dagstop_cascade', 'dagstop.cascade_statement()'),
        ('dag_run', 'dagstop_deleted', 'dagstop.order_deleted_run()'),
        ('dag_run', 'dagstop_fence', 'dagstop.fence_run()'),
        ('task_instance', 'dagstop_order', 'dagstop.order_task()'),
        ('task_instance', 'dagstop_fence', 'dagstop.fence()'),
        ('task_instance', 'dagstop_deleted', 'dagstop.order_deleted_task()')
    ) as e (on_table, named, calls)
    left join pg_trigger t
        on t.tgrelid = to_regclass(format('%I.%I', airflow, e.on_table)) and t.tgname = e.named and not t.tgisinternal
    left join pg_description d on d.objoid = t.oid and d.classoid = 'pg_trigger'::regclass and d.objsubid = 0;
end
$$;
comment on function dagstop.trigger_health() is 'dagstop''s triggers on Airflow''s tables: installed, missing, disabled, or outdated (another definition, or not dagstop''s).';

create or replace function dagstop.task_hosts() returns table (hostname text, tasks bigint)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    schema_name text := dagstop.setting_of('airflow_schema');
begin
    begin
        perform dagstop.reach(schema_name, 'task_instance', 'access share');
        -- running ones only: that column has an index on every release, the table may be huge
        return query execute format(
            $sql$
            select t.hostname::text, count(*) from %I.task_instance t
            where t.state = 'running' and coalesce(t.hostname, '') <> ''
            group by t.hostname
            $sql$, schema_name
        );
        raise sqlstate 'DSLET';  -- as in 13_orders_read.sql
    exception
        when sqlstate 'DSLET' then
            null;
    end;
end
$$;
comment on function dagstop.task_hosts() is 'The hosts on which Airflow says that tasks run now, and how many.';

create or replace function dagstop.gone_hosts() returns setof text
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    schema_name constant text := dagstop.setting_of('airflow_schema');
    -- what was ordered since then such a host may still have to carry out
    since constant timestamptz := clock_timestamp()
        - greatest(dagstop.seconds_of('order_seconds'), dagstop.seconds_of('live_seconds'));
    silent jsonb;
    used text[];
    lately text;
begin
    select jsonb_object_agg(
        l.host,
        jsonb_build_array(l.host) || case jsonb_typeof(l.detail -> 'host_names') when 'array' then l.detail -> 'host_names' else '[]' end
    ) into silent
    from dagstop.listener l
    where l.seen_at < since;
    if silent is null then
        return;
    end if;
    -- by the heartbeats of tasks, which have an index on every release; none of start_date is needed
    if 'last_heartbeat_at' = any (dagstop.columns_of(schema_name, 'task_instance')) then
        lately := 'select t.hostname::text from %1$I.task_instance t where t.last_heartbeat_at > $1';
    elsif to_regclass(format('%I.job', schema_name)) is not null then
        lately := $sql$select j.hostname::text from %1$I.job j where j.job_type = 'LocalTaskJob' and j.latest_heartbeat > $1$sql$;
    else
        return;  -- Airflow's use of a host cannot be told
    end if;
    begin
        perform dagstop.reach(schema_name, 'task_instance', 'access share');
        execute format(
            'select coalesce(array_agg(distinct u.hostname), ''{}'') from ('
            || lately || $sql$ union all select t.hostname::text from %1$I.task_instance t where t.state = 'running') as u (hostname)$sql$,
            schema_name
        ) into used using since;
        raise sqlstate 'DSLET';  -- as in 13_orders_read.sql
    exception
        when sqlstate 'DSLET' then
            null;
    end;
    return query
    select s.key from jsonb_each(silent) as s
    where not exists (select from jsonb_array_elements_text(s.value) as n (name) where n.name = any (used));
end
$$;
comment on function dagstop.gone_hosts() is 'The hosts whose listener was not seen for order_seconds, and on which Airflow has run no task since: there is nothing to stop there.';

create or replace function dagstop.running_in_failed_runs() returns table (dag_id text, run_id text, tasks bigint)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    schema_name text := dagstop.setting_of('airflow_schema');
begin
    begin
        perform dagstop.reach(schema_name, 'dag_run', 'access share');
        perform dagstop.reach(schema_name, 'task_instance', 'access share');
        return query execute format(
            $sql$
            select r.dag_id::text, r.run_id::text, count(*)
            from %1$I.task_instance t
            join %1$I.dag_run r on r.dag_id = t.dag_id and r.%2$I = t.%2$I
            where t.state = 'running' and r.state = 'failed'
            group by r.dag_id, r.run_id
            order by r.dag_id, r.run_id
            $sql$,
            schema_name,
            case when 'run_id' = any (dagstop.columns_of(schema_name, 'task_instance')) then 'run_id' else 'execution_date' end
        );
        raise sqlstate 'DSLET';  -- as in 13_orders_read.sql
    exception
        when sqlstate 'DSLET' then
            null;
    end;
end
$$;
comment on function dagstop.running_in_failed_runs() is 'Failed runs in which Airflow says that tasks run, and how many: they failed before dagstop was installed or without firing its triggers, or somebody cleared a task and left the run failed.';

create or replace view dagstop.history as
select
    o.id as order_id, o.kind, o.dag_id, o.run_id, o.logical_date, o.task_id, o.map_index, o.created_at,
    o.session_user_name, o.application_name, o.client_addr, o.backend_pid, o.self_reported, o.state_before, o.cascaded,
    (select pg_catalog.count(*) from dagstop.stop_target t where t.order_id = o.id) as targets,
    (select pg_catalog.count(*) from dagstop.refused_write w where w.order_id = o.id) as refused_writes,
    r.host, r.outcome, r.first_signal_at, r.last_death_at, r.reported_at, r.detail, o.closed_at, o.hands_off,
    o.state_after
from dagstop.stop_order o
left join dagstop.report r on r.order_id = o.id;
comment on view dagstop.history is 'One row per order and host: what was failed, by whom, and what the host did about it, when. Columns without a comment are those of stop_order and report.';
comment on column dagstop.history.order_id is 'stop_order.id.';
comment on column dagstop.history.targets is 'How many task instances the order stops (stop_target).';
comment on column dagstop.history.refused_writes is 'How many late writes the fence refused for this order (refused_write).';

create or replace view dagstop.open_order as
select
    o.id as order_id, o.kind, o.dag_id, o.run_id, o.logical_date, o.task_id, o.map_index, o.created_at,
    o.session_user_name, o.application_name, o.self_reported, o.state_before, o.cascaded,
    (select pg_catalog.count(*) from dagstop.stop_target t where t.order_id = o.id) as targets,
    dagstop.waits_for(o) as waiting_for,
    o.state_after
from dagstop.stop_order o
-- num_nonnulls: who asks for an order by its number must not read all open ones for it
where pg_catalog.num_nonnulls(o.closed_at) = 0
    and o.created_at > (select pg_catalog.clock_timestamp() - dagstop.seconds_of('order_seconds'));
comment on view dagstop.open_order is 'The orders that are not closed, and the live hosts that still owe a final report (dagstop.waits_for). Columns without a comment are those of stop_order.';
comment on column dagstop.open_order.order_id is 'stop_order.id.';
comment on column dagstop.open_order.targets is 'How many task instances the order stops (stop_target).';
comment on column dagstop.open_order.waiting_for is 'The live hosts that still owe a final report.';
