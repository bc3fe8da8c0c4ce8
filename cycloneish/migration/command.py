"""The command ``cycloneish migrate-imports PATH…``: which files, what is written, what is printed."""

from __future__ import annotations

import difflib
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from twisted.python import usage

from cycloneish.service.options import CommandLine

__all__ = ["MigrateOptions", "migrate"]

_SKIPPED = {"__pycache__", "node_modules", "build", "dist", "site-packages"}
_TEMPLATES = {".html", ".htm", ".txt", ".xml", ".tpl", ".tmpl"}
_IN_TEMPLATE = re.compile(r"\{[%{].*\b(tornado|cyclone)\b")


class MigrateOptions(CommandLine):
    """Rewrite the imports of a program written for Tornado or Cyclone."""

    synopsis = "Usage: cycloneish migrate-imports [--diff | --dry-run] PATH…"
    longdesc = (
        "Rewrites the imports of a program written for Tornado or Cyclone in place, in files and in all "
        "Python files of folders, and prints what needs a human eye, with file and line."
    )
    optFlags = [
        ["diff", "d", "Write nothing, show what would be changed"],
        ["dry-run", "n", "Write nothing, say which files would be changed"],
    ]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self["paths"] = []

    def parseArgs(self, *paths: str) -> None:
        if not paths:
            raise usage.UsageError("which files or folders?")
        for path in paths:
            if not Path(path).exists():
                raise usage.UsageError(f"there is no {path}")
        self["paths"] = list(paths)


def migrate(options: MigrateOptions, out: TextIO | None = None) -> int:
    """Do what the command line says.

    :param out: where to print; standard output if not given.
    :returns: the exit status: 1 when a file could not be read as Python or libcst is missing, else 0.
    """
    out = out or sys.stdout
    try:
        from cycloneish.migration.rewrite import NotPython, rewrite
    except ImportError as error:
        if error.name is None or not error.name.startswith("libcst"):
            raise
        print("migrate-imports needs libcst: pip install 'cycloneish[migrate]'", file=sys.stderr)
        return 1
    writes = not (options["diff"] or options["dry-run"])
    changed = failed = 0
    notes: list[str] = []
    for path in _files(options["paths"]):
        if path.suffix in _TEMPLATES:
            notes += _template_notes(path)
            continue
        try:
            with tokenize.open(path) as file:
                encoding, newline = file.encoding, ""
            source = path.read_bytes().decode(encoding)
            new, found = rewrite(source)
        except (NotPython, SyntaxError, UnicodeDecodeError) as error:
            failed += 1
            notes.append(
                f"{path}: is no Python 3, and was left as it is ({error}); try 2to3, or pyupgrade, first"
            )
            continue
        notes += [f"{path}:{note.line}: {note.text}" for note in found]
        if new == source:
            continue
        changed += 1
        if options["diff"]:
            out.writelines(_diff(path, source, new))
        else:
            print(f"{path}: {'rewritten' if writes else 'would be rewritten'}", file=out)
        if writes:
            with path.open("w", encoding=encoding, newline=newline) as file:
                file.write(new)
    if notes:
        print("\nTo look at:", file=out)
        print("\n".join(notes), file=out)
    files = "1 file" if changed == 1 else f"{changed} files"
    print(f"\n{files} {'rewritten' if writes else 'to rewrite'}, {len(notes)} to look at", file=out)
    return 1 if failed else 0


def _files(paths: list[str]) -> Iterator[Path]:
    for path in map(Path, paths):
        if path.is_file():
            yield path
            continue
        for found in sorted(path.rglob("*")):
            parts = found.relative_to(path).parts
            hidden = any(part.startswith(".") or part in _SKIPPED for part in parts)
            if not hidden and found.is_file() and found.suffix in {".py", ".tac", ".pyw", *_TEMPLATES}:
                yield found


def _template_notes(path: Path) -> Iterator[str]:
    text = path.read_text("utf-8", "replace")
    for number, line in enumerate(text.splitlines(), 1):
        found = _IN_TEMPLATE.search(line)
        if found:
            yield f"{path}:{number}: the template names {found.group(1)}: change it by hand"


def _diff(path: Path, old: str, new: str) -> Iterator[str]:
    return difflib.unified_diff(old.splitlines(True), new.splitlines(True), str(path), str(path))
