# %% [markdown]
# # 08 Swap · 换脸
#
# **Where do seams come from?**  接缝从哪里来？
#
# The network draws a square crop. What goes into the frame is a face-shaped part of it, in the frame's colours, as sharp as the frame, behind
# the frame's hair. Each of these steps can show. You take them apart on one frame, with the run that ships.
#
# *Time: 3 minutes on a CPU. Reads: the packaged run and clip. Writes: nothing.*

# %%
from dataclasses import replace

import cv2
import numpy as np

from fslab.blend import apply_colour, colour_shift, gradient_energy, outline_mask, paste, sharpen
from fslab.faces import find_faces
from fslab.geometry import invert, warp
from fslab.labs import check, packaged_run, read_clip, show, show_swap, source_of

# %%
from fslab.media import RgbFrame
from fslab.swap import SwapConfig, Swapper
from fslab.visible import visible_face
from fslab.viz import image_grid

run = packaged_run()
swapper = Swapper(run, "dan")
target, truth = (read_clip(name, 1, 1)[0] for name in ("ada_target.mp4", "ada_as_dan_truth.mp4"))
frame = RgbFrame(target.copy())

# %%
aligned = swapper.align(frame, find_faces(frame)[0])
drawn = swapper.convert([aligned])[0]
crop, own = drawn.crop, aligned.crop
show_swap(
    image_grid([[own, crop]], (), ["target", "drawn as dan"], cell=256, foot="crops"), "what goes in and what comes out"
)

# %% [markdown]
# ## 1 Paste it bluntly · 直接贴上
#
# The inverse of the alignment takes the crop back. **Predict.** Where will the square show most?


# %%
def my_paste(picture, mask):
    copy = RgbFrame(target.copy())
    paste(copy, picture, mask.astype(np.float32), aligned.matrix)
    return copy.rgb()


size = swapper.size
square = np.ones((size, size))
hard = outline_mask(aligned.outline, size, 0.0, 0.0)

# %%
soft = outline_mask(aligned.outline, size, 0.04, 0.12)
tries = {
    "square": my_paste(crop, square),
    "outline, hard": my_paste(crop, hard),
    "outline, feathered": my_paste(crop, soft),
}
show_swap(image_grid([list(tries.values())], (), list(tries), cell=280, foot="ada as dan"), "three masks")

# %% [markdown]
# ## 2 Masks · 遮罩
#
# The outline comes from the mesh; eroded a little, because a mask that reaches the background pulls it in; feathered, because eyes find steps
# of one grey level along a line. Let $d$ be the distance to the outline, $e$ the erosion, $f$ the feather:
#
# $$m = s\!\left(\operatorname{clip}\!\left(\frac{d - e}{f} + \tfrac12,\, 0,\, 1\right)\right), \qquad s(t) = 3t^2 - 2t^3$$
#
# ### Exercise 1 · 练习 1
#
# Write the ramp from a distance map (pixels), all lengths in pixels.


# %%
def my_feather(distance, erode, feather):
    raise NotImplementedError


distance = cv2.distanceTransform((hard > 0.5).astype(np.uint8), cv2.DIST_L2, 5)
check(
    my_feather,
    lambda d, e, f: (lambda t: t * t * (3 - 2 * t))(np.clip((d - e) / f + 0.5, 0, 1)),
    (distance, 4.0, 12.0),
    (distance, 0.0, 5.0),
)

# %% [markdown]
# ## 3 Colour · 颜色
#
# dan was filmed in another light. Reinhard et al. (2001) give one picture the mean and the spread of another, in CIE Lab, where lightness and
# colour are apart:
#
# $$x' = (x - \mu_x)\,\frac{\sigma_y}{\sigma_x} + \mu_y$$
#
# measured inside the mask only, with the gain limited. **Predict.** What does it do if the target's mouth is open and the drawn one shut?

# %%
shift = colour_shift(crop, own, soft)
coloured = apply_colour(crop, shift)
print("mean offset in Lab:", shift.offset.round(1), "gain:", shift.gain.round(2))
rows = {
    "as drawn": my_paste(crop, soft),
    "half": my_paste(apply_colour(crop, shift, 0.5), soft),
    "matched": my_paste(coloured, soft),
    "truth": truth,
}
show_swap(image_grid([list(rows.values())], (), list(rows), cell=240, foot="colour"), "colour match")

# %% [markdown]
# ### Exercise 2 · 练习 2
#
# Match one channel: give `x` the mean and standard deviation of `y` where `mask` is true.


# %%
def my_match(x, y, mask):
    raise NotImplementedError


def my_reference(x, y, mask):
    return (x - x[mask].mean()) * y[mask].std() / x[mask].std() + y[mask].mean()


grey = [cv2.cvtColor(p, cv2.COLOR_RGB2GRAY).astype(float) for p in (crop, own)]
check(my_match, my_reference, (*grey, soft > 0.95), (*grey, soft > 0.5))

