# %% [markdown]
# # 07 Fine-tune · 微调
#
# **What does pretraining buy?**  预训练能带来什么？
#
# Minutes of training are short. What a network knows before it meets ada and dan decides what it can still learn about them. Two kinds of
# knowledge are on offer: encoders trained on photographs of everything (timm), and fslab's base, trained on faces to carry no identity.
#
# *Time: 8 minutes on a CPU. Reads: the packaged people, base and MobileNetV2. Writes: runs in `work/finetune`.*

# %%
import shutil
from dataclasses import replace

import torch

from fslab.base import Base, start_from_base
from fslab.dataset import FaceDataset
from fslab.encoders import probe_encoder
from fslab.labs import WORK, budget, check, faces_of, show_swap, source_of

# %%
from fslab.model import PRESETS, SwapAutoencoder
from fslab.optimise import build_optimizer
from fslab.preview import preview_rows
from fslab.schedule import TrainConfig
from fslab.train import train
from fslab.verdict import read_log
from fslab.viz import image_grid
from fslab.widgets.warps import to_uint8

# %%
people = [faces_of("ada"), faces_of("dan")]
shape, recipe = PRESETS["tiny"]
shutil.rmtree(WORK / "finetune", ignore_errors=True)

# %% [markdown]
# ## 1 An encoder that has seen photographs · 看过照片的编码器
#
# A timm backbone is cut where its map has stride 8 or 16, and a 1 × 1 convolution turns it into fslab's code. `probe_encoder` finds the
# place by running it.
#
# **Predict.** Trained to name 1,000 kinds of things: does such a network keep where the corners of a mouth are?

# %%
for name in ("mobilenetv2_100", "resnet18", "convnext_atto"):
    print(name, probe_encoder(name, 128))

# %% [markdown]
# ## 2 Frozen, last stage, all · 冻结、最后阶段、全部
#
# Fine-tuning has a dial: which layers learn, and how fast. *Layer-wise* rates let early layers, which hold edges and colours, move less than
# late ones: stage $k$ from the end learns at $\eta\,d^k$ (Howard & Ruder, 2018).
#
# **Predict.** Seconds are equal. Which wins: the fewer parameters of *frozen* (more steps), or the freedom of *all*?

# %%
backbone = replace(shape, encoder="timm:mobilenetv2_100")
plain = TrainConfig(budget=budget("40s", "4s"), base="none", measure_every=1e9, save_every=1e9)
rows, scores = {}, {}


def my_score(run):
    found = [row["score"] for row in read_log(run.folder) if "score" in row]
    return found[-1] if found else float("nan")


# %%
for how in ("frozen", "last", "full"):
    run = train(people, WORK / "finetune" / how, backbone, replace(plain, encoder_train=how))
    learning = sum(
        p.numel()
        for g in build_optimizer(run.model.requires_grad_(True), run.train_config, "packaged").param_groups
        for p in g["params"]
    )
    scores[how] = my_score(run)
    rows[f"timm, {how}"] = preview_rows(run, people, 5)["ada as dan"]
    print(f"{how:>7}: {run.step:>4} steps, {learning / 1e6:.1f} million numbers learn, score {scores[how]:.2f}")

# %% [markdown]
# ## 3 A base that has seen faces · 看过人脸的基础模型
#
# The base was trained on rendered people who do the same thing in the same light, eight at a time. Its task: draw person $j$ from a picture of
# person $i$. What tells them apart must come from a vector $v_j$ of 64 numbers, so the code learns to carry none of it. Training on ada and dan
# begins by fitting their two vectors, everything else held still, and then works each into a decoder of its own.
#
# **Predict.** After the vectors alone, a few seconds, what does ada as dan look like?

# %%
base = Base.load("tiny")
data = [FaceDataset.from_faceset(f, shape.size) for f in people]
from fslab.base import fit_vectors

vectors = fit_vectors(
    base.model, [lambda n, g, d=d: d.batch(n, g, 0.0) for d in data], recipe.losses, torch.Generator().manual_seed(0)
)

# %%
print(
    "vectors",
    tuple(vectors.shape),
    f"distance {torch.dist(*vectors):.2f}, typical {torch.pdist(base.model.people).mean():.2f}",
)
fresh = SwapAutoencoder(shape, ["ada", "dan"]).eval()
start_from_base(fresh, base.model, vectors)

# %%
with torch.inference_mode():
    faces = data[0].held_out(5).input
    drawn = [faces, fresh(faces, "ada")[0], fresh(faces, "dan")[0]]
show_swap(
    image_grid(
        [to_uint8(d) for d in drawn], ["ada", "as ada", "as dan"], cell=128, foot="vectors fitted, nothing trained"
    ),
    "after fitting two vectors",
)

# %% [markdown]
# Between two people lies a line. Walk it:

