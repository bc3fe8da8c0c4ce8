"""Tornado's web API on the Twisted reactor.

The rooms of the house bear Tornado's names: :mod:`cycloneish.web` has ``RequestHandler`` and
``Application``, :mod:`cycloneish.httpserver` the server, :mod:`cycloneish.template` the templates.
This module holds the version and loads nothing.
"""

from __future__ import annotations

__all__ = ["__version__", "version", "version_info"]

__version__ = "0.1.0"
#: The version under the name that Tornado and Cyclone use.
version = __version__
#: Version as numbers: major, minor, patch, and 0 for a release (Tornado's ``version_info``).
version_info = (0, 1, 0, 0)