# %% [markdown]
# ## 4 Sharpness and what lies in front · 清晰度与遮挡
#
# **Predict.** Which is worse in a clip: a face a little too soft, or a little too sharp?
#
# A small network draws softly, and a soft face in a sharp frame is a mask. fslab sharpens to a share of the target's own gradient energy, less
# its noise. Hair in front of the face is found by its colour (GrabCut) and stays in front.

# %%
inside = soft > 0.95
for name, picture in (("target", own), ("drawn", coloured), ("sharpened", sharpen(coloured, own, soft, 0.65))):
    print(f"{name:>10}: gradient energy {gradient_energy(picture, inside):.0f}")
seen = visible_face(own, aligned.outline, aligned.features)

# %%
show(
    image_grid(
        [[own, *((m * 255).astype(np.uint8)[:, :, None].repeat(3, 2) for m in (soft, seen, drawn.mask))]],
        (),
        ["target", "outline", "seen", "network's"],
        cell=200,
    ),
    "four masks",
)

# %% [markdown]
# ## 5 Poisson, as a contrast · 泊松融合作为对照
#
# Seamless cloning (Pérez et al., 2003) keeps the drawn face's *gradients* and takes the values at the border from the target:
# $\min \int \lVert \nabla f - \nabla g \rVert^2$ with $f = $ target on the edge. No seam is left; but whatever is wrong at the edge (a shadow, a
# strand of hair) bleeds over the whole face, and from frame to frame it flickers.
#
# **The failure case.** Move the mask a few pixels over the hair and look at the cheeks.

# %%
placed = warp(sharpen(coloured, own, soft, 0.65), invert(aligned.matrix), target.shape[:2], smooth=True)
region = (warp(hard.astype(np.float32), invert(aligned.matrix), target.shape[:2]) > 0.5).astype(np.uint8) * 255
clones = []
for grow in (-9, 9):
    kernel = np.ones((abs(grow), abs(grow)), np.uint8)
    mask = cv2.erode(region, kernel) if grow < 0 else cv2.dilate(region, kernel)
    x, y, w, h = cv2.boundingRect(mask)
    clones.append(cv2.seamlessClone(placed, target, mask, (x + w // 2, y + h // 2), cv2.NORMAL_CLONE))

# %%
show_swap(
    image_grid(
        [[*clones, my_paste(sharpen(coloured, own, soft, 0.65), soft)]],
        (),
        ["Poisson, inside", "Poisson, over the edge", "fslab"],
        cell=280,
        foot="ada as dan",
    ),
    "Poisson blending",
)

# %% [markdown]
# ## 6 A contact sheet of variants · 参数对照
#
# Before a long conversion, compare on one frame. The app does this with a button.

# %%
variants = {
    "default": {},
    "colour 0": {"colour": 0.0},
    "mask outline": {"mask": "outline"},
    "over the hair": {"keep_in_front": False},
    "feather 0.3": {"feather": 0.3},
    "sharpen 0": {"sharpen": 0.0},
}
pictures = []

# %%
for change in variants.values():
    copy = RgbFrame(target.copy())
    changed = Swapper(run, "dan", replace(SwapConfig(), **change))
    changed.blend(copy, changed.convert([changed.align(copy, find_faces(copy)[0])])[0])
    pictures.append(copy.rgb()[70:330, 60:320])
show_swap(image_grid([pictures[:3], pictures[3:]], (), cell=260, foot=", ".join(variants)), "variants")

# %%
source_of(outline_mask)

# %% [markdown]
# ## Summary · 小结
#
# 1. A seam is a step: in colour, in sharpness, in light, or between things (face over hair).
# 2. Erode before you feather: a mask should never reach the background.
# 3. Colours are matched by two moments in Lab, inside the mask, with a limit.
# 4. Poisson hides every seam and spreads every fault.
# 5. Look at one frame in several ways before converting a thousand.
#
# **中文小结**
#
# 1. 接缝就是突变：颜色、清晰度、光照，或前后关系（脸盖住头发）。
# 2. 先腐蚀再羽化：遮罩不应碰到背景。
# 3. 在 Lab 空间、遮罩内部、有限度地匹配均值和方差。
# 4. 泊松融合藏住所有接缝，也扩散所有错误。
# 5. 转换一千帧之前，先在一帧上比较。
#
# ## Questions · 思考题
#
# 1. Why is the colour smoothed over time in a clip (`colour_memory`)?
# 2. What would you do about a hand in front of the face?
# 3. The truth at the right of section 3 has another jaw than the target. Can any mask do that?
#
# ## Further reading · 延伸阅读
#
# - Reinhard et al. (2001), *Color transfer between images*, IEEE CG&A 21(5)
# - Pérez, Gangnet & Blake (2003), *Poisson image editing*, SIGGRAPH
# - Rother, Kolmogorov & Blake (2004), *GrabCut*, SIGGRAPH
#
# Next: [09 video](09_video.ipynb), why it flickers.
