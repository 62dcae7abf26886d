-- What the install asks of the database before it changes anything: one block per query, named in
-- its first line. Parameters are psycopg2's, by name.

-- server --
select
    current_setting('server_version_num')::integer as number, current_setting('server_version') as name,
    pg_is_in_recovery() as replica, current_database() as database, current_user::text as role;

-- airflow_schema --
-- as 00_pin.sql has found it
select current_setting('dagstop.airflow_schema') as found, current_setting('dagstop.session_path') as search_path;

-- airflow_schemas_anywhere --
select n.nspname
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where c.relname in ('dag_run', 'task_instance', 'alembic_version') and c.relkind in ('r', 'p')
group by n.nspname
having count(*) = 3
order by n.nspname;

-- set_airflow_schema --
select set_config('dagstop.airflow_schema', %(schema)s, true);

-- set_lock_timeout --
select set_config('lock_timeout', %(value)s, true), set_config('client_min_messages', 'warning', true);

-- one_install_at_a_time --
select pg_try_advisory_xact_lock(hashtext('dagstop install'), 0);

-- schema_owner --
select pg_get_userbyid(nspowner) as owner, pg_has_role(nspowner, 'usage') as owned
from pg_namespace
where nspname = 'dagstop';

-- table_owners --
select c.relname as name, pg_get_userbyid(c.relowner) as owner, pg_has_role(c.relowner, 'usage') as owned
from pg_class c
where c.relnamespace = to_regnamespace(quote_ident(current_setting('dagstop.airflow_schema')))::oid
    and c.relname in ('dag_run', 'task_instance') and c.relkind in ('r', 'p')
order by c.relname;

-- may_create_schema --
select has_database_privilege(current_database(), 'create');

-- lacking --
-- what is not as an install leaves it. Only the catalogue is read, and no function of dagstop is called: its code
-- may be another role's. `check` asks this too.
with ours as (
    select
        case c.relkind when 'v' then 'view' when 'i' then 'index' when 'S' then 'sequence' else 'table' end
            || ' dagstop.'::text || c.relname::text as named,
        c.relname::text as name, c.relkind::text as kind, c.oid, c.relowner as owner, c.relacl as rights
    from pg_catalog.pg_class c
    where c.relnamespace = pg_catalog.to_regnamespace('dagstop')::oid
        and (c.relname::text = any (%(objects)s::text[]) or c.relkind = 'S'::"char")
    union all
    select 'function '::text || p.oid::regprocedure::text, p.proname::text, 'f'::text, p.oid, p.proowner, p.proacl
    from pg_catalog.pg_proc p
    where p.pronamespace = pg_catalog.to_regnamespace('dagstop')::oid and p.proname::text = any (%(objects)s::text[])
    union all
    select 'schema dagstop'::text, 'dagstop'::text, 'n'::text, n.oid, n.nspowner, n.nspacl
    from pg_catalog.pg_namespace n
    where n.nspname = 'dagstop'::name
), listeners as (
    select r.oid from pg_catalog.pg_roles r where r.rolname = 'dagstop_listener'::name
)
select 'object'::text as kind, 'dagstop.'::text || o.name as what
from pg_catalog.unnest(%(objects)s::text[]) as o (name)
where not exists (select from ours where ours.name = o.name)
union all
select 'object'::text, 'trigger dagstop_setting of dagstop.setting'::text
where not exists (
    select from pg_catalog.pg_trigger t
    where t.tgrelid = pg_catalog.to_regclass('dagstop.setting')::oid and t.tgname = 'dagstop_setting'::name
        and t.tgenabled in ('O'::"char", 'A'::"char")
)
union all
select 'owner'::text, 'the owner of '::text || o.named
from ours o
join pg_catalog.pg_class airflow
    on airflow.oid = pg_catalog.to_regclass(pg_catalog.format('%%I.dag_run', %(schema)s::text))::oid
where o.owner <> airflow.relowner
union all
select 'role'::text, 'role dagstop_listener'::text
where not exists (select from listeners)
union all
select 'grant'::text, 'the grant of '::text || o.named || ' to dagstop_listener'::text
from ours o
cross join listeners l
where case
    when o.kind = 'n'::text then not pg_catalog.has_schema_privilege(l.oid, o.oid, 'usage')
    when o.kind = 'f'::text
        then o.name = any (%(functions)s::text[]) and not pg_catalog.has_function_privilege(l.oid, o.oid, 'execute')
    when o.kind not in ('i'::text, 'S'::text) then not pg_catalog.has_table_privilege(l.oid, o.oid, 'select')
end
union all
select distinct 'public'::text, 'the right of all roles on '::text || o.named
from ours o
cross join lateral pg_catalog.aclexplode(coalesce(
    o.rights, case when o.kind = 'f'::text then pg_catalog.acldefault('f'::"char", o.owner) end
)) as a
where a.grantee = 0::oid
order by 1, 2;

-- may_create_roles --
select r.rolsuper or r.rolcreaterole from pg_catalog.pg_roles r where r.rolname = current_user::name;

-- version_table --
select to_regclass('dagstop.alembic_version') is not null;

-- revision --
select version_num from dagstop.alembic_version;

-- trigger_settings --
select name, value from dagstop.setting where name in ('airflow_schema', 'triggers_checksum');

-- triggers --
-- those of dagstop on Airflow's tables, as the catalogue has them: trigger_health may be another role's code by now
select
    c.relname::text as on_table, t.tgname::text as name, p.proname::text as function,
    t.tgenabled in ('O', 'A') as enabled, obj_description(t.oid, 'pg_trigger') as comment
from pg_trigger t
join pg_class c on c.oid = t.tgrelid
join pg_proc p on p.oid = t.tgfoid
where c.relnamespace = to_regnamespace(quote_ident(%(schema)s))::oid and c.relname in ('dag_run', 'task_instance')
    and p.pronamespace = to_regnamespace('dagstop')::oid and not t.tgisinternal;

-- event_triggers --
select e.evtname::text as name, p.proname::text as function
from pg_event_trigger e
join pg_proc p on p.oid = e.evtfoid
where e.evtenabled <> 'D';

-- lock_holders --
select distinct a.pid, coalesce(nullif(a.application_name, ''), a.usename, 'no name') as name, a.state
from pg_locks l
join pg_stat_activity a on a.pid = l.pid
join pg_class c on c.oid = l.relation
where l.granted and c.relname in ('dag_run', 'task_instance') and a.pid <> pg_backend_pid()
    and l.database = (select d.oid from pg_database d where d.datname = current_database())
order by a.pid
limit 3;
