-- Fired by: `dagstop install` and `uninstall`, before they change anything; or by their `--sql` scripts.
-- Changes: nothing. Takes the locks that attaching and dropping triggers needs, on the tables of
-- Airflow that exist and on those that have a dagstop trigger.
-- Leaves alone: other sessions. It waits two seconds at most for the first table, holding no other lock
-- meanwhile, and only tries for the others: in a deadlock Airflow could be the victim.
-- Whatever runs outside a function here and below compares exact types only (oid with oid, text with
-- text): an operator that a stranger made in a schema on the path would else be preferred.

do $$
declare
    airflow_table regclass;
    held boolean := false;
    give_way_at timestamptz;
begin
    if pg_catalog.current_setting('lock_timeout') = '0' then
        -- a script in psql: whoever waits in the queue for a lock makes all behind it wait
        perform pg_catalog.set_config('lock_timeout', '2s', true);
    end if;
    for airflow_table in
        select c.oid
        from pg_catalog.pg_class c
        where c.oid in (pg_catalog.to_regclass('dag_run')::oid, pg_catalog.to_regclass('task_instance')::oid)
            or exists (
                select
                from pg_catalog.pg_trigger t
                join pg_catalog.pg_proc p on p.oid = t.tgfoid
                join pg_catalog.pg_namespace n on n.oid = p.pronamespace
                where t.tgrelid = c.oid and n.nspname = 'dagstop' and c.relnamespace <> n.oid
            )
        order by c.relname, c.oid  -- dag_run first, as everybody
    loop
        if not held then
            execute pg_catalog.format('lock table %s in access exclusive mode', airflow_table);
            held := true;
            give_way_at := pg_catalog.clock_timestamp() + interval '1 second';
            continue;
        end if;
        loop
            begin
                execute pg_catalog.format('lock table %s in access exclusive mode nowait', airflow_table);
                exit;
            exception
                when lock_not_available then
                    if pg_catalog.clock_timestamp() > give_way_at then
                        raise;
                    end if;
            end;
            perform pg_catalog.pg_sleep(0.01);
        end loop;
    end loop;
end
$$;
