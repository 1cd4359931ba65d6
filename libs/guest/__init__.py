"""What runs inside a machine: one file, Python's standard library only, no import of anything of ours."""

import ast
from pathlib import Path


def agent_source() -> str:
    """The agent as a machine is given it: the same statements without the docstrings and lines of comment."""
    text = (Path(__file__).parent / "agent.py").read_text(encoding="utf-8")
    dropped: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node) is not None
        ):
            first = node.body[0]
            dropped.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    lines = enumerate(text.splitlines(), 1)
    kept = [line for number, line in lines if number not in dropped and line.strip()]
    return (
        "\n".join(line for line in kept if line.startswith("#!") or not line.lstrip().startswith("#")) + "\n"
    )
