# %% [markdown]
# # 10 Evaluate · 评估
#
# **Is it the right person, the right expression, a good picture?**  人对吗？表情对吗？画面好吗？
#
# Nobody knows what a perfect swap of two real people looks like. Of rendered people everybody can know: render the target's head with the
# source's face. Against such a truth you test the measures themselves: which tell a swap from a blur, and which can be fooled.
#
# *Time: 3 minutes on a CPU. Reads: the packaged run, clips and truth. Writes: a swapped clip in `work/evaluate`.*

# %%
import cv2
import matplotlib.pyplot as plt
import numpy as np

from fslab.embedder import Embedder
from fslab.evaluate import EvalConfig, References, evaluate_videos
from fslab.faces import find_faces
from fslab.labs import FAST, WORK, check, faces_of, packaged_run, read_clip, show_swap, source_of
from fslab.measures import closure, leak, polygon_mask, psnr, sharpness_ratio, ssim

# %%
from fslab.media import RgbFrame
from fslab.mesh import outline
from fslab.metrics import METRICS
from fslab.samples import sample_path
from fslab.swap import Swapper
from fslab.traits import identity_distance
from fslab.video import swap_video
from fslab.viz import image_grid

# %%
run, out = packaged_run(), WORK / "evaluate" / "out.mp4"
out.parent.mkdir(parents=True, exist_ok=True)
if not out.exists():
    swap_video(Swapper(run, "dan"), sample_path("ada_target.mp4"), out, replace="ada")
from fslab.media import read_frames

swaps = [f.rgb() for f in read_frames(out)]
target, truth = (read_clip(f"{name}.mp4", 75) for name in ("ada_target", "ada_as_dan_truth"))
at = 30

# %%
show_swap(
    image_grid([[target[at], swaps[at], truth[at]]], (), ["target", "swap", "truth"], cell=280, foot="the same moment"),
    "target, swap, truth",
)

# %% [markdown]
# ## 1 Against the truth · 与真值比较
#
# With $t$ the untouched target, $s$ the swap, $g$ the truth, sums over the face's pixels:
#
# $$\text{closure} = 1 - \frac{\sum (s - g)^2}{\sum (t - g)^2}, \qquad
# \text{leak} = \frac{\sum (s - g)(t - g)}{\sum (t - g)^2}$$
#
# Closure: how much of the way is gone. Leak: how much of what sets ada apart is still there.
#
# **Predict.** What do closure and leak say of: the untouched target? a grey disc? half target, half truth?

# %%
face = find_faces(RgbFrame(target[at]))[0]
mask = polygon_mask(outline(face.mesh)[:, :2], target[at].shape[:2]).astype(np.float32)
g, t = truth[at], target[at]
grey = np.where(mask[..., None] > 0.5, t[mask > 0.5].mean(0), t).astype(np.uint8)

