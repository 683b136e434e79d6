"""What the packaged demo scores, and how long it takes.

    make demo && python -m benchmarks.demo demo_out

Reads the folder that `fslab demo` made, whose clock ran from the first stage to the last.
"""

import json
import sys
from pathlib import Path

from benchmarks.common import save


def main() -> None:
    folder = Path(sys.argv[1])
    about = json.loads((folder / "demo.json").read_text())
    report = json.loads((folder / "report" / "report.json").read_text())
    save("demo", {"demo": about, "metrics": report["metrics"], "baselines": report["baselines"]})


if __name__ == "__main__":
    main()
