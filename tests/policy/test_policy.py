"""What the policy does to tasks of our own small operators; real ones: real_airflow_probe.py."""

from __future__ import annotations

import inspect
import logging
import os
import pickle
import sys
import types
from typing import Any

import pytest

from tests.policy.operators import DATE, TAGS, PickledOperator, context, load, operators, run, tags_in


def test_container_and_process_carry_every_tag(module: types.ModuleType) -> None:
    seen = run(module, operators().DockerOperator(environment={"A": "1"}, labels={"team": "x"}))
    assert seen["environment"] == {"A": "1", **TAGS}
    assert seen["labels"] == {"team": "x", **TAGS}
    assert tags_in(seen["environ"]) == TAGS


@pytest.mark.parametrize(
    ("labels", "kept"),
    [(None, {}), ({}, {}), (["a", "b"], {"a": "", "b": ""}), ({"a": "1"}, {"a": "1"})],
)
def test_labels_of_any_form_are_kept(module: types.ModuleType, labels: Any, kept: Any) -> None:
    seen = run(module, operators().DockerOperator(environment={}, labels=labels))
    assert seen["labels"] == {**kept, **TAGS}


def test_an_operator_without_labels_gets_none(module: types.ModuleType) -> None:
    assert "labels" not in run(module, operators().DockerOperator(environment={}))


def test_our_values_win_over_the_users(module: types.ModuleType) -> None:
    lie = {"AIRFLOW_CTX_DAG_ID": "lie", "MINE": "kept"}
    task = operators().DockerOperator(environment=lie, _private_environment=lie, labels=lie)
    seen = run(module, task)
    assert seen["environment"] == {**lie, **TAGS}
    assert seen["_private_environment"] == {"MINE": "kept"}
    assert seen["labels"] == {**lie, **TAGS}


def test_the_users_objects_are_neither_changed_nor_replaced(module: types.ModuleType) -> None:
    environment, labels = {"A": "1"}, ["a"]
    task = operators().DockerOperator(environment=environment, labels=labels)
    run(module, task)
    assert task.environment is environment
    assert task.labels is labels
    assert (environment, labels) == ({"A": "1"}, ["a"])


def test_a_subclass_that_replaces_its_environment_is_tagged(module: types.ModuleType) -> None:
    seen = run(module, operators().OwnDocker(environment={}))
    assert seen["environment"] == TAGS


def test_wrapping_happens_once_however_often_a_policy_runs(module: types.ModuleType) -> None:
    classes = operators()
    module.policy(classes.OwnDocker())
    wrapped = classes.OwnDocker.execute, classes.DockerOperator.execute
    another = load()
    for each in (module.policy, module.task_policy, module.tag_task, another.task_policy):
        each(classes.OwnDocker())
        each(classes.DockerOperator())
    assert (classes.OwnDocker.execute, classes.DockerOperator.execute) == wrapped


def test_name_signature_result_and_extra_arguments_pass_through(module: types.ModuleType) -> None:
    task = operators().OwnDocker(environment={})
    before = inspect.signature(type(task).execute)
    module.policy(task)
    assert type(task).execute.__name__ == "execute"
    assert inspect.signature(type(task).execute) == before
    assert task.execute(context(), note="!") == "result!"


def test_bash_env_is_tagged_only_where_the_user_set_it(module: types.ModuleType) -> None:
    classes = operators()
    assert run(module, classes.BashOperator(env=None))["env"] is None
    assert run(module, classes.BashOperator(env={}))["env"] == TAGS
    assert run(module, classes.BashOperator(env={"A": "1"}))["env"] == {"A": "1", **TAGS}


def test_virtualenv_that_inherits_nothing_is_tagged(module: types.ModuleType) -> None:
    make = operators().PythonVirtualenvOperator
    assert run(module, make(env_vars=None, inherit_env=True))["env_vars"] is None
    assert run(module, make(env_vars=None, inherit_env=False))["env_vars"] == TAGS
    assert run(module, make(env_vars={"A": "1"}, inherit_env=False))["env_vars"] == {
        "A": "1",
        **TAGS,
    }


def test_a_mapped_task_is_tagged_through_its_operator_class(module: types.ModuleType) -> None:
    operator_class = operators().DockerOperator
    module.task_policy(types.SimpleNamespace(task_id="task", operator_class=operator_class))
    task = operator_class(environment={})
    task.execute(context(map_index=3))
    assert task.seen[0]["environment"] == {**TAGS, "AIRFLOW_CTX_MAP_INDEX": "3"}


def test_a_resumed_task_is_tagged(module: types.ModuleType) -> None:
    task = operators().DockerOperator(environment={})
    module.task_policy(task)
    task.resume_execution(next_method="execute_complete", next_kwargs=None, context=context())
    assert task.seen[0]["environment"] == TAGS


def test_airflow_3_gives_the_logical_date_or_none(module: types.ModuleType) -> None:
    make = operators().BashOperator
    named = {k: v for k, v in TAGS.items() if k != "AIRFLOW_CTX_EXECUTION_DATE"}
    seen = run(module, make(env={}), execution_date=None)
    assert seen["env"] == {**named, "AIRFLOW_CTX_LOGICAL_DATE": DATE.isoformat()}
    task, without = make(env={}), context(execution_date=None)
    without["dag_run"].logical_date = None
    task.execute(without)
    assert task.seen[0]["env"] == named


