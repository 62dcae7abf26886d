-- Fired by: `dagstop install` and `uninstall`, before all else, and by their `--sql` scripts.
-- Changes: the search_path, for this transaction: pg_catalog, then the schema of Airflow's tables, if the
-- session's own path finds them.
-- Leaves alone: all that is on the session's own path, which the owner of the database may have set. Until
-- the path is pinned, no operator is used, and each function and type is named with its schema.

do $$
begin
    perform pg_catalog.set_config('dagstop.session_path', pg_catalog.current_setting('search_path'), true);
    perform pg_catalog.set_config(
        'dagstop.dag_run', pg_catalog.format('%s', pg_catalog.to_regclass('dag_run')::pg_catalog.oid), true
    );
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
end
$$;

do $$
begin
    perform pg_catalog.set_config('dagstop.airflow_schema', coalesce((
        select n.nspname::text
        from pg_catalog.pg_class c
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where c.oid = nullif(pg_catalog.current_setting('dagstop.dag_run'), '')::oid
            and (
                select pg_catalog.count(*) from pg_catalog.pg_class other
                where other.relnamespace = n.oid and other.relname in ('task_instance', 'alembic_version')
            ) = 2
    ), ''), true);
    perform pg_catalog.set_config('search_path', pg_catalog.concat_ws(', ', 'pg_catalog, pg_temp',
        pg_catalog.quote_ident(nullif(pg_catalog.current_setting('dagstop.airflow_schema'), ''))), true);
end
$$;
