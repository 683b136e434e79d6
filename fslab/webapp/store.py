"""A visitor's people, runs and results on disk, and the packaged ones."""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from fslab.consent import Consent
from fslab.errors import FslabError
from fslab.faceset import FaceSet
from fslab.run import is_run, read_head
from fslab.samples import sample_path
from fslab.storage import read_json, write_json
from fslab.webapp.folders import Visitor
from fslab.webapp.settings import AppSettings

PACKAGED = ("ada", "dan")
PACKAGED_RUN = "packaged"
ABOUT = "about.json"


@dataclass(frozen=True)
class Person:
    """Somebody added to the page: ``footage`` and ``consent`` are files, ``faces`` the face set, there or not."""

    name: str
    folder: Path
    footage: Path
    consent: Consent

    @property
    def consent_path(self) -> Path:
        """The consent record."""
        return self.folder / "consent.json"

    @property
    def faces(self) -> Path:
        """The face set folder."""
        return self.folder / "faces"

    @property
    def is_extracted(self) -> bool:
        """Whether the face set is there."""
        return (self.faces / "faceset.json").exists()


def add_person(visitor: Visitor, footage: Path, consent: Consent) -> Person:
    """Write a person's folder: consent record and where the footage lies; one of the same name is replaced."""
    folder = visitor.people / hashlib.sha256(consent.person.encode()).hexdigest()[:16]
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    consent.save(folder / "consent.json", True)
    write_json(folder / ABOUT, {"footage": str(footage)})
    return Person(consent.person, folder, footage, consent)


def add_packaged(visitor: Visitor) -> list[Person]:
    """Add the packaged people; those that are there already stay as they are."""
    known = {p.name: p for p in people(visitor)}
    found = []
    for name in PACKAGED:
        consent = Consent.load(sample_path(f"consents/{name}.json"))
        found.append(known.get(name) or add_person(visitor, sample_path(f"{name}.mp4"), consent))
    return found


def people(visitor: Visitor) -> list[Person]:
    """Return a visitor's people, by name."""
    found = []
    for folder in visitor.people.iterdir():
        if (folder / ABOUT).exists():
            consent = Consent.load(folder / "consent.json")
            about = read_json(folder / ABOUT, "a person's folder", FslabError)
            found.append(Person(consent.person, folder, Path(about["footage"]), consent))
    return sorted(found, key=lambda p: p.name)


def find_person(visitor: Visitor, name: str | None) -> Person:
    """Return the person of a name; raises FslabError if there is none."""
    for person in people(visitor):
        if person.name == name:
            return person
    found = f"'{name}'" if name else "nobody chosen"
    raise FslabError("a person of yours", found, "choose or add a person first")


def load_faces(visitor: Visitor, name: str | None) -> FaceSet:
    """Return a person's face set; raises FslabError if it was not extracted."""
    person = find_person(visitor, name)
    if not person.is_extracted:
        raise FslabError(f"extracted faces of {name}", "none", "extract them first")
    return FaceSet.load(person.faces)


def runs(visitor: Visitor, settings: AppSettings) -> dict[str, Path]:
    """Return the runs that a visitor may swap with, the newest of theirs first, then the packaged one."""
    mine = [f for f in visitor.runs.iterdir() if is_run(f)]
    mine.sort(key=lambda f: (f / "config.json").stat().st_mtime, reverse=True)
    found = {f.name: f for f in mine}
    return found | ({PACKAGED_RUN: settings.packaged_run} if settings.packaged_run else {})


def find_run(visitor: Visitor, settings: AppSettings, name: str | None) -> Path:
    """Return the folder of a run by its name; raises FslabError if the visitor has none of it."""
    known = runs(visitor, settings)
    if name not in known:
        raise FslabError("a trained run", f"'{name}'" if name else "none", "train one first")
    return known[name]


def run_people(folder: Path) -> list[str]:
    """Return who a run knows, without reading its weights."""
    return list(read_head(folder)["identities"])


def run_choices(visitor: Visitor, settings: AppSettings) -> list[tuple[str, str]]:
    """Return the runs as (what is shown, name)."""
    return [(f"{' + '.join(run_people(f))} · {name}", name) for name, f in runs(visitor, settings).items()]


def results(visitor: Visitor) -> list[dict]:
    """Return what is known of each swapped video that is finished, newest first."""
    folders = sorted(visitor.results.iterdir(), reverse=True)
    found = [read_json(f / ABOUT, "a result", FslabError) | {"id": f.name} for f in folders if (f / ABOUT).exists()]
    return [about for about in found if Path(about["output"]).exists()]
