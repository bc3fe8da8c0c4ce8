"""The private server: made, shared, stopped, killed, found again; and the URLs that open it."""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import SkipTest, skipIf

from twisted.trial.unittest import SynchronousTestCase, TestCase

from cycloneish.db import cluster as cluster_module
from cycloneish.db import errors
from cycloneish.db.cluster import Cluster
from cycloneish.db.embedded import EmbeddedServer
from cycloneish.db.urls import open_database

from .support import FAST, ask, kill, sleep, until

_TEMPLATE: list[Path] = []


def new_cluster(case: SynchronousTestCase | TestCase, directory: str | None = None) -> Cluster:
    """A cluster in a new directory; made once and copied, as making takes a second."""
    place = Path(directory or tempfile.mkdtemp(prefix="cycloneish-cluster-"))
    case.addCleanup(shutil.rmtree, place, ignore_errors=True)
    if not _TEMPLATE:
        made = Cluster(tempfile.mkdtemp(prefix="cycloneish-template-"), settings=FAST)
        made.start()
        made.stop()
        _TEMPLATE.append(made.directory)
        atexit.register(shutil.rmtree, made.directory, ignore_errors=True)
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", *map(str, _TEMPLATE[0].glob("pg*")), str(place)], check=True)
    cluster = Cluster(place, settings=FAST)
    case.addCleanup(cluster.stop)
    return cluster


