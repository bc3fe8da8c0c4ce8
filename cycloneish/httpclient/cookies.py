"""``CookieJar``: cookies of servers, kept between requests where a client is given one.

A cookie goes back to the host that set it, and to no other (RFC 6265 section 5.3, "host-only").  The Domain
attribute is believed only for domains that the program names: no list of public suffixes, which is out of
date the day it ships, decides who reads whose cookies.
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

from cycloneish.httpclient.heads import Target
from cycloneish.httputil.grammar import CONTROL, TOKEN

__all__ = ["Cookie", "CookieJar"]

_MAX_COOKIE: Final = 4096
_VALUE: Final = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e\x80-\xff \",]*")


@dataclass
class Cookie:
    """One cookie of a jar."""

    name: str
    value: str
    #: The host or domain it belongs to.
    domain: str
    path: str
    host_only: bool
    secure: bool
    #: In seconds since the epoch; None lasts as long as the jar.
    expires: float | None


class CookieJar:
    """The cookies that servers have set.

    :param share_with_subdomains: domains whose cookies with a Domain attribute are sent to all hosts below
        them, such as ``{"example.com"}``.
    :param max_cookies: most cookies of one host or domain; the oldest goes first.
    :param max_hosts: most hosts and domains; the one that was used longest ago goes first.
    :param now: the clock.
    """

    def __init__(
        self,
        share_with_subdomains: Collection[str] = (),
        max_cookies: int = 100,
        max_hosts: int = 1000,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._shared = frozenset(domain.lower().strip(".") for domain in share_with_subdomains)
        self._max_cookies = max_cookies
        self._max_hosts = max_hosts
        self._now = now
        self._cookies: dict[str, dict[tuple[str, str], Cookie]] = {}

    def __iter__(self) -> Iterator[Cookie]:
        return iter([cookie for of_host in self._cookies.values() for cookie in of_host.values()])

    def __len__(self) -> int:
        return sum(map(len, self._cookies.values()))

    def clear(self) -> None:
        """Forget all cookies."""
        self._cookies.clear()

    def update(self, target: Target, set_cookie: Iterable[str]) -> None:
        """Take the Set-Cookie fields of a response from *target*; what is not acceptable is left out."""
        for line in set_cookie:
            cookie = self._parse(target, line)
            if cookie is None:
                continue
            key = cookie.name, cookie.path
            kept = self._cookies.setdefault(cookie.domain, {})
            if target.scheme != "https" and key in kept and kept[key].secure:
                continue  # whoever sits on a plain connection sets no session of the secure one
            kept.pop(key, None)
            if cookie.expires is None or cookie.expires > self._now():
                kept[key] = cookie
                if len(kept) > self._max_cookies:
                    del kept[next(iter(kept))]
            if not kept:
                del self._cookies[cookie.domain]
            while len(self._cookies) > self._max_hosts:
                del self._cookies[next(iter(self._cookies))]

    def header(self, target: Target) -> str | None:
        """The value of Cookie for a request to *target*, None where there is nothing to send."""
        now = self._now()
        found: list[Cookie] = []
        path = target.path.partition("?")[0]
        for domain in self._domains(target.host):
            of_domain = self._cookies.get(domain)
            if of_domain is None:
                continue
            for key, cookie in list(of_domain.items()):
                if cookie.expires is not None and cookie.expires <= now:
                    del of_domain[key]
                elif (
                    (not cookie.host_only or domain == target.host)
                    and (not cookie.secure or target.scheme == "https")
                    and _path_matches(path, cookie.path)
                ):
                    found.append(cookie)
        found.sort(key=lambda cookie: -len(cookie.path))
        return "; ".join(f"{cookie.name}={cookie.value}" for cookie in found) or None

    def _domains(self, host: str) -> Iterable[str]:
        yield host
        for domain in self._shared:
            if domain != host and host.endswith("." + domain):
                yield domain

    def _parse(self, target: Target, line: str) -> Cookie | None:
        if len(line) > 2 * _MAX_COOKIE or CONTROL.search(line):
            return None
        first, *rest = line.split(";")
        name, equals, value = first.partition("=")
        name, value = name.strip(), value.strip()
        if not equals or not TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            return None
        if len(name) + len(value) > _MAX_COOKIE:
            return None
        attributes: dict[str, str] = {}
        for one in rest:
            key, _, content = one.partition("=")
            attributes[key.strip().lower()] = content.strip()
        secure = "secure" in attributes
        path = attributes.get("path", "")
        path_given = path.startswith("/")
        if not path_given:
            path = target.path.partition("?")[0].rpartition("/")[0] or "/"
        domain = attributes.get("domain", "").lower().lstrip(".")
        if domain and domain != target.host and not self._may_share(target.host, domain):
            return None
        host_only = not domain or domain not in self._shared
        if secure and target.scheme != "https":
            return None
        if name.startswith("__Secure-") and not secure:
            return None
        if name.startswith("__Host-") and not (
            secure and "domain" not in attributes and path == "/" and path_given
        ):
            return None
        return Cookie(name, value, domain or target.host, path, host_only, secure, self._expires(attributes))

    def _may_share(self, host: str, domain: str) -> bool:
        return domain in self._shared and host.endswith("." + domain) and not _is_address(host)

    def _expires(self, attributes: dict[str, str]) -> float | None:
        age = attributes.get("max-age", "")
        if re.fullmatch(r"-?[0-9]{1,15}", age):
            return self._now() + int(age) if int(age) > 0 else 0.0
        expires = attributes.get("expires")
        if expires is None:
            return None
        try:
            return parsedate_to_datetime(expires.replace("-", " ")).timestamp()
        except (ValueError, OverflowError):
            return None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _path_matches(path: str, cookie_path: str) -> bool:
    """RFC 6265 section 5.1.4."""
    return path == cookie_path or path.startswith(
        cookie_path if cookie_path.endswith("/") else cookie_path + "/"
    )
