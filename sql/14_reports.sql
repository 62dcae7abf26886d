-- Fired by: the listeners, through queries.sql.
-- Changes: the hosts' reports, the listeners' heartbeats, the closing of orders, and once a fault
-- left an order without its cascade, that cascade, and what the fence could not put back; old rows are removed bit by bit.
-- Leaves alone: orders and targets themselves, until they are older than keep_seconds.
-- Security definer: role dagstop_listener may write only what these functions write, and each login
-- role only in the names of its own hosts.

drop function if exists dagstop.close_orders(bigint[]);  -- of an earlier release, which returned nothing

create or replace function dagstop.close_orders(order_ids bigint[]) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    alive timestamptz := clock_timestamp() - dagstop.seconds_of('live_seconds', 60);
    closed bigint;
begin
    update dagstop.stop_order o
    set closed_at = clock_timestamp()
    where o.id = any (order_ids)
        and num_nonnulls(o.closed_at) = 0  -- the index on open orders is not taken for these few
        and exists (select from dagstop.report r where r.order_id = o.id and r.outcome is not null)
        and not exists (
            select from dagstop.listener l
            where l.seen_at > alive
                and not exists (
                    select from dagstop.report r
                    where r.order_id = o.id and r.host = l.host and r.outcome is not null
                )
        );
    get diagnostics closed = row_count;
    return closed;
end
$$;
comment on function dagstop.close_orders(bigint[]) is 'Closes those of these orders on which every live listener has a final report, and at least one has; how many.';

