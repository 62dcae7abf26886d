-- Fired by: the trigger dagstop_cascade, once per statement that updates dag_run.state or deletes runs, after
-- its rows were noted; dagstop.heartbeat for orders left behind; `dagstop stop`.
-- Changes: writes the orders, fails the unfinished task instances of those runs (with cascade = all the finished too),
-- writes dagstop.stop_target.
-- Leaves alone: everything of orders that are not to be carried out (06_settings.sql); finished task instances, though those that ended within the last 10 minutes are
-- recorded as targets, since their process may still live. On a fault the statement goes on. It never
-- waits for a lock, but tries for a second and leaves the rest to the next heartbeat: Airflow's web
-- interface locks task instances before their run; the deadlock with us could be its end.

create or replace function dagstop.keys_set_anew(schema_name text) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    asked constant oid := to_regclass(format('%I.task_instance', schema_name))::oid;
begin
    return (
        select coalesce(string_agg(distinct format(', %1$I = t.%1$I', a.attname), ''), '')
        from pg_index i
        join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
        where i.indrelid = asked and a.attgenerated = '' and a.attidentity = ''
            and not exists (
                select from pg_attribute c
                where c.attrelid = asked and c.attnum = any (i.indkey)
                    and c.attname::text in ('state', 'end_date', 'duration', 'updated_at')
            )
            -- a stranger's trigger on that column must not fire
            and not exists (select from pg_trigger g where g.tgrelid = asked and a.attnum = any (g.tgattr))
    );
end
$$;
comment on function dagstop.keys_set_anew(text) is 'For many rows: assignments of one column of each index of task_instance, which the cascade does not change, to itself. Otherwise Postgres (14 and later) searches each full page of that index for versions to delete, mostly in vain, since this transaction wrote them. The price: such an index may grow more until it is vacuumed.';

-- of an earlier release, which read the orders again: under SERIALIZABLE that is a conflict with all others that write some
drop function if exists
    dagstop.cascade_orders(bigint[], text, boolean), dagstop.cascade_mass(bigint[], text), dagstop.cascade(bigint[], text);

create or replace function dagstop.cascade_orders(orders dagstop.stop_order[], schema_name text, lock_first boolean)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    columns text[];
    key text;
    mapped boolean;
    final text[] := case when dagstop.setting_of('cascade') = 'all'
        then array['failed', 'removed']
        else array['success', 'failed', 'skipped', 'upstream_failed', 'removed'] end;
    ids bigint[];
    dags text[];
    runs text[];
    dates timestamptz[];
    of_orders constant text := 'rows from (
            pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4)
        ) as o (id, dag_id, run_id, execution_date)';
    matching text;
    written boolean;
    reference record;
    statement text;
    ended timestamptz;
    lately timestamptz;
    under_way constant text[] := array['running', 'restarting', 'shutdown', 'deferred', 'sensing', 'awaiting_input'];
