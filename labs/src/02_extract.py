# %% [markdown]
# # 02 Extract · 提取
#
# **How does a face become a crop, and back?**  人脸如何变成裁剪图，又如何变回去？
#
# A network wants faces that all sit alike: upright, centred, one size. Footage gives frames. This lab finds the face, its landmarks, and
# the one transform that takes a frame to a crop, and back: the swap is pasted through its inverse, so it must be exact.
#
# *Time: 3 minutes on a CPU. Reads: the packaged clip of ada, two public-domain photographs. Writes: a face set in `work/faces/ada`.*

# %%
from pathlib import Path

import cv2
import numpy as np

from fslab.coverage import summarise
from fslab.faces import find_faces
from fslab.geometry import align_matrix, crop_from_frame, crop_template, invert, transform_points, umeyama, warp
from fslab.labs import check, faces_of, read_clip, show, source_of

# %%
from fslab.media import RgbFrame, read_image
from fslab.viz import coverage_card, image_grid

frames = read_clip("ada.mp4", 4, 40)
show(image_grid([frames], cell=192), "four frames of ada")

# %% [markdown]
# ## 1 Detect · 检测
#
# MTCNN (Zhang et al., 2016, [arXiv:1604.02878](https://arxiv.org/abs/1604.02878)) finds faces in three passes of ever larger networks: the
# first looks at a pyramid of shrunken frames and proposes thousands of boxes, the second throws most away, the third places five
# landmarks: eyes, tip of the nose, corners of the mouth.
#
# **Predict.** The detector looks at frames one by one. Will the landmarks of a face that does not move stay where they are?

# %%
face = find_faces(RgbFrame(frames[0]))[0]
drawn = frames[0].copy()
cv2.rectangle(drawn, *(tuple(int(v) for v in face.box[i : i + 2]) for i in (0, 2)), (255, 210, 0), 2)
for x, y in face.landmarks:
    cv2.circle(drawn, (round(float(x)), round(float(y))), 4, (0, 220, 200), -1)
print(f"score {face.score:.3f}; {len(face.mesh)} mesh points")
show(drawn, "box and five landmarks", 320)

# %% [markdown]
# It will not: each frame is judged anew, so noise moves the points by about a pixel. fslab follows a face with a mesh of 468 points
# instead, which is steadier, and smooths it over time (lab 09 measures both).
#
# ## 2 The similarity transform · 相似变换
#
# Rotation by $\theta$, one scale $s$, translation $t$: $y = s R x + t$. Five landmarks $x_i$, five template points $y_i$; we want the
# transform with the smallest squared error. Umeyama (1991) found it in closed form. With means $\bar x, \bar y$, spread
# $\sigma_x^2 = \frac1n \sum \lVert x_i - \bar x \rVert^2$ and covariance $\Sigma = \frac1n \sum (y_i - \bar y)(x_i - \bar x)^\top = U D V^\top$:
#
# $$R = U S V^\top, \qquad s = \frac{\operatorname{tr}(D S)}{\sigma_x^2}, \qquad t = \bar y - s R \bar x$$
#
# where $S = \operatorname{diag}(1, \pm 1)$ forbids mirror images.
#
# **Predict.** Why a similarity and not any affine map, which would fit five points even better?

# %%
template = crop_template(256, 0.64)
matrix = align_matrix(face.landmarks, 256, 0.64)
left = transform_points(face.landmarks, matrix) - template
affine = np.linalg.lstsq(np.c_[face.landmarks, np.ones(5)], template, rcond=None)[0].T
print("similarity, mean distance to the template:", np.linalg.norm(left, axis=1).mean().round(2), "px")
crops = [crop_from_frame(RgbFrame(frames[0]), matrix, 256), cv2.warpAffine(frames[0], affine, (256, 256))]
show(image_grid([crops], (), ["similarity", "affine"]), "similarity against affine")

# %% [markdown]
# An affine map forces every face onto one template: long faces become short, and with that part of the identity is gone before the
# network sees it. The similarity keeps proportions and leaves the error where it belongs.

# %%
source_of(umeyama)

# %% [markdown]
# ### Exercise 1 · 练习 1
#
# Write it: nine lines. Test yourself with a rotation you know.


# %%
def my_similarity(src, dst):
    raise NotImplementedError


turned = np.array([[0, -2.0], [2.0, 0]])
points = np.random.default_rng(0).normal(size=(5, 2))
check(my_similarity, umeyama, (points, points @ turned.T + 3), (face.landmarks, template))

# %% [markdown]
# ## 3 Coverage · 取景范围
#
# *Coverage* says how much of the crop the template spans. Small: more hair and background, fewer pixels for the face. Large: the chin and
# the forehead are cut off, and what is not in the crop cannot be swapped.
#
# **Predict.** Which of these would you train on?

