-- Fired by: `dagstop install`, before it changes anything, or by its `--sql` script.
-- Changes: nothing. Holds schema dagstop, and the two tables that an install reads and writes, as they are
-- until the transaction ends; ends it, with the reason, where an install would run another role's code with
-- the rights of this session, would take dagstop away from another Airflow, or would break a subscriber.
-- Leaves alone: what the owner of these tables does with them in other sessions.
-- Code of another role can do all that the login role of this session may: SET ROLE is not a boundary, since
-- any code may reset it. So an install fires only its own code: it replaces each function before it
-- calls it, and of the tables that were there before it reads and writes these two only.

do $$
begin
    if pg_catalog.current_setting('dagstop.airflow_schema') = ''::text then
        raise exception 'no Airflow tables dag_run, task_instance, alembic_version on the search_path %',
            pg_catalog.current_setting('dagstop.session_path')
            using hint = 'Connect to Airflow''s database as Airflow does, with the search_path that it uses.';
    end if;
end
$$;

do $$
declare
    may_all constant boolean := (select r.rolsuper from pg_catalog.pg_roles r where r.rolname = session_user::name);
    triggers text;
begin
    select pg_catalog.string_agg(e.evtname::text, ', '::text) into triggers
    from pg_catalog.pg_event_trigger e
    join pg_catalog.pg_proc p on p.oid = e.evtfoid
    join pg_catalog.pg_roles r on r.oid = p.proowner
    where e.evtenabled <> 'D'::"char" and not r.rolsuper and r.rolname <> session_user::name;
    if triggers is not null then
        raise exception 'event trigger % would run another role''s code with the rights of %', triggers, session_user
            using errcode = 'DS001', hint = 'Give its function to a superuser, or disable it, and run this again.';
    end if;
    if pg_catalog.to_regnamespace('dagstop') is null or not (may_all or exists (
        select from pg_catalog.pg_namespace n
        where n.nspname = 'dagstop'::name and pg_catalog.pg_get_userbyid(n.nspowner) <> session_user::name
    )) then
        return;
    end if;
    -- writes the row of the schema as it is: nobody renames the schema until the transaction ends
    revoke all on schema dagstop from public;
end
$$;

do $$
declare
    held record;
begin
    for held in
        select c.relname as named
        from pg_catalog.pg_class c
        where c.relnamespace = pg_catalog.to_regnamespace('dagstop')::oid
            and c.relname in ('alembic_version'::name, 'setting'::name)
            and c.relkind in ('r'::"char", 'p'::"char", 'f'::"char")
        order by c.relname
    loop
        -- Airflow's statements read them meanwhile
        execute pg_catalog.format('lock table only dagstop.%I in share row exclusive mode', held.named);
    end loop;
end
$$;

do $$
declare
    may_all constant boolean := (select r.rolsuper from pg_catalog.pg_roles r where r.rolname = session_user::name);
    owners text;
    code text;
begin
    with held as (
        select c.oid, c.relname, c.relkind, pg_catalog.format('dagstop.%I', c.relname) as named, c.relowner, c.relrowsecurity
        from pg_catalog.pg_class c
        where c.relnamespace = pg_catalog.to_regnamespace('dagstop')::oid
            and c.relname in ('alembic_version'::name, 'setting'::name)
            and (may_all or pg_catalog.pg_get_userbyid(c.relowner) <> session_user::name)
    ), found as (
        select h.named || ' (no plain table)'::text as what
        from held h
        where h.relkind <> 'r'::"char" or exists (
            select from pg_catalog.pg_inherits i where i.inhparent = h.oid or i.inhrelid = h.oid
        )
        union all
        select pg_catalog.format('trigger %I on %s', t.tgname, h.named)
        from held h
        join pg_catalog.pg_trigger t on t.tgrelid = h.oid
        where not t.tgisinternal and not (
            h.relname = 'setting'::name and t.tgname = 'dagstop_setting'::name and t.tgqual is null
            and t.tgfoid is not distinct from pg_catalog.to_regprocedure('dagstop.check_setting()')::oid
        )
        union all
        select pg_catalog.format('rule %I on %s', w.rulename, h.named)
        from held h
        join pg_catalog.pg_rewrite w on w.ev_class = h.oid
        where h.relkind = 'r'::"char"
        union all
        select pg_catalog.format('row level security of %s', h.named) from held h where h.relrowsecurity
        union all
        select pg_catalog.format('constraint %I of %s', k.conname, k.conrelid::regclass)
        from held h
        join pg_catalog.pg_constraint k on k.conrelid = h.oid or k.confrelid = h.oid
        where k.contype not in ('p'::"char", 'n'::"char")
        union all
        select pg_catalog.format('the default of column %I of %s', a.attname, h.named)
        from held h
        join pg_catalog.pg_attrdef d on d.adrelid = h.oid
        join pg_catalog.pg_attribute a on a.attrelid = h.oid and a.attnum = d.adnum
        union all
        select pg_catalog.format('the type of column %I of %s', a.attname, h.named)
        from held h
        join pg_catalog.pg_attribute a on a.attrelid = h.oid and a.attnum > 0::smallint and not a.attisdropped
        where h.relkind = 'r'::"char" and a.atttypid not in ('text'::regtype::oid, 'varchar'::regtype::oid)
        union all
        select pg_catalog.format('index %s', i.indexrelid::regclass)
        from held h
        join pg_catalog.pg_index i on i.indrelid = h.oid
        where i.indexprs is not null or i.indpred is not null
    )
    select
        pg_catalog.string_agg(f.what, ', '::text order by f.what),
        (select pg_catalog.string_agg(distinct pg_catalog.pg_get_userbyid(h.relowner)::text, ', '::text) from held h)
    into code, owners
    from found f;
    if code is not null then
        raise exception 'another role''s code could take the rights of %: %', session_user, code
            using errcode = 'DS001', hint = pg_catalog.format(
                'Drop that and run this again, or run this as %s, who owns the table.', owners
            );
    end if;
