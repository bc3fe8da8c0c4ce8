"""E-mail: a message with text or HTML and attachments, sent through an SMTP server without blocking.

::

    message = Message(
        from_addr="shop@example.com",
        to_addrs=["ann@example.com"],
        subject="Your order",
        message=self.render_string("order.html", order=order),
        mime="text/html",
    )
    message.attach("terms.pdf", mime="application/pdf")
    await sendmail({"host": "smtp.example.com", "username": "shop", "password": "…", "tls": True}, message)

Made on the standard library's ``email`` package and Twisted's SMTP client. Counterpart: ``cyclone.mail``.
"""

from __future__ import annotations

from email import policy
from email.message import EmailMessage
from email.utils import formatdate, make_msgid, parseaddr
from io import BytesIO
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from cycloneish.escape import to_unicode

__all__ = ["ContextFactory", "Message", "sendmail"]

# Twisted's client makes the line ends of SMTP itself.
_POLICY = policy.SMTP.clone(max_line_length=76, linesep="\n")
_TIMEOUT = 30.0


_NEEDS_TLS = "mail over TLS needs pyOpenSSL and service-identity: pip install 'cycloneish[tls]'"


class ContextFactory:
    """Cyclone's name for the TLS settings of a connection to a mail server: TLS 1.2 or later.

    It checks no certificate; :func:`sendmail` does, and does not need this.
    """

    def getContext(self) -> Any:
        """The ``OpenSSL.SSL.Context``."""
        ssl = _twisted_ssl()
        return ssl.CertificateOptions(raiseMinimumTo=ssl.TLSVersion.TLSv1_2).getContext()


def _twisted_ssl() -> Any:
    """Twisted's TLS, which mail without it does not load."""
    try:
        from twisted.internet import ssl
    except ImportError as error:
        raise ImportError(_NEEDS_TLS) from error
    return ssl


class Message:
    """An e-mail.

    :param from_addr: the sender: an address, or ``Name <address>``.
    :param to_addrs: the recipients, or one of them.
    :param subject: what it is about.
    :param message: its text, as text or UTF-8 bytes (what ``render_string`` gives).
    :param mime: ``text/plain``, ``text/html`` or another kind of text.
    :param charset: what the text is encoded in.
    :raises ValueError: an address or the subject has a line end, which would begin another header.

    :ivar message: the part with the text.
    :ivar msg: the whole, an ``email.message.EmailMessage``; the same as *message* while nothing is attached.
    """

    def __init__(
        self,
        from_addr: str,
        to_addrs: str | list[str] | tuple[str, ...],
        subject: str,
        message: str | bytes,
        mime: str = "text/plain",
        charset: str = "utf-8",
    ) -> None:
        self.from_addr = from_addr
        self.to_addrs = [to_addrs] if isinstance(to_addrs, str) else list(to_addrs)
        self.subject = subject
        for header in (from_addr, *self.to_addrs, subject):
            if "\r" in header or "\n" in header:
                raise ValueError(f"a line end has no place in an address or a subject: {header!r}")
        kind, _, subtype = mime.partition("/")
        if kind != "text" or not subtype:
            raise ValueError(f"the message is text, its mime type text/something, not {mime!r}")
        self.msg = self.message = EmailMessage(_POLICY)
        self.message.set_content(to_unicode(message), subtype=subtype, charset=charset)
        self._rendered: bytes | None = None

    def attach(
        self,
        filename: str,
        mime: str | None = None,
        charset: str | None = None,
        content: str | bytes | None = None,
    ) -> None:
        """Attach a file.

        :param filename: its path; the recipient sees the last part of it.
        :param mime: its type, ``application/octet-stream`` if not given.
        :param charset: for text.
        :param content: what is attached in place of the file's contents; then there need not be a file.
        :raises TypeError: *content* is neither text nor bytes.
        """
        path = Path(filename)
        if content is None:
            content = path.read_bytes()
        elif isinstance(content, str):
            content = content.encode(charset or "utf-8")
        elif not isinstance(content, bytes):
            raise TypeError(f"an attachment is text or bytes, not {type(content).__name__}")
        kind, _, subtype = (mime or "application/octet-stream").partition("/")
        params = {"charset": charset} if charset else None
        self.msg.add_attachment(content, kind, subtype, filename=path.name, params=params)
        self._rendered = None

    def add_header(self, key: str, value: str, **params: Any) -> None:
        """Add a header, such as ``X-Campaign``.

        :param params: parameters of the header.
        :raises ValueError: the value has a line end.
        """
        self.msg.add_header(key, value, **params)
        self._rendered = None

    def render(self) -> BytesIO:
        """The message as it is sent, a file."""
        if self._rendered is None:
            for name, value in (
                ("Subject", self.subject),
                ("From", self.from_addr),
                ("To", ", ".join(self.to_addrs)),
                ("Date", formatdate(localtime=True)),
                ("Message-ID", make_msgid(domain=_domain(self.from_addr))),
            ):
                if name not in self.msg:
                    self.msg[name] = value
            self._rendered = self.msg.as_bytes()
        return BytesIO(self._rendered)

    def __str__(self) -> str:
        return self.render().getvalue().decode("utf-8", "replace")