# %%
shown = [
    crop_from_frame(RgbFrame(frames[1]), align_matrix(find_faces(RgbFrame(frames[1]))[0].landmarks, 192, c), 192)
    for c in (0.4, 0.64, 0.9)
]
show(image_grid([shown], (), ["0.40", "0.64 (fslab)", "0.90"]), "three coverages")

# %% [markdown]
# ## 4 And back · 变回去
#
# The crop goes back through the inverse. Interpolation costs something each way; the test of a converter is a round trip that changes
# nothing.

# %%
size = frames[0].shape[:2]
back = warp(warp(frames[0], matrix, 256, smooth=True), invert(matrix), size, smooth=True)
inside = warp(np.ones((256, 256), np.float32), invert(matrix), size) > 0.999
error = np.abs(back.astype(float) - frames[0])[inside]
print(f"round trip: mean error {error.mean():.2f} levels, PSNR {10 * np.log10(255**2 / (error**2).mean()):.1f} dB")

# %% [markdown]
# ### Exercise 2 · 练习 2
#
# Blurry faces teach blur. fslab measures sharpness as the variance of the Laplacian of the grey crop. Write it with `cv2.Laplacian`
# (`cv2.CV_64F`) on `cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)`.

# %%
from fslab.extract import sharpness


def my_sharpness(crop):
    raise NotImplementedError


check(my_sharpness, sharpness, (crops[0],), (cv2.GaussianBlur(crops[0], (0, 0), 3),))
print("sharp, blurred:", round(sharpness(crops[0])), round(sharpness(cv2.GaussianBlur(crops[0], (0, 0), 3))))

# %% [markdown]
# ## 5 A face set · 人脸集
#
# `extract_faces` does all of it over a clip: finds, follows, groups faces into people by an identity embedding, aligns, and marks which
# faces are good enough. Without a consent record it refuses to start. The coverage card says what the footage lacks.

# %%
ada = faces_of("ada")
print(
    f"{len(ada.records)} faces found, {len(ada.kept)} kept, crops of {ada.size} px; consent: {ada.consent.confirmed_by}"
)
show(coverage_card(summarise("ada", ada.records)), "coverage card of ada", 860)

# %% [markdown]
# ## 6 Where it fails · 失败案例
#
# **The failure case.** Everything up to here assumed a face that looks towards us, upright, sharp, and large enough. Take these
# assumptions away one by one, on two public-domain photographs (they serve for detection only and are never swapped).

# %%
import matplotlib.cbook as cbook
import skimage.data

astronaut = skimage.data.astronaut()
hopper = read_image(Path(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))
tiny = cv2.resize(astronaut, None, fx=1 / 12, fy=1 / 12, interpolation=cv2.INTER_AREA)

# %%
pictures = {
    "as it is": astronaut,
    "another": hopper,
    "turned 90°": np.rot90(astronaut).copy(),
    "1/12 size": tiny,
    "blurred": cv2.GaussianBlur(astronaut, (0, 0), 12),
    "half covered": np.where(np.arange(512)[None, :, None] < 225, 90, astronaut).astype(np.uint8),
}

# %%
for name, picture in pictures.items():
    found = find_faces(RgbFrame(picture))
    print(f"{name:>12}: {len(found)} face(s)", *(f"score {f.score:.2f}" for f in found))
show(image_grid([list(pictures.values())], (), list(pictures), cell=150), "a gallery of hard cases")

# %% [markdown]
# ## Summary · 小结
#
# 1. A detector proposes, a mesh follows: landmarks from single frames tremble.
# 2. One similarity, solved in closed form, takes a face to the template; its inverse pastes the swap.
# 3. A similarity keeps a face's proportions, which are part of whose face it is.
# 4. Coverage decides what can be swapped at all.
# 5. Footage decides the result: the coverage card tells what is missing before any training.
#
# **中文小结**
#
# 1. 检测器给出候选，网格负责跟踪：单帧关键点会抖动。
# 2. 一个闭式求解的相似变换把脸对齐到模板，其逆变换用于贴回。
# 3. 相似变换保留脸的比例，而比例是身份的一部分。
# 4. 取景范围决定了什么能被替换。
# 5. 素材决定结果：训练之前先看覆盖卡。
#
# ## Questions · 思考题
#
# 1. What does `umeyama` return for five points that all lie on one line? Try it.
# 2. Why does fslab keep more pixels in the stored crop than the network needs? (Lab 03 turns them.)
# 3. Two people in one clip: how would you tell them apart without their names? Look for `group_people`.
#
# ## Further reading · 延伸阅读
#
# - Umeyama (1991), *Least-squares estimation of transformation parameters between two point patterns*, IEEE TPAMI 13(4)
# - Zhang et al. (2016), *Joint face detection and alignment using multi-task cascaded CNNs*, [arXiv:1604.02878](https://arxiv.org/abs/1604.02878)
# - Kartynnik et al. (2019), *Real-time facial surface geometry from monocular video*, [arXiv:1907.06724](https://arxiv.org/abs/1907.06724)
#
# Next: [03 dataset](03_dataset.ipynb), why the input is bent and the target is not.
