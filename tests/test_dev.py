"""The script behind the README's two commands: what it counts, what it remembers, where it gets pip from."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import http.server
import importlib.util
import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.programs import ROOT


class DevTest(SynchronousTestCase):
    def setUp(self) -> None:
        spec = importlib.util.spec_from_file_location("dev_under_test", ROOT / "dev.py")
        assert spec is not None
        assert spec.loader is not None
        self.dev: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.dev)
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def counted(self, line: str) -> tuple[int, int, int]:
        return self.dev.count(self.dev.RESULT.match(line))  # type: ignore[no-any-return]

    def test_counts_what_trial_says_last(self) -> None:
        self.assertEqual(self.counted("PASSED (successes=7)\n"), (7, 0, 0))
        self.assertEqual(self.counted("PASSED (skips=2, expectedFailures=1, successes=7)"), (8, 0, 2))
        line = "FAILED (failures=1, errors=2, unexpectedSuccesses=3, successes=4)"
        self.assertEqual(self.counted(line), (4, 6, 0))

    def run_trial(self, program: str) -> tuple[int, int, int, int]:
        class Terminal:
            buffer = io.BytesIO()

        self.patch(self.dev.sys, "stdout", Terminal())
        return self.dev.run_trial([sys.executable, "-c", program])  # type: ignore[no-any-return]

    def test_a_run_without_a_summary_is_a_failure(self) -> None:
        self.assertEqual(self.run_trial("print('half a run')"), (1, 0, 1, 0))

    def test_the_exit_status_of_trial_is_kept(self) -> None:
        program = "import sys; print('FAILED (failures=1, successes=2)'); sys.exit(1)"
        self.assertEqual(self.run_trial(program), (1, 2, 1, 0))
        self.assertEqual(self.run_trial("print('PASSED (successes=2)')"), (0, 2, 0, 0))

    def test_it_remembers_what_is_installed_until_the_metadata_changes(self) -> None:
        self.dev.STAMP = str(self.folder / "stamp")
        self.assertEqual(self.dev.read_stamp("a"), [])
        Path(self.dev.STAMP).write_text(json.dumps({"fingerprint": "a", "extras": ["test"]}))
        self.assertEqual(self.dev.read_stamp("a"), ["test"])
        self.assertEqual(self.dev.read_stamp("b"), [])
        Path(self.dev.STAMP).write_text("{half")
        self.assertEqual(self.dev.read_stamp("a"), [])

    def test_without_a_command_it_says_what_there_is(self) -> None:
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            self.assertEqual(self.dev.main([]), 2)
            self.assertEqual(self.dev.main(["help"]), 0)
        self.assertIn("python3 dev.py demo", output.getvalue())

    def test_an_old_python_reads_it_far_enough_to_look_for_a_newer_one(self) -> None:
        # Python 3.8 is what feature_version can be asked about; macOS brings 3.9.
        ast.parse((ROOT / "dev.py").read_text(), feature_version=(3, 8))

    # pip, where Debian left ensurepip out

    def index(self, *, right_hash: bool = True) -> None:
        """A package index on this machine with several versions of pip."""
        wheel = io.BytesIO()
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("pip/__main__.py", "")
        content = wheel.getvalue()
        digest = hashlib.sha256(content).hexdigest() if right_hash else "0" * 64

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = content
                if self.path == "/simple/pip/":
                    assert self.headers["Accept"] == "application/vnd.pypi.simple.v1+json"
                    url = f"http://127.0.0.1:{self.server.server_address[1]}/files/"  # type: ignore[str-bytes-safe]
                    names = ["pip-9.0.whl", "pip-24.0-py3-none-any.whl", "pip-25.3.1-py3-none-any.whl"]
                    files = [
                        {"filename": name, "url": url + name, "hashes": {"sha256": digest}} for name in names
                    ]
                    files.append({"filename": "pip-99.0-py3-none-any.whl", "yanked": True})
                    answer = json.dumps({"files": files}).encode()
                else:
                    assert self.path.endswith("/pip-25.3.1-py3-none-any.whl"), self.path
                self.send_response(200)
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        environment = {**os.environ, "PIP_INDEX_URL": f"http://127.0.0.1:{server.server_address[1]}/simple/"}
        self.patch(os, "environ", environment)

    def test_pip_comes_from_its_newest_wheel(self) -> None:
        self.index()
        ran = []
        self.patch(self.dev.subprocess, "call", lambda command: ran.append(command) or 0)
        self.dev.pip_from_index(sys.executable)
        program, runnable, *arguments = ran[0]
        self.assertEqual(program, sys.executable)
        wheel = str(Path(runnable).parent)
        self.assertEqual(runnable, os.path.join(wheel, "pip"))
        self.assertEqual(arguments, ["install", "--quiet", "--no-index", wheel])
        self.assertEqual(Path(wheel).name, "pip-25.3.1-py3-none-any.whl")

    def test_a_wheel_can_be_run_as_it_is(self) -> None:
        wheel = self.folder / "pip-1-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("pip/__main__.py", "import sys; print(*sys.argv[1:])")
        said = subprocess.check_output([sys.executable, str(wheel / "pip"), "install"], text=True)
        self.assertEqual(said, "install\n")

    def test_another_wheel_than_the_index_describes_is_refused(self) -> None:
        self.index(right_hash=False)
        error = self.assertRaises(ValueError, self.dev.pip_from_index, sys.executable)
        self.assertIn("not the one that its index describes", str(error))

    def test_neither_ensurepip_nor_index_nor_root_is_one_message_with_the_package(self) -> None:
        def no_network(_: str) -> None:
            raise OSError("no route to host")

        self.dev.VENV = str(self.folder / "venv")
        self.dev.pip_from_index = no_network
        self.dev.may_apt = lambda: False
        self.patch(sys, "modules", {**sys.modules, "ensurepip": None})
        with contextlib.redirect_stdout(io.StringIO()):
            error = self.assertRaises(self.dev.Trouble, self.dev.create_venv, "python")
        self.assertIn("no route to host", str(error))
        self.assertIn(f"apt-get install python3.{sys.version_info[1]}-venv", str(error))

    # what a browser needs

    def test_missing_programs_are_installed_as_root_and_told_otherwise(self) -> None:
        installed = []
        self.dev.apt_get = installed.append
        programs = {"python3": [sys.executable], "fictitious": ["no-program-of-this-name"]}
        self.dev.may_apt = lambda: True
        self.dev.debian_packages(programs)
        self.assertEqual(installed, [["fictitious"]])
        self.dev.may_apt = lambda: False
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            self.dev.debian_packages(programs)
        self.assertEqual(len(installed), 1)
        self.assertIn("fictitious", output.getvalue())
