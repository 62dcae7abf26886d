-- Fired by: the listeners, through queries.sql.
-- Changes: the hosts' reports and the listeners' heartbeats; by the chores: the closing of orders, the lines in
-- Airflow's audit log, the cascade of orders that a fault left without it, what the fence could not put back, and
-- the removal of old rows bit by bit.
-- Leaves alone: orders and targets themselves, until they are older than keep_seconds.
-- Security definer: role dagstop_listener may write only what these functions write, and each login
-- role only in the names of its own hosts.

-- A session may leave its transaction open after any of these calls. So what a listener calls as a function writes
-- rows of its own host only, and everything else is a chore of the procedure do_chores, which commits each and
-- which Postgres refuses inside a transaction. Nothing here waits for a lock that such a session holds.

drop function if exists dagstop.complete_pending();  -- of an earlier release
drop function if exists dagstop.close_orders(bigint[]);  -- of an earlier release, which returned nothing

create or replace function dagstop.waits_for(for_order dagstop.stop_order) returns text[]
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
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
comment on function dagstop.waits_for(dagstop.stop_order) is 'The live hosts that still owe a final report on an order. One that has said nothing of the order for live_seconds (after settle_seconds) is not waited for: otherwise any login that may send heartbeats could keep every order open.';

create or replace function dagstop.close_orders(order_ids bigint[]) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
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
comment on function dagstop.close_orders(bigint[]) is 'Closes the orders that have a final report from at least one host and wait for no other; returns how many.';

create or replace function dagstop.audit_reports(order_ids bigint[]) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
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
comment on function dagstop.audit_reports(bigint[]) is 'Writes the final reports of these orders, or of all, to Airflow''s audit log, if they are not there yet.';

create or replace function dagstop.require_short(what text, value text, most integer) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
    if length(value) > most then
        raise exception 'dagstop: % has % characters, % at most are taken', what, length(value), most
            using errcode = 'program_limit_exceeded';
    end if;
end
$$;
comment on function dagstop.require_short(text, text, integer) is 'Raises if a text from a listener is too long.';

create or replace function dagstop.require_small(what text, value jsonb, most integer) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
    if pg_column_size(value) > most then
        raise exception 'dagstop: % has % bytes, % at most are taken', what, pg_column_size(value), most
            using errcode = 'program_limit_exceeded';
    end if;
end
$$;
comment on function dagstop.require_small(text, jsonb, integer) is 'Raises if a listener''s detail is too large.';

create or replace function dagstop.speak_for(host text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
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
comment on function dagstop.speak_for(text) is 'Raises unless the session''s login role may report for a host: the first that did, its members, and the owner of dagstop.';

create or replace function dagstop.write_report(
    order_id bigint, host text, outcome text, first_signal_at timestamptz, last_death_at timestamptz, detail jsonb
) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan  -- here and in what it calls: for the sizes that the tables have now
set lock_timeout = '1s'  -- a session that has this very host's rows
as $$
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
comment on function dagstop.write_report(bigint, text, text, timestamptz, timestamptz, jsonb) is 'Writes or renews a host''s report on an order (outcome null: in progress). do_chores closes the order if this was the last report.';

create or replace function dagstop.complete_some(order_ids bigint[], schema_name text, give_way_at timestamptz) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
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
comment on function dagstop.complete_some(bigint[], text, timestamptz) is 'Cascades orders that were left behind: all at once, or, if one of them fails, in halves until only that one is left. Begins nothing after give_way_at.';

create or replace function dagstop.complete_left() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
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
comment on function dagstop.complete_left() is 'Cascades the orders that were left behind after a fault or because another session held their rows. One that fails does not hold up the others.';

create or replace function dagstop.pending() returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off  -- the few by their indexes, also where the tables grew a moment ago
as $$
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
comment on function dagstop.pending() is 'How many orders are yet to be written or cascaded, and refused writes to be reverted; the chores do all of it.';

create or replace function dagstop.close_left_behind() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
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
comment on function dagstop.close_left_behind() is 'Closes orders whose last outstanding host has died: looks at a few open ones at each call, and at more as long as it finds some.';

create or replace function dagstop.prune() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
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
comment on function dagstop.prune() is 'Deletes everything older than keep_seconds, including listeners not seen since; at most 500 orders and 500 faults per call.';

create or replace function dagstop.be_alive(host text, listener_id uuid, version text, detail jsonb) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
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
comment on function dagstop.be_alive(text, uuid, text, jsonb) is 'Writes the row of a running listener.';

create or replace function dagstop.chore(named text, order_ids bigint[] default null) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
set lock_timeout = '1s'
as $$
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
$$;
comment on function dagstop.chore(text, bigint[]) is 'Runs one of the chores, by name; a part of dagstop.do_chores, which alone may call it.';

-- no search_path: Postgres lets a procedure that has one not commit. It uses nothing that a path could change.
create or replace procedure dagstop.do_chores(reported bigint[] default null)
language plpgsql
as $$
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
comment on procedure dagstop.do_chores(bigint[]) is 'The work that follows reports: closing the orders just reported on, and Airflow''s audit log. Without orders, all chores: also cascades and fences that were left behind, and old rows. Each step is committed; refused inside a transaction.';

create or replace function dagstop.heartbeat(host text, listener_id uuid, version text, detail jsonb)
returns table (triggers_ok boolean, faults bigint, pending bigint)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan  -- here and in what it calls: for the sizes that the tables have now
set lock_timeout = '1s'  -- a session that has this very host's rows
as $$
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
comment on function dagstop.heartbeat(text, uuid, text, jsonb) is 'A listener''s heartbeat. Returns whether all triggers are in place, the number of the last recorded fault, and how much is left for the chores.';

create or replace function dagstop.retire(host text, listener_id uuid) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '1s'  -- a session that has this very host's rows
as $$
#variable_conflict use_column
begin
    perform dagstop.speak_for(retire.host);
    delete from dagstop.listener l where l.host = retire.host and l.listener_id = retire.listener_id;
end
$$;
comment on function dagstop.retire(text, uuid) is 'Deletes the row of a listener that ends cleanly, unless a newer listener of that host has written its own.';

create or replace function dagstop.forget_host(host text) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '1s'  -- a session that has this very host's rows
as $$
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
comment on function dagstop.forget_host(text) is 'Removes a host that is gone for good from the listeners, and frees its name; false if there is none of that name. Refused while its listener is running. Orders and reports stay.';
