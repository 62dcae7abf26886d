-- Fired by: the functions of the later files, never by a trigger itself.
-- Changes: record_fault writes dagstop.fault and raises a WARNING, reach and reach_references lock,
-- set_again updates a row of task_instance or dag_run; the others only read.
-- Leaves alone: the statement in which a fault happened, which goes on.
-- Every function here and below pins its search_path, so that no object in a schema that others
-- may write to can stand in for one that is meant. A statement that writes Airflow's tables runs under
-- another, airflow_path, since others' triggers need it: each name and operator in its text is qualified.

create or replace function dagstop.columns_of(schema_name text, table_name text) returns text[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    -- found before the query, which would otherwise be planned at each call
    asked constant oid := to_regclass(format('%I.%I', schema_name, table_name))::oid;
begin
    if asked is null then
        raise exception 'dagstop.columns_of: no table %.%', schema_name, table_name
            using errcode = 'undefined_table';
    end if;
    return array(
        select a.attname::text from pg_attribute a
        where a.attrelid = asked and a.attnum > 0 and not a.attisdropped
    );
end
$$;
comment on function dagstop.columns_of(text, text) is 'The columns that an Airflow table has now; read at each call, since Airflow may be upgraded in between.';

create or replace function dagstop.date_column_of(schema_name text) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if 'logical_date' = any (dagstop.columns_of(schema_name, 'dag_run')) then
        return 'logical_date';
    end if;
    return 'execution_date';
end
$$;
comment on function dagstop.date_column_of(text) is 'What dag_run calls the date of a run: logical_date since Airflow 3, execution_date before.';

create or replace function dagstop.airflow_path(schema_name text, table_name text) returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    asked constant oid := to_regclass(format('%I.%I', schema_name, table_name))::oid;
    begun text[];
begin
    if pg_has_role(session_user, current_user, 'usage') then
        -- the path that the session began with
        set local search_path to default;
    else
        -- what a lesser role has set must not choose what the triggers call: they run as the tables' owner
        perform set_config('search_path', coalesce(
            (
                select substr(c, length('search_path=') + 1)
                from pg_db_role_setting s
                cross join lateral unnest(s.setconfig) as c
                where s.setrole in (0, current_user::regrole::oid)
                    and s.setdatabase in (0, (select d.oid from pg_database d where d.datname = current_database()))
                    and starts_with(c, 'search_path=')
                order by s.setrole = 0, s.setdatabase = 0
                limit 1
            ),
            case when has_schema_privilege('public', to_regnamespace('public')::oid, 'create') then '"$user"'
                else '"$user", public' end
        ), true);
    end if;
    -- under a path of others: each name is qualified
    begun := pg_catalog.current_schemas(false);
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    return (
        select string_agg(quote_ident(p.named), ', ' order by p.place)
        from (
            select 0 as place, schema_name as named
            where schema_name <> all (begun)
            union all
            select b.place, b.named
            from unnest(begun) with ordinality as b (named, place)
            where not starts_with(b.named, 'pg_temp')
            union all
            -- a trigger's own schema is where its tables are likely to be
            select cardinality(begun) + 1, n.nspname::text
            from pg_trigger t
            join pg_proc f on f.oid = t.tgfoid
            join pg_namespace n on n.oid = f.pronamespace
            where t.tgrelid = asked and not t.tgisinternal and n.nspname <> 'dagstop'
            and n.nspname <> all (begun || schema_name)
            group by n.nspname
            union all
            -- else temporary tables would be found first
            select cardinality(begun) + 2, 'pg_temp'
        ) as p
    );
end
$$;
comment on function dagstop.airflow_path(text, text) is 'The search_path for a statement that writes an Airflow table, under which others'' triggers must work: the path the session began with if its role may act as the tables'' owner, else the owner''s default; plus Airflow''s schema and those of the trigger functions.';

create or replace function dagstop.asked_for(what text) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    asked text := current_setting('dagstop.' || what, true);
begin
    if asked = 'on' then
        raise warning 'dagstop: dagstop.% = on has no effect: behind a pooler Airflow''s next transaction would have it too', what
            using hint = format('For this transaction: select set_config(''dagstop.%s'', txid_current()::text, true)', what);
    end if;
    return coalesce(asked = txid_current()::text, false);
end
$$;
comment on function dagstop.asked_for(text) is 'True if this transaction has asked for something: a setting of that name holds the transaction''s number. A value set for the whole session does not count.';

create or replace function dagstop.may_wait() returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    present constant timestamptz := clock_timestamp();
    -- a number: the text of a timestamp depends on the session
    begun timestamptz := to_timestamp(nullif(current_setting('dagstop.waits_since', true), '')::bigint / 1000.0);
begin
    if begun is null or begun > present then
        begun := present;
        perform set_config('dagstop.waits_since', floor(extract(epoch from begun) * 1000)::bigint::text, true);
    end if;
    -- the second half of a limit of the client's is left to its own statement
    if present >= least(
        begun + interval '1 second',
        statement_timestamp() + nullif(current_setting('statement_timeout')::interval, interval '0') / 2,
        now() + nullif(current_setting('transaction_timeout', true)::interval, interval '0') / 2  -- Postgres 17 on
    ) then
        return false;
    end if;
    perform pg_sleep(0.01);
    return true;
end
$$;
comment on function dagstop.may_wait() is 'Between two tries for a lock: sleeps for a moment and returns true, or returns false. A transaction tries for a second in all, since it may fail a thousand runs, and never beyond half of the client''s statement_timeout or transaction_timeout.';

create or replace function dagstop.reach(schema_name text, table_name text, mode text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    loop
        begin
            execute format('lock table %I.%I in %s mode nowait', schema_name, table_name, mode);
            return;
        exception
            when lock_not_available then
                if not dagstop.may_wait() then
                    raise;
                end if;
        end;
    end loop;
end
$$;
comment on function dagstop.reach(text, text, text) is 'Takes a lock on an Airflow table by trying as long as may_wait allows, never by waiting: a migration may hold it and want what our transaction holds, and the deadlock would end the migration. Raises lock_not_available.';

create or replace function dagstop.reach_own(mode text, variadic tables text[]) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    reached constant text := coalesce(current_setting('dagstop.reached', true), '');
    asked constant text := format('%s: %s %s;', txid_current(), mode, tables);
    statement text;
begin
    -- for each row of a statement: a rollback that lets the locks go takes this note back, too
    if position(asked in reached) > 0 then
        return;
    end if;
    statement := format(
        'lock table %s in %s mode nowait', (select string_agg(format('dagstop.%I', t), ', ') from unnest(tables) as t), mode
    );
    loop
        begin
            execute statement;
            exit;
        exception
            when lock_not_available then
                if not dagstop.may_wait() then
                    raise;
                end if;
        end;
    end loop;
    perform set_config('dagstop.reached', reached || asked, true);
end
$$;
comment on function dagstop.reach_own(text, text[]) is 'Like reach, for dagstop''s own tables: a DBA may have locked one to build an index or for VACUUM FULL. Each trigger function asks for the tables it is about to use; otherwise its statement would wait.';

-- of an earlier release
drop function if exists
    dagstop.references_of(text), dagstop.reach_references(text, jsonb), dagstop.set_again(text, jsonb, text);

create or replace function dagstop.references_of(schema_name text, table_name text)
returns table (referenced regclass, ours text[], theirs text[])
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select c.confrelid::regclass, array_agg(o.attname::text), array_agg(t.attname::text)
    from pg_constraint c
    cross join lateral unnest(c.conkey, c.confkey) as k (our_key, their_key)
    join pg_attribute o on o.attrelid = c.conrelid and o.attnum = k.our_key
    join pg_attribute t on t.attrelid = c.confrelid and t.attnum = k.their_key
    where c.contype = 'f' and c.conrelid = to_regclass(format('%I.%I', schema_name, table_name))
    group by c.oid, c.confrelid
    order by c.confrelid;
end
$$;
comment on function dagstop.references_of(text, text) is 'The foreign keys of an Airflow table: to which table, by which columns of both.';

create or replace function dagstop.may_have_written(schema_name text, table_name text) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    asked constant oid := to_regclass(format('%I.%I', schema_name, table_name))::oid;
begin
    return pg_stat_get_xact_tuples_inserted(asked) + pg_stat_get_xact_tuples_updated(asked) > 0
        or current_setting('track_counts') = 'off' or exists (select from pg_inherits i where i.inhparent = asked);
end
$$;
comment on function dagstop.may_have_written(text, text) is 'False only if this transaction has written no row of an Airflow table, by Postgres'' own count.';

create or replace function dagstop.reach_references(schema_name text, table_name text, present jsonb) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    reference record;
begin
    for reference in
        select
            f.referenced,
            (
                select string_agg(format('r.%I = %L', k.theirs, present ->> k.ours), ' and ')
                from unnest(f.ours, f.theirs) as k (ours, theirs)
            ) as matching
        from dagstop.references_of(schema_name, table_name) as f
        where not exists (select from unnest(f.ours) as o (named) where present ->> o.named is null)
    loop
        execute format('lock table %s in row share mode nowait', reference.referenced);
        execute format(
            'select from %s r where %s for key share of r nowait', reference.referenced, reference.matching
        );
    end loop;
end
$$;
comment on function dagstop.reach_references(text, text, jsonb) is 'Takes the locks that Postgres'' foreign key check of a row of an Airflow table will take (a row written twice in one transaction is checked each time), or raises lock_not_available. The check itself would wait for a scheduler that has the run and may want this row.';

create or replace function dagstop.set_again(schema_name text, present jsonb, assignments text) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    statement text;
    table_name constant text := case when present ? 'task_id' then 'task_instance' else 'dag_run' end;
    dag text := present ->> 'dag_id';
    task text := present ->> 'task_id';
    run text := present ->> 'run_id';
    run_date timestamptz := present ->> 'execution_date';
    index integer := present ->> 'map_index';
    silent constant text := case when present ? 'task_id' then 'dagstop.cascading' else 'dagstop.put_back' end;
begin
    loop
        begin
            perform dagstop.reach_references(schema_name, table_name, present);
            exit;
        exception
            when lock_not_available then
                if not dagstop.may_wait() then
                    return false;
                end if;
        end;
    end loop;
    -- keeps dagstop_order silent: it did not turn failed now
    perform set_config(silent, case when table_name = 'dag_run' then present ->> 'id' else 'on' end, true);
    statement := format(
        'update %I.%I t set %s
         where t.dag_id operator(pg_catalog.=) $1 and %s operator(pg_catalog.=) %s %s %s',
        schema_name, table_name, assignments,
        case when present ? 'run_id' then 't.run_id' else 't.execution_date' end,
        case when present ? 'run_id' then '$3' else '$4' end,
        case when present ? 'task_id' then 'and t.task_id operator(pg_catalog.=) $2' end,
        case when present ? 'map_index' then 'and t.map_index operator(pg_catalog.=) $5' end
    );
    perform set_config('search_path', dagstop.airflow_path(schema_name, table_name), true);
    execute statement using dag, task, run, run_date, index;
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    perform set_config(silent, '', true);
    return true;
end
$$;
comment on function dagstop.set_again(text, jsonb, text) is 'Updates a row of task_instance or dag_run that this transaction has already updated (names and operators in the assignments are qualified); false if it backed off because another session has locked what the row refers to.';

create or replace function dagstop.record_fault(place text, code text, message text, context jsonb)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off  -- a plan made while the table was small must not read all of it later
as $$
declare
    -- one statement over 100,000 rows must not write 100,000 equal faults
    same_at timestamptz := clock_timestamp() - interval '10 minutes';
    full_context jsonb := coalesce(context, '{}') || jsonb_build_object('txid', txid_current());
begin
    if code = '55P03' then
        -- what it waited is forgotten with what was undone: for this transaction it was the last time
        perform set_config('dagstop.waits_since', '0', true);
    end if;
    perform dagstop.reach_own('row exclusive', 'fault');
    if exists (
        select from dagstop.fault f
        where f.context ->> 'txid' = full_context ->> 'txid' and f.at > same_at
            and f.place = record_fault.place and f.message = record_fault.message
    ) or exists (
        select from dagstop.fault f
        where f.context ? 'repeats' and f.at > same_at
            and f.place = record_fault.place and f.message = record_fault.message
    ) then
        return;
    end if;
    insert into dagstop.fault (place, sqlstate, message, context)
    values (place, code, message, full_context);
    raise warning 'dagstop: % failed (%): %', place, code, message
        using hint = 'The statement went on without it. Run: dagstop check';
exception
    when others then
        raise warning 'dagstop: % failed (%): % (and could not be recorded: %)', place, code, message, sqlerrm;
end
$$;
comment on function dagstop.record_fault(text, text, text, jsonb) is 'Records an error and warns; once per transaction, and a context with "repeats" once per ten minutes.';
