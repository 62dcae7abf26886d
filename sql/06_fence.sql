-- Fired by: dagstop_fence, before a task instance goes from failed to a state in which it would
-- run again; dagstop_release, after it left failed (cleared, marked success, ...).
-- Changes: while an order is open, the fence puts NEW.state back to failed and writes
-- dagstop.refused_write; the release stamps dagstop.stop_target.released_at.
-- Leaves alone: every other column of the row, and every other change of state. It neither raises
-- nor returns null: SQLAlchemy would take the missing row for stale data, and a scheduler could fall.
-- All are security definer: who updates task_instance needs no right on schema dagstop.

create or replace function dagstop.orders_of_task(schema_name text, task_instance jsonb) returns bigint[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    dag text := task_instance ->> 'dag_id';
    run text := task_instance ->> 'run_id';
    run_date timestamptz;
    oldest timestamptz := clock_timestamp() - dagstop.seconds_of('order_seconds', 86400);
begin
    if not task_instance ? 'run_id' then
        run_date := task_instance ->> 'execution_date';
        perform dagstop.reach(schema_name, 'dag_run', 'access share');
        execute format('select run_id from %I.dag_run where dag_id = $1 and execution_date = $2', schema_name)
            into run using dag, run_date;
    end if;
    if run is null then
        return array(
            select o.id from dagstop.stop_order o
            where o.run_id is null and o.dag_id = dag and o.logical_date = run_date and o.airflow_schema = schema_name
                and o.created_at > oldest
        );
    end if;
    return array(
        select o.id from dagstop.stop_order o
        where o.dag_id = dag and o.run_id = run and o.airflow_schema = schema_name and o.created_at > oldest
    );
end
$$;
comment on function dagstop.orders_of_task(text, jsonb) is 'The orders of the run that a row of task_instance belongs to, as long as a host may carry them out.';

create or replace function dagstop.fence() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    ti jsonb := to_jsonb(old);
    index integer := coalesce((ti ->> 'map_index')::integer, -1);
    orders bigint[];
    fencing bigint;
    wanted text := new.state;
begin
    orders := dagstop.orders_of_task(tg_table_schema, ti);
    select o.id into fencing
    from dagstop.stop_order o
    join dagstop.stop_target t on t.order_id = o.id
    where o.id = any (orders)
        and t.task_id = ti ->> 'task_id' and t.map_index = index and t.released_at is null
        and o.created_at > clock_timestamp() - dagstop.seconds_of('fence_seconds', 600)
        -- a queued message may arrive long after every process is dead
        and (o.closed_at is null or t.state_before in ('queued', 'scheduled'))
    order by o.id desc
    limit 1;
    if fencing is null then
        return new;
    end if;
    new.state := old.state;
    insert into dagstop.refused_write (order_id, dag_id, run_id, task_id, map_index, wanted_state)
    select fencing, o.dag_id, o.run_id, ti ->> 'task_id', index, wanted
    from dagstop.stop_order o where o.id = fencing;
    return new;
exception
    when others or assert_failure then
        begin
            perform dagstop.record_fault(
                'fence', sqlstate, sqlerrm,
                jsonb_build_object('dag_id', ti ->> 'dag_id', 'task_id', ti ->> 'task_id', 'wanted', wanted)
            );
        exception
            when others then
                raise warning 'dagstop: fence failed: %', sqlerrm;
        end;
        return new;
end
$$;
comment on function dagstop.fence() is 'Trigger function: keeps a stopped task instance failed while its order is open.';

create or replace function dagstop.release() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    ti jsonb := to_jsonb(old);
    orders bigint[];
begin
    orders := dagstop.orders_of_task(tg_table_schema, ti);
    update dagstop.stop_target t
    set released_at = clock_timestamp()
    where t.order_id = any (orders)
        and t.task_id = ti ->> 'task_id'
        and t.map_index = coalesce((ti ->> 'map_index')::integer, -1)
        and t.released_at is null;
    return null;
exception
    when others or assert_failure then
        begin
            perform dagstop.record_fault(
                'release', sqlstate, sqlerrm,
                jsonb_build_object('dag_id', ti ->> 'dag_id', 'task_id', ti ->> 'task_id')
            );
        exception
            when others then
                raise warning 'dagstop: release failed: %', sqlerrm;
        end;
        return null;
end
$$;
comment on function dagstop.release() is 'Trigger function: opens the fence of a task instance that was taken out of failed.';
