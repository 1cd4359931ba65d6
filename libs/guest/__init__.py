"""What runs inside a machine: one file, Python's standard library only, no import of anything of ours."""

import ast
import re
from pathlib import Path


def agent_source() -> str:
    """The agent as a machine is given it: the same statements, without what only people read.

    A machine's user data has little room for it: docstrings, comments and types stay here, and a level of
    indentation is one space.
    """
    tree = ast.parse((Path(__file__).parent / "agent.py").read_text(encoding="utf-8"))
    bare = ast.fix_missing_locations(_Bare().visit(tree))
    text = re.sub(r"(?m)^( {4})+", lambda indent: " " * (len(indent[0]) // 4), ast.unparse(bare))
    return f"#!/usr/bin/python3\n{text}\n"


class _Bare(ast.NodeTransformer):
    """Takes out docstrings and annotations."""

    def visit_Module(self, node: ast.Module) -> ast.AST:
        return self._without_docstring(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._without_docstring(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self._without_docstring(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        return None if node.value is None else ast.copy_location(ast.Assign([node.target], node.value), node)

    def _without_docstring(self, node: ast.Module | ast.ClassDef | ast.FunctionDef) -> ast.AST:
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        return self.generic_visit(node)
