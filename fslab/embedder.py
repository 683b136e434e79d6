"""Identity: a face to a short vector, near for one person and far for two."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from facenet_pytorch import InceptionResnetV1
from safetensors.torch import load_file
from torch import nn

from fslab.errors import FslabError
from fslab.geometry import crop_from_frame, umeyama
from fslab.media import Frame
from fslab.weights import weights_path

SAME_PERSON = 0.6  # Euclidean distance of two pictures' vectors; dlib's documentation gives it as the threshold
SAME_PERSON_MEANS = 0.5  # of two means over several pictures: averaging takes the pictures' scatter out of it
CHIP_SIZE = 150

# Eye centres, nose tip and mouth corners in dlib's chip, before its padding of a quarter on each side.
CHIP_5 = np.array(
    [[0.2255, 0.2160], [0.7548, 0.2160], [0.4901, 0.5156], [0.2541, 0.7802], [0.7261, 0.7802]], np.float64
)

# The same five where MTCNN's box puts them, with the margin of facenet-pytorch's evaluation.
FACENET_5 = np.array([[0.311, 0.372], [0.689, 0.372], [0.5, 0.559], [0.333, 0.714], [0.667, 0.714]], np.float64)


def chip_matrix(landmarks: np.ndarray) -> np.ndarray:
    """Return the ``(2, 3)`` similarity frame -> chip that puts five landmarks where dlib wants them."""
    return umeyama(landmarks, (0.25 + CHIP_5) / 1.5 * CHIP_SIZE)


class DlibBlock(nn.Module):
    """A residual block; a ``down`` block halves the size and may add channels."""

    def __init__(self, n_in: int, n_out: int, down: bool):
        super().__init__()
        self.down = down
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=2 if down else 1, padding=0 if down else 1)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, n_in, h, w)`` to ``(B, n_out, h or h // 2, w or w // 2)``."""
        y = self.conv2(torch.relu(self.conv1(x)))
        if self.down:
            x = F.avg_pool2d(x, 2)
            # The shortcut lacks channels; the convolution without padding may lack a row and a column.
            x = F.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
            y = F.pad(y, (0, x.shape[3] - y.shape[3], 0, x.shape[2] - y.shape[2]))
        return torch.relu(x + y)


