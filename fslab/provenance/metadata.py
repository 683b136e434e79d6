"""Metadata that any reader understands: IPTC's digital source type and the AIGC label, in XMP and as tags."""

import json
import re
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from fslab.provenance.manifest import TOOL, Manifest

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_TC260 = "http://www.tc260.org.cn/ns/AIGC/1.0/"


def tags(manifest: Manifest) -> dict[str, str]:
    """Return the tags that go into a file: ``AIGC``, ``DigitalSourceType``, and the manifest as ``fslab``."""
    compact = json.dumps(manifest.to_dict(), separators=(",", ":"))
    return {"AIGC": _aigc(manifest), "DigitalSourceType": SOURCE_TYPE, TOOL: compact}


def _aigc(manifest: Manifest) -> str:
    """Return the implicit label of GB 45438-2025: Label 1 means "is AI-generated or synthesised"."""
    made = {"Label": "1", "ContentProducer": f"{TOOL} {manifest.version}", "ProduceID": manifest.id}
    spread = dict.fromkeys(("ReservedCode1", "ContentPropagator", "PropagateID", "ReservedCode2"), "")
    return json.dumps(made | spread)


def xmp(manifest: Manifest) -> str:
    """Return the XMP packet: IPTC's digital source type and the AIGC label."""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF}">'
        f'<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="{_IPTC}" xmlns:TC260="{_TC260}">'
        f"<Iptc4xmpExt:DigitalSourceType>{escape(SOURCE_TYPE)}</Iptc4xmpExt:DigitalSourceType>"
        f"<TC260:AIGC>{escape(_aigc(manifest))}</TC260:AIGC>"
        '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    )


def declared(packet: str | None, file_tags: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """Return every value that the XMP packet and the tags give for ``DigitalSourceType`` and ``AIGC``."""
    found = {name: [file_tags[name]] if name in file_tags else [] for name in ("DigitalSourceType", "AIGC")}
    wanted = {f"{{{_IPTC}}}DigitalSourceType": "DigitalSourceType", f"{{{_TC260}}}AIGC": "AIGC"}
    body = re.sub(r"<\?.*?\?>", "", packet or "", flags=re.DOTALL).strip("\ufeff \r\n\t\0")
    try:
        elements = () if "<!" in body else ElementTree.fromstring(body).iter()  # no entities from a stranger's file
    except ElementTree.ParseError:
        elements = ()
    for element in elements:
        pairs = [(element.tag, element.text or ""), *element.items()]  # XMP writes a property as element or attribute
        for name, value in pairs:
            if name in wanted:
                found[wanted[name]].append(value.strip())
    return {name: tuple(values) for name, values in found.items()}


def produce_id(text: str) -> str:
    """Return the ``ProduceID`` of an AIGC label that fslab wrote, else an empty string."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(value, dict) or value.get("Label") != "1":
        return ""
    return str(value.get("ProduceID", "")) if str(value.get("ContentProducer", "")).startswith(f"{TOOL} ") else ""
