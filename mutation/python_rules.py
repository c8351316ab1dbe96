"""The mutants of a Python file: small changes of its syntax tree, made in its text.

Not changed are code that no test should depend on, and code that the type checker checks: annotations,
docstrings, imports, log lines, texts of errors and descriptions.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Final

from mutation.change import Change

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_COMPARISONS: Final[Mapping[type[ast.cmpop], tuple[str, str]]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: (r"is\s+not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: (r"not\s+in", "in"),
}
_OPERATORS: Final[Mapping[type[ast.operator], tuple[str, str]]] = {
    ast.Add: (r"\+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: (r"\*", "//"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "*"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
    ast.BitAnd: ("&", "|"),
}
_SWAPPED: Final = {"min": "max", "max": "min", "any": "all", "all": "any"}
LARGE: Final = 100
"""Minimum of a number that is a size or a time, where a difference of one is harmless."""
_LOG_CALL: Final = re.compile(r"\b(?:log|logger\(\))\.(?:debug|info|warning|error|exception)\(")
_WORDS: Final = frozenset({"description", "help", "title", "metavar", "epilog"})
"""Keyword arguments with texts for people."""
_TYPING: Final = frozenset({"TypeVar", "NewType", "ParamSpec", "cast"})


def python_mutants(file: str, source: str) -> list[Change]:
    """Return all mutants of a Python file, in no particular order; some may not compile (see `compiles`)."""
    return list(_Mutants(file, source).of_body(ast.parse(source).body))


def compiles(change: Change, source: str) -> bool:
    """Return whether a mutant is a valid Python program that differs from the original."""
    try:
        changed = ast.parse(change.apply(source))
        compile(changed, change.file, "exec")
    except (SyntaxError, ValueError):
        return False
    return ast.dump(changed) != ast.dump(ast.parse(source))


def _children(node: ast.stmt) -> Iterator[ast.AST]:
    """Yield the parts of a statement to examine, without annotations and decorators."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            yield from (default for default in (*node.args.defaults, *node.args.kw_defaults) if default)
            yield from node.body
        case ast.ClassDef():
            yield from node.body
        case ast.AnnAssign():
            yield from (node.value,) if node.value is not None else ()
        case _:
            yield from ast.iter_child_nodes(node)