class ClusterTests(SynchronousTestCase):
    def mktemp_dir(self) -> Path:
        place = Path(tempfile.mkdtemp(prefix="c-"))
        self.addCleanup(shutil.rmtree, place, ignore_errors=True)
        return place

    def test_data_is_kept_over_a_stop(self) -> None:
        cluster = new_cluster(self)
        dsn = cluster.start()
        ask(dsn, "create table t as select 5 as n")
        cluster.stop()
        self.assertIsNone(cluster.pid())
        self.assertEqual(ask(cluster.start(), "select n from t"), 5)

    def test_only_its_account_can_read_the_data(self) -> None:
        cluster = new_cluster(self)
        cluster.start()
        _, data = cluster._find()
        self.assertEqual(stat.S_IMODE(data.stat().st_mode) & 0o077, 0)

    def test_nothing_listens_on_the_network(self) -> None:
        self.assertEqual(ask(new_cluster(self).start(), "show listen_addresses"), "")

    def test_utf8_whatever_the_locale_of_the_system(self) -> None:
        dsn = new_cluster(self).start()
        self.assertEqual(ask(dsn, "show server_encoding"), "UTF8")
        self.assertEqual(ask(dsn, "select upper('ä')"), "Ä")

    def test_the_last_of_several_users_stops_it(self) -> None:
        first = new_cluster(self)
        second = Cluster(first.directory)
        self.addCleanup(second.stop)
        self.assertEqual(first.start(), second.start())
        first.stop()
        self.assertEqual(ask(second.start(), "select 1"), 1)
        second.stop()
        self.assertIsNone(second.pid())
        second.stop()

    def test_a_server_left_by_a_killed_program_is_used_again_and_stopped(self) -> None:
        cluster = new_cluster(self)
        script = (
            "import os, signal, sys; from cycloneish.db.cluster import Cluster; "
            "c = Cluster(sys.argv[1]); c.start(); print(c.pid(), flush=True); "
            "os.kill(os.getpid(), signal.SIGKILL)"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, str(cluster.directory)], capture_output=True, check=False
        )
        pid = int(done.stdout)
        self.assertEqual(done.returncode, -signal.SIGKILL)
        self.assertEqual(ask(cluster.start(), "select 1"), 1)
        self.assertEqual(cluster.pid(), pid)
        cluster.stop()
        self.assertIsNone(cluster.pid())

    def test_a_killed_server_is_started_again_and_has_its_data(self) -> None:
        cluster = new_cluster(self)
        ask(cluster.start(), "create table t as select 5 as n")
        pid = kill(cluster)
        self.assertEqual(ask(cluster.start(), "select n from t"), 5)
        self.assertNotEqual(cluster.pid(), pid)

    def test_a_pid_file_that_names_another_program_does_not_stop_the_start(self) -> None:
        cluster = new_cluster(self)
        cluster.start()
        _, data = cluster._find()
        text = (data / "postmaster.pid").read_text()
        cluster.stop()
        (data / "postmaster.pid").write_text(text.replace(text.splitlines()[0], str(os.getpid()), 1))
        account = cluster_module._account(cluster.directory)
        if account is not None:
            os.chown(data / "postmaster.pid", account.pw_uid, account.pw_gid)
        self.assertIsNone(cluster.pid())
        self.assertEqual(ask(cluster.start(), "select 1"), 1)

    def test_an_interrupted_making_leaves_nothing_in_the_way(self) -> None:
        place = Path(tempfile.mkdtemp(prefix="cycloneish-cluster-"))
        self.addCleanup(shutil.rmtree, place, ignore_errors=True)
        (place / "pg18.new").mkdir()
        (place / "pg18.new" / "half").write_text("x")
        cluster = Cluster(place / "made" / "on" / "demand", settings=FAST)
        cluster.directory.mkdir(parents=True)
        (place / "pg18.new").rename(cluster.directory / "pg18.new")
        self.addCleanup(cluster.stop)
        self.assertEqual(ask(cluster.start(), "select 1"), 1)

    def test_a_path_too_long_for_a_socket_and_full_of_odd_characters(self) -> None:
        place = self.mktemp_dir() / "it's, a \\ path" / ("x" * 100)
        cluster = new_cluster(self, str(place))
        dsn = cluster.start()
        self.assertEqual(ask(dsn, "select 1"), 1)
        directory = Path(ask(dsn, "show unix_socket_directories"))
        self.assertEqual(stat.S_IMODE(directory.stat().st_mode) & 0o077, 0)
        cluster.stop()
        self.assertFalse(directory.exists())
        # Somebody else's directory in its place is not trusted.
        directory.mkdir(mode=0o777)
        directory.chmod(0o777)
        self.addCleanup(directory.rmdir)
        with self.assertRaises(errors.EmbeddedServerError):
            cluster.start()

    def test_odd_characters_in_a_short_path(self) -> None:
        place = self.mktemp_dir() / "it's, a"
        self.assertEqual(ask(new_cluster(self, str(place)).start(), "select 1"), 1)

    def test_a_server_that_does_not_start_shows_its_log(self) -> None:
        cluster = new_cluster(self)
        cluster.settings["shared_buffers"] = "nonsense"
        with self.assertRaises(errors.EmbeddedServerError) as caught:
            cluster.start()
        self.assertIn("nonsense", str(caught.exception))

    def test_a_cluster_of_another_version_is_not_touched(self) -> None:
        place = Path(tempfile.mkdtemp(prefix="cycloneish-cluster-"))
        self.addCleanup(shutil.rmtree, place)
        (place / "pg9").mkdir()
        (place / "pg9" / "PG_VERSION").write_text("9\n")
        with self.assertRaises(errors.EmbeddedServerError) as caught:
            Cluster(place).start()
        self.assertIn("PostgreSQL 9", str(caught.exception))

    def test_a_directory_that_cannot_be_made(self) -> None:
        with self.assertRaises(errors.EmbeddedServerError):
            Cluster("/dev/null/x").start()

    def test_a_starter_that_waits_too_long_for_another_says_so(self) -> None:
        cluster = new_cluster(self)
        other = Cluster(cluster.directory, start_timeout=0.1)
        with cluster._locked(), self.assertRaises(errors.EmbeddedServerError) as caught:
            other.start()
        self.assertIn("another program", str(caught.exception))

    def test_without_the_wheel_the_error_names_the_command(self) -> None:
        self.patch(cluster_module.importlib.util, "find_spec", lambda name: None)
        with self.assertRaises(errors.MissingDependency) as caught:
            Cluster(tempfile.gettempdir()).start()
        self.assertIn("pip install 'cycloneish[embedded]'", str(caught.exception))

    def test_a_server_that_ignores_the_stop_is_stopped_harder(self) -> None:
        cluster = new_cluster(self)
        cluster.start()
        pid = cluster.pid()
        assert pid is not None
        cluster.stop_timeout = 0.0
        with self.assertLogs("cycloneish.db", "WARNING"):
            cluster.stop()
        self.assertIsNone(cluster.pid())


