#!/usr/bin/env python3
"""What the README's commands run: make a virtual environment, install the project, start it or test it.

Called by a person or by ``.ci/run`` from a fresh clone. It needs nothing but the standard library, and it
reads on old Pythons as well, so that it can look for a newer one and hand over to it:

    python3 dev.py demo [OPTION...]      the demo on http://127.0.0.1:8888 (options of ``cycloneish run``)
    python3 dev.py test [TEST...]        every test (or the named ones) under coverage
    python3 dev.py check                 ruff, mypy and the documentation
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(ROOT, ".venv")
STAMP = os.path.join(VENV, "cycloneish-installed.json")
OLDEST = (3, 11)
NEWEST_TRIED = 15
COVERAGE_FLOOR = 90.0

# What trial writes at the very end: "PASSED (skips=1, successes=7)" or "FAILED (failures=1, successes=6)".
RESULT = re.compile(r"^(PASSED|FAILED)(?: \((.*)\))?\s*$")
COUNT = re.compile(r"(\w+)=(\d+)")


class Trouble(Exception):
    """Something the person at the keyboard has to know; shown as one message, exit status 1."""


def main(arguments):
    commands = {"demo": demo, "test": test, "check": check}
    if not arguments or arguments[0] not in commands:
        print(__doc__)
        return 0 if arguments and arguments[0] in ("-h", "--help", "help") else 2
    if sys.version_info < OLDEST:
        hand_over_to_newer_python()
    os.chdir(ROOT)
    try:
        return commands[arguments[0]](arguments[1:])
    except Trouble as trouble:
        print(f"dev.py: {trouble}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def demo(options):
    """Install what the demo needs and become it."""
    python = environment(["demo"])
    say("starting the demo")
    os.execv(python, [python, "-m", "cycloneish", "run", *options])


def test(names):
    """Install what the tests need, run them under coverage, close with ``N passed, N failed``."""
    python = environment(["test"], extra=["setuptools>=77"])
    debian_packages(
        {
            "chromium": ["chromium", "chromium-browser", "google-chrome"],
            "chromium-driver": ["chromedriver"],
            "rabbitmq-server": ["rabbitmq-server"],
        }
    )
    tornado_demos(python)
    whole = not names
    for leftover in os.listdir(ROOT):
        if leftover == ".coverage" or leftover.startswith(".coverage."):
            os.remove(leftover)
    say("running the tests")
    coverage = [python, "-m", "coverage"]
    status, passed, failed, skipped = run_trial(
        [*coverage, "run", "-m", "twisted.trial", *(names or ["tests"])]
    )
    if whole:
        subprocess.call([*coverage, "combine", "--quiet"])
        subprocess.call([*coverage, "report", "--skip-covered", "--sort=cover"])
        total = subprocess.run(
            [*coverage, "report", "--format=total", "--precision=2"],
            stdout=subprocess.PIPE,
            text=True,
        ).stdout.strip()
        covered = float(total or 0)
        print(f"line coverage: {covered:.2f} % (at least {COVERAGE_FLOOR:.0f} % is asked for)")
        if covered < COVERAGE_FLOOR:
            status = status or 1
    if skipped:
        print(f"{skipped} skipped, each with its reason in the list above")
    print(f"{passed} passed, {failed} failed")
    return status


def tornado_demos(python):
    """Put the demos that Tornado's source release carries where the tests of migrate-imports look for them.

    6.2 is the last release that has them. Without a network those tests are skipped.
    """
    target = os.path.join(VENV, "demos", "tornado")
    if os.path.isdir(target):
        return
    import tarfile
    import tempfile

    say("fetching Tornado's demos")
    with tempfile.TemporaryDirectory() as folder:
        download = [python, "-m", "pip", "download", "--quiet", "--no-binary", ":all:", "--no-deps"]
        if subprocess.call([*download, "--dest", folder, "tornado==6.2"]):
            say("not to be had: their tests will be skipped")
            return
        with tarfile.open(os.path.join(folder, "tornado-6.2.tar.gz")) as archive:
            wanted = [entry for entry in archive.getmembers() if entry.name.startswith("tornado-6.2/demos/")]
            # Python 3.11.2, Debian's, does not know the argument yet.
            careful = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            archive.extractall(folder, wanted, **careful)
        shutil.copytree(os.path.join(folder, "tornado-6.2", "demos"), target)


def check(_):
    """What a machine can say about the source: style, types, documentation without a warning."""
    python = environment(["test", "lint", "docs"], extra=["setuptools>=77"])
    steps = [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy", "--strict", "cycloneish"],
        ["sphinx", "-W", "-q", "-b", "html", "docs", "docs/_build/html"],
    ]
    failed = []
    for step in steps:
        say(" ".join(step))
        if subprocess.call([python, "-m", *step]):
            failed.append(step[0])
    print("not clean: {}".format(", ".join(failed)) if failed else "all clean")
    return 1 if failed else 0


def run_trial(command):
    """Run trial, passing its output on while it comes, and count from its last line."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    result = None
    for line in process.stdout:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
        result = RESULT.match(line.decode("utf-8", "replace")) or result
    status = process.wait()
    passed, failed, skipped = count(result)
    if result is None:
        failed = 1  # trial did not get as far as its summary
    return (status or (1 if failed else 0)), passed, failed, skipped


def count(result):
    """(passed, failed, skipped) of trial's closing line; an expected failure counts as passed."""
    counts = dict(COUNT.findall((result.group(2) or "") if result else ""))

    def total(*names):
        return sum(int(counts.get(name, 0)) for name in names)

    passed = total("successes", "expectedFailures")
    return passed, total("failures", "errors", "unexpectedSuccesses"), total("skips")


