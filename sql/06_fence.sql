-- Fired by: dagstop_fence, after a task instance left failed: to a state in which it would run again,
-- or cleared, marked success, ...
-- Changes: while an order is open it puts a state in which it would run again back to failed and
-- writes dagstop.refused_write; else it stamps dagstop.stop_target.released_at.
-- Leaves alone: every other column of the row, and every other change of state. It neither raises
-- nor makes the row go missing: SQLAlchemy would call that stale data, and a scheduler could fall.
-- Afterwards, not before: a BEFORE trigger would lock each row once more, at heartbeats too.

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

create or replace function dagstop.put_back(schema_name text, task_instance jsonb) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    -- keeps dagstop_order silent: it did not turn failed now
    perform set_config('dagstop.cascading', 'on', true);
    execute format(
        'update %I.task_instance t set state = $1 where t.dag_id = $2 and t.task_id = $3 and %s %s',
        schema_name,
        case when task_instance ? 'run_id' then 't.run_id = $4' else 't.execution_date = $5' end,
        case when task_instance ? 'map_index' then 'and t.map_index = $6' end
    ) using
        task_instance ->> 'state', task_instance ->> 'dag_id', task_instance ->> 'task_id', task_instance ->> 'run_id',
        (task_instance ->> 'execution_date')::timestamptz, (task_instance ->> 'map_index')::integer;
    perform set_config('dagstop.cascading', '', true);
end
$$;
comment on function dagstop.put_back(text, jsonb) is 'Gives a row of task_instance the state back that it had.';

create or replace function dagstop.fence() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    ti jsonb := to_jsonb(old);
    index integer := coalesce((ti ->> 'map_index')::integer, -1);
    orders bigint[];
    fencing bigint;
begin
    orders := dagstop.orders_of_task(tg_table_schema, ti);
    if orders = '{}' then
        return null;
    end if;
    if new.state in ('up_for_retry', 'running', 'queued', 'scheduled', 'deferred', 'up_for_reschedule', 'awaiting_input')
        and current_setting('dagstop.bypass', true) is distinct from 'on'
    then
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
    end if;
    if fencing is not null then
        perform dagstop.put_back(tg_table_schema, ti);
        insert into dagstop.refused_write (order_id, dag_id, run_id, task_id, map_index, wanted_state)
        select fencing, o.dag_id, o.run_id, ti ->> 'task_id', index, new.state
        from dagstop.stop_order o where o.id = fencing;
        return null;
    end if;
    update dagstop.stop_target t
    set released_at = clock_timestamp()
    where t.order_id = any (orders) and t.task_id = ti ->> 'task_id' and t.map_index = index and t.released_at is null;
    return null;
exception
    when others or assert_failure then
        begin
            perform dagstop.record_fault(
                'fence', sqlstate, sqlerrm,
                jsonb_build_object('dag_id', ti ->> 'dag_id', 'task_id', ti ->> 'task_id', 'wanted', new.state)
            );
        exception
            when others then
                raise warning 'dagstop: fence failed: %', sqlerrm;
        end;
        return null;
end
$$;
comment on function dagstop.fence() is 'Trigger function: keeps a stopped task instance failed while its order is open, and notes when it was taken out of failed.';
