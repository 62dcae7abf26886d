-- Fired by: dagstop_fence, after a task instance left failed (or skipped or removed, which setting also_stop_on may
-- name) in any way, or a run went from failed to running; the heartbeat, for what could not be put back at once.
-- Changes: while an order is open it puts back what would run again, the dying process' own success, a late message's
-- NULL and a dying task's old copy of its run, and writes dagstop.refused_write; else it stamps stop_target.released_at.
-- Leaves alone: every other column (but for a run's end and its last look), every other change of state. It neither raises
-- nor makes the row go missing: SQLAlchemy would call that stale data, and a scheduler could fall.
-- Afterwards, not before: a BEFORE trigger would lock each row once more, at heartbeats too. The price is
-- a second update in one transaction, at which Postgres checks the row's foreign keys: see reach_references.

drop function if exists dagstop.put_back(text, jsonb);  -- of an earlier install
drop function if exists dagstop.put_back_pending();  -- of an earlier release

drop function if exists dagstop.orders_of_task(text, jsonb);  -- of an earlier install
drop function if exists dagstop.release(bigint[], jsonb);  -- of an earlier release

create or replace function dagstop.run_id_of(schema_name text, task_instance jsonb) returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    run text := task_instance ->> 'run_id';
begin
    if not task_instance ? 'run_id' then
        perform dagstop.reach(schema_name, 'dag_run', 'access share');
        execute format('select run_id from %I.dag_run where dag_id = $1 and execution_date = $2', schema_name)
            into run using task_instance ->> 'dag_id', (task_instance ->> 'execution_date')::timestamptz;
    end if;
    return run;
end
$$;
comment on function dagstop.run_id_of(text, jsonb) is 'The run_id of the run that a row of task_instance belongs to; null where it has none.';

create or replace function dagstop.orders_of_task(schema_name text, task_instance jsonb, run text, turned_to text)
returns bigint[]
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off  -- a plan made while the table was small must not read all of it later
as $$
declare
    -- a variable has the collation of the arguments, and those may come from a name, or from Airflow's columns:
    -- with another collation than its own an index is of no use
    dag text collate "default" := task_instance ->> 'dag_id';
    task text collate "default" := task_instance ->> 'task_id';
    of_run text collate "default" := run;
    index integer := coalesce((task_instance ->> 'map_index')::integer, -1);
    run_date timestamptz := task_instance ->> 'execution_date';
    oldest timestamptz := clock_timestamp() - dagstop.seconds_of('order_seconds');
begin
    -- those of the run, and those of this task instance: the others of the run may be thousands.
    -- "is true": no index answers that, so the one on the orders' age is not taken for the run's
    if run is null then
        return array(
            select o.id from dagstop.stop_order o
            where o.dag_id = dag and o.run_id is null and o.task_id is null
                and o.logical_date = run_date and o.airflow_schema = schema_name and o.state_after = turned_to
                and (o.created_at > oldest) is true
            union all
            select o.id from dagstop.stop_order o
            where o.dag_id = dag and o.run_id is null and o.task_id = task and o.map_index = index
                and o.logical_date = run_date and o.airflow_schema = schema_name and o.state_after = turned_to
                and (o.created_at > oldest) is true
        );
    end if;
    return array(
        select o.id from dagstop.stop_order o
        where o.dag_id = dag and o.run_id = of_run and o.task_id is null
            and o.airflow_schema = schema_name and o.state_after = turned_to and (o.created_at > oldest) is true
        union all
        select o.id from dagstop.stop_order o
        where o.dag_id = dag and o.run_id = of_run and o.task_id = task and o.map_index = index
            and o.airflow_schema = schema_name and o.state_after = turned_to and (o.created_at > oldest) is true
    );
end
$$;
comment on function dagstop.orders_of_task(text, jsonb, text, text) is 'The orders about a row of task_instance, or about its run, that a change to this state ordered, as long as a host may carry them out.';

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
comment on function dagstop.is_late_success(jsonb, jsonb) is 'True if success was written to a row of task_instance by the task''s own process, which was being stopped; false if a person may have marked it.';

create or replace function dagstop.may_be_late(before jsonb, after jsonb) returns boolean
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    -- 1.10 runs a queued message that arrives long after every process is dead; 2.0 and later refuse it. Whoever
    -- schedules it again (a backfill), or sets the state alone (a person), is not that message.
    select not before ? 'queued_by_job_id' and coalesce(after ->> 'state', '') not in ('scheduled', 'queued')
        and before - 'state' is distinct from after - 'state'
$$;
comment on function dagstop.may_be_late(jsonb, jsonb) is 'True if a row of task_instance that was queued when it was stopped may have been written by its late queue message.';

create or replace function dagstop.is_late_without_slot(before jsonb, after jsonb) returns boolean
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    -- 1.10's runner takes its start and its place in the queue again when it gives up for want of a slot; a clear
    -- touches neither
    select not before ? 'queued_by_job_id'
        and before -> 'start_date' is distinct from after -> 'start_date'
        and before -> 'queued_dttm' is distinct from after -> 'queued_dttm'
$$;
comment on function dagstop.is_late_without_slot(jsonb, jsonb) is 'Of a row of task_instance that lost its state: true if that was the late message of Airflow 1.10 that found no free slot, not a person who cleared it.';

create or replace function dagstop.left_to_put_back() returns bigint[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off  -- the few by their index, also where the table grew a moment ago
as $$
begin
    return array(
        select w.id from dagstop.refused_write w
        where w.pending and w.at > (select clock_timestamp() - interval '1 minute')
        order by w.at
        limit 1000
    );
end
$$;
comment on function dagstop.left_to_put_back() is 'The refused writes that are not yet reverted, oldest first.';

create or replace function dagstop.try_of(task_instance jsonb) returns jsonb
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    -- a clear sets max_tries, or the id on 3.x; a try that has begun since has another start
    select jsonb_object_agg(c.key, c.value) from jsonb_each(task_instance) as c
    where c.key in ('state', 'try_number', 'max_tries', 'id', 'job_id', 'start_date', 'end_date')
$$;
comment on function dagstop.try_of(jsonb) is 'What of a row of task_instance differs between a try in some state and a later one in the same state.';

create or replace function dagstop.put_back_left() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    ids constant bigint[] := dagstop.left_to_put_back();
    refused record;
    present jsonb;
begin
    -- of releases whose rows refer to their run: those have run_id
    for refused in
        select w.id, o.airflow_schema, to_jsonb(w) as task_instance, w.of_try, o.state_after
        from dagstop.refused_write w
        join dagstop.stop_order o on o.id = w.order_id
        where w.id = any (ids) and w.pending
        order by w.id
        for update of w skip locked
    loop
        begin
            perform dagstop.reach(refused.airflow_schema, 'task_instance', 'row exclusive');
            present := dagstop.row_as_it_is(refused.airflow_schema, refused.task_instance, 'skip locked');
            continue when present is null;  -- somebody has it: later
            -- what was cleared or set since is not ours to put back
            if dagstop.try_of(present) is distinct from refused.of_try
                or dagstop.set_again(refused.airflow_schema, present, format('state = %L', refused.state_after))
            then
                update dagstop.refused_write w set pending = false where w.id = refused.id;
            end if;
        exception
            when lock_not_available then
                return;  -- later: a migration has the table
            when others then
                perform dagstop.record_fault(
                    'put_back_left', sqlstate, sqlerrm, jsonb_build_object('refused_write', refused.id, 'repeats', true)
                );
        end;
    end loop;
end
$$;
comment on function dagstop.put_back_left() is 'Reverts the writes that the fence had to leave because another session had locked the run.';

create or replace function dagstop.fencing_order(order_ids bigint[], before jsonb, after jsonb) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off  -- a plan made while the tables were small must not read all of them later
as $$
declare
    task text collate "default" := before ->> 'task_id';
    index integer := coalesce((before ->> 'map_index')::integer, -1);
    late boolean := dagstop.may_be_late(before, after);
    oldest timestamptz := clock_timestamp() - dagstop.seconds_of('fence_seconds');
begin
    return (
        select max(o.id)
        from dagstop.stop_order o
        join dagstop.stop_target t on t.order_id = o.id
        where o.id = any (order_ids) and t.order_id = any (order_ids)
            and t.task_id = task and t.map_index = index
            and t.released_at is null and (o.created_at > oldest) is true
            -- num_nonnulls: the index on open orders is not taken for these few
            and (num_nonnulls(o.closed_at) = 0 or (t.state_before in ('queued', 'scheduled') and late))
            -- a success of what began after the order is another try's
            and (
                (after ->> 'state') is distinct from 'success' or t.state_before in ('queued', 'scheduled')
                or t.started_at is not distinct from (before ->> 'start_date')::timestamptz
            )
    );
end
$$;
comment on function dagstop.fencing_order(bigint[], jsonb, jsonb) is 'The latest of these orders that keeps a row of task_instance from being revived.';

create or replace function dagstop.release(order_ids bigint[], task_instance jsonb, at timestamptz) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off  -- a plan made while the tables were small must not read all of them later
as $$
declare
    task text collate "default" := task_instance ->> 'task_id';
    index integer := coalesce((task_instance ->> 'map_index')::integer, -1);
begin
    update dagstop.stop_target t
    set released_at = release.at
    where t.order_id = any (order_ids) and t.task_id = task and t.map_index = index and t.released_at is null;
end
$$;
comment on function dagstop.release(bigint[], jsonb, timestamptz) is 'Notes that a row of task_instance was taken out of the state that stopped it.';

create or replace function dagstop.is_revival(before jsonb, after jsonb) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select case
        when after ->> 'state' is null then dagstop.is_late_without_slot(before, after)
        when after ->> 'state' = 'success' then dagstop.is_late_success(before, after)
        else after ->> 'state' in ('up_for_retry', 'running', 'queued', 'scheduled', 'deferred', 'up_for_reschedule', 'awaiting_input')
    end
$$;
comment on function dagstop.is_revival(jsonb, jsonb) is 'True if an update takes a row of task_instance out of failed as a late or dying process does, not as a person who clears or marks it.';

create or replace function dagstop.fence() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set extra_float_digits = 3  -- else two durations may look the same in jsonb
as $$
declare
    ti jsonb;
    index integer;
    run text;
    orders bigint[];
    fencing bigint;
    done boolean;
begin
    if old.state = new.state then
        return null;
    end if;
    ti := to_jsonb(old);
    index := coalesce((ti ->> 'map_index')::integer, -1);
    perform dagstop.reach_own('access share', 'setting', 'stop_order', 'stop_target');
    -- one that ordered a stop by another state says nothing of this one
    run := dagstop.run_id_of(tg_table_schema, ti);
    orders := dagstop.orders_of_task(tg_table_schema, ti, run, old.state);
    if orders = '{}' then
        return null;
    end if;
    if dagstop.is_revival(ti, to_jsonb(new)) and not dagstop.asked_for('bypass') and not dagstop.observes() then
        fencing := dagstop.fencing_order(orders, ti, to_jsonb(new));
    end if;
    if fencing is not null then
        perform dagstop.reach_own('row exclusive', 'refused_write');
        done := dagstop.set_again(tg_table_schema, ti, format('state = %L', old.state));
        insert into dagstop.refused_write (order_id, dag_id, run_id, task_id, map_index, wanted_state, pending, of_try)
        values (
            fencing, ti ->> 'dag_id', run, ti ->> 'task_id', index, new.state, not done,
            case when not done then dagstop.try_of(dagstop.row_as_it_is(tg_table_schema, ti, 'skip locked')) end
        );
        if not done then
            perform dagstop.ring();
        end if;
        return null;
    end if;
    perform dagstop.reach_own('row exclusive', 'stop_target');
    perform dagstop.release(orders, ti, clock_timestamp());
    return null;
exception
    when serialization_failure then
        raise;  -- the client is meant to try again, and a transaction that goes on is doomed
    when others or assert_failure then
        begin
            perform dagstop.leave_unwritten(
                'fence', sqlstate, sqlerrm, tg_relid,
                array[dagstop.draft_of(tg_table_schema) || jsonb_build_object(
                    'kind', 'fence', 'before', to_jsonb(old), 'after', to_jsonb(new), 'bypass', dagstop.asked_for('bypass')
                )],
                array[null::jsonb]
            );
        exception
            when others then
                raise warning 'dagstop: fence failed: %', sqlerrm;
        end;
        return null;
end
$$;
comment on function dagstop.fence() is 'Trigger function: keeps a stopped task instance in the state that stopped it (failed) while its order is open, and notes when it was taken out of that.';

create or replace function dagstop.is_old_copy(before jsonb, after jsonb) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    -- A task's process keeps its run as it was when the task began. With its own row it writes that back: always before
    -- 2.10.5, later if the run was failed between its last look and its write. Only schedulers set this time, each to
    -- its present; a person's write leaves it as it is, or empties it. updated_at says nothing: it is by the writer's clock.
    select coalesce(
        (after ->> 'last_scheduling_decision')::timestamptz < (before ->> 'last_scheduling_decision')::timestamptz, false
    )
$$;
comment on function dagstop.is_old_copy(jsonb, jsonb) is 'True if an update of a row of dag_run wrote back what the row was earlier, as a dying task of Airflow 2 does.';

create or replace function dagstop.order_fencing_run(order_ids bigint[]) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off  -- a plan made while the table was small must not read all of it later
as $$
declare
    oldest timestamptz := clock_timestamp() - dagstop.seconds_of('fence_seconds');
begin
    -- also a closed one: nobody but a dying task writes so
    return (
        select max(o.id) from dagstop.stop_order o
        where o.id = any (order_ids) and o.hands_off is null and (o.created_at > oldest) is true
    );
end
$$;
comment on function dagstop.order_fencing_run(bigint[]) is 'The latest of these orders that keeps a run from being written back.';

create or replace function dagstop.fence_run() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    before constant jsonb := to_jsonb(old);
    fencing bigint;
begin
    if not dagstop.is_old_copy(before, to_jsonb(new)) or dagstop.asked_for('bypass') then
        return null;
    end if;
    perform dagstop.reach_own('access share', 'setting', 'stop_order');
    fencing := dagstop.order_fencing_run(dagstop.orders_of_task(tg_table_schema, before, old.run_id, old.state));
    if fencing is null or dagstop.observes() then
        return null;
    end if;
    perform dagstop.reach_own('row exclusive', 'refused_write');
    -- the time too, or the next copy would differ in nothing but the state
    if not dagstop.set_again(tg_table_schema, before, format(
        'state = %L, end_date = %L, last_scheduling_decision = %L', old.state, old.end_date, old.last_scheduling_decision
    )) then
        raise lock_not_available using message = 'another session has what the run refers to';
    end if;
    insert into dagstop.refused_write (order_id, dag_id, run_id, wanted_state)
    values (fencing, old.dag_id, old.run_id, new.state);
    return null;
exception
    when serialization_failure then
        raise;  -- the client is meant to try again, and a transaction that goes on is doomed
    when others or assert_failure then
        begin
            -- it says running until a scheduler looks, which fails it again
            perform dagstop.record_fault(
                'fence_run', sqlstate, sqlerrm, jsonb_build_object('dag_id', old.dag_id, 'run_id', old.run_id)
            );
        exception
            when others then
                raise warning 'dagstop: fence_run failed: %', sqlerrm;
        end;
        return null;
end
$$;
comment on function dagstop.fence_run() is 'Trigger function: keeps a run failed that was just ordered to stop when a dying task writes back an old copy of it.';
