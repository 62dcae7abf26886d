-- Fired by: `dagstop install`, when it brings the schema to a release, or its `--sql` script.
-- Changes: who may call and read which of dagstop's objects: what 03_schema.sql has noted, and what the
-- role dagstop_listener needs, are granted; what all may do by a default is taken back.
-- Leaves alone: every right on Airflow's tables.

do $$
declare
    noted jsonb;
begin
    for noted in
        select value
        from pg_catalog.jsonb_array_elements(nullif(pg_catalog.current_setting('dagstop.grants', true), ''::text)::jsonb)
    loop
        if pg_catalog.to_regclass(case when noted ->> 'kind'::text = 'table'::text then noted ->> 'named'::text end) is null
            and pg_catalog.to_regprocedure(case when noted ->> 'kind'::text = 'routine'::text then noted ->> 'named'::text end) is null
        then
            raise notice 'this release has no more: %', noted ->> 'grant'::text;
            continue;
        end if;
        execute noted ->> 'grant'::text;
    end loop;
end
$$;

-- what an ALTER DEFAULT PRIVILEGES of the owner's gave to all, too
revoke all on all sequences in schema dagstop from public;
revoke all on all tables in schema dagstop from public;
revoke all on all routines in schema dagstop from public;

do $$
begin
    if pg_catalog.to_regrole('dagstop_listener') is null then
        return;
    end if;
    grant usage on schema dagstop to dagstop_listener;
    grant select on all tables in schema dagstop to dagstop_listener;
    grant execute on routine
        dagstop.known_settings(), dagstop.setting_of(text, text), dagstop.seconds_of(text, integer),
        dagstop.open_orders(text, bigint[], integer), dagstop.rung_for(text, integer), dagstop.would_be_order(text, text, text),
        dagstop.task_states(text[], jsonb), dagstop.write_report(bigint, text, text, timestamptz, timestamptz, jsonb),
        dagstop.heartbeat(text, uuid, text, jsonb), dagstop.retire(text, uuid), dagstop.trigger_health(),
        dagstop.task_hosts(), dagstop.gone_hosts(), dagstop.forget_host(text), dagstop.running_in_failed_runs(),
        dagstop.waits_for(dagstop.stop_order), dagstop.chore(text, bigint[]), dagstop.do_chores(bigint[])
        to dagstop_listener;
    -- `install` and `check` know by this that the role is missed, say after a restore into another server
    insert into dagstop.setting (name, value, comment)
    values ('listener_role', 'dagstop_listener', 'The role of the listeners; set by dagstop install.')
    on conflict (name) do nothing;
end
$$;
