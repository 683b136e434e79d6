# %% [markdown]
# # 04 Model · 模型
#
# **Why one encoder and several decoders?**  为什么一个编码器、多个解码器？
#
# A face swap needs a network that says what a face *does* without saying *whose* it is. The trick of 2017 is to share the first half between
# two people and to give each a second half of their own. You build the classic network, count it, look at its ways of enlarging, and see
# what happens when the decoder is shared too.
#
# *Time: 6 minutes on a CPU. Reads: the packaged clips of ada and dan. Writes: `work/faces`.*

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from fslab.dataset import FaceDataset
from fslab.decoders import Upsample
from fslab.labs import FAST, check, faces_of, show, source_of

# %%
from fslab.model import PRESETS, ModelConfig, SwapAutoencoder
from fslab.viz import image_grid
from fslab.widgets.warps import to_uint8

config, _ = PRESETS["fakeapp"]
classic = SwapAutoencoder(config, ["ada", "dan"]).eval()
print(config)

# %% [markdown]
# ## 1 The classic network, layer by layer · 经典网络逐层看
#
# | part | layers | output for a 256 × 256 picture |
# |---|---|---|
# | encoder, shared | conv 3 × 3 to 64, ReLU, max-pool 2 × 2 | 64 × 128 × 128 |
# | | conv 3 × 3 to 128, ReLU, max-pool | 128 × 64 × 64 |
# | | conv 3 × 3 to 256, ReLU, max-pool | 256 × 32 × 32 |
# | bottleneck | conv 1 × 1, 256 → 64 | 64 × 32 × 32 |
# | decoder, one a person | transposed convolutions to 256, 128, 64 | 64 × 256 × 256 |
# | | conv 1 × 1 to RGB, sigmoid | 3 × 256 × 256 |
#
# **Predict.** Which holds more numbers: the picture or its code?

# %%
x = torch.rand(1, 3, 256, 256)
shapes = []
for name, layer in classic.named_modules():
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.MaxPool2d) and "decoders.1" not in name:
        layer.register_forward_hook(
            lambda m, i, o, name=name: shapes.append((name, type(m).__name__, tuple(o.shape[1:])))
        )

# %%
with torch.inference_mode():
    code = classic.encode(x)
    classic.decode(code, "ada")
for row in shapes:
    print(f"{row[0]:<28}{row[1]:<18}{row[2]}")
print("picture", x.numel(), "numbers, code", code.numel())

# %% [markdown]
# The code keeps a third of the numbers, in a grid of 32 × 32 places: it *could* pass the picture through almost unchanged. Nothing in the
# architecture forbids the code to carry identity; only training does (lab 06). fslab's own `tiny` squeezes harder.

# %%
for name in ("fakeapp", "tiny", "small"):
    shape, _ = PRESETS[name]
    net = SwapAutoencoder(shape, ["ada", "dan"]).eval()
    with torch.inference_mode():
        z = net.encode(torch.rand(1, 3, shape.size, shape.size))
    count = sum(p.numel() for p in net.parameters()) / 1e6
    print(
        f"{name:>8}: {shape.size} px, code {tuple(z.shape[1:])}, {3 * shape.size**2 / z.numel():.1f} : 1, {count:.1f} million parameters"
    )

# %% [markdown]
# ### Exercise 1 · 练习 1
#
# Count the classic encoder's parameters from the table alone, with `count_conv_parameters(channels_in, channels_out, kernel)`.


# %%
def my_count():
    raise NotImplementedError


check(my_count, lambda: sum(p.numel() for p in classic.encoder.parameters()), ())

# %% [markdown]
# ### Work · 计算量
#
# A convolution multiplies each of its weights once for every place: $C_\text{out}\,C_\text{in}\,K^2\,H'W'$ multiplications.
#
# **Predict.** Where does the classic network spend most: at the wide, small maps or at the narrow, large ones?

# %%
work = {}
for (name, kind, out), layer in zip(
    shapes,
    [
        m
        for n, m in classic.named_modules()
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.MaxPool2d) and "decoders.1" not in n
    ],
):
    if kind != "MaxPool2d":
        places = out[1] * out[2] // (layer.stride[0] ** 2 if kind == "ConvTranspose2d" else 1)
        work[name] = layer.weight.numel() * places / 1e9

# %%
figure, axes = plt.subplots(figsize=(7, 2.6))
axes.barh(list(work), list(work.values()), color="#6f95b8")
axes.set_xlabel("billion multiplications a face")
axes.invert_yaxis()

# %% [markdown]
# ## 2 Three ways to enlarge · 三种上采样
#
# - **Transposed convolution** stamps a kernel at every input place, with stride 2 between stamps. Where stamps overlap unevenly, a
#   *checkerboard* appears (Odena, Dumoulin & Olah, 2016, [Distill](https://distill.pub/2016/deconv-checkerboard/)): kernel 3, stride 2
#   overlaps in every second row.
# - **Interpolation, then convolution** cannot: it enlarges smoothly first. It costs four times the work.
# - **Pixel shuffle** (Shi et al., 2016, [arXiv:1609.05158](https://arxiv.org/abs/1609.05158)) computes four channels where the others compute
#   one and lays them out as 2 × 2 pixels. Cheap; its checkerboard is avoided by starting all four alike (ICNR).
#
# **Predict.** Feed each a constant. What comes out?

