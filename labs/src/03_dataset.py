# %% [markdown]
# # 03 Dataset · 数据集
#
# **Why is the input warped and the target not?**  为什么输入要扭曲，而目标不扭曲？
#
# Training shows the network a face and asks for the same face back. If that were all, it could learn to copy. So the input is spoiled in
# ways that the answer must undo, and both are varied in ways that the answer must follow. Which is which is the whole art.
#
# *Time: 4 minutes on a CPU. Reads: the packaged clip of ada and dan. Writes: face sets in `work/faces`.*

# %%
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from fslab.augment import Poses, affine_grid, warp_field
from fslab.dataset import DataConfig, FaceDataset, split_by_time
from fslab.labs import check, faces_of, show, source_of

# %%
from fslab.viz import image_grid
from fslab.widgets.warps import to_uint8

ada = faces_of("ada")
faces = FaceDataset.from_faceset(ada, 128)
print(f"{len(ada.kept)} kept faces, {len(faces)} to train on")

# %% [markdown]
# ## 1 Ranges · 取值范围
#
# Inside the program a batch is `float32` in $[0, 1]$. The classic network works in that range, with a sigmoid at its end; fslab's own work
# in $[-1, 1]$, $x' = 2x - 1$, with a tanh: the inputs have mean near zero, so the first layer's gradients do not all point the same way
# (LeCun et al., 1998, *Efficient BackProp*, section 4.3).
#
# **Predict.** A sigmoid saturates: its slope at output $y$ is $y(1 - y)$. For which pixels does learning crawl?

# %%
batch = faces.held_out(4)
y = torch.tensor([0.01, 0.1, 0.5, 0.9, 0.99])
print("slope of a sigmoid at", y.tolist(), "is", (y * (1 - y)).numpy().round(3).tolist())
print("held-out batch:", tuple(batch.input.shape), f"in [{batch.input.min():.2f}, {batch.input.max():.2f}]")

# %% [markdown]
# Nearly black and nearly white pixels learn slowest: pupils, nostrils, highlights in the eyes. The very ones that people look at.
#
# ## 2 What both get · 输入和目标都变
#
# Crops, rotations, flips and light are applied to input and target *alike*: the network learns to follow them. A swap has to follow the
# target's pose and light, so these variations are pure gain: more poses and more light than the footage had.
#
# **Predict.** Mirroring doubles the data. What could it spoil? Think of a mole, or a side parting.

# %%
plain = replace(DataConfig(), warp=0, colour=0)
wild = replace(plain, rotation=20, scale=0.15, shift=0.05, flip=0.5, light=0.5)
faces.config = wild
varied = faces.batch(6, torch.Generator().manual_seed(3))
show(
    image_grid([to_uint8(varied.input), to_uint8(varied.target)], ["input", "target"], cell=120),
    "the same change to both",
)

# %% [markdown]
# A mirrored face has its mole on the wrong side. fslab mirrors two faces in five: enough for the poses, rare enough for the mole.
#
# ## 3 What the input alone gets · 只有输入变
#
# The *random warp* moves each point $p$ of the input by a smooth random field, $\text{in}(p) = \text{face}(p + u(p))$, and asks for the face
# unwarped. The decoder of ada then learns: whatever slightly wrong shape comes in, draw ada's true shape. That is exactly its job in a
# swap, where the shape that comes in is another person's. Without it, the network copies proportions, and the swap looks like the target
# in make-up.
#
# **Predict.** How large should the warp be? What goes wrong if it is much too large?

# %%
rows, names = [], []
for sigma in (0.0, 0.018, 0.06):
    faces.config = replace(plain, warp=sigma)
    rows.append(to_uint8(faces.batch(6, torch.Generator().manual_seed(1)).input))
    names.append(f"warp {sigma:g}")
rows.append(to_uint8(faces.batch(6, torch.Generator().manual_seed(1)).target))
show(image_grid(rows, [*names, "target"], cell=120), "inputs with a growing warp, and their target")

# %% [markdown]
# **The failure case.** At 0.06 expressions are no longer what they were: a closed mouth may come in open. The network is asked to undo what
# nobody could know, so it answers with the average, and the swap stops following the target's mouth. fslab starts at 0.018 of the crop's
# side and fades the warp out towards the end of training.
#
# ### Try it · 动手试试

# %%
from fslab.widgets import warp_explorer

faces.config = DataConfig()
warp_explorer(faces)

# %% [markdown]
# ### Exercise 1 · 练习 1
#
# Bend pictures by a field of displacements. `F.grid_sample` reads a picture at given points; the points of the unbent picture are
# `F.affine_grid(identity, images.shape, align_corners=False)` with `identity` the `(n, 2, 3)` matrices `1 0 0 / 0 1 0`. Use
# `padding_mode="border"` and `align_corners=False`.


