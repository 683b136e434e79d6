"""Conversion at 720p with `tiny` against decoding and encoding alone, and the converter's memory.

    python -m benchmarks.conversion RUN [--memory]

RUN is a run of ada and dan, such as demo_out/runs/ada-dan.
"""

import sys
import tempfile
from pathlib import Path

from benchmarks.common import compare, framed_clip, peak_memory, save
from fslab.media import VideoOptions, VideoWriter, read_frames
from fslab.run import Run
from fslab.swap import Swapper
from fslab.video import swap_video

N_FRAMES = 250
CHILD = """
import sys
from pathlib import Path
from fslab.run import Run
from fslab.swap import Swapper
from fslab.video import swap_video
run, clip, out = sys.argv[1:]
swap_video(Swapper(Run.load(Path(run)), "dan"), Path(clip), Path(out), "ada")
"""


def recode(clip: Path, out: Path) -> None:
    """Decode and encode a clip, frames untouched, same encoder settings as the converter."""
    with VideoWriter(out, clip, VideoOptions(), {}, None) as writer:
        for frame in read_frames(clip):
            writer.write(frame)


def memory(run_dir: Path, folder: Path) -> dict[str, float]:
    """Peak memory of a conversion, MB, for a short and a long clip and for 1080p."""
    peaks = {}
    for name, size, n in (
        ("720p_200", (720, 1280), 200),
        ("720p_2000", (720, 1280), 2000),
        ("1080p_300", (1080, 1920), 300),
    ):
        clip = framed_clip(folder / f"{name}.mp4", "ada_target.mp4", size, n)
        peaks[name] = peak_memory(CHILD, str(run_dir), str(clip), str(folder / f"{name}_out.mp4"))
    return {"peak_mb": peaks, "long_over_short": peaks["720p_2000"] / peaks["720p_200"]}


def main() -> None:
    run_dir = Path(sys.argv[1])
    swapper = Swapper(Run.load(run_dir), "dan")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        clip = framed_clip(folder / "ada720.mp4", "ada_target.mp4", (720, 1280), N_FRAMES)
        times = compare(
            {
                "decode_encode": lambda: recode(clip, folder / "recoded.mp4"),
                "swap": lambda: swap_video(swapper, clip, folder / "swapped.mp4", "ada"),
            },
            repeats=3,
        )
        ratio = times["decode_encode"]["wall_s"] / times["swap"]["wall_s"]
        result = {
            "clip": "720p25, one face", "frames": N_FRAMES, "encoder": "libx264 veryfast crf 18", "seconds": times,
            "fps": {name: N_FRAMES / t["wall_s"] for name, t in times.items()}, "swap_over_decode_encode": ratio,
        }  # fmt: skip
        if "--memory" in sys.argv:
            result["memory"] = memory(run_dir, folder)
        save("conversion", result)


if __name__ == "__main__":
    main()
