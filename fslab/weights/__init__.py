"""The small pretrained networks that ship with the package; `LICENSES.md` says where each comes from."""

from pathlib import Path


def weights_path(name: str) -> Path:
    """Return the path of a packaged weights file, such as ``face_landmark.tflite``.

    Raises:
        FileNotFoundError: if there is none of that name.
    """
    path = Path(__file__).parent / name
    if not path.is_file():
        raise FileNotFoundError(f"no packaged weights '{name}'")
    return path