end
$$;

do $$
declare
    -- who may own what an install finds: what it did not make, it must not hand over
    tables_owner constant oid := (
        select c.relowner from pg_catalog.pg_class c where c.oid = pg_catalog.to_regclass('dag_run')::oid
    );
    strange record;
begin
    select o.named, r.rolname into strange
    from (
        select 'schema dagstop'::text as named, n.nspowner as owner
        from pg_catalog.pg_namespace n
        where n.nspname = 'dagstop'::name
        union all
        select pg_catalog.format('dagstop.%I', c.relname), c.relowner
        from pg_catalog.pg_class c
        where c.relnamespace = pg_catalog.to_regnamespace('dagstop')::oid and c.relname::text = any ('{objects}'::text[])
        union all
        select 'function '::text || p.oid::regprocedure::text, p.proowner
        from pg_catalog.pg_proc p
        where p.pronamespace = pg_catalog.to_regnamespace('dagstop')::oid and p.proname::text = any ('{objects}'::text[])
    ) as o
    join pg_catalog.pg_roles r on r.oid = o.owner
    where o.owner <> tables_owner and not r.rolsuper and r.rolname <> session_user::name
    limit 1;
    if strange is not null then
        raise exception '% belongs to role %, not to %, who owns Airflow''s tables',
            strange.named, strange.rolname, pg_catalog.pg_get_userbyid(tables_owner)
            using errcode = 'DS001',
            hint = 'Drop it (or run `dagstop uninstall`), or give it to that owner if you know what is in it.';
    end if;
end
$$;

do $$
declare
    here constant text := pg_catalog.current_setting('dagstop.airflow_schema');
    noted text;
    revision text;
    publications text;
begin
    if pg_catalog.to_regclass('dagstop.setting') is not null then
        noted := (select s.value from only dagstop.setting s where s.name = 'airflow_schema'::text);
    end if;
    if noted <> here and (
        select pg_catalog.count(*)
        from pg_catalog.pg_class c
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where n.nspname::text = noted and c.relname in ('dag_run'::name, 'task_instance'::name)
    ) = 2::bigint then
        raise exception 'dagstop works for the Airflow in schema %, and a database has one dagstop only: nothing was done for the Airflow in schema %',
            noted, here
            using errcode = 'DS001', hint = pg_catalog.format(
                'If Airflow has moved to schema %s, drop or rename the tables that it left in schema %s; or run `dagstop uninstall` first.',
                here, noted
            );
    end if;

    if '{published}'::text = 'on'::text then
        return;
    end if;
    if pg_catalog.to_regclass('dagstop.alembic_version') is not null then
        revision := (select v.version_num::text from only dagstop.alembic_version v limit 1);
    end if;
    publications := (
        select pg_catalog.string_agg(p.pubname::text, ', '::text) from pg_catalog.pg_publication p where p.puballtables
    );
    if publications is not null and coalesce(revision, ''::text) < '{revision}'::text then
        raise exception 'publication % is FOR ALL TABLES, so it will send the rows of schema dagstop too, and each subscriber without these tables will stop with an error',
            publications
            using errcode = 'DS001', hint = pg_catalog.format(
                'Publish the tables of schema %s instead (FOR TABLES IN SCHEMA since Postgres 15), or create those of schema dagstop on each subscriber first and insist by the option published.',
                here
            );
    end if;
end
$$;
