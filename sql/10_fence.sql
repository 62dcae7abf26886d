-- Fired by: dagstop_fence, after a task instance left failed (or skipped or removed, which setting also_stop_on may
-- name) in any way; the heartbeat, for what could not be put back at once.
-- Changes: while an order is open it puts back what would run again, the dying process' own success and a late
-- message's NULL, and writes dagstop.refused_write; else it stamps dagstop.stop_target.released_at.
-- Leaves alone: every other column of the row, and every other change of state. It neither raises
-- nor makes the row go missing: SQLAlchemy would call that stale data, and a scheduler could fall.
-- Afterwards, not before: a BEFORE trigger would lock each row once more, at heartbeats too. The price is
-- a second update in one transaction, at which Postgres checks the row's foreign keys: see reach_references.

drop function if exists dagstop.put_back(text, jsonb);  -- of an earlier install

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

create or replace function dagstop.is_late_success(before jsonb, after jsonb) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    -- a task's own process sets end and duration and keeps the start, in every release that lets it write
    if after ->> 'end_date' is null or before -> 'end_date' = after -> 'end_date'
        or before -> 'duration' = after -> 'duration' or before -> 'start_date' is distinct from after -> 'start_date'
        or (after ->> 'end_date')::timestamptz = now()  -- typed in psql
    then
        return false;
    end if;
    return case
        when before ? 'id' then false  -- 3.x: its API server refuses a success of what does not run
        when before ? 'map_index' then before ->> 'end_date' is not null  -- 2.3 to 2.11: people keep an end that is there
        when before ? 'queued_by_job_id' then false  -- 2.0 to 2.2: people write the very same
        else true  -- 1.10: people set the state alone, or the start too
    end;
end
$$;
comment on function dagstop.is_late_success(jsonb, jsonb) is 'Whether a row of task_instance that turned success was written by the task''s own process, which was being stopped; false where it may have been a person who marked it so.';

create or replace function dagstop.may_be_late(before jsonb, after jsonb) returns boolean
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    -- 1.10 runs a queued message that arrives long after every process is dead; 2.0 and later refuse it. Whoever
    -- schedules it anew (a backfill), or sets the state alone (a person), is not that message.
    select not before ? 'queued_by_job_id' and coalesce(after ->> 'state', '') not in ('scheduled', 'queued')
        and before - 'state' is distinct from after - 'state'
$$;
comment on function dagstop.may_be_late(jsonb, jsonb) is 'Whether a row of task_instance that was queued when it was stopped may be written by the late message that it was queued as.';

create or replace function dagstop.is_late_without_slot(before jsonb, after jsonb) returns boolean
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    -- 1.10's runner takes its start and its place in the queue anew when it gives up for want of a slot; a clear
    -- touches neither
    select not before ? 'queued_by_job_id' and after ->> 'state' is null
        and before -> 'start_date' is distinct from after -> 'start_date'
        and before -> 'queued_dttm' is distinct from after -> 'queued_dttm'
$$;
comment on function dagstop.is_late_without_slot(jsonb, jsonb) is 'Whether a row of task_instance lost its state to the late message of Airflow 1.10 that found no free slot, and not to a person who cleared it.';

create or replace function dagstop.put_back_pending() returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    young constant timestamptz := clock_timestamp() - interval '1 minute';
    refused record;
    present jsonb;
begin
    -- of releases whose rows refer to their run: those have run_id
    for refused in
        select w.id, o.airflow_schema, w.dag_id, w.run_id, w.task_id, w.map_index, w.wanted_state, o.state_after
        from dagstop.refused_write w
        join dagstop.stop_order o on o.id = w.order_id
        where w.pending and w.at > young
        order by w.id
        limit 1000
        for update of w skip locked
    loop
        perform dagstop.reach(refused.airflow_schema, 'task_instance', 'row exclusive');
        execute format(
            $sql$
            select to_jsonb(t) from %I.task_instance t
            where t.dag_id = $1 and t.run_id = $2 and t.task_id = $3
                and coalesce((to_jsonb(t) ->> 'map_index')::integer, -1) = $4
            for no key update of t skip locked
            $sql$, refused.airflow_schema
        ) into present using refused.dag_id, refused.run_id, refused.task_id, refused.map_index;
        continue when present is null;  -- somebody has it: later
        -- what was cleared or set since is not ours to put back
        if present ->> 'state' is distinct from refused.wanted_state
            or dagstop.set_again(refused.airflow_schema, present, format('state = %L', refused.state_after))
        then
            update dagstop.refused_write w set pending = false where w.id = refused.id;
        end if;
    end loop;
    return (select count(*) from dagstop.refused_write w where w.pending and w.at > young);
end
$$;
comment on function dagstop.put_back_pending() is 'Puts back what the fence had to let stand, since another session had the run; how many are left still.';

create or replace function dagstop.fence() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set extra_float_digits = 3  -- else two durations may look the same in jsonb
as $$
declare
    ti jsonb;
    index integer;
    orders bigint[];
    fencing bigint;
    done boolean;
begin
    if old.state = new.state then
        return null;
    end if;
    ti := to_jsonb(old);
    index := coalesce((ti ->> 'map_index')::integer, -1);
    -- one that ordered a stop by another state says nothing of this one
    orders := array(
        select o.id from dagstop.stop_order o
        where o.id = any (dagstop.orders_of_task(tg_table_schema, ti)) and o.state_after = old.state
    );
    if orders = '{}' then
        return null;
    end if;
    if (
            new.state in ('up_for_retry', 'running', 'queued', 'scheduled', 'deferred', 'up_for_reschedule', 'awaiting_input')
            or (new.state = 'success' and dagstop.is_late_success(ti, to_jsonb(new)))
            or (new.state is null and dagstop.is_late_without_slot(ti, to_jsonb(new)))
        )
        and not dagstop.asked_for('bypass')
        and not dagstop.observes()
    then
        select o.id into fencing
        from dagstop.stop_order o
        join dagstop.stop_target t on t.order_id = o.id
        where o.id = any (orders)
            and t.task_id = ti ->> 'task_id' and t.map_index = index and t.released_at is null
            and o.created_at > clock_timestamp() - dagstop.seconds_of('fence_seconds', 600)
            and (o.closed_at is null or (t.state_before in ('queued', 'scheduled') and dagstop.may_be_late(ti, to_jsonb(new))))
            -- a success of what began after the order is another try's
            and (
                new.state <> 'success' or t.state_before in ('queued', 'scheduled')
                or t.started_at is not distinct from (ti ->> 'start_date')::timestamptz
            )
        order by o.id desc
        limit 1;
    end if;
    if fencing is not null then
        done := dagstop.set_again(tg_table_schema, ti, format('state = %L', old.state));
        insert into dagstop.refused_write (order_id, dag_id, run_id, task_id, map_index, wanted_state, pending)
        select fencing, o.dag_id, o.run_id, ti ->> 'task_id', index, new.state, not done
        from dagstop.stop_order o where o.id = fencing;
        if not done then
            perform dagstop.ring();
        end if;
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
comment on function dagstop.fence() is 'Trigger function: keeps a stopped task instance in the state that stopped it (failed) while its order is open, and notes when it was taken out of that.';
