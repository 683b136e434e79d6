"""What tests of trainings share: how a run's files are read, and when to stop."""

import json

import torch

from fslab.run import load_tensors


def read_log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def weights(folder, name="model.safetensors"):
    return load_tensors(folder / name)[0]


def equal(a, b):
    return set(a) == set(b) and all(torch.equal(a[k], b[k]) for k in a)


def stop_after(n):
    """Return a `should_stop` that says yes after ``n`` steps."""
    steps = iter(range(1, 10**6))
    return lambda: next(steps) >= n
