"""The packaged synthetic people, ada and dan: clips, the exact truth of a swap, consents. CC0; nobody real."""

from pathlib import Path


def sample_path(name: str) -> Path:
    """Return the path of a packaged sample, such as ``ada.mp4`` or ``consents/ada.json``.

    Raises:
        FileNotFoundError: if there is none of that name.
    """
    path = Path(__file__).parent / name
    if not path.exists():
        raise FileNotFoundError(f"no packaged sample '{name}'")
    return path
