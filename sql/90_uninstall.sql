-- Fired by: `dagstop uninstall` (the downgrade to nothing), also after an install that broke off.
-- Changes: drops every function, view and table of schema dagstop, and with the functions the
-- triggers on Airflow's tables.
-- Leaves alone: dagstop's own Alembic version table, which Alembic still needs at that moment
-- (91_drop_schema.sql takes it), and everything of Airflow's.

do $$
declare
    -- the triggers go with their functions, whichever schema Airflow's tables are in by now
    statement text;
begin
    for statement in
        select pg_catalog.format('drop function %s cascade', p.oid::regprocedure)
        from pg_catalog.pg_proc p
        join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where n.nspname = 'dagstop'
        order by p.oid
    loop
        execute statement;
    end loop;
    for statement in
        select pg_catalog.format('drop %s if exists dagstop.%I cascade', case c.relkind when 'v' then 'view' else 'table' end, c.relname)
        from pg_catalog.pg_class c
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where n.nspname = 'dagstop' and c.relkind in ('v', 'r') and c.relname <> 'alembic_version'
        order by c.relkind desc, c.oid
    loop
        execute statement;
    end loop;
end
$$;

do $$
begin
    -- a script in psql: Alembic's next statement compares types for which Postgres would prefer an operator
    -- of a stranger's to its own
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
end
$$;
