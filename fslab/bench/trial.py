"""One case from its people's seeds to its rows in the table; what is done is kept, so that a stopped trial goes on."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from fslab import __version__
from fslab.bench.baselines import Change, ceiling_change, colour_change, nearest_change, write_changed
from fslab.bench.case import Case, Tier, pair_config, recipe
from fslab.bench.classic import ClassicConfig, ClassicTrainer
from fslab.bench.curve import VIDEO, Snapshot, convert, moments, recipe_snapshots
from fslab.bench.machine import hardware
from fslab.errors import OutputError
from fslab.evaluate import EvalConfig, EvalReport, Gallery, References, evaluate_videos
from fslab.extract import ExtractConfig, extract_faces
from fslab.faceset import FaceSet
from fslab.labels import ClipLabels
from fslab.provenance import sidecar_path
from fslab.run import Run
from fslab.storage import explained, read_json, write_json
from fslab.synth.identity import draw_identity, gallery
from fslab.synth.pair import Pair, render_pair
from fslab.synth.takes import load_frames, load_labels, render_take

TRAINED = ("classic", "fslab")
BASELINES = ("colour", "nearest", "ceiling")
ARMS = ("target", "colour", "nearest", *TRAINED, "ceiling", "truth")  # as the tables list them
CASE_FILE, RESULT_FILE, SNAPSHOT_FILE, TIME_FILE = "case.json", "result.json", "snapshots.json", "seconds.json"


@dataclass(frozen=True)
class Watch:
    """Who is told: ``on_note(text)`` as each part of a case begins, ``on_progress(done, total)`` within it."""

    on_progress: Callable[[int, int], None] | None = None
    on_note: Callable[[str], None] | None = None

    def note(self, text: str) -> None:
        """Pass on what begins now."""
        if self.on_note:
            self.on_note(text)


class Trial:
    """A case in its folder: ``pair/`` rendered, ``faces/``, ``fslab/`` and ``classic/`` in training, ``swaps/``."""

    def __init__(self, tier: Tier, case: Case, folder: Path, watch: Watch | None = None):
        """Open the folder, new or of this very case.

        Raises:
            OutputError: if it holds another case or cannot be written.
        """
        self.tier, self.case, self.folder, self.watch = tier, case, Path(folder), watch or Watch()
        self.swaps = self.folder / "swaps"
        people = [draw_identity(seed).to_dict() for seed in (case.source_seed, case.target_seed)]
        about = json.loads(
            json.dumps({"fslab": __version__, "tier": tier.to_dict(), "case": asdict(case), "people": people})
        )
        path = self.folder / CASE_FILE
        what = f"the case '{case.name}' of tier '{tier.name}' in '{folder}'"
        if path.exists() and read_json(path, what, OutputError) != about:
            raise OutputError(what, "one of another configuration", "choose another folder or pass --overwrite")
        with explained(self.folder):
            self.swaps.mkdir(parents=True, exist_ok=True)
        write_json(path, about)
        times = self.folder / TIME_FILE
        self.seconds: dict[str, float] = read_json(times, "seconds", OutputError) if times.exists() else {}

    @contextmanager
    def _part(self, text: str, name: str) -> Iterator[None]:
        """Announce a part of the work and take its time; that of a part which was stopped is not counted."""
        self.watch.note(f"{self.case.name}: {text}")
        started = time.monotonic()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0) + time.monotonic() - started, 1)
        write_json(self.folder / TIME_FILE, self.seconds)

    def finished(self) -> dict | None:
        """Return what the case scored, as `run` does; None if it is not finished."""
        path = self.folder / RESULT_FILE
        return read_json(path, f"the result of the case '{self.case.name}'", OutputError) if path.exists() else None

    def run(self) -> dict:
        """Return what the case scores, from ``result.json`` if it is finished.

        Returns:
            ``hash`` of the pair, ``rows`` {arm: metrics}, ``curves`` {arm: [{"seconds", "step", "metrics"}]},
            ``seconds`` each part took, the ``hardware`` and ``date`` of the measurement, ``faces`` of each person,
            ``clips`` of the arms, ``notes``.

        Raises:
            FslabError: if the case cannot be rendered, its faces not found, or a file is damaged.
            KeyboardInterrupt: when training was stopped; it goes on from there the next time.
        """
        if done := self.finished():
            return done
        pair = self.render()
        facesets = [self.extract(pair, i) for i in (0, 1)]
        snapshots = {arm: self.train(arm, pair, facesets) for arm in TRAINED}
        clips = {name: self.baseline(name, pair) for name in BASELINES}
        result = self.measure(pair, facesets, snapshots, clips)
        write_json(self.folder / RESULT_FILE, result)
        for name in (*TRAINED, "faces"):
            shutil.rmtree(self.folder / name, ignore_errors=True)  # what is left can be measured and looked at again
        return result

    def render(self) -> Pair:
        """Render the pair, or go on with it.

        Raises:
            OutputError: if another pair stands there.
        """
        folder, config = self.folder / "pair", pair_config(self.case, self.tier)
        if folder.exists():
            pair = Pair.load(folder)
            if pair.config != config:
                what = f"the pair of the case '{self.case.name}' in '{folder}'"
                raise OutputError(what, "one of another configuration", "choose another folder or pass --overwrite")
            return pair
        with self._part("rendering", "render"):
            return render_pair(config, folder, on_progress=self.watch.on_progress)

    def extract(self, pair: Pair, which: int) -> FaceSet:
        """Extract the face set of A (0) or B (1)."""
        consent, footage = pair.consents[which], (pair.a_train, pair.b_train)[which]
        folder = self.folder / "faces" / "ab"[which]
        if folder.exists():
            return FaceSet.load(folder)
        with self._part(f"extracting {consent.person}", "extract"):
            # A crop larger than its frame's face holds nothing more.
            config = ExtractConfig(size=min(2 * self.tier.model_size, self.tier.frame_size))
            return extract_faces(footage, folder, consent, config, on_progress=self.watch.on_progress).faceset

    def train(self, arm: str, pair: Pair, facesets: list[FaceSet]) -> list[Snapshot]:
        """Train an arm for the tier's budget and convert the target at each of its moments."""
        when, path = moments(self.tier.budget), self.folder / SNAPSHOT_FILE
        kept = [Snapshot(**s) for s in read_json(path, "snapshots", OutputError)] if path.exists() else []
        done, others = [s for s in kept if s.arm == arm], [s for s in kept if s.arm != arm]
        if done and done[-1].seconds >= when[-1]:
            return done
        runs, done = self._runs(arm, facesets, done)
        try:
            while True:
                with self._part(f"training {arm}", f"train {arm}"):
                    run = next(runs, None)
                if run is None:
                    return done
                with self._part(f"converting with {arm} after {run.seconds:.0f} s", "convert"):
                    done.append(convert(run, arm, pair.consents[1].person, pair.target, self.swaps))
                write_json(path, [s.to_dict() for s in (*others, *done)])
        finally:
            runs.close()

    def _runs(self, arm: str, facesets: list[FaceSet], done: list[Snapshot]) -> tuple[Iterator[Run], list[Snapshot]]:
        """Return the runs of an arm that are still to convert, and the snapshots that stand."""
        folder, budget, tell = self.folder / arm, self.tier.budget, self.watch.on_progress
        if arm == "classic":
            trainer = ClassicTrainer(facesets, folder, ClassicConfig(device=self.tier.device))
            stands = [s for s in done if s.seconds <= trainer.run.seconds]
            return trainer.snapshots(moments(budget), tell), stands
        return recipe_snapshots(facesets, folder, *recipe(self.tier), tell), []

    def baseline(self, name: str, pair: Pair) -> Path:
        """Write the clip of a baseline, unless it stands."""
        clip = self.swaps / f"{name}.mp4"
        if not (clip.exists() and sidecar_path(clip).exists()):
            with self._part(f"baseline {name}", "baselines"):
                change = self._ceiling(pair) if name == "ceiling" else _change(name, pair)
                write_changed(pair.target, clip, change, pair.consents, VIDEO.encode)
        return clip

    def _ceiling(self, pair: Pair) -> Change:
        """Render the source doing what the target does, and return the change that pastes it."""
        target = pair.config.takes()["target"]
        take = replace(target, head=pair.config.source_seed, occluder="none", fits=None, clean=True)
        folder = self.folder / "twin"
        render_take(take, folder)
        twin, labels = list(load_frames(folder, take)), load_labels(folder, take)
        shutil.rmtree(folder, ignore_errors=True)
        return ceiling_change(pair.labels("target"), twin, labels)

    def measure(
        self, pair: Pair, facesets: list[FaceSet], snapshots: dict[str, list[Snapshot]], clips: dict[str, Path]
    ) -> dict:
        """Score every arm and snapshot in one pass over the frames."""
        swaps = {f"{s.arm} {s.step}": self.clip_of(s, pair) for arm in TRAINED for s in snapshots[arm]}
        final = snapshots["fslab"][-1]
        others = {**clips, **{name: clip for name, clip in swaps.items() if name != f"fslab {final.step}"}}
        report = self.score(pair, facesets, self.clip_of(final, pair), others)
        scores = {**report.baselines, f"fslab {final.step}": report.metrics}
        last = {arm: snapshots[arm][-1] for arm in TRAINED}
        rows = {a: scores[f"{a} {last[a].step}" if a in last else a] for a in ARMS}
        curves = {
            arm: [{"seconds": s.seconds, "step": s.step, "metrics": scores[f"{arm} {s.step}"]} for s in snapshots[arm]]
            for arm in TRAINED
        }
        return {
            "hash": pair.hash, "rows": rows, "curves": curves, "notes": list(report.notes), "seconds": self.seconds,
            "faces": {f.identity: len(f.kept) for f in facesets},
            "hardware": hardware(self.tier.device), "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "clips": {**{n: p.name for n, p in clips.items()}, **{arm: last[arm].clip for arm in TRAINED}},
        }  # fmt: skip

    def score(
        self, pair: Pair, facesets: list[FaceSet], clip: Path, others: dict[str, Path] | None = None
    ) -> EvalReport:
        """Score a swap of the target against the truth, and other clips of it in the same pass over the frames."""
        references = References(
            facesets[1].embedding(), face_labels(pair), Gallery(*gallery(), self.case.source_seed), others or {}
        )
        config = EvalConfig(embed_every=3, edge_band=self.tier.frame_size / 64, n_moments=1, n_worst=0)
        with self._part("measuring", "measure"):
            return evaluate_videos(clip, pair.target, pair.truth, references, config, self.watch.on_progress)

    def clip_of(self, snapshot: Snapshot, pair: Pair) -> Path:
        """Return the clip of a snapshot: the target itself where nobody was found to swap."""
        return self.swaps / snapshot.clip if snapshot.clip else pair.target


def _change(name: str, pair: Pair) -> Change:
    """Return what a baseline does to the target's frames."""
    if name == "colour":
        return colour_change(pair.target, pair.labels("target"), pair.b_train, pair.labels("b_train"))
    return nearest_change(pair.labels("target"), pair.b_train, pair.labels("b_train"))


def face_labels(pair: Pair) -> ClipLabels:
    """Return the truth's labels with the face as far as it reaches in the target or the truth."""
    truth, target = pair.labels("truth"), pair.labels("target")
    return replace(truth, face=np.maximum(truth.face, target.face))
