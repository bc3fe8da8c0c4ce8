"""Which code answers which request: matchers, rules, and routers made of them.

A router is given to :class:`~cycloneish.httpserver.HTTPServer`, or is the target of a rule in another
router; :class:`~cycloneish.web.Application` is one too, and builds on :class:`ReversibleRuleRouter`. The
names and the meaning of everything are those of ``tornado.routing``: the rules are tried in order, and the
first one that matches and has something to answer with wins.

What differs is how the first one is found. Rules for one exact path stand in a dictionary, and the others
are asked for the fixed beginning of their pattern before the regular expression is tried, so that an
application with a thousand routes does not try a thousand patterns.

Example::

    router = RuleRouter([
        (HostMatches("api.example.com"), api_application),
        ("/status", lambda request: ...),
        ("/.*", Application([(r"/", MainHandler)])),
    ])
    HTTPServer(router).listen(8888)
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, SupportsIndex

from cycloneish.escape import _unquote_to_bytes, url_escape
from cycloneish.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    HTTPServerRequest,
    RequestStartLine,
    ResponseStartLine,
)
from cycloneish.log import app_log
from cycloneish.path_patterns import fixed_prefix, literal_path, reverse_pieces
from cycloneish.util import import_object

__all__ = [
    "AnyMatches",
    "DefaultHostMatches",
    "HostMatches",
    "Matcher",
    "PathMatches",
    "ReversibleRouter",
    "ReversibleRuleRouter",
    "Router",
    "Rule",
    "RuleRouter",
    "URLReverseError",
    "URLSpec",
]


class Router(HTTPServerConnectionDelegate):
    """Something that finds the delegate for a request."""

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> HTTPMessageDelegate | None:
        """Return the delegate that answers *request*, or ``None`` for "not mine", which ends as a 404.

        :param kwargs: what the router above found: ``path_args``, ``path_kwargs``, ``target_kwargs``.
        """
        raise NotImplementedError

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        """Receive the head of the request, then hand everything to what :meth:`find_handler` returns."""
        return _RoutingDelegate(self, server_conn, request_conn)


class ReversibleRouter(Router):
    """A router that can say under which URL a named rule is reached."""

    def reverse_url(self, name: str, *args: Any, **kwargs: Any) -> str | None:
        """Return the URL of the rule *name*, *args* filling its groups; ``None`` if it is unknown."""
        raise NotImplementedError


class _RoutingDelegate(HTTPMessageDelegate):
    """Stands in for the delegate of a request until its head is there and says which one it is."""

    def __init__(self, router: Router, server_conn: object, request_conn: HTTPConnection) -> None:
        self.router = router
        self.server_conn = server_conn
        self.request_conn = request_conn
        self.delegate: HTTPMessageDelegate | None = None

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[Any] | None:
        method, path, version = start_line
        request = HTTPServerRequest(
            connection=self.request_conn,
            server_connection=self.server_conn,
            start_line=RequestStartLine(method, str(path), version),
            headers=headers,
        )
        delegate = self.router.find_handler(request)
        if delegate is None:
            app_log.debug("no handler for %s %s", method, path)
            delegate = _NotFoundDelegate(self.request_conn)
        self.delegate = delegate
        return delegate.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[Any] | None:
        return None if self.delegate is None else self.delegate.data_received(chunk)

    def finish(self) -> None:
        if self.delegate is not None:
            self.delegate.finish()

    def on_connection_close(self) -> None:
        if self.delegate is not None:
            self.delegate.on_connection_close()


class _NotFoundDelegate(HTTPMessageDelegate):
    """Answers with an empty 404."""

    def __init__(self, connection: HTTPConnection) -> None:
        self.connection = connection

    def finish(self) -> None:
        self.connection.write_headers(
            ResponseStartLine("HTTP/1.1", 404, "Not Found"), HTTPHeaders({"Content-Length": "0"})
        )
        self.connection.finish()


class _CallableAdapter(HTTPMessageDelegate):
    """Collects a request and calls a plain function with it. :mod:`cycloneish.httpserver` uses it too."""

    def __init__(
        self, request_callback: Callable[[HTTPServerRequest], Any], request_conn: HTTPConnection
    ) -> None:
        self.connection = request_conn
        self.request_callback = request_callback
        self.request: HTTPServerRequest | None = None
        self._chunks: list[bytes] = []

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[Any] | None:
        method, path, version = start_line
        self.request = HTTPServerRequest(
            connection=self.connection,
            start_line=RequestStartLine(method, str(path), version),
            headers=headers,
        )
        return None

    def data_received(self, chunk: bytes) -> Awaitable[Any] | None:
        self._chunks.append(chunk)
        return None

    def finish(self) -> None:
        request = self.request
        if request is None:
            return
        if self._chunks:
            request.body = b"".join(self._chunks)
            self._chunks.clear()
            # A malformed form is the client's fault and must not come up as an error of the function.
            request._parse_body()
        self.request_callback(request)

    def on_connection_close(self) -> None:
        self._chunks.clear()


class Matcher:
    """Says whether a rule applies to a request."""

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        """Return ``None`` for no, or a new dictionary of arguments for the target: often empty, or with
        ``path_args`` and ``path_kwargs`` for a handler.
        """
        raise NotImplementedError

    def reverse(self, *args: Any) -> str | None:
        """Return a URL that this matches, with *args* in it, or ``None`` when that has no meaning here."""
        return None


class AnyMatches(Matcher):
    """Matches every request."""

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        return {}


class HostMatches(Matcher):
    """Matches requests whose host name, in lower case and without port, matches a pattern as a whole.

    :param host_pattern: text gets a ``$`` at its end if it has none; a compiled pattern is used as it is.
    """

    def __init__(self, host_pattern: str | re.Pattern[str]) -> None:
        self.host_pattern = _compile(host_pattern)
        self._everything = self.host_pattern.pattern in (".*", ".*$")

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        if self._everything or self.host_pattern.match(request.host_name):
            return {}
        return None


class DefaultHostMatches(Matcher):
    """Matches when the application's ``default_host`` matches the pattern, whatever host was asked for.

    Never matches behind a proxy, that is when there is an ``X-Real-Ip`` header: the proxy passes the true
    host.
    """

    def __init__(self, application: Any, host_pattern: re.Pattern[str]) -> None:
        self.application = application
        self.host_pattern = host_pattern

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        if "X-Real-Ip" in request.headers:
            return None
        default_host = self.application.default_host
        return {} if default_host and self.host_pattern.match(default_host) else None


class URLReverseError(ValueError):
    """A path cannot be made from a pattern: there is more than groups in it, or the arguments do not fit.

    Tornado raises its base, ``ValueError``, which is to be caught as well. Counterpart:
    ``cyclone.web.URLReverseError``.
    """


class PathMatches(Matcher):
    """Matches requests whose path matches a pattern as a whole.

    What the groups of the pattern matched is percent-decoded and passed on as bytes: named groups by name,
    unnamed ones by position.

    :param path_pattern: text gets a ``$`` at its end if it has none; a compiled pattern is used as it is.
    :raises ValueError: the pattern has both named and unnamed groups.
    """

    def __init__(self, path_pattern: str | re.Pattern[str]) -> None:
        self.regex = _compile(path_pattern)
        if len(self.regex.groupindex) not in (0, self.regex.groups):
            raise ValueError(
                f"groups in a path pattern must be all named or all positional: {self.regex.pattern!r}"
            )
        #: The one path that can match, or ``None`` when there are more of them.
        self.literal = literal_path(self.regex)
        #: What every matching path begins with.
        self.prefix = fixed_prefix(self.regex)
        self._pieces = reverse_pieces(self.regex)

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        literal = self.literal
        if literal is not None:
            return {} if request.path == literal else None
        match = self.regex.match(request.path)
        if match is None:
            return None
        regex = self.regex
        if not regex.groups:
            return {}
        if regex.groupindex:
            named = {name: _unquote_or_none(value) for name, value in match.groupdict().items()}
            return {"path_args": [], "path_kwargs": named}
        return {"path_args": [_unquote_or_none(value) for value in match.groups()], "path_kwargs": {}}

    def reverse(self, *args: Any, **kwargs: Any) -> str | None:
        """Return the path with *args*, percent-encoded, in place of the groups.

        :param kwargs: the same by the names of the groups.

        :raises ValueError: the pattern is not made of fixed text and groups only, or *args* are too many or
            few.
        """
        pieces = self._pieces
        if pieces is None:
            raise URLReverseError(f"Cannot reverse url regex {self.regex.pattern}")
        if kwargs and not args and kwargs.keys() == self.regex.groupindex.keys():
            args = tuple(kwargs[name] for name in self.regex.groupindex)
        elif kwargs:
            raise URLReverseError(f"the groups of {self.regex.pattern!r} are not called {sorted(kwargs)}")
        if len(args) != len(pieces) - 1:
            raise URLReverseError(
                f"the pattern {self.regex.pattern!r} takes {len(pieces) - 1} arguments, not {len(args)}"
            )
        path = pieces[0]
        for arg, piece in zip(args, pieces[1:], strict=True):
            value = arg if isinstance(arg, str | bytes) else str(arg)
            path += url_escape(value, plus=False) + piece
        return path


class Rule:
    """A matcher and what answers the requests that it matches.

    :param matcher: says which requests these are.
    :param target: a :class:`Router` (an ``Application`` is one), an ``HTTPServerConnectionDelegate``, a
        function of a request, a list of further rules, or, in an ``Application``, a ``RequestHandler``
        class. A string is the dotted name of one of these.
    :param target_kwargs: given to the target; the keyword arguments of a handler's ``initialize``.
    :param name: for :meth:`ReversibleRouter.reverse_url`.
    """

    def __init__(
        self,
        matcher: Matcher,
        target: Any,
        target_kwargs: dict[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        self.matcher = matcher
        self.target = import_object(target) if isinstance(target, str) else target
        self.target_kwargs = target_kwargs or {}
        self.name = name

    def reverse(self, *args: Any, **kwargs: Any) -> str | None:
        """Return the URL of this rule with *args* in it."""
        return self.matcher.reverse(*args, **kwargs)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.matcher!r}, {self.target}, kwargs={self.target_kwargs!r}, "
            f"name={self.name!r})"
        )


class URLSpec(Rule):
    """A rule for a path pattern; :func:`cycloneish.web.url` is this class.

    :param pattern: for :class:`PathMatches`.
    :param handler: a ``RequestHandler`` class, its dotted name, or any other target of a :class:`Rule`.
    :param kwargs: keyword arguments of the handler's ``initialize``.
    :param name: for ``reverse_url``.
    :param handler_class: Cyclone's name for *handler*.
    """

    def __init__(
        self,
        pattern: str | re.Pattern[str],
        handler: Any = ...,
        kwargs: dict[str, Any] | None = None,
        name: str | None = None,
        *,
        handler_class: Any = ...,
    ) -> None:
        # None is a handler: that of a route that is only there for its URL.
        if handler is ...:
            handler = handler_class
        if handler is ...:
            raise TypeError(f"the route {pattern!r} has no handler")
        matcher = PathMatches(pattern)
        super().__init__(matcher, handler, kwargs, name)
        self.regex = matcher.regex
        self.handler_class = self.target
        self.kwargs = kwargs

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.regex.pattern!r}, {self.handler_class}, kwargs={self.kwargs!r}, "
            f"name={self.name!r})"
        )


#: What a router is made of: rules, or tuples and lists of the arguments of one, where text stands for
#: ``PathMatches(text)``.
RuleList = Sequence[Rule | Sequence[Any]]


class _Index:
    """Finds the rules that may match a path, in their order, without trying every pattern."""

    __slots__ = ("_literal", "_others", "_rules")

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = rules
        self._others: list[tuple[str, Rule]] = []
        self._literal: dict[str, list[tuple[str, Rule]] | None] = {}
        for rule in rules:
            literal, prefix = _path_of(rule)
            if literal is None:
                self._others.append((prefix, rule))
            else:
                # Filled on first use: most of a big application's paths are never asked for in one process.
                self._literal[literal] = None

    def candidates(self, path: str) -> list[tuple[str, Rule]]:
        """Return (prefix, rule) pairs: the rules for exactly this path, and all that are not for one path."""
        try:
            found = self._literal[path]
        except KeyError:
            return self._others
        if found is None:
            found = []
            for rule in self._rules:
                literal, prefix = _path_of(rule)
                if literal is None or literal == path:
                    found.append((prefix, rule))
            self._literal[path] = found
        return found


def _path_of(rule: Rule) -> tuple[str | None, str]:
    matcher = rule.matcher
    # Exactly this class: one with another match() may look at anything.
    if type(matcher) is PathMatches:
        return matcher.literal, matcher.prefix
    return None, ""


class _Rules(list[Rule]):
    """The list of a router's rules, which anybody may change; the index is made anew after that."""

    by_path: _Index | None = None

    def append(self, rule: Rule, /) -> None:
        self.by_path = None
        super().append(rule)

    def extend(self, rules: Iterable[Rule], /) -> None:
        self.by_path = None
        super().extend(rules)

    def insert(self, position: SupportsIndex, rule: Rule, /) -> None:
        self.by_path = None
        super().insert(position, rule)

    def remove(self, rule: Rule, /) -> None:
        self.by_path = None
        super().remove(rule)

    def pop(self, position: SupportsIndex = -1, /) -> Rule:
        self.by_path = None
        return super().pop(position)

    def clear(self) -> None:
        self.by_path = None
        super().clear()

    def reverse(self) -> None:
        self.by_path = None
        super().reverse()

    def sort(self, **kwargs: Any) -> None:
        self.by_path = None
        super().sort(**kwargs)

    def __setitem__(self, position: Any, value: Any) -> None:
        self.by_path = None
        super().__setitem__(position, value)

    def __delitem__(self, position: SupportsIndex | slice) -> None:
        self.by_path = None
        super().__delitem__(position)

    def __iadd__(self, rules: Iterable[Rule]) -> _Rules:  # type: ignore[misc, override]
        self.extend(rules)
        return self


