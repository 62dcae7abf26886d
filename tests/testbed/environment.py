"""The environment in which each generation of Airflow is run."""

from __future__ import annotations

import os
import re
from pathlib import Path

_SECRET = "0123456789abcdef" * 4  # the testbed listens on 127.0.0.1 only and dies with the test


def generation(version: str) -> int:
    """1 for 1.10.x, 2 for 2.x, 3 for 3.x."""
    return int(version.split(".")[0])


def release(version: str) -> tuple[int, ...]:
    """`2.1.4` and `2.1.4-celery` as (2, 1, 4), which compares."""
    return tuple(map(int, version.partition("-")[0].split(".")))


def migration(version: str) -> list[str]:
    """The command that makes a release's tables, or brings older ones there."""
    if release(version) < (2, 0):
        return ["airflow", "initdb"]
    return ["airflow", "db", "upgrade" if release(version) < (2, 7) else "migrate"]


def sqlalchemy_url(url: str) -> str:
    """`url` for Airflow: psycopg2 named, as every SQLAlchemy from 1.1 to 2 understands it."""
    return re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql+psycopg2://", url)


def libpq_url(url: str) -> str:
    """`url` for psycopg2 itself."""
    return re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", url)


def variables(
    version: str,
    *,
    venv: Path,
    home: Path,
    dags: Path,
    database_url: str,
    port: int,
    log_port: int,
    parallelism: int,
    docker_url: str | None,
    policy: bool,
) -> dict[str, str]:
    """Everything Airflow and its tasks see; nothing of the caller's own Airflow or Python."""
    keep = ("LANG", "LC_ALL", "TZ", "USER", "LOGNAME", "DAGSTOP_TEST_NAMESPACE")
    env = {name: os.environ[name] for name in keep if name in os.environ}
    path = os.environ.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    core = {
        "HOME": str(home),  # gunicorn 27 and Airflow itself write into it
        "TMPDIR": str(home / "tmp"),  # a killed task leaves its airflowtmp folder behind
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__PARALLELISM": str(parallelism),
        # two cores start a hundred interpreters at once: a DAG may take a minute to load
        "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "300",
        "AIRFLOW__WEBSERVER__SECRET_KEY": _SECRET,
        "AIRFLOW__SCHEDULER__DAG_DIR_LIST_INTERVAL": "5",
        "PATH": f"{venv / 'bin'}:{path}",
        "PYTHONDONTWRITEBYTECODE": "1",  # several Airflows may share the DAG folder
        "NO_PROXY": "*",
    }
    url = sqlalchemy_url(database_url)
    own: dict[int, dict[str, str]] = {
        1: {
            "AIRFLOW__CORE__SQL_ALCHEMY_CONN": url,
            "AIRFLOW__CORE__DAG_CONCURRENCY": str(parallelism),
            "AIRFLOW__CORE__NON_POOLED_TASK_SLOT_COUNT": "128",
            "AIRFLOW__CORE__WORKER_LOG_SERVER_PORT": str(log_port),
            "AIRFLOW__WEBSERVER__RBAC": "False",
        },
        2: {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url,
            "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": str(parallelism),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(log_port),
            "AIRFLOW__API__AUTH_BACKENDS": "airflow.api.auth.backend.basic_auth",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        },
        3: {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url,
            "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": str(parallelism),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(log_port),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
            "AIRFLOW__API__SECRET_KEY": _SECRET,
            "AIRFLOW__API_AUTH__JWT_SECRET": _SECRET,
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            # 3.0 starts 4, and kills each that takes 5 s to start, as on a busy machine all do
            "AIRFLOW__API__WORKERS": "1",
            # 5 s by default: a task whose API server is that busy fails before it has begun
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        },
    }
    env.update(core)
    env.update(own[generation(version)])
    if (2,) <= release(version) < (2, 3):  # the names of these options were others
        env["AIRFLOW__CORE__SQL_ALCHEMY_CONN"] = env.pop("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN")
        env["AIRFLOW__API__AUTH_BACKEND"] = env.pop("AIRFLOW__API__AUTH_BACKENDS")
    if version == "1.10.0":
        env["AIRFLOW__CORE__TASK_RUNNER"] = "BashTaskRunner"
    if docker_url:
        env["DAGSTOP_TESTBED_DOCKER_URL"] = docker_url
    if policy and generation(version) == 1:
        env["PYTHONPATH"] = str(home / "config")  # 1.10.0 looks nowhere else
    return env
