"""From a host name to addresses: Twisted's resolver, one with Tornado's interface, or a mapping.

Called by :mod:`.connecting`.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IResolutionReceiver
from zope.interface import implementer

from cycloneish.coroutines import drive

__all__ = ["Resolving"]

#: An address to connect to: text and port.
Address = tuple[str, int]


@implementer(IResolutionReceiver)
class _Receiver:
    """Collects what Twisted's resolver finds."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._found: list[Address] = []
        self._resolution: Any = None
        self.deferred: Deferred[list[Address]] = Deferred(self._cancel)

    def _cancel(self, _: object) -> None:
        if self._resolution is not None:
            try:
                self._resolution.cancel()
            except NotImplementedError:  # a thread that asks the system cannot be stopped
                pass

    def resolutionBegan(self, resolutionInProgress: Any) -> None:
        self._resolution = resolutionInProgress

    def addressResolved(self, address: Any) -> None:
        self._found.append((address.host, self._port))

    def resolutionComplete(self) -> None:
        if self.deferred.called:
            return
        if self._found:
            self.deferred.callback(self._found)
        else:
            self.deferred.errback(socket.gaierror(socket.EAI_NONAME, f"no address for {self._host}"))


class Resolving:
    """Finds the addresses of hosts.

    :param reactor: whose ``nameResolver`` is asked.
    :param resolver: asked instead: ``resolve(host, port, family)`` gives, now or later, a list of
        ``(family, socket address)``, as Tornado's resolvers do.
    :param mapping: looked up first: ``host`` or ``(host, port)`` or ``(host, port, family)``, to a host or
        to ``(host, port)``.
    """

    def __init__(self, reactor: Any, resolver: Any = None, mapping: Mapping[Any, Any] | None = None) -> None:
        self._reactor = reactor
        self._resolver = resolver
        self._mapping = mapping or {}

    def resolve(self, host: str, port: int, ipv6: bool = True) -> Deferred[list[Address]]:
        """Find where to connect to.

        :param ipv6: whether IPv6 addresses will do.
        :returns: addresses, the best first.  It fails with ``socket.gaierror`` where there is none.
        """
        family = socket.AF_UNSPEC if ipv6 else socket.AF_INET
        host, port = self._mapped(host, port, family)
        if self._resolver is not None:
            return drive(self._ask(host, port, family))
        try:
            literal = ipaddress.ip_address(host)
        except ValueError:
            pass
        else:
            if literal.version == 6 and not ipv6:
                raise socket.gaierror(socket.EAI_FAMILY, f"{host} is an IPv6 address, and allow_ipv6 is off")
            return succeed([(host, port)])
        receiver = _Receiver(host, port)
        types = (IPv4Address, IPv6Address) if ipv6 else (IPv4Address,)
        self._reactor.nameResolver.resolveHostName(receiver, host, port, types)
        return receiver.deferred

    def _mapped(self, host: str, port: int, family: int) -> Address:
        mapping = self._mapping
        for key in ((host, port, family), (host, port), host):
            if key in mapping:
                to = mapping[key]
                return to if isinstance(to, tuple) else (to, port)
        return host, port

    async def _ask(self, host: str, port: int, family: int) -> list[Address]:
        found = await self._resolver.resolve(host, port, family)
        return [(address[0], address[1]) for _, address in found]
