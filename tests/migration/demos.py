"""Where the tests find the demos of Tornado and Cyclone: programs that others wrote.

They are not part of this repository, and tests download nothing. ``python3 dev.py test`` puts Tornado's,
from the last source release that carries them, into ``.venv/demos/tornado``. No release of Cyclone carries
its demos, they are in its repository only. To have them tested, point ``CYCLONEISH_DEMOS`` to a folder with
``tornado`` and ``cyclone`` in it, each a ``demos`` folder as it is in the project's repository.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.programs import ROOT

__all__ = ["copy_of"]


def copy_of(project: str, name: str, target: Path) -> Path:
    """Copy one of the demos.

    :param project: ``tornado`` or ``cyclone``.
    :param target: the folder that the demo's own folder is put into.
    :returns: the demo's own folder.
    """
    given = os.environ.get("CYCLONEISH_DEMOS")
    for folder in ([Path(given)] if given else []) + [ROOT / ".venv" / "demos"]:
        if (folder / project / name).is_dir():
            target.mkdir(parents=True, exist_ok=True)
            return Path(shutil.copytree(folder / project / name, target / name))
    if project == "cyclone":
        raise SkipTest(
            "no release of Cyclone carries its demos: set CYCLONEISH_DEMOS (see tests/migration/demos.py)"
        )
    raise SkipTest(
        f"{project}'s demos are not there: python3 dev.py test fetches them, or set CYCLONEISH_DEMOS"
    )