def environment(extras, extra=()):
    """Give the Python of ``.venv`` with the project and these extras in it; quick when nothing changed."""
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as metadata:
        fingerprint = hashlib.sha256(metadata.read() + sys.version.encode()).hexdigest()
    python = os.path.join(VENV, "bin", "python")
    installed = read_stamp(fingerprint)
    wanted = sorted(set(installed) | set(extras))
    if os.path.exists(python) and set(extras) <= set(installed):
        return python
    if not works(python):
        create_venv(python)
    say("installing cycloneish[{}]".format(",".join(wanted)))
    requirement = ".[{}]".format(",".join(wanted))
    pip = [
        python,
        "-m",
        "pip",
        "install",
        "-qq",  # errors only: warnings about other packages help nobody here
        "--disable-pip-version-check",
        "--no-compile",  # Python compiles what is imported, which is a fraction of what is installed
        # A path entry rather than an import hook: twistd finds plugins in folders of sys.path only.
        "--config-settings=editable_mode=compat",
        *extra,
        "--editable",
        requirement,
    ]
    if subprocess.call(pip):
        raise Trouble("pip could not install the project; its message is above")
    with open(STAMP, "w") as stamp:
        json.dump({"fingerprint": fingerprint, "extras": wanted}, stamp)
    return python


def read_stamp(fingerprint):
    try:
        with open(STAMP) as stamp:
            seen = json.load(stamp)
    except (OSError, ValueError):
        return []
    return seen["extras"] if seen.get("fingerprint") == fingerprint else []


def works(python):
    """Is there an interpreter, new enough, with a pip?"""
    if not os.path.exists(python):
        return False
    probe = f"import sys, pip; sys.exit(sys.version_info < {OLDEST!r})"
    return subprocess.call([python, "-c", probe], stderr=subprocess.DEVNULL) == 0


def create_venv(python):
    """Make ``.venv``. Debian splits ensurepip off into python3-venv, so pip may come from elsewhere."""
    import venv

    say("creating .venv with Python {}.{}.{}".format(*sys.version_info[:3]))
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        pass
    else:
        venv.create(VENV, clear=True, with_pip=True, symlinks=True)
        return
    venv.create(VENV, clear=True, with_pip=False, symlinks=True)
    try:
        pip_from_index(python)
    except (OSError, ValueError, LookupError) as reason:
        package = "python{}.{}-venv".format(*sys.version_info[:2])
        if not may_apt():
            raise Trouble(
                f"this Python has no ensurepip, and pip could not be fetched ({reason}). "
                f"Install it (on Debian: apt-get install {package}) and run the command again."
            ) from None
        apt_get([package])
        # This process has already looked for ensurepip and remembers that it was not there.
        if subprocess.call([sys.executable, "-m", "venv", "--clear", VENV]):
            raise Trouble(
                f"{package} was installed, and a virtual environment could still not be made"
            ) from None


def pip_from_index(python):
    """Put pip into the environment from its own wheel, which Python can run as it is: a wheel is a zip."""
    import tempfile
    from urllib.request import Request, urlopen

    index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/")
    request = Request(index + "/pip/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    with urlopen(request, timeout=30) as answer:
        files = json.load(answer)["files"]
    wheels = []
    for file in files:
        released = re.match(r"pip-(\d+(?:\.\d+)*)-py3-none-any\.whl$", file["filename"])
        if released and not file.get("yanked"):
            wheels.append(([int(part) for part in released.group(1).split(".")], file))
    if not wheels:
        raise LookupError(f"no wheel of pip at {index}/pip/")
    newest = max(wheels, key=lambda entry: entry[0])[1]
    with urlopen(newest["url"], timeout=60) as answer:
        content = answer.read()
    if hashlib.sha256(content).hexdigest() != newest["hashes"]["sha256"]:
        raise ValueError("the wheel of pip is not the one that its index describes")
    with tempfile.TemporaryDirectory() as folder:
        wheel = os.path.join(folder, newest["filename"])
        with open(wheel, "wb") as target:
            target.write(content)
        runnable = os.path.join(wheel, "pip")
        if subprocess.call([python, runnable, "install", "--quiet", "--no-index", wheel]):
            raise ValueError("pip's wheel could not install itself")


def debian_packages(programs):
    """Install the Debian packages whose programs are missing, or say what will be skipped.

    ``programs``: for each package the program names of which one must be there.
    """
    missing = [
        package for package, names in programs.items() if not any(shutil.which(name) for name in names)
    ]
    if not missing:
        return
    if may_apt():
        apt_get(missing)
    else:
        say("not found: {}; the tests that need it will be skipped".format(" and ".join(missing)))


def may_apt():
    return hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get") is not None


def apt_get(packages):
    say("apt-get install {}".format(" ".join(packages)))
    # Run level 1: what is installed for the tests (RabbitMQ) starts no service of its own.
    quiet = dict(os.environ, DEBIAN_FRONTEND="noninteractive", RUNLEVEL="1")
    subprocess.call(["apt-get", "update", "-qq"], env=quiet)
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    if subprocess.call(install, env=quiet, stdout=subprocess.DEVNULL):
        raise Trouble("apt-get could not install {}".format(" ".join(packages)))


def hand_over_to_newer_python():
    """macOS brings an old ``python3``; a newer one beside it has its version in its name."""
    for minor in range(NEWEST_TRIED, OLDEST[1] - 1, -1):
        newer = shutil.which(f"python3.{minor}")
        if newer:
            os.execv(newer, [newer, os.path.abspath(__file__), *sys.argv[1:]])
    print(f"dev.py: Python 3.11 or later is needed; this is {sys.version.split()[0]}", file=sys.stderr)
    sys.exit(1)


def say(what):
    print(f"--- {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
