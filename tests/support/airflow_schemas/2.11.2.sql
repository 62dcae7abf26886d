-- The tables of Airflow 2.11.2 that dagstop looks at: run_id since 2.2, map_index since 2.3.
-- Foreign keys to tables that are not here (log_template, trigger) are left out.

create table alembic_version (
    version_num varchar(32) not null,
    constraint alembic_version_pkc primary key (version_num)
);
insert into alembic_version values ('5f2621c13b39');

create table dag_run (
    id serial primary key,
    dag_id varchar(250) not null,
    queued_at timestamptz,
    execution_date timestamptz not null,
    start_date timestamptz,
    end_date timestamptz,
    state varchar(50),
    run_id varchar(250) not null,
    creating_job_id integer,
    external_trigger boolean,
    run_type varchar(50) not null,
    conf bytea,
    data_interval_start timestamptz,
    data_interval_end timestamptz,
    last_scheduling_decision timestamptz,
    dag_hash varchar(32),
    log_template_id integer,
    updated_at timestamptz,
    clear_number integer not null default 0,
    unique (dag_id, execution_date),
    unique (dag_id, run_id)
);
create index dag_id_state on dag_run (dag_id, state);
create index idx_dag_run_dag_id on dag_run (dag_id);
create index idx_dag_run_queued_dags on dag_run (state, dag_id) where state = 'queued';
create index idx_dag_run_running_dags on dag_run (state, dag_id) where state = 'running';

create table task_instance (
    task_id varchar(250) not null,
    dag_id varchar(250) not null,
    run_id varchar(250) not null,
    map_index integer not null default -1,
    start_date timestamptz,
    end_date timestamptz,
    duration double precision,
    state varchar(20),
    try_number integer,
    max_tries integer default -1,
    hostname varchar(1000),
    unixname varchar(1000),
    job_id integer,
    pool varchar(256) not null,
    pool_slots integer not null,
    queue varchar(256),
    priority_weight integer,
    operator varchar(1000),
    custom_operator_name varchar(1000),
    queued_dttm timestamptz,
    queued_by_job_id integer,
    pid integer,
    executor varchar(1000),
    executor_config bytea,
    updated_at timestamptz,
    rendered_map_index varchar(250),
    external_executor_id varchar(250),
    trigger_id integer,
    trigger_timeout timestamp,
    next_method varchar(1000),
    next_kwargs json,
    task_display_name varchar(2000),
    primary key (dag_id, task_id, run_id, map_index),
    constraint task_instance_dag_run_fkey
        foreign key (dag_id, run_id) references dag_run (dag_id, run_id) on delete cascade
);
create index ti_dag_run on task_instance (dag_id, run_id);
create index ti_dag_state on task_instance (dag_id, state);
create index ti_job_id on task_instance (job_id);
create index ti_pool on task_instance (pool, state, priority_weight);
create index ti_state on task_instance (state);
create index ti_state_lkp on task_instance (dag_id, task_id, run_id, state);
create index ti_trigger_id on task_instance (trigger_id);
