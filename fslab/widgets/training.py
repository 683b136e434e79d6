"""Training in the background of a notebook: a curve, a preview and a Stop button; cells go on meanwhile."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import ipywidgets as W

from fslab.faceset import FaceSet
from fslab.media import encode_image
from fslab.model import ModelConfig
from fslab.run import Run
from fslab.schedule import TrainConfig
from fslab.train import TrainHooks, TrainStep, train
from fslab.viz import plot_series, to_rgb


class TrainingPanel:
    """Trains in a thread of its own and shows how it goes.

    The thread changes traits of widgets alone and never prints: what a thread prints lands in whichever cell runs.
    ``box`` is what a cell displays; `wait` returns the run and is what makes a notebook that nobody watches whole.
    """

    def __init__(
        self, facesets: Sequence[FaceSet], folder: Path, model: ModelConfig, config: TrainConfig, note: str = ""
    ):
        """Prepare a training of ``facesets`` into ``folder``; ``note`` is shown above it."""
        self._what = (list(facesets), Path(folder), model, config)
        self._stop, self._pool = threading.Event(), ThreadPoolExecutor(1)
        self._future: Future[Run] | None = None
        self._seconds: list[float] = []
        self._losses: list[float] = []
        self._bar = W.FloatProgress(min=0, max=1, layout=W.Layout(width="420px"))
        self._said, self._curve = W.HTML(value="ready"), W.Image(format="png", width=420)
        self._picture = W.Image(format="jpeg", width=420)
        self._curve.layout.visibility = self._picture.layout.visibility = "hidden"
        button = W.Button(description="Stop", icon="stop", button_style="warning")
        button.on_click(lambda _: self.stop())
        top = W.HBox([self._bar, button, self._said])
        self.box = W.VBox([W.HTML(value=note), top, W.HBox([self._curve, self._picture])])
        self.box.add_class("fslab-train")

    def start(self) -> W.Widget:
        """Begin, and return what to display."""
        self._future = self._pool.submit(self._work)
        self._future.add_done_callback(self._tell_end)
        return self.box

    def stop(self) -> None:
        """Ask for the end after the step at work; what was learnt is saved."""
        self._stop.set()
        self._said.value = "stopping"

    def wait(self, seconds: float | None = None) -> Run:
        """Wait for the end and return the run, with the weights that measured best.

        Raises:
            ValueError: if it was not started.
            TimeoutError: if it still trains after ``seconds``.
            FslabError: or whatever else ended the training early.
        """
        if self._future is None:
            raise ValueError("start the training before waiting for it")
        self._future.result(seconds)
        return Run.load(self._what[1])

    def _work(self) -> Run:
        facesets, folder, model, config = self._what
        return train(facesets, folder, model, config, TrainHooks(self._on_step, self._on_preview, self._stop.is_set))

    def _tell_end(self, future: Future) -> None:
        if error := future.exception():  # raised again by `wait`
            self._said.value = f"ended early: {type(error).__name__}"
        else:
            run = future.result()
            self._said.value = f"{'done' if run.finished else 'stopped'} after {run.step} steps"

    def _on_step(self, now: TrainStep) -> None:
        self._seconds.append(now.seconds)
        self._losses.append(now.loss)
        self._bar.value = now.progress
        self._said.value = f"step {now.step}, loss {now.loss:.3f}, {now.seconds:.0f} s"
        self._curve.value = encode_image(to_rgb(plot_series(self._seconds, self._losses, title="loss")), ".png")
        self._curve.layout.visibility = "visible"

    def _on_preview(self, run: Run, path: Path) -> None:
        from fslab.stages import save_preview  # marked, as every picture of a swap

        save_preview(run, path, self._what[0])
        self._picture.value = path.read_bytes()
        self._picture.layout.visibility = "visible"
