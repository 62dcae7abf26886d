-- Fired by: the triggers dagstop_deleted on dag_run and task_instance, for each deleted row of which something may
-- still run: a run that is neither success nor failed, a task instance that is running, restarting or shutdown.
-- Changes: nothing unless setting also_stop_on names deleted. Then it writes a stop order: for a run whose rows of
-- task_instance stay behind (Airflow up to 2.1; they are failed with it), for a run that went with its running
-- task instances (2.2 and later: one order for all of them), or for a task instance alone.
-- Leaves alone: what is being deleted, which is gone whatever becomes of this; what is finished. Afterwards, not
-- before: a BEFORE trigger would lock each row once more, at each `airflow db clean`.

create or replace function dagstop.order_deleted_run() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    before jsonb;
    run_date timestamptz;
    unfinished boolean;
    draft jsonb;
begin
    perform dagstop.reach_own('access share', 'setting');
    if not dagstop.stops_on('deleted') then
        return null;
    end if;
    before := to_jsonb(old);
    run_date := before ->> dagstop.date_column_of(tg_table_schema);
    perform dagstop.reach(tg_table_schema, 'task_instance', 'access share');
    -- what a foreign key deletes with the run is gone by now: its triggers come first, by their names
    execute format(
        $sql$
        select exists (
            select from %I.task_instance t
            where t.dag_id = $1 and %s
                and (t.state is null or t.state <> all (array['success', 'failed', 'skipped', 'upstream_failed', 'removed']))
        )
        $sql$,
        tg_table_schema,
        case when 'run_id' = any (dagstop.columns_of(tg_table_schema, 'task_instance'))
            then 't.run_id = $2' else 't.execution_date = $3' end
    ) into unfinished using before ->> 'dag_id', before ->> 'run_id', run_date;
    if unfinished then
        if octet_length(current_setting('dagstop.runs', true)) > 4000 then
            perform dagstop.put_notes_aside();
        end if;
        perform set_config('dagstop.runs', concat(
            nullif(current_setting('dagstop.runs', true), '') || E'\n',
            json_build_object(
                'dag_id', before ->> 'dag_id', 'run_id', before ->> 'run_id', 'logical_date', run_date,
                'state_before', old.state, 'state_after', 'deleted'
            )
        ), true);
    end if;
    return null;
exception
    when serialization_failure then
        raise;  -- the client is meant to try again, and a transaction that goes on is doomed
    when others or assert_failure then
        begin
            before := to_jsonb(old);
            draft := dagstop.draft_of(tg_table_schema) || jsonb_build_object(
                'kind', 'run', 'dag_id', old.dag_id, 'run_id', before -> 'run_id',
                'logical_date', coalesce(before -> 'logical_date', before -> 'execution_date'),
                'state_before', old.state, 'state_after', 'deleted'
            );
            perform dagstop.leave_unwritten(
                'order_deleted_run', sqlstate, sqlerrm, tg_relid, array[draft],
                dagstop.running_now(array[draft], tg_table_schema)
            );
        exception
            when others then
                raise warning 'dagstop: order_deleted_run failed: %', sqlerrm;
        end;
        return null;
end
$$;
comment on function dagstop.order_deleted_run() is 'Trigger function: writes the stop order of a run that was deleted and left task instances unfinished, if setting also_stop_on says so.';

create or replace function dagstop.run_is_gone(schema_name text, task_instance jsonb) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    rest boolean;
begin
    execute format(
        'select exists (select from %I.task_instance t where t.dag_id = $1 and %s)',
        schema_name,
        case when task_instance ? 'run_id' then 't.run_id = $2' else 't.execution_date = $3' end
    ) into rest using
        task_instance ->> 'dag_id', task_instance ->> 'run_id', (task_instance ->> 'execution_date')::timestamptz;
    return not rest;
end
$$;
comment on function dagstop.run_is_gone(text, jsonb) is 'True if no task instance is left of the run that a deleted one belonged to.';

create or replace function dagstop.order_of_deleted(dag text, run text, run_date timestamptz) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off  -- a plan made while the table was small must not read all of it later
as $$
declare
    -- as in dagstop.orders_of_task
    of_dag text collate "default" := dag;
    of_run text collate "default" := run;
begin
    if run is null then
        return (
            select o.id from dagstop.stop_order o
            where o.dag_id = of_dag and o.run_id is null and o.task_id is null and o.logical_date = run_date
                and o.state_after = 'deleted' and o.txid = txid_current_if_assigned()
        );
    end if;
    return (
        select o.id from dagstop.stop_order o
        where o.dag_id = of_dag and o.run_id = of_run and o.task_id is null
            and o.state_after = 'deleted' and o.txid = txid_current_if_assigned()
    );
end
$$;
comment on function dagstop.order_of_deleted(text, text, timestamptz) is 'The order that this transaction wrote for a run which it deleted.';

create or replace function dagstop.order_deleted_task() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    before jsonb;
    run text;
    run_date timestamptz;
    is_there boolean;
    hands_off text;
    of_run boolean := false;
    of_order bigint;
begin
    perform dagstop.reach_own('access share', 'setting');
    if not dagstop.stops_on('deleted') then
        return null;
    end if;
    perform dagstop.reach_own('row exclusive', 'stop_order', 'stop_target');
    before := to_jsonb(old);
    run := before ->> 'run_id';
    run_date := before ->> 'execution_date';
    begin
        hands_off := dagstop.hands_off_of(before ->> 'dag_id');
        select r.run, r.run_date, r.is_there into run, run_date, is_there from dagstop.run_of(tg_table_schema, before) as r;
        of_run := not is_there and dagstop.run_is_gone(tg_table_schema, before);
    exception
        when others then
            -- an order that lacks its date or run is better than none
            perform dagstop.record_fault(
                'order_deleted_task', sqlstate, sqlerrm,
                jsonb_build_object('dag_id', before ->> 'dag_id', 'task_id', before ->> 'task_id')
            );
    end;
    if of_run then
        -- one order for all task instances that went with their run
        of_order := dagstop.order_of_deleted(before ->> 'dag_id', run, run_date);
    end if;
    if of_order is null then
        insert into dagstop.stop_order
            (kind, airflow_schema, dag_id, run_id, logical_date, task_id, map_index, cascaded, state_before,
             state_after, hands_off)
        values
            (case when of_run then 'run' else 'task' end, tg_table_schema, before ->> 'dag_id', run, run_date,
             case when not of_run then before ->> 'task_id' end,
             case when not of_run then coalesce((before ->> 'map_index')::integer, -1) end,
             true, case when not of_run then old.state end, 'deleted', hands_off)
        returning id into of_order;
        perform dagstop.ring();
    end if;
    if hands_off is null then
        perform dagstop.add_target(of_order, before, clock_timestamp());
    end if;
    return null;
exception
    when serialization_failure then
        raise;  -- the client is meant to try again, and a transaction that goes on is doomed
    when others or assert_failure then
        begin
            before := to_jsonb(old);
            perform dagstop.leave_unwritten(
                'order_deleted_task', sqlstate, sqlerrm, tg_relid,
                array[dagstop.task_draft(tg_table_schema, before, 'deleted', false)],
                array[jsonb_build_array(dagstop.identity_of(before, null))]
            );
        exception
            when others then
                raise warning 'dagstop: order_deleted_task failed: %', sqlerrm;
        end;
        return null;
end
$$;
comment on function dagstop.order_deleted_task() is 'Trigger function: writes the stop order of a task instance that was deleted while it ran, or of its run if that was deleted too, if setting also_stop_on says so.';
