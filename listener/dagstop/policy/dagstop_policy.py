"""dagstop's cluster policy: every task's processes and containers say which attempt they belong to.

Made for Airflow 1.10.0 to 3.x on Python 2.7 and 3.5 or later; it needs nothing but the standard
library, and no DAG is edited. Save it as `airflow_local_settings.py` in `$AIRFLOW_HOME/config`
(Airflow 1.10.0 and 1.10.1 look only in the folders of PYTHONPATH), on every host that runs tasks.
A site that has an `airflow_local_settings.py` of its own saves this file beside it as
`dagstop_policy.py`. If there is no task policy in it yet, one line does:

    from dagstop_policy import *

If there is one (`policy` in Airflow 1.10, `task_policy` since 2.0), leave that line out, as the
later of two definitions would hide the other, and let the site's policy pass each task on:

    from dagstop_policy import tag_task

    def task_policy(task):
        ...  # the site's own rules
        tag_task(task)

While a task executes, these are set, always to dagstop's values, since a stop relies on them:

    AIRFLOW_CTX_DAG_ID, AIRFLOW_CTX_TASK_ID, AIRFLOW_CTX_DAG_RUN_ID, AIRFLOW_CTX_TRY_NUMBER
    AIRFLOW_CTX_EXECUTION_DATE   1.10, 2.x; ISO 8601
    AIRFLOW_CTX_LOGICAL_DATE     3.x, if the run has one; ISO 8601
    AIRFLOW_CTX_MAP_INDEX        -1 where the task is not mapped
    DAGSTOP_AIRFLOW_HOME         the AIRFLOW_HOME of the Airflow that started the task
    DAGSTOP_HOSTNAME, DAGSTOP_JOB_ID, DAGSTOP_PID
                                 1.10, 2.x; host, job and process of this try, as Airflow's database has them
    DAGSTOP_TI_ID                3.x; the uuid of this try
    DAGSTOP_POLICY               the version of this file

Two Airflows may have one AIRFLOW_HOME, in containers of their own, and the same ids: only what belongs
to this very try tells their containers apart. They are set in the environment of the task's child processes, and in the environment and (where the
operator has them) the labels of a DockerOperator's container. They are identifiers, never secrets.
Nothing here fails a task or a DAG: what goes wrong is logged once as a warning, and the task runs.
"""

import functools
import inspect
import logging
import os
import sys

__all__ = ["policy", "tag_task", "task_policy"]

VERSION = 2

_log = logging.getLogger("dagstop.policy")
_warned = set()
_active = []

_KEYS = (
    "AIRFLOW_CTX_DAG_ID",
    "AIRFLOW_CTX_TASK_ID",
    "AIRFLOW_CTX_EXECUTION_DATE",
    "AIRFLOW_CTX_LOGICAL_DATE",
    "AIRFLOW_CTX_DAG_RUN_ID",
    "AIRFLOW_CTX_TRY_NUMBER",
    "AIRFLOW_CTX_MAP_INDEX",
    "DAGSTOP_AIRFLOW_HOME",
    "DAGSTOP_HOSTNAME",
    "DAGSTOP_JOB_ID",
    "DAGSTOP_PID",
    "DAGSTOP_TI_ID",
    "DAGSTOP_POLICY",
)

# By class name in the task's line: Airflow 1.10 imports this file before its operators exist.
_CHILD_ENVIRONMENTS = {
    "BashOperator": "env",
    "BashSensor": "env",
    "PythonVirtualenvOperator": "env_vars",
    "ExternalPythonOperator": "env_vars",
}
# A Python task may execute their operators by hand, which no policy sees.
_CONTAINER_MODULES = (
    "airflow.operators.docker_operator",
    "airflow.contrib.operators.docker_swarm_operator",
    "airflow.providers.docker.operators.docker",
    "airflow.providers.docker.operators.docker_swarm",
)
_WRAPPED = "_dagstop_wrapped"