@skipIf(os.geteuid() != 0, "only root has to give its place to another account")
class RootTests(SynchronousTestCase):
    def test_the_server_does_not_run_as_root(self) -> None:
        cluster = new_cluster(self)
        cluster.start()
        self.assertNotEqual(os.stat(f"/proc/{cluster.pid()}").st_uid, 0)

    def test_a_closed_directory_is_opened_for_the_servers_account_only(self) -> None:
        closed = Path(tempfile.mkdtemp(prefix="cycloneish-closed-"))
        self.addCleanup(shutil.rmtree, closed, ignore_errors=True)
        self.assertEqual(stat.S_IMODE(closed.stat().st_mode), 0o700)
        cluster = new_cluster(self, str(closed / "data"))
        self.assertEqual(ask(cluster.start(), "select 1"), 1)
        # The group bits show the access list's mask; others still have nothing.
        self.assertEqual(stat.S_IMODE(closed.stat().st_mode) & 0o007, 0)
        before = os.getxattr(closed, "system.posix_acl_access")
        cluster.stop()
        cluster.start()
        self.assertEqual(os.getxattr(closed, "system.posix_acl_access"), before)

    def test_without_access_lists_everyone_may_pass_and_nobody_may_look(self) -> None:
        def refuse(*args: object) -> None:
            raise OSError("not supported")

        self.patch(cluster_module, "_allow_passage", refuse)
        closed = Path(tempfile.mkdtemp(prefix="cycloneish-closed-"))
        self.addCleanup(shutil.rmtree, closed, ignore_errors=True)
        cluster = new_cluster(self, str(closed / "data"))
        with self.assertLogs("cycloneish.db", "WARNING"):
            self.assertEqual(ask(cluster.start(), "select 1"), 1)
        self.assertEqual(stat.S_IMODE(closed.stat().st_mode), 0o701)

    def test_an_account_is_chosen_among_those_there_are(self) -> None:
        empty = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, empty)
        self.patch(cluster_module, "_ACCOUNTS", ("no-such-user", "nobody"))
        account = cluster_module._account(empty)
        assert account is not None
        self.assertEqual(account.pw_name, "nobody")
        self.patch(cluster_module, "_ACCOUNTS", ("no-such-user",))
        with self.assertRaises(errors.EmbeddedServerError):
            cluster_module._account(empty)
        (empty / "pg18").mkdir()
        (empty / "pg18" / "PG_VERSION").write_text("18")
        os.chown(empty / "pg18" / "PG_VERSION", 54321, 54321)
        with self.assertRaises(errors.EmbeddedServerError) as caught:
            cluster_module._account(empty)
        self.assertIn("54321", str(caught.exception))

    def test_an_ordinary_user_needs_no_other_account(self) -> None:
        place = Path(tempfile.mkdtemp(prefix="cycloneish-user-"))
        self.addCleanup(shutil.rmtree, place)
        nobody = pwd.getpwnam("nobody")
        os.chown(place, nobody.pw_uid, nobody.pw_gid)
        script = (
            "import sys, psycopg2; from cycloneish.db.cluster import Cluster; "
            "c = Cluster(sys.argv[1], settings={'fsync': 'off'}); d = c.start(); "
            "k = psycopg2.connect(d); k.close(); c.stop(); print('fine', c.pid())"
        )
        python = next(filter(lambda program: _can_run(program, nobody), _pythons()), None)
        if python is None:
            raise SkipTest("root's Python cannot be run by an ordinary user, and there is no other")
        done = subprocess.run(
            [python, "-c", script, str(place / "data")],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env={
                "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parents[2])]),
                "HOME": str(place),
            },
            user=nobody.pw_uid,
            group=nobody.pw_gid,
            extra_groups=[],
        )
        self.assertEqual(done.stdout.strip(), "fine None", done.stderr)


