"""Encodings of text: HTML, URLs, JSON, UTF-8, and links in plain text.

Called on every response (``utf8``), by every template expression (``xhtml_escape``), by httputil
(``parse_qs_bytes``) and by handlers. The names are those of Tornado's ``tornado.escape``. Every function
here takes time and memory proportional to its input, whatever that input is.
"""

from __future__ import annotations

import codecs
import html
import json
import re
import urllib.parse
from collections.abc import Callable, Collection
from typing import Any, overload

__all__ = [
    "json_decode",
    "json_encode",
    "linkify",
    "native_str",
    "parse_qs_bytes",
    "recursive_unicode",
    "squeeze",
    "to_basestring",
    "to_unicode",
    "url_escape",
    "url_unescape",
    "utf8",
    "xhtml_escape",
    "xhtml_unescape",
]


@overload
def utf8(value: str | bytes) -> bytes: ...
@overload
def utf8(value: None) -> None: ...
def utf8(value: str | bytes | None) -> bytes | None:
    """Encode text as UTF-8; bytes and None are returned as they are.

    :raises TypeError: for anything else.
    """
    if isinstance(value, str):
        return value.encode()
    if value is None or isinstance(value, bytes):
        return value
    raise TypeError(f"expected str, bytes or None, not {type(value).__name__}: {value!r:.80}")