class RuleRouter(Router):
    """A router made of rules, tried in order.

    :param rules: :class:`Rule` objects, or tuples of their arguments; text as the first one is a path
        pattern.
    """

    def __init__(self, rules: RuleList | None = None) -> None:
        self._rules = _Rules()
        if rules:
            self.add_rules(rules)

    @property
    def rules(self) -> list[Rule]:
        """The rules in order. The list may be changed; rules put into it pass by :meth:`process_rule`."""
        return self._rules

    @rules.setter
    def rules(self, rules: Iterable[Rule]) -> None:
        self._rules = _Rules(rules)

    def add_rules(self, rules: RuleList) -> None:
        """Append rules, each after :meth:`process_rule`.

        :raises ValueError: one is neither a rule nor a tuple of two to four items.
        """
        for one in rules:
            if isinstance(one, Rule):
                rule = one
            else:
                if not isinstance(one, list | tuple) or len(one) not in (2, 3, 4):
                    raise ValueError(f"a rule is (matcher, target[, kwargs[, name]]), not {one!r}")
                matcher = PathMatches(one[0]) if isinstance(one[0], str | re.Pattern) else one[0]
                rule = Rule(matcher, *one[1:])
            self._rules.append(self.process_rule(rule))

    def process_rule(self, rule: Rule) -> Rule:
        """Prepare a rule that is being added; for subclasses. A list as the target becomes a router here."""
        if isinstance(rule.target, list | tuple):
            rule.target = self.nested_router(rule.target)
        return rule

    def nested_router(self, rules: RuleList) -> Router:
        """Return the router for a list of rules that stands as a target; for subclasses."""
        return type(self)(rules)

    def find_handler(
        self,
        request: HTTPServerRequest,
        **kwargs: Any,
    ) -> HTTPMessageDelegate | None:
        """Return the delegate of the first rule that matches and has one."""
        path = request.path
        for prefix, rule in self.candidates(path):
            if not path.startswith(prefix):
                continue
            params = rule.matcher.match(request)
            if params is not None:
                if rule.target_kwargs:
                    params["target_kwargs"] = rule.target_kwargs
                delegate = self.get_target_delegate(rule.target, request, **params)
                if delegate is not None:
                    return delegate
        return None

    def candidates(self, path: str) -> list[tuple[str, Rule]]:
        """Return, in order, the rules that may match *path*, each with what the path has to begin with.

        The matcher still has the last word. Rules for one other path are left out. Do not change the list.
        """
        index = self._rules.by_path
        if index is None:
            index = self._rules.by_path = _Index(self._rules)
        return index.candidates(path)

    def get_target_delegate(
        self, target: Any, request: HTTPServerRequest, **target_params: Any
    ) -> HTTPMessageDelegate | None:
        """Return the delegate of a rule's target for a request that the rule matches; for subclasses.

        :param target_params: what the matcher returned, and ``target_kwargs``.
        :raises RuntimeError: the request has no connection that the target could answer on.
        """
        if isinstance(target, Router):
            return target.find_handler(request, **target_params)
        if isinstance(target, HTTPServerConnectionDelegate):
            return target.start_request(request.server_connection, _connection_of(request))
        if callable(target):
            return _CallableAdapter(partial(target, **target_params), _connection_of(request))
        return None


