-- Fired by: `dagstop install`, at first and again whenever a trigger is missing,
-- disabled or outdated; or by its `--sql` script. The search_path must find Airflow's tables.
-- Changes: attaches dagstop's triggers to dag_run and task_instance, and remembers their schema.
-- Leaves alone: columns, types, rows and every other trigger. The triggers name no column but
-- state: Postgres would refuse to alter or drop a column that a trigger names, and so would
-- break Airflow's own migrations. Conditions stand in WHEN, so other updates cost nothing; they
-- compare text with text, or an operator made by a stranger would be preferred (see 02_lock.sql).

do $$
begin
    if exists (
        select from pg_catalog.pg_partitioned_table p
        where p.partrelid = pg_catalog.to_regclass('dag_run')::oid or p.partrelid = pg_catalog.to_regclass('task_instance')::oid
    ) then
        raise exception 'dag_run or task_instance is partitioned: dagstop needs them as Airflow makes them'
            using hint = 'An UPDATE that moves a row to another partition is none for a trigger, so a stop would be missed.',
                errcode = 'feature_not_supported';
    end if;
end
$$;

insert into dagstop.setting (name, value, comment)
select 'airflow_schema', n.nspname, 'The schema of Airflow''s tables; set by dagstop install.'
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.oid = pg_catalog.to_regclass('dag_run')::oid
on conflict (name) do update set value = excluded.value;

insert into dagstop.setting (name, value, comment)
values ('triggers_checksum', '{checksum}', 'The triggers that belong here; set by dagstop install.')
on conflict (name) do update set value = excluded.value;

drop trigger if exists dagstop_order on dag_run;
create trigger dagstop_order
    after update of state on dag_run
    for each row
    when (old.state::text is distinct from new.state::text and new.state::text = 'failed'::text)
    execute function dagstop.order_run();
comment on trigger dagstop_order on dag_run is 'Writes a stop order when a run turns failed. [dagstop {checksum}]';

drop trigger if exists dagstop_cascade on dag_run;
create trigger dagstop_cascade
    after delete or update of state on dag_run
    for each statement
    execute function dagstop.cascade_statement();
comment on trigger dagstop_cascade on dag_run is 'Fails the unfinished task instances of runs that turned failed. [dagstop {checksum}]';

drop trigger if exists dagstop_deleted on dag_run;
create trigger dagstop_deleted
    after delete on dag_run
    for each row
    when (old.state::text is distinct from 'success'::text and old.state::text is distinct from 'failed'::text)
    execute function dagstop.order_deleted_run();
comment on trigger dagstop_deleted on dag_run is 'Writes a stop order when an unfinished run is deleted, if setting also_stop_on says so. [dagstop {checksum}]';

drop trigger if exists dagstop_fence on dag_run;
create trigger dagstop_fence
    after update of state on dag_run
    for each row
    when (old.state::text = 'failed'::text and new.state::text = 'running'::text)
    execute function dagstop.fence_run();
comment on trigger dagstop_fence on dag_run is 'Keeps a failed run failed when a dying task writes back an old copy of it. [dagstop {checksum}]';

drop trigger if exists dagstop_order on task_instance;
create trigger dagstop_order
    after update of state on task_instance
    for each row
    -- here and at the fence no more than this: Postgres parses the text of a condition for each statement, and
    -- most change to or from none of these
    when (
        new.state::text = any ('{failed,skipped,removed}'::text[])
        and pg_catalog.current_setting('dagstop.cascading', true) is distinct from 'on'::text
    )
    execute function dagstop.order_task();
comment on trigger dagstop_order on task_instance is 'Writes a stop order when a task instance is failed directly, or changed to a state that setting also_stop_on names. [dagstop {checksum}]';

drop trigger if exists dagstop_deleted on task_instance;
create trigger dagstop_deleted
    after delete on task_instance
    for each row
    when (old.state::text = any ('{running,restarting,shutdown}'::text[]))
    execute function dagstop.order_deleted_task();
comment on trigger dagstop_deleted on task_instance is 'Writes a stop order when a task instance is deleted while it runs, if setting also_stop_on says so. [dagstop {checksum}]';

drop trigger if exists dagstop_fence on task_instance;
create trigger dagstop_fence
    after update of state on task_instance
    for each row
    when (old.state::text = any ('{failed,skipped,removed}'::text[]))
    execute function dagstop.fence();
comment on trigger dagstop_fence on task_instance is 'Keeps a stopped task instance in the state that stopped it while its order is open. [dagstop {checksum}]';
