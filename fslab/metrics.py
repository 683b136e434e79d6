"""The table of metrics: what each is called, how it reads, and what it needs to be known."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fslab.measures import PSNR_MAX


@dataclass(frozen=True)
class Metric:
    """What a metric is called and how it reads.

    ``unit`` may be empty; ``better`` says which way; ``meaning`` is one sentence for people; ``needs_truth`` whether it
    exists only against a truth; ``perfect`` is the value of a perfect swap where that is fixed; ``also_needs`` names
    what else must be known: "labels" of the truth, or a "gallery" of people.
    """

    title: str
    unit: str
    better: Literal["higher", "lower", "near 0", "near 1"]
    meaning: str
    needs_truth: bool = False
    perfect: float | None = None
    digits: int = 3
    also_needs: Literal["", "labels", "gallery"] = ""

    def text(self, value: float | None) -> str:
        """Return a value as people read it, without the unit; a dash where there is none."""
        if value is None or np.isnan(value):
            return "–"
        if self.unit.startswith("%"):
            return f"{100 * value + 0.0:.{self.digits}f}"
        return f"{value + 0.0:.{self.digits}f}".replace("-", "\N{MINUS SIGN}")


METRICS: dict[str, Metric] = {
    "closure": Metric(
        "Closure", "", "higher",
        "Share of the untouched footage's squared error to the truth, in the face, that the swap removes; below 0 is "
        "worse than doing nothing.", True, 1.0,
    ),
    "leak": Metric(
        "Leak", "", "near 0",
        "How much of what sets the replaced person apart is left in the face: 0 nothing, 1 everything; below 0 it "
        "overshoots.",
        True, 0.0,
    ),
    "identity_gap_closed": Metric(
        "Identity gap closed", "", "higher",
        "Share of the distance between the untouched face and the true one that is gone, for a face recogniser.",
        True, 1.0,
    ),
    "psnr": Metric(
        "PSNR", "dB", "higher",
        "Pixel accuracy of the face on a logarithmic scale; 6 dB more is half the error.", True, PSNR_MAX, 1,
    ),
    "ssim": Metric(
        "SSIM", "", "higher",
        "How alike face and truth are in local structure; lost detail lowers it more than a colour cast does.",
        True, 1.0,
    ),
    "ms_ssim": Metric(
        "Multi-scale SSIM", "", "higher",
        "How alike face and truth are in structure from fine to coarse; nearer to what people see than SSIM alone.",
        True, 1.0,
    ),
    "sharpness": Metric(
        "Sharpness", "× truth", "near 1",
        "Fine detail in the face as a share of the truth's; below 1 is soft, above 1 noisy or over-sharpened.",
        True, 1.0, 2,
    ),
    "band_error": Metric(
        "Error at the edge", "grey levels", "lower",
        "Mean difference from the truth along the outline of the face, where a bad paste shows as a seam.",
        True, 0.0, 2,
    ),
    "colour_shift": Metric(
        "Colour shift", "ΔE", "lower",
        "Difference of the face's mean colour from the truth's (CIEDE2000): a cast or a wrong exposure; 1 can just be "
        "seen side by side.", True, 0.0, 2,
    ),
    "colour_error": Metric(
        "Colour error", "ΔE", "lower",
        "Mean difference of the face's colours from the truth's, pixel by pixel (CIEDE2000).", True, 0.0, 2,
    ),
    "flicker": Metric(
        "Flicker", "grey levels", "lower",
        "How much the face changes from frame to frame in ways the truth does not.", True, 0.0, 2,
    ),
    "flicker_relative": Metric(
        "Flicker, relative", "× untouched", "lower",
        "Flicker as a share of what the untouched footage scores by the same formula.", True, 0.0, 2,
    ),
    "warp_excess": Metric(
        "Warping error, excess", "grey levels", "near 0",
        "How much more a point of the skin changes its colour from frame to frame than it does in the truth; below 0 "
        "it is blurred.", True, 0.0, 2, "labels",
    ),
    "identity_source": Metric(
        "Distance to the source", "", "lower",
        "How far the face is from the person put in, for a face recogniser; its usual threshold for one person is 0.6.",
    ),
    "identity_target": Metric(
        "Distance to the target", "", "higher",
        "How far the face is from the person replaced, for a face recogniser; near 0 it still sees them.",
    ),
    "top1": Metric(
        "Found among many", "%", "higher",
        "Share of frames in which a face recogniser finds the person put in to be the nearest of all in the gallery.",
        digits=0, also_needs="gallery",
    ),
    "pose_to_truth": Metric(
        "Pose off the truth", "degrees", "lower",
        "Mean difference of yaw, pitch and roll from the truth's, both read off a face mesh.", True, 0.0, 2,
    ),
    "gaze_to_truth": Metric(
        "Gaze off the truth", "degrees", "lower",
        "How far the eyes look past where the truth's do, sideways, read off the irises.", True, 0.0, 1,
    ),
    "mouth_to_truth": Metric(
        "Mouth off the truth", "eye spans", "lower",
        "Difference from the truth in how far the mouth is open, as a share of the distance between the outer eye "
        "corners.", True, 0.0,
    ),
    "eyes_to_truth": Metric(
        "Eyes off the truth", "eye widths", "lower",
        "Difference from the truth in how far the eyes are open, as a share of an eye's width: blinks that are missed "
        "or made up.", True, 0.0,
    ),
    "landmark_error": Metric(
        "Landmark error", "% of eye distance", "lower",
        "Mean distance of the face's landmarks from their exact places; what the truth scores is the mesh network's "
        "own error.", True, None, 1, "labels",
    ),
    "pose_error": Metric(
        "Pose error", "degrees", "lower",
        "Mean difference of yaw, pitch and roll between the swapped face and the footage.", digits=2,
    ),
    "mouth_error": Metric(
        "Mouth error", "eye spans", "lower",
        "Difference in how far the mouth is open, as a share of the distance between the outer eye corners.",
    ),
    "eyes_error": Metric(
        "Eyes error", "eye widths", "lower",
        "Difference in how far the eyes are open, as a share of an eye's width.",
    ),
    "unsteadiness": Metric(
        "Unsteadiness", "× footage", "near 1",
        "Trembling of the face from frame to frame as a share of the footage's own; above 1 the swap trembles, below 1 "
        "it is too smooth.", digits=2,
    ),
    "share_swapped": Metric(
        "Frames swapped", "%", "higher", "Share of the frames with a face in which that face was changed.",
        digits=0,
    ),
}  # fmt: skip