# %%
def my_bend(images, field):
    raise NotImplementedError


straight = affine_grid(4, 128, Poses(0, 0, 0, 0), torch.Generator())
field = warp_field(4, 128, 0.03, torch.Generator().manual_seed(0))
check(
    my_bend,
    lambda x, u: F.grid_sample(x, straight + u, padding_mode="border", align_corners=False),
    (batch.input, field),
)

# %%
source_of(warp_field)

# %% [markdown]
# ## 4 Split by time · 按时间划分
#
# To know whether anything was learnt, some faces must never be trained on. **Predict.** Neighbouring frames are almost the same picture.
# What does a random tenth of them measure?

# %%
thumbs = np.stack([c.mean(axis=2) for c in ada.crops(24)])
order = np.arange(len(thumbs))
rng = np.random.default_rng(0)
random = np.sort(rng.permutation(order)[: len(order) // 10])
times = np.array([r.time for r in ada.kept])
train, held = split_by_time(times, 0.1, 0.4)


# %%
def my_distance(train, held):
    return np.mean([np.abs(thumbs[train] - thumbs[i]).mean(axis=(1, 2)).min() for i in held])


print("nearest training face, random split:", my_distance(np.setdiff1d(order, random), random).round(2), "levels")
print("nearest training face, split by time:", my_distance(train, held).round(2), "levels")

# %% [markdown]
# With a random split the test faces have twins in the training set: it measures memory. fslab holds out the end of the footage, and leaves a
# gap of 0.4 seconds before it.
#
# ### Exercise 2 · 练习 2
#
# Write the split: the last `held_out` share is held out; of the others, those less than `gap` seconds before it are dropped (but never more
# than a quarter of all). Return both index arrays, joined.


# %%
def my_split(times, held_out, gap):
    raise NotImplementedError


check(my_split, lambda *a: np.concatenate(split_by_time(*a)), (np.arange(100) / 25, 0.1, 0.4), (times, 0.2, 0.1))

# %% [markdown]
# ## 5 Which pixels count · 哪些像素重要
#
# The mesh gives each pixel a weight: background 0.05, face 1, mouth 2, eyes 3. Eyes are a hundredth of the picture and half of the
# impression.

# %%
weights = batch.weight[:, 0] / batch.weight.max()
show(
    image_grid(
        [to_uint8(batch.target), [(w * 255).byte().numpy()[:, :, None].repeat(3, 2) for w in weights]],
        ["target", "weight"],
        cell=140,
    ),
    "weights",
)

# %% [markdown]
# ## 6 The data doctor · 数据体检
#
# More time does not help where the footage lacks something: if dan never looks up, nobody can know him from below. The doctor compares both
# people before training, and says what to film.

# %%
from fslab.data_doctor import examine
from fslab.viz import doctor_card

diagnosis = examine([ada, faces_of("dan")])
show(doctor_card(diagnosis), "what the two face sets show and lack", 900)

# %% [markdown]
# ## Summary · 小结
#
# 1. What a swap must follow (pose, light) is changed in input and target alike.
# 2. What a swap must undo (a foreign shape, tint, blur) is changed in the input alone.
# 3. Too much warp asks for the unknowable and is answered with the average.
# 4. Held-out faces come from another time, or they measure memory.
# 5. Coverage is bought with the camera, not with training time.
#
# **中文小结**
#
# 1. 换脸需要跟随的变化（姿态、光照），输入和目标一起变。
# 2. 换脸需要消除的变化（别人的脸形、色偏、模糊），只加在输入上。
# 3. 扭曲过大等于要求网络猜不可知之事，它只能给出平均脸。
# 4. 留出的测试帧必须来自另一段时间，否则测的是记忆。
# 5. 覆盖范围要靠拍摄，而不是训练时间。
#
# ## Questions · 思考题
#
# 1. Should blur and JPEG artefacts go into the input, the target, or both?
# 2. What would happen if the light were changed in the input alone?
# 3. Set `flip` to 1 in the explorer's dataset: what does the network see of the left cheek?
#
# ## Further reading · 延伸阅读
#
# - LeCun, Bottou, Orr & Müller (1998), *Efficient BackProp*
# - Jaderberg et al. (2015), *Spatial transformer networks*, [arXiv:1506.02025](https://arxiv.org/abs/1506.02025)
# - Perov et al. (2020), *DeepFaceLab*, [arXiv:2005.05535](https://arxiv.org/abs/2005.05535), section 3
#
# Next: [04 model](04_model.ipynb), one encoder and several decoders.
