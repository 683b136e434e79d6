"""What a person's footage shows, by name: everything, or all but one thing that a swap would need to have seen."""

from typing import Literal, get_args

from fslab.synth.motion import MotionRange

RangeName = Literal["full", "never-left", "mouth-shut", "narrow"]
RANGES: dict[str, MotionRange] = {
    "full": MotionRange(),
    "never-left": MotionRange(yaw=(-4.0, 35.0)),
    "mouth-shut": MotionRange(mouth=0.0, talking=0.0),
    "narrow": MotionRange(
        yaw=(-8.0, 8.0), pitch=(-5.0, 5.0), roll=(-3.0, 3.0), mouth=0.25, smile=0.25, brows=0.25, light_spread=0.2
    ),
}


def motion_range(name: RangeName) -> MotionRange:
    """Return the range of a name; raises ValueError for another."""
    if name not in RANGES:
        raise ValueError(f"a range must be one of {', '.join(get_args(RangeName))}, got {name!r}")
    return RANGES[name]
