"""Starting an application: what ``twistd cycloneish`` and ``cycloneish run`` have in common.

One subject per file: :mod:`~cycloneish.service.options` the command line, :mod:`~cycloneish.service.loading`
finding the application by its name, :mod:`~cycloneish.service.web` the service that opens and closes ports,
:mod:`~cycloneish.service.program` one run from there to the exit status, :mod:`~cycloneish.service.logs`
what is logged where, and :mod:`~cycloneish.service.plugin` what ``twistd`` calls.

A program that assembles its own Twisted service tree uses :class:`WebService` directly::

    from twisted.application.service import Application as ServiceParent

    from cycloneish.service import WebService

    application = ServiceParent("guestbook")
    WebService(make_app, listen=["tcp:8888"]).setServiceParent(application)
"""

from __future__ import annotations

from cycloneish.service.loading import AppNotFound, load_object
from cycloneish.service.options import DEFAULT_ENDPOINT, RunOptions
from cycloneish.service.web import WebService

__all__ = ["DEFAULT_ENDPOINT", "AppNotFound", "RunOptions", "WebService", "load_object"]
