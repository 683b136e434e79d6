"""The small pretrained networks that ship with the package; `LICENSES.md` says where each comes from."""

from pathlib import Path

# File name -> SHA-256.
WEIGHTS = {
    "base_small.safetensors": "ededa7790434910f82694f0a2aac7e6ede8a283092a7350df0238c1bf1d0a1bc",
    "base_tiny.safetensors": "d92e7387944692b293a37b7b08fb94bf84e96868c4d4c1b1df555f1fc5354384",
    "dlib_resnet.safetensors": "adc0ade9fac473dd46121a5cb64d7b2e30456d486e308dcf1a522336eba4e76b",
    "face_landmark.tflite": "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
    "mobilenetv2_100.safetensors": "9d877b445b857bf7239705a8e85907bccddf187114f7a89a29d917e9c8ff19c5",
}


def weights_path(name: str) -> Path:
    """Return where the packaged weights file ``name`` lies, such as ``face_landmark.tflite``."""
    return Path(__file__).parent / name
