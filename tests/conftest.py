"""Shared material: short clips of the packaged synthetic people, their face sets, and a run trained for a few steps."""

from fslab.__main__ import set_environment

set_environment()  # before torch is imported

import socket
from dataclasses import replace
from fractions import Fraction
from itertools import islice

import pytest
import torch

from fslab.consent import Consent
from fslab.media import read_frames, write_video
from fslab.samples import sample_path


@pytest.fixture(scope="session", autouse=True)
def _few_threads():
    """Two threads at most: tests share the machine."""
    torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture(scope="session")
def consents():
    return {name: Consent.load(sample_path(f"consents/{name}.json")) for name in ("ada", "dan")}


@pytest.fixture(scope="session")
def short_clips(tmp_path_factory):
    """48 frames each of ada and dan, without audio."""
    folder = tmp_path_factory.mktemp("clips")
    for name in ("ada", "dan"):
        frames = (frame.rgb() for frame in islice(read_frames(sample_path(f"{name}.mp4")), 48))
        write_video(folder / f"{name}.mp4", frames, Fraction(25))
    return {name: folder / f"{name}.mp4" for name in ("ada", "dan")}


@pytest.fixture(scope="session")
def facesets(tmp_path_factory, short_clips, consents):
    """Face sets of the short clips."""
    from fslab.extract import extract_faces

    folder = tmp_path_factory.mktemp("faces")
    return {name: extract_faces(clip, folder / name, consents[name]).faceset for name, clip in short_clips.items()}


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, facesets):
    """A `tiny` run of ada and dan after a dozen steps: it swaps, but draws nothing worth looking at."""
    from fslab.model import PRESETS
    from fslab.train import TrainHooks, train

    model, config = PRESETS["tiny"]
    return train(
        list(facesets.values()),
        tmp_path_factory.mktemp("run") / "ada-dan",
        model,
        replace(config, steps=12),
        TrainHooks(),
    )


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_args, **_named):
        raise AssertionError("the network was touched")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
