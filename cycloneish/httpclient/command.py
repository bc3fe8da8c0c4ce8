"""``python -m cycloneish.httpclient URL …``: fetch something and print it.

Counterpart: ``python -m tornado.httpclient``, whose options it has.
"""

from __future__ import annotations

from cycloneish.escape import native_str
from cycloneish.httpclient.client import HTTPClient
from cycloneish.httpclient.errors import HTTPClientError
from cycloneish.options import OptionParser

__all__ = ["main"]


def main(args: list[str] | None = None) -> None:
    """Fetch the URLs of the command line.

    :param args: the arguments, the program's name first; those of the process by default.
    :raises HTTPClientError: one of them gave no response.
    """
    options = OptionParser()
    options.define("print_headers", type=bool, default=False)
    options.define("print_body", type=bool, default=True)
    options.define("follow_redirects", type=bool, default=True)
    options.define("validate_cert", type=bool, default=True)
    options.define("proxy_host", type=str)
    options.define("proxy_port", type=int)
    with HTTPClient() as client:
        for url in options.parse_command_line(args):
            try:
                response = client.fetch(
                    url,
                    follow_redirects=options.follow_redirects,
                    validate_cert=options.validate_cert,
                    proxy_host=options.proxy_host,
                    proxy_port=options.proxy_port,
                )
            except HTTPClientError as error:
                if error.response is None:
                    raise
                response = error.response
            if options.print_headers:
                print(response.headers)
            if options.print_body:
                print(native_str(response.body))
