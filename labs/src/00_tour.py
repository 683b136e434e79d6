# %% [markdown]
# # 00 Tour · 总览
#
# **What does the whole pipeline do, in five minutes?**  五分钟看完整个流程
#
# Two clips go in, a swapped, marked and measured clip comes out. Everybody you see is rendered: nobody real. Run all cells, then come back and change
# something. Later labs take each stage apart.
#
# *Time: 3 minutes on a CPU. Reads: the packaged people ada and dan. Writes: `work/`.*

# %%
from dataclasses import replace

from fslab.evaluate import EvalConfig, evaluate_videos
from fslab.labs import WORK, budget, check, faces_of, packaged_run, read_clip, show, show_swap
from fslab.model import PRESETS
from fslab.preview import preview_rows
from fslab.provenance import verify
from fslab.samples import sample_path
from fslab.swap import Swapper

# %%
from fslab.train import train
from fslab.verdict import judge_run
from fslab.video import swap_video
from fslab.viz import image_grid, moments_sheet

show(
    image_grid([read_clip("ada.mp4", 5, 40), read_clip("dan.mp4", 5, 40)], ["ada", "dan"], cell=150),
    "footage of two rendered people",
)

# %% [markdown]
# ## 1 Extract · 提取
#
# Find the face in every frame, follow it, align it, keep the good ones. Both agreed: a consent record is an argument. **Predict.** Of 200 frames each,
# how many faces are kept, and why not all?

# %%
people = [faces_of("ada"), faces_of("dan")]
for person in people:
    print(
        person.identity,
        f"{len(person.records)} found, {len(person.kept)} kept;",
        sorted({r.why.split(":")[0] for r in person.records if r.why}),
    )
show(image_grid([list(p.crops(112, p.kept[::40])) for p in people], ["ada", "dan"]), "aligned faces")

# %% [markdown]
# ## 2 Train · 训练
#
# One encoder for both, a decoder for each. It starts from a base that has seen many rendered faces, so seconds are enough to see something.
# **Predict.** What will a face of ada look like through dan's decoder?

# %%
model, recipe = PRESETS["tiny"]
run = train(people, WORK / "tour", model, replace(recipe, budget=budget("45s", "5s"), measure_every=1e9))
rows = preview_rows(run, people, 5)
show_swap(
    image_grid(list(rows.values()), list(rows), cell=120, foot="held-out faces, drawn"),
    "held-out faces as themselves and as the other",
)
print(judge_run(run).text)

# %% [markdown]
# ## 3 Swap · 换脸
#
# Follow ada through the clip, draw each of her faces as dan, match colours, paste, encode, mark. With the run that ships, which trained longer:

# %%
out = WORK / "tour.mp4"
summary = swap_video(Swapper(packaged_run(), "dan"), sample_path("ada_target.mp4"), out, replace="ada")
print(f"{summary.n_swapped} of {summary.n_frames} frames")

# %% [markdown]
# ## 4 Evaluate · 评估
#
# Rendered people have something that real ones never have: the exact truth. **Predict.** Which column is which?

# %%
report = evaluate_videos(
    out, sample_path("ada_target.mp4"), sample_path("ada_as_dan_truth.mp4"), config=EvalConfig(embed_every=25)
)
show_swap(moments_sheet(report.pictures.moments, 160), "target, swap and truth", 940)
for name in ("closure", "leak", "identity_gap_closed", "psnr", "sharpness", "flicker_relative"):
    print(f"{name:>20}: {report.metrics[name]:.2f}")

# %% [markdown]
# Closure 0 is doing nothing and 1 is perfect. A minute of training on a laptop is far from perfect: look at the eyes, the outline of the jaw. **The failure
# case** of every autoencoder swap is in this picture: the target's outline stays, and detail is softer than life.
#
# ## 5 Verify · 验证
#
# What left the program says what it is.

# %%
for layer in verify(out).layers:
    print(f"{layer.name:>14}: {layer.state}")

# %% [markdown]
# ### Exercises · 练习
#
# Each lab has some, with `check` to compare with fslab's own. Try the mechanics: return the share of frames that were swapped, then the mean of a list.


# %%
def my_share(swapped, frames):
    raise NotImplementedError


def my_mean(values):
    raise NotImplementedError


check(my_share, lambda a, b: a / b, (summary.n_swapped, summary.n_frames))
check(my_mean, lambda v: sum(v) / len(v), ([1.0, 2.0, 6.0],))

# %% [markdown]
# ## Where to go next · 下一步
#
# | lab | question |
# |---|---|
# | [01 convolution](01_convolution.ipynb) | what does a CNN see? |
# | [02 extract](02_extract.ipynb) | how does a face become a crop, and back? |
# | [03 dataset](03_dataset.ipynb) | why is the input warped and the target not? |
# | [04 model](04_model.ipynb) | why one encoder and several decoders? |
# | [05 losses](05_losses.ipynb) | what does each loss reward? |
# | [06 train](06_train.ipynb) | when has it learned, and how do we know? |
# | [07 fine-tune](07_finetune.ipynb) | what does pretraining buy? |
# | [08 swap](08_swap.ipynb) | where do seams come from? |
# | [09 video](09_video.ipynb) | why does it flicker? |
# | [10 evaluate](10_evaluate.ipynb) | is it the right person, the right expression, a good picture? |
# | [11 provenance](11_provenance.ipynb) | who agreed, and can a viewer tell? |
# | [12 ship](12_ship.ipynb) | how does it reach others? |
#
# ## Summary · 小结
#
# 1. Extract: frames to aligned faces, with consent.
# 2. Train: one shared encoder, a decoder each.
# 3. Swap: encode the target, decode as the source, paste.
# 4. Evaluate: against exact truth, which rendered people have.
# 5. Verify: every output says what it is.
#
# **中文小结**
#
# 1. 提取：在同意的前提下，从帧到对齐的人脸。
# 2. 训练：共用编码器，各自的解码器。
# 3. 换脸：编码目标，用来源的解码器绘制，贴回。
# 4. 评估：与渲染人物才有的精确真值比较。
# 5. 验证：每个输出都说明自己是什么。
#
# ## Questions · 思考题
#
# 1. Swap the roles: put ada's face on dan. What changes?
# 2. Train for five minutes instead of one. Which of the figures moves most?
# 3. Where in this notebook could a face be swapped without anybody's consent?
#
# ## Further reading · 延伸阅读
#
# - Perov et al. (2020), *DeepFaceLab*, [arXiv:2005.05535](https://arxiv.org/abs/2005.05535)
# - Tolosana et al. (2020), *Deepfakes and beyond: a survey*, [arXiv:2001.00179](https://arxiv.org/abs/2001.00179)
