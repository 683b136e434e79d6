"""Where the ``fslab`` command starts."""

import os
import sys


def main() -> int:
    """Run the command line.

    Torch's worker threads normally spin while they wait. On a machine that is busy with anything else, two spinning
    threads train up to ten times slower than sleeping ones; on an idle machine the difference is small.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read once, when torch is imported
    from fslab.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
