"""The Python files of the project, as the rules of the house look at them."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEFT_TO_DO = r"\b(TODO|FIXME|XXX|HACK)\b"
MARKS = rf"{LEFT_TO_DO}|noqa|type: ignore"


@dataclass(frozen=True)
class File:
    """A Python file of the project."""

    name: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.name)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree))

    @cached_property
    def marks(self) -> list[tokenize.TokenInfo]:
        """The comments with a word that a rule looks for; most files have none, which is soon seen."""
        if not re.search(MARKS, self.text):
            return []
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return [
            token
            for token in tokens
            if token.type == tokenize.COMMENT and re.search(MARKS, token.string)
        ]

    @cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @property
    def is_source(self) -> bool:
        return self.name.startswith("src/")

    @property
    def is_test(self) -> bool:
        return self.name.startswith("tests/")

    @cached_property
    def functions(self) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
        return [
            node for node in self.nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]

    @property
    def classes(self) -> Iterator[ast.ClassDef]:
        return (node for node in self.nodes if isinstance(node, ast.ClassDef))


def read_files() -> Iterator[File]:
    """Every Python file of the project: sources, tests, scripts, examples."""
    paths = [
        path for folder in ("src", "tests", "examples") for path in (ROOT / folder).rglob("*.py")
    ]
    paths += [ROOT / "scripts" / name for name in ("docs-check", "gen-docs", "setup")]
    for path in sorted(paths):
        yield File(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"))
