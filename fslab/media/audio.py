"""Sound for a video being written: copied packet by packet, or encoded to AAC."""

from collections.abc import Iterator

import av
import numpy as np

COPIED = ("aac", "mp3", "ac3", "eac3", "opus", "alac", "flac")  # what players expect inside an MP4
AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)


class CopiedAudio:
    """Every audio stream of a clip, on its way into another container in step with the pictures.

    Attributes:
        n_streams: how many there are.
    """

    def __init__(self, source: av.container.InputContainer, output: av.container.OutputContainer):
        """Add a stream to ``output`` for each of ``source``; nothing is read yet."""
        streams = list(source.streams.audio)
        self.n_streams = len(streams)
        self._output = output
        self._targets = {stream.index: _add_stream(output, stream) for stream in streams}
        self._packets: Iterator[av.Packet] = source.demux(streams) if streams else iter(())
        self._waiting: av.Packet | None = None

    def mux_until(self, time: float | None) -> None:
        """Send on the packets up to a time in seconds, or with None all that are left."""
        while (packet := self._waiting or next(self._packets, None)) is not None:
            if time is not None and packet.dts is not None and packet.dts * packet.time_base > time:
                self._waiting = packet
                return
            self._waiting = None
            self._send(packet)

    def _send(self, packet: av.Packet) -> None:
        target, copied = self._targets[packet.stream.index]
        if copied:
            if packet.dts is not None:
                packet.stream = target
                self._output.mux(packet)
            return
        for frame in packet.decode():
            self._output.mux(target.encode(frame))
        if packet.dts is None:  # the stream's end
            self._output.mux(target.encode(None))


def _add_stream(output: av.container.OutputContainer, stream: av.AudioStream) -> tuple[av.AudioStream, bool]:
    if stream.codec_context.name in COPIED:
        try:
            return output.add_stream_from_template(stream), True
        except ValueError:
            pass
    return add_aac(output, stream.codec_context.sample_rate, stream.codec_context.channels), False


def add_aac(output: av.container.OutputContainer, rate: int, n_channels: int) -> av.AudioStream:
    """Add an AAC stream: mono stays mono, everything else becomes stereo; unusual rates become 48 kHz."""
    target = output.add_stream("aac", rate=rate if rate in AAC_RATES else 48000)
    target.layout = "mono" if n_channels == 1 else "stereo"
    target.bit_rate = 192_000
    return target


class SampledAudio:
    """Sound from an array, encoded to AAC in step with the pictures."""

    n_streams = 1

    def __init__(self, samples: np.ndarray, rate: int, output: av.container.OutputContainer):
        """Add an AAC stream to ``output``.

        Args:
            samples: ``(n, channels)`` int16, 1 or 2 channels.
            rate: samples a second.
            output: the container.
        """
        if samples.ndim != 2 or samples.dtype != np.int16 or samples.shape[1] not in (1, 2):
            raise ValueError(f"samples must be (n, 1 or 2) int16, got {samples.shape} {samples.dtype}")
        self._samples, self._rate, self._output, self._done = samples, rate, output, 0
        self._target = add_aac(output, rate, samples.shape[1])

    def mux_until(self, time: float | None) -> None:
        """Encode the samples up to a time in seconds, or with None all that are left."""
        stop = len(self._samples) if time is None else min(int(time * self._rate), len(self._samples))
        if stop > self._done:
            part = np.ascontiguousarray(self._samples[self._done : stop])
            layout = "mono" if part.shape[1] == 1 else "stereo"
            frame = av.AudioFrame.from_ndarray(part.reshape(1, -1), format="s16", layout=layout)
            frame.sample_rate, frame.pts = self._rate, self._done
            self._output.mux(self._target.encode(frame))
            self._done = stop
        if time is None:
            self._output.mux(self._target.encode(None))
