--
-- PostgreSQL database dump
--



SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET transaction_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: dagstop; Type: SCHEMA; Schema: -; Owner: -
--

CREATE SCHEMA dagstop;


--
-- Name: SCHEMA dagstop; Type: COMMENT; Schema: -; Owner: -
--

COMMENT ON SCHEMA dagstop IS 'The kill switch for Airflow: orders, their targets and their reports.';


--
-- Name: add_target(bigint, jsonb, timestamp with time zone); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.add_target(of_order bigint, task_instance jsonb, released_at timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    insert into dagstop.stop_target
        (order_id, task_id, map_index, try_number, job_id, ti_id, hostname, pid, operator, state_before, started_at,
         released_at)
    values
        (of_order, task_instance ->> 'task_id', coalesce((task_instance ->> 'map_index')::integer, -1),
         (task_instance ->> 'try_number')::integer, (task_instance ->> 'job_id')::bigint, task_instance ->> 'id',
         task_instance ->> 'hostname', (task_instance ->> 'pid')::integer, task_instance ->> 'operator',
         task_instance ->> 'state', (task_instance ->> 'start_date')::timestamptz, add_target.released_at);
end
$$;


--
-- Name: FUNCTION add_target(of_order bigint, task_instance jsonb, released_at timestamp with time zone); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.add_target(of_order bigint, task_instance jsonb, released_at timestamp with time zone) IS 'Makes a row of task_instance, as it was, a target of an order; sets released_at if the row is gone.';


--
-- Name: airflow_path(text, text); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.airflow_path(schema_name text, table_name text) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
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
$_$;


--
-- Name: FUNCTION airflow_path(schema_name text, table_name text); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.airflow_path(schema_name text, table_name text) IS 'The search_path for a statement that writes an Airflow table, under which others'' triggers must work: the path the session began with if its role may act as the tables'' owner, else the owner''s default; plus Airflow''s schema and those of the trigger functions.';


--
-- Name: asked_for(text); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.asked_for(what text) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION asked_for(what text); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.asked_for(what text) IS 'True if this transaction has asked for something: a setting of that name holds the transaction''s number. A value set for the whole session does not count.';


--
-- Name: audit(bigint, text); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.audit(order_id bigint, report_host text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    told dagstop.stop_order;
    final dagstop.report;
    target dagstop.stop_target;
    columns text[];
    statement text;
    said_by text;
    said text;
begin
    select * into final from dagstop.report r
    where r.order_id = audit.order_id and r.host = report_host
        and r.outcome in ('unkillable', 'spared', 'could_not_look', 'not_found', 'stopped');
    select * into told from dagstop.stop_order o where o.id = final.order_id;
    if told.id is null or to_regclass(format('%I.log', told.airflow_schema)) is null
        or dagstop.setting_of('airflow_log') = 'off'
        or dagstop.observes() or told.hands_off = 'observe only'
    then
        return;
    end if;
    select * into target from dagstop.stop_target t
    where t.order_id = told.id and t.task_id = told.task_id and t.map_index = told.map_index;
    perform dagstop.reach(told.airflow_schema, 'log', 'row exclusive');
    columns := dagstop.columns_of(told.airflow_schema, 'log');
    statement := format(
        'insert into %I.log (dttm, event, owner, extra, dag_id, task_id %s)
         values (pg_catalog.clock_timestamp(), $sql$dagstop$sql$, $1, $2, $3, $4 %s)',
        told.airflow_schema,
        concat(
            case when 'execution_date' = any (columns) then ', execution_date' end,
            case when 'logical_date' = any (columns) then ', logical_date' end,
            case when 'run_id' = any (columns) then ', run_id' end,
            case when 'map_index' = any (columns) then ', map_index' end,
            case when 'try_number' = any (columns) then ', try_number' end
        ),
        concat(
            case when 'execution_date' = any (columns) or 'logical_date' = any (columns) then ', $5' end,
            case when 'run_id' = any (columns) then ', $6' end,
            case when 'map_index' = any (columns) then ', $7' end,
            case when 'try_number' = any (columns) then ', $8' end
        )
    );
    said_by := left(told.session_user_name, 500);
    said := dagstop.audit_text(told, report_host, final.outcome, final.detail);
    perform set_config('search_path', dagstop.airflow_path(told.airflow_schema, 'log'), true);
    execute statement using
        said_by, said, told.dag_id, told.task_id, told.logical_date, told.run_id, told.map_index, target.try_number;
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
exception
    when others then
        perform dagstop.record_fault('audit', sqlstate, sqlerrm, jsonb_build_object('order', order_id, 'repeats', true));
end
$_$;


--
-- Name: FUNCTION audit(order_id bigint, report_host text); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.audit(order_id bigint, report_host text) IS 'Writes a host''s final report on an order into Airflow''s audit log, in the shape that table log has at that moment.';


--
-- Name: audit_reports(bigint[]); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.audit_reports(order_ids bigint[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    due record;
begin
    for due in
        select r.order_id, r.host from dagstop.report r
        where r.audit_due and (order_ids is null or r.order_id = any (order_ids))
        order by r.order_id
        limit 1000
        for no key update skip locked
    loop
        perform dagstop.audit(due.order_id, due.host);
        update dagstop.report r set audit_due = false where r.order_id = due.order_id and r.host = due.host;
    end loop;
end
$$;


--
-- Name: FUNCTION audit_reports(order_ids bigint[]); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.audit_reports(order_ids bigint[]) IS 'Writes the final reports of these orders, or of all, to Airflow''s audit log, if they are not there yet.';


SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: stop_order; Type: TABLE; Schema: dagstop; Owner: -
--

CREATE TABLE dagstop.stop_order (
    id bigint NOT NULL,
    kind text NOT NULL,
    airflow_schema text NOT NULL,
    dag_id text NOT NULL,
    run_id text,
    logical_date timestamp with time zone,
    task_id text,
    map_index integer,
    self_reported boolean DEFAULT false NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    txid bigint DEFAULT txid_current() NOT NULL,
    cascaded boolean DEFAULT false NOT NULL,
    session_user_name text DEFAULT SESSION_USER NOT NULL,
    application_name text DEFAULT current_setting('application_name'::text) NOT NULL,
    client_addr inet DEFAULT inet_client_addr(),
    backend_pid integer DEFAULT pg_backend_pid() NOT NULL,
    state_before text,
    closed_at timestamp with time zone,
    hands_off text,
    state_after text DEFAULT 'failed'::text NOT NULL,
    tried_at timestamp with time zone,
    closed_without text[]
);


--
-- Name: TABLE stop_order; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON TABLE dagstop.stop_order IS 'One row per run, or per task instance, that turned failed (or to a state that setting also_stop_on names) and must stop.';


--
-- Name: COLUMN stop_order.id; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.stop_order.id IS 'Identity; ids commit out of order, so never read "greater than the last seen".';


--
-- Name: COLUMN stop_order.kind; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.stop_order.kind IS 'run: a DAG run and all that it runs; task: one task instance.';


--
-- Name: COLUMN stop_order.airflow_schema; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.stop_order.airflow_schema IS 'Schema of the Airflow tables in which it happened.';


--
-- Name: COLUMN stop_order.dag_id; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.stop_order.dag_id IS 'The DAG.';


--
-- Name: COLUMN stop_order.run_id; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.stop_order.run_id IS 'The run; null for a task instance of Airflow 2.1 or older that has no run.';


--
-- Name: COLUMN stop_order.logical_date; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.stop_order.logical_date IS 'The run''s execution or logical date; null where it has none.';


--
-- Name: COLUMN stop_order.task_id; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.stop_order.task_id IS 'The task; null for a run.';


--
-- Name: COLUMN stop_order.map_index; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.stop_order.map_index IS 'The mapped index, -1 where there is none; null for a run.';


--
-- Name: COLUMN stop_order.self_reported; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.stop_order.self_reported IS 'The writer may be Airflow itself, even the task''s own process: end_date was set in the same statement.';


--
-- Name: COLUMN stop_order.created_at; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.stop_order.created_at IS 'When it turned failed (wall clock, not start of the transaction).';


--
-- Name: COLUMN stop_order.txid; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.stop_order.txid IS 'The transaction that failed it.';


--
-- Name: COLUMN stop_order.cascaded; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.stop_order.cascaded IS 'True if the run''s task instances were failed with it, or must not be; false if a fault left that to the next heartbeat.';


--
-- Name: COLUMN stop_order.session_user_name; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.stop_order.session_user_name IS 'Who logged in to Postgres and failed it.';


--
-- Name: COLUMN stop_order.application_name; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.stop_order.application_name IS 'The application_name of that session.';


--
-- Name: COLUMN stop_order.client_addr; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.stop_order.client_addr IS 'The address of that session; null through a unix socket.';


--
-- Name: COLUMN stop_order.backend_pid; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.stop_order.backend_pid IS 'The backend of that session.';


--
-- Name: COLUMN stop_order.state_before; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.stop_order.state_before IS 'The state it was in before.';


--
-- Name: COLUMN stop_order.closed_at; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.stop_order.closed_at IS 'When every live listener had made its final report.';


--
-- Name: COLUMN stop_order.hands_off; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.stop_order.hands_off IS 'Why nothing is stopped: observe only, or a protected DAG; hosts report what would have died. Null: the order is carried out.';


--
-- Name: COLUMN stop_order.state_after; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.stop_order.state_after IS 'What ordered the stop: the new state, or deleted; always failed unless setting also_stop_on names others.';


--
-- Name: COLUMN stop_order.tried_at; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.stop_order.tried_at IS 'When its cascade last failed; the chores retry it after the others.';


--
-- Name: COLUMN stop_order.closed_without; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.stop_order.closed_without IS 'Live hosts that were silent about it for so long that it was closed without them; their sweeps still read it.';


--
-- Name: audit_text(dagstop.stop_order, text, text, jsonb); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.audit_text(for_order dagstop.stop_order, report_host text, outcome text, detail jsonb) RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select regexp_replace(
        format(
            '%s by dagstop: %s %s by %s from %s%s at %s UTC; on %s %s, %s%s',
            case
                when outcome = 'unkillable' then 'not all could be stopped'
                when detail -> 'processes' <> '[]' or detail -> 'containers' <> '[]' then case outcome
                    when 'spared' then 'stopped, except for what was spared'
                    when 'could_not_look' then 'stopped as far as the host could look'
                    when 'not_found' then 'stopped, except for what was not found'
                    else 'stopped'
                end
                when outcome = 'could_not_look' then 'not looked for'
                when outcome = 'not_found' then 'not found'
                else 'spared'
            end,
            case for_order.kind when 'run' then 'DAG run' else 'task instance' end,
            case for_order.state_after when 'deleted' then 'deleted' else 'marked ' || for_order.state_after end,
            for_order.session_user_name,
            coalesce(nullif(for_order.application_name, ''), 'an unnamed program'),
            coalesce(' at ' || host(for_order.client_addr), ''),
            to_char(for_order.created_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS'),
            report_host,
            (select format('%s process%s', n, case when n = 1 then '' else 'es' end)
             from jsonb_array_length(coalesce(detail -> 'processes', '[]')) as n),
            (select format('%s container%s', n, case when n = 1 then '' else 's' end)
             from jsonb_array_length(coalesce(detail -> 'containers', '[]')) as n),
            concat(
                (select format(', %s spared (%s)', count(*), string_agg(distinct s ->> 'why', '; '))
                 from jsonb_array_elements(dagstop.left_alive(detail)) as s
                 having count(*) > 0),
                (select format(', not found: %s', string_agg(task, ', '))
                 from jsonb_array_elements_text(coalesce(detail -> 'not_found', '[]')) as task
                 having count(*) > 0),
                (select format(', could not look: %s', string_agg(why, '; '))
                 from jsonb_array_elements_text(coalesce(detail -> 'could_not_look', '[]')) as why
                 having count(*) > 0)
            )
        ),
        '[[:cntrl:]]', '?', 'g'
    )
$$;


--
-- Name: FUNCTION audit_text(for_order dagstop.stop_order, report_host text, outcome text, detail jsonb); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.audit_text(for_order dagstop.stop_order, report_host text, outcome text, detail jsonb) IS 'The line about a host''s final report for Airflow''s audit log.';


--
-- Name: be_alive(text, uuid, text, jsonb); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.be_alive(host text, listener_id uuid, version text, detail jsonb) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    -- sooner than the others count it as dead
    alive timestamptz := clock_timestamp() - dagstop.seconds_of('live_seconds') / 2;
begin
    insert into dagstop.listener as l (host, listener_id, version, detail)
    values (be_alive.host, be_alive.listener_id, be_alive.version, coalesce(be_alive.detail, '{}'))
    on conflict on constraint listener_pkey do update set
        started_at = case when l.listener_id = excluded.listener_id then l.started_at else excluded.started_at end,
        caught_up = l.caught_up and l.listener_id = excluded.listener_id and l.seen_at > alive,
        listener_id = excluded.listener_id,
        version = excluded.version,
        seen_at = clock_timestamp(),
        detail = excluded.detail;
end
$$;


--
-- Name: FUNCTION be_alive(host text, listener_id uuid, version text, detail jsonb); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.be_alive(host text, listener_id uuid, version text, detail jsonb) IS 'Writes the row of a running listener.';


--
-- Name: cascade(dagstop.stop_order[], text); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.cascade(orders dagstop.stop_order[], schema_name text) RETURNS bigint[]
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION cascade(orders dagstop.stop_order[], schema_name text); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.cascade(orders dagstop.stop_order[], schema_name text) IS 'Fails the task instances of the runs of these orders; returns the orders that it left because another session held one of their task instances.';


--
-- Name: cascade_mass(dagstop.stop_order[], text); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.cascade_mass(orders dagstop.stop_order[], schema_name text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '10ms'
    SET jit TO 'off'
    SET work_mem TO '64MB'
    AS $$
begin
    perform dagstop.cascade_orders(orders, schema_name, false);
end
$$;


--
-- Name: FUNCTION cascade_mass(orders dagstop.stop_order[], schema_name text); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.cascade_mass(orders dagstop.stop_order[], schema_name text) IS 'Like cascade_orders, but without locking first, which for many runs costs as much again as the update; waits for 10 ms at most.';


--
-- Name: cascade_orders(dagstop.stop_order[], text, boolean); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.cascade_orders(orders dagstop.stop_order[], schema_name text, lock_first boolean) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
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
$_$;


--
-- Name: FUNCTION cascade_orders(orders dagstop.stop_order[], schema_name text, lock_first boolean); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.cascade_orders(orders dagstop.stop_order[], schema_name text, lock_first boolean) IS 'Fails the task instances of the runs of these orders, in the Airflow tables of that schema. With lock_first it never waits, and raises lock_not_available if another session has locked one of them.';


--
-- Name: cascade_statement(); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.cascade_statement() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET row_security TO 'on'
    AS $$
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


--
-- Name: FUNCTION cascade_statement(); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.cascade_statement() IS 'Trigger function: writes the orders of the runs that the statement has failed or deleted, and cascades them.';


--
-- Name: check_setting(); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.check_setting() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION check_setting(); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.check_setting() IS 'Trigger function: refuses a value that a setting cannot have.';


--
-- Name: chore(text, bigint[]); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.chore(named text, order_ids bigint[] DEFAULT NULL::bigint[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_custom_plan'
    SET lock_timeout TO '1s'
    AS $_$
declare
    context text;
    stack text[];
    -- any other quoted name could be made to look like it; quoted, since the session may quote all
    only_caller constant text := '^[^"]*(dagstop[.]do_chores|"dagstop"[.]"do_chores")[(]bigint[[][]][)][^"]*$';
begin
    -- Called in a way that may leave its locks behind? A transaction is younger than its statement only in a
    -- procedure that has committed, and that must be ours, called by nothing else: it commits after this.
    get diagnostics context = pg_context;
    stack := string_to_array(context, chr(10));
    if now() <= statement_timestamp() or cardinality(stack) <> 3 or stack[3] !~ only_caller then
        raise exception 'dagstop.chore is a part of dagstop.do_chores'
            using errcode = 'invalid_transaction_state', hint = 'Outside a transaction: call dagstop.do_chores()';
    end if;
    case named
        when 'write' then perform dagstop.write_unwritten();
        when 'complete' then perform dagstop.complete_left();
        when 'put back' then perform dagstop.put_back_left();
        when 'close' then
            if order_ids is null then
                perform dagstop.close_left_behind();
            else
                perform dagstop.close_orders(order_ids);
            end if;
        when 'audit' then perform dagstop.audit_reports(order_ids);
        when 'prune' then perform dagstop.prune();
    end case;
exception
    when invalid_transaction_state then
        raise;
    when others then
        perform dagstop.record_fault('chore ' || named, sqlstate, sqlerrm, '{"repeats": true}');
end
$_$;


--
-- Name: FUNCTION chore(named text, order_ids bigint[]); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.chore(named text, order_ids bigint[]) IS 'Runs one of the chores, by name; a part of dagstop.do_chores, which alone may call it.';


--
-- Name: close_left_behind(); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.close_left_behind() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    size constant integer := 200;
    young constant timestamptz := clock_timestamp() - dagstop.seconds_of('order_seconds');
    after_at timestamptz := young;
    after_id bigint := 0;
    skipped integer := 0;
    looked bigint[];
    closed bigint;
begin
    for round in 1 .. 10 loop
        select array_agg(p.id order by p.created_at, p.id), max(p.created_at) into looked, after_at
        from (
            select o.id, o.created_at from dagstop.stop_order o
            where o.closed_at is null and (o.created_at, o.id) > (after_at, after_id)
            order by o.created_at, o.id
            offset skipped
            limit size
        ) as p;
        exit when looked is null;
        closed := dagstop.close_orders(looked);
        exit when cardinality(looked) < size;
        -- no more looks than there is something to do. Those at the front may wait for a live host for long: one
        -- look somewhere behind them
        exit when closed = 0 and skipped > 0;
        skipped := case when closed = 0 then 1 + (random() * 2000)::integer else 0 end;
        after_id := looked[size];
    end loop;
end
$$;


--
-- Name: FUNCTION close_left_behind(); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.close_left_behind() IS 'Closes orders whose last outstanding host has died: looks at a few open ones at each call, and at more as long as it finds some.';


--
-- Name: close_orders(bigint[]); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.close_orders(order_ids bigint[]) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    alive timestamptz := clock_timestamp() - dagstop.seconds_of('live_seconds');
    closed bigint;
begin
    update dagstop.stop_order o
    set closed_at = clock_timestamp(),
        closed_without = nullif(array(
            select l.host from dagstop.listener l
            where l.seen_at > alive and not exists (
                select from dagstop.report r where r.order_id = o.id and r.host = l.host and r.outcome is not null
            )
        ), '{}')
    where o.id = any (array(
        select c.id from dagstop.stop_order c
        where c.id = any (order_ids)
            and num_nonnulls(c.closed_at) = 0  -- the index on open orders is not taken for these few
            and exists (select from dagstop.report r where r.order_id = c.id and r.outcome is not null)
            and dagstop.waits_for(c) = '{}'
        for no key update skip locked
    ));
    get diagnostics closed = row_count;
    return closed;
end
$$;


--
-- Name: FUNCTION close_orders(order_ids bigint[]); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.close_orders(order_ids bigint[]) IS 'Closes the orders that have a final report from at least one host and wait for no other; returns how many.';


--
-- Name: columns_of(text, text); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.columns_of(schema_name text, table_name text) RETURNS text[]
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION columns_of(schema_name text, table_name text); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.columns_of(schema_name text, table_name text) IS 'The columns that an Airflow table has now; read at each call, since Airflow may be upgraded in between.';


--
-- Name: complete_left(); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.complete_left() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    young constant timestamptz := clock_timestamp() - dagstop.seconds_of('order_seconds');
    give_way_at constant timestamptz := clock_timestamp() + interval '3 seconds';
    pending record;
    one bigint;
begin
    for pending in
        select p.airflow_schema, p.tried, array_agg(p.id order by p.tried_at, p.id) as ids
        from (
            select o.airflow_schema, o.id, o.tried_at, o.tried_at is not null as tried from dagstop.stop_order o
            where not o.cascaded and o.kind = 'run' and o.created_at > young
            order by o.tried_at nulls first, o.created_at
            limit 1000
            for no key update skip locked
        ) as p
        group by p.airflow_schema, p.tried
        order by p.tried
    loop
        if not pending.tried then
            perform dagstop.complete_some(pending.ids, pending.airflow_schema, give_way_at);
            continue;
        end if;
        -- what failed once is tried alone, the longest ago first
        foreach one in array pending.ids loop
            perform dagstop.complete_some(array[one], pending.airflow_schema, give_way_at);
        end loop;
    end loop;
end
$$;


--
-- Name: FUNCTION complete_left(); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.complete_left() IS 'Cascades the orders that were left behind after a fault or because another session held their rows. One that fails does not hold up the others.';


--
-- Name: complete_orders(bigint[], text); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.complete_orders(order_ids bigint[], schema_name text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
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
$_$;


--
-- Name: FUNCTION complete_orders(order_ids bigint[], schema_name text); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.complete_orders(order_ids bigint[], schema_name text) IS 'Cascades orders that were left behind, if their run is still failed, or deleted; rows that another session holds wait for the next call.';


--
-- Name: complete_some(bigint[], text, timestamp with time zone); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.complete_some(order_ids bigint[], schema_name text, give_way_at timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    half constant integer := cardinality(order_ids) / 2;
begin
    if cardinality(order_ids) = 0 or clock_timestamp() > give_way_at then
        return;  -- later
    end if;
    begin
        perform dagstop.complete_orders(order_ids, schema_name);
        return;
    exception
        when lock_not_available then
            return;  -- later: who has it would have it for the other half, too
        when others then
            if half = 0 then
                perform dagstop.record_fault(
                    'complete_left', sqlstate, sqlerrm, jsonb_build_object('order', order_ids[1], 'repeats', true)
                );
                update dagstop.stop_order o set tried_at = clock_timestamp() where o.id = order_ids[1];
                return;
            end if;
    end;
    perform dagstop.complete_some(order_ids[:half], schema_name, give_way_at);
    perform dagstop.complete_some(order_ids[half + 1:], schema_name, give_way_at);
end
$$;


--
-- Name: FUNCTION complete_some(order_ids bigint[], schema_name text, give_way_at timestamp with time zone); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.complete_some(order_ids bigint[], schema_name text, give_way_at timestamp with time zone) IS 'Cascades orders that were left behind: all at once, or, if one of them fails, in halves until only that one is left. Begins nothing after give_way_at.';


--
-- Name: date_column_of(text); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.date_column_of(schema_name text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if 'logical_date' = any (dagstop.columns_of(schema_name, 'dag_run')) then
        return 'logical_date';
    end if;
    return 'execution_date';
end
$$;


--
-- Name: FUNCTION date_column_of(schema_name text); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.date_column_of(schema_name text) IS 'What dag_run calls the date of a run: logical_date since Airflow 3, execution_date before.';


--
-- Name: do_chores(bigint[]); Type: PROCEDURE; Schema: dagstop; Owner: -
--

CREATE PROCEDURE dagstop.do_chores(IN reported bigint[] DEFAULT NULL::bigint[])
    LANGUAGE plpgsql
    AS $$
begin
    commit;  -- refused in a transaction that the session has begun: its locks would stay
    if reported is null then
        perform dagstop.chore('write');
        commit;
        perform dagstop.chore('complete');
        commit;
        perform dagstop.chore('put back');
        commit;
    end if;
    perform dagstop.chore('close', reported);
    commit;
    perform dagstop.chore('audit', reported);
    commit;
    if reported is null then
        perform dagstop.chore('prune');
        commit;
    end if;
end
$$;


--
-- Name: PROCEDURE do_chores(IN reported bigint[]); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON PROCEDURE dagstop.do_chores(IN reported bigint[]) IS 'The work that follows reports: closing the orders just reported on, and Airflow''s audit log. Without orders, all chores: also cascades and fences that were left behind, and old rows. Each step is committed; refused inside a transaction.';


--
-- Name: draft_of(text); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.draft_of(schema_name text) RETURNS jsonb
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    return jsonb_build_object(
        'airflow_schema', schema_name, 'txid', txid_current_if_assigned(), 'session_user_name', session_user,
        'application_name', current_setting('application_name'), 'client_addr', inet_client_addr(),
        'backend_pid', pg_backend_pid()
    );
end
$$;


--
-- Name: FUNCTION draft_of(schema_name text); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.draft_of(schema_name text) IS 'What an order written now would say about its writer.';


--
-- Name: fail_kept(dagstop.stop_order, jsonb); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.fail_kept(draft dagstop.stop_order, kept jsonb) RETURNS timestamp with time zone
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    columns constant text[] := dagstop.columns_of(draft.airflow_schema, 'task_instance');
    present jsonb;
    version text;
begin
    execute format(
        $sql$
        select to_jsonb(t), t.xmin::text from %I.task_instance t
        where t.dag_id = $1 and %s and t.task_id = $4 and coalesce((to_jsonb(t) ->> 'map_index')::integer, -1) = $5
        for no key update of t nowait
        $sql$,
        draft.airflow_schema,
        case when 'run_id' = any (columns) then 't.run_id = $2' else 't.execution_date = $3' end
    ) into present, version using
        draft.dag_id, draft.run_id, draft.logical_date, kept ->> 'task_id', coalesce((kept ->> 'map_index')::integer, -1);
    if present is null or not dagstop.same_try(kept, present, version) then
        return draft.created_at;  -- what began later is another try
    end if;
    if coalesce(present ->> 'state', '') in ('success', 'failed', 'skipped', 'upstream_failed', 'removed') then
        return null;
    end if;
    if not dagstop.set_again(
        draft.airflow_schema, present,
        'state = ''failed'', end_date = pg_catalog.clock_timestamp(), duration = coalesce('
            'extract(epoch from pg_catalog.clock_timestamp() operator(pg_catalog.-) t.start_date), t.duration)'
            || case when 'updated_at' = any (columns) then ', updated_at = pg_catalog.clock_timestamp()' else '' end
    ) then
        raise lock_not_available using message = 'another session has what a task instance refers to';
    end if;
    return null;
end
$_$;


--
-- Name: FUNCTION fail_kept(draft dagstop.stop_order, kept jsonb); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.fail_kept(draft dagstop.stop_order, kept jsonb) IS 'Fails the task instance that a draft has kept, if it is still that try; otherwise returns since when it is not. Raises lock_not_available if another session has locked it.';


--
-- Name: fence(); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.fence() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET extra_float_digits TO '3'
    AS $$
declare
    ti jsonb;
    index integer;
    run text;
    orders bigint[];
    fencing bigint;
    done boolean;
begin
    if old.state = new.state then
        return null;
    end if;
    ti := to_jsonb(old);
    index := coalesce((ti ->> 'map_index')::integer, -1);
    perform dagstop.reach_own('access share', 'setting', 'stop_order', 'stop_target');
    -- one that ordered a stop by another state says nothing of this one
    run := dagstop.run_id_of(tg_table_schema, ti);
    orders := dagstop.orders_of_task(tg_table_schema, ti, run, old.state);
    if orders = '{}' then
        return null;
    end if;
    if dagstop.is_revival(ti, to_jsonb(new)) and not dagstop.asked_for('bypass') and not dagstop.observes() then
        fencing := dagstop.fencing_order(orders, ti, to_jsonb(new));
    end if;
    if fencing is not null then
        perform dagstop.reach_own('row exclusive', 'refused_write');
        done := dagstop.set_again(tg_table_schema, ti, format('state = %L', old.state));
        insert into dagstop.refused_write (order_id, dag_id, run_id, task_id, map_index, wanted_state, pending, of_try)
        values (
            fencing, ti ->> 'dag_id', run, ti ->> 'task_id', index, new.state, not done,
            case when not done then dagstop.try_of(dagstop.row_as_it_is(tg_table_schema, ti, 'skip locked')) end
        );
        if not done then
            perform dagstop.ring();
        end if;
        return null;
    end if;
    perform dagstop.reach_own('row exclusive', 'stop_target');
    perform dagstop.release(orders, ti, clock_timestamp());
    return null;
exception
    when serialization_failure then
        raise;  -- the client is meant to try again, and a transaction that goes on is doomed
    when others or assert_failure then
        begin
            perform dagstop.leave_unwritten(
                'fence', sqlstate, sqlerrm, tg_relid,
                array[dagstop.draft_of(tg_table_schema) || jsonb_build_object(
                    'kind', 'fence', 'before', to_jsonb(old), 'after', to_jsonb(new), 'bypass', dagstop.asked_for('bypass')
                )],
                array[null::jsonb]
            );
        exception
            when others then
                raise warning 'dagstop: fence failed: %', sqlerrm;
        end;
        return null;
end
$$;


--
-- Name: FUNCTION fence(); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.fence() IS 'Trigger function: keeps a stopped task instance in the state that stopped it (failed) while its order is open, and notes when it was taken out of that.';


--
-- Name: unwritten_order; Type: TABLE; Schema: dagstop; Owner: -
--

CREATE TABLE dagstop.unwritten_order (
    id bigint NOT NULL,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    draft jsonb NOT NULL,
    targets jsonb,
    tried_at timestamp with time zone
);
ALTER TABLE ONLY dagstop.unwritten_order ALTER COLUMN draft SET STORAGE MAIN;
ALTER TABLE ONLY dagstop.unwritten_order ALTER COLUMN targets SET STORAGE MAIN;


--
-- Name: TABLE unwritten_order; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON TABLE dagstop.unwritten_order IS 'Orders that could not be written when they were due; the chores write them. Nothing but its row 0, which keeps a page for them, unless something is wrong.';


--
-- Name: COLUMN unwritten_order.id; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.unwritten_order.id IS 'Identity.';


--
-- Name: COLUMN unwritten_order.at; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.unwritten_order.at IS 'When the order was due.';


--
-- Name: COLUMN unwritten_order.draft; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.unwritten_order.draft IS 'The row of stop_order, without its number; of kind fence: a row of task_instance before and after an update that the fence could not judge.';


--
-- Name: COLUMN unwritten_order.targets; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.unwritten_order.targets IS 'The task instances that ran then, as they were; null where they could not be read.';


--
-- Name: COLUMN unwritten_order.tried_at; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.unwritten_order.tried_at IS 'When it could not be made good last; it is tried again after the others.';


--
-- Name: fence_late(dagstop.unwritten_order); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.fence_late(kept dagstop.unwritten_order) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    schema_name constant text := kept.draft ->> 'airflow_schema';
    before constant jsonb := kept.draft -> 'before';
    after constant jsonb := kept.draft -> 'after';
    run constant text := dagstop.run_id_of(schema_name, before);
    orders bigint[] := dagstop.orders_of_task(schema_name, before, run, before ->> 'state');
    fencing bigint;
begin
    orders := array(select o.id from dagstop.stop_order o where o.id = any (orders) and o.created_at <= kept.at);
    if orders = '{}' then
        return;
    end if;
    if dagstop.is_revival(before, after) and not (kept.draft ->> 'bypass')::boolean and not dagstop.observes() then
        fencing := dagstop.fencing_order(orders, before, after);
    end if;
    if fencing is null then
        perform dagstop.release(orders, before, kept.at);
        return;
    end if;
    if dagstop.lock_untouched(schema_name, after)
        and not dagstop.set_again(schema_name, after, format('state = %L', before ->> 'state'))
    then
        raise lock_not_available using message = 'another session has what a task instance refers to';
    end if;
    insert into dagstop.refused_write
        (order_id, dag_id, run_id, task_id, map_index, wanted_state, session_user_name, application_name, client_addr)
    values (
        fencing, before ->> 'dag_id', run, before ->> 'task_id', coalesce((before ->> 'map_index')::integer, -1),
        after ->> 'state', kept.draft ->> 'session_user_name', kept.draft ->> 'application_name',
        (kept.draft ->> 'client_addr')::inet
    );
end
$$;


--
-- Name: FUNCTION fence_late(kept dagstop.unwritten_order); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.fence_late(kept dagstop.unwritten_order) IS 'Judges a row that left failed while the orders could not be read, as the fence would have done.';


--
-- Name: fence_run(); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.fence_run() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    before constant jsonb := to_jsonb(old);
    fencing bigint;
begin
    if not dagstop.is_old_copy(before, to_jsonb(new)) or dagstop.asked_for('bypass') then
        return null;
    end if;
    perform dagstop.reach_own('access share', 'setting', 'stop_order');
    fencing := dagstop.order_fencing_run(dagstop.orders_of_task(tg_table_schema, before, old.run_id, old.state));
    if fencing is null or dagstop.observes() then
        return null;
    end if;
    perform dagstop.reach_own('row exclusive', 'refused_write');
    -- the time too, or the next copy would differ in nothing but the state
    if not dagstop.set_again(tg_table_schema, before, format(
        'state = %L, end_date = %L, last_scheduling_decision = %L', old.state, old.end_date, old.last_scheduling_decision
    )) then
        raise lock_not_available using message = 'another session has what the run refers to';
    end if;
    insert into dagstop.refused_write (order_id, dag_id, run_id, wanted_state)
    values (fencing, old.dag_id, old.run_id, new.state);
    return null;
exception
    when serialization_failure then
        raise;  -- the client is meant to try again, and a transaction that goes on is doomed
    when others or assert_failure then
        begin
            -- it says running until a scheduler looks, which fails it again
            perform dagstop.record_fault(
                'fence_run', sqlstate, sqlerrm, jsonb_build_object('dag_id', old.dag_id, 'run_id', old.run_id)
            );
        exception
            when others then
                raise warning 'dagstop: fence_run failed: %', sqlerrm;
        end;
        return null;
end
$$;


--
-- Name: FUNCTION fence_run(); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.fence_run() IS 'Trigger function: keeps a run failed that was just ordered to stop when a dying task writes back an old copy of it.';


--
-- Name: fencing_order(bigint[], jsonb, jsonb); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.fencing_order(order_ids bigint[], before jsonb, after jsonb) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
declare
    task text collate "default" := before ->> 'task_id';
    index integer := coalesce((before ->> 'map_index')::integer, -1);
    late boolean := dagstop.may_be_late(before, after);
    oldest timestamptz := clock_timestamp() - dagstop.seconds_of('fence_seconds');
begin
    return (
        select max(o.id)
        from dagstop.stop_order o
        join dagstop.stop_target t on t.order_id = o.id
        where o.id = any (order_ids) and t.order_id = any (order_ids)
            and t.task_id = task and t.map_index = index
            and t.released_at is null and (o.created_at > oldest) is true
            -- num_nonnulls: the index on open orders is not taken for these few
            and (num_nonnulls(o.closed_at) = 0 or (t.state_before in ('queued', 'scheduled') and late))
            -- a success of what began after the order is another try's
            and (
                (after ->> 'state') is distinct from 'success' or t.state_before in ('queued', 'scheduled')
                or t.started_at is not distinct from (before ->> 'start_date')::timestamptz
            )
    );
end
$$;


--
-- Name: FUNCTION fencing_order(order_ids bigint[], before jsonb, after jsonb); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.fencing_order(order_ids bigint[], before jsonb, after jsonb) IS 'The latest of these orders that keeps a row of task_instance from being revived.';


--
-- Name: fill_dates(bigint[], text); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.fill_dates(order_ids bigint[], schema_name text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
begin
    execute format(
        'update dagstop.stop_order o set logical_date = r.%I
         from %I.dag_run r
         where o.id = any ($1) and r.dag_id = o.dag_id and r.run_id = o.run_id',
        dagstop.date_column_of(schema_name), schema_name
    ) using order_ids;
end
$_$;


--
-- Name: FUNCTION fill_dates(order_ids bigint[], schema_name text); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.fill_dates(order_ids bigint[], schema_name text) IS 'Gives orders the date of their run.';


--
-- Name: forget_host(text); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.forget_host(host text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '1s'
    AS $$
#variable_conflict use_column
declare
    seen timestamptz;
begin
    select l.seen_at into seen from dagstop.listener l where l.host = forget_host.host;
    if seen is null then
        return false;
    end if;
    perform dagstop.speak_for(forget_host.host);
    -- locked, so that a heartbeat that comes now is not taken away with it
    select l.seen_at into seen from dagstop.listener l where l.host = forget_host.host for update;
    if seen > clock_timestamp() - dagstop.seconds_of('live_seconds') then
        raise exception 'dagstop.forget_host: the listener of host % lives, it was seen % s ago',
                quote_literal(forget_host.host), round(extract(epoch from clock_timestamp() - seen))
            using errcode = 'object_in_use', hint = 'stop it first: it takes its row away itself';
    end if;
    delete from dagstop.listener l where l.host = forget_host.host;
    delete from dagstop.host_role h where h.host = forget_host.host;
    return true;
end
$$;


--
-- Name: FUNCTION forget_host(host text); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.forget_host(host text) IS 'Removes a host that is gone for good from the listeners, and frees its name; false if there is none of that name. Refused while its listener is running. Orders and reports stay.';


--
-- Name: forget_notes(); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.forget_notes() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    perform set_config('dagstop.runs', '', true), set_config('dagstop.runs_aside', '', true),
        set_config('dagstop.runs_parts', '', true);
end
$$;


--
-- Name: FUNCTION forget_notes(); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.forget_notes() IS 'Empties the list of noted runs.';


--
-- Name: gone_hosts(); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.gone_hosts() RETURNS SETOF text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    schema_name constant text := dagstop.setting_of('airflow_schema');
    -- what was ordered since then such a host may still have to carry out
    since constant timestamptz := clock_timestamp()
        - greatest(dagstop.seconds_of('order_seconds'), dagstop.seconds_of('live_seconds'));
    silent jsonb;
    used text[];
    lately text;
begin
    select jsonb_object_agg(
        l.host,
        jsonb_build_array(l.host) || case jsonb_typeof(l.detail -> 'host_names') when 'array' then l.detail -> 'host_names' else '[]' end
    ) into silent
    from dagstop.listener l
    where l.seen_at < since;
    if silent is null then
        return;
    end if;
    -- by the heartbeats of tasks, which have an index on every release; none of start_date is needed
    if 'last_heartbeat_at' = any (dagstop.columns_of(schema_name, 'task_instance')) then
        lately := 'select t.hostname::text from %1$I.task_instance t where t.last_heartbeat_at > $1';
    elsif to_regclass(format('%I.job', schema_name)) is not null then
        lately := $sql$select j.hostname::text from %1$I.job j where j.job_type = 'LocalTaskJob' and j.latest_heartbeat > $1$sql$;
    else
        return;  -- Airflow's use of a host cannot be told
    end if;
    begin
        perform dagstop.reach(schema_name, 'task_instance', 'access share');
        execute format(
            'select coalesce(array_agg(distinct u.hostname), ''{}'') from ('
            || lately || $sql$ union all select t.hostname::text from %1$I.task_instance t where t.state = 'running') as u (hostname)$sql$,
            schema_name
        ) into used using since;
        raise sqlstate 'DSLET';  -- as in 13_orders_read.sql
    exception
        when sqlstate 'DSLET' then
            null;
    end;
    return query
    select s.key from jsonb_each(silent) as s
    where not exists (select from jsonb_array_elements_text(s.value) as n (name) where n.name = any (used));
end
$_$;


--
-- Name: FUNCTION gone_hosts(); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.gone_hosts() IS 'The hosts whose listener was not seen for order_seconds, and on which Airflow has run no task since: there is nothing to stop there.';


--
-- Name: grace_of(text); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.grace_of(dag text) RETURNS integer
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
begin
    return (
        select s.value::integer from dagstop.setting s
        where s.name in ('grace_seconds:' || dag, 'grace_seconds') and s.value ~ '^[0-9]{1,9}$'
        order by s.name = 'grace_seconds'
        limit 1
    );
end
$_$;


--
-- Name: FUNCTION grace_of(dag text); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.grace_of(dag text) IS 'Seconds between SIGTERM and SIGKILL for a DAG: its own value, or that for all DAGs; null if the listener decides.';


--
-- Name: hands_off_of(text); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.hands_off_of(dag text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION hands_off_of(dag text); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.hands_off_of(dag text) IS 'Why a DAG is not stopped under the present settings; null if it is.';


--
-- Name: heartbeat(text, uuid, text, jsonb); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.heartbeat(host text, listener_id uuid, version text, detail jsonb) RETURNS TABLE(triggers_ok boolean, faults bigint, pending bigint)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_custom_plan'
    SET lock_timeout TO '1s'
    AS $$
begin
    perform dagstop.require_short('host', heartbeat.host, 255);
    perform dagstop.require_short('version', heartbeat.version, 100);
    perform dagstop.require_small('the detail of a heartbeat', heartbeat.detail, 100000);
    perform dagstop.speak_for(heartbeat.host);
    perform dagstop.be_alive(heartbeat.host, heartbeat.listener_id, heartbeat.version, heartbeat.detail);
    pending := dagstop.pending();
    triggers_ok := not exists (select from dagstop.trigger_health() h where h.status <> 'installed');
    -- the number of the last one: to count them takes the longer the more there were
    faults := coalesce((select max(f.id) from dagstop.fault f), 0);
    return next;
end
$$;


--
-- Name: FUNCTION heartbeat(host text, listener_id uuid, version text, detail jsonb); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.heartbeat(host text, listener_id uuid, version text, detail jsonb) IS 'A listener''s heartbeat. Returns whether all triggers are in place, the number of the last recorded fault, and how much is left for the chores.';


--
-- Name: identity_of(jsonb, text); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.identity_of(task_instance jsonb, version text) RETURNS jsonb
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select jsonb_object_agg(e.key, e.value) || jsonb_build_object('version', version)
    from jsonb_each(task_instance) as e
    where e.key = any (array[
        'task_id', 'map_index', 'try_number', 'job_id', 'id', 'hostname', 'pid', 'operator', 'state', 'start_date', 'queued_dttm'
    ])
$$;


--
-- Name: FUNCTION identity_of(task_instance jsonb, version text); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.identity_of(task_instance jsonb, version text) IS 'What a draft keeps of a row of task_instance: which try it is, and which version of the row (its xmin).';


--
-- Name: is_late_success(jsonb, jsonb); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.is_late_success(before jsonb, after jsonb) RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    -- a task's own process sets end and duration and keeps the start, in every release that lets it write
    if after ->> 'end_date' is null or before -> 'end_date' = after -> 'end_date'
        or before -> 'duration' = after -> 'duration' or before -> 'start_date' is distinct from after -> 'start_date'
        or (after ->> 'end_date')::timestamptz = now()  -- typed in psql
    then
        return false;
    end if;
    return case
        when before ? 'id' then false  -- 3.x: its API server refuses a success of what does not run
        when before ? 'map_index' then before ->> 'end_date' is not null  -- 2.3 to 2.11: people keep an end that is there
        when before ? 'queued_by_job_id' then false  -- 2.0 to 2.2: people write the very same
        else true  -- 1.10: people set the state alone, or the start too
    end;
end
$$;


--
-- Name: FUNCTION is_late_success(before jsonb, after jsonb); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.is_late_success(before jsonb, after jsonb) IS 'True if success was written to a row of task_instance by the task''s own process, which was being stopped; false if a person may have marked it.';


--
-- Name: is_late_without_slot(jsonb, jsonb); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.is_late_without_slot(before jsonb, after jsonb) RETURNS boolean
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    -- 1.10's runner takes its start and its place in the queue again when it gives up for want of a slot; a clear
    -- touches neither
    select not before ? 'queued_by_job_id'
        and before -> 'start_date' is distinct from after -> 'start_date'
        and before -> 'queued_dttm' is distinct from after -> 'queued_dttm'
$$;


--
-- Name: FUNCTION is_late_without_slot(before jsonb, after jsonb); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.is_late_without_slot(before jsonb, after jsonb) IS 'Of a row of task_instance that lost its state: true if that was the late message of Airflow 1.10 that found no free slot, not a person who cleared it.';


--
-- Name: is_old_copy(jsonb, jsonb); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.is_old_copy(before jsonb, after jsonb) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    -- A task's process keeps its run as it was when the task began. With its own row it writes that back: always before
    -- 2.10.5, later if the run was failed between its last look and its write. Only schedulers set this time, each to
    -- its present; a person's write leaves it as it is, or empties it. updated_at says nothing: it is by the writer's clock.
    select coalesce(
        (after ->> 'last_scheduling_decision')::timestamptz < (before ->> 'last_scheduling_decision')::timestamptz, false
    )
$$;


--
-- Name: FUNCTION is_old_copy(before jsonb, after jsonb); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.is_old_copy(before jsonb, after jsonb) IS 'True if an update of a row of dag_run wrote back what the row was earlier, as a dying task of Airflow 2 does.';


--
-- Name: is_revival(jsonb, jsonb); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.is_revival(before jsonb, after jsonb) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select case
        when after ->> 'state' is null then dagstop.is_late_without_slot(before, after)
        when after ->> 'state' = 'success' then dagstop.is_late_success(before, after)
        else after ->> 'state' in ('up_for_retry', 'running', 'queued', 'scheduled', 'deferred', 'up_for_reschedule', 'awaiting_input')
    end
$$;


--
-- Name: FUNCTION is_revival(before jsonb, after jsonb); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.is_revival(before jsonb, after jsonb) IS 'True if an update takes a row of task_instance out of failed as a late or dying process does, not as a person who clears or marks it.';


--
-- Name: is_still_so(dagstop.stop_order); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.is_still_so(draft dagstop.stop_order) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    present text;
    date_column text := dagstop.date_column_of(draft.airflow_schema);
begin
    if not dagstop.stops_on(draft.state_after) then
        return false;
    end if;
    if draft.kind = 'run' then
        execute format(
            $sql$
            select coalesce(r.state, '') from %I.dag_run r
            where r.dag_id = $1 and (r.run_id = $2 or ($2 is null and r.%I = $3))
            for no key update of r nowait
            $sql$,
            draft.airflow_schema, date_column
        ) into present using draft.dag_id, draft.run_id, draft.logical_date;
    else
        execute format(
            $sql$
            select coalesce(t.state, '') from %I.task_instance t
            where t.dag_id = $1 and %s and t.task_id = $4 and coalesce((to_jsonb(t) ->> 'map_index')::integer, -1) = $5
            for no key update of t nowait
            $sql$,
            draft.airflow_schema,
            case when 'run_id' = any (dagstop.columns_of(draft.airflow_schema, 'task_instance')) then 't.run_id = $2'
                else 't.execution_date = $3' end
        ) into present using draft.dag_id, draft.run_id, draft.logical_date, draft.task_id, draft.map_index;
    end if;
    return coalesce(present, 'deleted') = draft.state_after;
end
$_$;


--
-- Name: FUNCTION is_still_so(draft dagstop.stop_order); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.is_still_so(draft dagstop.stop_order) IS 'True if the run or task instance of a draft is still in the state that ordered the stop, and that state still orders one.';


--
-- Name: keep_draft(jsonb, jsonb); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.keep_draft(draft jsonb, targets jsonb) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    insert into dagstop.unwritten_order (draft, targets) values (keep_draft.draft, keep_draft.targets);
    return true;
exception
    when disk_full then
        return false;
end
$$;


--
-- Name: FUNCTION keep_draft(draft jsonb, targets jsonb); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.keep_draft(draft jsonb, targets jsonb) IS 'Keeps one draft on a full disk; false if there is no room. Without its targets a draft is smaller: what ran before is stopped, but keeps its state in Airflow''s tables.';


--
-- Name: keys_set_anew(text); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.keys_set_anew(schema_name text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
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
$_$;


--
-- Name: FUNCTION keys_set_anew(schema_name text); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.keys_set_anew(schema_name text) IS 'For many rows: assignments of one column of each index of task_instance, which the cascade does not change, to itself. Otherwise Postgres (14 and later) searches each full page of that index for versions to delete, mostly in vain, since this transaction wrote them. The price: such an index may grow more until it is vacuumed.';


--
-- Name: known_settings(); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.known_settings() RETURNS TABLE(name text, value text, item text, many boolean, wanted text, meaning text)
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
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
$_$;


--
-- Name: FUNCTION known_settings(); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.known_settings() IS 'Every setting with its default, a pattern for its value (or for each item of a list), that pattern in words, and what it means.';


--
-- Name: leave_to_heartbeat(bigint[]); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.leave_to_heartbeat(order_ids bigint[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
begin
    update dagstop.stop_order o set cascaded = false where o.id = any (order_ids);
end
$$;


--
-- Name: FUNCTION leave_to_heartbeat(order_ids bigint[]); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.leave_to_heartbeat(order_ids bigint[]) IS 'Marks orders whose cascade is yet to be done.';


--
-- Name: leave_unwritten(text, text, text, oid, jsonb[], jsonb[]); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.leave_unwritten(place text, code text, problem text, on_table oid, drafts jsonb[], targets jsonb[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    about constant jsonb := jsonb_build_object('table', on_table::regclass::text, 'because', code, 'what', array(
        select concat_ws(' ', w.item ->> 'dag_id', w.item ->> 'run_id', w.item ->> 'task_id')
        from (select coalesce(d -> 'before', d) as item from unnest(drafts[:100]) as d) as w
    ));
    said constant text := case place when 'fence' then 'an update was not held against the orders'
        else 'no stop order was written' end;
begin
    -- what it waited is forgotten with what was undone: for this transaction it was the last time
    perform set_config('dagstop.waits_since', '0', true);
    perform dagstop.reach_own('row exclusive', 'unwritten_order');
    if code like '53%' then
        -- the disk is full: singly, since what an insert of many wrote before it failed takes its room until a vacuum
        for number in 1 .. cardinality(drafts) loop
            if not dagstop.keep_draft(drafts[number], targets[number]) and not dagstop.keep_draft(drafts[number], null) then
                perform dagstop.record_fault(
                    place, 'DS003', format('%s, and nobody makes it good, from the %s. on: %s', said, number, problem),
                    about || '{"do": "dagstop stop DAG RUN"}'
                );
                exit;
            end if;
        end loop;
    else
        insert into dagstop.unwritten_order (draft, targets)
        select d.draft, d.targets
        from unnest(drafts, targets) with ordinality as d (draft, targets, number)
        order by d.number;
    end if;
    -- DS002: the chores make it good
    perform dagstop.record_fault(
        place, 'DS002', format('%s; the next heartbeat makes it good: %s', said, problem), about
    );
exception
    when serialization_failure then
        raise;
    when others or assert_failure then
        -- DS003: nobody does
        perform set_config('dagstop.waits_since', '0', true);
        perform dagstop.record_fault(
            place, 'DS003', format('%s, and nobody makes it good: %s (%s)', said, problem, sqlerrm),
            about || '{"do": "dagstop stop DAG RUN"}'
        );
end
$$;


--
-- Name: FUNCTION leave_unwritten(place text, code text, problem text, on_table oid, drafts jsonb[], targets jsonb[]); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.leave_unwritten(place text, code text, problem text, on_table oid, drafts jsonb[], targets jsonb[]) IS 'Keeps drafts of orders that could not be written, for the chores, and records a fault. If even that fails, nothing is stopped: another fault says so, or a warning.';


--
-- Name: left_alive(jsonb); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.left_alive(detail jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    -- what surely is not the run's says whose it is
    select coalesce(jsonb_agg(s), '[]') from jsonb_array_elements(coalesce(detail -> 'spared', '[]')) as s where not s ? 'whose'
$$;


--
-- Name: FUNCTION left_alive(detail jsonb); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.left_alive(detail jsonb) IS 'From a report''s detail: what was spared and belongs, or may belong, to the run.';


--
-- Name: left_to_put_back(); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.left_to_put_back() RETURNS bigint[]
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
begin
    return array(
        select w.id from dagstop.refused_write w
        where w.pending and w.at > (select clock_timestamp() - interval '1 minute')
        order by w.at
        limit 1000
    );
end
$$;


--
-- Name: FUNCTION left_to_put_back(); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.left_to_put_back() IS 'The refused writes that are not yet reverted, oldest first.';


--
-- Name: lock_untouched(text, jsonb); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.lock_untouched(schema_name text, task_instance jsonb) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    SET extra_float_digits TO '3'
    AS $_$
declare
    heartbeats constant text[] := array['last_heartbeat_at', 'updated_at'];
    present jsonb;
    kept jsonb;
begin
    perform dagstop.reach(schema_name, 'task_instance', 'row exclusive');
    present := dagstop.row_as_it_is(schema_name, task_instance, 'nowait');
    -- the session that kept it may have had another time zone
    execute format('select to_jsonb(jsonb_populate_record(null::%I.task_instance, $1))', schema_name)
        into kept using task_instance;
    return coalesce(present - heartbeats = kept - heartbeats, false);
end
$_$;


--
-- Name: FUNCTION lock_untouched(schema_name text, task_instance jsonb); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.lock_untouched(schema_name text, task_instance jsonb) IS 'Locks a row of task_instance; true if it is unchanged except for heartbeats. Raises lock_not_available.';


--
-- Name: may_be_late(jsonb, jsonb); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.may_be_late(before jsonb, after jsonb) RETURNS boolean
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    -- 1.10 runs a queued message that arrives long after every process is dead; 2.0 and later refuse it. Whoever
    -- schedules it again (a backfill), or sets the state alone (a person), is not that message.
    select not before ? 'queued_by_job_id' and coalesce(after ->> 'state', '') not in ('scheduled', 'queued')
        and before - 'state' is distinct from after - 'state'
$$;


--
-- Name: FUNCTION may_be_late(before jsonb, after jsonb); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.may_be_late(before jsonb, after jsonb) IS 'True if a row of task_instance that was queued when it was stopped may have been written by its late queue message.';


--
-- Name: may_have_written(text, text); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.may_have_written(schema_name text, table_name text) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    asked constant oid := to_regclass(format('%I.%I', schema_name, table_name))::oid;
begin
    return pg_stat_get_xact_tuples_inserted(asked) + pg_stat_get_xact_tuples_updated(asked) > 0
        or current_setting('track_counts') = 'off' or exists (select from pg_inherits i where i.inhparent = asked);
end
$$;


--
-- Name: FUNCTION may_have_written(schema_name text, table_name text); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.may_have_written(schema_name text, table_name text) IS 'False only if this transaction has written no row of an Airflow table, by Postgres'' own count.';


--
-- Name: may_wait(); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.may_wait() RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION may_wait(); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.may_wait() IS 'Between two tries for a lock: sleeps for a moment and returns true, or returns false. A transaction tries for a second in all, since it may fail a thousand runs, and never beyond half of the client''s statement_timeout or transaction_timeout.';


--
-- Name: noted_runs(); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.noted_runs() RETURNS jsonb[]
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    parts text;
    filled integer := coalesce(nullif(current_setting('dagstop.runs_parts', true), ''), '0');
begin
    if filled > 0 then
        parts := (
            select string_agg(current_setting('dagstop.runs_' || n), E'\n' order by n) from generate_series(1, filled) as n
        );
        perform set_config('dagstop.runs_' || n, '', true) from generate_series(1, filled) as n;
    end if;
    parts := concat_ws(
        E'\n', parts, nullif(current_setting('dagstop.runs_aside', true), ''), nullif(current_setting('dagstop.runs', true), '')
    );
    perform dagstop.forget_notes();
    return string_to_array(parts, E'\n')::jsonb[];
end
$$;


--
-- Name: FUNCTION noted_runs(); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.noted_runs() IS 'The runs that the rows of the statement have noted; the list is empty afterwards.';


--
-- Name: observes(); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.observes() RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    return dagstop.setting_of('observe_only') = 'on';
end
$$;


--
-- Name: FUNCTION observes(); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.observes() IS 'True if nothing is to be stopped in this database: orders are only written and reported on.';


--
-- Name: open_orders(text, bigint[], integer); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.open_orders(host text, ids bigint[] DEFAULT NULL::bigint[], max_orders integer DEFAULT 2000) RETURNS TABLE(id bigint, kind text, airflow_schema text, dag_id text, run_id text, logical_date timestamp with time zone, task_id text, map_index integer, self_reported boolean, created_at timestamp with time zone, txid bigint, cascaded boolean, session_user_name text, application_name text, client_addr inet, backend_pid integer, state_before text, closed_at timestamp with time zone, db_now timestamp with time zone, settle_seconds integer, targets jsonb, present jsonb, begun jsonb, hands_off text, grace_seconds integer, state_after text, finished_tasks text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
#variable_conflict use_column
declare
    picked dagstop.stop_order[];
    settle integer := extract(epoch from dagstop.seconds_of('settle_seconds'));
    finished text := dagstop.setting_of('finished_tasks');
    numbers bigint[];
    rows jsonb[];
    readable text := dagstop.setting_of('airflow_schema');
begin
    numbers := coalesce(ids, dagstop.swept_for(host, max_orders));
    picked := array(select o from dagstop.stop_order o where o.id = any (numbers));
    if cardinality(picked) = 0 then
        return;
    end if;
    begin
        select array_agg(p.number), array_agg(p.present) into numbers, rows from dagstop.present_rows(picked) as p;
        raise sqlstate 'DSLET';
    exception
        when sqlstate 'DSLET' then
            null;
        when others then
            -- the orders must reach the hosts all the same
            readable := null;
            perform dagstop.record_fault('open_orders', sqlstate, sqlerrm, '{"repeats": true}');
    end;
    return query
    select
        o.id, o.kind, o.airflow_schema, o.dag_id, o.run_id, o.logical_date, o.task_id, o.map_index, o.self_reported,
        o.created_at, o.txid,
        o.cascaded and not exists (select from dagstop.refused_write w where w.order_id = o.id and w.pending),
        o.session_user_name, o.application_name, o.client_addr, o.backend_pid,
        o.state_before, o.closed_at, clock_timestamp(), settle,
        coalesce((
            select jsonb_agg(to_jsonb(s) - 'order_id' order by s.task_id, s.map_index)
            from dagstop.stop_target s where s.order_id = o.id
        ), '[]'),
        -- of another Airflow's order, in another schema, these would be some other rows
        case when o.airflow_schema = readable then coalesce(p.present, '[]') end,
        (select b.detail from dagstop.report b where b.order_id = o.id and b.host = open_orders.host),
        coalesce(o.hands_off, d.hands_off), d.grace_seconds, o.state_after, finished
    -- joined, not "= any": one plan for one order and for 2000 must not compare each row with each of them
    from unnest(picked) as o
    join (
        -- once for each DAG, not for each of its orders
        select x.dag_id, dagstop.hands_off_of(x.dag_id) as hands_off, dagstop.grace_of(x.dag_id) as grace_seconds
        from (select distinct y.dag_id from unnest(picked) as y) as x
    ) as d on d.dag_id = o.dag_id
    left join unnest(numbers, rows) as p (number, present) on p.number = o.id
    order by o.id;
end
$$;


--
-- Name: FUNCTION open_orders(host text, ids bigint[], max_orders integer); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.open_orders(host text, ids bigint[], max_orders integer) IS 'The orders on which a host has no final report yet (or just those asked for), each with its targets and with the present rows; present is null where Airflow''s tables could not be read; begun is the detail of that host''s report so far: what was signalled before a listener was cut off or the order was taken up again; hands_off, grace_seconds and finished_tasks are what the settings say now.';


--
-- Name: order_deleted_run(); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.order_deleted_run() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    before jsonb;
    run_date timestamptz;
    unfinished boolean;
    draft jsonb;
begin
    perform dagstop.reach_own('access share', 'setting');
    if not dagstop.stops_on('deleted') then
        return null;
    end if;
    before := to_jsonb(old);
    run_date := before ->> dagstop.date_column_of(tg_table_schema);
    perform dagstop.reach(tg_table_schema, 'task_instance', 'access share');
    -- what a foreign key deletes with the run is gone by now: its triggers come first, by their names
    execute format(
        $sql$
        select exists (
            select from %I.task_instance t
            where t.dag_id = $1 and %s
                and (t.state is null or t.state <> all (array['success', 'failed', 'skipped', 'upstream_failed', 'removed']))
        )
        $sql$,
        tg_table_schema,
        case when 'run_id' = any (dagstop.columns_of(tg_table_schema, 'task_instance'))
            then 't.run_id = $2' else 't.execution_date = $3' end
    ) into unfinished using before ->> 'dag_id', before ->> 'run_id', run_date;
    if unfinished then
        if octet_length(current_setting('dagstop.runs', true)) > 4000 then
            perform dagstop.put_notes_aside();
        end if;
        perform set_config('dagstop.runs', concat(
            nullif(current_setting('dagstop.runs', true), '') || E'\n',
            json_build_object(
                'dag_id', before ->> 'dag_id', 'run_id', before ->> 'run_id', 'logical_date', run_date,
                'state_before', old.state, 'state_after', 'deleted'
            )
        ), true);
    end if;
    return null;
exception
    when serialization_failure then
        raise;  -- the client is meant to try again, and a transaction that goes on is doomed
    when others or assert_failure then
        begin
            before := to_jsonb(old);
            draft := dagstop.draft_of(tg_table_schema) || jsonb_build_object(
                'kind', 'run', 'dag_id', old.dag_id, 'run_id', before -> 'run_id',
                'logical_date', coalesce(before -> 'logical_date', before -> 'execution_date'),
                'state_before', old.state, 'state_after', 'deleted'
            );
            perform dagstop.leave_unwritten(
                'order_deleted_run', sqlstate, sqlerrm, tg_relid, array[draft],
                dagstop.running_now(array[draft], tg_table_schema)
            );
        exception
            when others then
                raise warning 'dagstop: order_deleted_run failed: %', sqlerrm;
        end;
        return null;
end
$_$;


--
-- Name: FUNCTION order_deleted_run(); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.order_deleted_run() IS 'Trigger function: writes the stop order of a run that was deleted and left task instances unfinished, if setting also_stop_on says so.';


--
-- Name: order_deleted_task(); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.order_deleted_task() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    before jsonb;
    run text;
    run_date timestamptz;
    is_there boolean;
    hands_off text;
    of_run boolean := false;
    of_order bigint;
begin
    perform dagstop.reach_own('access share', 'setting');
    if not dagstop.stops_on('deleted') then
        return null;
    end if;
    perform dagstop.reach_own('row exclusive', 'stop_order', 'stop_target');
    before := to_jsonb(old);
    run := before ->> 'run_id';
    run_date := before ->> 'execution_date';
    begin
        hands_off := dagstop.hands_off_of(before ->> 'dag_id');
        select r.run, r.run_date, r.is_there into run, run_date, is_there from dagstop.run_of(tg_table_schema, before) as r;
        of_run := not is_there and dagstop.run_is_gone(tg_table_schema, before);
    exception
        when others then
            -- an order that lacks its date or run is better than none
            perform dagstop.record_fault(
                'order_deleted_task', sqlstate, sqlerrm,
                jsonb_build_object('dag_id', before ->> 'dag_id', 'task_id', before ->> 'task_id')
            );
    end;
    if of_run then
        -- one order for all task instances that went with their run
        of_order := dagstop.order_of_deleted(before ->> 'dag_id', run, run_date);
    end if;
    if of_order is null then
        insert into dagstop.stop_order
            (kind, airflow_schema, dag_id, run_id, logical_date, task_id, map_index, cascaded, state_before,
             state_after, hands_off)
        values
            (case when of_run then 'run' else 'task' end, tg_table_schema, before ->> 'dag_id', run, run_date,
             case when not of_run then before ->> 'task_id' end,
             case when not of_run then coalesce((before ->> 'map_index')::integer, -1) end,
             true, case when not of_run then old.state end, 'deleted', hands_off)
        returning id into of_order;
        perform dagstop.ring();
    end if;
    if hands_off is null then
        perform dagstop.add_target(of_order, before, clock_timestamp());
    end if;
    return null;
exception
    when serialization_failure then
        raise;  -- the client is meant to try again, and a transaction that goes on is doomed
    when others or assert_failure then
        begin
            before := to_jsonb(old);
            perform dagstop.leave_unwritten(
                'order_deleted_task', sqlstate, sqlerrm, tg_relid,
                array[dagstop.task_draft(tg_table_schema, before, 'deleted', false)],
                array[jsonb_build_array(dagstop.identity_of(before, null))]
            );
        exception
            when others then
                raise warning 'dagstop: order_deleted_task failed: %', sqlerrm;
        end;
        return null;
end
$$;


--
-- Name: FUNCTION order_deleted_task(); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.order_deleted_task() IS 'Trigger function: writes the stop order of a task instance that was deleted while it ran, or of its run if that was deleted too, if setting also_stop_on says so.';


--
-- Name: order_fencing_run(bigint[]); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.order_fencing_run(order_ids bigint[]) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
declare
    oldest timestamptz := clock_timestamp() - dagstop.seconds_of('fence_seconds');
begin
    -- also a closed one: nobody but a dying task writes so
    return (
        select max(o.id) from dagstop.stop_order o
        where o.id = any (order_ids) and o.hands_off is null and (o.created_at > oldest) is true
    );
end
$$;


--
-- Name: FUNCTION order_fencing_run(order_ids bigint[]); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.order_fencing_run(order_ids bigint[]) IS 'The latest of these orders that keeps a run from being written back.';


--
-- Name: order_of_deleted(text, text, timestamp with time zone); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.order_of_deleted(dag text, run text, run_date timestamp with time zone) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
declare
    -- as in dagstop.orders_of_task
    of_dag text collate "default" := dag;
    of_run text collate "default" := run;
begin
    if run is null then
        return (
            select o.id from dagstop.stop_order o
            where o.dag_id = of_dag and o.run_id is null and o.task_id is null and o.logical_date = run_date
                and o.state_after = 'deleted' and o.txid = txid_current_if_assigned()
        );
    end if;
    return (
        select o.id from dagstop.stop_order o
        where o.dag_id = of_dag and o.run_id = of_run and o.task_id is null
            and o.state_after = 'deleted' and o.txid = txid_current_if_assigned()
    );
end
$$;


--
-- Name: FUNCTION order_of_deleted(dag text, run text, run_date timestamp with time zone); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.order_of_deleted(dag text, run text, run_date timestamp with time zone) IS 'The order that this transaction wrote for a run which it deleted.';


--
-- Name: order_run(); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.order_run() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    noted text := nullif(current_setting('dagstop.runs', true), '');
    item jsonb;
begin
    if current_setting('dagstop.put_back', true) = new.id::text then
        return null;  -- it failed before: see fence_run
    end if;
    -- no function of ours but in the rare case: this runs once per row
    if octet_length(noted) > 4000 then
        perform dagstop.put_notes_aside();
        noted := null;
    end if;
    perform set_config('dagstop.runs', concat(noted || E'\n', json_build_object(
        'place', new.ctid, 'dag_id', new.dag_id, 'run_id', new.run_id, 'state_before', old.state,
        -- a run of Airflow 1.10 may have no run_id: then it is found by its date only. Of all others the cascade has
        -- the date: its column has two names
        'logical_date', case when new.run_id is null then to_jsonb(new) ->> 'execution_date' end,
        -- `dagstop stop` sets the end as Airflow does
        'self_reported', new.end_date is distinct from old.end_date and current_setting('application_name') <> 'dagstop stop'
    )), true);
    return null;
exception
    when serialization_failure then
        raise;  -- the client is meant to try again, and a transaction that goes on is doomed
    when others or assert_failure then
        begin
            item := dagstop.draft_of(tg_table_schema) || jsonb_build_object(
                'kind', 'run', 'dag_id', new.dag_id, 'run_id', new.run_id, 'logical_date', to_jsonb(new) -> 'execution_date',
                'state_before', old.state, 'state_after', 'failed'
            );
            perform dagstop.leave_unwritten(
                'order_run', sqlstate, sqlerrm, tg_relid, array[item], dagstop.running_now(array[item], tg_table_schema)
            );
        exception
            when others then
                raise warning 'dagstop: order_run failed: %', sqlerrm;
        end;
        return null;
end
$$;


--
-- Name: FUNCTION order_run(); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.order_run() IS 'Trigger function: notes a run that turned failed, for the stop order that is written at the end of the statement.';


--
-- Name: order_task(); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.order_task() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    before jsonb;
    run text;
    run_date timestamptz;
    index integer;
    hands_off text;
    -- `dagstop stop` sets the end as Airflow does, and is surely not the task's own process
    by_itself constant boolean := new.end_date is distinct from old.end_date
        and current_setting('application_name') <> 'dagstop stop';
    new_order bigint;
begin
    if old.state = new.state then
        return null;
    end if;
    -- who turns to another state while nothing of it runs has nothing to stop
    if new.state <> 'failed' and coalesce(old.state, '') not in ('running', 'restarting', 'shutdown') then
        return null;
    end if;
    perform dagstop.reach_own('access share', 'setting');
    if new.state <> 'failed' and not dagstop.stops_on(new.state) then
        return null;
    end if;
    before := to_jsonb(old);
    run := before ->> 'run_id';
    run_date := before ->> 'execution_date';
    index := coalesce((before ->> 'map_index')::integer, -1);
    begin
        hands_off := dagstop.hands_off_of(before ->> 'dag_id');
        select r.run, r.run_date into run, run_date from dagstop.run_of(tg_table_schema, before) as r;
    exception
        when others then
            -- an order that lacks its date or run is better than none
            perform dagstop.record_fault(
                'order_task', sqlstate, sqlerrm, jsonb_build_object('dag_id', before ->> 'dag_id', 'task_id', before ->> 'task_id')
            );
    end;
    perform dagstop.reach_own('row exclusive', 'stop_order', 'stop_target');
    insert into dagstop.stop_order
        (kind, airflow_schema, dag_id, run_id, logical_date, task_id, map_index, self_reported, cascaded, state_before,
         state_after, hands_off)
    values
        ('task', tg_table_schema, before ->> 'dag_id', run, run_date, before ->> 'task_id', index,
         by_itself, true, before ->> 'state', new.state, hands_off)
    returning id into new_order;
    if hands_off is not null then
        perform dagstop.ring();
        return null;  -- no target, so no fence
    end if;
    perform dagstop.add_target(new_order, before, null);
    perform dagstop.ring();
    if new.state = 'failed' and not before ? 'id' and new.end_date is null then
        begin
            -- without an end, a success that the dying process writes looks like a person's (is_late_success, 2.3 on), and
            -- a retry set by hand stops 1.10's scheduling of all that its file defines (end_date + retry_delay)
            perform dagstop.set_again(
                tg_table_schema, before,
                'end_date = pg_catalog.clock_timestamp(), duration = coalesce('
                    'extract(epoch from pg_catalog.clock_timestamp() operator(pg_catalog.-) t.start_date), t.duration)'
            );
        exception
            when others then
                perform dagstop.record_fault(
                    'order_task', sqlstate, sqlerrm, jsonb_build_object('dag_id', before ->> 'dag_id', 'task_id', before ->> 'task_id')
                );
        end;
    end if;
    return null;
exception
    when serialization_failure then
        raise;  -- the client is meant to try again, and a transaction that goes on is doomed
    when others or assert_failure then
        begin
            before := to_jsonb(old);
            perform dagstop.leave_unwritten(
                'order_task', sqlstate, sqlerrm, tg_relid,
                array[dagstop.task_draft(tg_table_schema, before, new.state, by_itself)],
                array[jsonb_build_array(dagstop.identity_of(before, null))]
            );
        exception
            when others then
                raise warning 'dagstop: order_task failed: %', sqlerrm;
        end;
        return null;
end
$$;


--
-- Name: FUNCTION order_task(); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.order_task() IS 'Trigger function: writes the stop order of a task instance that was failed directly, or changed to a state that setting also_stop_on names.';


--
-- Name: orders_of_task(text, jsonb, text, text); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.orders_of_task(schema_name text, task_instance jsonb, run text, turned_to text) RETURNS bigint[]
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
declare
    -- a variable has the collation of the arguments, and those may come from a name, or from Airflow's columns:
    -- with another collation than its own an index is of no use
    dag text collate "default" := task_instance ->> 'dag_id';
    task text collate "default" := task_instance ->> 'task_id';
    of_run text collate "default" := run;
    index integer := coalesce((task_instance ->> 'map_index')::integer, -1);
    run_date timestamptz := task_instance ->> 'execution_date';
    oldest timestamptz := clock_timestamp() - dagstop.seconds_of('order_seconds');
begin
    -- those of the run, and those of this task instance: the others of the run may be thousands.
    -- "is true": no index answers that, so the one on the orders' age is not taken for the run's
    if run is null then
        return array(
            select o.id from dagstop.stop_order o
            where o.dag_id = dag and o.run_id is null and o.task_id is null
                and o.logical_date = run_date and o.airflow_schema = schema_name and o.state_after = turned_to
                and (o.created_at > oldest) is true
            union all
            select o.id from dagstop.stop_order o
            where o.dag_id = dag and o.run_id is null and o.task_id = task and o.map_index = index
                and o.logical_date = run_date and o.airflow_schema = schema_name and o.state_after = turned_to
                and (o.created_at > oldest) is true
        );
    end if;
    return array(
        select o.id from dagstop.stop_order o
        where o.dag_id = dag and o.run_id = of_run and o.task_id is null
            and o.airflow_schema = schema_name and o.state_after = turned_to and (o.created_at > oldest) is true
        union all
        select o.id from dagstop.stop_order o
        where o.dag_id = dag and o.run_id = of_run and o.task_id = task and o.map_index = index
            and o.airflow_schema = schema_name and o.state_after = turned_to and (o.created_at > oldest) is true
    );
end
$$;


--
-- Name: FUNCTION orders_of_task(schema_name text, task_instance jsonb, run text, turned_to text); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.orders_of_task(schema_name text, task_instance jsonb, run text, turned_to text) IS 'The orders about a row of task_instance, or about its run, that a change to this state ordered, as long as a host may carry them out.';


--
-- Name: patterns_in(text); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.patterns_in(list text) RETURNS text[]
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    return array(select btrim(p, E' \t\r') from regexp_split_to_table(list, E'[,\n]') as p where btrim(p, E' \t\r') <> '');
end
$$;


--
-- Name: FUNCTION patterns_in(list text); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.patterns_in(list text) IS 'The items of a list with commas or new lines between them.';


--
-- Name: pending(); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.pending() RETURNS bigint
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
begin
    return (
        select count(*) from (
            select from dagstop.stop_order o
            where not o.cascaded and o.kind = 'run'
                and o.created_at > (select clock_timestamp() - dagstop.seconds_of('order_seconds'))
            order by o.created_at
            limit 1000
        ) as p
    ) + (
        select count(*) from dagstop.refused_write w
        where w.pending and w.at > (select clock_timestamp() - interval '1 minute')
    ) + (
        select count(*) from (
            select from dagstop.unwritten_order u
            -- what could not be made good a moment ago hurries nobody
            where u.id > 0 and coalesce(u.tried_at < clock_timestamp() - interval '10 seconds', true)
            limit 1000
        ) as p
    );
end
$$;


--
-- Name: FUNCTION pending(); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.pending() IS 'How many orders are yet to be written or cascaded, and refused writes to be reverted; the chores do all of it.';


--
-- Name: present_rows(dagstop.stop_order[]); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.present_rows(orders dagstop.stop_order[]) RETURNS TABLE(number bigint, present jsonb)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'on'
    AS $$
#variable_conflict use_column
begin
    if cardinality(orders) > 10 then
        -- the plan for one order would search 1.10's table, which has no index for that, once for each of them
        perform set_config('plan_cache_mode', 'force_custom_plan', true);
    end if;
    perform dagstop.reach('public', 'task_instance', 'access share');
    if 'run_id' = any (dagstop.columns_of('public', 'task_instance')) then
        return query 
        select k.number, jsonb_agg(jsonb_build_object(
            'task_id', t.task_id, 'map_index', own.map_index, 'try_number', t.try_number, 'job_id', own.job_id,
            'ti_id', own.id, 'hostname', t.hostname, 'pid', t.pid, 'operator', t.operator, 'state', t.state,
            'started_at', t.start_date, 'ended_at', t.end_date) order by t.task_id, own.map_index)
        from (
            select
                o.id as number, o.dag_id as dag, o.run_id, o.logical_date as execution_date, o.task_id as task,
                o.map_index as index
            from unnest(orders) as o
        ) as k
        join public.task_instance t on t.dag_id = k.dag and t.run_id = k.run_id
        cross join (values (-1, null::bigint, null::text)) as lacking (map_index, job_id, id)
        cross join lateral (
            select
                (select map_index from (select t.*) as it) as map_index,
                (select job_id::bigint from (select t.*) as it) as job_id,
                (select id::text from (select t.*) as it) as id
        ) as own
        where (k.task is null or t.task_id = k.task) and (k.index is null or own.map_index = k.index)
        group by k.number
    ;
    else
        return query 
        select k.number, jsonb_agg(jsonb_build_object(
            'task_id', t.task_id, 'map_index', own.map_index, 'try_number', t.try_number, 'job_id', own.job_id,
            'ti_id', own.id, 'hostname', t.hostname, 'pid', t.pid, 'operator', t.operator, 'state', t.state,
            'started_at', t.start_date, 'ended_at', t.end_date) order by t.task_id, own.map_index)
        from (
            select
                o.id as number, o.dag_id as dag, o.run_id, o.logical_date as execution_date, o.task_id as task,
                o.map_index as index
            from unnest(orders) as o
        ) as k
        join public.task_instance t on t.dag_id = k.dag and t.execution_date = k.execution_date
        cross join (values (-1, null::bigint, null::text)) as lacking (map_index, job_id, id)
        cross join lateral (
            select
                (select map_index from (select t.*) as it) as map_index,
                (select job_id::bigint from (select t.*) as it) as job_id,
                (select id::text from (select t.*) as it) as id
        ) as own
        where (k.task is null or t.task_id = k.task) and (k.index is null or own.map_index = k.index)
        group by k.number
    ;
    end if;
end
$$;


--
-- Name: FUNCTION present_rows(orders dagstop.stop_order[]); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.present_rows(orders dagstop.stop_order[]) IS 'The present rows of task_instance for each order, as one JSON array; no row for an order without any. Only for orders about the Airflow in the schema that setting airflow_schema names.';


--
-- Name: protected_dags(); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.protected_dags() RETURNS text[]
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    -- * and ? become those of LIKE, what LIKE would take for its own is escaped. E'': a plain string with a
    -- backslash means another with standard_conforming_strings = off
    return array(
        select translate(regexp_replace(p, E'([\\\\%_])', E'\\\\\\1', 'g'), '*?', '%_')
        from unnest(dagstop.patterns_in(dagstop.setting_of('protected'))) as p
    );
end
$$;


--
-- Name: FUNCTION protected_dags(); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.protected_dags() IS 'The DAGs that are never stopped, as patterns of LIKE.';


--
-- Name: prune(); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.prune() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    -- never what a host may still carry out, of which a trigger may hold a row
    oldest timestamptz := clock_timestamp()
        - greatest(dagstop.seconds_of('keep_seconds'), dagstop.seconds_of('order_seconds'));
    ids bigint[] := array(
        select o.id from dagstop.stop_order o where o.created_at < oldest order by o.created_at limit 500
        for update skip locked
    );
begin
    if ids <> '{}' then
        delete from dagstop.stop_target t where t.order_id = any (ids);
        delete from dagstop.refused_write w where w.order_id = any (ids);
        delete from dagstop.stop_order o where o.id = any (ids);
    end if;
    delete from dagstop.fault f
    where f.id = any (array(
        select x.id from dagstop.fault x where x.at < oldest order by x.at limit 500 for update skip locked
    ));
    delete from dagstop.host_role h
    where h.host = any (array(select x.host from dagstop.host_role x where x.seen_on < oldest for update skip locked));
    delete from dagstop.listener l
    where l.host = any (array(select x.host from dagstop.listener x where x.seen_at < oldest for update skip locked));
end
$$;


--
-- Name: FUNCTION prune(); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.prune() IS 'Deletes everything older than keep_seconds, including listeners not seen since; at most 500 orders and 500 faults per call.';


--
-- Name: put_back_left(); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.put_back_left() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    ids constant bigint[] := dagstop.left_to_put_back();
    refused record;
    present jsonb;
begin
    -- of releases whose rows refer to their run: those have run_id
    for refused in
        select w.id, o.airflow_schema, to_jsonb(w) as task_instance, w.of_try, o.state_after
        from dagstop.refused_write w
        join dagstop.stop_order o on o.id = w.order_id
        where w.id = any (ids) and w.pending
        order by w.id
        for update of w skip locked
    loop
        begin
            perform dagstop.reach(refused.airflow_schema, 'task_instance', 'row exclusive');
            present := dagstop.row_as_it_is(refused.airflow_schema, refused.task_instance, 'skip locked');
            continue when present is null;  -- somebody has it: later
            -- what was cleared or set since is not ours to put back
            if dagstop.try_of(present) is distinct from refused.of_try
                or dagstop.set_again(refused.airflow_schema, present, format('state = %L', refused.state_after))
            then
                update dagstop.refused_write w set pending = false where w.id = refused.id;
            end if;
        exception
            when lock_not_available then
                return;  -- later: a migration has the table
            when others then
                perform dagstop.record_fault(
                    'put_back_left', sqlstate, sqlerrm, jsonb_build_object('refused_write', refused.id, 'repeats', true)
                );
        end;
    end loop;
end
$$;


--
-- Name: FUNCTION put_back_left(); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.put_back_left() IS 'Reverts the writes that the fence had to leave because another session had locked the run.';


--
-- Name: put_notes_aside(); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.put_notes_aside() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    aside text := current_setting('dagstop.runs_aside', true);
    filled integer;
begin
    -- before Postgres 16 each setting more makes the end of each function slower
    if octet_length(aside) > 60000 then
        filled := coalesce(nullif(current_setting('dagstop.runs_parts', true), ''), '0')::integer + 1;
        perform set_config('dagstop.runs_' || filled, aside, true);
        perform set_config('dagstop.runs_parts', filled::text, true);
        aside := null;
    end if;
    perform set_config('dagstop.runs_aside', concat(nullif(aside, '') || E'\n', current_setting('dagstop.runs')), true);
    perform set_config('dagstop.runs', '', true);
end
$$;


--
-- Name: FUNCTION put_notes_aside(); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.put_notes_aside() IS 'Keeps the list of noted runs short, since each note copies it: entries move to a longer list, and from there to numbered parts.';


--
-- Name: reach(text, text, text); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.reach(schema_name text, table_name text, mode text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION reach(schema_name text, table_name text, mode text); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.reach(schema_name text, table_name text, mode text) IS 'Takes a lock on an Airflow table by trying as long as may_wait allows, never by waiting: a migration may hold it and want what our transaction holds, and the deadlock would end the migration. Raises lock_not_available.';


--
-- Name: reach_own(text, text[]); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.reach_own(mode text, VARIADIC tables text[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION reach_own(mode text, VARIADIC tables text[]); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.reach_own(mode text, VARIADIC tables text[]) IS 'Like reach, for dagstop''s own tables: a DBA may have locked one to build an index or for VACUUM FULL. Each trigger function asks for the tables it is about to use; otherwise its statement would wait.';


--
-- Name: reach_references(text, text, jsonb); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.reach_references(schema_name text, table_name text, present jsonb) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION reach_references(schema_name text, table_name text, present jsonb); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.reach_references(schema_name text, table_name text, present jsonb) IS 'Takes the locks that Postgres'' foreign key check of a row of an Airflow table will take (a row written twice in one transaction is checked each time), or raises lock_not_available. The check itself would wait for a scheduler that has the run and may want this row.';


--
-- Name: record_fault(text, text, text, jsonb); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.record_fault(place text, code text, message text, context jsonb) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
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


--
-- Name: FUNCTION record_fault(place text, code text, message text, context jsonb); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.record_fault(place text, code text, message text, context jsonb) IS 'Records an error and warns; once per transaction, and a context with "repeats" once per ten minutes.';


--
-- Name: references_of(text, text); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.references_of(schema_name text, table_name text) RETURNS TABLE(referenced regclass, ours text[], theirs text[])
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION references_of(schema_name text, table_name text); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.references_of(schema_name text, table_name text) IS 'The foreign keys of an Airflow table: to which table, by which columns of both.';


--
-- Name: release(bigint[], jsonb, timestamp with time zone); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.release(order_ids bigint[], task_instance jsonb, at timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
declare
    task text collate "default" := task_instance ->> 'task_id';
    index integer := coalesce((task_instance ->> 'map_index')::integer, -1);
begin
    update dagstop.stop_target t
    set released_at = release.at
    where t.order_id = any (order_ids) and t.task_id = task and t.map_index = index and t.released_at is null;
end
$$;


--
-- Name: FUNCTION release(order_ids bigint[], task_instance jsonb, at timestamp with time zone); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.release(order_ids bigint[], task_instance jsonb, at timestamp with time zone) IS 'Notes that a row of task_instance was taken out of the state that stopped it.';


--
-- Name: require_short(text, text, integer); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.require_short(what text, value text, most integer) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if length(value) > most then
        raise exception 'dagstop: % has % characters, % at most are taken', what, length(value), most
            using errcode = 'program_limit_exceeded';
    end if;
end
$$;


--
-- Name: FUNCTION require_short(what text, value text, most integer); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.require_short(what text, value text, most integer) IS 'Raises if a text from a listener is too long.';


--
-- Name: require_small(text, jsonb, integer); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.require_small(what text, value jsonb, most integer) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if pg_column_size(value) > most then
        raise exception 'dagstop: % has % bytes, % at most are taken', what, pg_column_size(value), most
            using errcode = 'program_limit_exceeded';
    end if;
end
$$;


--
-- Name: FUNCTION require_small(what text, value jsonb, most integer); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.require_small(what text, value jsonb, most integer) IS 'Raises if a listener''s detail is too large.';


--
-- Name: retire(text, uuid); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.retire(host text, listener_id uuid) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '1s'
    AS $$
#variable_conflict use_column
begin
    perform dagstop.speak_for(retire.host);
    delete from dagstop.listener l where l.host = retire.host and l.listener_id = retire.listener_id;
end
$$;


--
-- Name: FUNCTION retire(host text, listener_id uuid); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.retire(host text, listener_id uuid) IS 'Deletes the row of a listener that ends cleanly, unless a newer listener of that host has written its own.';


--
-- Name: ring(); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.ring() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    -- a full queue would fail Airflow's commit, where nothing can catch it; and Postgres prepares no transaction
    -- (PREPARE TRANSACTION) that notifies
    if pg_notification_queue_usage() < 0.5 and not dagstop.asked_for('quiet') then
        perform pg_notify('dagstop', '');
    end if;
end
$$;


--
-- Name: FUNCTION ring(); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.ring() IS 'Wakes the listeners at commit, once per transaction, unless the transaction has set dagstop.quiet to its number.';


--
-- Name: row_as_it_is(text, jsonb, text); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.row_as_it_is(schema_name text, task_instance jsonb, if_held text) RETURNS jsonb
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    SET extra_float_digits TO '3'
    AS $_$
declare
    present jsonb;
begin
    execute format(
        $sql$
        select to_jsonb(t) from %I.task_instance t
        where t.dag_id = $1 and %s and t.task_id = $4 and coalesce((to_jsonb(t) ->> 'map_index')::integer, -1) = $5
        for no key update of t %s
        $sql$,
        schema_name, case when task_instance ? 'run_id' then 't.run_id = $2' else 't.execution_date = $3' end, if_held
    ) into present using
        task_instance ->> 'dag_id', task_instance ->> 'run_id', (task_instance ->> 'execution_date')::timestamptz,
        task_instance ->> 'task_id', coalesce((task_instance ->> 'map_index')::integer, -1);
    return present;
end
$_$;


--
-- Name: FUNCTION row_as_it_is(schema_name text, task_instance jsonb, if_held text); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.row_as_it_is(schema_name text, task_instance jsonb, if_held text) IS 'Locks a row of task_instance and returns it; null if it is gone. If another session holds it: null with skip locked; nowait raises lock_not_available.';


--
-- Name: run_id_of(text, jsonb); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.run_id_of(schema_name text, task_instance jsonb) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    run text := task_instance ->> 'run_id';
begin
    if not task_instance ? 'run_id' then
        perform dagstop.reach(schema_name, 'dag_run', 'access share');
        execute format('select run_id from %I.dag_run where dag_id = $1 and execution_date = $2', schema_name)
            into run using task_instance ->> 'dag_id', (task_instance ->> 'execution_date')::timestamptz;
    end if;
    return run;
end
$_$;


--
-- Name: FUNCTION run_id_of(schema_name text, task_instance jsonb); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.run_id_of(schema_name text, task_instance jsonb) IS 'The run_id of the run that a row of task_instance belongs to; null where it has none.';


--
-- Name: run_is_gone(text, jsonb); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.run_is_gone(schema_name text, task_instance jsonb) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    rest boolean;
begin
    execute format(
        'select exists (select from %I.task_instance t where t.dag_id = $1 and %s)',
        schema_name,
        case when task_instance ? 'run_id' then 't.run_id = $2' else 't.execution_date = $3' end
    ) into rest using
        task_instance ->> 'dag_id', task_instance ->> 'run_id', (task_instance ->> 'execution_date')::timestamptz;
    return not rest;
end
$_$;


--
-- Name: FUNCTION run_is_gone(schema_name text, task_instance jsonb); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.run_is_gone(schema_name text, task_instance jsonb) IS 'True if no task instance is left of the run that a deleted one belonged to.';


--
-- Name: run_named(text, text, text, timestamp with time zone); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.run_named(schema_name text, dag text, run text, date timestamp with time zone, OUT run_id text, OUT run_date timestamp with time zone) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    date_column constant text := dagstop.date_column_of(schema_name);
begin
    execute format(
        'select r.run_id, r.%1$I from %2$I.dag_run r where r.dag_id = $1 and %3$s', date_column, schema_name,
        case when run is null then format('r.%I = $3', date_column) else 'r.run_id = $2' end
    ) into run_id, run_date using dag, run, date;
end
$_$;


--
-- Name: FUNCTION run_named(schema_name text, dag text, run text, date timestamp with time zone, OUT run_id text, OUT run_date timestamp with time zone); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.run_named(schema_name text, dag text, run text, date timestamp with time zone, OUT run_id text, OUT run_date timestamp with time zone) IS 'The run_id and the date of a run of which a draft knows only one.';


--
-- Name: run_of(text, jsonb); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.run_of(schema_name text, task_instance jsonb, OUT run text, OUT run_date timestamp with time zone, OUT is_there boolean) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
begin
    run := task_instance ->> 'run_id';
    run_date := task_instance ->> 'execution_date';
    perform dagstop.reach(schema_name, 'dag_run', 'access share');
    if task_instance ? 'run_id' then
        execute format(
            'select %I, true from %I.dag_run where dag_id = $1 and run_id = $2',
            dagstop.date_column_of(schema_name), schema_name
        ) into run_date, is_there using task_instance ->> 'dag_id', run;
    else
        execute format(
            'select run_id, true from %I.dag_run where dag_id = $1 and execution_date = $2', schema_name
        ) into run, is_there using task_instance ->> 'dag_id', run_date;
    end if;
    is_there := coalesce(is_there, false);
end
$_$;


--
-- Name: FUNCTION run_of(schema_name text, task_instance jsonb, OUT run text, OUT run_date timestamp with time zone, OUT is_there boolean); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.run_of(schema_name text, task_instance jsonb, OUT run text, OUT run_date timestamp with time zone, OUT is_there boolean) IS 'The run_id and the date of the run that a row of task_instance belongs to, and whether that run exists.';


--
-- Name: rung_for(text, integer); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.rung_for(host text, max_orders integer) RETURNS bigint[]
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
begin
    return array(
        select o.id from dagstop.stop_order o
        where o.closed_at is null
            -- evaluated once: per order it would dominate the query on a busy day
            and o.created_at > (select clock_timestamp() - dagstop.seconds_of('order_seconds'))
            and not exists (
                select from dagstop.report r
                where r.order_id = o.id and r.host = rung_for.host and r.outcome is not null
            )
        order by o.created_at, o.id
        limit max_orders
    );
end
$$;


--
-- Name: FUNCTION rung_for(host text, max_orders integer); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.rung_for(host text, max_orders integer) IS 'What a notification may mean for a live host: its open orders. Closed ones, which a host that was away may not know, are left to its sweeps: there may be 20,000 of a day.';


--
-- Name: running_in_failed_runs(); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.running_in_failed_runs() RETURNS TABLE(dag_id text, run_id text, tasks bigint)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    schema_name text := dagstop.setting_of('airflow_schema');
begin
    begin
        perform dagstop.reach(schema_name, 'dag_run', 'access share');
        perform dagstop.reach(schema_name, 'task_instance', 'access share');
        return query execute format(
            $sql$
            select r.dag_id::text, r.run_id::text, count(*)
            from %1$I.task_instance t
            join %1$I.dag_run r on r.dag_id = t.dag_id and r.%2$I = t.%2$I
            where t.state = 'running' and r.state = 'failed'
            group by r.dag_id, r.run_id
            order by r.dag_id, r.run_id
            $sql$,
            schema_name,
            case when 'run_id' = any (dagstop.columns_of(schema_name, 'task_instance')) then 'run_id' else 'execution_date' end
        );
        raise sqlstate 'DSLET';  -- as in 13_orders_read.sql
    exception
        when sqlstate 'DSLET' then
            null;
    end;
end
$_$;


--
-- Name: FUNCTION running_in_failed_runs(); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.running_in_failed_runs() IS 'Failed runs in which Airflow says that tasks run, and how many: they failed before dagstop was installed or without firing its triggers, or somebody cleared a task and left the run failed.';


--
-- Name: running_now(jsonb[], text); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.running_now(runs jsonb[], schema_name text) RETURNS jsonb[]
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    targets jsonb[];
begin
    perform dagstop.reach(schema_name, 'task_instance', 'access share');
    execute format(
        $sql$
        select array_agg(found.targets order by i.number)
        from unnest($1) with ordinality as i (item, number)
        left join %1$I.dag_run r on r.dag_id = i.item ->> 'dag_id' and r.run_id = i.item ->> 'run_id'
        cross join lateral (
            select coalesce(jsonb_agg(dagstop.identity_of(to_jsonb(t), t.xmin::text)), '[]') as targets
            from %1$I.task_instance t
            where t.dag_id = i.item ->> 'dag_id' and %2$s
                and (
                    t.state is null or t.state <> all (array['success', 'failed', 'skipped', 'upstream_failed', 'removed'])
                    or (t.pid is not null and t.end_date > $2)
                )
        ) as found
        $sql$,
        schema_name,
        case when 'run_id' = any (dagstop.columns_of(schema_name, 'task_instance')) then $sql$t.run_id = i.item ->> 'run_id'$sql$
            else $sql$t.execution_date = coalesce((i.item ->> 'logical_date')::timestamptz, r.execution_date)$sql$ end
    ) into targets using runs, clock_timestamp() - interval '10 minutes';
    return targets;
exception
    when others then
        return array_fill(null::jsonb, array[cardinality(runs)]);  -- a draft that lacks them is better than none
end
$_$;


--
-- Name: FUNCTION running_now(runs jsonb[], schema_name text); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.running_now(runs jsonb[], schema_name text) IS 'For each of these runs, its task instances that are unfinished or ended a moment ago, for a draft.';


--
-- Name: same_try(jsonb, jsonb, text); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.same_try(kept jsonb, present jsonb, version text) RETURNS boolean
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select coalesce(
        -- nobody has touched the row
        kept ->> 'version' = version
        or case
            -- to be begun again, or about to be
            when coalesce(present ->> 'state', '') in ('', 'scheduled', 'restarting') then false
            when present ? 'id' then
                kept -> 'id' = present -> 'id'
                and kept ->> 'state' in ('running', 'queued', 'deferred', 'up_for_reschedule', 'awaiting_input')
            when present ->> 'state' = 'queued' then
                kept ->> 'state' = 'queued' and kept ->> 'queued_dttm' = present ->> 'queued_dttm'
            -- what was cleared keeps its start until it begins again
            else kept ->> 'start_date' = present ->> 'start_date' and kept -> 'job_id' = present -> 'job_id'
                and kept ->> 'state' not in ('scheduled', 'queued')
        end,
        false
    )
$$;


--
-- Name: FUNCTION same_try(kept jsonb, present jsonb, version text); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.same_try(kept jsonb, present jsonb, version text) IS 'True if a row of task_instance certainly belongs to the try that a draft has kept; false in doubt.';


--
-- Name: seconds_of(text, integer); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.seconds_of(setting_name text, fallback integer DEFAULT NULL::integer) RETURNS interval
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
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
$_$;


--
-- Name: FUNCTION seconds_of(setting_name text, fallback integer); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.seconds_of(setting_name text, fallback integer) IS 'A setting in seconds as an interval; its default where it has no row, or no whole number. The second argument is ignored: listeners of 0.1.0 give one.';


--
-- Name: set_again(text, jsonb, text); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.set_again(schema_name text, present jsonb, assignments text) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
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
$_$;


--
-- Name: FUNCTION set_again(schema_name text, present jsonb, assignments text); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.set_again(schema_name text, present jsonb, assignments text) IS 'Updates a row of task_instance or dag_run that this transaction has already updated (names and operators in the assignments are qualified); false if it backed off because another session has locked what the row refers to.';


--
-- Name: setting_of(text, text); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.setting_of(setting_name text, fallback text DEFAULT NULL::text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    found text := (select s.value from dagstop.setting s where s.name = setting_name);
begin
    if found is null then  -- in a query of its own: triggers wait for the other
        found := (select k.value from dagstop.known_settings() k where k.name = setting_name);
    end if;
    return found;
end
$$;


--
-- Name: FUNCTION setting_of(setting_name text, fallback text); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.setting_of(setting_name text, fallback text) IS 'The value of a setting, or its default where it has no row. The second argument is ignored: listeners of 0.1.0 give one.';


--
-- Name: speak_for(text); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.speak_for(host text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
declare
    holder oid;
begin
    if not exists (select from dagstop.host_role h where h.host = speak_for.host) then
        if (select count(*) from dagstop.host_role h where h.role_name = session_user) >= 10000 then
            raise exception 'dagstop.speak_for: role % speaks for 10000 hosts, no more are taken', session_user
                using errcode = 'program_limit_exceeded',
                    hint = 'delete from dagstop.host_role what is gone';
        end if;
        insert into dagstop.host_role (host) values (speak_for.host) on conflict do nothing;
    end if;
    update dagstop.host_role h
    set seen_on = current_date
    where h.host = any (array(
        select x.host from dagstop.host_role x
        where x.host = speak_for.host and x.seen_on < current_date and x.role_name = session_user
        for update skip locked
    ));
    select r.oid into holder
    from dagstop.host_role h
    join pg_roles r on r.rolname = h.role_name
    where h.host = speak_for.host;
    -- a role that is gone holds nothing; the owner may write the tables themselves anyhow
    if holder is null or pg_has_role(session_user, holder, 'member') or pg_has_role(
        session_user, (select c.relowner from pg_class c where c.oid = 'dagstop.host_role'::regclass), 'member'
    ) then
        return;
    end if;
    raise exception 'dagstop.speak_for: host % belongs to the listener of role %', quote_literal(host), pg_get_userbyid(holder)
        using errcode = 'insufficient_privilege',
            hint = format('log in as that role, or delete from dagstop.host_role where host = %L', speak_for.host);
end
$$;


--
-- Name: FUNCTION speak_for(host text); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.speak_for(host text) IS 'Raises unless the session''s login role may report for a host: the first that did, its members, and the owner of dagstop.';


--
-- Name: stop_again(text, text); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.stop_again(of_dag text, of_run text) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION stop_again(of_dag text, of_run text); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.stop_again(of_dag text, of_run text) IS 'Orders a stop of a run that has failed already (before dagstop was installed, say), and fails its unfinished task instances.';


--
-- Name: stops_on(text); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.stops_on(what text) RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    return what = 'failed' or what = any (dagstop.patterns_in(dagstop.setting_of('also_stop_on')));
end
$$;


--
-- Name: FUNCTION stops_on(what text); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.stops_on(what text) IS 'True if this state, or deleted, orders a stop.';


--
-- Name: swept_for(text, integer); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.swept_for(host text, max_orders integer) RETURNS bigint[]
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_custom_plan'
    AS $$
declare
    -- sooner than the others count it as dead
    alive timestamptz := clock_timestamp() - dagstop.seconds_of('live_seconds') / 2;
    young timestamptz := clock_timestamp() - dagstop.seconds_of('order_seconds');
    picked dagstop.stop_order[];
begin
    -- nothing is closed without the report of a listener that lives, or it says so
    if exists (select from dagstop.listener l where l.host = swept_for.host and l.caught_up and l.seen_at > alive) then
        return dagstop.rung_for(host, max_orders) || array(
            select o.id from dagstop.stop_order o
            where o.closed_without is not null and o.created_at > young and swept_for.host = any (o.closed_without)
                and not exists (
                    select from dagstop.report r
                    where r.order_id = o.id and r.host = swept_for.host and r.outcome is not null
                )
            order by o.created_at
            limit max_orders
        );
    end if;
    picked := array(
        select o from dagstop.stop_order o
        where o.created_at > young
            and not exists (
                select from dagstop.report r
                where r.order_id = o.id and r.host = swept_for.host and r.outcome is not null
            )
        order by o.created_at, o.id
        limit max_orders
    );
    if cardinality(picked) < max_orders and not exists (select from unnest(picked) as o where o.closed_at is not null) then
        update dagstop.listener l
        set caught_up = true
        where l.host = any (array(
            select x.host from dagstop.listener x
            where x.host = swept_for.host and x.seen_at > alive
            for update skip locked
        ));
    end if;
    return array(select o.id from unnest(picked) as o);
end
$$;


--
-- Name: FUNCTION swept_for(host text, max_orders integer); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.swept_for(host text, max_orders integer) IS 'The orders on which a host has no final report yet. Closed ones are searched until none of these is left, and again after the host was away.';


--
-- Name: take_hands_off(bigint[]); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.take_hands_off(order_ids bigint[]) RETURNS bigint[]
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION take_hands_off(order_ids bigint[]); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.take_hands_off(order_ids bigint[]) IS 'Marks the orders that the present settings exempt, so that nothing is cascaded for them, and returns them.';


--
-- Name: task_draft(text, jsonb, text, boolean); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.task_draft(schema_name text, before jsonb, state_after text, self_reported boolean) RETURNS jsonb
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    return dagstop.draft_of(schema_name) || jsonb_build_object(
        'kind', 'task', 'dag_id', before -> 'dag_id', 'run_id', before -> 'run_id', 'logical_date', before -> 'execution_date',
        'task_id', before -> 'task_id', 'map_index', coalesce((before ->> 'map_index')::integer, -1),
        'state_before', before -> 'state', 'state_after', state_after, 'self_reported', self_reported
    );
end
$$;


--
-- Name: FUNCTION task_draft(schema_name text, before jsonb, state_after text, self_reported boolean); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.task_draft(schema_name text, before jsonb, state_after text, self_reported boolean) IS 'The draft of an order about one task instance, from its row as it was.';


--
-- Name: task_hosts(); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.task_hosts() RETURNS TABLE(hostname text, tasks bigint)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    schema_name text := dagstop.setting_of('airflow_schema');
begin
    begin
        perform dagstop.reach(schema_name, 'task_instance', 'access share');
        -- running ones only: that column has an index on every release, the table may be huge
        return query execute format(
            $sql$
            select t.hostname::text, count(*) from %I.task_instance t
            where t.state = 'running' and coalesce(t.hostname, '') <> ''
            group by t.hostname
            $sql$, schema_name
        );
        raise sqlstate 'DSLET';  -- as in 13_orders_read.sql
    exception
        when sqlstate 'DSLET' then
            null;
    end;
end
$_$;


--
-- Name: FUNCTION task_hosts(); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.task_hosts() IS 'The hosts on which Airflow says that tasks run now, and how many.';


--
-- Name: task_states(text[], jsonb); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.task_states(ti_ids text[], keys jsonb) RETURNS TABLE(dag_id text, run_id text, logical_date timestamp with time zone, task_id text, map_index integer, ti_id text, state text, run_state text, try_number integer, job_id bigint, hostname text, pid integer)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
#variable_conflict use_column
declare
    schema_name text := dagstop.setting_of('airflow_schema');
    columns text[];
    date_column text;
    by_run boolean;
    with_uuid boolean;
begin
    begin
        perform dagstop.reach(schema_name, 'dag_run', 'access share');
        perform dagstop.reach(schema_name, 'task_instance', 'access share');
        columns := dagstop.columns_of(schema_name, 'task_instance');
        date_column := dagstop.date_column_of(schema_name);
        by_run := 'run_id' = any (columns);
        with_uuid := 'id' = any (columns);
        return query execute format(
            $sql$
            select t.dag_id::text, r.run_id::text, %4$s, t.task_id::text, %5$s, %6$s, t.state::text, r.state::text,
                t.try_number::integer, %7$s, t.hostname::text, t.pid::integer
            from (%2$s) as t
            left join %1$I.dag_run r on r.dag_id = t.dag_id and r.%3$I = t.%3$I
            $sql$,
            schema_name,
            case when by_run then format(
                $sql$
                select distinct on (i.dag_id, i.run_id, i.task_id %3$s) i.* from (
                    select i.* from (
                        select k.dag_id, coalesce(k.run_id, d.run_id) as run_id, k.task_id, k.map_index
                        from jsonb_to_recordset($2) as k (dag_id text, run_id text, logical_date timestamptz, task_id text, map_index integer)
                        left join %1$I.dag_run d on k.run_id is null and d.dag_id = k.dag_id and d.%2$I = k.logical_date
                    ) as k
                    join %1$I.task_instance i on i.dag_id = k.dag_id and i.run_id = k.run_id and i.task_id = k.task_id %4$s
                    %5$s
                ) as i
                $sql$,
                schema_name, date_column,
                case when 'map_index' = any (columns) then ', i.map_index' else '' end,
                case when 'map_index' = any (columns) then 'and i.map_index = coalesce(k.map_index, i.map_index)' else '' end,
                case when with_uuid then format('union all select i.* from %I.task_instance i where i.id = any ($1)', schema_name) else '' end
            ) else format(
                $sql$
                select distinct on (i.dag_id, i.execution_date, i.task_id) i.* from (
                    select k.dag_id, k.task_id, coalesce(k.logical_date, d.execution_date) as execution_date
                    from jsonb_to_recordset($2) as k (dag_id text, run_id text, logical_date timestamptz, task_id text)
                    left join %1$I.dag_run d on k.logical_date is null and d.dag_id = k.dag_id and d.run_id = k.run_id
                ) as k
                join %1$I.task_instance i
                    on i.dag_id = k.dag_id and i.execution_date = k.execution_date and i.task_id = k.task_id
                $sql$, schema_name) end,
            case when by_run then 'run_id' else 'execution_date' end,
            case when by_run then format('r.%I', date_column) else 't.execution_date' end,
            case when 'map_index' = any (columns) then 't.map_index::integer' else '-1' end,
            case when with_uuid then 't.id::text' else 'null::text' end,
            case when 'job_id' = any (columns) then 't.job_id::bigint' else 'null::bigint' end
        ) using
            -- a name on a command line that only looks like a uuid must not spoil the answer
            array(
                select u::uuid from unnest(ti_ids) as u
                where u ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
            ),
            coalesce(keys, '[]');
        raise sqlstate 'DSLET';
    exception
        when sqlstate 'DSLET' then
            null;
    end;
end
$_$;


--
-- Name: FUNCTION task_states(ti_ids text[], keys jsonb); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.task_states(ti_ids text[], keys jsonb) IS 'What the database says about task instances named by uuid or by dag, run (or date), task and map index; no row for those it does not know.';


--
-- Name: trigger_health(); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.trigger_health() RETURNS TABLE(table_name text, trigger_name text, status text, comment text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    airflow text := dagstop.setting_of('airflow_schema');
    checksum text := dagstop.setting_of('triggers_checksum');
begin
    return query
    select
        e.on_table, e.named,
        case
            when t.oid is null then 'missing'
            when t.tgenabled not in ('O', 'A') then 'disabled'
            when t.tgfoid is distinct from to_regprocedure(e.calls)::oid
                or d.description is null or right(d.description, length(checksum) + 1) <> checksum || ']' then 'outdated'
            else 'installed'
        end,
        d.description
    from (values
        ('dag_run', 'dagstop_order', 'dagstop.order_run()'),
        ('dag_run', 'dagstop_cascade', 'dagstop.cascade_statement()'),
        ('dag_run', 'dagstop_deleted', 'dagstop.order_deleted_run()'),
        ('dag_run', 'dagstop_fence', 'dagstop.fence_run()'),
        ('task_instance', 'dagstop_order', 'dagstop.order_task()'),
        ('task_instance', 'dagstop_fence', 'dagstop.fence()'),
        ('task_instance', 'dagstop_deleted', 'dagstop.order_deleted_task()')
    ) as e (on_table, named, calls)
    left join pg_trigger t
        on t.tgrelid = to_regclass(format('%I.%I', airflow, e.on_table)) and t.tgname = e.named and not t.tgisinternal
    left join pg_description d on d.objoid = t.oid and d.classoid = 'pg_trigger'::regclass and d.objsubid = 0;
end
$$;


--
-- Name: FUNCTION trigger_health(); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.trigger_health() IS 'dagstop''s triggers on Airflow''s tables: installed, missing, disabled, or outdated (another definition, or not dagstop''s).';


--
-- Name: try_of(jsonb); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.try_of(task_instance jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    -- a clear sets max_tries, or the id on 3.x; a try that has begun since has another start
    select jsonb_object_agg(c.key, c.value) from jsonb_each(task_instance) as c
    where c.key in ('state', 'try_number', 'max_tries', 'id', 'job_id', 'start_date', 'end_date')
$$;


--
-- Name: FUNCTION try_of(task_instance jsonb); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.try_of(task_instance jsonb) IS 'What of a row of task_instance differs between a try in some state and a later one in the same state.';


--
-- Name: waits_for(dagstop.stop_order); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.waits_for(for_order dagstop.stop_order) RETURNS text[]
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    alive constant interval := dagstop.seconds_of('live_seconds');
    young constant boolean := for_order.created_at > clock_timestamp() - alive - dagstop.seconds_of('settle_seconds');
begin
    return array(
        select l.host
        from dagstop.listener l
        left join dagstop.report r on r.order_id = for_order.id and r.host = l.host
        where l.seen_at > clock_timestamp() - alive and r.outcome is null and (young or r.order_id is not null)
        order by l.host
    );
end
$$;


--
-- Name: FUNCTION waits_for(for_order dagstop.stop_order); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.waits_for(for_order dagstop.stop_order) IS 'The live hosts that still owe a final report on an order. One that has said nothing of the order for live_seconds (after settle_seconds) is not waited for: otherwise any login that may send heartbeats could keep every order open.';


--
-- Name: would_be_order(text, text, text); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.would_be_order(of_dag text, of_run text, of_task text DEFAULT NULL::text) RETURNS TABLE(id bigint, kind text, airflow_schema text, dag_id text, run_id text, logical_date timestamp with time zone, task_id text, map_index integer, self_reported boolean, created_at timestamp with time zone, txid bigint, cascaded boolean, session_user_name text, application_name text, client_addr inet, backend_pid integer, state_before text, closed_at timestamp with time zone, db_now timestamp with time zone, settle_seconds integer, targets jsonb, present jsonb, hands_off text, grace_seconds integer, state_after text, finished_tasks text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    schema_name text := dagstop.setting_of('airflow_schema');
    run_date timestamptz;
    run_state text;
    known boolean;
    asked dagstop.stop_order;
    rows jsonb;
begin
    begin
        perform dagstop.reach(schema_name, 'dag_run', 'access share');
        execute format(
            'select r.%I, r.state, true from %I.dag_run r where r.dag_id = $1 and r.run_id = $2',
            dagstop.date_column_of(schema_name), schema_name
        ) into run_date, run_state, known using of_dag, of_run;
        asked.dag_id := of_dag;
        asked.run_id := of_run;
        asked.logical_date := run_date;
        asked.task_id := of_task;
        select p.present into rows from dagstop.present_rows(array[asked]) as p;
        raise sqlstate 'DSLET';
    exception
        when sqlstate 'DSLET' then
            null;
    end;
    if known is null then
        return;
    end if;
    return query select
        null::bigint, case when of_task is null then 'run' else 'task' end, schema_name, of_dag, of_run, run_date, of_task,
        null::integer, false, clock_timestamp(), null::bigint, false, session_user::text, current_setting('application_name'),
        inet_client_addr(), pg_backend_pid(),
        case when of_task is null then run_state else rows -> 0 ->> 'state' end, null::timestamptz, clock_timestamp(),
        extract(epoch from dagstop.seconds_of('settle_seconds'))::integer,
        coalesce((
            select jsonb_agg((r - 'state' - 'ended_at') || jsonb_build_object('state_before', r -> 'state', 'released_at', null))
            from jsonb_array_elements(rows) as r
        ), '[]'),
        coalesce(rows, '[]'), dagstop.hands_off_of(of_dag), dagstop.grace_of(of_dag), 'failed',
        dagstop.setting_of('finished_tasks');
end
$_$;


--
-- Name: FUNCTION would_be_order(of_dag text, of_run text, of_task text); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.would_be_order(of_dag text, of_run text, of_task text) IS 'The order that failing this run or task would write, for explain; it is not written. No row if there is no such run.';


--
-- Name: write_late(dagstop.unwritten_order); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.write_late(kept dagstop.unwritten_order) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    draft dagstop.stop_order := jsonb_populate_record(
        null::dagstop.stop_order, kept.draft || jsonb_build_object('created_at', kept.at)
    );
    new_order bigint;
    target jsonb;
begin
    perform dagstop.reach(draft.airflow_schema, 'dag_run', 'row share');
    perform dagstop.reach(draft.airflow_schema, 'task_instance', 'row exclusive');
    if draft.run_id is null or draft.logical_date is null then
        select coalesce(draft.run_id, r.run_id), coalesce(draft.logical_date, r.run_date)
        into draft.run_id, draft.logical_date
        from dagstop.run_named(draft.airflow_schema, draft.dag_id, draft.run_id, draft.logical_date) as r;
    end if;
    if not dagstop.is_still_so(draft) then
        return;
    end if;
    draft.hands_off := dagstop.hands_off_of(draft.dag_id);
    insert into dagstop.stop_order
        (kind, airflow_schema, dag_id, run_id, logical_date, task_id, map_index, self_reported, created_at, txid, cascaded,
         session_user_name, application_name, client_addr, backend_pid, state_before, state_after, hands_off)
    values
        (draft.kind, draft.airflow_schema, draft.dag_id, draft.run_id, draft.logical_date, draft.task_id, draft.map_index,
         coalesce(draft.self_reported, false), draft.created_at, coalesce(draft.txid, 0), true, draft.session_user_name,
         draft.application_name, draft.client_addr, draft.backend_pid, draft.state_before, draft.state_after, draft.hands_off)
    returning id into new_order;
    perform dagstop.ring();
    if draft.hands_off is not null then
        return;
    end if;
    for target in select e.value from jsonb_array_elements(coalesce(kept.targets, '[]')) as e loop
        perform dagstop.add_target(
            new_order, target,
            case when draft.kind = 'run' then dagstop.fail_kept(draft, target)
                when draft.state_after = 'deleted' then draft.created_at end
        );
    end loop;
end
$$;


--
-- Name: FUNCTION write_late(kept dagstop.unwritten_order); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.write_late(kept dagstop.unwritten_order) IS 'Writes the order that a draft describes, as of the moment when it was due, if its run or task instance is still in that state.';


--
-- Name: write_orders(jsonb[], text, boolean); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.write_orders(runs jsonb[], schema_name text, carried_out boolean) RETURNS dagstop.stop_order[]
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $_$
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
$_$;


--
-- Name: FUNCTION write_orders(runs jsonb[], schema_name text, carried_out boolean); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.write_orders(runs jsonb[], schema_name text, carried_out boolean) IS 'Writes the orders of the runs that a statement has failed or deleted, and returns those to cascade. With carried_out false it writes the orders only, and the next heartbeat cascades them.';


--
-- Name: write_report(bigint, text, text, timestamp with time zone, timestamp with time zone, jsonb); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.write_report(order_id bigint, host text, outcome text, first_signal_at timestamp with time zone, last_death_at timestamp with time zone, detail jsonb) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_custom_plan'
    SET lock_timeout TO '1s'
    AS $$
#variable_conflict use_column
begin
    perform dagstop.require_short('host', write_report.host, 255);
    perform dagstop.require_short('outcome', write_report.outcome, 50);
    perform dagstop.require_small('the detail of a report', write_report.detail, 2000000);
    perform dagstop.speak_for(write_report.host);
    insert into dagstop.report as r (order_id, host, outcome, first_signal_at, last_death_at, detail, audit_due)
    select
        o.id, write_report.host, write_report.outcome, write_report.first_signal_at, write_report.last_death_at,
        coalesce(write_report.detail, '{}'),
        -- of an order that others closed, only what was done about it is news: each new host looks at those of a day
        coalesce(write_report.outcome, 'nothing_found') not in ('nothing_found', 'superseded') and (
            o.closed_at is null
            or coalesce(write_report.detail -> 'processes', '[]') <> '[]'
            or coalesce(write_report.detail -> 'containers', '[]') <> '[]'
        )
    from dagstop.stop_order o  -- removed in between: nothing to report on
    where o.id = write_report.order_id
    on conflict on constraint report_pkey do update set
        outcome = coalesce(excluded.outcome, r.outcome),  -- what is final stays final
        first_signal_at = least(r.first_signal_at, excluded.first_signal_at),
        last_death_at = greatest(r.last_death_at, excluded.last_death_at),
        reported_at = clock_timestamp(),
        detail = excluded.detail,
        -- the audit log is told again if a later report says more
        audit_due = r.audit_due or (excluded.audit_due and (
            r.outcome is distinct from excluded.outcome
            or r.detail -> 'processes' is distinct from excluded.detail -> 'processes'
            or r.detail -> 'containers' is distinct from excluded.detail -> 'containers'
        ));
end
$$;


--
-- Name: FUNCTION write_report(order_id bigint, host text, outcome text, first_signal_at timestamp with time zone, last_death_at timestamp with time zone, detail jsonb); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.write_report(order_id bigint, host text, outcome text, first_signal_at timestamp with time zone, last_death_at timestamp with time zone, detail jsonb) IS 'Writes or renews a host''s report on an order (outcome null: in progress). do_chores closes the order if this was the last report.';


--
-- Name: write_unwritten(); Type: FUNCTION; Schema: dagstop; Owner: -
--

CREATE FUNCTION dagstop.write_unwritten() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    young constant timestamptz := clock_timestamp() - dagstop.seconds_of('order_seconds');
    give_way_at constant timestamptz := clock_timestamp() + interval '3 seconds';
    kept dagstop.unwritten_order;
begin
    -- Room for the first drafts where the disk is full: a page is there as long as this row is. Not at an install, which
    -- fires no code that others may have put on this table.
    if not exists (select from dagstop.unwritten_order u where u.id = 0) then
        insert into dagstop.unwritten_order (id, draft) values (0, '{"kind": "room"}') on conflict do nothing;
    end if;
    for kept in
        select * from dagstop.unwritten_order u
        where u.id > 0
        order by u.tried_at nulls first, u.id
        limit 1000
        for update skip locked
    loop
        exit when clock_timestamp() > give_way_at;
        begin
            if kept.at > young then
                perform dagstop.reach_own('row exclusive', 'stop_order', 'stop_target', 'refused_write');
                if kept.draft ->> 'kind' = 'fence' then
                    perform dagstop.fence_late(kept);
                else
                    perform dagstop.write_late(kept);
                end if;
            end if;
            delete from dagstop.unwritten_order u where u.id = kept.id;
        exception
            when others then
                if sqlstate = '55P03' then
                    perform set_config('dagstop.waits_since', '0', true);  -- it has waited; the note of it was undone
                else
                    perform dagstop.record_fault(
                        'write_unwritten', sqlstate, sqlerrm, jsonb_build_object('unwritten_order', kept.id, 'repeats', true)
                    );
                end if;
                -- one that fails holds up no other
                update dagstop.unwritten_order u set tried_at = clock_timestamp() where u.id = kept.id;
        end;
    end loop;
end
$$;


--
-- Name: FUNCTION write_unwritten(); Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON FUNCTION dagstop.write_unwritten() IS 'Writes the orders that could not be written when they were due. One that still cannot be written does not hold up the others.';


--
-- Name: alembic_version; Type: TABLE; Schema: dagstop; Owner: -
--

CREATE TABLE dagstop.alembic_version (
    version_num character varying(32) NOT NULL
);


--
-- Name: TABLE alembic_version; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON TABLE dagstop.alembic_version IS 'The revision of schema dagstop; Airflow has a table of its own.';


--
-- Name: fault; Type: TABLE; Schema: dagstop; Owner: -
--

CREATE TABLE dagstop.fault (
    id bigint NOT NULL,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    place text NOT NULL,
    sqlstate text NOT NULL,
    message text NOT NULL,
    context jsonb DEFAULT '{}'::jsonb NOT NULL
);


--
-- Name: TABLE fault; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON TABLE dagstop.fault IS 'Errors inside dagstop''s triggers and functions. None of them failed Airflow''s statement.';


--
-- Name: COLUMN fault.id; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.fault.id IS 'Identity.';


--
-- Name: COLUMN fault.at; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.fault.at IS 'When.';


--
-- Name: COLUMN fault.place; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.fault.place IS 'Which function.';


--
-- Name: COLUMN fault.sqlstate; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.fault.sqlstate IS 'The SQLSTATE of the error.';


--
-- Name: COLUMN fault.message; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.fault.message IS 'The error''s message.';


--
-- Name: COLUMN fault.context; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.fault.context IS 'What it concerns: dag, run, task, transaction, place in the function.';


--
-- Name: fault_id_seq; Type: SEQUENCE; Schema: dagstop; Owner: -
--

ALTER TABLE dagstop.fault ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME dagstop.fault_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: refused_write; Type: TABLE; Schema: dagstop; Owner: -
--

CREATE TABLE dagstop.refused_write (
    id bigint NOT NULL,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    order_id bigint NOT NULL,
    dag_id text NOT NULL,
    run_id text,
    task_id text,
    map_index integer,
    wanted_state text,
    session_user_name text DEFAULT SESSION_USER NOT NULL,
    application_name text DEFAULT current_setting('application_name'::text) NOT NULL,
    client_addr inet DEFAULT inet_client_addr(),
    pending boolean DEFAULT false NOT NULL,
    of_try jsonb
);


--
-- Name: TABLE refused_write; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON TABLE dagstop.refused_write IS 'Writes that the fence reverted: a dying or late process tried to revive its task instance or its run, or to mark the task instance success.';


--
-- Name: COLUMN refused_write.id; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.refused_write.id IS 'Identity.';


--
-- Name: COLUMN refused_write.at; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.refused_write.at IS 'When.';


--
-- Name: COLUMN refused_write.order_id; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.refused_write.order_id IS 'The order whose fence reverted it.';


--
-- Name: COLUMN refused_write.dag_id; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.refused_write.dag_id IS 'The DAG.';


--
-- Name: COLUMN refused_write.run_id; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.refused_write.run_id IS 'The run.';


--
-- Name: COLUMN refused_write.task_id; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.refused_write.task_id IS 'The task; null where the row of the run itself was written.';


--
-- Name: COLUMN refused_write.map_index; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.refused_write.map_index IS 'The mapped index, -1 where there is none; null with task_id.';


--
-- Name: COLUMN refused_write.wanted_state; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.refused_write.wanted_state IS 'The state that was written; it stayed failed.';


--
-- Name: COLUMN refused_write.session_user_name; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.refused_write.session_user_name IS 'Who wrote it.';


--
-- Name: COLUMN refused_write.application_name; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.refused_write.application_name IS 'The application_name of that session.';


--
-- Name: COLUMN refused_write.client_addr; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.refused_write.client_addr IS 'The address of that session.';


--
-- Name: COLUMN refused_write.pending; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.refused_write.pending IS 'True while the write still stands because another session held the run; the next heartbeat reverts it.';


--
-- Name: COLUMN refused_write.of_try; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.refused_write.of_try IS 'Of a pending write: what tells its try from a later one (dagstop.try_of), which is left alone.';


--
-- Name: report; Type: TABLE; Schema: dagstop; Owner: -
--

CREATE TABLE dagstop.report (
    order_id bigint NOT NULL,
    host text NOT NULL,
    outcome text,
    first_signal_at timestamp with time zone,
    last_death_at timestamp with time zone,
    reported_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    detail jsonb DEFAULT '{}'::jsonb NOT NULL,
    audit_due boolean DEFAULT false NOT NULL
);


--
-- Name: TABLE report; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON TABLE dagstop.report IS 'What a host did about an order.';


--
-- Name: COLUMN report.order_id; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.report.order_id IS 'The order.';


--
-- Name: COLUMN report.host; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.report.host IS 'The host.';


--
-- Name: COLUMN report.outcome; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.report.outcome IS 'The worst that is true of it: unkillable, spared, could_not_look, not_found, stopped, superseded or nothing_found; null while in progress.';


--
-- Name: COLUMN report.first_signal_at; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.report.first_signal_at IS 'When the first signal was sent there.';


--
-- Name: COLUMN report.last_death_at; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.report.last_death_at IS 'When the last of the run''s processes and containers there was seen dead.';


--
-- Name: COLUMN report.reported_at; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.report.reported_at IS 'When this row was last written.';


--
-- Name: COLUMN report.detail; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.report.detail IS 'Each process and container with its evidence, signals and times.';


--
-- Name: COLUMN report.audit_due; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.report.audit_due IS 'True if Airflow''s audit log does not have all of it yet; the chores write it.';


--
-- Name: stop_target; Type: TABLE; Schema: dagstop; Owner: -
--

CREATE TABLE dagstop.stop_target (
    order_id bigint NOT NULL,
    task_id text NOT NULL,
    map_index integer NOT NULL,
    try_number integer,
    job_id bigint,
    ti_id text,
    hostname text,
    pid integer,
    operator text,
    state_before text,
    started_at timestamp with time zone,
    released_at timestamp with time zone
);


--
-- Name: TABLE stop_target; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON TABLE dagstop.stop_target IS 'One row per task instance that an order stops: a snapshot from before. No foreign key: checking 100,000 of them costs more than the cascade.';


--
-- Name: COLUMN stop_target.order_id; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.stop_target.order_id IS 'The order.';


--
-- Name: COLUMN stop_target.task_id; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.stop_target.task_id IS 'The task.';


--
-- Name: COLUMN stop_target.map_index; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.stop_target.map_index IS 'The mapped index, -1 where there is none.';


--
-- Name: COLUMN stop_target.try_number; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.stop_target.try_number IS 'task_instance.try_number as stored.';


--
-- Name: COLUMN stop_target.job_id; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.stop_target.job_id IS 'The job that ran it (Airflow 1.10 and 2).';


--
-- Name: COLUMN stop_target.ti_id; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.stop_target.ti_id IS 'The uuid of this try (Airflow 3).';


--
-- Name: COLUMN stop_target.hostname; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.stop_target.hostname IS 'Where Airflow believed it to run: a hint only.';


--
-- Name: COLUMN stop_target.pid; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.stop_target.pid IS 'The process that Airflow recorded: a hint only, pids are reused.';


--
-- Name: COLUMN stop_target.operator; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.stop_target.operator IS 'The operator''s class name.';


--
-- Name: COLUMN stop_target.state_before; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.stop_target.state_before IS 'The state it was in; null where it had none.';


--
-- Name: COLUMN stop_target.started_at; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.stop_target.started_at IS 'Its start_date.';


--
-- Name: COLUMN stop_target.released_at; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.stop_target.released_at IS 'When it was taken out of failed (cleared, marked success, ...) or deleted: the fence is lifted, and what begins later is another try.';


--
-- Name: history; Type: VIEW; Schema: dagstop; Owner: -
--

CREATE VIEW dagstop.history AS
 SELECT o.id AS order_id,
    o.kind,
    o.dag_id,
    o.run_id,
    o.logical_date,
    o.task_id,
    o.map_index,
    o.created_at,
    o.session_user_name,
    o.application_name,
    o.client_addr,
    o.backend_pid,
    o.self_reported,
    o.state_before,
    o.cascaded,
    ( SELECT count(*) AS count
           FROM dagstop.stop_target t
          WHERE (t.order_id = o.id)) AS targets,
    ( SELECT count(*) AS count
           FROM dagstop.refused_write w
          WHERE (w.order_id = o.id)) AS refused_writes,
    r.host,
    r.outcome,
    r.first_signal_at,
    r.last_death_at,
    r.reported_at,
    r.detail,
    o.closed_at,
    o.hands_off,
    o.state_after
   FROM (dagstop.stop_order o
     LEFT JOIN dagstop.report r ON ((r.order_id = o.id)));


--
-- Name: VIEW history; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON VIEW dagstop.history IS 'One row per order and host: what was failed, by whom, and what the host did about it, when. Columns without a comment are those of stop_order and report.';


--
-- Name: COLUMN history.order_id; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.history.order_id IS 'stop_order.id.';


--
-- Name: COLUMN history.targets; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.history.targets IS 'How many task instances the order stops (stop_target).';


--
-- Name: COLUMN history.refused_writes; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.history.refused_writes IS 'How many late writes the fence refused for this order (refused_write).';


--
-- Name: host_role; Type: TABLE; Schema: dagstop; Owner: -
--

CREATE TABLE dagstop.host_role (
    host text NOT NULL,
    role_name text DEFAULT SESSION_USER NOT NULL,
    seen_on date DEFAULT CURRENT_DATE NOT NULL
);


--
-- Name: TABLE host_role; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON TABLE dagstop.host_role IS 'Which login role reports for a host: the first that did. Delete a row to give the name to another role.';


--
-- Name: COLUMN host_role.host; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.host_role.host IS 'The host.';


--
-- Name: COLUMN host_role.role_name; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.host_role.role_name IS 'The login role of its listener.';


--
-- Name: COLUMN host_role.seen_on; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.host_role.seen_on IS 'The last day on which it reported.';


--
-- Name: listener; Type: TABLE; Schema: dagstop; Owner: -
--

CREATE TABLE dagstop.listener (
    host text NOT NULL,
    listener_id uuid NOT NULL,
    version text NOT NULL,
    started_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    seen_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    detail jsonb DEFAULT '{}'::jsonb NOT NULL,
    caught_up boolean DEFAULT false NOT NULL
);


--
-- Name: TABLE listener; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON TABLE dagstop.listener IS 'The listeners, one row per host.';


--
-- Name: COLUMN listener.host; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.listener.host IS 'The host.';


--
-- Name: COLUMN listener.listener_id; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.listener.listener_id IS 'Identity of the running listener; new at each start.';


--
-- Name: COLUMN listener.version; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.listener.version IS 'Its version of dagstop.';


--
-- Name: COLUMN listener.started_at; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.listener.started_at IS 'Its first heartbeat.';


--
-- Name: COLUMN listener.seen_at; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.listener.seen_at IS 'Its last heartbeat.';


--
-- Name: COLUMN listener.detail; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.listener.detail IS 'What it says about itself: rights, Docker, notices.';


--
-- Name: COLUMN listener.caught_up; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.listener.caught_up IS 'True if it has reported on each closed order, so that its sweeps read open orders only; false after a start or a gap.';


--
-- Name: open_order; Type: VIEW; Schema: dagstop; Owner: -
--

CREATE VIEW dagstop.open_order AS
 SELECT id AS order_id,
    kind,
    dag_id,
    run_id,
    logical_date,
    task_id,
    map_index,
    created_at,
    session_user_name,
    application_name,
    self_reported,
    state_before,
    cascaded,
    ( SELECT count(*) AS count
           FROM dagstop.stop_target t
          WHERE (t.order_id = o.id)) AS targets,
    dagstop.waits_for(o.*) AS waiting_for,
    state_after
   FROM dagstop.stop_order o
  WHERE ((num_nonnulls(closed_at) = 0) AND (created_at > ( SELECT (clock_timestamp() - dagstop.seconds_of('order_seconds'::text)))));


--
-- Name: VIEW open_order; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON VIEW dagstop.open_order IS 'The orders that are not closed, and the live hosts that still owe a final report (dagstop.waits_for). Columns without a comment are those of stop_order.';


--
-- Name: COLUMN open_order.order_id; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.open_order.order_id IS 'stop_order.id.';


--
-- Name: COLUMN open_order.targets; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.open_order.targets IS 'How many task instances the order stops (stop_target).';


--
-- Name: COLUMN open_order.waiting_for; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.open_order.waiting_for IS 'The live hosts that still owe a final report.';


--
-- Name: refused_write_id_seq; Type: SEQUENCE; Schema: dagstop; Owner: -
--

ALTER TABLE dagstop.refused_write ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME dagstop.refused_write_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: setting; Type: TABLE; Schema: dagstop; Owner: -
--

CREATE TABLE dagstop.setting (
    name text NOT NULL,
    value text NOT NULL,
    comment text NOT NULL
);


--
-- Name: TABLE setting; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON TABLE dagstop.setting IS 'What an operator may tune, one row per setting; read at every use.';


--
-- Name: COLUMN setting.name; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.setting.name IS 'Which setting.';


--
-- Name: COLUMN setting.value; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.setting.value IS 'Its present value, as text.';


--
-- Name: COLUMN setting.comment; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON COLUMN dagstop.setting.comment IS 'What it means, and its unit.';


--
-- Name: stop_order_id_seq; Type: SEQUENCE; Schema: dagstop; Owner: -
--

ALTER TABLE dagstop.stop_order ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME dagstop.stop_order_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: unwritten_order_id_seq; Type: SEQUENCE; Schema: dagstop; Owner: -
--

ALTER TABLE dagstop.unwritten_order ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME dagstop.unwritten_order_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: alembic_version alembic_version_pkc; Type: CONSTRAINT; Schema: dagstop; Owner: -
--

ALTER TABLE ONLY dagstop.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);


--
-- Name: fault fault_pkey; Type: CONSTRAINT; Schema: dagstop; Owner: -
--

ALTER TABLE ONLY dagstop.fault
    ADD CONSTRAINT fault_pkey PRIMARY KEY (id);


--
-- Name: host_role host_role_pkey; Type: CONSTRAINT; Schema: dagstop; Owner: -
--

ALTER TABLE ONLY dagstop.host_role
    ADD CONSTRAINT host_role_pkey PRIMARY KEY (host);


--
-- Name: listener listener_pkey; Type: CONSTRAINT; Schema: dagstop; Owner: -
--

ALTER TABLE ONLY dagstop.listener
    ADD CONSTRAINT listener_pkey PRIMARY KEY (host);


--
-- Name: refused_write refused_write_pkey; Type: CONSTRAINT; Schema: dagstop; Owner: -
--

ALTER TABLE ONLY dagstop.refused_write
    ADD CONSTRAINT refused_write_pkey PRIMARY KEY (id);


--
-- Name: report report_pkey; Type: CONSTRAINT; Schema: dagstop; Owner: -
--

ALTER TABLE ONLY dagstop.report
    ADD CONSTRAINT report_pkey PRIMARY KEY (order_id, host);


--
-- Name: setting setting_pkey; Type: CONSTRAINT; Schema: dagstop; Owner: -
--

ALTER TABLE ONLY dagstop.setting
    ADD CONSTRAINT setting_pkey PRIMARY KEY (name);


--
-- Name: stop_order stop_order_pkey; Type: CONSTRAINT; Schema: dagstop; Owner: -
--

ALTER TABLE ONLY dagstop.stop_order
    ADD CONSTRAINT stop_order_pkey PRIMARY KEY (id);


--
-- Name: stop_target stop_target_pkey; Type: CONSTRAINT; Schema: dagstop; Owner: -
--

ALTER TABLE ONLY dagstop.stop_target
    ADD CONSTRAINT stop_target_pkey PRIMARY KEY (order_id, task_id, map_index);


--
-- Name: unwritten_order unwritten_order_pkey; Type: CONSTRAINT; Schema: dagstop; Owner: -
--

ALTER TABLE ONLY dagstop.unwritten_order
    ADD CONSTRAINT unwritten_order_pkey PRIMARY KEY (id);


--
-- Name: fault_age; Type: INDEX; Schema: dagstop; Owner: -
--

CREATE INDEX fault_age ON dagstop.fault USING btree (at);


--
-- Name: INDEX fault_age; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON INDEX dagstop.fault_age IS 'Finds the latest faults.';


--
-- Name: fault_repeats; Type: INDEX; Schema: dagstop; Owner: -
--

CREATE INDEX fault_repeats ON dagstop.fault USING btree (at) WHERE (context ? 'repeats'::text);


--
-- Name: INDEX fault_repeats; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON INDEX dagstop.fault_repeats IS 'Finds the latest faults that are recorded once in ten minutes.';


--
-- Name: fault_transaction; Type: INDEX; Schema: dagstop; Owner: -
--

CREATE INDEX fault_transaction ON dagstop.fault USING btree (((context ->> 'txid'::text)));


--
-- Name: INDEX fault_transaction; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON INDEX dagstop.fault_transaction IS 'Finds the faults of the transaction under way.';


--
-- Name: refused_write_order; Type: INDEX; Schema: dagstop; Owner: -
--

CREATE INDEX refused_write_order ON dagstop.refused_write USING btree (order_id);


--
-- Name: INDEX refused_write_order; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON INDEX dagstop.refused_write_order IS 'Finds the refused writes of an order.';


--
-- Name: refused_write_unsettled; Type: INDEX; Schema: dagstop; Owner: -
--

CREATE INDEX refused_write_unsettled ON dagstop.refused_write USING btree (order_id) WHERE pending;


--
-- Name: INDEX refused_write_unsettled; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON INDEX dagstop.refused_write_unsettled IS 'Finds the orders with writes that are yet to be reverted.';


--
-- Name: refused_write_waiting; Type: INDEX; Schema: dagstop; Owner: -
--

CREATE INDEX refused_write_waiting ON dagstop.refused_write USING btree (at) WHERE pending;


--
-- Name: INDEX refused_write_waiting; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON INDEX dagstop.refused_write_waiting IS 'Finds the writes that are yet to be reverted.';


--
-- Name: report_audit_due; Type: INDEX; Schema: dagstop; Owner: -
--

CREATE INDEX report_audit_due ON dagstop.report USING btree (order_id) WHERE audit_due;


--
-- Name: INDEX report_audit_due; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON INDEX dagstop.report_audit_due IS 'Finds the few reports that are not yet in the audit log.';


--
-- Name: stop_order_age; Type: INDEX; Schema: dagstop; Owner: -
--

CREATE INDEX stop_order_age ON dagstop.stop_order USING btree (created_at);


--
-- Name: INDEX stop_order_age; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON INDEX dagstop.stop_order_age IS 'Finds the orders that are still young.';


--
-- Name: stop_order_closed_without; Type: INDEX; Schema: dagstop; Owner: -
--

CREATE INDEX stop_order_closed_without ON dagstop.stop_order USING btree (created_at) WHERE (closed_without IS NOT NULL);


--
-- Name: INDEX stop_order_closed_without; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON INDEX dagstop.stop_order_closed_without IS 'Finds the few orders that were closed without a live host.';


--
-- Name: stop_order_pending; Type: INDEX; Schema: dagstop; Owner: -
--

CREATE INDEX stop_order_pending ON dagstop.stop_order USING btree (created_at) WHERE ((NOT cascaded) AND (kind = 'run'::text));


--
-- Name: INDEX stop_order_pending; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON INDEX dagstop.stop_order_pending IS 'Finds the few orders whose cascade is still to be done.';


--
-- Name: stop_order_task; Type: INDEX; Schema: dagstop; Owner: -
--

CREATE INDEX stop_order_task ON dagstop.stop_order USING btree (dag_id, run_id, task_id, map_index);


--
-- Name: INDEX stop_order_task; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON INDEX dagstop.stop_order_task IS 'Finds the orders of a run, and those of one of its task instances.';


--
-- Name: stop_order_unclosed; Type: INDEX; Schema: dagstop; Owner: -
--

CREATE INDEX stop_order_unclosed ON dagstop.stop_order USING btree (created_at, id) WHERE (closed_at IS NULL);


--
-- Name: INDEX stop_order_unclosed; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON INDEX dagstop.stop_order_unclosed IS 'Finds the few orders that are open among all of a day.';


--
-- Name: setting dagstop_setting; Type: TRIGGER; Schema: dagstop; Owner: -
--

CREATE TRIGGER dagstop_setting BEFORE INSERT OR UPDATE ON dagstop.setting FOR EACH ROW EXECUTE FUNCTION dagstop.check_setting();


--
-- Name: TRIGGER dagstop_setting ON setting; Type: COMMENT; Schema: dagstop; Owner: -
--

COMMENT ON TRIGGER dagstop_setting ON dagstop.setting IS 'Refuses values that a setting cannot have.';


--
-- Name: report report_order_id_fkey; Type: FK CONSTRAINT; Schema: dagstop; Owner: -
--

ALTER TABLE ONLY dagstop.report
    ADD CONSTRAINT report_order_id_fkey FOREIGN KEY (order_id) REFERENCES dagstop.stop_order(id) ON DELETE CASCADE;


--
-- Name: SCHEMA dagstop; Type: ACL; Schema: -; Owner: -
--

GRANT USAGE ON SCHEMA dagstop TO dagstop_listener;


--
-- Name: FUNCTION add_target(of_order bigint, task_instance jsonb, released_at timestamp with time zone); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.add_target(of_order bigint, task_instance jsonb, released_at timestamp with time zone) FROM PUBLIC;


--
-- Name: FUNCTION airflow_path(schema_name text, table_name text); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.airflow_path(schema_name text, table_name text) FROM PUBLIC;


--
-- Name: FUNCTION asked_for(what text); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.asked_for(what text) FROM PUBLIC;


--
-- Name: FUNCTION audit(order_id bigint, report_host text); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.audit(order_id bigint, report_host text) FROM PUBLIC;


--
-- Name: FUNCTION audit_reports(order_ids bigint[]); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.audit_reports(order_ids bigint[]) FROM PUBLIC;


--
-- Name: TABLE stop_order; Type: ACL; Schema: dagstop; Owner: -
--

GRANT SELECT ON TABLE dagstop.stop_order TO dagstop_listener;


--
-- Name: FUNCTION audit_text(for_order dagstop.stop_order, report_host text, outcome text, detail jsonb); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.audit_text(for_order dagstop.stop_order, report_host text, outcome text, detail jsonb) FROM PUBLIC;


--
-- Name: FUNCTION be_alive(host text, listener_id uuid, version text, detail jsonb); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.be_alive(host text, listener_id uuid, version text, detail jsonb) FROM PUBLIC;


--
-- Name: FUNCTION cascade(orders dagstop.stop_order[], schema_name text); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.cascade(orders dagstop.stop_order[], schema_name text) FROM PUBLIC;


--
-- Name: FUNCTION cascade_mass(orders dagstop.stop_order[], schema_name text); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.cascade_mass(orders dagstop.stop_order[], schema_name text) FROM PUBLIC;


--
-- Name: FUNCTION cascade_orders(orders dagstop.stop_order[], schema_name text, lock_first boolean); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.cascade_orders(orders dagstop.stop_order[], schema_name text, lock_first boolean) FROM PUBLIC;


--
-- Name: FUNCTION cascade_statement(); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.cascade_statement() FROM PUBLIC;


--
-- Name: FUNCTION check_setting(); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.check_setting() FROM PUBLIC;


--
-- Name: FUNCTION chore(named text, order_ids bigint[]); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.chore(named text, order_ids bigint[]) FROM PUBLIC;
GRANT ALL ON FUNCTION dagstop.chore(named text, order_ids bigint[]) TO dagstop_listener;


--
-- Name: FUNCTION close_left_behind(); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.close_left_behind() FROM PUBLIC;


--
-- Name: FUNCTION close_orders(order_ids bigint[]); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.close_orders(order_ids bigint[]) FROM PUBLIC;


--
-- Name: FUNCTION columns_of(schema_name text, table_name text); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.columns_of(schema_name text, table_name text) FROM PUBLIC;


--
-- Name: FUNCTION complete_left(); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.complete_left() FROM PUBLIC;


--
-- Name: FUNCTION complete_orders(order_ids bigint[], schema_name text); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.complete_orders(order_ids bigint[], schema_name text) FROM PUBLIC;


--
-- Name: FUNCTION complete_some(order_ids bigint[], schema_name text, give_way_at timestamp with time zone); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.complete_some(order_ids bigint[], schema_name text, give_way_at timestamp with time zone) FROM PUBLIC;


--
-- Name: FUNCTION date_column_of(schema_name text); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.date_column_of(schema_name text) FROM PUBLIC;


--
-- Name: PROCEDURE do_chores(IN reported bigint[]); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON PROCEDURE dagstop.do_chores(IN reported bigint[]) FROM PUBLIC;
GRANT ALL ON PROCEDURE dagstop.do_chores(IN reported bigint[]) TO dagstop_listener;


--
-- Name: FUNCTION draft_of(schema_name text); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.draft_of(schema_name text) FROM PUBLIC;


--
-- Name: FUNCTION fail_kept(draft dagstop.stop_order, kept jsonb); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.fail_kept(draft dagstop.stop_order, kept jsonb) FROM PUBLIC;


--
-- Name: FUNCTION fence(); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.fence() FROM PUBLIC;


--
-- Name: TABLE unwritten_order; Type: ACL; Schema: dagstop; Owner: -
--

GRANT SELECT ON TABLE dagstop.unwritten_order TO dagstop_listener;


--
-- Name: FUNCTION fence_late(kept dagstop.unwritten_order); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.fence_late(kept dagstop.unwritten_order) FROM PUBLIC;


--
-- Name: FUNCTION fence_run(); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.fence_run() FROM PUBLIC;


--
-- Name: FUNCTION fencing_order(order_ids bigint[], before jsonb, after jsonb); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.fencing_order(order_ids bigint[], before jsonb, after jsonb) FROM PUBLIC;


--
-- Name: FUNCTION fill_dates(order_ids bigint[], schema_name text); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.fill_dates(order_ids bigint[], schema_name text) FROM PUBLIC;


--
-- Name: FUNCTION forget_host(host text); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.forget_host(host text) FROM PUBLIC;
GRANT ALL ON FUNCTION dagstop.forget_host(host text) TO dagstop_listener;


--
-- Name: FUNCTION forget_notes(); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.forget_notes() FROM PUBLIC;


--
-- Name: FUNCTION gone_hosts(); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.gone_hosts() FROM PUBLIC;
GRANT ALL ON FUNCTION dagstop.gone_hosts() TO dagstop_listener;


--
-- Name: FUNCTION grace_of(dag text); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.grace_of(dag text) FROM PUBLIC;


--
-- Name: FUNCTION hands_off_of(dag text); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.hands_off_of(dag text) FROM PUBLIC;


--
-- Name: FUNCTION heartbeat(host text, listener_id uuid, version text, detail jsonb); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.heartbeat(host text, listener_id uuid, version text, detail jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION dagstop.heartbeat(host text, listener_id uuid, version text, detail jsonb) TO dagstop_listener;


--
-- Name: FUNCTION identity_of(task_instance jsonb, version text); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.identity_of(task_instance jsonb, version text) FROM PUBLIC;


--
-- Name: FUNCTION is_late_success(before jsonb, after jsonb); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.is_late_success(before jsonb, after jsonb) FROM PUBLIC;


--
-- Name: FUNCTION is_late_without_slot(before jsonb, after jsonb); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.is_late_without_slot(before jsonb, after jsonb) FROM PUBLIC;


--
-- Name: FUNCTION is_old_copy(before jsonb, after jsonb); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.is_old_copy(before jsonb, after jsonb) FROM PUBLIC;


--
-- Name: FUNCTION is_revival(before jsonb, after jsonb); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.is_revival(before jsonb, after jsonb) FROM PUBLIC;


--
-- Name: FUNCTION is_still_so(draft dagstop.stop_order); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.is_still_so(draft dagstop.stop_order) FROM PUBLIC;


--
-- Name: FUNCTION keep_draft(draft jsonb, targets jsonb); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.keep_draft(draft jsonb, targets jsonb) FROM PUBLIC;


--
-- Name: FUNCTION keys_set_anew(schema_name text); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.keys_set_anew(schema_name text) FROM PUBLIC;


--
-- Name: FUNCTION known_settings(); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.known_settings() FROM PUBLIC;
GRANT ALL ON FUNCTION dagstop.known_settings() TO dagstop_listener;


--
-- Name: FUNCTION leave_to_heartbeat(order_ids bigint[]); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.leave_to_heartbeat(order_ids bigint[]) FROM PUBLIC;


--
-- Name: FUNCTION leave_unwritten(place text, code text, problem text, on_table oid, drafts jsonb[], targets jsonb[]); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.leave_unwritten(place text, code text, problem text, on_table oid, drafts jsonb[], targets jsonb[]) FROM PUBLIC;


--
-- Name: FUNCTION left_alive(detail jsonb); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.left_alive(detail jsonb) FROM PUBLIC;


--
-- Name: FUNCTION left_to_put_back(); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.left_to_put_back() FROM PUBLIC;


--
-- Name: FUNCTION lock_untouched(schema_name text, task_instance jsonb); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.lock_untouched(schema_name text, task_instance jsonb) FROM PUBLIC;


--
-- Name: FUNCTION may_be_late(before jsonb, after jsonb); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.may_be_late(before jsonb, after jsonb) FROM PUBLIC;


--
-- Name: FUNCTION may_have_written(schema_name text, table_name text); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.may_have_written(schema_name text, table_name text) FROM PUBLIC;


--
-- Name: FUNCTION may_wait(); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.may_wait() FROM PUBLIC;


--
-- Name: FUNCTION noted_runs(); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.noted_runs() FROM PUBLIC;


--
-- Name: FUNCTION observes(); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.observes() FROM PUBLIC;


--
-- Name: FUNCTION open_orders(host text, ids bigint[], max_orders integer); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.open_orders(host text, ids bigint[], max_orders integer) FROM PUBLIC;
GRANT ALL ON FUNCTION dagstop.open_orders(host text, ids bigint[], max_orders integer) TO dagstop_listener;


--
-- Name: FUNCTION order_deleted_run(); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.order_deleted_run() FROM PUBLIC;


--
-- Name: FUNCTION order_deleted_task(); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.order_deleted_task() FROM PUBLIC;


--
-- Name: FUNCTION order_fencing_run(order_ids bigint[]); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.order_fencing_run(order_ids bigint[]) FROM PUBLIC;


--
-- Name: FUNCTION order_of_deleted(dag text, run text, run_date timestamp with time zone); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.order_of_deleted(dag text, run text, run_date timestamp with time zone) FROM PUBLIC;


--
-- Name: FUNCTION order_run(); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.order_run() FROM PUBLIC;


--
-- Name: FUNCTION order_task(); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.order_task() FROM PUBLIC;


--
-- Name: FUNCTION orders_of_task(schema_name text, task_instance jsonb, run text, turned_to text); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.orders_of_task(schema_name text, task_instance jsonb, run text, turned_to text) FROM PUBLIC;


--
-- Name: FUNCTION patterns_in(list text); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.patterns_in(list text) FROM PUBLIC;


--
-- Name: FUNCTION pending(); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.pending() FROM PUBLIC;


--
-- Name: FUNCTION present_rows(orders dagstop.stop_order[]); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.present_rows(orders dagstop.stop_order[]) FROM PUBLIC;


--
-- Name: FUNCTION protected_dags(); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.protected_dags() FROM PUBLIC;


--
-- Name: FUNCTION prune(); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.prune() FROM PUBLIC;


--
-- Name: FUNCTION put_back_left(); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.put_back_left() FROM PUBLIC;


--
-- Name: FUNCTION put_notes_aside(); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.put_notes_aside() FROM PUBLIC;


--
-- Name: FUNCTION reach(schema_name text, table_name text, mode text); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.reach(schema_name text, table_name text, mode text) FROM PUBLIC;


--
-- Name: FUNCTION reach_own(mode text, VARIADIC tables text[]); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.reach_own(mode text, VARIADIC tables text[]) FROM PUBLIC;


--
-- Name: FUNCTION reach_references(schema_name text, table_name text, present jsonb); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.reach_references(schema_name text, table_name text, present jsonb) FROM PUBLIC;


--
-- Name: FUNCTION record_fault(place text, code text, message text, context jsonb); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.record_fault(place text, code text, message text, context jsonb) FROM PUBLIC;


--
-- Name: FUNCTION references_of(schema_name text, table_name text); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.references_of(schema_name text, table_name text) FROM PUBLIC;


--
-- Name: FUNCTION release(order_ids bigint[], task_instance jsonb, at timestamp with time zone); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.release(order_ids bigint[], task_instance jsonb, at timestamp with time zone) FROM PUBLIC;


--
-- Name: FUNCTION require_short(what text, value text, most integer); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.require_short(what text, value text, most integer) FROM PUBLIC;


--
-- Name: FUNCTION require_small(what text, value jsonb, most integer); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.require_small(what text, value jsonb, most integer) FROM PUBLIC;


--
-- Name: FUNCTION retire(host text, listener_id uuid); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.retire(host text, listener_id uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION dagstop.retire(host text, listener_id uuid) TO dagstop_listener;


--
-- Name: FUNCTION ring(); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.ring() FROM PUBLIC;


--
-- Name: FUNCTION row_as_it_is(schema_name text, task_instance jsonb, if_held text); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.row_as_it_is(schema_name text, task_instance jsonb, if_held text) FROM PUBLIC;


--
-- Name: FUNCTION run_id_of(schema_name text, task_instance jsonb); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.run_id_of(schema_name text, task_instance jsonb) FROM PUBLIC;


--
-- Name: FUNCTION run_is_gone(schema_name text, task_instance jsonb); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.run_is_gone(schema_name text, task_instance jsonb) FROM PUBLIC;


--
-- Name: FUNCTION run_named(schema_name text, dag text, run text, date timestamp with time zone, OUT run_id text, OUT run_date timestamp with time zone); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.run_named(schema_name text, dag text, run text, date timestamp with time zone, OUT run_id text, OUT run_date timestamp with time zone) FROM PUBLIC;


--
-- Name: FUNCTION run_of(schema_name text, task_instance jsonb, OUT run text, OUT run_date timestamp with time zone, OUT is_there boolean); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.run_of(schema_name text, task_instance jsonb, OUT run text, OUT run_date timestamp with time zone, OUT is_there boolean) FROM PUBLIC;


--
-- Name: FUNCTION rung_for(host text, max_orders integer); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.rung_for(host text, max_orders integer) FROM PUBLIC;
GRANT ALL ON FUNCTION dagstop.rung_for(host text, max_orders integer) TO dagstop_listener;


--
-- Name: FUNCTION running_in_failed_runs(); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.running_in_failed_runs() FROM PUBLIC;
GRANT ALL ON FUNCTION dagstop.running_in_failed_runs() TO dagstop_listener;


--
-- Name: FUNCTION running_now(runs jsonb[], schema_name text); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.running_now(runs jsonb[], schema_name text) FROM PUBLIC;


--
-- Name: FUNCTION same_try(kept jsonb, present jsonb, version text); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.same_try(kept jsonb, present jsonb, version text) FROM PUBLIC;


--
-- Name: FUNCTION seconds_of(setting_name text, fallback integer); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.seconds_of(setting_name text, fallback integer) FROM PUBLIC;
GRANT ALL ON FUNCTION dagstop.seconds_of(setting_name text, fallback integer) TO dagstop_listener;


--
-- Name: FUNCTION set_again(schema_name text, present jsonb, assignments text); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.set_again(schema_name text, present jsonb, assignments text) FROM PUBLIC;


--
-- Name: FUNCTION setting_of(setting_name text, fallback text); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.setting_of(setting_name text, fallback text) FROM PUBLIC;
GRANT ALL ON FUNCTION dagstop.setting_of(setting_name text, fallback text) TO dagstop_listener;


--
-- Name: FUNCTION speak_for(host text); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.speak_for(host text) FROM PUBLIC;


--
-- Name: FUNCTION stop_again(of_dag text, of_run text); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.stop_again(of_dag text, of_run text) FROM PUBLIC;


--
-- Name: FUNCTION stops_on(what text); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.stops_on(what text) FROM PUBLIC;


--
-- Name: FUNCTION swept_for(host text, max_orders integer); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.swept_for(host text, max_orders integer) FROM PUBLIC;


--
-- Name: FUNCTION take_hands_off(order_ids bigint[]); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.take_hands_off(order_ids bigint[]) FROM PUBLIC;


--
-- Name: FUNCTION task_draft(schema_name text, before jsonb, state_after text, self_reported boolean); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.task_draft(schema_name text, before jsonb, state_after text, self_reported boolean) FROM PUBLIC;


--
-- Name: FUNCTION task_hosts(); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.task_hosts() FROM PUBLIC;
GRANT ALL ON FUNCTION dagstop.task_hosts() TO dagstop_listener;


--
-- Name: FUNCTION task_states(ti_ids text[], keys jsonb); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.task_states(ti_ids text[], keys jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION dagstop.task_states(ti_ids text[], keys jsonb) TO dagstop_listener;


--
-- Name: FUNCTION trigger_health(); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.trigger_health() FROM PUBLIC;
GRANT ALL ON FUNCTION dagstop.trigger_health() TO dagstop_listener;


--
-- Name: FUNCTION try_of(task_instance jsonb); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.try_of(task_instance jsonb) FROM PUBLIC;


--
-- Name: FUNCTION waits_for(for_order dagstop.stop_order); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.waits_for(for_order dagstop.stop_order) FROM PUBLIC;
GRANT ALL ON FUNCTION dagstop.waits_for(for_order dagstop.stop_order) TO dagstop_listener;


--
-- Name: FUNCTION would_be_order(of_dag text, of_run text, of_task text); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.would_be_order(of_dag text, of_run text, of_task text) FROM PUBLIC;
GRANT ALL ON FUNCTION dagstop.would_be_order(of_dag text, of_run text, of_task text) TO dagstop_listener;


--
-- Name: FUNCTION write_late(kept dagstop.unwritten_order); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.write_late(kept dagstop.unwritten_order) FROM PUBLIC;


--
-- Name: FUNCTION write_orders(runs jsonb[], schema_name text, carried_out boolean); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.write_orders(runs jsonb[], schema_name text, carried_out boolean) FROM PUBLIC;


--
-- Name: FUNCTION write_report(order_id bigint, host text, outcome text, first_signal_at timestamp with time zone, last_death_at timestamp with time zone, detail jsonb); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.write_report(order_id bigint, host text, outcome text, first_signal_at timestamp with time zone, last_death_at timestamp with time zone, detail jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION dagstop.write_report(order_id bigint, host text, outcome text, first_signal_at timestamp with time zone, last_death_at timestamp with time zone, detail jsonb) TO dagstop_listener;


--
-- Name: FUNCTION write_unwritten(); Type: ACL; Schema: dagstop; Owner: -
--

REVOKE ALL ON FUNCTION dagstop.write_unwritten() FROM PUBLIC;


--
-- Name: TABLE alembic_version; Type: ACL; Schema: dagstop; Owner: -
--

GRANT SELECT ON TABLE dagstop.alembic_version TO dagstop_listener;


--
-- Name: TABLE fault; Type: ACL; Schema: dagstop; Owner: -
--

GRANT SELECT ON TABLE dagstop.fault TO dagstop_listener;


--
-- Name: TABLE refused_write; Type: ACL; Schema: dagstop; Owner: -
--

GRANT SELECT ON TABLE dagstop.refused_write TO dagstop_listener;


--
-- Name: TABLE report; Type: ACL; Schema: dagstop; Owner: -
--

GRANT SELECT ON TABLE dagstop.report TO dagstop_listener;


--
-- Name: TABLE stop_target; Type: ACL; Schema: dagstop; Owner: -
--

GRANT SELECT ON TABLE dagstop.stop_target TO dagstop_listener;


--
-- Name: TABLE history; Type: ACL; Schema: dagstop; Owner: -
--

GRANT SELECT ON TABLE dagstop.history TO dagstop_listener;


--
-- Name: TABLE host_role; Type: ACL; Schema: dagstop; Owner: -
--

GRANT SELECT ON TABLE dagstop.host_role TO dagstop_listener;


--
-- Name: TABLE listener; Type: ACL; Schema: dagstop; Owner: -
--

GRANT SELECT ON TABLE dagstop.listener TO dagstop_listener;


--
-- Name: TABLE open_order; Type: ACL; Schema: dagstop; Owner: -
--

GRANT SELECT ON TABLE dagstop.open_order TO dagstop_listener;


--
-- Name: TABLE setting; Type: ACL; Schema: dagstop; Owner: -
--

GRANT SELECT ON TABLE dagstop.setting TO dagstop_listener;


--
-- PostgreSQL database dump complete
--

