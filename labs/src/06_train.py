# %% [markdown]
# # 06 Train · 训练
#
# **When has it learned, and how do we know?**  什么时候算学会了？怎么知道？
#
# The loss falls from the first step to the last, whether the swap gets better or not. This lab changes one thing at a time in a small training,
# breaks it on purpose, and looks at what can be known from outside: held-out faces, swapped held-out faces, and the moment when more time
# stops helping.
#
# *Time: 9 minutes on a CPU. Reads: the packaged people. Writes: runs in `work/train`.*

# %%
import shutil
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import torch

from fslab.dataset import DataConfig, FaceDataset
from fslab.labs import FAST, WORK, budget, check, faces_of, show_swap, source_of

# %%
from fslab.losses import LossConfig, moment_matching
from fslab.lr_finder import FinderConfig, find_learning_rate
from fslab.model import PRESETS, ModelConfig
from fslab.schedule import TrainConfig, learning_rate
from fslab.train import train
from fslab.verdict import judge_run, read_log

people = [faces_of("ada"), faces_of("dan")]
model = ModelConfig(size=64, width=24, latent_channels=64, blocks=1, encoder_blocks=0)

# %%
plain = TrainConfig(steps=40 if FAST else 300, batch=8, lr=1e-3, warmup=0.05, measure_every=1e9, save_every=1e9)
shutil.rmtree(WORK / "train", ignore_errors=True)


def my_run(name, **changes):
    shape = {k: changes.pop(k) for k in ("dropout",) if k in changes}
    return train(people, WORK / "train" / name, replace(model, **shape), replace(plain, **changes))


# %%
def my_losses(run):
    rows = [r for r in read_log(run.folder) if "loss" in r]
    return [r["step"] for r in rows], [np.mean(list(r["loss"].values())) for r in rows]


# %% [markdown]
# ## 1 SGD and Adam · 优化器
#
# Gradient descent takes a step against the gradient $g$: $\theta \leftarrow \theta - \eta\, v$, with momentum $v \leftarrow \mu v + g$. Adam
# (Kingma & Ba, 2015) divides each parameter's step by how large its gradients usually are:
#
# $$m \leftarrow \beta_1 m + (1-\beta_1) g, \quad v \leftarrow \beta_2 v + (1-\beta_2) g^2, \quad
# \theta \leftarrow \theta - \eta\, \frac{\hat m}{\sqrt{\hat v} + \epsilon}$$
#
# AdamW pulls the weights towards zero besides, apart from the gradient (Loshchilov & Hutter, 2019).
#
# **Predict.** Both get the same number of steps. Which learning rate does SGD need, compared with Adam?

# %%
runs = {
    "AdamW, 1e-3": my_run("adamw"),
    "SGD, 1e-3": my_run("sgd", optimizer="sgd"),
    "SGD, 0.5": my_run("sgd-fast", optimizer="sgd", lr=0.5),
}
figure, axes = plt.subplots(figsize=(7, 3))
for name, run in runs.items():
    axes.plot(*my_losses(run), label=name)
axes.set(xlabel="step", ylabel="loss")
axes.legend()

# %% [markdown]
# SGD needs a rate hundreds of times larger, and even then trails here: gradients of the first and of the last layers differ in size by orders
# of magnitude, which Adam evens out and SGD does not.
#
# ### Exercise 1 · 练习 1
#
# Write one step of Adam for arrays. Return the new `(theta, m, v)`; `t` is the number of the step, from 1, for the corrections
# $\hat m = m / (1 - \beta_1^t)$ and $\hat v = v / (1 - \beta_2^t)$.


# %%
def my_adam(theta, g, m, v, t, lr=0.1, b1=0.9, b2=0.999, eps=1e-8):
    raise NotImplementedError


def my_torch_adam(theta, g, m, v, t):
    weight = torch.tensor(theta, requires_grad=True)
    optimizer = torch.optim.Adam([weight], lr=0.1)
    optimizer.state[weight] = {
        "step": torch.tensor(float(t - 1)),
        "exp_avg": torch.tensor(m),
        "exp_avg_sq": torch.tensor(v),
    }
    weight.grad = torch.tensor(g)
    optimizer.step()
    state = optimizer.state[weight]
    return np.stack([weight.detach().numpy(), state["exp_avg"].numpy(), state["exp_avg_sq"].numpy()])


# %%
zeros, g = np.zeros(3), np.array([1.0, -0.1, 0.001])
check(my_adam, my_torch_adam, (np.ones(3), g, zeros, zeros, 1), (np.ones(3), g, 0.5 * g, g**2, 7))

