-- The tables of Airflow 3.3.2 that dagstop looks at: a task instance has a uuid, new at each try,
-- and a run may have no logical_date. Foreign keys to tables that are not here (log_template,
-- trigger, dag_version, backfill) are left out.

create table alembic_version (
    version_num varchar(32) not null,
    constraint alembic_version_pkc primary key (version_num)
);
insert into alembic_version values ('d2f4e1b3c5a7');

create table dag_run (
    id serial primary key,
    dag_id varchar(250) not null,
    queued_at timestamptz,
    logical_date timestamptz,
    start_date timestamptz,
    end_date timestamptz,
    state varchar(50),
    run_id varchar(250) not null,
    creating_job_id integer,
    run_type varchar(50) not null,
    triggered_by varchar(50),
    triggering_user_name varchar(512),
    conf jsonb,
    data_interval_start timestamptz,
    data_interval_end timestamptz,
    run_after timestamptz not null,
    last_scheduling_decision timestamptz,
    log_template_id integer,
    created_at timestamptz,
    updated_at timestamptz,
    clear_number integer not null default 0,
    backfill_id integer,
    bundle_version varchar(250),
    scheduled_by_job_id integer,
    context_carrier jsonb,
    span_status varchar(250) not null default 'not_started',
    created_dag_version_id uuid,
    partition_key varchar(250),
    partition_date timestamptz,
    unique (dag_id, logical_date),
    unique (dag_id, run_id)
);
create index dag_id_state on dag_run (dag_id, state);
create index idx_dag_run_created_dag_version_id on dag_run (created_dag_version_id);
create index idx_dag_run_dag_id on dag_run (dag_id);
create index idx_dag_run_queued_dags on dag_run (state, dag_id) where state = 'queued';
create index idx_dag_run_run_after on dag_run (run_after);
create index idx_dag_run_running_dags on dag_run (state, dag_id) where state = 'running';

create table task_instance (
    id uuid primary key,
    task_id varchar(250) not null,
    dag_id varchar(250) not null,
    run_id varchar(250) not null,
    map_index integer not null default -1,
    start_date timestamptz,
    end_date timestamptz,
    duration double precision,
    state varchar(20),
    try_number integer not null,
    max_tries integer not null default -1,
    hostname varchar(1000),
    unixname varchar(1000),
    pool varchar(256) not null,
    pool_slots integer not null,
    queue varchar(256),
    priority_weight integer,
    operator varchar(1000),
    custom_operator_name varchar(1000),
    queued_dttm timestamptz,
    scheduled_dttm timestamptz,
    queued_by_job_id integer,
    last_heartbeat_at timestamptz,
    pid integer,
    executor varchar(1000),
    executor_config bytea,
    updated_at timestamptz,
    rendered_map_index varchar(250),
    context_carrier jsonb,
    span_status varchar(250) not null default 'not_started',
    external_executor_id text,
    trigger_id integer,
    trigger_timeout timestamptz,
    next_method varchar(1000),
    next_kwargs jsonb,
    task_display_name varchar(2000),
    dag_version_id uuid,
    retry_delay_override double precision,
    retry_reason varchar(500),
    constraint task_instance_composite_key unique (dag_id, task_id, run_id, map_index),
    constraint task_instance_dag_run_fkey
        foreign key (dag_id, run_id) references dag_run (dag_id, run_id) on delete cascade
);
create index ti_dag_run on task_instance (dag_id, run_id);
create index ti_dag_state on task_instance (dag_id, state);
create index ti_dag_version_id on task_instance (dag_version_id);
create index ti_heartbeat on task_instance (last_heartbeat_at);
create index ti_pool on task_instance (pool, state, priority_weight);
create index ti_state on task_instance (state);
create index ti_state_lkp on task_instance (dag_id, task_id, run_id, state);
create index ti_trigger_id on task_instance (trigger_id);
