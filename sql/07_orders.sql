-- Fired by: the triggers dagstop_order on dag_run, for each row that turned failed, and on task_instance, for each
-- row that was set to failed or to what setting also_stop_on may name (17_triggers.sql); 08_orders_deleted.sql has
-- what is deleted.
-- Changes: notes a run, for the end of the statement, where 09_cascade.sql writes all its orders at once; writes
-- one row to dagstop.stop_order, and its one dagstop.stop_target, for a task instance.
-- Leaves alone: the row that turned failed, but for its end before Airflow 3, where Airflow would have
-- set it; on a fault the statement goes on.
-- Both are security definer: whoever may update Airflow's table needs no right on schema dagstop.

-- of earlier installs
drop function if exists dagstop.note(text, jsonb), dagstop.noted(text);

create or replace function dagstop.put_notes_aside() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    aside text := current_setting('dagstop.runs_aside', true);
    filled integer;
begin
    -- before Postgres 16 each setting more makes the end of each function slower
    if octet_length(aside) > 60000 then
        filled := coalesce(nullif(current_setting('dagstop.runs_parts', true), ''), '0')::integer + 1;
        perform set_config('dagstop.runs_' || filled, aside, true);
        perform set_config('dagstop.runs_parts', filled::text, true);
        aside := null;
    end if;
    perform set_config('dagstop.runs_aside', concat(nullif(aside, '') || E'\n', current_setting('dagstop.runs')), true);
    perform set_config('dagstop.runs', '', true);
end
$$;
comment on function dagstop.put_notes_aside() is 'Keeps the list of noted runs short, since each note copies it: entries move to a longer list, and from there to numbered parts.';