def test_airflow_3_gives_the_uuid_of_the_try(module: types.ModuleType) -> None:
    """Up to 2.x what a try has of its own is a job; where Airflow does not say which, no tag does."""
    make = operators().BashOperator
    by_job = {"DAGSTOP_HOSTNAME", "DAGSTOP_JOB_ID", "DAGSTOP_PID"}
    without = {k: v for k, v in TAGS.items() if k not in by_job}
    uuid = "01a2028e-bb1a-7ed7-97b1-6932365247ce"
    seen = run(module, make(env={}), id=uuid)
    assert seen["env"] == {**without, "DAGSTOP_TI_ID": uuid}
    assert run(module, make(env={}), job_id=None, pid=None, hostname="")["env"] == without


def test_an_inherited_tag_that_does_not_apply_is_hidden(
    module: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CTX_LOGICAL_DATE", "of the task that started this Airflow")
    seen = run(module, operators().BashOperator(env=None))
    assert "AIRFLOW_CTX_LOGICAL_DATE" not in seen["environ"]
    assert os.environ["AIRFLOW_CTX_LOGICAL_DATE"] == "of the task that started this Airflow"


def test_what_the_task_itself_sets_stays(module: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CTX_DAG_ID", "before")

    def call() -> None:
        os.environ["AIRFLOW_CTX_DAG_ID"] = "set by the task"

    run(module, operators().PythonOperator(call=call))
    assert os.environ["AIRFLOW_CTX_DAG_ID"] == "set by the task"


def test_tags_go_when_execute_raises(module: types.ModuleType) -> None:
    def call() -> None:
        raise ValueError("the task's own")

    task = operators().PythonOperator(call=call)
    with pytest.raises(ValueError, match="the task's own"):
        run(module, task)
    assert tags_in(os.environ) == {}


def test_an_operator_called_by_hand_gets_the_tags_of_the_task(
    module: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = operators()
    docker = types.ModuleType("airflow.providers.docker.operators.docker")
    docker.DockerOperator = classes.DockerOperator  # type: ignore[attr-defined] # a module made here
    monkeypatch.setitem(sys.modules, docker.__name__, docker)
    inner = classes.DockerOperator(environment={})
    run(module, classes.PythonOperator(call=lambda: inner.execute({})))
    assert inner.seen[0]["environment"] == TAGS


def test_text_beyond_ascii_reaches_the_child_as_utf8(module: types.ModuleType) -> None:
    seen = run(module, operators().BashOperator(env={}), dag_id="été")
    assert os.fsencode(seen["environ"]["AIRFLOW_CTX_DAG_ID"]) == "été".encode()


@pytest.mark.parametrize("broken", [{}, {"ti": types.SimpleNamespace(dag_id="no more")}])
def test_a_failure_of_the_policy_leaves_the_task_alone_and_is_told_once(
    module: types.ModuleType, caplog: pytest.LogCaptureFixture, broken: dict[str, Any]
) -> None:
    task = operators().DockerOperator(environment={"A": "1"})
    with caplog.at_level(logging.WARNING):
        module.policy(task)
        broken = {**broken, "dag_run": None} if broken else broken
        assert [task.execute(broken), task.execute(broken)] == ["result", "result"]
    assert task.seen[1]["environment"] == {"A": "1"}
    assert [record.name for record in caplog.records] == ["dagstop.policy"]
    assert "cannot tag task 'task'" in caplog.text


def test_an_environment_that_is_no_dict_is_left_alone(
    module: types.ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    seen = run(module, operators().DockerOperator(environment="{{ template }}"))
    assert seen["environment"] == "{{ template }}"
    assert tags_in(seen["environ"]) == TAGS
    assert "environment is a str, not a dict" in caplog.text


def test_airflows_own_signal_is_not_swallowed(
    module: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = type("AirflowException", (Exception,), {"__module__": "airflow.exceptions"})

    def signal_arrives(*_: Any) -> None:
        raise killed("Task received SIGTERM signal")

    monkeypatch.setattr(module, "_tag_operator", signal_arrives)
    task = operators().BashOperator(env=None)
    with pytest.raises(killed):
        run(module, task)
    assert task.seen == []


def test_a_policy_on_something_odd_does_not_raise(module: types.ModuleType) -> None:
    class Odd:
        @property
        def operator_class(self) -> type:
            raise RuntimeError("odd")

    for task in (None, 1, Odd(), types.SimpleNamespace(operator_class={"a": "dict"})):
        module.task_policy(task)


def test_home_is_left_out_where_it_would_be_another_users(
    module: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIRFLOW_HOME")
    make = operators().BashOperator
    assert "DAGSTOP_AIRFLOW_HOME" not in run(module, make(env={}, run_as_user="other"))["env"]
    assert run(module, make(env={}))["env"]["DAGSTOP_AIRFLOW_HOME"].endswith("/airflow")


def test_a_tagged_task_pickles(module: types.ModuleType) -> None:
    task = PickledOperator()
    module.policy(task)
    copy = pickle.loads(pickle.dumps(task))
    copy.execute(context())
    assert tags_in(copy.seen[0]["environ"]) == TAGS
