-- Fired by: `dagstop install`, when it brings the schema to a release, or its `--sql` script.
-- Changes: who may call and read what of dagstop's: what 02_note_grants.sql has noted, and what the
-- role dagstop_listener needs, are granted; what all may do by Postgres's default is taken back.
-- Leaves alone: every right on Airflow's tables.

do $$
declare
    statement text;
begin
    foreach statement in array
        coalesce(nullif(pg_catalog.current_setting('dagstop.grants', true), ''::text)::text[], '{}'::text[])
    loop
        begin
            execute statement;
        exception
            when undefined_function or undefined_table or undefined_object then
                raise notice 'this release has no more: %', statement;
        end;
    end loop;
end
$$;

revoke all on all tables in schema dagstop from public;
revoke all on all functions in schema dagstop from public;

do $$
begin
    if pg_catalog.to_regrole('dagstop_listener') is null then
        return;
    end if;
    grant usage on schema dagstop to dagstop_listener;
    grant select on all tables in schema dagstop to dagstop_listener;
    grant execute on function
        dagstop.setting_of(text, text), dagstop.seconds_of(text, integer),
        dagstop.open_orders(text, bigint[], integer), dagstop.rung_for(text, integer), dagstop.would_be_order(text, text, text),
        dagstop.task_states(text[], jsonb), dagstop.write_report(bigint, text, text, timestamptz, timestamptz, jsonb),
        dagstop.heartbeat(text, uuid, text, jsonb), dagstop.retire(text, uuid), dagstop.trigger_health(),
        dagstop.task_hosts(), dagstop.gone_hosts(), dagstop.forget_host(text), dagstop.running_in_failed_runs()
        to dagstop_listener;
end
$$;