def policy(task):
    """Airflow 1.10 calls this for each task of each DAG that it loads."""
    tag_task(task)


def task_policy(task):
    """Airflow 2.0 and later call this for each task of each DAG that they load."""
    tag_task(task)


def tag_task(task):
    """Make the task's class tag what it starts. Leaves the task itself as it is; never raises.

    The class, because Airflow executes a copy of the task (1.10, 2.x), or for a mapped task (2.3
    and later) an instance that is made only then.
    """
    try:
        operator_classes = [type(task), getattr(task, "operator_class", None)]
        for module in _CONTAINER_MODULES:
            # Not getattr: it would import what a module of Airflow 2 offers under its old name.
            members = getattr(sys.modules.get(module), "__dict__", {})
            operator_classes += [members.get("DockerOperator"), members.get("DockerSwarmOperator")]
        for operator_class in operator_classes:
            if inspect.isclass(operator_class):
                _wrap(operator_class)
    except Exception as error:
        _warn("will not tag task %r" % getattr(task, "task_id", task), error)


def _wrap(operator_class):
    # Every class of the line: a subclass may replace its environment, then call super().execute().
    for owner in inspect.getmro(operator_class):
        if _WRAPPED in vars(owner):
            continue
        for name in ("execute", "resume_execution"):
            original = vars(owner).get(name)
            if inspect.isfunction(original):
                setattr(owner, _WRAPPED, True)
                setattr(owner, name, _tagging(original))


def _tagging(original):
    @functools.wraps(original)
    def wrapper(self, *args, **kwargs):
        undo = []
        try:
            _begin(self, args, kwargs, undo)
            return original(self, *args, **kwargs)
        finally:
            _end(undo)

    return wrapper


def _begin(task, args, kwargs, undo):
    """Tag this process and what the operator is about to start; `undo` gets what takes it back."""
    try:
        tags = _tags(_context(args, kwargs), task)
        if tags is None:
            # An operator that a Python task calls by hand, with a context of its own making.
            if not _active:
                raise LookupError("it is executed without Airflow's context")
            tags = _active[-1]
        _active.append(tags)
        undo.append(_active.pop)
        _tag_process(tags, undo)
        _tag_operator(task, tags, undo)
    except Exception as error:
        _raise_if_airflows(error)
        _warn("cannot tag task %r" % getattr(task, "task_id", task), error)


def _end(undo):
    for step in reversed(undo):
        try:
            step()
        except Exception as error:
            _raise_if_airflows(error)
            _warn("cannot take a tag back", error)


def _raise_if_airflows(error):
    # Airflow's handlers of SIGTERM and of timeouts raise wherever the process is: also here.
    names = [cls.__module__.split(".")[0] for cls in type(error).__mro__]
    if "airflow" in names and not isinstance(error, Warning):
        raise error


def _context(args, kwargs):
    for candidate in list(args) + [kwargs.get("context")]:
        if hasattr(candidate, "get") and _get(candidate, "ti", "task_instance") is not None:
            return candidate
    return None


def _get(context, *names):
    for name in names:
        value = context.get(name)
        if value is not None:
            return value
    return None


def _tags(context, task):
    """The tags as a dict of native strings, keys as in _KEYS; None without a context."""
    if context is None:
        return None
    ti = _get(context, "ti", "task_instance")
    dag_run = context.get("dag_run")
    run_id = getattr(dag_run, "run_id", None) or getattr(ti, "run_id", None)
    execution_date = getattr(ti, "execution_date", None)
    logical_date = None if execution_date is not None else getattr(dag_run, "logical_date", None)
    map_index = getattr(ti, "map_index", None)
    by_job = hasattr(ti, "job_id")  # up to 2.x; the uuid of 3.x is another for each try
    values = (
        ti.dag_id,
        ti.task_id,
        execution_date,
        logical_date,
        run_id or context.get("run_id"),
        ti.try_number,
        -1 if map_index is None else map_index,
        _airflow_home(task),
        getattr(ti, "hostname", None) or None if by_job else None,
        ti.job_id if by_job else None,
        getattr(ti, "pid", None) if by_job else None,
        None if by_job else getattr(ti, "id", None),
        VERSION,
    )
    return {key: _native(value) for key, value in zip(_KEYS, values) if value is not None}


