"""Where the ``fslab`` command starts."""

import os
import sys


def set_environment() -> None:
    """Tell the libraries how to share the machine; to be called before they are imported.

    Torch's worker threads normally spin while they wait. On a machine that is busy with anything else, two spinning
    threads train up to ten times slower than sleeping ones; on an idle machine the difference is small. OpenCV's own
    threads would only get into the way of the pipeline's.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")
    sys.setswitchinterval(0.0005)  # the pipeline's threads hand over every millisecond; Python's default is five


def main() -> int:
    """Run the command line."""
    set_environment()
    try:
        from fslab.cli import main as run
    except KeyboardInterrupt:  # the libraries take seconds to load
        return 130
    return run()


if __name__ == "__main__":
    sys.exit(main())
