"""Losses of pretrained networks: features and identity."""

import cv2
import numpy as np
import pytest
import torch
from test_losses import pictures

from fslab.embedder import CHIP_SIZE, Embedder, chip_matrix
from fslab.geometry import align_matrix, crop_from_frame, crop_template, warp
from fslab.losses import IdentityLoss, PerceptualLoss
from fslab.media import read_frames
from fslab.samples import sample_path
from fslab.tracking import TrackConfig, track

COVERAGE = 0.64


@pytest.fixture(scope="module")
def perceptual():
    return PerceptualLoss()


def test_the_perceptual_loss_is_zero_for_equal_pictures_and_grows_with_blur(perceptual):
    x, _, w = pictures(size=64)
    sharp = (x + torch.randn(x.shape, generator=torch.Generator().manual_seed(1)) * 0.1).clamp(0, 1)
    blurred = [torch.nn.functional.avg_pool2d(sharp, k, 1, k // 2) for k in (3, 7)]
    assert perceptual.weights == "packaged"
    assert float(perceptual(sharp, sharp, w)) == pytest.approx(0, abs=1e-6)
    assert 0 < float(perceptual(blurred[0], sharp, w)) < float(perceptual(blurred[1], sharp, w)) < 4


def test_the_perceptual_loss_reaches_the_picture_and_not_its_network(perceptual):
    x, y, w = pictures(size=64)
    x.requires_grad_()
    perceptual(x, y, w).backward()
    assert float(x.grad.abs().sum()) > 0
    assert all(p.grad is None for p in perceptual.parameters())


@pytest.fixture(scope="module")
def identity():
    return IdentityLoss(COVERAGE)


@pytest.fixture(scope="module")
def faces():
    """Two aligned crops of each packaged person, ``(2, 3, 96, 96)``, and the frames' own embeddings."""
    found, embedder = {}, Embedder()
    for who in ("ada", "dan"):
        frames = [f for i, f in enumerate(read_frames(sample_path(f"{who}.mp4"))) if i < 21]
        tracked = list(track(iter(frames), TrackConfig()))
        crops, vectors = [], []
        for i in (0, 20):
            face = tracked[i].faces[0].face
            crops.append(crop_from_frame(frames[i], align_matrix(face.landmarks, 96, COVERAGE), 96))
            vectors.append(embedder.embed(frames[i], [face])[0])
        found[who] = (torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255, np.stack(vectors))
    return found


@pytest.mark.parametrize("size", [64, 150, 256])
def test_chips_are_cut_as_opencv_cuts_them(identity, size):
    rng = np.random.default_rng(0)
    crop = cv2.resize(rng.random((8, 8, 3), np.float32), (size, size), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    ours = identity.chips(torch.from_numpy(crop).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    matrix = chip_matrix(crop_template(size, COVERAGE))
    reference = warp(crop, matrix, CHIP_SIZE)
    assert ours.shape == (CHIP_SIZE, CHIP_SIZE, 3)
    assert np.abs(ours - reference).max() < 0.03  # OpenCV rounds positions to 1/32 pixel


def test_the_identity_loss_is_zero_for_equal_pictures_and_grows_with_another_face(identity, faces):
    (ada, _), (dan, _) = faces["ada"], faces["dan"]
    mask = torch.ones(1, 1, 96, 96)
    same, other = float(identity(ada[:1], ada[1:], mask)), float(identity(dan[:1], ada[1:], mask))
    assert float(identity(ada, ada.clone(), mask)) == pytest.approx(0, abs=1e-6)
    assert 0 < same < 0.36 < other
    mixed = [float(identity(ada[1:] + share * (dan[:1] - ada[1:]), ada[1:], mask)) for share in (0.25, 0.5, 1.0)]
    assert mixed == sorted(mixed)


def test_embeddings_of_crops_are_near_those_of_the_frames_they_were_cut_from(identity, faces):
    for crops, vectors in faces.values():
        found = identity.net(identity.chips(crops)).numpy()
        assert np.linalg.norm(found - vectors, axis=1).max() < 0.3  # 0.6 parts two people


def test_only_the_face_counts(identity, faces):
    ada, spoilt = faces["ada"][0][:1], faces["ada"][0][:1].clone()
    mask = torch.zeros(1, 1, 96, 96)
    mask[..., 20:80, 20:76] = 1
    spoilt[..., :18] = 0
    assert float(identity(spoilt, ada, mask)) == pytest.approx(0, abs=1e-6)
    assert float(identity(spoilt, ada, torch.ones_like(mask))) > 1e-3


def test_the_identity_loss_reaches_the_drawn_picture_alone_and_descending_it_brings_the_face_nearer(identity, faces):
    ada, dan, mask = faces["ada"][0][:1], faces["dan"][0][:1].clone(), torch.ones(1, 1, 96, 96)
    dan.requires_grad_()
    real = ada.clone().requires_grad_()
    before = identity(dan, real, mask)
    before.backward()
    assert real.grad is None
    assert all(p.grad is None and not p.requires_grad for p in identity.parameters())
    moved = (dan - 0.5 * dan.grad / dan.grad.norm()).clamp(0, 1).detach()
    assert float(identity(moved, ada, mask)) < 0.9 * float(before)
