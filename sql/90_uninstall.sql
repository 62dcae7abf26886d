-- Fired by: `dagstop uninstall`, whichever release is there, also after an install that broke off; or by its
-- `--sql` script.
-- Changes: drops the triggers on Airflow's tables, and every function, view and table of schema dagstop.
-- Leaves alone: Airflow, and what others have made out of dagstop's objects or put into
-- schema dagstop: Postgres names it and ends the transaction, unless the drop is to cascade.
-- Only the catalogue is read, and a drop fires no code: whatever the tables' owner has put there, stays silent.

do $$
declare
    statement text;
begin
    for statement in
        -- the clones on the partitions of a table go with it
        select pg_catalog.format('drop trigger %I on %s', t.tgname, c.oid::regclass)
        from pg_catalog.pg_trigger t
        join pg_catalog.pg_class c on c.oid = t.tgrelid
        join pg_catalog.pg_proc p on p.oid = t.tgfoid
        where p.pronamespace = pg_catalog.to_regnamespace('dagstop')::oid and not t.tgisinternal
            and not c.relispartition and pg_catalog.left(t.tgname::text, 8) = 'dagstop_'::text
        order by c.relname, t.tgname
    loop
        execute statement;
    end loop;
    for statement in
        with ours as (
            select
                c.relkind::text as kind, pg_catalog.format('dagstop.%I', c.relname) as named,
                c.relname::text as name, c.relowner as owner
            from pg_catalog.pg_class c
            where c.relnamespace = pg_catalog.to_regnamespace('dagstop')::oid and c.relkind in ('r', 'v', 'p')
            union all
            select 'f'::text, p.oid::regprocedure::text, p.proname::text, p.proowner
            from pg_catalog.pg_proc p
            where p.pronamespace = pg_catalog.to_regnamespace('dagstop')::oid and p.prokind in ('f'::"char", 'p'::"char")
        )
        -- each kind in one statement: some of them refer to others
        select pg_catalog.format(
            'drop %s %s {cascade}',
            case o.kind when 'v'::text then 'view' when 'f'::text then 'routine' else 'table' end,
            pg_catalog.string_agg(o.named, ', '::text)
        )
        from ours o
        join pg_catalog.pg_namespace n on n.nspname = 'dagstop'::name
        -- those of another release have other names, but the schema's owner
        where o.name = any ('{objects}'::text[]) or o.owner = n.nspowner
        group by o.kind
        order by case o.kind when 'v'::text then 1 when 'f'::text then 2 else 3 end
    loop
        execute statement;
    end loop;
end
$$;
