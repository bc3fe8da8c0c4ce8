"""Compression of messages: the extension ``permessage-deflate`` (RFC 7692), its negotiation and its work.

A connection that keeps what it has compressed so far in mind ("context takeover") compresses better, and
costs some 300 KB as soon as it has been used. Nothing is allocated before.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cycloneish.websocket.errors import DecompressedTooBigError

__all__ = ["Agreement", "Deflate", "Extensions", "accept_answer", "accept_offer", "offer", "parse_extensions"]

NAME: Final = "permessage-deflate"
#: A list of extensions: names, each with its parameters; a parameter without a value has None.
Extensions = list[tuple[str, dict[str, str | None]]]

_TAIL: Final = b"\x00\x00\xff\xff"
_FLAGS: Final = ("server_no_context_takeover", "client_no_context_takeover")
_BITS: Final = ("server_max_window_bits", "client_max_window_bits")
_SMALLEST_WINDOW: Final = 9  # zlib cannot write raw streams with 8
#: Ends of a compressed stream inside of one message; real senders have one, if any.
_MOST_ENDS: Final = 16
_TOKEN: Final = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


@dataclass(frozen=True, slots=True)
class Agreement:
    """What both sides have agreed on; sizes of windows in bits."""

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int = 15
    client_max_window_bits: int = 15


def parse_extensions(text: str) -> Extensions:
    """Read *Sec-WebSocket-Extensions* (RFC 6455 section 9.1).

    :raises ValueError: it does not keep to the grammar, or has a parameter twice.
    """
    found: Extensions = []
    for element in text.split(","):
        name, *fields = (part.strip(" \t") for part in element.split(";"))
        if not name and not fields:
            continue  # an empty element of a list
        parameters: dict[str, str | None] = {}
        for field in fields:
            key, equals, value = field.partition("=")
            key, value = key.rstrip(" \t"), value.lstrip(" \t")
            if value[:1] == '"' and value[-1:] == '"' and len(value) > 2:
                value = value[1:-1]
            if not _is_token(key) or (equals and not _is_token(value)) or key in parameters:
                raise ValueError(f"malformed extension {element.strip()!r:.100}")
            parameters[key] = value if equals else None
        if not _is_token(name):
            raise ValueError(f"malformed extension {element.strip()!r:.100}")
        found.append((name, parameters))
    return found


def _is_token(text: str) -> bool:
    return bool(text) and _TOKEN.issuperset(text)


def _window(value: str | None) -> int:
    """A window size out of a parameter, in bits.

    :raises ValueError: it is no number of 8 to 15 without leading zeros.
    """
    if value not in ("8", "9", "10", "11", "12", "13", "14", "15"):
        raise ValueError(f"{value!r} is no size of a window")
    return int(value)


def _wanted(options: Mapping[str, Any], name: str) -> int:
    bits = options.get(name, options.get("max_wbits", 15))
    if not _SMALLEST_WINDOW <= bits <= 15:
        raise ValueError(f"{name} can be {_SMALLEST_WINDOW} to 15, not {bits!r}")
    return int(bits)


def accept_offer(extensions: Extensions, options: Mapping[str, Any]) -> tuple[Agreement, str] | None:
    """Choose among what a client offers.

    :param options: what :meth:`~cycloneish.websocket.WebSocketHandler.get_compression_options` gave.
    :returns: the agreement and the header that tells the client of it; None if no offer can be taken.
    """
    for name, parameters in extensions:
        if name != NAME:
            continue
        try:
            agreement, answer = _answer(parameters, options)
        except ValueError:
            continue  # RFC 7692 section 7: declined, the next one may do
        return agreement, "; ".join([NAME, *answer])
    return None


def _answer(parameters: dict[str, str | None], options: Mapping[str, Any]) -> tuple[Agreement, list[str]]:
    for key, value in parameters.items():
        if key not in _FLAGS and key not in _BITS:
            raise ValueError(f"unknown parameter {key}")
        if key in _FLAGS and value is not None:
            raise ValueError(f"{key} has no value")
    answer = []
    flags = {}
    for key in _FLAGS:
        # A client does not have to say that it can forget, it always can.
        flags[key] = key in parameters or bool(options.get(key))
        if flags[key]:
            answer.append(key)
    server_bits = _wanted(options, _BITS[0])
    if _BITS[0] in parameters:
        server_bits = min(server_bits, _window(parameters[_BITS[0]]))
        if server_bits < _SMALLEST_WINDOW:
            raise ValueError("a window of 8 bits cannot be written")
    if _BITS[0] in parameters or server_bits < 15:
        answer.append(f"{_BITS[0]}={server_bits}")
    client_bits = 15
    if _BITS[1] in parameters:
        value = parameters[_BITS[1]]
        client_bits = min(_wanted(options, _BITS[1]), 15 if value is None else _window(value))
        if value is not None or client_bits < 15:
            answer.append(f"{_BITS[1]}={client_bits}")
    return Agreement(**flags, server_max_window_bits=server_bits, client_max_window_bits=client_bits), answer


def offer(options: Mapping[str, Any]) -> str:
    """The header with which a client offers compression."""
    parts = [NAME, *(flag for flag in _FLAGS if options.get(flag))]
    server_bits, client_bits = _wanted(options, _BITS[0]), _wanted(options, _BITS[1])
    if server_bits < 15:
        parts.append(f"{_BITS[0]}={server_bits}")
    parts.append(_BITS[1] if client_bits == 15 else f"{_BITS[1]}={client_bits}")
    return "; ".join(parts)


def accept_answer(extensions: Extensions, options: Mapping[str, Any] | None) -> Agreement | None:
    """Read what the server made of a client's offer.

    :param options: None if nothing was offered.
    :raises ValueError: the server does what it was not asked for.
    """
    if not extensions:
        return None
    if options is None or len(extensions) != 1 or extensions[0][0] != NAME:
        raise ValueError(f"extensions that were not offered: {', '.join(name for name, _ in extensions)}")
    parameters = extensions[0][1]
    server_bits, client_bits = _wanted(options, _BITS[0]), _wanted(options, _BITS[1])
    for key, value in parameters.items():
        if key in _FLAGS and value is None:
            continue
        if key == _BITS[0] and _window(value) <= server_bits:
            server_bits = _window(value)
        elif key == _BITS[1] and _SMALLEST_WINDOW <= _window(value) <= client_bits:
            client_bits = _window(value)
        else:
            raise ValueError(f"parameter {key}={value} was not offered")
    if options.get(_FLAGS[0]) and _FLAGS[0] not in parameters:
        raise ValueError(f"the server does not keep to {_FLAGS[0]}")
    if server_bits < 15 and _BITS[0] not in parameters:
        raise ValueError(f"the server does not keep to {_BITS[0]}")
    return Agreement(
        server_no_context_takeover=_FLAGS[0] in parameters,
        client_no_context_takeover=_FLAGS[1] in parameters or bool(options.get(_FLAGS[1])),
        server_max_window_bits=server_bits,
        client_max_window_bits=client_bits,
    )


class Deflate:
    """Compresses and decompresses the messages of one connection.

    :param is_client: which side this is.
    :param options: ``compression_level`` (0 to 9, 6 by default), ``mem_level`` (1 to 9, 8 by default),
        ``min_size`` (bytes of the shortest message worth it, 0 by default).
    """

    __slots__ = (
        "_compressor",
        "_decompressor",
        "_forgets",
        "_level",
        "_mem_level",
        "_peer_forgets",
        "_peer_window",
        "_window",
        "min_size",
    )

    def __init__(self, agreement: Agreement, is_client: bool, options: Mapping[str, Any]) -> None:
        self._level: int = options.get("compression_level", 6)
        self._mem_level: int = options.get("mem_level", 8)
        self.min_size: int = options.get("min_size", 0)
        server = (agreement.server_no_context_takeover, agreement.server_max_window_bits)
        client = (agreement.client_no_context_takeover, agreement.client_max_window_bits)
        self._forgets, self._window = client if is_client else server
        self._peer_forgets, self._peer_window = server if is_client else client
        self._compressor: Any = None
        self._decompressor: Any = None

    def compress(self, data: bytes) -> bytes:
        """The payload of a compressed message."""
        compressor = self._compressor
        if compressor is None:
            compressor = zlib.compressobj(self._level, zlib.DEFLATED, -self._window, self._mem_level)
            if not self._forgets:
                self._compressor = compressor
        out: bytes = compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
        # An empty message has to have its block header, RFC 7692 section 7.2.3.6.
        return out[:-4] or b"\x00"

    def decompress(self, data: bytes, limit: int, final: bool) -> bytes:
        """What is in a frame of a compressed message.

        :param limit: bytes that the result may have.
        :param final: whether the message ends with it.
        :raises DecompressedTooBigError: it has more; not more than that has been decompressed.
        :raises zlib.error: *data* is not compressed.
        """
        if final:
            data += _TAIL
        decompressor = self._decompressor
        if decompressor is None:
            decompressor = self._decompressor = zlib.decompressobj(-max(self._peer_window, 9))
        out: bytes = decompressor.decompress(data, limit + 1)
        ends = 0
        while decompressor.eof and len(out) <= limit:
            # The sender has ended the stream (RFC 7692 section 7.2.3.4). What follows begins another one,
            # which may refer to what this one had.
            ends += 1
            if ends > _MOST_ENDS:
                raise zlib.error("too many streams in one message")
            rest = decompressor.unused_data
            decompressor = zlib.decompressobj(-max(self._peer_window, 9), zdict=out[-32768:])
            self._decompressor = decompressor
            if not rest:
                break
            out += decompressor.decompress(rest, limit + 1 - len(out))
        if len(out) > limit:
            raise DecompressedTooBigError
        if final and self._peer_forgets:
            self._decompressor = None
        return out
