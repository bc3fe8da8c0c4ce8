"""Programs written for Tornado and Cyclone: moved by `cycloneish migrate-imports`, started, and asked."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import xmlrpc.client
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.db.support import fresh_database
from tests.migration.demos import copy_of
from tests.programs import Running, Visitor, environment, run_command

HERE = Path(__file__).parent
BOUNDARY = "-x-x-"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class MovedTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.port = free_port()
        self.said = ""

    def own(self, name: str) -> Path:
        """One of our own programs for Cyclone, moved."""
        self.folder.mkdir(parents=True)
        shutil.copy(HERE / "cyclone_programs" / f"{name}.py", self.folder)
        return self.move(self.folder)

    def demo(self, project: str, name: str) -> Path:
        return self.move(copy_of(project, name, self.folder))

    def move(self, folder: Path) -> Path:
        """Run the command; and give the program a port of its own, where it has a fixed one."""
        command = [sys.executable, "-m", "cycloneish", "migrate-imports", "."]
        done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        self.said = done.stdout
        for path in folder.rglob("*.py"):
            path.write_text(path.read_text().replace("8888", str(self.port)))
        return folder

    def start(self, folder: Path, *command: str, **env: str) -> Visitor:
        program = Running([sys.executable, *command], folder, **env)
        self.addCleanup(program.stop)
        until = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            except OSError:
                if program.process.poll() is not None or time.monotonic() > until:
                    program.stop()
                    self.fail(f"did not start:\n{program.output}")
                time.sleep(0.05)
        return Visitor(f"http://127.0.0.1:{self.port}")


class TornadoDemosTest(MovedTest):
    def xsrf(self, page: str) -> str:
        found = re.search(r'name="_xsrf" value="([^"]+)"', page)
        assert found is not None, page
        return found.group(1)

    def test_helloworld(self) -> None:
        visitor = self.start(self.demo("tornado", "helloworld"), "helloworld.py", f"--port={self.port}")
        self.assertEqual(visitor.get("/")[::2], (200, "Hello, world"))

    def test_chat(self) -> None:
        visitor = self.start(self.demo("tornado", "chat"), "chatdemo.py", f"--port={self.port}")
        token = self.xsrf(visitor.get("/")[2])
        heard: list[Any] = []

        def listen() -> None:
            heard.append(visitor.ask("POST", "/a/message/updates", {"_xsrf": token}))

        listener = threading.Thread(target=listen)
        listener.start()
        time.sleep(0.5)
        said = visitor.ask("POST", "/a/message/new", {"_xsrf": token, "body": "<hello>"})
        listener.join(30)
        self.assertEqual(said[0], 200)
        message = json.loads(heard[0][2])["messages"][0]
        self.assertEqual(message["body"], "<hello>")
        self.assertIn("&lt;hello&gt;", visitor.get("/")[2])
        self.assertEqual(visitor.ask("POST", "/a/message/new", {"body": "no token"})[0], 403)

    def test_file_upload(self) -> None:
        visitor = self.start(self.demo("tornado", "file_upload"), "file_receiver.py")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        self.addCleanup(connection.close)
        body = (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="f"; filename="a.txt"\r\n'
            f"Content-Type: text/plain\r\n\r\nabc\r\n--{BOUNDARY}--\r\n"
        )
        connection.request(
            "POST", "/post", body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        )
        self.assertEqual(connection.getresponse().read(), b"OK")
        self.assertEqual(visitor.ask("PUT", "/big.bin", body=b"x" * 1_000_000)[2], "OK")

    def test_blog(self) -> None:
        folder = self.demo("tornado", "blog")
        shutil.copy(HERE / "aiopg_on_db.py", folder / "aiopg.py")
        visitor = self.start(folder, "blog.py", f"--port={self.port}", BLOG_DATABASE=fresh_database())
        self.assertEqual(visitor.get("/")[1]["Location"], "/compose")
        status, headers, _ = visitor.get("/compose")
        self.assertEqual((status, headers["Location"]), (302, "/auth/login?next=%2Fcompose"))
        self.assertEqual(visitor.get("/auth/login")[1]["Location"], "/auth/create")
        token = self.xsrf(visitor.get("/auth/create")[2])
        author = {"_xsrf": token, "email": "ann@example.com", "name": "Ann", "password": "pw"}
        self.assertEqual(visitor.ask("POST", "/auth/create", author)[0], 302)
        entry = {"_xsrf": token, "title": "A first one", "markdown": "It is *here*."}
        status, headers, _ = visitor.ask("POST", "/compose", entry)
        self.assertEqual((status, headers["Location"]), (302, "/entry/a-first-one"))
        self.assertIn("<em>here</em>", visitor.get("/entry/a-first-one")[2])
        self.assertIn("A first one", visitor.get("/")[2])
        self.assertIn("A first one", visitor.get("/archive")[2])
        self.assertEqual(visitor.get("/feed")[1]["Content-Type"], "application/atom+xml")
        visitor.cookies.pop("blogdemo_user")
        login = {"_xsrf": token, "email": "ann@example.com", "password": "wrong"}
        self.assertIn("incorrect password", visitor.ask("POST", "/auth/login", login)[2])
        self.assertEqual(visitor.ask("POST", "/auth/login", {**login, "password": "pw"})[0], 302)
        self.assertEqual(visitor.get("/compose")[0], 200)


class CycloneProgramsTest(MovedTest):
    def test_hello(self) -> None:
        for name, answer, command in (
            ("hello", "Hello, plain", ["hello.py"]),
            ("hello_bottle", "Hello, bottle", ["hello_bottle.py"]),
            ("hello_twistd", "Hello, twistd", ["-m", "twisted", "--help"]),
        ):
            if name == "hello_twistd":
                command = [
                    str(Path(sys.executable).with_name("twistd")),
                    "-n",
                    "--pidfile=",
                    "-y",
                    "hello_twistd.py",
                ]
            visitor = self.start(self.own(name), *command)
            self.assertEqual(visitor.get("/")[::2], (200, answer))
            self.setUp()

    def test_an_application_class(self) -> None:
        program = Running(
            run_command("--app", "hello_app:Application", "--listen", "tcp:0:interface=127.0.0.1"),
            self.own("hello_app"),
        )
        self.addCleanup(program.stop)
        self.assertEqual(Visitor(program.url()).get("/")[2], "Hello, application")

    def test_chat(self) -> None:
        visitor = self.start(self.own("chat"), "chat.py")
        self.assertNotIn("is not here", self.said)
        self.assertEqual(visitor.get("/")[1]["Location"], "/login?next=%2F")
        self.assertEqual(visitor.ask("POST", "/login", {"name": "Ann"})[0], 302)
        self.assertEqual(visitor.get("/")[2], "hello, Ann")
        heard: list[Any] = []
        listener = threading.Thread(target=lambda: heard.append(visitor.get("/listen")))
        listener.start()
        time.sleep(0.5)
        said = json.loads(visitor.ask("POST", "/say", {"body": "hi"})[2])
        listener.join(30)
        self.assertEqual(json.loads(heard[0][2]), {"messages": [said]})

    def test_sse(self) -> None:
        visitor = self.start(self.own("sse"), "sse.py")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", "/live")
        response = connection.getresponse()
        self.assertTrue(response.headers["Content-Type"].startswith("text/event-stream"))
        event = b"".join(response.readline() for _ in range(4))
        self.assertEqual(sorted(event.split()), sorted(b"id: 7 event: time data: tick".split()))
        self.assertEqual(json.loads(response.readline().partition(b":")[2]), {"clients": 1})
        response.close()
        connection.close()
        until = time.monotonic() + 30
        while visitor.get("/count")[2] != "0" and time.monotonic() < until:
            time.sleep(0.05)
        self.assertEqual(visitor.get("/count")[2], "0")

    def test_rpc(self) -> None:
        visitor = self.start(self.own("rpc"), "rpc.py")
        self.assertNotIn("is not here", self.said)
        proxy: Any = xmlrpc.client.ServerProxy(f"http://127.0.0.1:{self.port}/xmlrpc", allow_none=True)
        self.assertEqual(proxy.sort([3, 1, 2]), [1, 2, 3])
        self.assertEqual(proxy.later("abc"), "ABC")
        self.assertRaises(xmlrpc.client.Fault, proxy.absent)
        call = {"id": 5, "method": "sort", "params": [["b", "a"]]}
        answer = json.loads(visitor.ask("POST", "/jsonrpc", body=json.dumps(call).encode())[2])
        self.assertEqual(answer, {"result": ["a", "b"], "error": None, "id": 5})

    def test_upload(self) -> None:
        folder = self.own("upload")
        visitor = self.start(folder, "upload.py")
        self.assertEqual(visitor.ask("POST", "/", {"fullname": "Ann"})[2], "missing: picture")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        self.addCleanup(connection.close)
        body = (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="fullname"\r\n\r\nAnn\r\n'
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="picture"; filename="me.png"\r\n'
            f"Content-Type: image/png\r\n\r\nPNG\r\n--{BOUNDARY}--\r\n"
        )
        connection.request("POST", "/", body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"})
        self.assertEqual(connection.getresponse().read(), b"Ann: me.png, type=image/png, size=3")
        self.assertEqual((folder / "uploaded" / "me.png").read_bytes(), b"PNG")

    def test_locales(self) -> None:
        visitor = self.start(self.own("locales"), "locales.py")
        self.assertEqual(visitor.get("/")[2], "One apple")
        self.assertEqual(visitor.ask("POST", "/", {"lang": "es_ES"})[0], 302)
        self.assertEqual(visitor.get("/?apples=3")[2], "3 manzanas")
        self.assertEqual(visitor.get("/?apples=1")[2], "Una manzana")


class CycloneDemosTest(MovedTest):
    """Cyclone's own demos, where a folder with them is given."""

    def test_helloworld(self) -> None:
        for name in ("helloworld", "helloworld_bottle"):
            visitor = self.start(self.demo("cyclone", "helloworld"), f"{name}.py")
            self.assertEqual(visitor.get("/")[::2], (200, "Hello, world"))
            self.setUp()

    def test_sse(self) -> None:
        # It shows a film that a server far away sends; here it only has to open the stream.
        folder = self.demo("cyclone", "sse")
        program = folder / "ssedemo.py"
        # Twisted has moved it since.
        program.write_text(
            program.read_text().replace("twisted.protocols import telnet", "twisted.conch import telnet")
        )
        self.start(folder, "ssedemo.py")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        self.addCleanup(connection.close)
        connection.request("GET", "/live")
        response = connection.getresponse()
        self.assertTrue(response.headers["Content-Type"].startswith("text/event-stream"))
        response.close()

    def test_rpc(self) -> None:
        self.start(self.demo("cyclone", "rpc"), "rpcdemo.py")
        proxy: Any = xmlrpc.client.ServerProxy(f"http://127.0.0.1:{self.port}/xmlrpc")
        self.assertEqual(proxy.sort(["b", "a"]), ["a", "b"])

    def test_upload(self) -> None:
        visitor = self.start(self.demo("cyclone", "upload"), "uploaddemo.py")
        self.assertIn("multipart/form-data", visitor.get("/")[2])

    def test_locale(self) -> None:
        visitor = self.start(self.demo("cyclone", "locale"), "localedemo.py")
        visitor.cookies["lang"] = "es_ES"
        self.assertIn("3 manzanas", visitor.get("/?apples=3")[2])
