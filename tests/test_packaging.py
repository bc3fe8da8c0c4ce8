"""What an installation brings: the plugin, every file, light imports; and what the documentation says."""

from __future__ import annotations

import importlib.util
import os
import pkgutil
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import cycloneish
from tests.programs import ROOT, environment

HEAVY = ("OpenSSL", "sqlalchemy", "psycopg2", "txamqp", "treq", "wtforms")
PATIENCE = 300


def run(*command: str | Path, **options: object) -> str:
    """What a command wrote, both outputs together; fails with it when the command does."""
    done = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        **options,  # type: ignore[call-overload]
    )
    if done.returncode:
        raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout  # type: ignore[no-any-return]


def without_checkout() -> dict[str, str]:
    """An environment in which only what is installed can be imported."""
    names = ("PYTHONPATH", "COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START")
    return {name: value for name, value in os.environ.items() if name not in names}


class WheelTest(SynchronousTestCase):
    """One wheel and one environment for all tests of the class: they take seconds."""

    wheel: Path
    bin: Path

    def setUp(self) -> None:
        if hasattr(WheelTest, "bin"):
            return
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        source = folder / "source"
        tracked = run("git", "-C", ROOT, "ls-files", "-co", "--exclude-standard", "-z").split("\0")
        for name in tracked:
            wanted = name.startswith(("cycloneish/", "twisted/", "pyproject.toml", "README.md", "LICENSE"))
            if wanted and (ROOT / name).is_file():
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                (source / name).write_bytes((ROOT / name).read_bytes())
        build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, source]
        if self.builds_here():
            build.append("--no-build-isolation")
        run(*build, env=without_checkout())
        WheelTest.wheel = next(folder.glob("cycloneish-*.whl"))
        venv.create(folder / "venv", with_pip=False, symlinks=True)
        binaries = folder / "venv" / "bin"
        pip = [sys.executable, "-m", "pip", "--python", binaries / "python", "install", "-q"]
        run(*pip, "--no-deps", "--no-index", self.wheel, env=without_checkout())
        # The dependencies are those of this interpreter; an editable cycloneish among them stays out, as
        # path files are only read in an environment's own folder.
        place = run(
            binaries / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"
        ).strip()
        (Path(place) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
        WheelTest.bin = binaries

    @staticmethod
    def builds_here() -> bool:
        if importlib.util.find_spec("setuptools") is None:
            return False
        version = run(sys.executable, "-c", "import setuptools; print(setuptools.__version__)")
        return int(version.split(".")[0]) >= 77

    def python(self, program: str) -> str:
        return run(self.bin / "python", "-c", program, cwd=self.bin, env=without_checkout())

    def test_the_package_comes_from_the_wheel(self) -> None:
        place = self.python("import cycloneish; print(cycloneish.__file__)").strip()
        self.assertTrue(place.startswith(str(self.bin.parent)), place)

    def test_twistd_lists_it(self) -> None:
        program = "import sys; sys.argv = ['twistd', '--help']; from twisted.scripts.twistd import run; run()"
        self.assertRegex(self.python(program), r"(?m)^    cycloneish +Serve a cycloneish application")

    def test_the_command_is_there(self) -> None:
        said = run(self.bin / "cycloneish", "--version", cwd=self.bin, env=without_checkout())
        self.assertEqual(said, f"cycloneish {cycloneish.version}\n")

    def test_it_brings_every_file_of_the_package(self) -> None:
        with zipfile.ZipFile(self.wheel) as archive:
            inside = {name for name in archive.namelist() if ".dist-info/" not in name}
        tracked = run("git", "-C", ROOT, "ls-files", "cycloneish", "twisted").split()
        self.assertEqual(sorted(set(tracked) - inside), [])
        self.assertIn("cycloneish/py.typed", inside)
        self.assertNotIn("twisted/__init__.py", inside)
        self.assertNotIn("twisted/plugins/__init__.py", inside)
        self.assertFalse([name for name in inside if name.startswith("tests/")])


class ImportTest(SynchronousTestCase):
    def loaded_by(self, module: str) -> set[str]:
        program = f"import {module}, sys; print(*sys.modules)"
        return set(run(sys.executable, "-c", program, env=environment()).split())

    def test_the_web_part_loads_no_database_broker_client_form_or_tls(self) -> None:
        self.assertEqual(self.loaded_by("cycloneish.web") & set(HEAVY), set())

    def test_the_plugin_loads_nothing_of_ours(self) -> None:
        program = (
            "import sys, twisted.plugins.cycloneish_plugin as plugin;"
            "print(*(name for name in sys.modules if name.split('.')[0] == 'cycloneish'))"
        )
        self.assertEqual(run(sys.executable, "-c", program, env=environment()).strip(), "")

    def test_no_import_installs_a_reactor(self) -> None:
        # Only files that start programs may choose one; everything else takes the one it is given.
        names = [name for name in public_modules() if "demo" not in name and name != "cycloneish.__main__"]
        program = (
            "import importlib, sys\n"
            f"for name in {names!r}:\n"
            "    importlib.import_module(name)\n"
            "    if 'twisted.internet.reactor' in sys.modules: sys.exit(name)\n"
        )
        run(sys.executable, "-c", program, env=environment())


def public_modules() -> list[str]:
    """Every module of the package whose name has no underscore in front."""
    found = ["cycloneish"]
    for module in pkgutil.walk_packages(cycloneish.__path__, "cycloneish."):
        if not any(part.startswith("_") for part in module.name.split(".")):
            found.append(module.name)
    return found


class DocumentationTest(SynchronousTestCase):
    def test_every_limit_is_in_the_table(self) -> None:
        spec = importlib.util.spec_from_file_location("limits_table", ROOT / "docs" / "limits_table.py")
        assert spec is not None
        assert spec.loader is not None
        limits_table = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(limits_table)
        page = limits_table.PAGE.read_text()
        self.assertEqual(page, limits_table.with_table(page), "run: python docs/limits_table.py")
        for name, default, text in limits_table.fields():
            self.assertTrue(text, f"{name} = {default} has no description")

    def test_every_public_room_has_a_page_in_the_reference(self) -> None:
        documented = set()
        for page in (ROOT / "docs" / "reference").glob("*.md"):
            documented |= set(re.findall(r"automodule:: (\S+)", page.read_text()))
        rooms = {name for name in public_modules() if name.count(".") == 1}
        self.assertEqual(rooms - documented, set())

    def test_the_readme_begins_with_two_commands_of_one_line(self) -> None:
        blocks = re.findall(r"```\w*\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
        self.assertEqual(blocks[:2], ["python3 dev.py demo\n", "python3 dev.py test\n"])

    def test_links_between_pages_lead_somewhere(self) -> None:
        pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
        for page in pages:
            if "_build" in page.parts:
                continue
            for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
                self.assertTrue((page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}")


if not (ROOT / ".git").exists():
    WheelTest.skip = "not a clone: what belongs to the package is asked of git"
