"""A bounded evaluator of a recipe's `eval(…)` arithmetic; not Python's eval, and nothing that a recipe could hang.

Grammar: SparseML 1.6.1's restricted_eval. Numbers, names, + - * / // % **, unary + and -, abs float int min max round.
"""

from __future__ import annotations

import ast
import math
import operator
import warnings
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from hubcache.errors import BadConfig

Number = int | float
LONGEST = 1000  # characters
DEEPEST = 100  # nested operations
LARGEST = 10**30  # of any intermediate result, so that no multiplication of integers grows without end

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_CALLS: dict[str, Callable[..., Any]] = {"abs": abs, "float": float, "int": int, "min": min, "max": max, "round": round}
_COUNTS = {"abs": (1, 1), "float": (1, 1), "int": (1, 1), "min": (2, 100), "max": (2, 100), "round": (1, 2)}


def inside(text: str) -> str | None:
    """Return what stands in the parentheses of a text that is `eval(…)` as a whole, None of any other text."""
    text = text.strip()
    return text[5:-1].strip() if text.startswith("eval(") and text.endswith(")") else None


def names_in(source: str) -> set[str]:
    """Return the variables an expression asks for.

    Raises BadConfig: it does not parse.
    """
    try:
        tree = _parsed(source)
    except BadConfig:
        return {source}  # a variable whose name is no identifier; evaluate() refuses it where there is none
    found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    return found - called


def evaluate(source: str, variables: Mapping[str, Any]) -> Any:
    """Return an expression's number; a variable's name alone gives its value, whatever it is.

    Raises BadConfig.
    """
    if source in variables:
        return variables[source]
    return _value(_parsed(source).body, variables, 0)


def _parsed(source: str) -> ast.Expression:
    if len(source) > LONGEST:
        raise BadConfig(f"an expression of {len(source)} characters is too long: {LONGEST} at most")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # `1or` is refused below, not talked about
            return ast.parse(source, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise BadConfig(f"eval({source}) is no arithmetic") from None


def _value(node: ast.expr, variables: Mapping[str, Any], depth: int) -> Number:
    if depth > DEEPEST:
        raise BadConfig(f"an expression is nested deeper than {DEEPEST}")
    if isinstance(node, ast.Constant):
        return _number(node.value, "a constant")
    if isinstance(node, ast.Name):
        return _variable(node.id, variables)
    if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
        return _number(_UNARY[type(node.op)](_value(node.operand, variables, depth + 1)), "a result")
    if isinstance(node, ast.BinOp):
        sides = (_value(node.left, variables, depth + 1), _value(node.right, variables, depth + 1))
        return _number(_computed(node.op, *sides), "a result")
    if isinstance(node, ast.Call):
        return _number(_called(node, variables, depth), "a result")
    raise BadConfig(f"eval() has no {_named(node)}", hint="+ - * / // % **, parentheses, abs float int min max round")


def _variable(name: str, variables: Mapping[str, Any]) -> Number:
    if name not in variables:
        near = get_close_matches(name, [str(each) for each in variables], 1)
        hint = f"did you mean {near[0]}?" if near else "variables are the keys beside the modifiers"
        raise BadConfig(f"there is no variable {name!r}", hint=hint)
    value = variables[name]
    if isinstance(value, str):
        hint = "YAML 1.1 reads 1e-4 as text: write 1.0e-4" if _reads_as_number(value) else ""
        raise BadConfig(f"{name} is text, {value[:40]!r}: nothing can be computed with it", hint=hint)
    return _number(value, f"variable {name}")


def _number(value: Any, what: str) -> Number:
    if not isinstance(value, (int, float)):
        raise BadConfig(f"{what} is {type(value).__name__}, not a number")
    if abs(value) > LARGEST or not math.isfinite(value):
        raise BadConfig(f"{what} is out of range")
    return int(value) if isinstance(value, bool) else value


def _computed(kind: ast.operator, left: Number, right: Number) -> Any:
    try:
        if isinstance(kind, ast.Pow):
            return _power(left, right)
        if type(kind) in _BINARY:
            return _BINARY[type(kind)](left, right)
    except (ZeroDivisionError, OverflowError) as error:
        raise BadConfig(f"eval() cannot compute {left:g} and {right:g}: {error}") from None
    raise BadConfig(f"eval() has no {_named(kind)}", hint="+ - * / // % **")


def _power(base: Number, exponent: Number) -> Any:
    if abs(exponent) * math.log2(max(2, abs(base))) > 128:
        raise BadConfig(f"{base:g} ** {exponent:g} is out of range")
    return base**exponent


def _called(node: ast.Call, variables: Mapping[str, Any], depth: int) -> Any:
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    if name not in _CALLS:
        raise BadConfig(f"eval() has no function {name or _named(node.func)!r}", hint="abs float int min max round")
    low, high = _COUNTS[name]
    if node.keywords or not low <= len(node.args) <= high:
        raise BadConfig(f"{name}() in eval() takes {low} to {high} numbers")
    arguments = [_value(each, variables, depth + 1) for each in node.args]
    if name == "round" and len(arguments) == 2 and (not isinstance(arguments[1], int) or abs(arguments[1]) > 30):
        raise BadConfig("round() takes a number of digits up to 30")
    return _CALLS[name](*arguments)


def _named(node: ast.AST) -> str:
    return type(node).__name__.lower()


def _reads_as_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
