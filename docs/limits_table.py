"""Writes the table of docs/guides/limits.md from cycloneish/http/limits.py; a test compares them.

python docs/limits_table.py
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parent / "cycloneish" / "http" / "limits.py"
PAGE = HERE / "guides" / "limits.md"
BEGIN = "<!-- table: python docs/limits_table.py writes it -->\n"
END = "<!-- end of table -->\n"


def fields() -> Iterator[tuple[str, str, str]]:
    """(name, default as written, description) of every limit in the source."""
    for node in ast.parse(SOURCE.read_text()).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for statement, after in zip(node.body, [*node.body[1:], None], strict=True):
            if not isinstance(statement, ast.AnnAssign) or statement.value is None:
                continue
            text = (
                after.value.value
                if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                else ""
            )
            name = ast.unparse(statement.target)
            yield name, ast.unparse(statement.value), " ".join(str(text).split()).replace("``", "`")


def shown(name: str, default: str) -> str:
    """A default for people: sizes in KiB and MiB, times in seconds."""
    value = ast.literal_eval(default)
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:g} s"
    if name.endswith("size") and value % 1_048_576 == 0:
        return f"{value // 1_048_576} MiB"
    if name.endswith(("size", "line")):
        return f"{value // 1024} KiB" if value % 1024 == 0 else f"{value} bytes"
    return str(value)


def table() -> str:
    """The table in Markdown."""
    rows = [f"| `{name}` | {shown(name, default)} | {text} |" for name, default, text in fields()]
    return (
        "\n".join(["| Limit | Default | What it bounds, and the answer beyond it |", "|---|---|---|", *rows])
        + "\n"
    )


def with_table(page: str) -> str:
    """*page* with the table between its two marks renewed."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
