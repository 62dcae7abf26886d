-- Fired by: the trigger dagstop_setting, when a row of dagstop.setting is written; the functions of all
-- files, which read a setting here.
-- Changes: writes a row for each setting that has none, at an install. A value that its setting cannot have is refused.
-- Leaves alone: rows that were there before, whatever they say (every reader falls back on the default),
-- and names that this release does not know.

-- The one list of settings: `dagstop config` and docs/reference.md read it from this text.
create or replace function dagstop.known_settings()
returns table (name text, value text, item text, many boolean, wanted text, meaning text)
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
values
    ('observe_only', 'off', '^(on|off)$', false, 'on or off',
        'on: nothing is signalled and nothing in Airflow''s tables is changed or refused; orders are written, and each host reports what would have died. For the first week.'),
    ('protected', '', '^[^][[:space:]]+$', true,
        'patterns of DAG ids such as billing_*, with a comma or a new line between two',
        'DAGs that are never stopped, only reported on: patterns (* and ?) with commas or new lines between.'),
    ('cascade', 'unfinished', '^(unfinished|all)$', false, 'unfinished or all',
        'Which task instances of a failed run fail with it: unfinished, or all (finished ones too).'),
    ('finished_tasks', 'stop', '^(stop|spare)$', false, 'stop or spare',
        'What happens to processes and containers that a successful task left running, when its run is failed later: stop, or spare.'),
    ('also_stop_on', '', '^(deleted|skipped|removed)$', true, 'of deleted, skipped, removed, with commas between',
        'What orders a stop besides failed, with commas between: deleted (the row of a run or of a running task instance is deleted), skipped, removed (a running task instance is set so).'),
    ('grace_seconds', '10', '^[0-9]{1,9}$', false, 'a whole number of seconds',
        'From SIGTERM to SIGKILL; grace_seconds:DAG_ID for one DAG. The value for a DAG takes precedence over the one for all DAGs, which takes precedence over the listener''s --grace.'),
    ('settle_seconds', '10', '^[0-9]{1,9}$', false, 'a whole number of seconds',
        'Time that a task which failed by itself gets for its callbacks.'),
    ('fence_seconds', '600', '^[0-9]{1,9}$', false, 'a whole number of seconds',
        'How long a stopped task instance is kept from being revived, at most.'),
    ('order_seconds', '86400', '^[0-9]{1,9}$', false, 'a whole number of seconds',
        'How long a host that was away still carries out an order.'),
    ('live_seconds', '60', '^[0-9]{1,9}$', false, 'a whole number of seconds',
        'A listener not seen for this long counts as dead.'),
    ('keep_seconds', '2592000', '^[0-9]{1,9}$', false, 'a whole number of seconds',
        'How long orders and their reports are kept for the history.'),
    ('airflow_log', 'on', '^(on|off)$', false, 'on or off',
        'Whether each report is also a row in Airflow''s own audit log, including what was spared: on or off.'),
    -- without a pattern: written by an install, not by hand
    ('airflow_schema', 'public', null, false, null, 'The schema of Airflow''s tables; set by dagstop install.'),
    ('triggers_checksum', '', null, false, null, 'The triggers that belong here; set by dagstop install.'),
    ('listener_role', '', null, false, null, 'The role of the listeners; set by dagstop install.')
$$;
comment on function dagstop.known_settings() is 'Every setting with its default, a pattern for its value (or for each item of a list), that pattern in words, and what it means.';

create or replace function dagstop.setting_of(setting_name text, fallback text default null) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    found text := (select s.value from dagstop.setting s where s.name = setting_name);
begin
    if found is null then  -- in a query of its own: triggers wait for the other
        found := (select k.value from dagstop.known_settings() k where k.name = setting_name);
    end if;
    return found;
end
$$;
comment on function dagstop.setting_of(text, text) is 'The value of a setting, or its default where it has no row. The second argument is ignored: listeners of 0.1.0 give one.';

create or replace function dagstop.seconds_of(setting_name text, fallback integer default null) returns interval
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    found integer := (
        select s.value::integer from dagstop.setting s where s.name = setting_name and s.value ~ '^[0-9]{1,9}$'
    );
begin
    if found is null then  -- a mistyped setting must not switch anything off
        found := (select k.value::integer from dagstop.known_settings() k where k.name = setting_name);
    end if;
    return make_interval(secs => found);
end
$$;
comment on function dagstop.seconds_of(text, integer) is 'A setting in seconds as an interval; its default where it has no row, or no whole number. The second argument is ignored: listeners of 0.1.0 give one.';

create or replace function dagstop.patterns_in(list text) returns text[]
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
    return array(select btrim(p, E' \t\r') from regexp_split_to_table(list, E'[,\n]') as p where btrim(p, E' \t\r') <> '');
