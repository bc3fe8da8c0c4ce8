"""The exceptions of the web layer, and how an arbitrary exception becomes a status.

Handlers raise them; `cycloneish.web.handler` turns them into responses. Nothing else in `web` is imported
here, so that every file of the package can use it.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import FirstError

from cycloneish.httputil import HTTPInputError, responses

__all__ = [
    "Finish",
    "HTTPAuthenticationRequired",
    "HTTPError",
    "MissingArgumentError",
    "unwrap",
]


class HTTPError(Exception):
    """Ends the request with an error status.

    The response is made by `RequestHandler.write_error`. Below 500 and above, the error is logged in one line
    without a traceback, and only if there is a *log_message*.

    :param status_code: the HTTP status, such as 404.
    :param log_message: for the log, never shown to the client. May hold `%s` placeholders for *args*.
    :param reason: keyword only; the phrase behind the number in the status line, and the title of the default
        error page.

    Counterpart: `tornado.web.HTTPError`.
    """

    def __init__(
        self, status_code: int = 500, log_message: str | None = None, *args: Any, **kwargs: Any
    ) -> None:
        self.status_code = status_code
        self._log_message = log_message
        self.args = args
        self.reason: str | None = kwargs.get("reason")

    @property
    def log_message(self) -> str | None:
        """The message as a format string: without arguments its percent signs are doubled."""
        if self._log_message and not self.args:
            return self._log_message.replace("%", "%%")
        return self._log_message

    def get_message(self) -> str | None:
        """The message for the log with its arguments put in."""
        if self._log_message and self.args:
            return self._log_message % self.args
        return self._log_message

    def __str__(self) -> str:
        text = f"HTTP {self.status_code}: {self.reason or responses.get(self.status_code, 'Unknown')}"
        message = self.get_message()
        return f"{text} ({message})" if message else text

    def __reduce__(self) -> tuple[Any, ...]:
        # The default would call the class with `args`, which are not the constructor's.
        return _rebuild, (type(self), self.args, self.__dict__.copy())


def _rebuild(cls: type[HTTPError], args: tuple[Any, ...], state: dict[str, Any]) -> HTTPError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class MissingArgumentError(HTTPError):
    """A required argument was not in the request (400); raised by `RequestHandler.get_argument`.

    :param arg_name: the name that was looked for.

    Counterpart: `tornado.web.MissingArgumentError`.
    """

    def __init__(self, arg_name: str) -> None:
        super().__init__(400, f"Missing argument {arg_name}")
        self.arg_name = arg_name


class HTTPAuthenticationRequired(HTTPError):
    """Answers 401 with a *WWW-Authenticate* header, for which browsers ask name and password.

    :param log_message: for the log.
    :param auth_type: the scheme, `Basic` or `Digest`.
    :param realm: what the user is asked for; further keyword arguments become further parameters of the
        header.

    Counterpart: Cyclone's exception of this name. Source: RFC 9110, section 11.6.1.
    """

    def __init__(
        self,
        log_message: str | None = None,
        auth_type: str = "Basic",
        realm: str = "Restricted Access",
        **kwargs: str,
    ) -> None:
        super().__init__(401, log_message)
        self.auth_type = auth_type
        self.kwargs = {"realm": realm, **kwargs}

    @property
    def challenge(self) -> str:
        """The value of the *WWW-Authenticate* header."""
        return f"{self.auth_type} " + ", ".join(
            [f"{name}={_quoted(value)}" for name, value in self.kwargs.items()]
        )


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


class Finish(Exception):
    """Ends the request with what has been written so far; its arguments go to `RequestHandler.finish`.

    It is no error: `write_error` is not called and nothing is logged::

        self.set_status(401)
        self.set_header("WWW-Authenticate", 'Basic realm="door"')
        raise Finish("who are you?")

    Counterpart: `tornado.web.Finish`.
    """


def unwrap(error: BaseException) -> BaseException:
    """The exception that decides about the response.

    Of `FirstError`, with which `gatherResults` and `DeferredList` fail, it is the one inside; what the
    parsers of the request raise when a handler first looks at a malformed part of it, is an `HTTPError` with
    their status.
    """
    while isinstance(error, FirstError):
        inner = error.subFailure.value
        if inner is None:
            break
        error = inner
    if isinstance(error, HTTPInputError):
        converted = HTTPError(error.status, str(error))
        converted.__cause__ = error
        converted.__traceback__ = error.__traceback__
        return converted
    return error
