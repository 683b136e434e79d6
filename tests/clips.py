"""Small clips of every awkward kind, made with PyAV and not with the code under test, and ways to compare them."""

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from fslab.media import VideoOptions, VideoWriter, read_frames

SAMPLE = Path(__file__).parents[1] / "samples" / "ada.mp4"
RATE = 25
MILLISECOND = Fraction(1, 1000)


@dataclass(frozen=True)
class Sound:
    """A 440 Hz tone as one audio stream, starting at ``start`` seconds."""

    codec: str = "aac"
    rate: int = 48000
    layout: str = "stereo"
    seconds: float = 1.2
    start: float = 0.0


@dataclass(frozen=True)
class Clip:
    """How a clip is made; ``ticks`` are its timestamps in ``time_base``, ``tags`` its colours.

    ``last`` is how long its last frame is shown, ticks; 0 leaves that to FFmpeg.
    """

    n: int = 15
    size: tuple[int, int] = (96, 128)
    codec: str = "libx264"
    pixels: str = "yuv420p"
    time_base: Fraction = Fraction(1, 12800)
    ticks: tuple[int, ...] = ()
    last: int = 0
    rotation: int = 0
    tags: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)
    sounds: tuple[Sound, ...] = ()
    faststart: bool = False


def scene(i: int, size: tuple[int, int] = (96, 128)) -> np.ndarray:
    """Frame ``i`` of a smooth moving scene without symmetry, ``(H, W, 3)`` uint8."""
    y, x = np.mgrid[: size[0], : size[1]] / max(size)
    waves = np.stack([np.sin(5 * x + 3 * y + 0.1 * i), np.sin(4 * y - 0.2 * i), np.cos(3 * x * (1 + y))], axis=-1)
    return np.clip(128 + 80 * waves, 0, 255).astype(np.uint8)


def make_clip(path: Path, clip: Clip = Clip()) -> Path:
    """Write a clip; the container follows from the suffix."""
    flags = {"movflags": "+faststart"} if clip.faststart else {}
    with av.open(str(path), "w", options=flags) as output:
        stream = output.add_stream(clip.codec, rate=RATE)
        stream.height, stream.width, stream.pix_fmt = *clip.size, clip.pixels
        stream.codec_context.time_base = clip.time_base
        stream.options = clip.options
        for name, value in clip.tags.items():
            setattr(stream.codec_context, name, value)
        if clip.rotation:
            stream.set_display_rotation(clip.rotation)
        sounds = [(sound, _add_sound(output, sound)) for sound in clip.sounds]
        ticks = clip.ticks or [round(Fraction(i, RATE) / clip.time_base) for i in range(clip.n)]
        for i, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(scene(i, clip.size), format="rgb24").reformat(format=clip.pixels)
            for name, value in clip.tags.items():
                if hasattr(frame, name):
                    setattr(frame, name, value)
            frame.pts, frame.time_base = tick, clip.time_base
            output.mux(stream.encode(frame))
        for packet in stream.encode(None):
            packet.duration = clip.last or packet.duration
            output.mux(packet)
        for sound, target in sounds:
            _play(output, target, sound)
    return path


def _add_sound(output: av.container.OutputContainer, sound: Sound) -> av.AudioStream:
    target = output.add_stream(sound.codec, rate=sound.rate)
    target.layout = sound.layout
    return target


def _play(output: av.container.OutputContainer, target: av.AudioStream, sound: Sound) -> None:
    n_channels = av.AudioLayout(sound.layout).nb_channels
    wave = np.sin(np.arange(int(sound.rate * sound.seconds)) * 440 * 2 * np.pi / sound.rate) * 9000
    samples = np.repeat(wave.astype(np.int16)[:, None], n_channels, axis=1).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=sound.layout)
    frame.sample_rate, frame.pts = sound.rate, round(sound.start * sound.rate)
    output.mux(target.encode(frame))
    output.mux(target.encode(None))


def packets(path: Path, kind: str, index: int = 0) -> list[tuple[float, bytes]]:
    """Return (time, content) of each packet of one stream of a file."""
    with av.open(str(path)) as container:
        stream = [s for s in container.streams if s.type == kind][index]
        return [(float(p.pts * p.time_base), bytes(p)) for p in container.demux(stream) if p.size]


def rewrite(source: Path, target: Path, options: VideoOptions | None = None, **cut) -> Path:
    """Send a clip through reader and writer, untouched."""
    with VideoWriter(target, source, options) as writer:
        for frame in read_frames(source, **cut):
            writer.write(frame)
    return target


def times(path: Path) -> list[Fraction]:
    return [frame.pts * frame.time_base for frame in read_frames(path)]


def pixels(path: Path) -> np.ndarray:
    return np.stack([frame.rgb() for frame in read_frames(path)])