begin
    execute format('lock table %I.task_instance in row exclusive mode nowait', schema_name);
    if row_security_active(format('%I.task_instance', schema_name)) then
        perform dagstop.record_fault(
            'cascade_orders', '42501', 'row level security may hide rows of task_instance even from its owner, as whom dagstop acts',
            jsonb_build_object('hint', 'alter table task_instance no force row level security', 'repeats', true)
        );
    end if;
    -- not before: who had the lock may have been a migration
    columns := dagstop.columns_of(schema_name, 'task_instance');
    key := case when 'run_id' = any (columns) then 'run_id' else 'execution_date' end;
    mapped := 'map_index' = any (columns);
    -- arrays, not a join with stop_order: the planner sees their true length, so one run is an
    -- index lookup and 100,000 runs are one hash join
    select array_agg(o.id), array_agg(o.dag_id), array_agg(o.run_id), array_agg(o.logical_date)
    into ids, dags, runs, dates
    from unnest(orders) as o;

    matching := format(
        '%1$s
         join %2$I.task_instance t
            on t.dag_id operator(pg_catalog.=) o.dag_id and t.%3$I operator(pg_catalog.=) o.%3$I',
        of_orders, schema_name, key
    );
    -- age() is 0 for what this transaction wrote before, and less for what others wrote since it began
    if lock_first then
        execute format(
            'select bool_or(l.written) from (
                select age(t.xmin) <= 0 as written
                from %s where t.state is null or t.state <> all ($5)
                for no key update of t nowait
             ) as l', matching
        ) into written using ids, dags, runs, dates, final;
    else
        written := dagstop.may_have_written(schema_name, 'task_instance');
    end if;
    if written then
        -- its foreign keys are checked again, as in reach_references
        for reference in
            select
                f.referenced,
                (
                    select string_agg(format('r.%I = t.%I', k.theirs, k.ours), ' and ')
                    from unnest(f.ours, f.theirs) as k (ours, theirs)
                ) as matching
            from dagstop.references_of(schema_name, 'task_instance') as f
        loop
            execute format('lock table %s in row share mode nowait', reference.referenced);
            -- these few first: in one join with what they refer to, the index may be the one on dag_id alone
            execute format(
                'with mine as materialized (
                    select t.* from %s where (t.state is null or t.state <> all ($5)) and age(t.xmin) <= 0
                 )
                 select from mine t join %s r on %s for key share of r nowait',
                matching, reference.referenced, reference.matching
            ) using ids, dags, runs, dates, final;
        end loop;
    end if;
    -- both parts see the rows as they were before
    statement := format(
        $sql$
        with kept as (
            insert into dagstop.stop_target
                (order_id, task_id, map_index, try_number, job_id, ti_id, hostname, pid, operator, state_before, started_at)
            select o.id, t.task_id, %3$s, t.try_number, %4$s, %5$s, t.hostname, t.pid, t.operator, t.state, t.start_date
            from %2$s
            where t.state is null or t.state operator(pg_catalog.<>) all ($5)
                or (t.pid is not null and t.end_date operator(pg_catalog.>) $7)
        )
        update %1$I.task_instance t
        set state = 'failed', end_date = %6$s,
            duration = coalesce(extract(epoch from %6$s operator(pg_catalog.-) t.start_date), t.duration) %7$s %9$s
        from %10$s
        where t.dag_id operator(pg_catalog.=) o.dag_id and t.%8$I operator(pg_catalog.=) o.%8$I
            and (t.state is null or t.state operator(pg_catalog.<>) all ($5))
        $sql$,
        schema_name,
        matching,
        case when mapped then 't.map_index' else '-1' end,
        case when 'job_id' = any (columns) then 't.job_id' else 'null' end,
        case when 'id' = any (columns) then 't.id::pg_catalog.text' else 'null' end,
        -- as Airflow does it: what was under way ends now, the others keep an end they already have
        $sql$case when t.end_date is null or t.end_date operator(pg_catalog.<) t.start_date
            or t.state operator(pg_catalog.=) any ($8)
            then $6 else t.end_date end$sql$,
        case when 'updated_at' = any (columns) then ', updated_at = $6' else '' end,
        key,
        case when lock_first then '' else dagstop.keys_set_anew(schema_name) end,
        of_orders
    );
    ended := clock_timestamp();
    lately := ended - interval '10 minutes';
    perform set_config('search_path', dagstop.airflow_path(schema_name, 'task_instance'), true);
    execute statement using ids, dags, runs, dates, final, ended, lately, under_way;
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
end
$$;
comment on function dagstop.cascade_orders(dagstop.stop_order[], text, boolean) is 'Fails the task instances of the runs of these orders, in the Airflow tables of that schema. With lock_first it never waits, and raises lock_not_available if another session has locked one of them.';

