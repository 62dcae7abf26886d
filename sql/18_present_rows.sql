-- Fired by: dagstop.open_orders and dagstop.would_be_order, which ask it for what Airflow's table says now.
-- Changes: nothing; `dagstop install` creates the function, and replaces it when Airflow's tables have moved.
-- Leaves alone: Airflow's tables are only read, in the shape that they have at that moment.
-- The one function that names Airflow's table in its text: a kill waits for its answer, and what is put together
-- at each call is planned at each call, which took longer than all else that was asked of the database.

drop function if exists  -- of an earlier release
    dagstop.present_rows(text, bigint[], text[], text[], timestamptz[], text[], integer[]);

do $install$
declare
    airflow constant text := dagstop.setting_of('airflow_schema');
    -- no Airflow release has all of these columns. A name is looked up from the inside out: in the row, and
    -- where that has no such column in `lacking`, the only other one that has
    rows constant text := $sql$
        select k.number, jsonb_agg(jsonb_build_object(
            'task_id', t.task_id, 'map_index', own.map_index, 'try_number', t.try_number, 'job_id', own.job_id,
            'ti_id', own.id, 'hostname', t.hostname, 'pid', t.pid, 'operator', t.operator, 'state', t.state,
            'started_at', t.start_date, 'ended_at', t.end_date) order by t.task_id, own.map_index)
        from (
            select
                o.id as number, o.dag_id as dag, o.run_id, o.logical_date as execution_date, o.task_id as task,
                o.map_index as index
            from unnest(orders) as o
        ) as k
        join %1$I.task_instance t on t.dag_id = k.dag and t.%2$I = k.%2$I
        cross join (values (-1, null::bigint, null::text)) as lacking (map_index, job_id, id)
        cross join lateral (
            select
                (select map_index from (select t.*) as it) as map_index,
                (select job_id::bigint from (select t.*) as it) as job_id,
                (select id::text from (select t.*) as it) as id
        ) as own
        where (k.task is null or t.task_id = k.task) and (k.index is null or own.map_index = k.index)
        group by k.number
    $sql$;
begin
    execute pg_catalog.format(
        $make$
create or replace function dagstop.present_rows(orders dagstop.stop_order[]) returns table (number bigint, present jsonb)
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan  -- a kill waits for this, as in open_orders
set enable_seqscan = on  -- off in open_orders, which knows the indexes of its own tables, not Airflow's
as $$
#variable_conflict use_column
begin
    if cardinality(orders) > 10 then
        -- the plan for one order would search 1.10's table, which has no index for that, once for each of them
        perform set_config('plan_cache_mode', 'force_custom_plan', true);
    end if;
    perform dagstop.reach(%1$L, 'task_instance', 'access share');
    if 'run_id' = any (dagstop.columns_of(%1$L, 'task_instance')) then
        return query %2$s;
    else
        return query %3$s;
    end if;
end
$$;
        $make$, airflow, pg_catalog.format(rows, airflow, 'run_id'), pg_catalog.format(rows, airflow, 'execution_date')
    );
end
$install$;
comment on function dagstop.present_rows(dagstop.stop_order[]) is 'The present rows of task_instance for each order, as one JSON array; no row for an order without any. Only for orders about the Airflow in the schema that setting airflow_schema names.';
