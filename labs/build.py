"""Write labs/NN_name.ipynb from labs/src/NN_name.py: the same text, no outputs, cell ids that stay.

python labs/build.py           # write
python labs/build.py --check   # say which are out of date
"""

import sys
from pathlib import Path

import jupytext
import nbformat

LABS = Path(__file__).parent
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def render(source: Path) -> bytes:
    """Return the notebook of one percent-format script; the same bytes every time."""
    notebook = jupytext.read(source)
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"{source.stem}-{i:02d}"
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    nbformat.validate(notebook)
    return (nbformat.writes(notebook) + "\n").encode()


def main(check: bool) -> int:
    """Write every notebook; with ``check`` only say which are out of date, and return 1 if any is."""
    stale = []
    for source in sorted((LABS / "src").glob("[0-9]*.py")):
        target, data = LABS / f"{source.stem}.ipynb", render(source)
        if not check:
            target.write_bytes(data)
        elif not target.exists() or target.read_bytes() != data:
            stale.append(target.name)
    if stale:
        print("out of date, run `python labs/build.py`:", *stale)
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv))
