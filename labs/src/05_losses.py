# %% [markdown]
# # 05 Losses · 损失函数
#
# **What does each loss reward?**  每种损失奖励什么？
#
# A network becomes what its loss pays for. You look at six losses through their gradients, which are the instructions that the network
# gets, and then train the same small network with each.
#
# *Time: 6 minutes on a CPU. Reads: the packaged people, the packaged base. Writes: runs in `work/losses`.*

# %%
import shutil
from dataclasses import replace

import cv2
import torch

from fslab.dataset import FaceDataset
from fslab.labs import WORK, budget, check, faces_of, show, show_swap, source_of
from fslab.losses import IdentityLoss, LossConfig, PatchCritic, PerceptualLoss, critic_loss, dssim_loss, gradient_loss

# %%
from fslab.losses import l1_loss, mse_loss, ssim_map
from fslab.model import PRESETS
from fslab.preview import preview_rows
from fslab.train import train
from fslab.viz import image_grid
from fslab.widgets.warps import to_uint8

people = [faces_of("ada"), faces_of("dan")]
batch = FaceDataset.from_faceset(people[0], 128).held_out(1)
truth, ones = batch.target, torch.ones_like(batch.mask)

# %% [markdown]
# ## 1 The formulas · 公式
#
# $x$ is what was drawn, $y$ what was wanted, $n$ the number of values.
#
# | loss | formula | rewards |
# |---|---|---|
# | L1 | $\frac1n\sum\lvert x - y\rvert$ | the median of what a pixel may be |
# | MSE | $\frac1n\sum (x - y)^2$ | the mean: blur, where unsure |
# | DSSIM | $\frac{1 - \text{SSIM}(x, y)}{2}$ | local contrast and structure (Wang et al., 2004) |
# | gradient | $\frac1n\sum\lvert\nabla x - \nabla y\rvert$ | edges in their place |
# | perceptual | $\sum_l \lVert \hat\phi_l(x) - \hat\phi_l(y)\rVert^2$ | what a trained CNN calls alike (Zhang et al., 2018) |
# | identity | $\lVert e(x) - e(y)\rVert^2$ | the right person, for a face recogniser |
# | adversarial | $-D(x)$, with $D$ trained to tell | looking real, wherever that is |
#
# $$\text{SSIM}(x, y) = \frac{(2\mu_x\mu_y + c_1)(2\sigma_{xy} + c_2)}{(\mu_x^2 + \mu_y^2 + c_1)(\sigma_x^2 + \sigma_y^2 + c_2)}$$
#
# **Predict.** A pixel is black in half of the possible answers and white in the others. What does MSE make of it? And L1, if black is a
# little likelier?

# %%
answers = torch.tensor([0.0] * 6 + [1.0] * 5)
guess = torch.linspace(0, 1, 101)[:, None]
print("MSE is content with", float(guess[((guess - answers) ** 2).mean(1).argmin()]))
print("L1 is content with ", float(guess[(guess - answers).abs().mean(1).argmin()]))

# %% [markdown]
# ## 2 Two faults, seven verdicts · 两种错误，七种评判
#
# The same face with two faults: shifted by two pixels, and blurred. **Predict.** Which losses mind the blur more than the shift?

# %%
faults = {
    "shifted": torch.roll(truth, 2, 3),
    "blurred": torch.from_numpy(cv2.GaussianBlur(to_uint8(truth)[0], (0, 0), 2)).permute(2, 0, 1)[None] / 255,
}
perceptual, identity = PerceptualLoss(), IdentityLoss(people[0].coverage)

# %%
losses = {
    "L1": l1_loss,
    "MSE": mse_loss,
    "DSSIM": dssim_loss,
    "gradient": gradient_loss,
    "perceptual": perceptual,
    "identity": lambda x, y, w: identity(x, y, batch.mask),
}

# %%
for name, loss in losses.items():
    found = {k: float(loss(x, truth, ones)) for k, x in faults.items()}
    print(
        f"{name:>10}: shifted {found['shifted']:.4f}, blurred {found['blurred']:.4f}, ratio {found['blurred'] / found['shifted']:.2f}"
    )

# %% [markdown]
# Pixel losses mind a small shift far more than blur: blurring is the cheapest answer where a network is unsure by a pixel or two. Structure,
# edges and features see the blur.
#
# ## 3 What the network is told · 网络收到的指令
#
# The gradient $\partial L/\partial x$ says, for each pixel, which way to change. Grey: nothing to do.

# %%
blurred, rows = faults["blurred"], []
for loss in losses.values():
    x = blurred.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(loss(x, truth, ones), x)
    slope = slope[0].mean(0) / slope.abs().amax().clamp_min(1e-12)
    rows.append((128 - 320 * slope).clamp(0, 255).byte().numpy()[:, :, None].repeat(3, 2))
show(
    image_grid([[to_uint8(blurred)[0], *rows]], (), ["blurred", *losses], cell=128),
    "what each loss tells a blurred face",
)

# %% [markdown]
# L1 shouts at every pixel alike, MSE where the error is large, DSSIM where contrast is missing, the identity loss in patterns that no person
# would draw: it knows what a recogniser likes, not what a face looks like.
#
# ### Exercise 1 · 练习 1
#
# Write DSSIM from `ssim_map(x, y, 7)`: grey pictures (mean over the channels), $(1 - \text{SSIM})/2$, then the mean weighted by `weight`,
# cut by 3 pixels on each side as the map is.


