-- Fired by: dagstop_doorbell, once per statement that inserts into dagstop.stop_order.
-- Changes: NOTIFY on the channel dagstop with an empty payload; Postgres folds the equal ones of a
-- transaction into one, delivered at its commit.
-- Leaves alone: everything else. The row is the truth: a lost notification costs time, never an order.

create or replace function dagstop.ring() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    -- a full queue would fail Airflow's commit, where nothing can catch it
    if pg_notification_queue_usage() < 0.5 then
        perform pg_notify('dagstop', '');
    end if;
    return null;
end
$$;
comment on function dagstop.ring() is 'Trigger function: wakes the listeners.';

drop trigger if exists dagstop_doorbell on dagstop.stop_order;
create trigger dagstop_doorbell
    after insert on dagstop.stop_order
    for each statement execute function dagstop.ring();
comment on trigger dagstop_doorbell on dagstop.stop_order is 'Wakes the listeners when orders were written.';
