"""What a benchmark ran on, in words that name nobody's machine."""

import os
import platform
from pathlib import Path

import torch

from fslab.devices import choose_device


def hardware(device: str = "auto") -> dict[str, str | int]:
    """Describe the machine, without its name."""
    cpu, info = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8").splitlines()
        cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), cpu)
    chosen = choose_device(device)
    gpu = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else "none"
    return {
        "cpu": cpu, "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": gpu, "device": chosen.type, "threads": torch.get_num_threads(),
    }  # fmt: skip
