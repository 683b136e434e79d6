"""Several processes on one machine, joined by Accelerate over gloo, against one process with all their faces."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from drawn_people import drawn_faceset

from fslab.dataset import Batch
from fslab.distribute import Exchange, Team, is_main_process, join_team, n_processes
from fslab.errors import RunError
from fslab.faceset import FaceSet
from fslab.losses import LossConfig, dssim_loss, gradient_loss, l1_loss
from fslab.mesh import expression
from fslab.model import ModelConfig
from fslab.run import Run, load_tensors
from fslab.schedule import TrainConfig
from fslab.storage import write_json_lines
from fslab.train import Trainer

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
MODEL = ModelConfig(size=32, width=8, latent_channels=16, blocks=1)
LOSSES = LossConfig(dssim_scales=2, match=1.0, match_bin=20.0)
CONFIG = TrainConfig(steps=6, batch=3, device="cpu", precision="fp32", optimizer="sgd", lr=0.1, losses=LOSSES)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    return [drawn_faceset(folder / name, name) for name in ("ada", "dan")]


def launch(*command):
    """Run a command as two processes; return what they print."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launcher += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "tests")}
    done = subprocess.run(
        [*launcher, *map(str, command)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


# One process


def test_one_process_is_a_team_of_one_that_asks_nobody():
    team = join_team("cpu")
    assert team == Team(CPU)
    assert team.is_main
    x = torch.rand(3)
    before = x.clone()
    team.average_([x])
    assert torch.equal(x, before)
    assert team.gather(x) == [x]
    assert team.agree([3.5, 1.0], True) == ([3.5, 1.0], True)
    assert team.ask_main(lambda: b"yes") == b"yes"


def test_what_cannot_be_shared_out_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert n_processes() == 2
    assert not is_main_process()
    monkeypatch.setattr("fslab.distribute.choose_device", torch.device)
    for name in ("cuda:1", "mps"):
        with pytest.raises(RunError, match="a device for each process"):
            join_team(name)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(RunError, match=r"pip install 'fslab\[scale\]'"):
        join_team("cpu")


@pytest.mark.parametrize("loss", [l1_loss, gradient_loss, lambda *x: dssim_loss(*x, scales=2)])
def test_evened_losses_of_shares_have_the_mean_of_the_whole(loss):
    """Shares whose weights differ: their plain mean is another number."""
    torch.manual_seed(0)
    x, y, weight = torch.rand(6, 3, 32, 32), torch.rand(6, 3, 32, 32), torch.rand(6, 1, 32, 32)
    weight[:3] *= 5
    exchanges = []
    for part in (slice(0, 3), slice(3, 6)):
        exchange = Exchange(Team(CPU), [Batch(x[part], y[part], weight[part], weight[part])])
        exchange.team = Team(CPU, 0, 2)
        exchange.lacking = [3 * (weight.mean(0, keepdim=True) - weight[part].mean(0, keepdim=True))]
        exchanges.append(exchange)
    evened, plain = [], []
    for part, exchange in zip((slice(0, 3), slice(3, 6)), exchanges):
        rgb, batch = exchange.balance(x[part], 0)
        evened.append(loss(rgb, batch.target, batch.weight))
        plain.append(loss(x[part], y[part], weight[part]))
    whole = float(loss(x, y, weight))
    assert float(sum(evened)) / 2 == pytest.approx(whole, rel=1e-5)
    assert float(sum(plain)) / 2 != pytest.approx(whole, rel=1e-3)


# Two processes


SCRIPT = """
import json, os, sys
from dataclasses import replace
from pathlib import Path
import torch
from safetensors.torch import save_file
from test_distribute import CONFIG, MODEL, Share
from fslab.distribute import join_team
from fslab.errors import RunError
from fslab.faceset import FaceSet
from fslab.train import TrainHooks, Trainer, train

folder = Path(sys.argv[1])
people, team = [FaceSet.load(Path(sys.argv[2]) / name) for name in ("ada", "dan")], join_team("cpu")
config = replace(CONFIG, micro_batch=0 if team.is_main else 1)  # one of them has less memory than the other
mine = folder / f"{team.rank}"  # only the first may write
torch.manual_seed(0)
trainer = Trainer(people, mine / "run", MODEL, config, team.device, team)
trainer.data = [Share(d, team.rank) for d in trainer.data]
trainer.generator.manual_seed(5)
for i in range(4):
    trainer.step(0.3)
    trainer.run.step += 1
found = trainer.model.state_dict()
all_equal = all(torch.equal(a, b) for t in found.values() for a, b in [team.gather(t)])
trainer.save(trainer.run.folder)
if team.is_main:
    save_file({**found, "equal": torch.tensor(all_equal)}, folder / "found.safetensors")

hooks = TrainHooks(should_stop=lambda: team.rank == 1)  # the second one wants to stop; both must
run = train(people, mine / "other", MODEL, replace(config, steps=None, budget="10m"), hooks)
told = [run.step, int(run.finished)]
run = train(people, mine / "other", MODEL, replace(config, steps=run.step + 2), TrainHooks())
told += [run.step, int(run.finished)]
try:
    train(people, mine / "run", replace(MODEL, width=16), config)
except RunError as error:
    told.append(int("settings" in str(error)) if team.is_main else 2)
told.append(float(run.model.decoders[0].head_conv.weight.sum()))
(folder / f"told{team.rank}.json").write_text(json.dumps(told))  # printed, the two's lines would mix
"""


class Share:
    """A data set whose batches are one process's share of twice as many faces, drawn alike in both."""

    def __init__(self, data, rank):
        self.data, self.rank = data, rank

    def batch(self, n, generator, strength):
        batch, part = self.data.batch(2 * n, generator, strength), slice(self.rank * n, (self.rank + 1) * n)
        return Batch(batch.input[part], batch.target[part], batch.mask[part], batch.weight[part], batch.yaw[part])


@pytest.fixture(scope="module")
def two(people, tmp_path_factory):
    """The folder that two processes worked in, and what they printed."""
    pytest.importorskip("accelerate")
    folder = tmp_path_factory.mktemp("two")
    (folder / "script.py").write_text(SCRIPT)
    code, text = launch(folder / "script.py", folder, people[0].folder.parent)
    assert code == 0, text
    return folder, text


def test_two_processes_match_one_with_twice_the_batch(people, two, tmp_path):
    folder, _ = two
    found = load_tensors(folder / "found.safetensors")[0]
    assert found.pop("equal")  # bit for bit between the two
    people = [FaceSet.load(p.folder) for p in people]  # on disk, meshes are rounded
    torch.manual_seed(0)
    one = Trainer(people, tmp_path / "one", MODEL, replace(CONFIG, batch=2 * CONFIG.batch), CPU)
    first = {k: v.clone() for k, v in one.model.state_dict().items()}
    one.generator.manual_seed(5)
    for _ in range(4):
        one.step(0.3)
    moved = max(float((v - first[k]).abs().max()) for k, v in one.model.state_dict().items())
    assert moved > 1e-2
    for name, value in one.model.state_dict().items():
        assert torch.allclose(value, found[name], atol=1e-4 * moved), name


def test_only_the_first_writes_and_both_stop_when_one_wants_to(two):
    folder, _ = two
    assert not (folder / "1").exists()
    assert load_tensors(folder / "0" / "run" / "state.safetensors")[0].keys() >= {"random/data", "random/1/data"}
    first, second = (json.loads((folder / f"told{rank}.json").read_text()) for rank in (0, 1))
    assert first[:4] == second[:4] == [first[0], 0, first[0] + 2, 1]
    assert (first[4], second[4]) == (1, 2)  # the second one refuses too, with a hint at the first one's reason
    assert first[5] == second[5]
    assert Run.load(folder / "0" / "other").finished


def test_the_command_runs_as_two_processes_and_one_of_them_speaks(people, tmp_path):
    pytest.importorskip("accelerate")
    folders = [p.folder for p in people]
    for faceset in people:  # the drawn ones do not say what they do; the advice at the end asks for it
        rows = [replace(r, expression=expression(r.mesh)).to_row() for r in faceset.records]
        write_json_lines(faceset.folder / "faces.jsonl", rows)
    settings = {"base": "none", "device": "cpu", "steps": "3", "batch": "2", "size": "32", "width": "8"}
    options = [word for name, value in settings.items() for word in (f"--{name}", value)]
    code, text = launch("-m", "fslab", "train", *folders, "--out", tmp_path / "run", *options)
    assert code == 0, text
    assert text.count("3 steps in") == 1
    run = Run.load(tmp_path / "run")
    assert run.finished
    assert run.step == 3
