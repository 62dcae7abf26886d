"""Every way in which a Python module is changed: one `Mutant` for each place and change.

Comparisons, boolean operands, `not`, conditions, numbers, compared words, members of lists of words, arithmetic,
any/all and min/max, returns, keyword arguments, statements, break and continue. What people only read is left as it
is: texts, log lines, annotations, assertions, decorators. So are limits, the numbers at the top of a module: tests go
by their names.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

LISTENER = Path("listener/dagstop")
Node = TypeVar("Node", bound=ast.AST)
Item = TypeVar("Item")

_COMPARE: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
}
_TWINS = {"any": "all", "all": "any", "min": "max", "max": "min"}
_NO_KEYWORD = {"strict", "encoding", "daemon", "name"}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one module."""

    name: str  # file, function, what became what: the same after other lines were moved
    path: Path
    number: int
    lines: range
    function: (
        tuple[str, int] | None
    )  # name and first line of the outermost one around it; None: module or class level

    def tree(self) -> ast.Module:
        """The module with the change."""
        tree = ast.parse(self.path.read_text(encoding="utf-8"))
        place, after, _ = list(_all(tree))[self.number]
        return ast.fix_missing_locations(_Replace(place.node, after).visit(tree))


def mutants_of(path: Path) -> list[Mutant]:
    """All of one file, in its order."""
    count: Counter[str] = Counter()
    found = []
    for number, (place, _, change) in enumerate(_all(ast.parse(path.read_text(encoding="utf-8")))):
        said = f"{path.relative_to(LISTENER)} {place.qualified}: {change}"
        count[said] += 1
        name = said if count[said] == 1 else f"{said} #{count[said]}"
        lines = range(place.node.lineno, (place.node.end_lineno or place.node.lineno) + 1)
        if isinstance(place.node, ast.If | ast.While):
            lines = range(place.node.lineno, place.node.lineno + 1)
        found.append(Mutant(name, path, number, lines, place.function))
    return found


def _all(tree: ast.Module) -> Iterator[tuple[_Place, ast.AST, str]]:
    for place in _places(tree, (), None):
        for after, said in _changes(place.node):
            yield place, after, said


@dataclass(frozen=True, slots=True)
class _Place:
    node: ast.stmt | ast.expr
    qualified: str
    function: tuple[str, int] | None


def _places(node: ast.AST, names: tuple[str, ...], function: tuple[str, int] | None) -> Iterator[_Place]:
    """What may be changed below a node."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params", "bases"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or _is_said(child):
                continue
            inner = function
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and name != "body":
                inner = (
                    None if function == (node.name, _first_line(node)) else function
                )  # defaults: set from outside
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                below = inner
                if below is None and not isinstance(child, ast.ClassDef):
                    below = (child.name, _first_line(child))
                yield from _places(child, (*names, child.name), below)
                continue
            is_limit = isinstance(node, ast.Assign) and not names and _is_number(child)
            if is_limit:
                continue
            if isinstance(child, ast.stmt | ast.expr):
                yield _Place(child, ".".join(names) or "<module>", inner)
            yield from _places(child, names, inner)


def _first_line(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return min([node.lineno, *(one.lineno for one in node.decorator_list)])


def _is_said(node: ast.AST) -> bool:
    """Read by people only, or by the type checker."""
    if isinstance(node, ast.Assert | ast.JoinedStr | ast.Raise | ast.Import | ast.ImportFrom):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return True
    called = node.value if isinstance(node, ast.Expr) else node
    if not isinstance(called, ast.Call):
        return False
    return ast.unparse(called.func) in ("TypeVar", "NewType", "event") or ast.unparse(called.func).startswith(
        "log."
    )


def _changes(node: ast.stmt | ast.expr) -> list[tuple[ast.AST, str]]:
    """What a node may become, and how that is said."""
    found = [*_values(node), *_parts(node), *_statements(node)]
    return [(after, f"{_short(node)} -> {_short(after)}") for after in found]


def _values(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Compare():
            yield from _compared(node)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield ast.Constant(value + 1)
        case ast.BinOp(op=op) if type(op) in _ARITHMETIC:
            yield ast.BinOp(node.left, _ARITHMETIC[type(op)](), node.right)
        case ast.Name(id=name, ctx=ast.Load()) if name in _TWINS:
            yield ast.Name(_TWINS[name], ast.Load())
        case ast.IfExp(test=test) if _is_bare(test):
            yield ast.IfExp(_denied(test), node.body, node.orelse)


def _parts(node: ast.AST) -> Iterator[ast.AST]:
    """Without one of its parts."""
    match node:
        case ast.BoolOp(values=values):
            for number in range(len(values)):
                rest = _without(values, number)
                yield rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
        case ast.Call(keywords=keywords):
            for number, keyword in enumerate(keywords):
                if keyword.arg is not None and keyword.arg not in _NO_KEYWORD:
                    yield ast.Call(node.func, node.args, _without(keywords, number))
        case ast.Tuple(elts=items) | ast.Set(elts=items) | ast.List(elts=items):
            if len(items) > 1 and all(_is_word(item) for item in items):
                for number in range(len(items)):
                    yield _with(node, elts=_without(items, number))
        case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
            for at, generator in enumerate(node.generators):
                for number in range(len(generator.ifs)):
                    less = _with(generator, ifs=_without(generator.ifs, number))
                    yield _with(node, generators=[*node.generators[:at], less, *node.generators[at + 1 :]])


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.If(test=test) | ast.While(test=test) if _is_bare(test):
            yield _with(node, test=_denied(test))
        case ast.Return(value=value) if value is not None and not isinstance(value, ast.Constant):
            yield ast.Return(ast.Constant(None))
        case ast.Continue():
            yield from (ast.Break(), ast.Pass())
        case ast.Break():
            yield from (ast.Continue(), ast.Pass())
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Delete():
            yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()


def _without(items: list[Item], number: int) -> list[Item]:
    return [item for at, item in enumerate(items) if at != number]


def _compared(node: ast.Compare) -> Iterator[ast.AST]:
    for at, op in enumerate(node.ops):
        for other in _COMPARE[type(op)]:
            yield ast.Compare(node.left, [*node.ops[:at], other(), *node.ops[at + 1 :]], node.comparators)
    for at, value in enumerate(node.comparators):
        if _is_word(value):
            others = [*node.comparators[:at], ast.Constant("mutant"), *node.comparators[at + 1 :]]
            yield ast.Compare(node.left, node.ops, others)


def _is_number(node: ast.AST) -> bool:
    if isinstance(node, ast.BinOp):  # 1 << 20
        return _is_number(node.left) and _is_number(node.right)
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float)


def _is_word(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and node.value not in ("", b"")
    )


def _is_bare(test: ast.expr) -> bool:
    """Changed nowhere else."""
    return not isinstance(test, ast.Compare | ast.BoolOp | ast.UnaryOp)


def _denied(test: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.Not(), test)


def _with(node: Node, **fields: object) -> Node:
    other = copy.copy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return other


def _short(node: ast.AST) -> str:
    if isinstance(node, ast.If | ast.While):
        return f"{type(node).__name__.lower()} {ast.unparse(node.test)}:"
    return " ".join(ast.unparse(node).split())


class _Replace(ast.NodeTransformer):
    def __init__(self, target: ast.AST, after: ast.AST) -> None:
        self._target, self._after = target, after

    def visit(self, node: ast.AST) -> ast.AST:
        if node is self._target:
            return ast.copy_location(self._after, node)
        return super().visit(node)
