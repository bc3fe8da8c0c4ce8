"""The ``--reactor`` of the commands."""

from __future__ import annotations

import sys

from twisted.application.reactors import NoSuchReactor, getReactorTypes, installReactor

__all__ = ["install_reactor"]


def install_reactor(name: str | None) -> bool:
    """Install the reactor that a command line asks for; before anything imports one.

    :param name: its short name; None for the usual one.
    :returns: whether there is such a reactor; where there is none, standard error says which there are.
    """
    if name is None:
        return True
    try:
        installReactor(name)
    except NoSuchReactor:
        names = ", ".join(sorted(reactor.shortName for reactor in getReactorTypes()))
        print(f"cycloneish: no reactor is called {name!r}; there are: {names}", file=sys.stderr)
        return False
    return True