@overload
def to_unicode(value: str | bytes) -> str: ...
@overload
def to_unicode(value: None) -> None: ...
def to_unicode(value: str | bytes | None) -> str | None:
    """Decode UTF-8 bytes; text and None are returned as they are.

    :raises TypeError: for anything else.
    :raises UnicodeDecodeError: for bytes that are not UTF-8.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode()
    raise TypeError(f"expected str, bytes or None, not {type(value).__name__}: {value!r:.80}")


_unicode = to_unicode
native_str = to_unicode
to_basestring = to_unicode


def recursive_unicode(obj: Any) -> Any:
    """Decode the byte strings in a structure of dicts (keys too), lists and tuples."""
    if isinstance(obj, bytes):
        return obj.decode()
    if isinstance(obj, dict):
        return {recursive_unicode(key): recursive_unicode(value) for key, value in obj.items()}
    if isinstance(obj, list):
        return [recursive_unicode(item) for item in obj]
    if isinstance(obj, tuple):
        return tuple(recursive_unicode(item) for item in obj)
    return obj


# ------------------------------------------------------------------ HTML


def xhtml_escape(value: str | bytes) -> str:
    """Escape ``& < > " '`` so that the text is inert in HTML, also inside a quoted attribute.

    Counterpart: ``tornado.escape.xhtml_escape``.
    """
    text = value if isinstance(value, str) else to_unicode(value)
    # Most text has none of them, and looking for one character is cheaper than any call.
    if "&" in text:
        text = text.replace("&", "&amp;")
    if "<" in text:
        text = text.replace("<", "&lt;")
    if ">" in text:
        text = text.replace(">", "&gt;")
    if '"' in text:
        text = text.replace('"', "&quot;")
    if "'" in text:
        text = text.replace("'", "&#x27;")
    return text


def xhtml_unescape(value: str | bytes) -> str:
    """Replace the character references of HTML 5 by what they stand for (`html.unescape`)."""
    return html.unescape(to_unicode(value))


_BLANKS = re.compile(r"[\x00-\x20]+")


def squeeze(value: str) -> str:
    """Turn every run of blanks and control characters into one space, and trim the ends."""
    return _BLANKS.sub(" ", value).strip()


# ------------------------------------------------------------------ JSON


def json_encode(value: Any) -> str:
    r"""JSON text that may stand inside a ``<script>`` element: every ``</`` is written ``<\/``.

    :raises TypeError: for what JSON cannot express, bytes among it.
    """
    text = json.dumps(value)
    return text.replace("</", "<\\/") if "</" in text else text


def json_decode(value: str | bytes) -> Any:
    """The value of a JSON text; bytes are UTF-8.

    :raises ValueError: if it is not JSON (`json.JSONDecodeError`).
    """
    return json.loads(value)


# ------------------------------------------------------------------ URLs


def url_escape(value: str | bytes, plus: bool = True) -> str:
    """Percent-encode for a URL (RFC 3986).

    :param plus: True for query arguments: a space becomes ``+`` and a slash ``%2F``. False for paths: a
        space becomes ``%20`` and slashes stay.
    """
    return urllib.parse.quote_plus(value) if plus else urllib.parse.quote(value)


@overload
def url_unescape(value: str | bytes, encoding: None, plus: bool = True) -> bytes: ...
@overload
def url_unescape(value: str | bytes, encoding: str = "utf-8", plus: bool = True) -> str: ...
def url_unescape(value: str | bytes, encoding: str | None = "utf-8", plus: bool = True) -> str | bytes:
    """Undo `url_escape`.

    :param encoding: how the bytes decode to text (malformed ones become U+FFFD); None returns bytes.
    :param plus: True for query arguments, where ``+`` is a space; False for paths, where it is itself.
    """
    text = to_unicode(value)
    if plus:
        text = text.replace("+", " ")
    if encoding is None:
        return _unquote_to_bytes(text.encode())
    return urllib.parse.unquote(text, encoding=encoding)


_STRAY_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
# The decoder itself: bytes.decode() would look it up by name each time.
_decode_escapes = codecs.getdecoder("unicode_escape")


def _unquote_to_bytes(data: bytes) -> bytes:
    r"""Percent-decode; what is no valid escape stays as it is, like in `urllib.parse.unquote_to_bytes`.

    The standard library makes an object for each ``%``. Here the data is rewritten so that the decoder of
    Python's ``\xNN`` string escapes, which is one loop in C, does the work.
    """
    if b"%" not in data:
        return data
    if _STRAY_PERCENT.search(data):
        # In a run of percent signs none but the last can start an escape. Two passes, as replace() does
        # not see the pairs that overlap; the runs would make sub() build a list longer than the data.
        data = data.replace(b"%%", b"%25%").replace(b"%%", b"%25%")
        data = _STRAY_PERCENT.sub(b"%25", data)
    if b"\\" in data:
        data = data.replace(b"\\", b"\\\\")
    data = data.replace(b"%", b"\\x")
    return _decode_escapes(data)[0].encode("latin-1")


def parse_qs_bytes(
    qs: str | bytes,
    keep_blank_values: bool = False,
    strict_parsing: bool = False,
    *,
    max_num_fields: int | None = None,
) -> dict[str, list[bytes]]:
    """Split a query string or urlencoded form into names and lists of values, ``&`` being the separator.

    :param qs: text has to be Latin-1.
    :param keep_blank_values: keep ``a=`` and ``a`` with the value ``b""``, else drop them.
    :param strict_parsing: refuse a field without ``=``.
    :param max_num_fields: most fields allowed; counted before any work is done.
    :raises ValueError: as asked for by the two parameters above.

    Names are Latin-1 text (so that any bytes survive), values are bytes.
    """
    if isinstance(qs, str):
        qs = qs.encode("latin-1")
    result: dict[str, list[bytes]] = {}
    if not qs:
        return result
    if max_num_fields is not None and qs.count(b"&") >= max_num_fields:
        raise ValueError(f"more than {max_num_fields} form fields")
    if b"+" in qs:
        qs = qs.replace(b"+", b" ")
    escaped = b"%" in qs
    for field in qs.split(b"&"):
        name, equals, value = field.partition(b"=")
        if not equals and strict_parsing:
            raise ValueError(f"form field without '=': {field!r:.80}")
        if value or (keep_blank_values and field):
            if escaped and b"%" in field:
                name = _unquote_to_bytes(name)
                value = _unquote_to_bytes(value)
            key = name.decode("latin-1")
            if key in result:
                result[key].append(value)
            else:
                result[key] = [value]
    return result


# ------------------------------------------------------------------ links in plain text

# What follows the scheme or the "www.", in text that was HTML-escaped before. Punctuation belongs to the
# link only when something else comes after it, a pair of parentheses without others inside it always
# does, and of the entities only &amp; and &quot; can be part of a URL. The groups are atomic: no character
# is looked at again, whatever the text. (A possessive quantifier of a group would say the same, but takes
# too much before Python 3.11.5, gh-106052.)
_PUNCTUATION = r"""!"#$%'*+,.:;<=>?@\[\]^`{|}~"""
_LINK_BODY = rf"""
    (?> (?: (?> (?: [{_PUNCTUATION}] | &amp; | &quot; )* ) [^{_PUNCTUATION}&()\s]++
          | \( (?> (?: [^\s&()] | &amp; | &quot; )* ) \)
        )+
    )
"""
_LINK = re.compile(
    # The look-behind lets a run of word characters be tried at its beginning only.
    rf"""
    (?: (?<![\w-]) (?P<dashes> -*+ ) (?= (?P<scheme> [\w-]++ ) : ) (?P=scheme) : (?P<slashes> /{{1,3}} )
      | \b www[.]
    ) {_LINK_BODY}
    """,
    re.VERBOSE,
)

