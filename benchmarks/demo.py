"""What the packaged demo scores, and how long it takes.

    make demo && python -m benchmarks.demo demo_out [docs/contact_sheet.jpg]

Reads the folder that `fslab demo` made; its clock ran from the first stage to the last. With a second argument it
also writes the contact sheet there, smaller, with its marks.
"""

import json
import sys
from pathlib import Path

import cv2

from benchmarks.common import save
from fslab.media import read_image, read_marks, write_image

WIDTH = 1200  # pixels


def main() -> None:
    folder = Path(sys.argv[1])
    about = json.loads((folder / "demo.json").read_text())
    report = json.loads((folder / "report" / "report.json").read_text())
    if len(sys.argv) > 2:
        sheet, marks = read_image(folder / "contact_sheet.png"), read_marks(folder / "contact_sheet.png")
        height = round(sheet.shape[0] * WIDTH / sheet.shape[1])
        small = cv2.resize(sheet, (WIDTH, height), interpolation=cv2.INTER_AREA)
        write_image(Path(sys.argv[2]), small, marks["xmp"], marks["tags"])
    save("demo", {"demo": about, "metrics": report["metrics"], "baselines": report["baselines"]})


if __name__ == "__main__":
    main()
