"""Arithmetic as people type it, read with Python's parser and computed here: nothing typed is ever run as code.

Known are numbers, names that were given, ``+ - * / // % **``, comparisons, ``and or not``, ``x if c else y``, the bit
operators, ``values[0]``, and the functions in ``FUNCTIONS``; everything else is refused. No number may grow beyond
``MAX_BITS``, so that the time is bounded by the length of the expression.
"""

from __future__ import annotations

import ast
import math
import operator
import warnings
from typing import TYPE_CHECKING, Any

from photokeep_nodes.errors import NodeInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_CHARACTERS = 4_000
MAX_DEPTH = 50
MAX_BITS = 20_000
_MOST_DIGITS = 400  # for round(); a float has 309 before the point

Number = int | float


def evaluate(expression: str, names: Mapping[str, Number]) -> Number:
    """The value of an expression.

    Args:
        expression: such as ``max(a, b) * 2``.
        names: what letters stand for; ``values`` stands for all of them, in this order.
    Raises:
        NodeInputError: it is empty, too long, no arithmetic, or has no finite value.
    """
    text = expression.strip()
    if not text:
        raise NodeInputError("the expression is empty", hint="Write one, such as a + b.")
    if len(text) > MAX_CHARACTERS:
        raise NodeInputError(
            f"the expression has {len(text):,} characters", hint=f"Use at most {MAX_CHARACTERS:,}, in several nodes."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's advice on style is not for people who type a + b
            tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        why = getattr(error, "msg", None) or "it is nested too deeply"
        raise _refused(text, f"it cannot be read: {why}") from None
    known: dict[str, Any] = {**names, "values": list(names.values())}
    try:
        result = _value(tree.body, known, 0)
        if not isinstance(result, (int, float)):
            raise TypeError("its value is no number")
        if not math.isfinite(float(result)):
            raise OverflowError("its value is not finite")
    except NodeInputError:
        raise
    except ZeroDivisionError:
        raise _refused(text, "it divides by zero") from None
    except (ArithmeticError, TypeError, ValueError, LookupError) as error:
        raise _refused(text, str(error)) from None
    return result


def _refused(text: str, why: str) -> NodeInputError:
    return NodeInputError(
        f"the expression {text[:80]!r} cannot be computed: {why}",
        hint=f"Use numbers, the inputs' letters, arithmetic, comparisons, and {', '.join(FUNCTIONS)}.",
    )


def _value(node: ast.expr, known: Mapping[str, Any], depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError("it is nested too deeply")

    def inner(part: ast.expr) -> Any:
        return _value(part, known, depth + 1)

    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return _bounded(node.value)
    if isinstance(node, ast.Name):
        return _named(node.id, known)
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        return _bounded(_BINARY[type(node.op)](_number(inner(node.left)), _number(inner(node.right))))
    if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
        return _bounded(_UNARY[type(node.op)](_number(inner(node.operand))))
    if isinstance(node, ast.BoolOp):
        return _connected(node, inner)
    if isinstance(node, ast.Compare):
        return _compared(node, inner)
    if isinstance(node, ast.IfExp):
        return inner(node.body) if inner(node.test) else inner(node.orelse)
    if isinstance(node, ast.Subscript):
        return _item(inner(node.value), inner(node.slice))
    if isinstance(node, ast.Call):
        return _called(node, inner)
    raise ValueError(f"{type(node).__name__} is no arithmetic")


def _named(name: str, known: Mapping[str, Any]) -> Any:
    if name not in known:
        raise ValueError(f"there is no {name[:40]!r}; known are {', '.join(known)}")
    return known[name]


def _number(value: Any) -> Any:
    if not isinstance(value, (int, float)):
        raise TypeError("values is a list; take one of it, or its sum")
    return value


def _bounded(value: Any) -> Any:
    """A number as it is.

    Raises:
        ValueError, OverflowError: it is complex, or a larger integer than is computed with here.
    """
    if isinstance(value, complex):
        raise ValueError("a root of a negative number is no real one")  # noqa: TRY004 - it is the user's arithmetic
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise OverflowError("a number in it is too large")
    return value


def _connected(node: ast.BoolOp, inner: Callable[[ast.expr], Any]) -> Any:
    """``and`` and ``or`` as in Python: the value that decided, and nothing behind it is looked at."""
    until = isinstance(node.op, ast.Or)
    result: Any = not until
    for part in node.values:
        result = inner(part)
        if bool(result) is until:
            break
    return result


def _compared(node: ast.Compare, inner: Callable[[ast.expr], Any]) -> bool:
    left = _number(inner(node.left))
    for sign, part in zip(node.ops, node.comparators, strict=True):
        if type(sign) not in _COMPARISONS:
            raise ValueError(f"{type(sign).__name__} is no comparison of numbers")
        right = _number(inner(part))
        if not _COMPARISONS[type(sign)](left, right):
            return False
        left = right
    return True


def _item(values: Any, index: Any) -> Any:
    if not isinstance(values, list) or not isinstance(index, int):
        raise TypeError("only values can be counted off, as values[0]")
    return values[index]


def _called(node: ast.Call, inner: Callable[[ast.expr], Any]) -> Any:
    if not isinstance(node.func, ast.Name) or node.func.id not in FUNCTIONS or node.keywords:
        raise ValueError(f"there is no such function: {ast.unparse(node.func)[:40]}")
    return _bounded(FUNCTIONS[node.func.id](*[inner(part) for part in node.args]))


def _times(first: Number, second: Number) -> Number:
    if isinstance(first, int) and isinstance(second, int) and first.bit_length() + second.bit_length() > MAX_BITS + 1:
        raise OverflowError("a number in it is too large")
    return first * second


def _power(base: Number, exponent: Number) -> Any:
    whole = isinstance(base, int) and isinstance(exponent, int)
    if whole and abs(base) > 1 and int(base).bit_length() * abs(exponent) > MAX_BITS:
        raise OverflowError("a number in it is too large")
    return base**exponent


def _shifted_left(value: int, by: int) -> int:
    if by > MAX_BITS:
        raise OverflowError("a number in it is too large")
    return value << by


def _rounded(value: Number, digits: int | None = None) -> Number:
    if digits is not None and abs(digits) > _MOST_DIGITS:
        raise ValueError(f"no number is rounded to {digits} digits")
    return round(value, digits)


def _sum(*values: Any) -> Any:
    return sum(values[0]) if len(values) == 1 and isinstance(values[0], list) else sum(values)


_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: _times,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
    ast.LShift: _shifted_left,
    ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
    ast.Invert: lambda value: -value - 1 if isinstance(value, bool) else ~value,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sum": _sum,
    "min": min,
    "max": max,
    "abs": abs,
    "round": _rounded,
    "pow": _power,
    "sqrt": math.sqrt,
    "ceil": math.ceil,
    "floor": math.floor,
    "log": math.log,
    "log2": math.log2,
    "log10": math.log10,
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
    "int": int,
    "float": float,
}
"""The host's. None is given text: there is none in an expression."""