def _pythons() -> list[str]:
    return [sys.executable, f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"]


def _can_run(program: str, account: pwd.struct_passwd) -> bool:
    try:
        done = subprocess.run(
            [program, "-c", "pass"],
            check=False,
            capture_output=True,
            cwd="/",
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=[],
        )
    except OSError:
        return False
    return done.returncode == 0


class EmbeddedServerTests(TestCase):
    timeout = 60

    async def test_starting_and_stopping_do_not_hold_the_reactor_up(self) -> None:
        place = tempfile.mkdtemp(prefix="cycloneish-embedded-")
        self.addCleanup(shutil.rmtree, place, ignore_errors=True)
        server = EmbeddedServer(place, settings=FAST)
        longest = 0.0
        started = server.start()
        last = time.monotonic()
        while not started.called:
            await sleep(0.005)
            now = time.monotonic()
            longest, last = max(longest, now - last), now
        self.assertEqual(ask(await started, "select 1"), 1)
        await server.stop()
        # Two busy cores leave a process waiting now and then; a blocked reactor would show a second.
        self.assertLess(longest, 0.3)

    async def test_a_pool_starts_its_server_and_stops_it(self) -> None:
        cluster = new_cluster(self)
        pool = open_database(f"embedded://{cluster.directory}")
        pool.startService()
        self.addCleanup(pool.stopService)
        self.assertEqual(await pool.fetch_value("select 7"), 7)
        self.assertIsNotNone(cluster.pid())
        await pool.stopService()
        self.assertIsNone(cluster.pid())
        pool.startService()
        self.assertEqual(await pool.fetch_value("select 8"), 8)

    async def test_a_pools_server_that_dies_is_started_again(self) -> None:
        cluster = new_cluster(self)
        pool = open_database(f"embedded://{cluster.directory}")
        pool.startService()
        self.addCleanup(pool.stopService)
        await pool.execute("create table t (id int)")
        before = list(pool._all)
        pid = kill(cluster)
        await until(lambda: all(connection.lost for connection in before))
        self.assertEqual(await pool.fetch_value("select count(*) from t"), 0)
        self.assertNotEqual(cluster.pid(), pid)

    async def test_a_server_that_cannot_start_fails_the_pool_clearly(self) -> None:
        pool = open_database("embedded:///dev/null/x")
        with self.assertLogs("cycloneish.db", "ERROR"):
            pool.startService()
            self.addCleanup(pool.stopService)
            await self.assertFailure(pool.execute("select 1"), errors.EmbeddedServerError)
        await self.assertFailure(pool.when_ready(), errors.EmbeddedServerError)


class UrlTests(SynchronousTestCase):
    def test_unknown_urls_are_refused_without_showing_them(self) -> None:
        for url in (
            "mysql://me:secret@h/x",
            "secret",
            "embedded:",
            "embedded://host/secret",
            "embedded:///secret?x=1",
        ):
            with self.assertRaises(ValueError) as caught:
                open_database(url)
            self.assertNotIn("secret", str(caught.exception))

    def test_embedded_paths(self) -> None:
        for url, path in (
            ("embedded:///srv/my%20shop", Path("/srv/my shop")),
            ("embedded:shop-data", Path("shop-data").resolve()),
            ("embedded:./shop-data", Path("shop-data").resolve()),
        ):
            pool = open_database(url)
            assert isinstance(pool._server, EmbeddedServer)
            self.assertEqual(pool._server.cluster.directory, path)

    def test_options_reach_the_pool(self) -> None:
        self.assertEqual(open_database("postgresql://h/x", max_size=3).max_size, 3)
        self.assertEqual(open_database("postgres://h/x", max_size=3).max_size, 3)

    def test_importing_the_package_loads_no_driver(self) -> None:
        script = "import cycloneish.db, cycloneish.db.errors, sys; print('psycopg2' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        self.assertEqual(done.stdout.strip(), "False")

    def test_without_the_driver_the_error_names_the_command(self) -> None:
        for missing in ("psycopg2", "txpostgres"):
            script = f"import sys; sys.modules['{missing}'] = None; import cycloneish.db.postgres"
            done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
            self.assertIn(
                f"{missing} is not installed. Install it with: pip install 'cycloneish[postgres]'",
                done.stderr,
            )
