# %% [markdown]
# # 01 Convolution · 卷积
#
# **What does a CNN see?**  卷积网络看到什么？
#
# A face swap is done by a convolutional network, and a convolutional network is three or four simple operations, repeated. In this
# lab you compute each of them by hand on a picture, compare with `torch`, and then look into real networks, layer by layer.
#
# *Time: 5 minutes on a CPU. Reads: one frame of the packaged, rendered person ada. Writes: nothing. You need: Python, a little linear
# algebra.*

# %%
import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from fslab.basics import KERNELS, convolve, count_conv_parameters, feature_maps, fully_connected, maps_to_pictures
from fslab.basics import output_size, pool, receptive_field, relu
from fslab.labs import check, read_clip, show, source_of

# %%
from fslab.viz import image_grid

frame = read_clip("ada_target.mp4", 1)[0]
show(frame, "ada, a rendered person", 256)

# %% [markdown]
# ## 1 A picture is numbers · 图像就是数字
#
# A frame is an array of height × width × 3 whole numbers from 0 to 255: red, green and blue. Networks want other numbers: `float32` in
# $[0, 1]$ (divide by 255) or $[-1, 1]$ (then times two, minus one), with the channels first. Why the range matters: weights start small
# and random, and a network whose inputs are a hundred times too large begins with answers a hundred times too large.
#
# **Predict.** What is the mean of this frame in $[-1, 1]$: above or below zero?

# %%
grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) / 255
x = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255
print("array", frame.shape, frame.dtype, "| batch", tuple(x.shape), x.dtype)
print(f"mean in [0, 1]: {x.mean():.2f}, in [-1, 1]: {(2 * x - 1).mean():.2f}")

# %% [markdown]
# ## 2 Convolution · 卷积
#
# A *kernel* is a small grid of weights. Lay it over the picture, multiply what lies under each weight, add up: one output number. Slide
# it to the next place and repeat. With stride $s$ and padding $p$:
#
# $$\text{out}[i, j] = \sum_{u, v} k[u, v]\; \text{in}[i s + u - p,\; j s + v - p], \qquad
# n_\text{out} = \left\lfloor \frac{n_\text{in} + 2p - K}{s} \right\rfloor + 1$$
#
# (Dumoulin & Visin, 2016, [arXiv:1603.07285](https://arxiv.org/abs/1603.07285).) The same nine weights look at every place of the picture:
# a network that has learnt an eye in one corner knows it in the other.
#
# **Predict.** A kernel of `-1 0 1 / -2 0 2 / -1 0 1`: where is its answer large? Where zero?

# %%
small = cv2.resize(grey, (96, 96), interpolation=cv2.INTER_AREA)
edges = convolve(small, np.array(KERNELS["edges across"]), padding=1)
torchs = F.conv2d(
    torch.tensor(small)[None, None], torch.tensor(KERNELS["edges across"], dtype=torch.double)[None, None], padding=1
)
print("largest difference from torch:", float(np.abs(edges - torchs[0, 0].numpy()).max()))
show(np.clip(128 + 100 * edges, 0, 255).astype(np.uint8), "edges from left to right", 256)

# %% [markdown]
# Bright: dark on the left, light on the right. Dark: the other way round. Grey: nothing changes from left to right, as on the cheek, and
# along edges that run from left to right, such as the lips.
#
# ### Stride and padding · 步长与填充
#
# Stride 2 computes every second place and halves the picture. Without padding, a 3 × 3 kernel eats one pixel on each side. The classic
# network of this course uses 3 × 3 kernels, stride 1, padding 1: the size stays.

# %%
for stride, padding in ((1, 0), (1, 1), (2, 1)):
    made = convolve(small, np.array(KERNELS["blur"]), stride, padding)
    print(
        f"stride {stride}, padding {padding}: {small.shape} -> {made.shape}, formula {output_size(96, 3, stride, padding)}"
    )

# %% [markdown]
# ### Try kernels · 动手改卷积核
#
# Nine weights to change. With *ReLU* ticked, negative answers become 0 (next section). Nothing here needs a click to go on.

# %%
from fslab.widgets import kernel_editor

kernel_editor(cv2.resize(frame, (256, 256), interpolation=cv2.INTER_AREA))

# %% [markdown]
# ### Exercise 1 · 练习 1
#
# Write the convolution. `check` compares with `fslab.basics.convolve`; where you have written nothing yet it says so and the lab goes on.