# %%
candidates = {
    "target": t,
    "swap": swaps[at],
    "grey disc": grey,
    "half way": ((t.astype(int) + g) // 2).astype(np.uint8),
    "blurred truth": cv2.GaussianBlur(g, (0, 0), 4),
    "truth": g,
}

# %%
for name, s in candidates.items():
    print(
        f"{name:>14}: closure {closure(s, t, g, mask):+.2f}  leak {leak(s, t, g, mask):+.2f}  PSNR {psnr(s, g, mask):5.1f}  SSIM {ssim(s, g, mask):.2f}  sharpness {sharpness_ratio(s, g, mask):.2f}"
    )

# %% [markdown]
# ### Exercise 1 · 练习 1


# %%
def my_closure(s, t, g, mask):
    raise NotImplementedError


check(my_closure, closure, (swaps[at], t, g, mask), (grey, t, g, mask))

# %% [markdown]
# ## 2 Why reconstruction lies · 为什么重建误差会骗人
#
# A network is trained to redraw ada as ada. **Predict.** A network that always returns its input: what is its reconstruction loss, and what is
# its closure?
#
# Zero, and zero: it redraws perfectly and swaps nothing. Below, the blurred truth has a higher closure than many an honest swap: a squared error
# prefers a blur in the right place to an edge one pixel off. One number never suffices.

# %%
figure, axes = plt.subplots(figsize=(6, 2.8))
sigmas = np.linspace(0.5, 12, 12)
blurs = [cv2.GaussianBlur(g, (0, 0), float(s)) for s in sigmas]
axes.plot(sigmas, [closure(b, t, g, mask) for b in blurs], label="closure of the blurred truth")
axes.plot(sigmas, [sharpness_ratio(b, g, mask) for b in blurs], label="sharpness")
axes.axhline(closure(swaps[at], t, g, mask), color="grey", linestyle=":", label="closure of the swap")
axes.set(xlabel="blur, px")
axes.legend()

# %% [markdown]
# ## 3 Whose face is it? · 是谁的脸？
#
# A face recogniser maps a face to 128 numbers; faces of one person lie near each other. $d(a, b) = \lVert e(a) - e(b) \rVert$; below 0.6 it is
# usually the same person (dlib).
#
# **Predict.** Is the *truth* nearer to ada or to dan? It has ada's head and hair.

# %%
embedder = Embedder()
means = {name: faces_of(name).embedding() for name in ("ada", "dan")}
for name, clip in (("target", target), ("swap", swaps), ("truth", truth)):
    vectors = [embedder.embed(RgbFrame(clip[i]), find_faces(RgbFrame(clip[i]))[:1])[0] for i in range(0, 75, 25)]
    print(
        f"{name:>7}: to ada {np.mean([identity_distance(v, means['ada']) for v in vectors]):.2f}, to dan {np.mean([identity_distance(v, means['dan']) for v in vectors]):.2f}"
    )

# %% [markdown]
# ### Exercise 2 · 练习 2
#
# The identity gap closed: of the distance between target and truth, which share is gone? For embeddings `s`, `t`, `g`:
# $1 - \lVert s - g\rVert / \lVert t - g\rVert$.


# %%
def my_gap_closed(s, t, g):
    raise NotImplementedError


vectors = np.random.default_rng(0).normal(size=(3, 128))
check(
    my_gap_closed,
    lambda s, t, g: 1 - np.linalg.norm(s - g) / np.linalg.norm(t - g),
    tuple(vectors),
    (vectors[1], vectors[1], vectors[2]),
)

# %% [markdown]
# ## 4 Fool a metric on purpose · 故意骗过指标
#
# **The failure case.** Change a picture until the recogniser believes it is dan: follow the gradient of the identity loss over the pixels, a
# few grey levels at most. To the eye nothing happens.

# %%
import torch

from fslab.geometry import align_matrix, crop_from_frame
from fslab.losses import IdentityLoss

crop = crop_from_frame(RgbFrame(t), align_matrix(face.landmarks, 160, 0.64), 160)
wanted = faces_of("dan")
other = wanted.crops(160, wanted.kept[:1])[0]
x0, y = (torch.from_numpy(p.copy()).permute(2, 0, 1)[None].float() / 255 for p in (crop, other))

# %%
loss, ones = IdentityLoss(0.64), torch.ones(1, 1, 160, 160)
delta = torch.zeros_like(x0, requires_grad=True)
for _ in range(6 if FAST else 25):
    (slope,) = torch.autograd.grad(loss(x0 + delta, y, ones), delta)
    delta = (delta - 0.004 * slope.sign()).clamp(-0.03, 0.03).detach().requires_grad_(True)
print(
    f"distance to dan: {float(loss(x0, y, ones)) ** 0.5:.2f} before, {float(loss(x0 + delta, y, ones)) ** 0.5:.2f} after; largest change {255 * float(delta.abs().max()):.0f} levels"
)
fooled = ((x0 + delta).clamp(0, 1)[0].permute(1, 2, 0).detach().numpy() * 255).astype(np.uint8)

# %%
show_swap(
    image_grid(
        [[crop, fooled, other]], (), ["ada", "ada, 'dan' to the metric", "dan"], cell=200, foot="an adversarial example"
    ),
    "a fooled recogniser",
)

# %% [markdown]
# So a swap must never be judged by the network it was trained against; and a good identity score without a look at the picture proves nothing.
#
# ## 5 A whole report · 完整报告
#
# `evaluate_videos` takes all of it over the clip, with what can be told without a truth: pose, mouth and eyes against the target, flicker,
# distance to both people.

# %%
references = References(source=means["dan"])
report = evaluate_videos(
    out, sample_path("ada_target.mp4"), sample_path("ada_as_dan_truth.mp4"), references, EvalConfig(embed_every=25)
)
for name, value in report.metrics.items():
    if value is not None:
        print(
            f"{METRICS[name].title:>24}: {METRICS[name].text(value):>7} {METRICS[name].unit:<12} {METRICS[name].better}"
        )

# %%
source_of(closure)

# %% [markdown]
# ## Summary · 小结
#
# 1. Exact truth exists for rendered people: use it to test the measures, then trust them a little on real ones.
# 2. Closure and leak together tell a swap from a blend and from a blur with sharpness beside them.
# 3. Reconstruction says nothing about swapping.
# 4. Identity is measured by networks, and networks can be fooled.
# 5. Person, expression, picture, steadiness: four questions, four kinds of answers. And your eyes.
#
# **中文小结**
#
# 1. 渲染人物有精确真值：先用它检验指标，再谨慎地用于真人。
# 2. 还原度、残留加上清晰度，才能区分换脸、混合与模糊。
# 3. 重建误差不能说明换脸效果。
# 4. 身份由网络判断，而网络可以被骗。
# 5. 人、表情、画面、稳定性：四个问题，四类答案，再加上你的眼睛。
#
# ## Questions · 思考题
#
# 1. Construct a clip with closure 0.5 and leak 0.5. What do you see?
# 2. Which measure would notice that every second frame was not swapped?
# 3. What would you show a viewer who cannot read numbers?
#
# ## Further reading · 延伸阅读
#
# - Wang et al. (2004), *Image quality assessment*, IEEE TIP 13(4)
# - Szegedy et al. (2014), *Intriguing properties of neural networks*, [arXiv:1312.6199](https://arxiv.org/abs/1312.6199)
# - Rössler et al. (2019), *FaceForensics++*, [arXiv:1901.08971](https://arxiv.org/abs/1901.08971)
#
# Next: [11 provenance](11_provenance.ipynb), who agreed and how a viewer can tell.