# %% [markdown]
# ## 2 The learning rate · 学习率
#
# Too small wastes the afternoon, too large wastes the run. The finder (Smith, 2017) raises the rate geometrically, a step each, and watches
# where the loss stops falling and where it blows up. A tenth of the blow-up is a fair start. During training the rate rises for a moment
# and then falls along a cosine.

# %%
curve = find_learning_rate(people, model, plain, FinderConfig(1e-5, 1.0, 30 if FAST else 90))
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
left.semilogx(curve.rates[: len(curve.smoothed)], curve.smoothed)
left.axvline(curve.suggestion, color="grey", linestyle=":")
left.set(xlabel="learning rate", ylabel="loss", title=f"suggestion {curve.suggestion:.1e}")
right.plot([learning_rate(p, 0.05) for p in np.linspace(0, 1, 200)])
right.set(xlabel="share of the training, %", title="the schedule")

# %% [markdown]
# ## 3 Batch size · 批量
#
# A larger batch gives a steadier gradient and fewer steps in the same time. **Predict.** The same seconds for each: which batch wins?

# %%
for size in (2, 8, 32):
    run = my_run(f"batch{size}", batch=size, steps=None, budget=budget("15s", "2s"))
    print(f"batch {size:>2}: {run.step:>4} steps, last loss {my_losses(run)[1][-1]:.3f}")

# %% [markdown]
# ## 4 Overfitting, made and cured · 过拟合：制造与治疗
#
# **The failure case.** Train on a dozen faces without any variation, and watch held-out faces beside the training faces.
#
# **Predict.** Which of the cures helps most: dropout, weight decay, or varied inputs?

