"""Every limit of the app in one place; the flags of `fslab app` come from here too."""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from typing_extensions import Doc

from fslab.samples import sample_path
from fslab.schedule import parse_duration

MEGABYTE = 1_000_000  # bytes


def default_home() -> Path:
    """Return ``fslab/app`` in the user's data folder, by the customs of the system."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "fslab" / "app"


def find_packaged_run() -> Path | None:
    """Return the folder of the run of ada and dan that ships with fslab; None where it was left out."""
    try:
        return sample_path("run/config.json").parent
    except FileNotFoundError:
        return None


@dataclass(frozen=True)
class AppSettings:
    """What the app allows, and where it keeps things. The defaults are for one's own machine."""

    home: Annotated[Path, Doc("folder for everything visitors make")] = field(default_factory=default_home)
    public: Annotated[bool, Doc("the preset for strangers: small limits, no training, files kept for hours")] = False
    train_allowed: Annotated[bool, Doc("whether visitors may train")] = True
    train_budgets: Annotated[tuple[str, ...], Doc("training times on offer")] = ("1m", "4m", "10m", "30m", "1h", "4h")
    packaged_run: Annotated[Path | None, Doc("finished run that everybody may swap with")] = field(
        default_factory=find_packaged_run
    )
    max_upload_mb: Annotated[int, Doc("largest file a visitor may send, megabytes")] = 2000
    max_visitor_mb: Annotated[int, Doc("most that one visitor may keep, megabytes")] = 50_000
    max_seconds: Annotated[float, Doc("longest clip, seconds")] = 1800.0
    max_pixels: Annotated[int, Doc("largest picture or frame, pixels")] = 50_000_000
    max_frames_swap: Annotated[int, Doc("most frames of a clip to swap")] = 60_000
    min_free_mb: Annotated[int, Doc("disk space below which nothing new is taken, megabytes")] = 500
    keep_hours: Annotated[float, Doc("a visitor's files are removed so long after their last visit, hours")] = 720.0
    max_jobs_queued: Annotated[int, Doc("jobs that may wait in line, of all visitors together")] = 20
    max_jobs_visitor: Annotated[int, Doc("jobs that one visitor may have running or waiting")] = 4
    max_job_minutes: Annotated[float, Doc("a job is stopped after so long, minutes")] = 1440.0
    requests_per_minute: Annotated[int, Doc("calls that do work which one client may make, a minute")] = 600
    poll_seconds: Annotated[float, Doc("how often the page asks for news, seconds")] = 1.0
    trust_proxy: Annotated[bool, Doc("believe a proxy's X-Forwarded-For; only behind one that sets it")] = False

    def __post_init__(self):
        object.__setattr__(self, "home", Path(self.home).expanduser().absolute())
        limits = (
            "max_upload_mb", "max_visitor_mb", "max_seconds", "max_pixels", "max_frames_swap", "keep_hours",
            "max_jobs_queued", "max_jobs_visitor", "max_job_minutes", "requests_per_minute", "poll_seconds",
        )  # fmt: skip
        for name in limits:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")
        if self.min_free_mb < 0:
            raise ValueError(f"min_free_mb must be >= 0, got {self.min_free_mb}")
        if self.train_allowed and not self.train_budgets:
            raise ValueError("train_budgets must name a time where training is allowed")
        for budget in self.train_budgets:
            parse_duration(budget)

    @classmethod
    def for_public(cls, **changes) -> "AppSettings":
        """Return the preset for strangers, with ``changes`` to its fields; what a Space uses."""
        preset = {
            "public": True, "train_allowed": False, "train_budgets": ("1m", "3m"), "max_upload_mb": 100,
            "max_visitor_mb": 500, "max_seconds": 20.0, "max_pixels": 9_000_000, "max_frames_swap": 300,
            "min_free_mb": 1000, "keep_hours": 3.0, "max_jobs_queued": 8, "max_jobs_visitor": 1,
            "max_job_minutes": 15.0, "requests_per_minute": 120, "poll_seconds": 2.0,
        }  # fmt: skip
        return cls(**preset | changes)

    @property
    def visitors(self) -> Path:
        """The folder of all visitors' folders."""
        return self.home / "visitors"

    @property
    def cache(self) -> Path:
        """The folder that files are served from; Gradio's own copies live here."""
        return self.home / "cache"
