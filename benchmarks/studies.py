"""The tables of losses and encoders and the curves, from the folders that ``fslab bench`` made.

    fslab bench losses   --tier lab --budget 90s --out out/losses
    fslab bench encoders --tier lab --budget 90s --out out/encoders
    fslab bench curves   --tier lab --budget 2m  --out out/curves
    python -m benchmarks.studies out/losses out/encoders out/curves

Copies ``KIND.json`` to the results, and table and picture to ``docs/``.
"""

import json
import shutil
import sys
from pathlib import Path

from benchmarks.common import RESULTS

DOCS = Path(__file__).parents[1] / "docs"


def copy_study(folder: Path) -> None:
    """Copy what one study made."""
    marker = next(p for p in folder.glob("*.json") if "study" in json.loads(p.read_text(encoding="utf-8")))
    body = json.loads(marker.read_text(encoding="utf-8"))
    if not body.get("complete", True):
        sys.exit(f"expected a finished benchmark, found one still under way in '{folder}'; run it to its end first")
    (RESULTS / marker.name).write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    for suffix in (".md", ".jpg", ".png"):
        if (made := marker.with_suffix(suffix)).exists():
            shutil.copy(made, DOCS / made.name)
    print(marker.with_suffix(".md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        copy_study(Path(name))
