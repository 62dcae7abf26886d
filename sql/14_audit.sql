-- Fired by: dagstop.write_report, when a host's final report says that something was stopped, may be left
-- alive or was not found, and again if a later one says more. An order that was closed already gets a row only
-- for what was done about it since.
-- Changes: writes a row into Airflow's own table log, which its web interface shows as the audit log; not
-- where the setting airflow_log is off, and not for observe-only, which changes nothing in Airflow's tables.
-- Leaves alone: the report, which is written whatever becomes of this; all other rows of log. It waits for
-- nobody: a table that a migration holds for a second gets no row, and dagstop.fault one.

create or replace function dagstop.left_alive(detail jsonb) returns jsonb
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    -- what surely is not the run's says whose it is
    select coalesce(jsonb_agg(s), '[]') from jsonb_array_elements(coalesce(detail -> 'spared', '[]')) as s where not s ? 'whose'
$$;
comment on function dagstop.left_alive(jsonb) is 'From a report''s detail: what was spared and belongs, or may belong, to the run.';

create or replace function dagstop.audit_text(for_order dagstop.stop_order, report_host text, outcome text, detail jsonb)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
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
comment on function dagstop.audit_text(dagstop.stop_order, text, text, jsonb) is 'The line about a host''s final report for Airflow''s audit log.';

create or replace function dagstop.audit(order_id bigint, report_host text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
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
$$;
comment on function dagstop.audit(bigint, text) is 'Writes a host''s final report on an order into Airflow''s audit log, in the shape that table log has at that moment.';