class _Mutants:
    """A visitor of a syntax tree.

    Offsets in the tree are bytes in a line, those of a change are characters.
    """

    def __init__(self, file: str, source: str) -> None:
        self._file = file
        self._source = source
        self._lines = source.splitlines(keepends=True)
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line))

    def _at(self, line: int, column: int) -> int:
        before = self._lines[line - 1].encode()[:column].decode()
        return self._starts[line - 1] + len(before)

    def _start(self, node: ast.expr | ast.stmt | ast.keyword) -> int:
        return self._at(node.lineno, node.col_offset)

    def _end(self, node: ast.expr | ast.stmt | ast.keyword) -> int:
        return self._at(node.end_lineno or node.lineno, node.end_col_offset or node.col_offset)

    def _text(self, node: ast.expr | ast.stmt) -> str:
        return self._source[self._start(node) : self._end(node)]

    def _change(self, start: int, end: int, replacement: str, rule: str) -> Change:
        return Change(self._file, start, end, replacement, rule)

    def _replace(self, node: ast.expr | ast.stmt, replacement: str, rule: str) -> Change:
        return self._change(self._start(node), self._end(node), replacement, rule)

    def _between(
        self, left: ast.expr, right: ast.expr, pattern: str, replacement: str, rule: str
    ) -> Iterator[Change]:
        """Yield the replacement of an operator between two expressions."""
        start = self._end(left)
        word = rf"\b{pattern}\b" if pattern[0].isalpha() else pattern
        found = re.search(word, self._source[start : self._start(right)])
        if found is not None:
            yield self._change(start + found.start(), start + found.end(), replacement, rule)

    # -------------------------------------------------------------------------------------- statements

    def of_body(self, body: Sequence[ast.stmt]) -> Iterator[Change]:
        """Yield the mutants of some statements."""
        for statement in body:
            yield from self._of_statement(statement)

    def _of_statement(self, node: ast.stmt) -> Iterator[Change]:
        if self._is_left_alone(node):
            return
        yield from self._changes_of_statement(node)
        if isinstance(node, ast.Raise):  # the error's text is for people
            return
        for child in _children(node):
            yield from self._of_node(child)

    def _is_left_alone(self, node: ast.stmt) -> bool:
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING")) | ast.Import() | ast.ImportFrom() | ast.Assert():
                return True
            case (
                ast.Expr(value=ast.Constant())
                | ast.Assign(targets=[ast.Name(id="__slots__" | "model_config")])
            ):
                return True
            case ast.Expr():
                return _LOG_CALL.search(self._text(node)) is not None
        return False

    def _changes_of_statement(self, node: ast.stmt) -> Iterator[Change]:
        match node:
            case ast.Raise() | ast.Delete() | ast.AugAssign() | ast.Expr():
                yield self._replace(node, "pass", "drop statement")
            case ast.Assign(targets=[ast.Name() | ast.Tuple(), *_]):
                return  # a missing name would be an error at once
            case ast.Assign():
                yield self._replace(node, "pass", "drop assignment")
            case ast.Return(value=ast.expr() as value) if self._text(value) not in {"None", "False"}:
                yield self._replace(value, "None", "return None")
            case ast.Continue():
                yield self._replace(node, "break", "break, not continue")
            case ast.Break():
                yield self._replace(node, "continue", "continue, not break")
            case ast.If() | ast.While():
                yield self._negated(node.test)

    def _negated(self, test: ast.expr) -> Change:
        return self._replace(test, f"not ({self._text(test)})", "negate condition")

    def _of_node(self, node: ast.AST) -> Iterator[Change]:
        if isinstance(node, ast.stmt):
            yield from self._of_statement(node)
        elif isinstance(node, ast.expr):
            yield from self._of_expression(node)
        else:  # an exception handler, a match case, a with item
            for child in ast.iter_child_nodes(node):
                yield from self._of_node(child)

    # ------------------------------------------------------------------------------------- expressions

    def _of_expression(self, node: ast.expr) -> Iterator[Change]:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _TYPING:
            children: list[ast.AST] = list(node.args[1:])
        elif isinstance(node, ast.JoinedStr) or (
            isinstance(node, ast.Subscript) and self._text(node.value) in {"Literal", "Annotated", "Final"}
        ):
            return
        else:
            yield from self._changes_of(node)
            children = list(ast.iter_child_nodes(node))
        for child in children:
            if isinstance(child, ast.keyword):
                if child.arg not in _WORDS:
                    yield from self._of_expression(child.value)
            else:
                yield from self._of_node(child)
            if isinstance(child, ast.comprehension):
                for test in child.ifs:
                    yield self._negated(test)

    def _changes_of(self, node: ast.expr) -> Iterator[Change]:
        match node:
            case ast.Compare():
                operands = [node.left, *node.comparators]
                for left, operator, right in zip(operands, node.ops, node.comparators, strict=False):
                    yield from self._between(left, right, *_COMPARISONS[type(operator)], "swap comparison")
            case ast.BoolOp():
                yield from self._of_boolean(node)
            case ast.BinOp():
                if (swap := _OPERATORS.get(type(node.op))) is not None:
                    yield from self._between(node.left, node.right, *swap, "swap operator")
            case ast.UnaryOp(op=ast.Not()):
                yield self._change(self._start(node), self._start(node.operand), "", "drop not")
            case ast.IfExp():
                yield self._negated(node.test)
            case ast.Constant():
                yield from self._of_constant(node)
            case ast.Call():
                yield from self._of_call(node)

    def _of_boolean(self, node: ast.BoolOp) -> Iterator[Change]:
        is_and = isinstance(node.op, ast.And)
        for left, right in zip(node.values, node.values[1:], strict=False):
            swap = ("and", "or") if is_and else ("or", "and")
            yield from self._between(left, right, *swap, "swap and/or")
        for value in node.values:
            yield self._replace(value, "True" if is_and else "False", "drop operand")

    def _of_constant(self, node: ast.Constant) -> Iterator[Change]:
        match node.value:
            case bool():
                yield self._replace(node, str(not node.value), "swap constant")
            case int() | float() if node.value >= LARGE:
                yield self._replace(node, repr(node.value * 2), "double")
            case int() | float():
                yield self._replace(node, repr(node.value + 1), "add one")
                if node.value > 0:
                    yield self._replace(node, repr(node.value - 1), "subtract one")
            case str() if node.value and node.value.isidentifier():
                yield self._replace(node, repr(f"{node.value}_"), "change word")

    def _of_call(self, node: ast.Call) -> Iterator[Change]:
        is_even = isinstance(node.func, ast.Name) and node.func.id in {"min", "max"}
        if isinstance(node.func, ast.Name) and node.func.id in _SWAPPED:
            yield self._replace(node.func, _SWAPPED[node.func.id], "swap function")
        first_two = node.args[:2]
        if (
            len({self._text(argument) for argument in first_two}) > 1
            and not is_even
            and not any(isinstance(argument, ast.Starred) for argument in first_two)
        ):
            first, second = first_two
            middle = self._source[self._end(first) : self._start(second)]
            swapped = f"{self._text(second)}{middle}{self._text(first)}"
            yield self._change(self._start(first), self._end(second), swapped, "swap arguments")
        before: ast.expr | None = node.args[-1] if node.args else None
        for keyword in node.keywords:
            if keyword.arg is not None and keyword.arg not in _WORDS:
                start = self._start(keyword) if before is None else self._end(before)
                yield self._change(start, self._end(keyword), "", "drop argument")
            before = keyword.value