end
$$;
comment on function dagstop.patterns_in(text) is 'The items of a list with commas or new lines between them.';

create or replace function dagstop.check_setting() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    known record;
    items text[] := array[new.value];
begin
    if tg_op = 'UPDATE' and new.name = old.name and new.value = old.value then
        return new;
    end if;
    -- NAME:DAG_ID is a NAME for one DAG
    select * into known from dagstop.known_settings() k where k.name = split_part(new.name, ':', 1);
    if known.many then
        items := dagstop.patterns_in(new.value);
    end if;
    if exists (select from unnest(items) as i where i !~ known.item) then
        raise exception 'dagstop setting %: % is not %', new.name, quote_literal(left(new.value, 100)), known.wanted
            using errcode = 'check_violation';
    end if;
    if known.many then
        new.value := array_to_string(items, ', ');
    end if;
    return new;
end
$$;
comment on function dagstop.check_setting() is 'Trigger function: refuses a value that a setting cannot have.';

do $$
begin
    -- not dropped and made again: the lock would make Airflow's statements wait for the install
    if not exists (
        select from pg_catalog.pg_trigger t
        where t.tgrelid = 'dagstop.setting'::regclass::oid and t.tgname = 'dagstop_setting'
    ) then
        create trigger dagstop_setting
            before insert or update on dagstop.setting
            for each row execute function dagstop.check_setting();
        comment on trigger dagstop_setting on dagstop.setting is 'Refuses values that a setting cannot have.';
    end if;
end
$$;

create or replace function dagstop.stops_on(what text) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return what = 'failed' or what = any (dagstop.patterns_in(dagstop.setting_of('also_stop_on')));
end
$$;
comment on function dagstop.stops_on(text) is 'True if this state, or deleted, orders a stop.';

create or replace function dagstop.observes() returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return dagstop.setting_of('observe_only') = 'on';
end
$$;
comment on function dagstop.observes() is 'True if nothing is to be stopped in this database: orders are only written and reported on.';

create or replace function dagstop.protected_dags() returns text[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    -- * and ? become those of LIKE, what LIKE would take for its own is escaped. E'': a plain string with a
    -- backslash means another with standard_conforming_strings = off
    return array(
        select translate(regexp_replace(p, E'([\\\\%_])', E'\\\\\\1', 'g'), '*?', '%_')
        from unnest(dagstop.patterns_in(dagstop.setting_of('protected'))) as p
    );
end
$$;
comment on function dagstop.protected_dags() is 'The DAGs that are never stopped, as patterns of LIKE.';

create or replace function dagstop.hands_off_of(dag text) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    -- one look where neither is set: each order that is read asks this, and its kill waits
    return (
        select min(case when s.name = 'protected' then 'protected DAG' else 'observe only' end)
        from dagstop.setting s
        where (s.name = 'observe_only' and s.value = 'on')
            or (s.name = 'protected' and s.value <> '' and dag like any (dagstop.protected_dags()))
    );
end
$$;
comment on function dagstop.hands_off_of(text) is 'Why a DAG is not stopped under the present settings; null if it is.';

create or replace function dagstop.take_hands_off(order_ids bigint[]) returns bigint[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    observing boolean := dagstop.observes();
    patterns text[] := dagstop.protected_dags();
    taken bigint[];
begin
    if not observing and patterns = '{}' then
        return '{}';
    end if;
    with marked as (
        update dagstop.stop_order o
        set hands_off = case when observing then 'observe only' else 'protected DAG' end, cascaded = true
        where o.id = any (order_ids) and (observing or o.dag_id like any (patterns))
        returning o.id
    )
    select coalesce(array_agg(m.id), '{}') into taken from marked m;
    return taken;
end
$$;
comment on function dagstop.take_hands_off(bigint[]) is 'Marks the orders that the present settings exempt, so that nothing is cascaded for them, and returns them.';

create or replace function dagstop.grace_of(dag text) returns integer
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select s.value::integer from dagstop.setting s
        where s.name in ('grace_seconds:' || dag, 'grace_seconds') and s.value ~ '^[0-9]{1,9}$'
        order by s.name = 'grace_seconds'
        limit 1
    );
end
$$;
comment on function dagstop.grace_of(text) is 'Seconds between SIGTERM and SIGKILL for a DAG: its own value, or that for all DAGs; null if the listener decides.';

-- when all that their trigger calls is this release's; settings that were edited are kept. Without a row of
-- grace_seconds the listener's --grace decides
insert into dagstop.setting (name, value, comment)
select k.name, k.value, k.meaning from dagstop.known_settings() k
where k.item is not null and k.name <> 'grace_seconds'::text
on conflict (name) do nothing;
