"""Provenance: what a swapped file says about itself, and reading it back.

The first layers: visible label (pixels), metadata (XMP and tags), manifest (a tag, and a sidecar file with the finished
file's SHA-256). `save_marked_image` and `open_marked_video` write all of them and are the only ways a swap is written;
`verify` reads them back. Nothing is signed yet: these marks tell honest people what a file is and show what was lost or
changed by accident; somebody who rewrites file and sidecar together is not found out.
"""

from fslab.provenance.manifest import Manifest
from fslab.provenance.reading import Layer, VerifyReport, embedded_manifest, verify
from fslab.provenance.writing import MarkedVideo, open_marked_video, save_marked_image, sidecar_path

__all__ = [
    "Layer",
    "Manifest",
    "MarkedVideo",
    "VerifyReport",
    "embedded_manifest",
    "open_marked_video",
    "save_marked_image",
    "sidecar_path",
    "verify",
]