class DlibResNet(nn.Module):
    """dlib's face descriptor, a ResNet of 29 layers (King 2017, ``dlib_face_recognition_resnet_model_v1``).

    The layer shapes follow He et al. (2016), arXiv:1512.03385, with half the filters. Differentiable; its weights are
    frozen.
    """

    def __init__(self):
        super().__init__()
        self.conv32_down = nn.Conv2d(3, 32, 7, stride=2)
        before = 32
        for width, count in ((32, 3), (64, 4), (128, 3), (256, 3)):
            names = [f"conv{width}_down"] * (width > 32) + [f"conv{width}_{i + 1}" for i in range(count - (width > 32))]
            for name in names:
                self.add_module(name, DlibBlock(before, width, name.endswith("down")))
                before = width
        self.conv256_down_out = DlibBlock(256, 256, down=True)
        self.fc = nn.Linear(256, 128, bias=False)
        self.register_buffer("mean", torch.tensor([122.782, 117.001, 104.298]).view(1, 3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Describe chips.

        Args:
            x: ``(B, 3, 150, 150)`` float RGB in [0, 1], aligned by `chip_matrix`.

        Returns:
            ``(B, 128)`` vectors, not normalised.
        """
        x = (x * 255 - self.mean) / 256
        x = F.max_pool2d(torch.relu(self.conv32_down(x)), 3, stride=2)  # (B, 32, 35, 35)
        for block in self.children():
            if isinstance(block, DlibBlock):
                x = block(x)  # 32 x 35 x 35, 64 x 17 x 17, 128 x 8 x 8, 256 x 4 x 4, 256 x 2 x 2
        return self.fc(x.mean(dim=(2, 3)))  # (B, 128)

    @classmethod
    def load(cls) -> "DlibResNet":
        """Return the network with the packaged weights, in eval mode and frozen."""
        stored = load_file(weights_path("dlib_resnet.safetensors"))
        state = {}
        for name, tensor in stored.items():
            if name.endswith(("weight_scale", "weight_min")):
                continue
            if tensor.dtype == torch.uint8:
                shape = (-1,) + (1,) * (tensor.ndim - 1)
                scale, low = stored[f"{name}_scale"].view(shape), stored[f"{name}_min"].view(shape)
                tensor = tensor.float() * scale + low
            state[name] = tensor
        network = cls()
        network.load_state_dict(state)
        return network


class Embedder:
    """Faces to vectors with `DlibResNet`.

    The Euclidean distance of two vectors is about 0.2 to 0.45 for two pictures of one person and 0.6 to 0.9 for two
    persons; ``same_person`` divides them.
    """

    chip_size, n_dims, same_person = CHIP_SIZE, 128, SAME_PERSON

    def __init__(self, device: str | torch.device = "cpu"):
        """Load the weights onto ``device``."""
        self.device = torch.device(device)
        self.network = self._load_network().to(self.device)

    def _load_network(self) -> nn.Module:
        return DlibResNet.load()

    def chip_matrix(self, landmarks: np.ndarray) -> np.ndarray:
        """Return the ``(2, 3)`` similarity frame -> chip of ``chip_size`` pixels."""
        return chip_matrix(landmarks)

    def embed(self, frame: Frame, faces: Sequence) -> np.ndarray:
        """Describe faces of one frame.

        Args:
            frame: the frame.
            faces: `fslab.faces.Face`; only their landmarks are used.

        Returns:
            ``(N, n_dims)`` float32.
        """
        size = self.chip_size
        chips = [crop_from_frame(frame, self.chip_matrix(face.landmarks), size) for face in faces]
        return self.embed_chips(np.stack(chips) if chips else np.empty((0, size, size, 3), np.uint8))

    @torch.inference_mode()
    def embed_chips(self, chips: np.ndarray, batch: int = 32) -> np.ndarray:
        """Describe aligned chips, ``(N, chip_size, chip_size, 3)`` uint8 RGB, ``batch`` at a time.

        Returns:
            ``(N, n_dims)`` float32.
        """
        size = self.chip_size
        if chips.ndim != 4 or chips.shape[1:] != (size, size, 3) or chips.dtype != np.uint8:
            raise ValueError(f"chips must be (N, {size}, {size}, 3) uint8, got {chips.shape} {chips.dtype}")
        vectors = [np.empty((0, self.n_dims), np.float32)]
        for start in range(0, len(chips), batch):
            x = torch.from_numpy(chips[start : start + batch]).to(self.device).permute(0, 3, 1, 2).float() / 255
            vectors.append(self.network(x).float().cpu().numpy())
        return np.concatenate(vectors)


class Facenet(nn.Module):
    """FaceNet's Inception-ResNet-v1, trained on VGGFace2 (Schroff et al. 2015, arXiv:1503.03832)."""

    def __init__(self, pretrained: str | None = "vggface2"):
        super().__init__()
        self.network = InceptionResnetV1(pretrained=pretrained)
        self.eval().requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, 3, 160, 160)`` float RGB in [0, 1] to ``(B, 512)`` vectors of length 1."""
        return self.network((x * 255 - 127.5) / 128)


class FacenetEmbedder(Embedder):
    """Faces to vectors with `Facenet`, whose weights facenet-pytorch downloads (107 MB) the first time."""

    chip_size, n_dims, same_person = 160, 512, 1.1

    def _load_network(self) -> nn.Module:
        try:
            return Facenet()
        except (OSError, EOFError, RuntimeError) as reason:
            raise FslabError(
                "FaceNet's weights", f"none that can be downloaded or read ({reason})",
                "connect to the internet once, or use the 'dlib' embedder, whose weights ship",
            ) from reason  # fmt: skip

    def chip_matrix(self, landmarks: np.ndarray) -> np.ndarray:
        """Return the ``(2, 3)`` similarity frame -> chip of ``chip_size`` pixels."""
        return umeyama(landmarks, FACENET_5 * self.chip_size)


EMBEDDERS = {"dlib": Embedder, "facenet": FacenetEmbedder}


def load_embedder(name: str = "dlib", device: str | torch.device = "cpu") -> Embedder:
    """Return an embedder by its name in `EMBEDDERS`.

    Raises:
        ValueError: if there is none of that name.
        FslabError: if its weights can be neither read nor downloaded.
    """
    if name not in EMBEDDERS:
        raise ValueError(f"embedder must be one of {', '.join(EMBEDDERS)}, got '{name}'")
    return EMBEDDERS[name](device)
