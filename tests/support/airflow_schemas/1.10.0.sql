-- The tables of Airflow 1.10.0 that dagstop looks at: a run is known by its execution_date.

create table alembic_version (
    version_num varchar(32) not null,
    constraint alembic_version_pkc primary key (version_num)
);
insert into alembic_version values ('9635ae0956e7');

create table dag_run (
    id serial primary key,
    dag_id varchar(250),
    execution_date timestamptz,
    state varchar(50),
    run_id varchar(250),
    external_trigger boolean,
    conf bytea,
    end_date timestamptz,
    start_date timestamptz,
    unique (dag_id, execution_date),
    unique (dag_id, run_id)
);
create index dag_id_state on dag_run (dag_id, state);

create table task_instance (
    task_id varchar(250) not null,
    dag_id varchar(250) not null,
    execution_date timestamptz not null,
    start_date timestamptz,
    end_date timestamptz,
    duration double precision,
    state varchar(20),
    try_number integer,
    hostname varchar(1000),
    unixname varchar(1000),
    job_id integer,
    pool varchar(50),
    queue varchar(50),
    priority_weight integer,
    operator varchar(1000),
    queued_dttm timestamptz,
    pid integer,
    max_tries integer default -1,
    executor_config bytea,
    primary key (task_id, dag_id, execution_date)
);
create index ti_dag_state on task_instance (dag_id, state);
create index ti_job_id on task_instance (job_id);
create index ti_pool on task_instance (pool, state, priority_weight);
create index ti_state on task_instance (state);
create index ti_state_lkp on task_instance (dag_id, task_id, execution_date, state);