# %%
torch.manual_seed(1)
flat = torch.ones(1, 8, 12, 12)
layers = {
    "transposed, kernel 3": nn.ConvTranspose2d(8, 8, 3, 2, 1, 1),
    "transposed, kernel 4": nn.ConvTranspose2d(8, 8, 4, 2, 1),
    "bilinear + conv": Upsample("bilinear", 8, 8),
    "pixel shuffle, ICNR": Upsample("shuffle", 8, 8),
}
pictures = []

# %%
for layer in layers.values():
    with torch.inference_mode():
        out = layer(flat)[0, 0, 3:-3, 3:-3]
    grey = ((out - out.mean()) / 0.2 * 64 + 128).clamp(0, 255).byte().numpy()
    pictures.append(np.kron(grey, np.ones((8, 8), np.uint8))[:, :, None].repeat(3, 2))
show(image_grid([pictures], (), list(layers), cell=170), "a constant, enlarged in four ways")

# %% [markdown]
# ### Exercise 2 · 练习 2
#
# Write pixel shuffle with `reshape` and `permute`: `(B, 4 C, H, W) -> (B, C, 2 H, 2 W)`, where channel $4c + 2i + j$ goes to row $i$, column
# $j$ of its 2 × 2 block.


# %%
def my_pixel_shuffle(x):
    raise NotImplementedError


check(
    my_pixel_shuffle,
    lambda x: F.pixel_shuffle(x, 2),
    (torch.arange(64.0).reshape(1, 16, 2, 2),),
    (torch.rand(2, 12, 5, 7),),
)

# %% [markdown]
# ## 3 What if the decoder is shared too? · 如果解码器也共用？
#
# **The failure case.** Train a small network on both people for a moment: once with a decoder each, once with one for both. Then ask each to
# draw dan from ada's face.
#
# **Predict.** Both learn to redraw faces equally well. What will the shared one make of ada?

# %%
people = {name: FaceDataset.from_faceset(faces_of(name), 64) for name in ("ada", "dan")}
shape = ModelConfig(size=64, width=24, latent_channels=64, blocks=1, encoder_blocks=0, draw_mask=False)
steps, generator = (60 if FAST else 400), torch.Generator().manual_seed(0)


# %%
def my_training(net, decoder_of):
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
    for _ in range(steps):
        batches = {name: data.batch(8, generator) for name, data in people.items()}
        loss = sum(F.l1_loss(net(b.input, decoder_of[n])[0], b.target) for n, b in batches.items())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


# %%
torch.manual_seed(0)
apart, joint = SwapAutoencoder(shape, ["ada", "dan"]), SwapAutoencoder(shape, ["both"])
print("loss, a decoder each:", round(my_training(apart, {"ada": "ada", "dan": "dan"}), 3))
print("loss, one for both: ", round(my_training(joint, {"ada": "both", "dan": "both"}), 3))

# %%
faces = people["ada"].held_out(6).input
with torch.inference_mode():
    rows = [faces, apart(faces, "ada")[0], apart(faces, "dan")[0], joint(faces, "both")[0]]
show(
    image_grid([to_uint8(r) for r in rows], ["ada", "own decoder", "dan's decoder", "shared decoder"], cell=110),
    "who is drawn?",
)

# %% [markdown]
# The shared decoder draws ada: the code says whose face it is, because nothing kept it from doing so, and one decoder can read that. With a
# decoder each, dan's decoder has never drawn ada and cannot; whatever comes in, it answers with what it knows. (If its answer is a blur: it
# was trained for seconds.)

# %%
source_of(SwapAutoencoder)

# %% [markdown]
# ## Summary · 小结
#
# 1. The encoder is shared, so it must describe both people in one language; each decoder knows one face.
# 2. The classic code is large enough to smuggle identity through: architecture alone does not make a swap.
# 3. Most of the work is done at large maps, most parameters sit at wide ones.
# 4. Transposed convolutions leave checkerboards; interpolation does not; pixel shuffle is cheap and needs a careful start.
# 5. With one decoder for everybody nothing is swapped.
#
# **中文小结**
#
# 1. 编码器共用，必须用同一种语言描述两个人；每个解码器只认识一张脸。
# 2. 经典编码足够大，可以夹带身份：仅靠结构换不了脸。
# 3. 计算量集中在大图上，参数量集中在宽层上。
# 4. 转置卷积会留下棋盘格，插值不会，像素重排便宜但需要小心初始化。
# 5. 只有一个解码器时，什么也没有换。
#
# ## Questions · 思考题
#
# 1. Make `latent_channels` 4 in the last experiment. Does the shared decoder still draw ada?
# 2. What would a third person cost in parameters? In training time?
# 3. Why does fslab's decoder draw a fourth channel?
#
# ## Further reading · 延伸阅读
#
# - Odena, Dumoulin & Olah (2016), *Deconvolution and checkerboard artifacts*, [Distill](https://distill.pub/2016/deconv-checkerboard/)
# - Shi et al. (2016), *Real-time single image and video super-resolution using an efficient sub-pixel CNN*, [arXiv:1609.05158](https://arxiv.org/abs/1609.05158)
# - Naruniec et al. (2020), *High-resolution neural face swapping for visual effects*, Computer Graphics Forum 39(4)
#
# Next: [05 losses](05_losses.ipynb), what each loss rewards.