create or replace function dagstop.speak_for(host text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    holder oid;
begin
    insert into dagstop.host_role (host)
    select speak_for.host
    where not exists (select from dagstop.host_role h where h.host = speak_for.host)
    on conflict do nothing;
    update dagstop.host_role h
    set seen_on = current_date
    where h.host = speak_for.host and h.seen_on < current_date and h.role_name = session_user;
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
comment on function dagstop.speak_for(text) is 'Raises unless the session''s login role may speak for a host: the first that did, its members, and the owner of dagstop.';

create or replace function dagstop.write_report(
    order_id bigint, host text, outcome text, first_signal_at timestamptz, last_death_at timestamptz, detail jsonb
) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan  -- here and in what it calls: for the sizes that the tables have now
as $$
#variable_conflict use_column
declare
    told jsonb;
    was_closed boolean;
    done boolean := coalesce(detail -> 'processes', '[]') <> '[]' or coalesce(detail -> 'containers', '[]') <> '[]';
begin
    perform dagstop.speak_for(write_report.host);
    -- the lock makes two hosts that end at once see each other's report, so that one of them closes
    select o.closed_at is not null into was_closed from dagstop.stop_order o where o.id = write_report.order_id for update;
    if not found then
        return;  -- removed in between, nothing to report on
    end if;
    select jsonb_build_array(r.outcome, r.detail -> 'processes', r.detail -> 'containers') into told
    from dagstop.report r
    where r.order_id = write_report.order_id and r.host = write_report.host and r.outcome is not null;
    insert into dagstop.report as r (order_id, host, outcome, first_signal_at, last_death_at, detail)
    values (
        write_report.order_id, write_report.host, write_report.outcome, write_report.first_signal_at,
        write_report.last_death_at, coalesce(write_report.detail, '{}')
    )
    on conflict on constraint report_pkey do update set
        outcome = coalesce(excluded.outcome, r.outcome),  -- what is final stays final
        first_signal_at = least(r.first_signal_at, excluded.first_signal_at),
        last_death_at = greatest(r.last_death_at, excluded.last_death_at),
        reported_at = clock_timestamp(),
        detail = excluded.detail;
    if write_report.outcome is not null then
        perform dagstop.close_orders(array[write_report.order_id]);
        -- of an order that others closed, only what was done about it is news: each new host looks at those of a day
        if (done or not was_closed)
            and told is distinct from jsonb_build_array(write_report.outcome, detail -> 'processes', detail -> 'containers')
        then
            perform dagstop.audit(write_report.order_id, write_report.host);
        end if;
    end if;
end
$$;
comment on function dagstop.write_report(bigint, text, text, timestamptz, timestamptz, jsonb) is 'Writes or renews a host''s report on an order (outcome null: in progress) and closes the order if it was the last.';

create or replace function dagstop.complete_pending() returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    young constant timestamptz := clock_timestamp() - dagstop.seconds_of('order_seconds', 86400);
    pending record;
    one bigint;
begin
    for pending in
        select p.airflow_schema, array_agg(p.id order by p.id) as ids
        from (
            select o.airflow_schema, o.id from dagstop.stop_order o
            where not o.cascaded and o.kind = 'run' and o.created_at > young
            order by o.created_at
            limit 1000
            for update skip locked
        ) as p
        group by p.airflow_schema
    loop
        begin
            perform dagstop.complete_orders(pending.ids, pending.airflow_schema);
        exception
            when others then
                -- one bad order must not hold up the others
                foreach one in array pending.ids[:100] loop
                    begin
                        perform dagstop.complete_orders(array[one], pending.airflow_schema);
                    exception
                        when others then
                            perform dagstop.record_fault(
                                'complete_pending', sqlstate, sqlerrm, jsonb_build_object('order', one, 'repeats', true)
                            );
                    end;
                end loop;
        end;
    end loop;
    if not found then
        return 0;
    end if;
    return (
        select count(*) from dagstop.stop_order o where not o.cascaded and o.kind = 'run' and o.created_at > young
    );
end
$$;
comment on function dagstop.complete_pending() is 'Cascades the orders that were left behind, by a fault or since another session held their rows; how many are left still.';

create or replace function dagstop.close_left_behind() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    size constant integer := 200;
    young constant timestamptz := clock_timestamp() - dagstop.seconds_of('order_seconds', 86400);
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
        closed := dagstop.close_orders(array(
            select o.id from dagstop.stop_order o where o.id = any (looked) for update skip locked
        ));
        exit when cardinality(looked) < size;
        -- no more looks than there is something to do. Those at the front may wait for a live host for long: one
        -- look somewhere behind them
        exit when closed = 0 and skipped > 0;
        skipped := case when closed = 0 then 1 + (random() * 2000)::integer else 0 end;
        after_id := looked[size];
    end loop;
end
$$;
comment on function dagstop.close_left_behind() is 'Closes orders whose last outstanding host has died: a few of the open ones at each call, and more as long as there are such.';

create or replace function dagstop.prune() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    -- never what a host may still carry out, of which a trigger may hold a row
    oldest timestamptz := clock_timestamp()
        - greatest(dagstop.seconds_of('keep_seconds', 2592000), dagstop.seconds_of('order_seconds', 86400));
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
    where f.id = any (array(select x.id from dagstop.fault x where x.at < oldest order by x.at limit 500));
    delete from dagstop.host_role h where h.seen_on < oldest;
    delete from dagstop.listener l where l.seen_at < oldest;
end
$$;
comment on function dagstop.prune() is 'Removes what is older than keep_seconds, listeners not seen since then too; at most 500 orders and 500 faults at once.';

create or replace function dagstop.be_alive(host text, listener_id uuid, version text, detail jsonb) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    -- sooner than the others count it as dead
    alive timestamptz := clock_timestamp() - dagstop.seconds_of('live_seconds', 60) / 2;
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
comment on function dagstop.be_alive(text, uuid, text, jsonb) is 'Writes the row of a listener that lives.';

create or replace function dagstop.do_chores() returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    still_pending bigint := 0;
begin
    still_pending := dagstop.complete_pending() + dagstop.put_back_pending();
    perform dagstop.close_left_behind();
    perform dagstop.prune();
    return still_pending;
exception
    when others then
        perform dagstop.record_fault('heartbeat', sqlstate, sqlerrm, '{"repeats": true}');
        return still_pending;
end
$$;
comment on function dagstop.do_chores() is 'All that has no other time of its own than a heartbeat; how many orders still wait for their cascade.';

create or replace function dagstop.heartbeat(host text, listener_id uuid, version text, detail jsonb)
returns table (triggers_ok boolean, faults bigint, pending bigint)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan  -- here and in what it calls: for the sizes that the tables have now
as $$
begin
    perform dagstop.speak_for(heartbeat.host);
    perform dagstop.be_alive(heartbeat.host, heartbeat.listener_id, heartbeat.version, heartbeat.detail);
    pending := dagstop.do_chores();
    triggers_ok := not exists (select from dagstop.trigger_health() h where h.status <> 'installed');
    -- the number of the last one: to count them takes the longer the more there were
    faults := coalesce((select max(f.id) from dagstop.fault f), 0);
    return next;
end
$$;
comment on function dagstop.heartbeat(text, uuid, text, jsonb) is 'A listener says that it lives; does the chores, and answers whether all triggers are in place, the number of the last fault that was recorded, and how many orders still wait for their cascade.';

create or replace function dagstop.retire(host text, listener_id uuid) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    perform dagstop.speak_for(retire.host);
    delete from dagstop.listener l where l.host = retire.host and l.listener_id = retire.listener_id;
end
$$;
comment on function dagstop.retire(text, uuid) is 'A listener that ends cleanly takes its row away; a newer one of that host keeps its own.';

create or replace function dagstop.forget_host(host text) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
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
    if seen > clock_timestamp() - dagstop.seconds_of('live_seconds', 60) then
        raise exception 'dagstop.forget_host: the listener of host % lives, it was seen % s ago',
                quote_literal(forget_host.host), round(extract(epoch from clock_timestamp() - seen))
            using errcode = 'object_in_use', hint = 'stop it first: it takes its row away itself';
    end if;
    delete from dagstop.listener l where l.host = forget_host.host;
    delete from dagstop.host_role h where h.host = forget_host.host;
    return true;
end
$$;
comment on function dagstop.forget_host(text) is 'Takes a host that is gone for good out of the listeners, and sets its name free; false if there is none of that name. Never one whose listener lives. Orders and reports stay as they are.';