# %%
still = DataConfig(rotation=0, scale=0, shift=0, warp=0, flip=0, light=0, colour=0, held_out=0.5, gap=0)
few = [replace(f, records=tuple(f.kept[:: max(len(f.kept) // 24, 1)])) for f in people]
cures = {
    "none": {},
    "dropout 0.2": {"dropout": 0.2},
    "weight decay 0.3": {"weight_decay": 0.3},
    "varied": {"data": replace(DataConfig(), held_out=0.5, gap=0)},
}

# %%
for name, cure in cures.items():
    shape = {k: cure[k] for k in ("dropout",) if k in cure}
    rest = {"data": still} | {k: v for k, v in cure.items() if k not in shape}
    run = train(few, WORK / "train" / f"few-{name.split()[0]}", replace(model, **shape), replace(plain, **rest))
    data = FaceDataset.from_faceset(few[0], 64, run.train_config.data)
    seen, new = data.batch(16, torch.Generator().manual_seed(0), 0.0), data.held_out()
    with torch.inference_mode():
        errors = [
            (run.model(b.target, "ada")[0] - b.target).abs().mul(b.mask).sum() / b.mask.sum() / 3 for b in (seen, new)
        ]
    print(f"{name:>17}: seen {errors[0]:.3f}, never seen {errors[1]:.3f}")

# %% [markdown]
# What was learnt by heart is redrawn well, and nothing else. Varying the data is the only cure that adds information; dropout and weight decay
# only take capacity away, and a swap network has none to spare: both are 0 or small in fslab's presets.
#
# ## 5 The leak, and its cure · 身份泄漏与治疗
#
# In a hurry the encoder keeps the two people apart in its code, and each decoder reads "mine" or "not mine" from it. Then dan's decoder,
# given ada's code, draws ada. fslab matches the first two moments of the people's codes (after Sun & Saenko, 2016):
#
# $$L_\text{match} = \frac{1}{C} \sum_c \frac{(\mu^a_c - \mu^b_c)^2 + (\sigma^a_c - \sigma^b_c)^2}{\sigma_c^2}$$
#
# **Predict.** What happens to the reconstruction loss when codes are matched?

# %%
long = {"steps": 60 if FAST else 500}
leaky, matched = (
    my_run("leaky", losses=LossConfig(match=0.0), **long),
    my_run("matched", losses=LossConfig(match=0.5), **long),
)
faces = {name: FaceDataset.from_faceset(f, 64).held_out(24).input for name, f in zip(("ada", "dan"), people)}
for name, run in (("not matched", leaky), ("matched", matched)):
    with torch.inference_mode():
        codes = [run.model.encode(x) for x in faces.values()]
    means = torch.stack([z.mean((0, 2, 3)) for z in codes])
    print(f"{name:>12}: loss {my_losses(run)[1][-1]:.3f}, codes apart by {moment_matching(codes):.3f}")

# %%
from fslab.preview import preview_rows
from fslab.viz import image_grid

shown = {name: preview_rows(run, people, 5) for name, run in (("not matched", leaky), ("matched", matched))}
rows = [shown["matched"]["ada"], *(r["ada as dan"] for r in shown.values())]
show_swap(
    image_grid(rows, ["ada", *(f"as dan, {n}" for n in shown)], cell=128, foot="rendered people"),
    "without and with matched codes",
)

# %% [markdown]
# ### Exercise 2 · 练习 2
#
# Write the matching loss for two people: codes `(B, C, h, w)`; means over the faces `(1, C, h, w)`, standard deviations over faces and places
# with $10^{-6}$ added to the variance, everything in units of the common variance `torch.cat(codes).var((0, 2, 3), keepdim=True)`.


# %%
def my_matching(a, b):
    raise NotImplementedError


check(my_matching, lambda a, b: moment_matching([a, b]), (torch.randn(6, 8, 4, 4), 2 * torch.randn(6, 8, 4, 4) + 1))

# %% [markdown]
# ## 6 Live · 实时训练
#
# Training in the background: a curve, a preview, *Stop*. This one starts from the packaged base, which has seen many faces (lab 07). Nobody
# has to be here: without a click it ends by itself.

# %%
from fslab.widgets import TrainingPanel

shape, recipe = PRESETS["tiny"]
timed = replace(
    recipe, budget=budget("60s", "6s"), preview_every=3.0 if FAST else 15.0, measure_every=3.0 if FAST else 10.0
)
panel = TrainingPanel(people, WORK / "train" / "live", shape, timed, "ada and dan, from the base")
panel.start()

# %%
run = panel.wait()
print(judge_run(run).text)

# %% [markdown]
# The verdict looks at *swapped* held-out faces: are they the other person, do they do what the target does, are they sharp? The loss knows none
# of that.
#
# ## 7 Let a machine search · 自动调参
#
# Optuna proposes settings, trains each for the same time, gives up early on what falls behind, and says what mattered. Here three trials; a real
# search takes dozens: `fslab tune faces/ada faces/dan --out out/tune`.

# %%
from fslab.search import TuneConfig
from fslab.tune import search_settings

search = TuneConfig(trials=3, search="lr,batch")
found = search_settings(
    people, WORK / "train" / "tune", (model, replace(plain, steps=None, budget=budget("12s", "3s"))), search
)
for row in found.rows:
    print(row["number"], row["state"], row["settings"], None if row["value"] is None else round(row["value"], 3))

# %%
source_of(moment_matching)

# %% [markdown]
# ## Summary · 小结
#
# 1. Adam evens out gradients of very different size; SGD needs another rate for every network.
# 2. The learning rate is the setting that matters most, and a finder proposes it in a minute.
# 3. Overfitting is cured by more and more varied faces; penalties only hide it.
# 4. A low reconstruction loss is compatible with no swap at all: match the codes, and measure swaps.
# 5. Stop when swapped held-out faces stop getting better; then other footage helps more than time.
#
# **中文小结**
#
# 1. Adam 能平衡大小悬殊的梯度；SGD 对每个网络都要重新找学习率。
# 2. 学习率最重要，用查找器一分钟就能得到建议。
# 3. 治疗过拟合要靠更多、更多样的脸；惩罚项只是掩盖。
# 4. 重建损失很低也可能完全没有换脸：要匹配编码，并测量换脸本身。
# 5. 留出帧的换脸不再变好时就停；此后补素材比加时间更有用。
#
# ## Questions · 思考题
#
# 1. Why do presets of fslab average their weights (`ema`) for swapping?
# 2. Which of the figures in section 4 would a validation set have caught, and which would only a swap-side measure?
# 3. Set `match=20`. What does the encoder do, and what does the reconstruction look like?
#
# ## Further reading · 延伸阅读
#
# - Kingma & Ba (2015), *Adam*, [arXiv:1412.6980](https://arxiv.org/abs/1412.6980); Loshchilov & Hutter (2019), [arXiv:1711.05101](https://arxiv.org/abs/1711.05101)
# - Smith (2017), *Cyclical learning rates for training neural networks*, [arXiv:1506.01186](https://arxiv.org/abs/1506.01186)
# - Sun & Saenko (2016), *Deep CORAL*, [arXiv:1607.01719](https://arxiv.org/abs/1607.01719)
# - Akiba et al. (2019), *Optuna*, [arXiv:1907.10902](https://arxiv.org/abs/1907.10902)
#
# Next: [07 fine-tune](07_finetune.ipynb), what pretraining buys.
