"""Make the packaged weights again from their sources: ``python -m fslab.weights.convert SOURCE_DIR OUT_DIR``.

``SOURCE_DIR`` holds the files named in `SOURCES`, unpacked from the packages that `LICENSES.md` names.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import timm
import torch
import tyro
from safetensors.torch import save_file

from fslab.storage import atomic_path

SOURCES = (
    "face_landmark.tflite",
    "face_recognition_model-weights_manifest.json",
    "face_recognition_model.bin",
    "mobilenet_v2-b0353104.pth",
)


def read_tfjs(manifest: Path, data: Path) -> dict[str, tuple[np.ndarray, float, float]]:
    """Read a tensorflow.js weights file.

    Args:
        manifest: the JSON list of tensors (name, shape, quantization), in the order of ``data``.
        data: the raw bytes, little-endian.

    Returns:
        (stored array, scale, minimum) by tensor name; a value is ``stored * scale + minimum``.
    """
    raw, offset, tensors = data.read_bytes(), 0, {}
    for entry in json.loads(manifest.read_text(encoding="utf-8"))[0]["weights"]:
        how = entry.get("quantization", {"dtype": "float32", "scale": 1.0, "min": 0.0})
        count = int(np.prod(entry["shape"]))
        array = np.frombuffer(raw, np.dtype(how["dtype"]).newbyteorder("<"), count, offset).reshape(entry["shape"])
        tensors[entry["name"]] = (array, how["scale"], how["min"])
        offset += array.nbytes
    if offset != len(raw):
        raise ValueError(f"'{data}' has {len(raw)} bytes, its manifest describes {offset}")
    return tensors


def convert_dlib(manifest: Path, data: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of dlib's face descriptor as `fslab.embedder.DlibResNet` reads them.

    The per-channel factor and offset that follow every convolution are folded into it: its filters stay the stored
    bytes, with a scale and a minimum for each output channel instead of one for all.
    """
    tensors = read_tfjs(manifest, data)

    def value(name: str) -> np.ndarray:
        array, scale, low = tensors[name]
        return array.astype(np.float64) * scale + low

    result = {}
    for name in tensors:
        if not name.endswith("/filters"):
            continue
        layer = name.removesuffix("/filters").removesuffix("/conv")
        array, scale, low = tensors[name]
        factor, offset = value(f"{layer}/scale/weights"), value(f"{layer}/scale/biases")
        key = layer.replace("/", ".")
        if array.dtype == np.uint8:
            result[f"{key}.weight"] = array.transpose(3, 2, 0, 1)  # height, width, in, out -> out, in, height, width
            result[f"{key}.weight_scale"] = (factor * scale).astype(np.float32)
            result[f"{key}.weight_min"] = (factor * low).astype(np.float32)
        else:
            result[f"{key}.weight"] = (array.transpose(3, 2, 0, 1) * factor[:, None, None, None]).astype(np.float32)
        result[f"{key}.bias"] = (value(f"{layer}/conv/bias") * factor + offset).astype(np.float32)
    array, scale, low = tensors["fc"]
    result["fc.weight"] = array.T
    result["fc.weight_scale"] = np.full(array.shape[1], scale, np.float32)
    result["fc.weight_min"] = np.full(array.shape[1], low, np.float32)
    return {key: torch.from_numpy(np.ascontiguousarray(array)) for key, array in result.items()}


def convert_mobilenet(path: Path) -> dict[str, torch.Tensor]:
    """Return torchvision's MobileNetV2 under the names of timm's ``mobilenetv2_100``, float16.

    Both libraries list the same layers in the same order, so the tensors pair up one by one.
    """
    source = torch.load(path, map_location="cpu", weights_only=True)
    source = [t for name, t in source.items() if not name.endswith("num_batches_tracked")]
    target = timm.create_model("mobilenetv2_100", pretrained=False).state_dict()
    target = {name: t for name, t in target.items() if not name.endswith("num_batches_tracked")}
    if [t.shape for t in source] != [t.shape for t in target.values()]:
        raise ValueError(f"'{path}' is not torchvision's mobilenet_v2: its tensors do not pair up with timm's")
    return {name: tensor.half().contiguous() for name, tensor in zip(target, source, strict=True)}


def convert(source_dir: tyro.conf.Positional[Path], out_dir: tyro.conf.Positional[Path]) -> None:
    """Write the three packaged weights files.

    Args:
        source_dir: holds `SOURCES`.
        out_dir: an existing folder; files of the same names are replaced.
    """
    tflite, manifest, data, mobilenet = (source_dir / name for name in SOURCES)
    with atomic_path(out_dir / "face_landmark.tflite") as part:
        shutil.copyfile(tflite, part)
    with atomic_path(out_dir / "dlib_resnet.safetensors") as part:
        save_file(convert_dlib(manifest, data), part)
    with atomic_path(out_dir / "mobilenetv2_100.safetensors") as part:
        save_file(convert_mobilenet(mobilenet), part)


if __name__ == "__main__":
    tyro.cli(convert)
