"""What ``twistd`` asks of a plugin: the command line's ``Options`` and ``makeService``."""

from __future__ import annotations

from cycloneish.service.options import RunOptions
from cycloneish.service.program import Program
from cycloneish.service.web import WebService

__all__ = ["Options", "makeService"]

Options = RunOptions


def makeService(options: RunOptions) -> WebService:
    """The service for the given command line; without its application the process ends with status 1."""
    twistd = getattr(options, "parent", None) or {}
    program = Program(options, daemon=not twistd.get("nodaemon", True))
    program.exit_with_the_interpreter()
    return program.service
