"""What makes ``twistd --help`` list ``cycloneish``.

Twisted imports this file for every ``twistd`` command, of other projects too, so it imports nothing but
Twisted's own marker. There is no ``__init__.py`` beside it: this folder is a part of Twisted's package.
"""

from twisted.application.service import ServiceMaker

cycloneish = ServiceMaker(
    "cycloneish",
    "cycloneish.service.plugin",
    "Serve a cycloneish application, or the demo",
    "cycloneish",
)
