"""The quality benchmark's figures and page, from the folder that ``fslab bench quality`` made.

    fslab bench quality --tier lab --out out/quality && python -m benchmarks.quality out/quality

Copies ``quality.json`` to the results and the page to ``docs/quality.html``.
"""

import json
import shutil
import sys
from pathlib import Path

from benchmarks.common import RESULTS

PAGE = Path(__file__).parents[1] / "docs" / "quality.html"


def main() -> None:
    folder = Path(sys.argv[1])
    body = json.loads((folder / "quality.json").read_text(encoding="utf-8"))
    if not body["complete"]:
        sys.exit(f"expected a finished benchmark, found one still under way in '{folder}'; run it to its end first")
    (RESULTS / "quality.json").write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    shutil.copy(folder / "index.html", PAGE)
    for arm, metrics in body["means"].items():
        print(arm, {name: metrics[name] and round(metrics[name], 3) for name in ("closure", "leak", "ssim")})


if __name__ == "__main__":
    main()
