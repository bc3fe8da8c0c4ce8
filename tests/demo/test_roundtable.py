"""The demo without a browser: rules, headers, the JSON view, the event stream, and what it refuses."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase, TestCase

from cycloneish import demo
from cycloneish.demo import make_app
from cycloneish.demo.checks import hash_password, own_page, password_matches, picture_type
from tests.db.support import ask, until
from tests.demo.support import PASSWORD, PNG, RoundtableTestCase, Stream


class RoundtableTests(RoundtableTestCase):
    # -- members

    async def test_sign_up_signs_in_and_the_password_is_not_stored(self) -> None:
        client = await self.start()
        response = await self.sign_up(client)
        self.assertEqual((response.code, response.headers["Location"]), (303, "/"))
        self.assertIn("Ann", (await client.get("/")).text)
        self.assertNotIn(PASSWORD.encode(), bytes(ask(self.database, "select password from member")))

    async def test_the_session_cookie_is_out_of_reach_of_scripts_and_other_sites(self) -> None:
        client = await self.start()
        response = await self.sign_up(client)
        cookie = next(
            value for value in response.headers.get_list("Set-Cookie") if value.startswith("member=")
        )
        self.assertIn("HttpOnly", cookie)
        self.assertIn("SameSite=Lax", cookie)
        self.assertNotIn("Secure", cookie)
        response = await self.sign_up(self.client(base_url="https://testserver"), "Eve")
        cookie = next(
            value for value in response.headers.get_list("Set-Cookie") if value.startswith("member=")
        )
        self.assertIn("Secure", cookie)

    async def test_a_cookie_made_by_somebody_else_signs_nobody_in(self) -> None:
        client = await self.start()
        await self.sign_up(client)
        response = await self.client().get("/", headers={"Cookie": "member=1"})
        self.assertIn("Take a seat", response.text)

    async def test_sign_in_takes_the_right_password_only(self) -> None:
        client = await self.start()
        await self.sign_up(client)
        for name, password, code in (
            ("Ann", PASSWORD, 303),
            ("ANN", PASSWORD, 303),
            ("Ann", PASSWORD + "!", 422),
            ("Ann", "", 422),
            ("Eve", PASSWORD, 422),
            ("' or true --", PASSWORD, 422),
        ):
            response = await self.client().post("/sign-in", form={"name": name, "password": password})
            self.assertEqual(response.code, code, (name, password))

    async def test_names_and_passwords_have_rules(self) -> None:
        client = await self.start()
        for name, password in (
            ("a", PASSWORD),
            ("a b", PASSWORD),
            ("<b>", PASSWORD),
            ("x" * 31, PASSWORD),
            ("Ann", "short"),
            ("Ann", "x" * 201),
        ):
            self.assertEqual((await self.sign_up(client, name, password)).code, 422, (name, password))
        self.assertEqual((await self.sign_up(client, "Änn-1.b_c")).code, 303)
        self.assertEqual((await self.sign_up(self.client(), "änn-1.B_C")).code, 422)

    async def test_signing_out_needs_our_own_form(self) -> None:
        client = await self.start()
        await self.sign_up(client)
        self.assertEqual((await client.post("/sign-out", xsrf=False)).code, 403)
        self.assertEqual((await client.get("/sign-out")).code, 405)
        self.assertEqual((await client.post("/sign-out")).code, 303)
        self.assertIn("Take a seat", (await client.get("/")).text)

    async def test_next_leads_to_our_own_pages_only(self) -> None:
        client = await self.start()
        await self.sign_up(client)
        for after, leads_to in (
            ("/?before=5", "/?before=5"),
            ("//evil.example", "/"),
            ("/\\evil.example", "/"),
        ):
            response = await self.client().post(
                "/sign-in", form={"name": "Ann", "password": PASSWORD, "next": after}
            )
            self.assertEqual(response.headers["Location"], leads_to)
            response = await client.post("/language", form={"language": "de", "next": after})
            self.assertEqual(response.headers["Location"], leads_to)

    # -- messages

    async def test_only_members_write(self) -> None:
        client = await self.start()
        self.assertEqual((await client.post("/", form={"text": "x"})).code, 403)
        await self.sign_up(client)
        self.assertEqual((await client.post("/", form={"text": "x"}, xsrf=False)).code, 403)
        self.assertEqual((await client.post("/", form={"text": "x"})).code, 303)
        self.assertEqual(len((await self.messages(client))["messages"]), 1)

    async def test_what_cannot_be_posted_is_said_and_stored_nowhere(self) -> None:
        client = await self.start()
        await self.sign_up(client)
        for text, picture in (
            ("", None),
            ("x" * 2001, None),
            ("kept text", b"<svg onload=alert(1)>"),
            ("kept text", PNG + b"\0" * (3 * 1024 * 1024)),
        ):
            files = None if picture is None else {"picture": ("p.png", picture, "image/png")}
            response = await client.post("/", form={"text": text}, files=files)
            self.assertEqual(response.code, 422)
            self.assertIn('role="alert"', response.text)
            self.assertIn(text, response.text)
        self.assertEqual(await self.messages(client), {"messages": [], "older": None})
        self.assertEqual(ask(self.database, "select count(*) from picture"), 0)

    async def test_an_upload_without_end_is_refused_early(self) -> None:
        client = await self.start()
        await self.sign_up(client)
        response = await client.post(
            "/", form={"text": "x"}, files={"picture": ("p", PNG + b"\0" * 4_000_000)}
        )
        self.assertEqual(response.code, 413)

    async def test_a_picture_comes_back_as_what_it_is_and_nothing_else(self) -> None:
        client = await self.start()
        await self.sign_up(client)
        # Neither the name nor the type that the browser gave is believed.
        await client.post("/", form={"text": ""}, files={"picture": ("x.html", PNG, "text/html")})
        (message,) = (await self.messages(client))["messages"]
        response = await client.get(message["picture"])
        self.assertEqual((response.headers["Content-Type"], response.body), ("image/png", PNG))
        self.assertEqual(response.headers["X-Content-Type-Options"], "nosniff")
        self.assertIn("sandbox", response.headers["Content-Security-Policy"])
        self.assertEqual((await client.get("/picture/999")).code, 404)

    async def test_text_is_escaped_in_pages(self) -> None:
        client = await self.start()
        await self.sign_up(client)
        await client.post("/", form={"text": '<script>alert(1)</script> http://x.example/"onclick=alert(1)'})
        page = (await client.get("/")).text
        self.assertNotIn("<script>alert", page)
        self.assertNotIn('"onclick', page)

    async def test_pages_follow_each_other_without_a_gap(self) -> None:
        client = await self.start()
        await self.sign_up(client)
        for number in range(45):
            await client.post("/", form={"text": f"m{number}"})
        seen: list[str] = []
        path = "/messages.json"
        while path:
            page = await self.messages(client, path)
            seen += [message["text"] for message in page["messages"]]
            path = page["older"]
        self.assertEqual(seen, [f"m{number}" for number in reversed(range(45))])
        for bad in ("x", "-1", "9" * 19, "%C2%B2"):
            self.assertEqual((await client.get(f"/updates?after={bad}")).code, 400, bad)
            self.assertEqual((await client.get(f"/?before={bad}")).code, 400, bad)

    # -- the live part

    async def test_a_new_message_reaches_everybody_who_reads(self) -> None:
        client = await self.start()
        await self.sign_up(client)
        english = Stream(client.open("GET", "/updates?after=0"))
        german = Stream(self.client(headers={"Accept-Language": "de"}).open("GET", "/updates"))
        await until(lambda: len(self.app.service.readers) == 2)
        await client.post("/", form={"text": "hello"}, files={"picture": ("p", PNG)})
        await until(lambda: b"hello" in english.body and b"hello" in german.body)
        self.assertIn(b"\nid: 1\n", b"\n" + english.body)
        self.assertIn(b"Picture from Ann", english.body)
        self.assertIn(b"Bild von Ann", german.body)
        english.close()
        german.close()
        await until(lambda: not self.app.service.readers)

    async def test_a_reader_that_was_away_is_told_what_it_missed(self) -> None:
        client = await self.start()
        await self.sign_up(client)
        for text in ("one", "two", "three"):
            await client.post("/", form={"text": text})
        again = Stream(client.open("GET", "/updates?after=0", headers={"Last-Event-ID": "1"}))
        await until(lambda: b"three" in again.body)
        self.assertIn(b"two", again.body)
        self.assertNotIn(b"one", again.body)
        again.close()

    async def test_a_message_written_by_another_process_while_we_heard_nothing_is_shown(self) -> None:
        client = await self.start()
        await self.sign_up(client)
        reader = Stream(client.open("GET", "/updates"))
        await until(lambda: self.app.service.readers)
        ask(self.database, "insert into message (author_id, text) values (1, 'unheard')")
        board = self.app.service
        with self.assertLogs("cycloneish.db", "WARNING"):
            listener = board.db.pool._listener._connection
            ask(self.database, "select pg_terminate_backend(%s)", listener.pid)
            await until(lambda: b"unheard" in reader.body)
        reader.close()

    # -- the rest

    async def test_the_browsers_language_is_taken_unless_one_was_chosen(self) -> None:
        await self.start()
        client = self.client(headers={"Accept-Language": "de-AT,de;q=0.9"})
        self.assertIn("Setz dich", (await client.get("/")).text)
        await client.post("/language", form={"language": "en_US"})
        self.assertIn("Take a seat", (await client.get("/")).text)
        await client.post("/language", form={"language": "../../etc/passwd"})
        self.assertIn("Take a seat", (await client.get("/")).text)

    async def test_every_page_says_what_a_browser_may_do_with_it(self) -> None:
        client = await self.start()
        for path, code in (
            ("/", 200),
            ("/sign-in", 200),
            ("/nowhere", 404),
            ("/messages.json?before=x", 400),
        ):
            response = await client.get(path)
            self.assertEqual(response.code, code)
            self.assertIn("frame-ancestors 'none'", response.headers["Content-Security-Policy"])
            self.assertEqual(response.headers["X-Content-Type-Options"], "nosniff")
            self.assertEqual(response.headers["Cache-Control"], "private, no-cache")

    async def test_the_cookie_secret_is_kept_and_private(self) -> None:
        await self.start()
        secret = self.folder / "cookie-secret"
        self.assertEqual(secret.stat().st_mode & 0o777, 0o600)
        again = make_app(str(self.folder), self.database)
        self.assertEqual(again.settings["cookie_secret"], self.app.settings["cookie_secret"])
        self.assertGreater(len(secret.read_text()), 40)


class CheckTests(TestCase):
    async def test_a_password_matches_its_own_hash_only(self) -> None:
        stored = await hash_password("pässword")
        self.assertTrue(await password_matches("pässword", stored))
        self.assertFalse(await password_matches("passwörd", stored))
        self.assertNotEqual(stored, await hash_password("pässword"))


class OutsideTests(SynchronousTestCase):
    def test_paths_of_this_site_pass(self) -> None:
        for url in ("/", "/?before=5", "/sign-in?next=%2F", "/a//b"):
            self.assertEqual(own_page(url), url)

    def test_everything_else_leads_to_the_front_page(self) -> None:
        for url in (
            "",
            "x",
            "//evil",
            "///evil",
            "/\\evil",
            "\\/evil",
            "http://evil",
            "javascript:alert(1)",
            "/\t/evil",
            "/a\r\nSet-Cookie: x=1",
            "/ü",
            " //evil",
            "/a\\b",
        ):
            self.assertEqual(own_page(url), "/", url)

    def test_pictures_are_known_by_their_first_bytes(self) -> None:
        for data, kind in (
            (PNG, "image/png"),
            (b"\xff\xd8\xff\xe0", "image/jpeg"),
            (b"GIF89a", "image/gif"),
            (b"RIFF\n\n\n\nWEBPVP8 ", "image/webp"),
            (b"<svg/>", None),
            (b"RIFF....WAVE", None),
            (b"x" + PNG, None),
            (b"", None),
        ):
            self.assertEqual(picture_type(data), kind, data)

    def test_every_text_has_its_translation(self) -> None:
        place = Path(demo.__file__).parent
        with open(place / "translations" / "de.csv", newline="") as file:
            known = {row[0] for row in csv.reader(file)}
        used: set[str] = set()
        for source in [*place.glob("templates/*.html"), place / "handlers.py", place / "forms.py"]:
            used |= set(re.findall(r'(?:\b_|translate)\(["\'](.+?)["\']\)', source.read_text()))
        self.assertGreater(len(used), 25)
        self.assertEqual(used - known, set())
