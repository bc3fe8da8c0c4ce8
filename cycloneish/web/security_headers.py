"""Headers that make a browser more careful, as a mixin for handlers."""

from __future__ import annotations

import secrets
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cycloneish.web.handler import RequestHandler as _Base
else:
    _Base = object

__all__ = ["SecurityHeadersMixin"]


class SecurityHeadersMixin(_Base):
    """Sends ``Strict-Transport-Security`` and its relatives with every answer, error pages included::

        class Base(SecurityHeadersMixin, RequestHandler):
            content_security_policy = "default-src 'self'; script-src 'self' 'nonce-{nonce}'"

    Each attribute is the value of a header; ``None`` leaves it out.  A handler can still change one with
    :meth:`~cycloneish.web.RequestHandler.set_header`.  A subclass that has a ``set_default_headers`` of its
    own calls ``super()`` in it.
    """

    #: ``Content-Security-Policy``; ``{nonce}`` becomes :attr:`csp_nonce`.  The default lets pages load what
    #: comes from the same origin, and nobody frame them.
    content_security_policy: str | None = (
        "default-src 'self'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
    )
    #: ``Strict-Transport-Security`` (RFC 6797), sent over https only.  Seconds for which a browser comes back
    #: over https alone: begin with few, a mistake cannot be taken back sooner.
    hsts_max_age: int | None = 31_536_000
    #: Whether the promise holds for all subdomains, too.
    hsts_include_subdomains = False
    #: Whether browsers may ship it.  Hard to undo.
    hsts_preload = False
    #: ``X-Content-Type-Options``: believe the type of a file, do not guess it.
    content_type_options: str | None = "nosniff"
    #: ``X-Frame-Options``, for browsers that do not know ``frame-ancestors``.
    frame_options: str | None = "DENY"
    #: ``Referrer-Policy``: other sites see the origin at most.
    referrer_policy: str | None = "strict-origin-when-cross-origin"
    #: ``Cross-Origin-Opener-Policy``: windows of other origins have no hold on ours.
    cross_origin_opener_policy: str | None = "same-origin"
    #: ``Permissions-Policy``, such as ``"camera=(), geolocation=()"``.
    permissions_policy: str | None = None

    @cached_property
    def csp_nonce(self) -> str:
        """A random value of this answer, for ``<script nonce="{{ handler.csp_nonce }}">``."""
        return secrets.token_urlsafe(16)

    def set_default_headers(self) -> None:
        """Set the headers; called by the handler for each answer."""
        super().set_default_headers()
        policy = self.content_security_policy
        if policy is not None and "{nonce}" in policy:
            policy = policy.replace("{nonce}", self.csp_nonce)
        for name, value in (
            ("Content-Security-Policy", policy),
            ("X-Content-Type-Options", self.content_type_options),
            ("X-Frame-Options", self.frame_options),
            ("Referrer-Policy", self.referrer_policy),
            ("Cross-Origin-Opener-Policy", self.cross_origin_opener_policy),
            ("Permissions-Policy", self.permissions_policy),
        ):
            if value is not None:
                self.set_header(name, value)
        # A browser must ignore it over plain http (RFC 6797 section 8.1).
        if self.hsts_max_age is not None and self.request.protocol == "https":
            promise = f"max-age={self.hsts_max_age:d}"
            if self.hsts_include_subdomains:
                promise += "; includeSubDomains"
            if self.hsts_preload:
                promise += "; preload"
            self.set_header("Strict-Transport-Security", promise)
