"""The manifest by itself: what it keeps through JSON and XML, and what it refuses to be."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest

import fslab
from fslab.consent import Consent
from fslab.provenance import Manifest, metadata
from fslab.samples import sample_path


@pytest.fixture(scope="module")
def manifest():
    consents = [Consent.load(sample_path(f"consents/{name}.json")) for name in ("ada", "dan")]
    run = {"id": "ada-dan", "sha256": "0" * 64, "identities": ["ada", "dan"]}
    return Manifest.new("swap", [sample_path("ada_target.mp4")], run, consents, {"identity": "dan"})


def test_a_manifest_survives_json(manifest):
    again = Manifest.from_dict(json.loads(json.dumps(manifest.to_dict())))
    assert again == manifest
    assert again.id == manifest.id
    assert manifest.with_frames(9, 8).id == manifest.id, "clips know their counts only at the end"
    assert replace(manifest, action="other").id != manifest.id


def test_xml_of_hostile_names_stays_well_formed(manifest):
    hostile = replace(manifest, version="0.1 <&>\"']]>")
    packet = metadata.xmp(hostile)
    ElementTree.fromstring(packet.split("?>", 1)[1].rsplit("<?", 1)[0])
    said = metadata.declared(packet, metadata.tags(hostile))
    assert said["AIGC"][0] == said["AIGC"][1]
    assert metadata.produce_id(said["AIGC"][0]) == hostile.id


@pytest.mark.parametrize("change", [{"schema": 2}, {"inputs": {}}, {"frames": "9"}, {"extra": 1}, {"action": None}])
def test_a_manifest_of_another_shape_is_refused(manifest, change):
    with pytest.raises(ValueError, match="manifest"):
        Manifest.from_dict(manifest.to_dict() | change)


def test_the_version_is_the_packages_own(manifest):
    assert (manifest.tool, manifest.version) == ("fslab", fslab.__version__)
