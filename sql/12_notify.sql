-- Fired by: the functions of 07_orders.sql and 09_cascade.sql, once orders were written.
-- Changes: NOTIFY on the channel dagstop with an empty payload; Postgres folds the equal ones of a
-- transaction into one, delivered at its commit.
-- Leaves alone: everything else. The row is the truth: a lost notification costs time, never an order.

create or replace function dagstop.ring() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    -- a full queue would fail Airflow's commit, where nothing can catch it; and Postgres prepares no transaction
    -- (PREPARE TRANSACTION) that notifies
    if pg_notification_queue_usage() < 0.5 and not dagstop.asked_for('quiet') then
        perform pg_notify('dagstop', '');
    end if;
end
$$;
comment on function dagstop.ring() is 'Wakes the listeners at commit, once per transaction, unless the transaction has set dagstop.quiet to its number.';