def _airflow_home(task):
    if "AIRFLOW_HOME" not in os.environ:
        if getattr(task, "run_as_user", None) or "SUDO_USER" in os.environ:
            # Airflow takes that user's ~/airflow here. No answer is better than a wrong one.
            return None
    home = getattr(sys.modules.get("airflow.configuration"), "AIRFLOW_HOME", None)
    home = home or os.environ.get("AIRFLOW_HOME") or "~/airflow"
    return os.path.abspath(os.path.expanduser(home))


def _native(value):
    if hasattr(value, "isoformat"):
        value = value.isoformat()
    if hasattr(value, "encode") and not isinstance(value, str):  # unicode in Python 2
        return value.encode("utf-8")
    return str(value)


def _for_environ(text):
    # UTF-8 in the child whatever the locale: Python 3.5 and 3.6 take only ASCII in the C locale.
    if not hasattr(os, "fsdecode"):  # Python 2
        return text
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))


def _tag_process(tags, undo):
    # An attempt has a process of its own, but not in `airflow test`, `dags test` and the debug
    # executor: there the tags must not stay.
    for key in _KEYS:
        before = os.environ.get(key)
        after = _for_environ(tags[key]) if key in tags else None
        if after != before:
            undo.append(functools.partial(_set_variable, key, before, after))
            _set_variable(key, after, before)


def _set_variable(key, value, expected):
    if os.environ.get(key) != expected:
        return  # the task has set it itself
    if value is None:
        os.environ.pop(key, None)
    else:
        os.environ[key] = value


def _tag_operator(task, tags, undo):
    names = [cls.__name__ for cls in type(task).__mro__]
    if "DockerOperator" in names:
        _replace(task, "environment", _merged(task, "environment", tags), undo)
        # It would win over `environment`.
        private = getattr(task, "_private_environment", None)
        if private:
            private = {key: value for key, value in private.items() if key not in tags}
            _replace(task, "_private_environment", private, undo)
        if hasattr(task, "labels"):
            _replace(task, "labels", _merged(task, "labels", tags), undo)
    child_tags = {key: _for_environ(value) for key, value in tags.items()}
    for attribute in {_CHILD_ENVIRONMENTS[name] for name in names if name in _CHILD_ENVIRONMENTS}:
        # None: the child gets this process's environment, with the tags, or (inherit_env) nothing.
        if getattr(task, attribute, None) is not None or not getattr(task, "inherit_env", True):
            _replace(task, attribute, _merged(task, attribute, child_tags), undo)


def _merged(task, attribute, tags):
    """A new dict, as the old one may be shared by all attempts and tasks (default_args)."""
    value = getattr(task, attribute, None)
    if value is None:
        merged = {}
    elif hasattr(value, "keys"):
        merged = dict(value)
    elif isinstance(value, (list, tuple)) and attribute == "labels":
        merged = {name: "" for name in value}
    else:
        raise TypeError("%s is a %s, not a dict" % (attribute, type(value).__name__))
    merged.update(tags)
    return merged


def _replace(task, attribute, value, undo):
    before = getattr(task, attribute, None)
    undo.append(functools.partial(_put_back, task, attribute, before, value))
    setattr(task, attribute, value)


def _put_back(task, attribute, before, value):
    if getattr(task, attribute, None) is value:
        setattr(task, attribute, before)


def _warn(what, error):
    key = (type(error).__name__, str(error))
    if key not in _warned:
        _warned.add(key)
        _log.warning("dagstop policy: %s: %s: %s", what, key[0], key[1])
