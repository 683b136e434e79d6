import json
import urllib.request

import matplotlib.cbook
import numpy as np
import pytest
import skimage.data
import timm
import torch
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch

from fslab.embedder import SAME_PERSON, DlibBlock, DlibResNet, Embedder, Facenet, chip_matrix, load_embedder
from fslab.errors import FslabError
from fslab.faces import Detector, FaceMesh
from fslab.geometry import transform_points
from fslab.media import RgbFrame, read_frames, read_image
from fslab.samples import sample_path
from fslab.storage import sha256_file
from fslab.weights import WEIGHTS, weights_path
from fslab.weights.convert import read_tfjs


@pytest.fixture(scope="module")
def embedder():
    return Embedder()


@pytest.fixture(scope="module")
def vectors(embedder):
    """Embeddings by name: a few frames each of ada and dan, and two photographs of real people."""
    detector, mesh = Detector(), FaceMesh()
    frames = {}
    for name in ("ada", "dan"):
        frames |= {f"{name} {f.index}": f for f in read_frames(sample_path(f"{name}.mp4")) if f.index % 66 == 0}
    frames["astronaut"] = RgbFrame(skimage.data.astronaut())
    frames["hopper"] = RgbFrame(read_image(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))
    found = {}
    for name, frame in frames.items():
        face = mesh.fit(frame, detector.detect(frame.rgb(), min_face=60)[0])
        found[name] = embedder.embed(frame, [face])[0]
    return found


def distances(vectors, first, second):
    pairs = [(a, b) for a in vectors for b in vectors if a.startswith(first) and b.startswith(second) and a < b]
    return [float(np.linalg.norm(vectors[a] - vectors[b])) for a, b in pairs]


def chips(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 150, 150, 3), dtype=np.uint8)


# Known answers


def test_the_chip_puts_the_landmarks_where_dlib_wants_them():
    rng = np.random.default_rng(0)
    chip = np.array([[47.55, 46.6], [100.48, 46.6], [74.01, 76.56], [50.41, 103.02], [97.61, 103.02]])  # dlib's, 150 px
    turn = np.deg2rad(25)
    move = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * 3.1
    landmarks = chip @ move.T + rng.uniform(0, 500, 2)
    np.testing.assert_allclose(transform_points(landmarks, chip_matrix(landmarks)), chip, atol=0.01)


def test_the_network_has_dlibs_layers(embedder):
    network = embedder.network
    assert sum(isinstance(m, torch.nn.Conv2d) for m in network.modules()) == 29
    assert network.fc.weight.shape == (embedder.n_dims, 256)
    assert not any(p.requires_grad for p in network.parameters())


def test_tensorflow_js_weights_are_read_as_their_manifest_says(tmp_path):
    manifest = [
        {
            "name": "a/filters",
            "shape": [2, 2],
            "dtype": "float32",
            "quantization": {"dtype": "uint8", "scale": 0.5, "min": -1},
        },
        {"name": "b", "shape": [1], "dtype": "float32"},
    ]
    (tmp_path / "m.json").write_text(json.dumps([{"weights": manifest}]))
    (tmp_path / "w.bin").write_bytes(bytes([0, 1, 2, 3]) + np.float32(2.5).tobytes())
    tensors = read_tfjs(tmp_path / "m.json", tmp_path / "w.bin")
    array, scale, low = tensors["a/filters"]
    np.testing.assert_array_equal(array * scale + low, [[-1, -0.5], [0, 0.5]])
    assert tensors["b"][0] == 2.5
    (tmp_path / "w.bin").write_bytes(bytes(9))
    with pytest.raises(ValueError, match="manifest"):
        read_tfjs(tmp_path / "m.json", tmp_path / "w.bin")


# Trusted references


def conv_reference(x, weight, bias, stride, padding):
    """Convolve ``(C, H, W)`` by the definition."""
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    size = weight.shape[2]
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))[:, ::stride, ::stride]
    return np.einsum("chwij,ocij->ohw", windows, weight, optimize=True) + bias[:, None, None]


def dlib_reference(image, tensors):
    """Run dlib's network on ``(150, 150, 3)`` uint8 in NumPy, as its description in the weights' source reads."""

    def weights(name):
        weight = tensors[f"{name}.weight"].astype(np.float64)
        if f"{name}.weight_scale" in tensors:
            shape = (-1,) + (1,) * (weight.ndim - 1)
            weight = weight * tensors[f"{name}.weight_scale"].reshape(shape) + tensors[f"{name}.weight_min"].reshape(
                shape
            )
        return weight

    def conv(x, name, stride=1, padding=0):
        return conv_reference(x, weights(name), tensors[f"{name}.bias"], stride, padding)

    x = (image.astype(np.float64) - [122.782, 117.001, 104.298]).transpose(2, 0, 1) / 256
    x = np.maximum(conv(x, "conv32_down", stride=2), 0)
    x = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))[:, ::2, ::2].max(axis=(3, 4))
    names = ["32_1", "32_2", "32_3", "64_down", "64_1", "64_2", "64_3", "128_down", "128_1", "128_2"]
    for name in [*names, "256_down", "256_1", "256_2", "256_down_out"]:
        if "down" not in name:
            y = conv(np.maximum(conv(x, f"conv{name}.conv1", padding=1), 0), f"conv{name}.conv2", padding=1)
            x = np.maximum(x + y, 0)
            continue
        y = conv(np.maximum(conv(x, f"conv{name}.conv1", stride=2), 0), f"conv{name}.conv2", padding=1)
        half = x.shape[1] // 2
        x = x[:, : 2 * half, : 2 * half].reshape(len(x), half, 2, half, 2).mean(axis=(2, 4))
        total = np.zeros((len(y), half, half))
        total[: len(x)] = x
        total[:, : y.shape[1], : y.shape[2]] += y
        x = np.maximum(total, 0)
    return weights("fc") @ x.mean(axis=(1, 2))


