# %% [markdown]
# # 09 Video · 视频
#
# **Why does it flicker?**  为什么会闪烁？
#
# A clip is not a pile of pictures. Between two frames nothing should change that did not change in front of the camera: not the place of the
# face by half a pixel, not its colour by one level. You measure the trembling of a detector, steady it, find cuts, keep time and sound, and
# see where the seconds go.
#
# *Time: 4 minutes on a CPU. Reads: the packaged run and clips. Writes: a swapped clip in `work/video`.*

# %%
import time
from itertools import islice, pairwise

import matplotlib.pyplot as plt
import numpy as np

from fslab.faces import Detector
from fslab.labs import FAST, WORK, check, packaged_run, read_clip, show_swap, source_of
from fslab.media import RgbFrame, probe, read_frames

# %%
from fslab.samples import sample_path
from fslab.swap import Swapper
from fslab.tracking import CutDetector, TrackConfig, smooth, track
from fslab.video import VideoConfig, swap_video
from fslab.viz import image_grid

(WORK / "video").mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## 1 A still face that trembles · 静止的脸也会抖
#
# Take one frame, add fresh sensor noise to it forty times, and look for the face in each: nothing moves, so every motion is the finder's own.
#
# **Predict.** How far do the five landmarks of the detector move, in pixels, on a face 150 pixels wide? And the mesh?

# %%
still, rng = read_clip("ada_target.mp4", 1)[0], np.random.default_rng(0)
n = 12 if FAST else 40
noisy = [RgbFrame(np.clip(still + rng.normal(0, 4, still.shape), 0, 255).astype(np.uint8)) for _ in range(n)]
detector = Detector()
mtcnn = np.stack([detector.detect(f.rgb())[0].landmarks for f in noisy])
followed = list(track(noisy))
mesh = np.stack([f.faces[0].face.landmarks for f in followed])
steady = np.stack([f.faces[0].face.landmarks for f in smooth(followed, 4)])


# %%
def my_tremble(points):
    return np.linalg.norm(np.diff(points, axis=0), axis=2).mean()


for name, points in (("detector", mtcnn), ("mesh", mesh), ("mesh, smoothed", steady)):
    print(f"{name:>15}: {my_tremble(points):.3f} px from frame to frame")

# %% [markdown]
# ## 2 Smoothing without lag · 无延迟的平滑
#
# A running mean trembles less and comes late: when the head turns, the face slides over it. fslab fits a line to each point's positions around
# the frame (Cleveland, 1979), with weights that fall with time and with distance (Tomasi & Manduchi, 1998): a still face is averaged, a moving
# one hardly touched.
#
# **Predict.** A point jumps by 40 pixels between two frames. What does each filter make of it?

# %%
path = np.r_[np.zeros(15), np.full(15, 40.0)] + rng.normal(0, 0.5, 30)


def my_bilateral(x, radius=4, spread=2.0):
    raise NotImplementedError


# %%
def my_reference(x, radius=4, spread=2.0):
    out = np.empty_like(x)
    for i in range(len(x)):
        j = np.arange(max(i - radius, 0), min(i + radius + 1, len(x)))
        w = np.exp(-(((j - i) / radius) ** 2) - ((x[j] - x[i]) / spread) ** 2)
        out[i] = (w * x[j]).sum() / w.sum()
    return out


# %%
running = np.convolve(np.pad(path, 4, "edge"), np.ones(9) / 9, "valid")
figure, axes = plt.subplots(figsize=(7, 2.8))
for name, line in (("as found", path), ("running mean", running), ("bilateral", my_reference(path))):
    axes.plot(line, label=name, linewidth=1 if name == "as found" else 2)
axes.set(xlabel="frame", ylabel="px")
axes.legend()

# %% [markdown]
# ### Exercise 1 · 练习 1
#
# Write the bilateral mean: weights $\exp(-((j-i)/r)^2 - ((x_j - x_i)/s)^2)$ over the frames $j$ within the radius $r$.

# %%
check(my_bilateral, my_reference, (path,), (path, 2, 10.0))

# %% [markdown]
# ## 3 Cuts · 镜头切换
#
# **The failure case.** Nothing may be smoothed across a cut: half of one face would be averaged with half of another. Two clips, joined:

# %%
joined = [*read_clip("ada_target.mp4", 8), *read_clip("dan.mp4", 8)]
cuts = CutDetector(TrackConfig().cut_threshold)
found = [i for i, picture in enumerate(joined) if cuts.is_cut(RgbFrame(picture))]
print("cuts before frame", found)

# %% [markdown]
# ### Exercise 2 · 练习 2
#
# The simplest cut detector: the mean absolute difference of two frames' grey thumbnails. Write it for arrays `(h, w)`.


# %%
def my_difference(a, b):
    raise NotImplementedError


thumbs = [p[::16, ::16].mean(axis=2) for p in joined]
check(my_difference, lambda a, b: np.abs(a - b).mean(), (thumbs[6], thumbs[7]), (thumbs[7], thumbs[8]))
print("differences:", [round(float(np.abs(a - b).mean()), 1) for a, b in pairwise(thumbs)])