# %%
steps = torch.linspace(0, 1, 7)[:, None]
with torch.inference_mode():
    z = base.model.encode(faces[2:3]).repeat(7, 1, 1, 1)
    walk, _ = base.model.draw(z, (1 - steps) * vectors[:1] + steps * vectors[1:])
show_swap(image_grid([to_uint8(walk)], ["ada to dan"], cell=128, foot="one code, seven vectors"), "from ada to dan")

# %% [markdown]
# ### Exercise 1 · 练习 1
#
# Mix two vectors: `share` 0 is ada, 1 is dan.


# %%
def my_mix(a, b, share):
    raise NotImplementedError


check(my_mix, torch.lerp, (vectors[0], vectors[1], 0.25), (vectors[0], vectors[1], 0.0))

# %% [markdown]
# ## 4 Against scratch · 与从零开始对比
#
# The same seconds, the same network: from the base, and from random weights.

# %%
for name, how in {"base": recipe, "scratch": replace(recipe, base="none", encoder_train="full", lr=5e-4)}.items():
    timed = replace(how, budget=budget("40s", "4s"), measure_every=1e9, save_every=1e9)
    run = train(people, WORK / "finetune" / name, shape, timed)
    scores[name] = my_score(run)
    rows[name] = preview_rows(run, people, 5)["ada as dan"]
print({k: round(v, 2) for k, v in scores.items()})
show_swap(
    image_grid(list(rows.values()), list(rows), cell=128, foot="ada as dan, equal seconds"), "timm, base and scratch"
)

# %% [markdown]
# **The failure case.** Watch the curve of swapped faces while the base's decoder is trained on: redrawing gets better all the time, but what
# dan's footage never shows (a look to the left, say) is slowly forgotten, and the swap begins to follow less. That is why fslab keeps the
# weights that *swapped* best, and freezes the base's encoder.
#
# ## 5 The table · 对比表
#
# `fslab bench encoders` trains a dozen encoders for equal seconds on a rendered case and measures them against exact truth; its table is in
# the repository, `docs/encoders.md`. In small, here: what each costs.

# %%
x = torch.rand(8, 3, shape.size, shape.size)
names, cost = ("fakeapp", "small", "timm:mobilenetv2_100", "timm:resnet18"), []
for name in names:
    net = SwapAutoencoder(replace(shape, encoder=name, pretrained=False), ["ada", "dan"]).encoder.eval()
    with torch.inference_mode(), torch.profiler.profile(with_flops=True) as seen:
        net(x)
    flops = sum(e.flops for e in seen.key_averages()) / 8e9
    cost.append((sum(p.numel() for p in net.parameters()) / 1e6, flops))
    print(f"{name:>22}: {cost[-1][0]:.1f} million parameters, {flops:.2f} GFLOP a face")

# %% [markdown]
# ### Exercise 2 · 练习 2
#
# Layer-wise rates: for `n` stages, the last learns at `lr`, each one before it at `decay` times the next. First stage first.


# %%
def my_rates(n, lr, decay):
    raise NotImplementedError


check(my_rates, lambda n, lr, decay: [lr * decay ** (n - 1 - k) for k in range(n)], (4, 1e-3, 0.75), (1, 0.1, 0.5))

# %%
source_of(fit_vectors)

# %% [markdown]
# ## Summary · 小结
#
# 1. A backbone trained on photographs sees edges and parts at once; it was never asked to forget who somebody is.
# 2. Frozen is fast and safe, the last stage a good middle, all of it needs time.
# 3. A base supervised by truth carries no identity in its code: swaps work from the first seconds.
# 4. Identity fits into 64 numbers, well enough to recognise; the rest is worked into a decoder.
# 5. Fine-tuning forgets what the footage does not show.
#
# **中文小结**
#
# 1. 用照片训练的主干一上来就能看到边缘和部件，但从没被要求忘掉身份。
# 2. 冻结快而稳，只训练最后阶段是折中，全部训练需要时间。
# 3. 以真值监督的基础模型，编码中不含身份：几秒后就能换脸。
# 4. 身份可以放进 64 个数里，足以认出；其余细节写进各自的解码器。
# 5. 微调会忘掉素材里没有的东西。
#
# ## Questions · 思考题
#
# 1. What would a base trained on two people only be worth?
# 2. Walk beyond dan: shares above 1. What is exaggerated?
# 3. Which encoder would you take for a minute on a laptop, and which for a day on a GPU?
#
# ## Further reading · 延伸阅读
#
# - Howard & Ruder (2018), *Universal language model fine-tuning*, [arXiv:1801.06146](https://arxiv.org/abs/1801.06146)
# - Karras et al. (2019), *A style-based generator architecture*, [arXiv:1812.04948](https://arxiv.org/abs/1812.04948)
# - Wightman, *PyTorch image models*, <https://github.com/huggingface/pytorch-image-models>
#
# Next: [08 swap](08_swap.ipynb), where seams come from.
