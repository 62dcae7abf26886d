-- Fired by: the trigger dagstop_setting, when a row of dagstop.setting is written; the functions of the
-- later files, for what a setting says of a DAG.
-- Changes: writes a row for each setting that has none, at an install. A value that its setting cannot have is refused.
-- Leaves alone: rows that were there before, whatever they say (every reader falls back on its default),
-- and names that this release does not know. listener/dagstop/settings.py has the same list for `dagstop config`.

create or replace function dagstop.check_setting() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    wanted text;
    name_for_all text := split_part(new.name, ':', 1);
begin
    if tg_op = 'UPDATE' and new.name = old.name and new.value = old.value then
        return new;
    end if;
    wanted := case
        when new.name = 'cascade' and new.value not in ('unfinished', 'all') then 'unfinished or all'
        when new.name = 'finished_tasks' and new.value not in ('stop', 'spare') then 'stop or spare'
        when new.name in ('observe_only', 'airflow_log') and new.value not in ('on', 'off') then 'on or off'
        when new.name in ('order_seconds', 'fence_seconds', 'settle_seconds', 'live_seconds', 'keep_seconds')
            and new.value !~ '^[0-9]{1,9}$' then 'a whole number of seconds'
        when name_for_all = 'grace_seconds' and new.value !~ '^[0-9]{1,9}$' then 'a whole number of seconds'
        when new.name = 'also_stop_on' and not dagstop.patterns_in(new.value) <@ array['deleted', 'skipped', 'removed']
            then 'of deleted, skipped, removed, with commas between'
        when new.name = 'protected' and exists (
            select from unnest(dagstop.patterns_in(new.value)) as p where p ~ '[][[:space:]]'
        ) then 'patterns of DAG ids such as billing_*, with a comma or a new line between two'
    end;
    if wanted is not null then
        raise exception 'dagstop setting %: % is not %', new.name, quote_literal(left(new.value, 100)), wanted
            using errcode = 'check_violation';
    end if;
    return new;
end
$$;
comment on function dagstop.check_setting() is 'Trigger function: refuses a value that a setting cannot have.';

create or replace function dagstop.patterns_in(list text) returns text[]
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
    return array(select btrim(p, E' \t\r') from regexp_split_to_table(list, E'[,\n]') as p where btrim(p, E' \t\r') <> '');
end
$$;
comment on function dagstop.patterns_in(text) is 'The patterns of a list with commas or new lines between them.';

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
    return what = 'failed' or what = any (dagstop.patterns_in(dagstop.setting_of('also_stop_on', '')));
end
$$;
comment on function dagstop.stops_on(text) is 'Whether that state, or deleted, orders a stop.';

create or replace function dagstop.observes() returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return dagstop.setting_of('observe_only', 'off') = 'on';
end
$$;
comment on function dagstop.observes() is 'Whether nothing is to be stopped in this database: orders are written, and reported on, only.';

create or replace function dagstop.protected_dags() returns text[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    -- * and ? become those of LIKE, what LIKE would take for its own is escaped. E'': a plain string with a
    -- backslash means another with standard_conforming_strings = off
    return array(
        select translate(regexp_replace(p, E'([\\\\%_])', E'\\\\\\1', 'g'), '*?', '%_')
        from unnest(dagstop.patterns_in(dagstop.setting_of('protected', ''))) as p
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
comment on function dagstop.hands_off_of(text) is 'Why nothing of a DAG is to be stopped, as the settings are now; null if it is.';

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
comment on function dagstop.take_hands_off(bigint[]) is 'Marks those of these orders that are not to be carried out, as the settings are now, so that nothing is cascaded for them; gives them back.';

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
comment on function dagstop.grace_of(text) is 'Seconds between SIGTERM and SIGKILL for a DAG: its own, or those of all; null where the listener decides.';

-- when all that their trigger calls is this release's; settings that were edited are kept
insert into dagstop.setting (name, value, comment) values
    ('cascade', 'unfinished', 'Which task instances of a failed run fail with it: unfinished, or all.'),
    ('finished_tasks', 'stop', 'What a task that succeeded left running, when its run is failed later: stop, or spare.'),
    ('settle_seconds', '10', 'Time that a task which failed by itself gets for its callbacks, in seconds.'),
    ('fence_seconds', '600', 'How long a stopped task instance is kept from being revived, in seconds.'),
    ('order_seconds', '86400', 'How long a host that was away still carries out an order, in seconds.'),
    ('live_seconds', '60', 'A listener not seen for this many seconds counts as dead.'),
    ('keep_seconds', '2592000', 'How long orders and their reports are kept for the history, in seconds.'),
    ('observe_only', 'off', 'on: nothing is stopped and nothing of Airflow''s is changed; orders are written and reported on only.'),
    ('protected', '', 'DAGs that are never stopped, only reported on: patterns such as billing_*, with commas between.'),
    ('also_stop_on', '', 'What else orders a stop, besides failed: deleted, skipped, removed, with commas between.')
on conflict (name) do nothing;