def _domain(address: str) -> str:
    return parseaddr(address)[1].rpartition("@")[2] or "localhost"


def sendmail(mailconf: dict[str, Any], message: Message, *, reactor: Any = None) -> Deferred[Any]:
    """Send a message through an SMTP server.

    :param mailconf: ``host`` is the server; ``port`` 25 unless given, with ``tls`` 587; ``username`` and
        ``password`` to log in with; ``tls`` true for STARTTLS, without which nothing is sent then;
        ``timeout`` in seconds, 30 unless given; ``ca`` a PEM file of certificates to trust in place of the
        system's.
    :param message: what to send, to all of its recipients.
    :returns: a Deferred of the number of recipients that the server took and what it said to each of them. It
        fails when there is no connection, the server refuses, or its certificate is not for *host*.
        Cancelling it closes the connection.
    :raises TypeError: an argument is something else.
    :raises ValueError: ``host`` is missing, or ``port`` is no number.
    """
    if not isinstance(mailconf, dict):
        raise TypeError(f"mailconf is a dictionary, not {type(mailconf).__name__}")
    if not isinstance(message, Message):
        raise TypeError(f"message is a cycloneish.mail.Message, not {type(message).__name__}")
    host = mailconf.get("host")
    if not isinstance(host, str) or not host:
        raise ValueError("mailconf needs a 'host'")
    tls = bool(mailconf.get("tls"))
    port = mailconf.get("port", 587 if tls else 25)
    if not isinstance(port, int):
        raise ValueError(f"the 'port' of mailconf is a number, not {port!r}")
    username, password = mailconf.get("username"), mailconf.get("password")
    # Both install a reactor where there is none.
    if reactor is None:
        from twisted.internet import reactor
    from twisted.mail.smtp import ESMTPSenderFactory

    def give_up(_: Deferred[Any]) -> None:
        factory.sendFinished = True  # or it would report the lost connection as well
        connector.disconnect()

    result: Deferred[Any] = Deferred(give_up)
    factory = ESMTPSenderFactory(
        username.encode() if username else None,
        password.encode() if password else None,
        parseaddr(message.from_addr)[1].encode(),
        [parseaddr(address)[1].encode() for address in message.to_addrs],
        message.render(),
        result,
        retries=0,
        timeout=mailconf.get("timeout", _TIMEOUT),
        contextFactory=_tls_context(host, mailconf.get("ca")) if tls else None,
        requireAuthentication=bool(username and password),
        requireTransportSecurity=tls,
        hostname=host if tls else None,
    )
    connector = reactor.connectTCP(host, port, factory, mailconf.get("timeout", _TIMEOUT))
    return result


def _tls_context(host: str, authorities: str | None) -> Any:
    """What checks the server's certificate."""
    ssl = _twisted_ssl()
    if authorities is None:
        return ssl.optionsForClientTLS(host)
    certificate = ssl.Certificate.loadPEM(Path(authorities).read_bytes())
    return ssl.optionsForClientTLS(host, trustRoot=ssl.trustRootFromCertificates([certificate]))
