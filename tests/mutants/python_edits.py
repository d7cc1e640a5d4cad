"""What may be changed in a module; the operators are those of `lua_edits`, for Python.

mutmut and cosmic-ray were tried. Both change files (of a copy of the tree, or of the tree itself),
while the units that tests start import the installed one, and neither reads Lua; so there are the
same few operators for both languages, and one way to put a change in place (`overlay`).
"""

import ast
from collections.abc import Iterator
from typing import Final

from .mutant import Edit, shifted

_COMPARISONS: Final[dict[type[ast.cmpop], tuple[str, str]]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
_SIGNS: Final[dict[type[ast.operator], tuple[str, str, str]]] = {
    ast.Add: ("sum", "+", "-"),
    ast.Sub: ("sum", "-", "+"),
    ast.Mult: ("sum", "*", "//"),
    ast.FloorDiv: ("sum", "//", "*"),
    ast.Div: ("sum", "/", "*"),
}
_BOUNDS: Final = {"min": "max", "max": "min"}


class _Finder(ast.NodeVisitor):
    """Walks a module and notes what may be changed."""

    def __init__(self, text: str) -> None:
        self.found: list[Edit] = []
        self._text = text
        self._lines = text.splitlines(keepends=True)
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line))

    def _at(self, line: int, column: int) -> int:
        """Return an offset in characters; ast counts columns in bytes of UTF-8."""
        return self._starts[line - 1] + len(self._lines[line - 1].encode()[:column].decode())

    def _span(self, node: ast.AST) -> tuple[int, int]:
        place: ast.expr = node  # type: ignore[assignment]
        end_line, end_column = place.end_lineno or 0, place.end_col_offset or 0
        return self._at(place.lineno, place.col_offset), self._at(end_line, end_column)

    def _replace(self, operator: str, node: ast.AST, new: str) -> None:
        self.found.append(Edit(operator, *self._span(node), new))

    def _between(self, operator: str, left: ast.AST, right: ast.AST, old: str, new: str) -> None:
        """Replace a sign between two operands, where nothing else but brackets stands."""
        start, end = self._span(left)[1], self._span(right)[0]
        at = self._text.find(old, start, end)
        if at >= 0 and "#" not in self._text[start:end]:
            self.found.append(Edit(operator, at, at + len(old), new))

    # statements

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):
            return  # a docstring
        self._replace("drop", node, "pass")
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if not all(isinstance(target, ast.Name) for target in node.targets):
            self._replace("drop", node, "pass")
        self.visit(node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._replace("drop", node, "pass")
        self.visit(node.value)

    def visit_Raise(self, node: ast.Raise) -> None:
        self._replace("drop", node, "pass")

    def visit_Delete(self, node: ast.Delete) -> None:
        self._replace("drop", node, "pass")

    def visit_Return(self, node: ast.Return) -> None:
        self._replace("drop", node, "pass")
        self.generic_visit(node)

    def visit_Continue(self, node: ast.Continue) -> None:
        self._replace("drop", node, "pass")

    def visit_Break(self, node: ast.Break) -> None:
        self._replace("drop", node, "continue")

    def visit_Assert(self, node: ast.Assert) -> None:
        """What is asserted is for the reader."""

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                self.visit(default)
        for statement in node.body:
            self.visit(statement)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    # conditions

    def visit_If(self, node: ast.If | ast.IfExp) -> None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        self._replace("guard", node.test, "False")
        self._replace("guard", node.test, "True")
        self.generic_visit(node)

    visit_IfExp = visit_If  # noqa: N815

    def visit_While(self, node: ast.While) -> None:
        self._replace("guard", node.test, "False")
        if not isinstance(node.test, ast.Constant):  # a loop for ever says nothing
            self.visit(node.test)
        for statement in (*node.body, *node.orelse):
            self.visit(statement)

    def visit_Compare(self, node: ast.Compare) -> None:
        left = node.left
        for sign, right in zip(node.ops, node.comparators, strict=True):
            old, new = _COMPARISONS[type(sign)]
            self._between("compare", left, right, old, new)
            left = right
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            self._between("logic", left, right, old, new)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            start, _ = self._span(node)
            self.found.append(Edit("not", start, self._span(node.operand)[0], ""))
        self.generic_visit(node)

    # values

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in _SIGNS:
            self._between_signs(node)
        self.generic_visit(node)

    def _between_signs(self, node: ast.BinOp) -> None:
        operator, old, new = _SIGNS[type(node.op)]
        self._between(operator, node.left, node.right, old, new)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id in _BOUNDS:
            self._replace("bound", node.func, _BOUNDS[node.func.id])
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.visit(node.value)
        if not isinstance(node.slice, ast.Constant):
            self.visit(node.slice)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self._replace("constant", node, str(not node.value))
        elif isinstance(node.value, int | float):
            start, end = self._span(node)
            self._replace("constant", node, shifted(self._text[start:end]))


def edits(text: str) -> Iterator[Edit]:
    """Give each change of a module; each one can be compiled.

    Args:
        text: the module.
    """
    finder = _Finder(text)
    finder.visit(ast.parse(text))
    for edit in finder.found:
        try:
            compile(edit.applied(text), "mutant", "exec")
        except SyntaxError:
            continue
        yield edit
