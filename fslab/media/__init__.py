"""Images and video in and out: timestamps, rotation, colour, sound. The only part that knows codecs and BGR."""

from fslab.media.frames import Frame, RgbFrame, YuvFrame
from fslab.media.images import decode_image, encode_image, is_image, read_image, write_image
from fslab.media.marks import read_marks
from fslab.media.movie import VideoOptions
from fslab.media.reader import VideoInfo, count_footage, is_video, probe, read_footage, read_frames, read_samples
from fslab.media.writer import VideoWriter, write_video

__all__ = [
    "Frame",
    "RgbFrame",
    "VideoInfo",
    "VideoOptions",
    "VideoWriter",
    "YuvFrame",
    "count_footage",
    "decode_image",
    "encode_image",
    "is_image",
    "is_video",
    "probe",
    "read_footage",
    "read_frames",
    "read_image",
    "read_marks",
    "read_samples",
    "write_image",
    "write_video",
]
