import json
from datetime import date, timedelta
from pathlib import Path

import pytest

from fslab.consent import SCOPES, Consent, require_consent
from fslab.errors import ConsentError, FslabError, OutputError

TODAY = date(2026, 11, 22)
SAMPLES = Path(__file__).parents[1] / "samples" / "consents"


def record(**changes):
    base = {
        "schema": 1, "person": "ada", "scope": ["training", "swapping"], "confirmed_by": "Ada, signed on paper",
        "date": "2026-11-01", "expires": "2026-12-31", "synthetic": False, "note": "for the course",
    }  # fmt: skip
    return {k: v for k, v in (base | changes).items() if v is not ...}


def message(error):
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith("expected ")
    assert "; " in text
    assert text.endswith(".")
    return text


def test_a_record_is_read_as_written():
    consent = Consent.from_dict(record())
    assert (consent.person, consent.scope, consent.expires) == ("ada", ("training", "swapping"), "2026-12-31")
    assert consent.to_dict() == record()


@pytest.mark.parametrize("person", ["ada", "dan"])
def test_the_packaged_people_are_synthetic_and_consent_without_end(person):
    consent = Consent.load(SAMPLES / f"{person}.json")
    assert consent.synthetic
    assert consent.expires is None
    assert "nobody real" in consent.confirmed_by
    for scope in SCOPES:
        assert require_consent(consent, person, scope, today=TODAY) is consent


def test_saving_and_loading_returns_the_same_consent(tmp_path):
    consent = Consent("Zoë 王", "met in person; her teacher was there", "2026-11-22", ("publishing",), note="“always”")
    consent.save(tmp_path / "同意 zoë.json")
    assert Consent.load(tmp_path / "同意 zoë.json") == consent


def test_optional_keys_may_be_left_out():
    consent = Consent.from_dict(record(expires=..., synthetic=..., note=...))
    assert (consent.expires, consent.synthetic, consent.note) == (None, False, "")


def test_scope_order_and_repeats_do_not_matter():
    assert Consent.from_dict(record(scope=["swapping", "training", "swapping"])) == Consent.from_dict(record())


def test_an_existing_record_is_not_overwritten_unless_asked(tmp_path):
    path = tmp_path / "ada.json"
    Consent.from_dict(record()).save(path)
    changed = Consent.from_dict(record(note="new"))
    with pytest.raises(OutputError, match="exists"):
        changed.save(path)
    changed.save(path, overwrite=True)
    assert Consent.load(path) == changed


def test_the_public_record_has_the_hash_but_no_free_text():
    consent = Consent.from_dict(record())
    public = consent.public_record()
    assert set(public) == {"person", "scope", "date", "expires", "synthetic", "sha256"}
    assert "paper" not in json.dumps(public)
    assert len(public["sha256"]) == 64
    assert public["sha256"] == Consent.from_dict(json.loads(json.dumps(consent.to_dict()))).public_record()["sha256"]
    assert public["sha256"] != Consent.from_dict(record(note="another")).public_record()["sha256"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"schema": ...}, "'schema'"),
        ({"schema": 2}, "schema 2"),
        ({"schema": True}, "schema True"),
        ({"schema": None}, "schema None"),
        ({"person": ...}, "'person'"),
        ({"person": ""}, "the person ''"),
        ({"person": "../ada"}, "without slashes"),
        ({"person": "a\\b"}, "without slashes"),
        ({"person": ".."}, "the person '..'"),
        ({"person": " ada"}, "spaces around"),
        ({"person": "a\nb"}, "control characters"),
        ({"person": 7}, "'person' = 7"),
        ({"confirmed_by": "  "}, "empty 'confirmed_by'"),
        ({"confirmed_by": ...}, "no 'confirmed_by'"),
        ({"scope": "training"}, "'scope' = 'training'"),
        ({"scope": []}, "'scope' = \\[\\]"),
        ({"scope": ["all"]}, "list one or more of training, swapping, publishing"),
        ({"scope": [["training"]]}, "list one or more"),
        ({"synthetic": "yes"}, "write true or false"),
        ({"synthetic": 1}, "write true or false"),
        ({"date": "22.11.2026"}, "YYYY-MM-DD"),
        ({"date": "20261122"}, "YYYY-MM-DD"),
        ({"date": "2026-02-30"}, "YYYY-MM-DD"),
        ({"date": None}, "not text"),
        ({"expires": "never"}, "'expires'"),
        ({"expires": "2026-10-31"}, "before its date"),
        ({"expire": "2026-12-31"}, "unknown key 'expire'"),
        ({"note": ["a"]}, "'note'"),
    ],
)
def test_a_malformed_record_is_one_sentence(changes, says):
    with pytest.raises(ConsentError, match=says) as error:
        Consent.from_dict(record(**changes))
    message(error)


