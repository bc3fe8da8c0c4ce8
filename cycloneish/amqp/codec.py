"""AMQP 0-9-1 values to bytes and back: field tables, message properties, the arguments of methods.

Own, because txamqp's tables know four types, and count characters where bytes are meant.  The types are
those of RabbitMQ (which differ from the standard's text); sizes come from the peer, so that every read
is checked against what is there.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from decimal import Decimal
from struct import Struct, error, pack, unpack_from
from typing import Any

from .errors import ProtocolError

__all__ = ["decode_arguments", "decode_properties", "encode_arguments", "encode_properties", "encode_table"]

_DEEPEST = 32
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)

#: (flag, name, type) of the properties of a message, in the order in which they are sent.
PROPERTIES = (
    (0x8000, "content_type", "shortstr"),
    (0x4000, "content_encoding", "shortstr"),
    (0x2000, "headers", "table"),
    (0x1000, "delivery_mode", "octet"),
    (0x0800, "priority", "octet"),
    (0x0400, "correlation_id", "shortstr"),
    (0x0200, "reply_to", "shortstr"),
    (0x0100, "expiration", "shortstr"),
    (0x0080, "message_id", "shortstr"),
    (0x0040, "timestamp", "timestamp"),
    (0x0020, "type", "shortstr"),
    (0x0010, "user_id", "shortstr"),
    (0x0008, "app_id", "shortstr"),
    (0x0004, "cluster_id", "shortstr"),
)

_NUMBERS = {"octet": "!B", "short": "!H", "long": "!L", "longlong": "!Q", "timestamp": "!Q"}
_FIELDS = {
    b"b": Struct("!b"),
    b"B": Struct("!B"),
    b"s": Struct("!h"),
    b"u": Struct("!H"),
    b"I": Struct("!i"),
    b"i": Struct("!I"),
    b"l": Struct("!q"),
    b"L": Struct("!q"),
    b"f": Struct("!f"),
    b"d": Struct("!d"),
}


def _short(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    if len(data) > 255:
        raise ValueError(f"at most 255 bytes are allowed for a name, key or property, not {len(data)}")
    return bytes((len(data),)) + data


def encode_table(table: Mapping[str, Any]) -> bytes:
    """A field table with its length in front.

    :raises TypeError: for a value that AMQP has no type for.
    :raises ValueError: for a key above 255 bytes, or an integer above 64 bits.
    """
    return _sized(b"".join(_short(key) + _field(value) for key, value in table.items()))


def _sized(data: bytes) -> bytes:
    return pack("!L", len(data)) + data


def _field(value: Any) -> bytes:
    if isinstance(value, str):
        return b"S" + _sized(value.encode())
    if isinstance(value, bool):
        return b"t\x01" if value else b"t\x00"
    if isinstance(value, int):
        if -0x80000000 <= value <= 0x7FFFFFFF:
            return b"I" + pack("!i", value)
        if -(1 << 63) <= value < 1 << 63:
            return b"l" + pack("!q", value)
        raise ValueError("an integer in headers or arguments may have 64 bits")
    if value is None:
        return b"V"
    if isinstance(value, float):
        return b"d" + pack("!d", value)
    if isinstance(value, bytes | bytearray):
        return b"x" + _sized(bytes(value))
    if isinstance(value, Mapping):
        return b"F" + encode_table(value)
    if isinstance(value, datetime.datetime):
        return b"T" + pack("!Q", int(value.timestamp()))
    if isinstance(value, Decimal):
        sign, digits, exponent = value.as_tuple()
        number = int("".join(map(str, digits))) * (-1 if sign else 1)
        if not isinstance(exponent, int) or not -255 <= exponent <= 0 or abs(number) > 0x7FFFFFFF:
            raise ValueError(f"AMQP cannot hold the decimal {value}")
        return b"D" + pack("!Bi", -exponent, number)
    if isinstance(value, Sequence):
        return b"A" + _sized(b"".join(map(_field, value)))
    raise TypeError(f"AMQP has no type for {type(value).__name__}: use text, numbers, dicts and lists")


class _Reader:
    """Reads values off a buffer; whatever does not fit is a ProtocolError."""

    __slots__ = ("bits", "data", "end", "position")

    def __init__(self, data: bytes, position: int = 0) -> None:
        self.data = data
        self.position = position
        self.end = len(data)
        self.bits = 0  # how many bits of the octet before `position` were read; 0 for none

    def take(self, size: int) -> bytes:
        start = self.position
        if size > self.end - start:
            raise ProtocolError("a value is longer than the frame that it is in")
        self.position = start + size
        return self.data[start : self.position]

    def read(self, kind: str) -> Any:
        if kind == "bit":
            if not 0 < self.bits < 8:
                self.take(1)
                self.bits = 0
            self.bits += 1
            return bool(self.data[self.position - 1] >> (self.bits - 1) & 1)
        self.bits = 0
        if kind == "shortstr":
            return self.take(self.number("!B")).decode("utf-8", "surrogateescape")
        if kind == "longstr":
            return self.take(self.number("!L"))
        if kind == "table":
            return self.table(0)
        return self.number(_NUMBERS[kind])

    def number(self, shape: str) -> int:
        try:
            (value,) = unpack_from(shape, self.data, self.position)
        except error:
            raise ProtocolError("a frame ends in the middle of a number") from None
        self.position += {"B": 1, "H": 2, "L": 4, "Q": 8}[shape[1]]
        return int(value)

    def table(self, depth: int) -> dict[str, Any]:
        stop = self.stop()
        found: dict[str, Any] = {}
        while self.position < stop:
            key = self.take(self.number("!B")).decode("utf-8", "surrogateescape")
            found[key] = self.field(depth)
        if self.position != stop:
            raise ProtocolError("a table is longer than it says")
        return found

    def stop(self) -> int:
        stop = self.number("!L") + self.position
        if stop > self.end:
            raise ProtocolError("a table is longer than the frame that it is in")
        return stop

    def field(self, depth: int) -> Any:
        kind = self.take(1)
        if kind == b"S":
            data = self.take(self.number("!L"))
            try:
                return data.decode()
            except UnicodeDecodeError:
                return data
        if kind in _FIELDS:
            shape = _FIELDS[kind]
            return shape.unpack(self.take(shape.size))[0]
        if kind == b"t":
            return self.take(1) != b"\0"
        if kind == b"V":
            return None
        if kind == b"T":
            seconds = self.number("!Q")
            try:
                return _EPOCH + datetime.timedelta(seconds=seconds)
            except OverflowError:
                return seconds
        if kind == b"x":
            return self.take(self.number("!L"))
        if kind == b"D":
            scale = self.number("!B")
            (number,) = unpack_from("!i", self.take(4))
            return Decimal(number).scaleb(-scale)
        if depth >= _DEEPEST:
            raise ProtocolError(f"tables are nested more than {_DEEPEST} deep")
        if kind == b"F":
            return self.table(depth + 1)
        if kind == b"A":
            stop = self.stop()
            found = []
            while self.position < stop:
                found.append(self.field(depth + 1))
            return found
        raise ProtocolError(f"unknown type {kind!r} in a table")


def decode_arguments(kinds: Sequence[str], data: bytes, position: int = 0) -> list[Any]:
    """The arguments of a method, from the bytes after its class and method numbers."""
    reader = _Reader(data, position)
    return [reader.read(kind) for kind in kinds]


def encode_arguments(kinds: Sequence[str], values: Sequence[Any]) -> bytes:
    """The arguments of a method to bytes; bits that follow each other share octets."""
    parts: list[bytes] = []
    bits = count = 0
    for kind, value in zip(kinds, values, strict=True):
        if kind == "bit":
            bits |= bool(value) << count
            count += 1
            continue
        if count:
            parts.append(bytes((bits,)))
            bits = count = 0
        parts.append(_argument(kind, value))
    if count:
        parts.append(bytes((bits,)))
    return b"".join(parts)


def _argument(kind: str, value: Any) -> bytes:
    if kind == "shortstr":
        return _short(value)
    if kind == "longstr":
        return _sized(value.encode() if isinstance(value, str) else value)
    if kind == "table":
        return encode_table(value)
    return pack(_NUMBERS[kind], value)


def encode_properties(properties: Mapping[str, Any]) -> bytes:
    """Property flags and values, as they stand in a content header.

    :param properties: by their names with underscores; those that are None are left out.
    """
    flags = 0
    parts = []
    for flag, name, kind in PROPERTIES:
        value = properties.get(name)
        if value is not None:
            flags |= flag
            parts.append(_argument(kind, value))
    return pack("!H", flags) + b"".join(parts)


def decode_properties(data: bytes) -> dict[str, Any]:
    """The way back of :func:`encode_properties`.

    :raises ProtocolError: when the bytes are no properties.
    """
    reader = _Reader(data)
    flags = reader.number("!H")
    if flags & 3:
        raise ProtocolError("a content header has properties that AMQP 0-9-1 does not know")
    return {name: reader.read(kind) for flag, name, kind in PROPERTIES if flags & flag}
