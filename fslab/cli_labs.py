"""``fslab labs``: the notebooks, opened in JupyterLab from a copy of one's own."""

import importlib.util
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typing_extensions import Doc

from fslab import console
from fslab.errors import FslabError
from fslab.storage import explained

# No question to the network at start: neither for a newer version nor for news.
QUIET = ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.news_url=None"]


def copy_labs(folder: Path) -> list[Path]:
    """Copy the notebooks into a folder; those that are there already, and may hold answers, stay as they are.

    Returns:
        What was copied.

    Raises:
        OutputError: if the folder cannot be written.
    """
    spec, copied = importlib.util.find_spec("fslab.labs"), []  # found, not imported: it needs IPython
    source = Path(spec.origin).parent
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted([*source.glob("*.ipynb"), *source.glob("*.md")]):
            if not (folder / path.name).exists():
                copied.append(Path(shutil.copyfile(path, folder / path.name)))
    return copied


@dataclass(frozen=True)
class Labs:
    """Open the course in JupyterLab: a copy of your own, so that your edits never touch the installed files."""

    folder: Annotated[Path, Doc("where your copy lies; made at the first call, kept afterwards")] = Path("fslab_labs")
    port: Annotated[int, Doc("port to listen at, on this machine only; the next free one if it is taken")] = 8888
    browser: Annotated[bool, Doc("open a browser window")] = True
    copy_only: Annotated[bool, Doc("copy the notebooks and start nothing")] = False

    def run(self) -> int:
        """Run the command."""
        copied = copy_labs(self.folder)
        console.say(f"  {self.folder}: {len(copied)} files copied; what was there already stays as it was")
        if self.copy_only:
            return 0
        if importlib.util.find_spec("jupyterlab") is None:
            raise FslabError("JupyterLab", "none installed", "install it with `pip install -e '.[labs]'`")
        command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={self.folder.resolve()}", *QUIET]
        command += [f"--ServerApp.port={self.port}", *([] if self.browser else ["--no-browser"])]
        return subprocess.run(command, check=False).returncode
