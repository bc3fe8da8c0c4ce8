"""XML-RPC: a handler whose ``xmlrpc_…`` methods are called by clients such as ``xmlrpc.client.ServerProxy``.

Put into the routes of an application as any handler::

    class Calculator(XmlrpcRequestHandler):
        allowNone = True

        def xmlrpc_add(self, a, b):
            return a + b

    Application([(r"/xmlrpc", Calculator)])

The standard library's parser takes documents with a DTD, whose entities can grow to fill the memory; what
comes here with one is refused.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar
from xmlrpc.client import Fault, dumps, loads

from cycloneish.coroutines import as_deferred
from cycloneish.log import app_log
from cycloneish.web import RequestHandler

__all__ = ["XmlrpcRequestHandler"]

# In UTF-16 and UTF-32 there is a NUL between the letters.
_DTD = re.compile(rb"<\0*!\0*(?:D\0*O\0*C\0*T\0*Y\0*P\0*E|E\0*N\0*T\0*I\0*T\0*Y)", re.IGNORECASE)


class XmlrpcRequestHandler(RequestHandler):
    """Answers calls with its methods whose names begin with ``xmlrpc_``.

    They get the parameters of the call and return what XML-RPC can hold, or a Deferred or awaitable of that.
    What they raise becomes a fault: a ``xmlrpc.client.Fault`` as it is, anything else the code ``FAILURE``
    without its text, which is logged.

    Counterpart: ``cyclone.xmlrpc.XmlrpcRequestHandler``. Source: xmlrpc.com/spec.md.
    """

    NOT_FOUND: ClassVar[int] = 8001
    """The code of the fault for a method that is not there."""
    FAILURE: ClassVar[int] = 8002
    """The code of the fault for a call that cannot be read, and for a method that failed."""
    separator: ClassVar[str] = "."
    """Stands between a sub-handler's prefix and its method in the name of a call."""
    allowNone: ClassVar[bool] = False
    """True: None may be in an answer, as ``<nil/>``, which not every client knows."""

    def getSubHandler(self, prefix: str) -> Any:
        """Override: the object with the ``xmlrpc_…`` methods for calls of ``prefix.method``; None if there is
        none. By default there are none.
        """
        return None

    async def post(self) -> None:
        """Answer one call."""
        self.set_header("Content-Type", "text/xml")
        try:
            result: Any = (await self._call(),)
            answer = dumps(result, methodresponse=True, allow_none=self.allowNone)
        except Fault as fault:
            answer = dumps(fault, methodresponse=True, allow_none=self.allowNone)
        except (TypeError, OverflowError) as error:
            answer = dumps(Fault(self.FAILURE, f"can't serialize output: {error}"), methodresponse=True)
        self.finish(answer)

    async def _call(self) -> Any:
        body = self.request.body
        if _DTD.search(body):
            raise Fault(self.FAILURE, "Can't deserialize input: a document type has no place in a call")
        try:
            params, name = loads(body)
        except Exception as error:
            raise Fault(self.FAILURE, f"Can't deserialize input: {error}") from None
        function = self._find(name or "")
        try:
            return await as_deferred(function(*params))
        except Fault:
            raise
        except Exception as error:
            app_log.error("xmlrpc_%s failed (%s)", name, self.request.remote_ip, exc_info=error)
            raise Fault(self.FAILURE, "error") from None

    def _find(self, name: str) -> Any:
        owner: Any = self
        while self.separator in name:
            prefix, name = name.split(self.separator, 1)
            finder = getattr(owner, "getSubHandler", None)
            owner = finder(prefix) if finder is not None else None
            if owner is None:
                raise Fault(self.NOT_FOUND, f"no such subHandler {prefix}")
        function = getattr(owner, f"xmlrpc_{name}", None)
        if function is None:
            raise Fault(self.NOT_FOUND, f"function {name} not found")
        if not callable(function):
            raise Fault(self.NOT_FOUND, f"function {name} not callable")
        return function