# %%
def my_dssim(x, y, weight):
    raise NotImplementedError


check(my_dssim, dssim_loss, (blurred, truth, ones), (faults["shifted"], truth, batch.weight))

# %% [markdown]
# ## 4 A critic · 判别器
#
# The adversarial loss is a second network that learns to tell drawn patches from real ones (Goodfellow et al., 2014). fslab's is small, looks
# at patches (Isola et al., 2017), and cannot get steep: each layer is divided by its largest singular value (Miyato et al., 2018). Its
# loss is the hinge $\max(0, 1 - D(y)) + \max(0, 1 + D(x))$.
#
# **Predict.** Before it has learnt anything it scores everything near 0. What is its loss then?

# %%
torch.manual_seed(0)
critic = PatchCritic()
optimizer = torch.optim.AdamW(critic.parameters(), 2e-3)
history = []
for _ in range(40):
    loss = critic_loss(critic(truth), critic(blurred))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    history.append(loss.item())
print(f"the critic's loss: {history[0]:.2f} at first, {history[-1]:.2f} after 40 steps on one pair")

# %% [markdown]
# **The failure case.** The same critic, asked about a *sharpened* blur with edges in the wrong places, is content: it judges looks, not truth.
# Adversarial losses make a soft swap crisp, and may invent pores and lashes that nobody has. That is why fslab's comes late, weak, and off
# by default.

# %%
sharp = (
    faults["shifted"] * 1.6
    - 0.6 * torch.from_numpy(cv2.GaussianBlur(to_uint8(faults["shifted"])[0], (0, 0), 2)).permute(2, 0, 1)[None] / 255
).clamp(0, 1)
for name, x in (("truth", truth), ("blurred", blurred), ("wrong but sharp", sharp)):
    print(f"{name:>16}: critic {critic(x).mean():+.2f}, L1 {l1_loss(x, truth, ones):.3f}")

# %% [markdown]
# ### Exercise 2 · 练习 2


# %%
def my_hinge(real, drawn):
    raise NotImplementedError


check(my_hinge, critic_loss, (torch.randn(2, 1, 8, 8), torch.randn(2, 1, 8, 8)))

# %% [markdown]
# ## 5 The same network, five losses · 同一网络，五种损失
#
# From the packaged base, the same seconds each. Below: ada's held-out face, as dan.

# %%
model, config = PRESETS["tiny"]
none = {"l1": 0.0, "dssim": 0.0, "gradient": 0.0}
recipes = {
    "MSE": LossConfig(**none | {"mse": 1.0}),
    "L1": LossConfig(**none | {"l1": 1.0}),
    "L1 + DSSIM": LossConfig(gradient=0.0),
    "fslab's": LossConfig(),
    "with perceptual": LossConfig(perceptual=0.03),
}

# %%
shutil.rmtree(WORK / "losses", ignore_errors=True)
rows = {}
for name, recipe in recipes.items():
    timed = replace(config, losses=recipe, budget=budget("40s", "3s"), measure_every=1e9)
    run = train(people, WORK / "losses" / name.replace(" ", "-"), model, timed)
    rows[name] = preview_rows(run, people, 5)["ada as dan"]
    print(f"{name}: {run.step} steps")

# %%
sheet = image_grid(list(rows.values()), list(rows), cell=128, foot="ada as dan, rendered people")
show_swap(sheet, "the same network with five losses")

# %% [markdown]
# Look at the eyes and the line between the lips. MSE is softest. Structure and edges bring contrast back. The table of all parts, measured
# against exact truth, is `docs/losses.md` in the repository; make your own with `fslab bench losses`.

# %%
source_of(ssim_map)

# %% [markdown]
# ## Summary · 小结
#
# 1. Where a network is unsure, MSE draws the mean and L1 the median: blur.
# 2. Pixel losses forgive blur and punish small shifts; structure and feature losses do the opposite.
# 3. A loss is best understood by its gradient: it is all that the network hears.
# 4. A critic makes pictures look real, not true.
# 5. A network that judges must not be the one trained against (lab 10).
#
# **中文小结**
#
# 1. 不确定时 MSE 画平均值、L1 画中位数：结果都是模糊。
# 2. 像素损失容忍模糊、惩罚微小位移；结构与特征损失相反。
# 3. 理解损失最好的办法是看它的梯度：那是网络听到的全部。
# 4. 判别器让图像看起来真实，而不是正确。
# 5. 用来评判的网络不能是训练时对抗的那个（见实验 10）。
#
# ## Questions · 思考题
#
# 1. What does the perceptual loss say about a face whose colours are wrong but whose edges are right? Try it.
# 2. Why is the mask learnt with cross-entropy and not with L1?
# 3. Set `adversarial=0.02` and `adversarial_from=0.5` in the last experiment. What changes, and when?
#
# ## Further reading · 延伸阅读
#
# - Wang et al. (2004), *Image quality assessment: from error visibility to structural similarity*, IEEE TIP 13(4)
# - Zhao et al. (2017), *Loss functions for image restoration with neural networks*, IEEE TCI 3(1)
# - Zhang et al. (2018), *The unreasonable effectiveness of deep features as a perceptual metric*, [arXiv:1801.03924](https://arxiv.org/abs/1801.03924)
# - Miyato et al. (2018), *Spectral normalization for GANs*, [arXiv:1802.05957](https://arxiv.org/abs/1802.05957)
#
# Next: [06 train](06_train.ipynb), when it has learned, and how we know.
