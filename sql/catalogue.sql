-- What the install asks of the database before it changes anything: one block per query, named in
-- its first line. Parameters are psycopg2's, by name.

-- server --
select
    current_setting('server_version_num')::integer as number, current_setting('server_version') as name,
    pg_is_in_recovery() as replica, current_database() as database, current_user::text as role,
    current_setting('search_path') as search_path;

-- airflow_schema --
select n.nspname
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where c.oid = pg_catalog.to_regclass('dag_run')::oid
    and to_regclass('task_instance') is not null and to_regclass('alembic_version') is not null;

-- airflow_schemas_anywhere --
select n.nspname
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where c.relname in ('dag_run', 'task_instance', 'alembic_version') and c.relkind in ('r', 'p')
group by n.nspname
having count(*) = 3
order by n.nspname;

-- pin --
-- from here on nothing of a schema that others may write to can stand in for what is meant: Alembic's own
-- statements compare types for which Postgres would prefer an operator of a stranger's
select set_config('search_path', 'pg_catalog, pg_temp', true), set_config('dagstop.airflow_schema', %(schema)s, true);

-- set_lock_timeout --
select set_config('lock_timeout', %(value)s, true), set_config('client_min_messages', 'warning', true);

-- one_install_at_a_time --
select pg_advisory_xact_lock(hashtext('dagstop install'), 0);

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

-- belongs_to_another --
-- dagstop's functions act with their owner's rights, which must not exceed those of Airflow's
select exists (
    select from pg_proc p
    where p.pronamespace = pg_catalog.to_regnamespace('dagstop')::oid and p.prosecdef
        and p.proowner <> (
            select c.relowner from pg_class c
            where c.oid = to_regclass(format('%%I.dag_run', current_setting('dagstop.airflow_schema')))::oid
        )
);

-- version_table --
select to_regclass('dagstop.alembic_version') is not null;

-- revision --
select version_num from dagstop.alembic_version;

-- objects --
select relname as name from pg_class where relnamespace = pg_catalog.to_regnamespace('dagstop')::oid
union
select proname from pg_proc where pronamespace = pg_catalog.to_regnamespace('dagstop')::oid;

-- trigger_settings --
select name, value from dagstop.setting where name in ('airflow_schema', 'triggers_checksum');

-- trigger_health --
select table_name || '.' || trigger_name as name, status from dagstop.trigger_health();

-- lock_holders --
select distinct a.pid, coalesce(nullif(a.application_name, ''), a.usename, 'no name') as name, a.state
from pg_locks l
join pg_stat_activity a on a.pid = l.pid
join pg_class c on c.oid = l.relation
where l.granted and c.relname in ('dag_run', 'task_instance') and a.pid <> pg_backend_pid()
    and l.database = (select d.oid from pg_database d where d.datname = current_database())
order by a.pid
limit 3;
