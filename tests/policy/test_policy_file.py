"""The policy file as a file: it must load in any Python from 2.7 on, inside any Airflow."""

from __future__ import annotations

import ast
import inspect
import io
import sys
import tokenize
import types

import pytest

from dagstop import plugin, policy


def test_it_is_self_contained_and_exports_the_hooks_alone(module: types.ModuleType) -> None:
    # Airflow 2 copies every public name of airflow_local_settings over its own settings.
    assert sorted(module.__all__) == ["policy", "tag_task", "task_policy"]
    nodes = list(ast.walk(ast.parse(policy.text())))
    assert not any(isinstance(node, ast.ImportFrom) for node in nodes)
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    assert names <= set(sys.stdlib_module_names)
    for hook in (module.policy, module.task_policy):
        assert list(inspect.signature(hook).parameters) == ["task"]  # Airflow 2 checks the name


PYTHON_3_ONLY = (
    ast.AnnAssign, ast.AsyncFor, ast.AsyncFunctionDef, ast.AsyncWith, ast.Await, ast.JoinedStr,
    ast.Match, ast.NamedExpr, ast.Nonlocal, ast.YieldFrom,
)  # fmt: skip


@pytest.mark.parametrize("text", [policy.text(), plugin.text()], ids=["policy", "plugin"])
def test_it_parses_in_python_3_5_and_uses_nothing_that_2_7_lacks(text: str) -> None:
    tree = ast.parse(text, feature_version=(3, 5))
    for node in ast.walk(tree):
        assert not isinstance(node, PYTHON_3_ONLY), ast.unparse(node)
        if isinstance(node, ast.FunctionDef):
            arguments = node.args
            assert not arguments.kwonlyargs and not arguments.posonlyargs, node.name
            annotated = [a.annotation for a in arguments.args] + [node.returns]
            assert not any(annotated), node.name
        if isinstance(node, ast.Raise):
            assert node.cause is None, ast.unparse(node)
        if isinstance(node, ast.ClassDef):
            assert not node.keywords, node.name
        if isinstance(node, ast.Call):
            names = {getattr(node.func, "id", ""), getattr(node.func, "attr", "")}
            assert names.isdisjoint({"print", "breakpoint", "exec"}), ast.unparse(node)
            assert "super" not in names or node.args, ast.unparse(node)
        if isinstance(node, ast.Dict):
            assert None not in node.keys, "** in a dict"
    text.encode("ascii")  # Python 2.7 wants a coding line for more
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        assert not (token.type == tokenize.NUMBER and "_" in token.string), token
