-- Fired by: the functions of the later files, never by a trigger itself.
-- Changes: record_fault writes dagstop.fault and raises a WARNING, reach locks a
-- table of Airflow's; the others only read.
-- Leaves alone: the statement in which a fault happened, which goes on.
-- Every function here and below pins its search_path, so that no object in a schema that others
-- may write to can stand in for one that is meant.

create or replace function dagstop.setting_of(setting_name text, fallback text) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return coalesce((select s.value from dagstop.setting s where s.name = setting_name), fallback);
end
$$;
comment on function dagstop.setting_of(text, text) is 'The value of a setting, or the fallback where there is no such row.';

create or replace function dagstop.seconds_of(setting_name text, fallback integer) returns interval
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    value text := dagstop.setting_of(setting_name, fallback::text);
begin
    -- a mistyped setting must not switch anything off
    if value !~ '^[0-9]{1,9}$' then
        value := fallback::text;
    end if;
    return make_interval(secs => value::integer);
end
$$;
comment on function dagstop.seconds_of(text, integer) is 'A setting in seconds as an interval; the fallback where it is missing or not a whole number.';

create or replace function dagstop.columns_of(schema_name text, table_name text) returns text[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    found_columns text[];
begin
    select array_agg(a.attname::text) into found_columns
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    where n.nspname = schema_name and c.relname = table_name and c.relkind in ('r', 'p');
    if found_columns is null then
        raise exception 'dagstop.columns_of: no table %.%', schema_name, table_name
            using errcode = 'undefined_table';
    end if;
    return found_columns;
end
$$;
comment on function dagstop.columns_of(text, text) is 'The columns that a table of Airflow''s has now; asked at each call, since Airflow is upgraded underneath.';

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

create or replace function dagstop.reach(schema_name text, table_name text, mode text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    give_way_at timestamptz := clock_timestamp() + interval '1 second';
begin
    loop
        begin
            execute format('lock table %I.%I in %s mode nowait', schema_name, table_name, mode);
            return;
        exception
            when lock_not_available then
                if clock_timestamp() > give_way_at then
                    raise;
                end if;
        end;
        perform pg_sleep(0.01);
    end loop;
end
$$;
comment on function dagstop.reach(text, text, text) is 'Takes a lock on a table of Airflow''s by trying for a second, never by waiting: a migration may hold it and want what our transaction holds, and the deadlock would be its end. Raises lock_not_available.';

create or replace function dagstop.record_fault(place text, code text, message text, context jsonb)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    -- one statement over 100,000 rows must not write 100,000 equal faults
    same_at timestamptz := clock_timestamp() - interval '10 minutes';
    full_context jsonb := coalesce(context, '{}') || jsonb_build_object('txid', txid_current());
begin
    if exists (
        select from dagstop.fault f
        where f.at > same_at and f.place = record_fault.place and f.message = record_fault.message
            and (f.context -> 'txid' = full_context -> 'txid' or f.context ? 'repeats')
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