create or replace function dagstop.noted_runs() returns jsonb[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    parts text;
    filled integer := coalesce(nullif(current_setting('dagstop.runs_parts', true), ''), '0');
begin
    if filled > 0 then
        parts := (
            select string_agg(current_setting('dagstop.runs_' || n), E'\n' order by n) from generate_series(1, filled) as n
        );
        perform set_config('dagstop.runs_' || n, '', true) from generate_series(1, filled) as n;
    end if;
    parts := concat_ws(
        E'\n', parts, nullif(current_setting('dagstop.runs_aside', true), ''), nullif(current_setting('dagstop.runs', true), '')
    );
    perform dagstop.forget_notes();
    return string_to_array(parts, E'\n')::jsonb[];
end
$$;
comment on function dagstop.noted_runs() is 'The runs that the rows of the statement have noted; the list is empty afterwards.';

create or replace function dagstop.forget_notes() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform set_config('dagstop.runs', '', true), set_config('dagstop.runs_aside', '', true),
        set_config('dagstop.runs_parts', '', true);
end
$$;
comment on function dagstop.forget_notes() is 'Empties the list of noted runs.';

-- A run is noted in settings of the transaction: a row written for each row would need a subtransaction for each, lest a
-- fault fails Airflow's statement. A rollback takes the note back. A note is one line of json.
create or replace function dagstop.order_run() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    noted text := nullif(current_setting('dagstop.runs', true), '');
    item jsonb;
begin
    if current_setting('dagstop.put_back', true) = new.id::text then
        return null;  -- it failed before: see fence_run
    end if;
    -- no function of ours but in the rare case: this runs once per row
    if octet_length(noted) > 4000 then
        perform dagstop.put_notes_aside();
        noted := null;
    end if;
    perform set_config('dagstop.runs', concat(noted || E'\n', json_build_object(
        'place', new.ctid, 'dag_id', new.dag_id, 'run_id', new.run_id, 'state_before', old.state,
        -- a run of Airflow 1.10 may have no run_id: then it is found by its date only. Of all others the cascade has
        -- the date: its column has two names
        'logical_date', case when new.run_id is null then to_jsonb(new) ->> 'execution_date' end,
        -- `dagstop stop` sets the end as Airflow does
        'self_reported', new.end_date is distinct from old.end_date and current_setting('application_name') <> 'dagstop stop'
    )), true);
    return null;
exception
    when serialization_failure then
        raise;  -- the client is meant to try again, and a transaction that goes on is doomed
    when others or assert_failure then
        begin
            item := dagstop.draft_of(tg_table_schema) || jsonb_build_object(
                'kind', 'run', 'dag_id', new.dag_id, 'run_id', new.run_id, 'logical_date', to_jsonb(new) -> 'execution_date',
                'state_before', old.state, 'state_after', 'failed'
            );
            perform dagstop.leave_unwritten(
                'order_run', sqlstate, sqlerrm, tg_relid, array[item], dagstop.running_now(array[item], tg_table_schema)
            );
        exception
            when others then
                raise warning 'dagstop: order_run failed: %', sqlerrm;
        end;
        return null;
end
$$;
comment on function dagstop.order_run() is 'Trigger function: notes a run that turned failed, for the stop order that is written at the end of the statement.';

create or replace function dagstop.run_of(
    schema_name text, task_instance jsonb, out run text, out run_date timestamptz, out is_there boolean
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    run := task_instance ->> 'run_id';
    run_date := task_instance ->> 'execution_date';
    perform dagstop.reach(schema_name, 'dag_run', 'access share');
    if task_instance ? 'run_id' then
        execute format(
            'select %I, true from %I.dag_run where dag_id = $1 and run_id = $2',
            dagstop.date_column_of(schema_name), schema_name
        ) into run_date, is_there using task_instance ->> 'dag_id', run;
    else
        execute format(
            'select run_id, true from %I.dag_run where dag_id = $1 and execution_date = $2', schema_name
        ) into run, is_there using task_instance ->> 'dag_id', run_date;
    end if;
    is_there := coalesce(is_there, false);
end
$$;
comment on function dagstop.run_of(text, jsonb) is 'The run_id and the date of the run that a row of task_instance belongs to, and whether that run exists.';

create or replace function dagstop.add_target(of_order bigint, task_instance jsonb, released_at timestamptz)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    insert into dagstop.stop_target
        (order_id, task_id, map_index, try_number, job_id, ti_id, hostname, pid, operator, state_before, started_at,
         released_at)
    values
        (of_order, task_instance ->> 'task_id', coalesce((task_instance ->> 'map_index')::integer, -1),
         (task_instance ->> 'try_number')::integer, (task_instance ->> 'job_id')::bigint, task_instance ->> 'id',
         task_instance ->> 'hostname', (task_instance ->> 'pid')::integer, task_instance ->> 'operator',
         task_instance ->> 'state', (task_instance ->> 'start_date')::timestamptz, add_target.released_at);
end
$$;
comment on function dagstop.add_target(bigint, jsonb, timestamptz) is 'Makes a row of task_instance, as it was, a target of an order; sets released_at if the row is gone.';

create or replace function dagstop.order_task() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    before jsonb;
    run text;
    run_date timestamptz;
    index integer;
    hands_off text;
    -- `dagstop stop` sets the end as Airflow does, and is surely not the task's own process
    by_itself constant boolean := new.end_date is distinct from old.end_date
        and current_setting('application_name') <> 'dagstop stop';
    new_order bigint;
begin
    if old.state = new.state then
        return null;
    end if;
    -- who turns to another state while nothing of it runs has nothing to stop
    if new.state <> 'failed' and coalesce(old.state, '') not in ('running', 'restarting', 'shutdown') then
        return null;
    end if;
    perform dagstop.reach_own('access share', 'setting');
    if new.state <> 'failed' and not dagstop.stops_on(new.state) then
        return null;
    end if;
    before := to_jsonb(old);
    run := before ->> 'run_id';
    run_date := before ->> 'execution_date';
    index := coalesce((before ->> 'map_index')::integer, -1);
    begin
        hands_off := dagstop.hands_off_of(before ->> 'dag_id');
        select r.run, r.run_date into run, run_date from dagstop.run_of(tg_table_schema, before) as r;
    exception
        when others then
            -- an order that lacks its date or run is better than none
            perform dagstop.record_fault(
                'order_task', sqlstate, sqlerrm, jsonb_build_object('dag_id', before ->> 'dag_id', 'task_id', before ->> 'task_id')
            );
    end;
    perform dagstop.reach_own('row exclusive', 'stop_order', 'stop_target');
    insert into dagstop.stop_order
        (kind, airflow_schema, dag_id, run_id, logical_date, task_id, map_index, self_reported, cascaded, state_before,
         state_after, hands_off)
    values
        ('task', tg_table_schema, before ->> 'dag_id', run, run_date, before ->> 'task_id', index,
         by_itself, true, before ->> 'state', new.state, hands_off)
    returning id into new_order;
    if hands_off is not null then
        perform dagstop.ring();
        return null;  -- no target, so no fence
    end if;
    perform dagstop.add_target(new_order, before, null);
    perform dagstop.ring();
    if new.state = 'failed' and not before ? 'id' and new.end_date is null then
        begin
            -- without an end, a success that the dying process writes looks like a person's (is_late_success, 2.3 on), and
            -- a retry set by hand stops 1.10's scheduling of all that its file defines (end_date + retry_delay)
            perform dagstop.set_again(
                tg_table_schema, before,
                'end_date = pg_catalog.clock_timestamp(), duration = coalesce('
                    'extract(epoch from pg_catalog.clock_timestamp() operator(pg_catalog.-) t.start_date), t.duration)'
            );
        exception
            when others then
                perform dagstop.record_fault(
                    'order_task', sqlstate, sqlerrm, jsonb_build_object('dag_id', before ->> 'dag_id', 'task_id', before ->> 'task_id')
                );
        end;
    end if;
    return null;
exception
    when serialization_failure then
        raise;  -- the client is meant to try again, and a transaction that goes on is doomed
    when others or assert_failure then
        begin
            before := to_jsonb(old);
            perform dagstop.leave_unwritten(
                'order_task', sqlstate, sqlerrm, tg_relid,
                array[dagstop.task_draft(tg_table_schema, before, new.state, by_itself)],
                array[jsonb_build_array(dagstop.identity_of(before, null))]
            );
        exception
            when others then
                raise warning 'dagstop: order_task failed: %', sqlerrm;
        end;
        return null;
end
$$;
comment on function dagstop.order_task() is 'Trigger function: writes the stop order of a task instance that was failed directly, or changed to a state that setting also_stop_on names.';
