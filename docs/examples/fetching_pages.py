# fetching_pages.py: a page that is made of the answers of other services.
#   PRICES=http://127.0.0.1:9000 cycloneish run --app fetching_pages:make_app
import os
from urllib.parse import quote

from cycloneish.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest, Retry, fetch_all
from cycloneish.web import Application, HTTPError, RequestHandler

PRICES = os.environ.get("PRICES", "http://127.0.0.1:9000")


class Price(RequestHandler):
    async def get(self, thing):
        client = AsyncHTTPClient()
        try:
            price = await client.fetch_json(f"{PRICES}/{thing}", request_timeout=5, retry=Retry(attempts=3))
        except HTTPClientError as error:
            raise HTTPError(404 if error.code == 404 else 502) from error
        self.write({"thing": thing, "price": price})


class Basket(RequestHandler):
    async def get(self):
        # Escaped, so that nobody's "../" or "?" asks for something else.
        things = [quote(thing, safe="") for thing in self.get_arguments("thing")]
        requests = [HTTPRequest(f"{PRICES}/{thing}") for thing in things]
        answers = await fetch_all(requests, limit=5)
        self.write({"total": sum(answer.json() for answer in answers)})


class Log(RequestHandler):
    async def get(self):
        # Piece by piece, no faster than the browser takes it.
        async def pass_on(piece):
            self.write(piece)
            await self.flush()

        await AsyncHTTPClient().fetch(f"{PRICES}/log", streaming_callback=pass_on)


def make_app():
    return Application([(r"/price/(\w+)", Price), ("/basket", Basket), ("/log", Log)])