create or replace function dagstop.cascade_mass(orders dagstop.stop_order[], schema_name text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '10ms'
set jit = off  -- see write_orders
set work_mem = '64MB'  -- 100,000 task instances are joined without a spill to disk
as $$
begin
    perform dagstop.cascade_orders(orders, schema_name, false);
end
$$;
comment on function dagstop.cascade_mass(dagstop.stop_order[], text) is 'Like cascade_orders, but without locking first, which for many runs costs as much again as the update; waits for 10 ms at most.';

create or replace function dagstop.cascade(orders dagstop.stop_order[], schema_name text) returns bigint[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    size constant integer := 1000;
    part dagstop.stop_order[];
    held bigint[] := '{}';
begin
    if cardinality(orders) > size then
        begin
            perform dagstop.cascade_mass(orders, schema_name);
            return held;
        exception
            when lock_not_available then
                null;
        end;
    end if;
    for start in 1 .. cardinality(orders) by size loop
        part := orders[start : start + size - 1];
        loop
            begin
                perform dagstop.cascade_orders(part, schema_name, true);
                exit;
            exception
                when lock_not_available then
                    if not dagstop.may_wait() then
                        held := held || array(select o.id from unnest(part) as o);
                        exit;
                    end if;
            end;
        end loop;
    end loop;
    return held;
end
$$;
comment on function dagstop.cascade(dagstop.stop_order[], text) is 'Fails the task instances of the runs of these orders; returns the orders that it left because another session held one of their task instances.';

create or replace function dagstop.fill_dates(order_ids bigint[], schema_name text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    execute format(
        'update dagstop.stop_order o set logical_date = r.%I
         from %I.dag_run r
         where o.id = any ($1) and r.dag_id = o.dag_id and r.run_id = o.run_id',
        dagstop.date_column_of(schema_name), schema_name
    ) using order_ids;
end
$$;
comment on function dagstop.fill_dates(bigint[], text) is 'Gives orders the date of their run.';

create or replace function dagstop.write_orders(runs jsonb[], schema_name text, carried_out boolean)
returns dagstop.stop_order[]
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off  -- to compile a statement that runs once takes longer than it saves
as $$
declare
    observing boolean;
    patterns text[];
    written dagstop.stop_order[];
    date_column text := dagstop.date_column_of(schema_name);
    checks text := '';
begin
    perform dagstop.reach_own('row exclusive', 'stop_order', 'stop_target');
    perform dagstop.reach_own('access share', 'setting');
    observing := dagstop.observes();
    patterns := dagstop.protected_dags();
    -- whoever may write dag_run at all could have noted what is not so. Where its owner may not read it any more, an
    -- order is better than none
    if carried_out or has_table_privilege(format('%I.dag_run', schema_name), 'select') then
        checks := format(
            $sql$
            left join %1$I.dag_run at on at.ctid = n.place
            left join lateral (
                select true as is_there, at.state, at.%2$I as run_date
                where at.dag_id = n.dag_id and at.run_id is not distinct from n.run_id
                union all
                -- another trigger has written it again since. Not by a join: while statistics are old, an index on
                -- dag_id alone looks as good
                select true, d.state, d.%2$I from %1$I.dag_run d where d.dag_id = n.dag_id and d.run_id = n.run_id
                union all
                -- a run of Airflow 1.10 may have no run_id; a date belongs to one run
                select false, case when d.run_id is null then d.state end, d.%2$I
                from %1$I.dag_run d where d.dag_id = n.dag_id and d.%2$I = n.logical_date
                limit 1
            ) r on true
            where case
                when r.is_there then r.state = 'failed' and coalesce(n.state_after, 'failed') = r.state
                when n.run_id is null and n.state_after is distinct from 'deleted' then r.state = 'failed'
                else (n.state_after = 'deleted' or $6) and r.is_there is null
            end
            $sql$,
            schema_name, date_column
        );
    end if;
    execute format(
        $sql$
        with written as (
            insert into dagstop.stop_order
                (kind, airflow_schema, dag_id, run_id, logical_date, self_reported, state_before, state_after, cascaded, hands_off)
            select
                'run', $2, n.dag_id, n.run_id, %1$s, coalesce(n.self_reported, false), n.state_before,
                coalesce(n.state_after, 'failed'), $3,
                case when not $3 then null when $4 then 'observe only' when n.dag_id like any ($5) then 'protected DAG' end
            from unnest($1) with ordinality as i (item, number)
            cross join lateral jsonb_to_record(i.item) as n (
                place tid, dag_id text, run_id text, logical_date timestamptz, self_reported boolean, state_before text,
                state_after text
            )
            %2$s
            order by i.number
            returning *
        )
        select coalesce(array_agg(w::dagstop.stop_order order by w.id) filter (where w.hands_off is null), '{}') from (select * from written) as w
        $sql$,
        case when checks = '' then 'n.logical_date' else 'coalesce(r.run_date, n.logical_date)' end,
        checks
    ) into written using
        runs, schema_name, carried_out, observing, patterns,
        row_security_active(format('%I.dag_run', schema_name));  -- then it may be there and hidden
    perform dagstop.ring();
    return written;
end
$$;
comment on function dagstop.write_orders(jsonb[], text, boolean) is 'Writes the orders of the runs that a statement has failed or deleted, and returns those to cascade. With carried_out false it writes the orders only, and the next heartbeat cascades them.';

create or replace function dagstop.leave_to_heartbeat(order_ids bigint[]) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off  -- a plan made while the table was small must not read all of it later
as $$
begin
    update dagstop.stop_order o set cascaded = false where o.id = any (order_ids);
end
$$;
comment on function dagstop.leave_to_heartbeat(bigint[]) is 'Marks orders whose cascade is yet to be done.';

-- security definer: a role that may only update dag_run still cascades
create or replace function dagstop.cascade_statement() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set row_security = on  -- what a policy hides is hidden, which is not an error
as $$
declare
    runs jsonb[];
    held bigint[];
    code text;
    problem text;
begin
    if coalesce(current_setting('dagstop.runs', true), '') = '' then
        return null;
    end if;
    -- one block for all rows of the statement: each costs a subtransaction, which all other sessions have to look up
    begin
        runs := dagstop.noted_runs();
        -- keeps dagstop_order on task_instance silent; an error inside puts the old value back
        perform set_config('dagstop.cascading', 'on', true);
        held := dagstop.cascade(dagstop.write_orders(runs, tg_table_schema, true), tg_table_schema);
        perform set_config('dagstop.cascading', '', true);
        if held <> '{}' then
            perform dagstop.leave_to_heartbeat(held);
            perform dagstop.record_fault(
                'cascade_statement', '55P03', 'another session held task instances of the run; the next heartbeat fails them',
                jsonb_build_object('table', tg_relid::regclass::text, 'orders', held[:100])
            );
        end if;
        return null;
    exception
        when serialization_failure then
            raise;  -- the client is meant to try again, and a transaction that goes on is doomed
        when others or assert_failure then
            code := sqlstate;
            problem := sqlerrm;
    end;
    if code = '55P03' then
        perform set_config('dagstop.waits_since', '0', true);  -- it has waited; the note of it was undone
    end if;
    begin
        perform dagstop.forget_notes();
        -- already to read what is asked for below locks the table whose rows it names
        perform dagstop.reach_own('row exclusive', 'stop_order', 'stop_target');
        held := array(select o.id from unnest(dagstop.write_orders(runs, tg_table_schema, false)) as o);
        perform dagstop.record_fault(
            'cascade_statement', code, problem, jsonb_build_object('table', tg_relid::regclass::text, 'orders', held[:100])
        );
    exception
        when others or assert_failure then
            code := sqlerrm;
            begin
                perform dagstop.leave_unwritten(
                    'cascade_statement', sqlstate, sqlerrm, tg_relid,
                    array(
                        select dagstop.draft_of(tg_table_schema)
                            || jsonb_build_object('kind', 'run', 'state_after', coalesce(i.item ->> 'state_after', 'failed'))
                            || (i.item - '{place,state_after}'::text[])
                        from unnest(runs) with ordinality as i (item, number)
                        order by i.number
                    ),
                    dagstop.running_now(runs, tg_table_schema)
                );
            exception
                when others or assert_failure then
                    raise warning 'dagstop: cascade_statement failed: % (%)', problem, code;
            end;
    end;
    return null;
end
$$;
comment on function dagstop.cascade_statement() is 'Trigger function: writes the orders of the runs that the statement has failed or deleted, and cascades them.';

create or replace function dagstop.complete_orders(order_ids bigint[], schema_name text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    still_failed bigint[];
    gone bigint[];  -- there is no row to lock
    held bigint[];
    same_run text := 'r.run_id = o.run_id';
begin
    if exists (select from dagstop.stop_order o where o.id = any (order_ids) and o.run_id is null) then
        -- a run of Airflow 1.10 may have none
        same_run := format('(%s or (o.run_id is null and r.%I = o.logical_date))', same_run, dagstop.date_column_of(schema_name));
    end if;
    perform dagstop.reach(schema_name, 'dag_run', 'row share');
    perform dagstop.fill_dates(dagstop.take_hands_off(order_ids), schema_name);
    execute format(
        $sql$
        select array_agg(id) from (
            select o.id
            from dagstop.stop_order o
            join %1$I.dag_run r on r.dag_id = o.dag_id and %2$s
            where o.id = any ($1) and r.state = o.state_after and o.hands_off is null
            for no key update of r skip locked
        ) as locked
        $sql$, schema_name, same_run
    ) into still_failed using order_ids;
    execute format(
        $sql$
        select array_agg(o.id)
        from dagstop.stop_order o
        where o.id = any ($1) and o.state_after = 'deleted' and o.hands_off is null
            and not exists (select from %1$I.dag_run r where r.dag_id = o.dag_id and %2$s)
        $sql$, schema_name, same_run
    ) into gone using order_ids;
    still_failed := still_failed || gone;
    if still_failed is not null then
        perform dagstop.fill_dates(still_failed, schema_name);
        perform set_config('dagstop.cascading', 'on', true);
        held := dagstop.cascade(
            array(select o from dagstop.stop_order o where o.id = any (still_failed) order by o.id), schema_name
        );
        perform set_config('dagstop.cascading', '', true);
        update dagstop.stop_order o set cascaded = true where o.id = any (still_failed) and o.id <> all (held);
    end if;
    -- a run that was cleared, deleted or created again since has nothing left to fail
    execute format(
        $sql$
        update dagstop.stop_order o
        set cascaded = true
        where o.id = any ($1) and not o.cascaded and o.id <> all ($2)
            and not exists (
                select from %1$I.dag_run r where r.dag_id = o.dag_id and %2$s and r.state = o.state_after
            )
        $sql$, schema_name, same_run
    ) using order_ids, coalesce(gone, '{}');
end
$$;
comment on function dagstop.complete_orders(bigint[], text) is 'Cascades orders that were left behind, if their run is still failed, or deleted; rows that another session holds wait for the next call.';

create or replace function dagstop.stop_again(of_dag text, of_run text) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    schema_name text := dagstop.setting_of('airflow_schema');
    new_order bigint;
begin
    insert into dagstop.stop_order (kind, airflow_schema, dag_id, run_id, state_before)
    values ('run', schema_name, of_dag, of_run, 'failed')
    returning id into new_order;
    perform dagstop.ring();
    perform dagstop.complete_orders(array[new_order], schema_name);
    return new_order;
end
$$;
comment on function dagstop.stop_again(text, text) is 'Orders a stop of a run that has failed already (before dagstop was installed, say), and fails its unfinished task instances.';