# %% [markdown]
# ## 4 Time and sound · 时间与声音
#
# Frames carry timestamps, and phones drop frames when they are busy: 25 a second is an average. A tool that counts frames instead of reading
# their times lets lips and voice drift apart. fslab copies every timestamp and the sound, packet by packet.

# %%
run, out = packaged_run(), WORK / "video" / "out.mp4"
began = time.perf_counter()
summary = swap_video(Swapper(run, "dan"), sample_path("ada_target.mp4"), out, replace="ada")
seconds = time.perf_counter() - began
print(f"{summary.n_swapped} of {summary.n_frames} frames swapped in {seconds:.1f} s")
for name in (sample_path("ada_target.mp4"), out):
    info = probe(name)
    times = [float(f.time) for f in read_frames(name)]
    print(
        f"{name.name:>16}: {info.n_frames} frames, {info.duration:.2f} s, sound {info.has_audio}, last frame at {times[-1]:.2f} s"
    )

# %% [markdown]
# ## 5 Flicker, measured · 闪烁的度量
#
# Against exact truth flicker is what changes in the swap and not in the truth:
# $\operatorname{mean} \lvert (s_t - s_{t-1}) - (g_t - g_{t-1}) \rvert$ inside the face. **Predict.** Does smoothing lower it here?

# %%
from fslab.measures import flicker

truth = [f.rgb() for f in read_frames(sample_path("ada_as_dan_truth.mp4"))]
clips = {"smoothed": out}
if not FAST:
    clips["not smoothed"] = WORK / "video" / "raw.mp4"
    swap_video(Swapper(run, "dan"), sample_path("ada_target.mp4"), clips["not smoothed"], "ada", VideoConfig(smooth=0))
mask = np.zeros(truth[0].shape[:2])
mask[110:290, 110:280] = 1

# %%
for name, clip in clips.items():
    swap = [f.rgb() for f in read_frames(clip)]
    values = [flicker(swap[i], swap[i - 1], truth[i], truth[i - 1], mask) for i in range(1, len(swap))]
    print(f"{name}: {np.mean(values):.2f} levels")
show_swap(
    image_grid([swap[10:15], truth[10:15]], ["swap", "truth"], cell=170, foot="five frames in a row"),
    "five frames in a row",
)

# %% [markdown]
# ## 6 Where the seconds go · 时间花在哪里
#
# Decoding, following, drawing, pasting and encoding run in threads of their own, connected by short queues: the clip takes as long as the
# slowest stage, not as long as all of them.

# %%
frames = [RgbFrame(f.rgb().copy()) for f in islice(read_frames(sample_path("ada_target.mp4")), 25)]
swapper, marks = Swapper(run, "dan"), [time.perf_counter()]
faces = [f.faces[0].face for f in track(frames)]
marks.append(time.perf_counter())
aligned = [swapper.align(f, face) for f, face in zip(frames, faces, strict=True)]
marks.append(time.perf_counter())
drawn = swapper.convert(aligned)
marks.append(time.perf_counter())

# %%
for frame, face in zip(frames, drawn, strict=True):
    swapper.blend(frame, face)
marks.append(time.perf_counter())
cost = dict(zip(("follow", "align", "draw", "paste"), np.diff(marks), strict=True))
print({k: f"{1000 * v / 25:.1f} ms a frame" for k, v in cost.items()})

# %%
source_of(smooth)

# %% [markdown]
# ## Summary · 小结
#
# 1. Detectors judge frames one by one and tremble; a mesh that follows is steadier, smoothing steadier still.
# 2. A filter that does not look ahead comes late; one that does not look at distance drags.
# 3. Nothing crosses a cut.
# 4. Times are read, never counted; sound is copied, never made anew.
# 5. A pipeline is as fast as its slowest stage.
#
# **中文小结**
#
# 1. 检测器逐帧判断，会抖；跟踪的网格更稳，平滑后更稳。
# 2. 不看未来的滤波会滞后，不看距离的滤波会拖影。
# 3. 任何平滑都不能跨过镜头切换。
# 4. 时间戳要读取而不是数帧；声音要复制而不是重做。
# 5. 流水线的速度取决于最慢的一环。
#
# ## Questions · 思考题
#
# 1. What would a dissolve between two shots do to the cut detector?
# 2. Why is the colour match smoothed over time, too?
# 3. How would you find out whether lips and voice fit, without listening?
#
# ## Further reading · 延伸阅读
#
# - Cleveland (1979), *Robust locally weighted regression*, JASA 74(368)
# - Tomasi & Manduchi (1998), *Bilateral filtering for gray and color images*, ICCV
# - Lai et al. (2018), *Learning blind video temporal consistency*, [arXiv:1808.00449](https://arxiv.org/abs/1808.00449)
#
# Next: [10 evaluate](10_evaluate.ipynb), how good it is.
