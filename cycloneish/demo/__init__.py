"""Roundtable, a small live message board: the program that ``twistd -n cycloneish`` runs without ``--app``.

It is written the way a user of cycloneish would write it, and the tutorial shows it piece by piece:
:mod:`~cycloneish.demo.app` puts it together, :mod:`~cycloneish.demo.models` is the data,
:mod:`~cycloneish.demo.board` what is done with it and the live part, :mod:`~cycloneish.demo.forms` and
:mod:`~cycloneish.demo.handlers` the pages, :mod:`~cycloneish.demo.jobs` what is done afterwards, and
:mod:`~cycloneish.demo.checks` passwords, pictures and links.
"""

from cycloneish.demo.app import make_app

__all__ = ["make_app"]
