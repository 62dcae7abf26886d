-- Fired by: `dagstop install` or its `--sql` script.
-- Changes: notes, for this transaction, what is granted on dagstop's objects to which roles (a DBA may have,
-- or an earlier install), for 19_grants.sql to grant it again: a function that comes back with other columns
-- is dropped first, and its grants would go with it. Creates the schema dagstop, the role dagstop_listener
-- if the installer may create roles, and the tables of settings and of the revision; all that is dagstop's
-- belongs to the owner of Airflow's tables. Run again, it changes nothing.
-- Leaves alone: Airflow; none of its tables, columns or types is touched.

do $$
begin
    perform pg_catalog.set_config('dagstop.grants', (
        select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'kind', o.kind, 'named', o.named, 'grant', pg_catalog.format(
                'grant %s on %s %s to %I %s', a.privilege_type, o.kind, o.named, pg_catalog.pg_get_userbyid(a.grantee),
                case when a.is_grantable then 'with grant option' end
            )
        ))::text
        from (
            select 'routine'::text as kind, p.oid::regprocedure::text as named, p.proowner as owner, p.proacl as rights
            from pg_catalog.pg_proc p
            where p.pronamespace = pg_catalog.to_regnamespace('dagstop')::oid
            union all
            select 'table'::text, c.oid::regclass::text, c.relowner, c.relacl
            from pg_catalog.pg_class c
            where c.relnamespace = pg_catalog.to_regnamespace('dagstop')::oid and c.relkind in ('r', 'v')
        ) as o
        cross join lateral pg_catalog.aclexplode(o.rights) as a
        -- what all may do is decided in 19_grants.sql, not kept; the owner may do everything anyway
        where a.grantee <> o.owner and a.grantee <> 0::oid
    ), true);
end
$$;

do $$
begin
    -- "if not exists" asks for the right to create one even where there is one
    if pg_catalog.to_regnamespace('dagstop') is null then
        create schema dagstop;
    end if;
end
$$;
comment on schema dagstop is 'The kill switch for Airflow: orders, their targets and their reports.';
revoke all on schema dagstop from public;

do $$
begin
    create role dagstop_listener nologin;
    comment on role dagstop_listener is 'May run a dagstop listener: grant it to the login role that it uses.';
exception
    when duplicate_object or unique_violation then
        null;  -- another database of this server has it already
    when insufficient_privilege then
        raise notice 'role dagstop_listener not created: the listener needs the role that owns schema dagstop';
end
$$;

do $$
declare
    -- dagstop's functions update Airflow's tables with the rights of their owner, and with them runs any
    -- trigger that the tables' owner has put there: if a superuser owned them, he would be one too
    tables_owner oid;
    named text;
    statement text;
begin
    select c.relowner into tables_owner
    from pg_catalog.pg_class c
    where c.oid = pg_catalog.to_regclass('dag_run')::oid;
    named := pg_catalog.pg_get_userbyid(tables_owner)::text;
    if named is null then
        return;
    end if;
    if named <> current_user::text and tables_owner <> (
        select c.relowner from pg_catalog.pg_class c where c.oid = pg_catalog.to_regclass('task_instance')::oid
    ) then
        raise exception 'dag_run and task_instance belong to two roles'
            using hint = 'Give them one owner, as Airflow does.', errcode = 'insufficient_privilege';
    end if;
    execute pg_catalog.format('alter schema dagstop owner to %I', named);
    for statement in
        select pg_catalog.format('alter table dagstop.%I owner to %I', c.relname, named)
        from pg_catalog.pg_class c
        where c.relnamespace = pg_catalog.to_regnamespace('dagstop')::oid
            and c.relname::text = any ('{objects}'::text[]) and c.relkind in ('r', 'v') and c.relowner <> tables_owner
        union all
        select pg_catalog.format('alter routine %s owner to %I', p.oid::regprocedure, named)
        from pg_catalog.pg_proc p
        where p.pronamespace = pg_catalog.to_regnamespace('dagstop')::oid
            and p.proname::text = any ('{objects}'::text[]) and p.proowner <> tables_owner
    loop
        execute statement;
    end loop;
    perform pg_catalog.set_config('role', named, true);
end
$$;

create table if not exists dagstop.alembic_version (
    version_num varchar(32) not null constraint alembic_version_pkc primary key
);
comment on table dagstop.alembic_version is 'The revision of schema dagstop; Airflow has a table of its own.';

create table if not exists dagstop.setting (
    name text primary key,
    value text not null,
    comment text not null
);
comment on table dagstop.setting is 'What an operator may tune, one row per setting; read at every use.';
comment on column dagstop.setting.name is 'Which setting.';
comment on column dagstop.setting.value is 'Its present value, as text.';
comment on column dagstop.setting.comment is 'What it means, and its unit.';