@pytest.mark.parametrize("value", [None, [], "ada", 1, [record()]])
def test_other_json_is_not_a_record(value):
    with pytest.raises(ConsentError, match="one JSON object") as error:
        Consent.from_dict(value)
    message(error)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"not json"])
def test_a_file_that_is_no_json_is_named(tmp_path, content):
    path = tmp_path / "ada.json"
    path.write_bytes(content)
    with pytest.raises(ConsentError, match=r"ada\.json") as error:
        Consent.load(path)
    message(error)


def test_a_missing_or_malformed_file_is_named(tmp_path):
    with pytest.raises(ConsentError, match=r"no file '.*dan\.json'"):
        Consent.load(tmp_path / "dan.json")
    (tmp_path / "ada.json").write_text(json.dumps(record(date="soon")))
    with pytest.raises(ConsentError, match=r"ada\.json.*'soon'"):
        Consent.load(tmp_path / "ada.json")


@pytest.mark.parametrize(
    ("changes", "person", "scope", "says"),
    [
        ({}, "dan", "training", "that of 'ada'"),
        ({}, "Ada", "training", "that of 'ada'"),
        ({}, "ada", "publishing", "training, swapping only"),
        ({"expires": "2026-11-21"}, "ada", "training", "expired on 2026-11-21"),
        ({"date": "2026-11-24", "expires": None}, "ada", "training", "in the future"),
    ],
)
def test_consent_that_does_not_cover_the_work_is_refused(changes, person, scope, says):
    consent = Consent.from_dict(record(**changes))
    with pytest.raises(ConsentError, match=says) as error:
        require_consent(consent, person, scope, today=TODAY)
    assert f"consent of '{person}' to {scope}" in message(error)


def test_no_consent_is_refused_and_says_how_to_write_one():
    with pytest.raises(ConsentError, match="fslab consent new ada") as error:
        require_consent(None, "ada", "training")
    assert isinstance(error.value, FslabError)
    message(error)


def test_the_last_day_counts_and_time_zones_are_forgiven():
    assert require_consent(Consent.from_dict(record(expires="2026-11-22")), "ada", "training", TODAY)
    tomorrow = Consent.from_dict(record(date="2026-11-23"))
    assert require_consent(tomorrow, "ada", "training", TODAY) is tomorrow


def test_today_is_the_default_day():
    past = date.today() - timedelta(days=3)
    consent = Consent("ada", "test", (past - timedelta(days=9)).isoformat(), expires=past.isoformat())
    with pytest.raises(ConsentError, match="expired"):
        require_consent(consent, "ada", "training")


def test_two_spellings_of_one_name_in_unicode_are_one_person():
    consent = Consent.from_dict(record(person="Zoe\u0308"))
    assert require_consent(consent, "Zo\u00eb", "training", TODAY) is consent


def test_an_unknown_scope_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="scope must be one of"):
        require_consent(Consent.from_dict(record()), "ada", "streaming", TODAY)