# %%
def my_convolve(image, kernel, stride=1, padding=0):
    raise NotImplementedError


check(my_convolve, convolve, (small, np.array(KERNELS["sharpen"])), (small, np.array(KERNELS["blur"]), 2, 1))

# %% [markdown]
# ### How many numbers does a layer learn? · 参数量
#
# A layer has one kernel for each pair of an input and an output channel, and a bias for each output channel:
# $C_\text{out}(C_\text{in}K^2 + 1)$. The size of the picture does not appear.
#
# **Predict.** 3 channels to 64 with 3 × 3 kernels, then 128 to 256: how many parameters each?

# %%
for channels in ((3, 64), (64, 128), (128, 256)):
    layer = nn.Conv2d(*channels, 3)
    print(channels, count_conv_parameters(*channels, 3), "=", sum(p.numel() for p in layer.parameters()))

# %% [markdown]
# ## 3 ReLU · 激活函数
#
# Two convolutions in a row are one larger convolution: without something that is not linear between them, depth is worth nothing. The
# rectified linear unit is the simplest such thing (Nair & Hinton, 2010):
#
# $$\text{ReLU}(x) = \max(0, x)$$
#
# After an edge kernel it keeps one direction of edges and drops the other.

# %%
two = convolve(convolve(small, np.array(KERNELS["blur"])), np.array(KERNELS["outline"]))
joint = convolve(np.array(KERNELS["outline"]), np.array(KERNELS["blur"])[::-1, ::-1], padding=2)
print("two kernels as one 5 x 5:", np.allclose(two, convolve(small, joint)))
with_relu = relu(convolve(small, np.array(KERNELS["edges across"]), padding=1))
show(np.clip(200 * with_relu, 0, 255).astype(np.uint8), "edges from dark to light only", 256)

# %% [markdown]
# ## 4 Pooling · 池化
#
# Pooling shrinks: of each 2 × 2 block it keeps the largest value (max) or the mean (average). $\text{max}$ answers "is it there, anywhere
# in the block?" and so forgets where exactly: that makes a network robust to small shifts, and is one reason why decoders must work to
# place edges again.
#
# **Predict.** Shift the picture by one pixel. How much does the max-pooled picture change, compared with the picture itself?

# %%
shifted = np.roll(small, 1, axis=1)
for how in ("max", "average"):
    print(f"{how}: {np.abs(pool(small, 4, how) - pool(shifted, 4, how)).mean():.4f}", end="   ")
print(f"unpooled: {np.abs(small - shifted).mean():.4f}")
halves = [
    np.repeat((255 * cv2.resize(pool(edges, 4, h).clip(0, 1), (192, 192), interpolation=0))[..., None], 3, 2)
    for h in ("max", "average")
]
show(image_grid([[h.astype(np.uint8) for h in halves]], (), ["max", "average"]), "pooled edges")

# %% [markdown]
# ### Exercise 2 · 练习 2


# %%
def my_pool(image, side, how="max"):
    raise NotImplementedError


check(my_pool, pool, (small, 2), (small, 3, "average"))

# %% [markdown]
# ## 5 Fully connected · 全连接层
#
# A fully connected layer forgets the grid: every output is a weighted sum of all inputs, $y = Wx + b$. It can connect the left eye with
# the right one, and pays for it: from an 8 × 8 × 256 code to itself it would learn 268 million weights.
#
# **The failure case.** Shift the input by two pixels. A convolution's answer shifts with it; that of a fully connected layer changes
# altogether: it has to learn every place anew.

# %%
rng = np.random.default_rng(0)
inputs = cv2.resize(edges, (16, 16), interpolation=cv2.INTER_AREA)
weight, bias = rng.normal(0, 1 / 16, (256, 256)), np.zeros(256)
a, b = fully_connected(inputs, weight, bias), fully_connected(np.roll(inputs, 2, 1), weight, bias)
print(f"fully connected, after a shift: correlation {np.corrcoef(a, b)[0, 1]:.2f}")
kernel = rng.normal(size=(3, 3))
moved = np.roll(convolve(inputs, kernel), 2, 1)[:, 2:], convolve(np.roll(inputs, 2, 1), kernel)[:, 2:]
print(f"convolution, shifted along: correlation {np.corrcoef(moved[0].ravel(), moved[1].ravel())[0, 1]:.2f}")

