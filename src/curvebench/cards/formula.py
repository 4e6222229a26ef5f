"""Cost formulas of the cards, e.g. ``"2*history*d + 2*d"``: arithmetic only, never Python's ``eval``."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from functools import lru_cache

from curvebench.errors import CardError, did_you_mean

_BINARY: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_UNARY: dict[type[ast.unaryop], Callable[[float], float]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}
_FUNCTIONS: dict[str, tuple[Callable[..., float], int]] = {
    "max": (max, 2),
    "min": (min, 2),
    "ceil": (math.ceil, 1),
    "log2": (math.log2, 1),
}
_ALLOWED = "numbers, + - * / **, parentheses, max, min, ceil, log2 and named variables"
_LONGEST = 200  # characters; bounds the depth of nesting, and so the stack


def evaluate(formula: str | float, **variables: float) -> float:
    """The value of ``formula`` with ``variables`` put in; everything is computed in float64.

    Raises:
        CardError: anything but arithmetic, an unknown variable, or a value that is not finite and real.
    """
    if not isinstance(formula, str):
        return float(formula)
    try:
        value = float(_value(_parse(formula), variables, formula))
    except (ArithmeticError, ValueError, TypeError) as error:
        # TypeError: (-1) ** 0.5 is complex in Python
        raise CardError(f"{formula!r}: cannot be computed: {error}") from None
    if not math.isfinite(value):
        raise CardError(f"{formula!r}: is {value}, must be finite")
    return value


def variables_of(formula: str | float) -> set[str]:
    """The variables that ``formula`` names.

    Raises:
        CardError: ``formula`` is anything but arithmetic.
    """
    if not isinstance(formula, str):
        return set()
    found: set[str] = set()
    _collect(_parse(formula), found, formula)
    return found


@lru_cache(maxsize=256)
def _parse(formula: str) -> ast.expr:
    if len(formula) > _LONGEST:
        raise CardError(f"{formula[:20]!r}...: longer than {_LONGEST} characters")
    try:
        return ast.parse(formula.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise CardError(f"{formula!r}: not a formula: allowed are {_ALLOWED}") from None


def _is_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)


def _function(node: ast.Call, formula: str) -> Callable[..., float]:
    if not isinstance(node.func, ast.Name) or node.func.id not in _FUNCTIONS or node.keywords:
        raise CardError(f"{formula!r}: {ast.unparse(node)!r} is not allowed: allowed are {_ALLOWED}")
    function, least = _FUNCTIONS[node.func.id]
    if len(node.args) < least or (least == 1 and len(node.args) > 1):
        wanted = "one argument" if least == 1 else "at least two arguments"
        raise CardError(f"{formula!r}: {node.func.id} takes {wanted}")
    return function


def _value(node: ast.expr, variables: dict[str, float], formula: str) -> float:
    if isinstance(node, ast.Constant) and _is_number(node):
        return float(node.value)  # type: ignore[arg-type]  # _is_number says int or float; floats overflow, ints hang
    if isinstance(node, ast.Name):
        if node.id not in variables:
            raise CardError(f"{formula!r}: unknown variable {node.id!r}{did_you_mean(node.id, variables)}")
        return float(variables[node.id])
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        return _BINARY[type(node.op)](_value(node.left, variables, formula), _value(node.right, variables, formula))
    if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
        return _UNARY[type(node.op)](_value(node.operand, variables, formula))
    if isinstance(node, ast.Call):
        return _function(node, formula)(*(_value(argument, variables, formula) for argument in node.args))
    raise CardError(f"{formula!r}: {ast.unparse(node)!r} is not allowed: allowed are {_ALLOWED}")


def _collect(node: ast.expr, found: set[str], formula: str) -> None:
    if isinstance(node, ast.Name):
        found.add(node.id)
    elif isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        _collect(node.left, found, formula)
        _collect(node.right, found, formula)
    elif isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
        _collect(node.operand, found, formula)
    elif isinstance(node, ast.Call):
        _function(node, formula)
        for argument in node.args:
            _collect(argument, found, formula)
    elif not _is_number(node):
        raise CardError(f"{formula!r}: {ast.unparse(node)!r} is not allowed: allowed are {_ALLOWED}")
