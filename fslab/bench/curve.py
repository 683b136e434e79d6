"""Quality against training time: runs as they were at given moments, and the target converted by each."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fslab.devices import choose_device
from fslab.errors import NoFaceFound, RunError
from fslab.faceset import FaceSet
from fslab.media import VideoOptions
from fslab.model import ModelConfig
from fslab.run import Run, is_run, load_tensors, read_head, save_tensors
from fslab.schedule import TrainConfig, parse_duration
from fslab.storage import explained
from fslab.swap import SwapConfig, Swapper
from fslab.train import TrainHooks, TrainStep, train
from fslab.video import VideoConfig, swap_video

SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)  # of the budget: each snapshot has twice the training of the one before
EVERY_STEP = 1e-3  # seconds between looks at the clock: shorter than any step

# The target shows one person and that is known, so who it is need not be found out: any distance will do.
SWAP = SwapConfig(same_person=2.0)
VIDEO = VideoConfig(encode=VideoOptions(crf=8))  # the codec must not be what is measured
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Snapshot:
    """The target converted by an arm's network after ``seconds`` and ``step`` steps of training; ``clip`` file name."""

    arm: str
    seconds: float
    step: int
    clip: str

    def to_dict(self) -> dict:
        """Return the snapshot as JSON types."""
        return asdict(self)


def moments(budget: float) -> tuple[float, ...]:
    """Return the training seconds at which snapshots are taken, rising; the last is the budget."""
    return tuple(budget * share for share in SHARES)


class _Keeper:
    """Keeps the averaged weights of a training as they are at each moment, as files."""

    def __init__(self, folder: Path, when: Sequence[float]):
        self.folder = folder
        reached = max((float(about["seconds"]) for _, about in _kept(folder)), default=0.0)
        self.due = [m for m in when if m > reached]

    def look(self, run: Run, _: Path) -> None:
        """Write the weights if a moment was reached since the last look."""
        if self.due and run.seconds >= self.due[0]:
            self.due = [m for m in self.due if m > run.seconds]
            about = {"step": str(run.step), "seconds": f"{run.seconds:.3f}"}
            save_tensors(self.folder / f"{run.step:08d}.safetensors", run.model.state_dict(), about)


def _kept(folder: Path) -> Iterator[tuple[Path, dict]]:
    """Yield the snapshots in a folder, oldest first, with what each says of itself."""
    for path in sorted(folder.glob("[0-9]*.safetensors")):
        yield path, load_tensors(path)[1]


def recipe_snapshots(
    facesets: Sequence[FaceSet],
    folder: Path,
    model: ModelConfig,
    config: TrainConfig,
    on_progress: Progress | None = None,
) -> Iterator[Run]:
    """Train with the package's recipe, or go on with it, and yield the run as it was at each of `moments`.

    The schedule follows the share of the budget, so an early snapshot is what this budget's training had by then, not
    the best that so short a training could do.

    Args:
        facesets: of both people.
        folder: holds the run and its snapshots.
        model: the network's shape.
        config: the training; its previews give way to snapshots.
        on_progress: called with (seconds done, seconds in all) about once a second.

    Raises:
        RunError: if the run in ``folder`` is another one's, or its snapshots were lost.
        KeyboardInterrupt: after SIGINT or SIGTERM, once everything is saved.
    """
    run_dir, kept, budget = Path(folder) / "run", Path(folder) / "snapshots", parse_duration(config.budget)
    with explained(kept):
        kept.mkdir(parents=True, exist_ok=True)
    head = read_head(run_dir) if is_run(run_dir) else {"step": 0, "finished": False}
    for path, about in _kept(kept):
        if int(about["step"]) > head["step"]:
            path.unlink()  # of steps after the checkpoint, which will be taken again

    def tell(now: TrainStep) -> None:
        if on_progress:
            on_progress(round(now.seconds), round(budget))

    if not head["finished"]:
        hooks = TrainHooks(on_step=tell, on_preview=_Keeper(kept, moments(budget)).look)
        if not train(list(facesets), run_dir, model, replace(config, preview_every=EVERY_STEP), hooks).finished:
            raise KeyboardInterrupt
    snapshots = list(_kept(kept))
    if not snapshots:
        raise RunError(f"snapshots of the training in '{kept}'", "none", "delete the case's folder and run it again")
    run = Run.load(run_dir, choose_device(config.device))
    for path, about in snapshots:
        run.model.load_state_dict(load_tensors(path)[0])
        run.step, run.seconds = int(about["step"]), float(about["seconds"])
        yield run


def convert(run: Run, arm: str, source: str, target: Path, folder: Path) -> Snapshot:
    """Convert the target with a run as it is now and write the marked clip ``ARM-STEP.mp4`` into ``folder``.

    Args:
        run: of the package's recipe or the classic one.
        arm: its name in the tables.
        source: the identity to put in.
        target: the target clip.
        folder: where the clip goes.

    Returns:
        The snapshot. Its clip is the untouched target where nobody was found to swap: that is what came of it.
    """
    clip = Path(folder) / f"{arm}-{run.step:07d}.mp4"
    try:
        swap_video(Swapper(run, source, SWAP), target, clip, config=VIDEO)
    except NoFaceFound:
        return Snapshot(arm, run.seconds, run.step, "")
    return Snapshot(arm, run.seconds, run.step, clip.name)