# %% [markdown]
# ## 6 What a unit can see · 感受野
#
# One 3 × 3 convolution sees 3 pixels across. The next one sees 5; after pooling each step is worth two pixels. With kernels $k_l$ and
# strides $s_i$ (Araujo, Norris & Sim, 2019, [Distill](https://distill.pub/2019/computing-receptive-fields/)):
#
# $$r = 1 + \sum_l (k_l - 1) \prod_{i < l} s_i$$
#
# **Predict.** How many pixels does one place of the classic encoder's code see: 8, 22 or 64?

# %%
classic = [(3, 1), (2, 2)] * 3
print(
    "the classic encoder sees",
    receptive_field(classic),
    "pixels; with two more groups:",
    receptive_field([(3, 1), (2, 2)] * 5),
)

# %% [markdown]
# 22 pixels of 256: less than an eye. The classic network's code describes patches, not faces. That is why its decoder may draw an eyebrow
# well and put it in the wrong mood.
#
# ## 7 Look inside · 看看网络内部
#
# The same explorer on two networks: the classic encoder with random weights, and a MobileNetV2 trained on photographs, which ships with
# fslab. Early layers of the trained one hold edges and colours; later ones, parts.

# %%
from fslab.encoders import FakeappEncoder
from fslab.widgets import feature_explorer

face = x[:, :, 60:316, 80:336]
torch.manual_seed(0)
feature_explorer(FakeappEncoder(64).eval(), face)

# %%
import timm

from fslab.encoders import load_pretrained

trained = timm.create_model("mobilenetv2_100", pretrained=False, features_only=True, out_indices=(0, 1, 2))
print("weights:", load_pretrained(trained, "mobilenetv2_100", (0, 1, 2)))
feature_explorer(trained.eval(), (face - 0.45) / 0.225)

# %% [markdown]
# Side by side, eight channels of an early and of a later layer of each:

# %%
rows, names = [], []
for name, net, picture in (("random", FakeappEncoder(64).eval(), face), ("trained", trained, (face - 0.45) / 0.225)):
    found = list(feature_maps(net, picture).values())
    for maps, where in ((found[1], "early"), (found[-2], "late")):
        rows.append([p[:, :, None].repeat(3, 2) for p in maps_to_pictures(maps[0], 8)])
        names.append(f"{name}, {where}")
show(image_grid(rows, names), "feature maps of a random and of a trained network")

# %% [markdown]
# ## Read the real thing · 读源码

# %%
source_of(FakeappEncoder)

# %% [markdown]
# ## Summary · 小结
#
# 1. A convolution slides one small set of weights over the whole picture; its cost in parameters does not depend on the picture's size.
# 2. Stride and padding set the output's size: $\lfloor (n + 2p - K)/s \rfloor + 1$.
# 3. ReLU between convolutions is what makes depth worth anything.
# 4. Pooling shrinks and forgets where exactly; fully connected layers see everything and know no place.
# 5. Depth and stride, not kernel size, decide how much of a face one unit sees.
#
# **中文小结**
#
# 1. 卷积用同一小组权重扫过整幅图像，参数量与图像大小无关。
# 2. 步长和填充决定输出尺寸。
# 3. 卷积之间的 ReLU 让深度有意义。
# 4. 池化缩小尺寸并忘掉精确位置；全连接层看到一切，却不懂位置。
# 5. 一个单元能看到多大的脸，取决于深度和步长，而不是卷积核大小。
#
# ## Questions · 思考题
#
# 1. What kernel would light up on the corner of an eye? Try it in the editor.
# 2. Replace max-pooling by stride 2 in the classic encoder: what happens to parameters, receptive field and the shift experiment?
# 3. Why does a swap network end in a 1 × 1 convolution to three channels?
#
# ## Further reading · 延伸阅读
#
# - Dumoulin & Visin (2016), *A guide to convolution arithmetic for deep learning*, [arXiv:1603.07285](https://arxiv.org/abs/1603.07285)
# - Zeiler & Fergus (2014), *Visualizing and understanding convolutional networks*, [arXiv:1311.2901](https://arxiv.org/abs/1311.2901)
# - Araujo, Norris & Sim (2019), *Computing receptive fields of convolutional neural networks*, [Distill](https://distill.pub/2019/computing-receptive-fields/)
#
# Next: [02 extract](02_extract.ipynb), how a face becomes a crop.
