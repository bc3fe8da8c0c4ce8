"""Roundtable, a small live message board: the program that ``twistd -n cycloneish`` runs without ``--app``.

It is written the way a user of cycloneish would write it, and the tutorial shows it piece by piece:
:mod:`~cycloneish.demo.app` puts it together, :mod:`~cycloneish.demo.board` is the data and the live part,
:mod:`~cycloneish.demo.handlers` the pages, :mod:`~cycloneish.demo.checks` passwords, pictures and links.
"""

from cycloneish.demo.app import make_app

__all__ = ["make_app"]