def _connection_of(request: HTTPServerRequest) -> HTTPConnection:
    if request.connection is None:
        raise RuntimeError(f"{request!r} was made without a connection to answer on")
    return request.connection


class ReversibleRuleRouter(ReversibleRouter, RuleRouter):
    """A router made of rules, whose names :meth:`reverse_url` knows.

    :param rules: as for :class:`RuleRouter`.
    """

    def __init__(self, rules: RuleList | None = None) -> None:
        self.named_rules: dict[str, Rule] = {}
        super().__init__(rules)

    def process_rule(self, rule: Rule) -> Rule:
        rule = super().process_rule(rule)
        if rule.name:
            if rule.name in self.named_rules:
                app_log.warning("Multiple handlers named %s; replacing previous value", rule.name)
            self.named_rules[rule.name] = rule
        return rule

    def reverse_url(self, name: str, *args: Any, **kwargs: Any) -> str | None:
        """Return the URL of the rule *name*, here or in a router below; ``None`` when there is none.

        :raises ValueError: *args* do not fit the pattern, or it cannot be reversed.
        """
        named = self.named_rules.get(name)
        if named is not None:
            return named.matcher.reverse(*args, **kwargs)
        for rule in self._rules:
            if isinstance(rule.target, ReversibleRouter):
                url = rule.target.reverse_url(name, *args, **kwargs)
                if url is not None:
                    return url
        return None


def _compile(pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    if isinstance(pattern, re.Pattern):
        return pattern
    # re caches few patterns and the result is kept, so each is compiled once.
    try:
        return re.compile(pattern if pattern.endswith("$") else pattern + "$")
    except re.error as error:
        # Among fifty routes, a position alone does not say which.
        raise re.error(f"route {pattern!r}: {error.msg}", error.pattern, error.pos) from None


def _unquote_or_none(value: str | None) -> bytes | None:
    """Percent-decode what a group matched; bytes, so that the handler decides about their encoding."""
    if value is None:
        return None
    try:
        # The engine decodes the request line as Latin-1: this gives back the bytes that were sent.
        return _unquote_to_bytes(value.encode("latin-1"))
    except UnicodeEncodeError:
        return _unquote_to_bytes(value.encode())
