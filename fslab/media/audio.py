"""Sound for a video being written: copied packet by packet, or encoded to AAC, never far ahead of the pictures."""

from collections.abc import Iterator
from typing import Protocol

import av
import numpy as np

from fslab.media.source import Source

COPIED = ("aac", "mp3", "ac3", "eac3", "opus", "alac", "flac")  # what players expect inside an MP4
AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
AAC_BITS_PER_CHANNEL = 96_000  # a second


class Audio(Protocol):
    """Where a video's sound comes from."""

    n_streams: int

    def send_until(self, time: float) -> None:
        """Send the sound up to a time, seconds, to the output."""

    def finish(self) -> None:
        """Send what the encoders still hold."""


class Silence:
    """No sound."""

    n_streams = 0

    def send_until(self, time: float) -> None:
        """There is nothing to send."""

    def finish(self) -> None:
        """There is nothing to send."""


class CopiedAudio:
    """Every audio stream of a clip, on its way into another container.

    Packets are passed on untouched. Only a codec that MP4 players do not expect is decoded and encoded as AAC.
    """

    def __init__(self, source: Source, output: av.container.OutputContainer, start: float):
        """Add a stream to ``output`` for each of the source's; nothing is read yet.

        Args:
            source: the clip; opened for this alone, since it is read from where it stands.
            output: the container to send to.
            start: seconds; sound before this is left out.
        """
        self._source, self._output, self._start = source, output, start
        for stream in source.container.streams.video:
            stream.discard = av.stream.Discard.all
        streams = [s for s in source.container.streams.audio if s.codec_context]  # None: FFmpeg has no decoder
        self._targets = {stream.index: _add_stream(output, stream) for stream in streams}
        self._sent: set[int] = set()
        self._packets: Iterator[av.Packet] = source.container.demux(streams) if streams else iter(())
        self._waiting: av.Packet | None = None

    @property
    def n_streams(self) -> int:
        """How many streams something was sent to: a track without a single packet is none."""
        return len(self._sent)

    def send_until(self, time: float) -> None:
        """Send the packets whose time has come; infinity sends all that are left."""
        while (packet := self._waiting or next(self._packets, None)) is not None:
            self._waiting = packet
            if packet.size and packet.dts is not None and self._seconds(packet.dts, packet) > time:
                return
            self._waiting = None
            if packet.size and packet.pts is not None:
                self._send(packet)

    def _seconds(self, stamp: int, packet: av.Packet) -> float:
        return float(stamp * packet.time_base - self._source.origin)

    def _send(self, packet: av.Packet) -> None:
        if self._seconds(packet.pts + (packet.duration or 0), packet) <= self._start:
            return
        target, copied = self._targets[packet.stream.index]
        shift = round(self._source.origin / packet.time_base)
        if copied:
            packet.pts -= shift
            packet.dts = None if packet.dts is None else packet.dts - shift
            packet.stream = target
            self._mux(target, [packet])
            return
        try:
            frames = packet.decode()
        except av.error.FFmpegError:  # a damaged packet: a moment's silence, as in a player
            return
        for frame in frames:
            frame.pts = None if frame.pts is None else frame.pts - shift
            self._mux(target, target.encode(frame))

    def finish(self) -> None:
        """Send what the encoders still hold."""
        for target, copied in self._targets.values():
            if not copied and target.codec_context.is_open:
                self._mux(target, target.encode(None))

    def _mux(self, target: av.AudioStream, packets: list[av.Packet]) -> None:
        if packets:
            self._output.mux(packets)
            self._sent.add(target.index)


def _add_stream(output: av.container.OutputContainer, stream: av.AudioStream) -> tuple[av.AudioStream, bool]:
    context = stream.codec_context
    copied = context.codec.canonical_name in COPIED
    if copied:
        target = output.add_stream_from_template(stream)
    else:
        target = add_aac(output, context.sample_rate, context.channels)
    if "language" in stream.metadata:
        target.metadata["language"] = stream.metadata["language"]
    return target, copied


def add_aac(output: av.container.OutputContainer, rate: int, n_channels: int) -> av.AudioStream:
    """Add an AAC stream: mono stays mono, everything else becomes stereo; unusual rates become 48 kHz."""
    target = output.add_stream("aac", rate=rate if rate in AAC_RATES else 48000)
    n_channels = min(n_channels, 2)
    target.layout = "mono" if n_channels == 1 else "stereo"
    target.bit_rate = AAC_BITS_PER_CHANNEL * n_channels
    return target


class SampledAudio:
    """Sound from an array, encoded to AAC."""

    n_streams = 1

    def __init__(self, samples: np.ndarray, rate: int, output: av.container.OutputContainer):
        """Add an AAC stream to ``output``.

        Args:
            samples: ``(n, channels)`` int16, 1 or 2 channels.
            rate: samples a second.
            output: the container to send to.
        """
        if samples.ndim != 2 or samples.dtype != np.int16 or samples.shape[1] not in (1, 2) or not samples.size:
            raise ValueError(f"samples must be (n, 1 or 2) int16, got {samples.shape} {samples.dtype}")
        self._samples, self._rate, self._output, self._n_sent = samples, rate, output, 0
        self._target = add_aac(output, rate, samples.shape[1])

    def send_until(self, time: float) -> None:
        """Encode the samples up to a time, seconds; infinity encodes all that are left."""
        stop = int(min(time * self._rate, len(self._samples)))
        if stop <= self._n_sent:
            return
        part = np.ascontiguousarray(self._samples[self._n_sent : stop])
        frame = av.AudioFrame.from_ndarray(
            part.reshape(1, -1), format="s16", layout="mono" if part.shape[1] == 1 else "stereo"
        )
        frame.sample_rate, frame.pts = self._rate, self._n_sent
        self._output.mux(self._target.encode(frame))
        self._n_sent = stop

    def finish(self) -> None:
        """Send what the encoder still holds."""
        self._output.mux(self._target.encode(None))