_SHOWN_LENGTH = 30


def linkify(
    text: str | bytes,
    shorten: bool = False,
    extra_params: str | Callable[[str], str] = "",
    require_protocol: bool = False,
    permitted_protocols: Collection[str] = ("http", "https"),
) -> str:
    """HTML for plain text, with its URLs made links.

    :param shorten: show long URLs shortened to about 30 characters, in full in the ``title``.
    :param extra_params: more attributes for the ``<a>``, such as ``'rel="nofollow"'``, or a function of
        the URL (escaped for HTML) that returns them.
    :param require_protocol: leave ``www.example.com`` alone, link only what names its scheme.
    :param permitted_protocols: the schemes to link. ``javascript`` never belongs here.

    Counterpart: ``tornado.escape.linkify``. Example::

        >>> linkify("see http://example.com!")
        'see <a href="http://example.com">http://example.com</a>!'
    """
    fixed_params = ""
    if not callable(extra_params) and extra_params:
        fixed_params = " " + extra_params.strip()

    def link(match: re.Match[str]) -> str:
        dashes, scheme, slashes = match["dashes"], match["scheme"], match["slashes"]
        if scheme not in permitted_protocols if scheme else require_protocol:
            return match[0]
        url = match[0][len(dashes) :] if dashes else match[0]
        href = url if scheme else "http://" + url
        params = " " + extra_params(href).strip() if callable(extra_params) else fixed_params
        shown = url
        if shorten and len(url) > _SHOWN_LENGTH:
            shown = _shortened(url, len(scheme) + 1 + len(slashes) if scheme else 0)
            if shown is not url:
                params += f' title="{href}"'
        return f'{dashes or ""}<a href="{href}"{params}>{shown}</a>'

    return _LINK.sub(link, xhtml_escape(text))


def _shortened(url: str, host_start: int) -> str:
    """A form of an HTML-escaped URL to show to people: the host and the first letters of the path."""
    host, slash, path = url[host_start:].partition("/")
    shown = url
    if slash:
        first = path.partition("/")[0][:8]
        shown = f"{url[:host_start]}{host}/{first.partition('?')[0].partition('.')[0]}"
    if len(shown) > _SHOWN_LENGTH * 1.5:
        shown = shown[:_SHOWN_LENGTH]
    if shown == url:
        return url
    entity = shown.rfind("&")
    if entity > _SHOWN_LENGTH - 5:
        # The cut may have gone through an entity; better none than half of one.
        shown = shown[:entity]
    shown += "..."
    return shown if len(shown) < len(url) else url