def test_the_whole_network_equals_a_numpy_reference(embedder):
    image = chips(1)[0]
    expected = dlib_reference(image, load_file(weights_path("dlib_resnet.safetensors")))
    np.testing.assert_allclose(embedder.embed_chips(image[None])[0], expected, atol=2e-5)


def test_a_down_block_pads_what_its_convolution_lacks():
    block = DlibBlock(4, 6, down=True).double()
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).double()  # convolved: 3 x 3, pooled: 4 x 4
    out = block(x)[0].detach().numpy()
    pooled = x[0].numpy().reshape(4, 4, 2, 4, 2).mean(axis=(2, 4))
    assert out.shape == (6, 4, 4)
    np.testing.assert_allclose(out[:4, 3], np.maximum(pooled[:, 3], 0))
    np.testing.assert_allclose(out[4:, 3], 0)


def test_one_person_is_near_and_two_are_far(vectors):
    assert max(distances(vectors, "ada", "ada") + distances(vectors, "dan", "dan")) < 0.5
    assert min(distances(vectors, "ada", "dan")) > SAME_PERSON
    assert min(distances(vectors, "astronaut", "hopper")) > SAME_PERSON
    assert min(distances(vectors, "a", "hopper")) > SAME_PERSON


def test_shipped_weights_are_those_the_licence_file_lists():
    text = weights_path("LICENSES.md").read_text(encoding="utf-8")
    for name, digest in WEIGHTS.items():
        assert sha256_file(weights_path(name)) == digest
        assert f"`{digest}` {name}" in text


def test_the_shipped_backbone_fits_timms_network():
    network = timm.create_model("mobilenetv2_100", pretrained=False).eval()
    stored = load_torch(weights_path("mobilenetv2_100.safetensors"))
    network.load_state_dict({name: tensor.float() for name, tensor in stored.items()}, strict=True)
    image = torch.from_numpy(skimage.data.chelsea()[:300, 80:380]).permute(2, 0, 1)[None].float() / 255
    mean, std = (torch.tensor(network.pretrained_cfg[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    image = torch.nn.functional.interpolate(image, (224, 224), mode="bilinear", antialias=True)
    with torch.inference_mode():
        best = int(network((image - mean) / std).argmax())
    assert best in (281, 282, 285)  # ImageNet's tabby, tiger cat, Egyptian cat


# Properties


def test_batches_change_nothing(embedder):
    images = chips(5)
    one_by_one = np.concatenate([embedder.embed_chips(images[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(embedder.embed_chips(images, batch=2), one_by_one, atol=1e-5)


def test_a_frame_and_its_chips_give_the_same_vectors(embedder):
    frame = RgbFrame(skimage.data.astronaut())
    face = FaceMesh().fit(frame, Detector().detect(frame.rgb(), min_face=60)[0])
    both = embedder.embed(frame, [face, face])
    assert both.shape == (2, 128)
    assert both.dtype == np.float32
    np.testing.assert_allclose(both[0], both[1], atol=1e-6)


def test_gradients_reach_the_picture_and_lower_the_distance():
    network = DlibResNet.load()
    with torch.no_grad():
        goal = network(torch.from_numpy(chips(1, seed=1)).permute(0, 3, 1, 2).float() / 255)
    x = (torch.from_numpy(chips(1)).permute(0, 3, 1, 2).float() / 255).requires_grad_(True)
    before = (network(x) - goal).norm()
    before.backward()
    with torch.no_grad():
        after = (network(x - 2e-3 * x.grad.sign()) - goal).norm()
    assert x.grad.abs().max() > 0
    assert after < before


def test_facenet_gives_unit_vectors_from_its_own_chips():
    network = Facenet(pretrained=None)
    with torch.inference_mode():
        out = network(torch.rand(2, 3, 160, 160, generator=torch.Generator().manual_seed(0)))
    assert out.shape == (2, 512)
    np.testing.assert_allclose(out.norm(dim=1), 1, atol=1e-5)


# Edges and refusals


def test_no_faces_give_no_vectors(embedder):
    assert embedder.embed(RgbFrame(np.zeros((50, 50, 3), np.uint8)), []).shape == (0, 128)


@pytest.mark.parametrize(
    "images",
    [np.zeros((150, 150, 3), np.uint8), np.zeros((1, 160, 160, 3), np.uint8), np.zeros((1, 150, 150, 3), np.float32)],
    ids=["one image", "wrong size", "floats"],
)
def test_chips_of_another_shape_or_type_are_refused(embedder, images):
    with pytest.raises(ValueError, match="chips must be"):
        embedder.embed_chips(images)


def test_an_unknown_embedder_is_refused():
    with pytest.raises(ValueError, match="dlib, facenet"):
        load_embedder("arcface")


def test_facenet_without_its_weights_or_a_network_says_so_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "_opener", None)  # made at the first call, with the proxies of then, and kept
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(FslabError, match="use the 'dlib' embedder") as caught:
        load_embedder("facenet")
    assert "\n" not in str(caught.value)


# Determinism


def test_the_same_chips_give_the_same_vectors(embedder):
    np.testing.assert_array_equal(load_embedder("dlib").embed_chips(chips(3)), embedder.embed_chips(chips(3)))
