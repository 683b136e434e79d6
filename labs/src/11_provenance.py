# %% [markdown]
# # 11 Provenance · 来源
#
# **Who agreed, and can a viewer tell?**  谁同意了？观众能看出来吗？
#
# A swap that nobody can tell from footage is a lie as soon as it leaves your hands. fslab makes two things part of the pipeline: consent goes in
# as an argument, marks come out with every file. You write a record, swap, look at the marks, break them one by one, and train a detector to
# see how little a detector can promise.
#
# *Time: 4 minutes on a CPU. Reads: the packaged run and clips. Writes: files in `work/provenance`.*

# %%
import json
import shutil
from dataclasses import replace
from datetime import date

import cv2
import numpy as np
import torch
from torch import nn

# %%
from fslab.consent import Consent, require_consent
from fslab.errors import FslabError
from fslab.faces import find_faces
from fslab.geometry import align_matrix, crop_from_frame
from fslab.label import VisibleLabel
from fslab.labs import FAST, WORK, check, packaged_run, read_clip, show, source_of
from fslab.media import RgbFrame, read_image, read_marks, write_image
from fslab.provenance import sidecar_path, verify
from fslab.swap import Swapper, swap_image
from fslab.viz import image_grid

# %%
home = WORK / "provenance"
shutil.rmtree(home, ignore_errors=True)
home.mkdir(parents=True)

# %% [markdown]
# ## 1 Consent is an argument · 同意书是参数
#
# A record says who, to what (training, swapping, publishing), how it was confirmed, until when. Extraction, training and swapping take it and refuse
# without it.
#
# **Predict.** Which of these requests is refused, and with which words?

# %%
today = date.today()
eve = Consent("eve", "Eve, in person", today.isoformat(), ("training",), today.replace(year=today.year + 1).isoformat())
for who, record, scope in (
    ("eve", eve, "training"),
    ("eve", eve, "publishing"),
    ("ada", eve, "training"),
    ("eve", replace(eve, expires="2020-01-01", date="2019-01-01"), "training"),
):
    try:
        require_consent(record, who, scope)
        print(f"{scope} with {who}: yes")
    except FslabError as refusal:
        print(f"{scope} with {who}: {refusal}")

# %% [markdown]
# ## 2 Marks come out · 标记随文件而出
#
# Every way out of fslab writes the same things: a visible label in the picture; `DigitalSourceType` (IPTC) and `AIGC` (China's GB 45438-2025) in its
# metadata; a manifest with hashes of what went in and who agreed, inside the file and beside it.

# %%
write_image(home / "ada.png", read_clip("ada_target.mp4", 1)[0])
swap_image(Swapper(packaged_run(), "dan"), home / "ada.png", home / "swap.png", "ada")
show(read_image(home / "swap.png"), "a marked swap", 360)
for layer in verify(home / "swap.png").layers:
    print(f"{layer.name:>14}: {layer.state:<8} {layer.note}")

# %%
manifest = json.loads(sidecar_path(home / "swap.png").read_text())["manifest"]
print(json.dumps({k: manifest[k] for k in ("action", "inputs", "consents", "created")}, indent=1)[:900])

# %% [markdown]
# ## 3 Break them · 破坏标记
#
# **Predict.** For each of these: marked, broken or no mark?

# %%
picture = read_image(home / "swap.png")


def my_copy(name, change=lambda p: p, side=True):
    path = home / name
    shutil.copy(home / "swap.png", path)
    if side:
        sidecar_path(path).write_bytes(sidecar_path(home / "swap.png").read_bytes())
    change(path)
    return path


# %%
def my_repaint(path):
    marks = read_marks(path)
    changed = picture.copy()
    x0, y0, x1, y1 = VisibleLabel(picture.shape[:2]).box
    changed[y0:y1, x0:x1] = changed[y0 - (y1 - y0) : y0, x0:x1]
    write_image(path, changed, marks["xmp"], marks["tags"])


# %%
files = {
    "renamed, alone": my_copy("renamed.png", side=False),
    "one byte added": my_copy("byte.png", lambda p: p.write_bytes(p.read_bytes() + b"\0")),
    "saved again by another program": my_copy(
        "again.png", lambda p: cv2.imwrite(str(p), picture[..., ::-1]), side=False
    ),
    "label painted over": my_copy("painted.png", my_repaint),
    "screenshot, cropped": my_copy("cropped.png", lambda p: cv2.imwrite(str(p), picture[:300, :300, ::-1]), side=False),
}
for name, path in files.items():
    print(f"{name:>31}: {verify(path).state}")
show(
    image_grid([[read_image(p) for p in files.values()]], (), [verify(p).state for p in files.values()], cell=180),
    "five files",
)

# %% [markdown]
# **The failure case.** The last one. Whoever wants to can cut the label off and save the pixels anew: nothing here survives that. Marks help honest
# people stay honest, and let platforms recognise what was not hidden on purpose. They are no lock.
#
# ### Exercise 1 · 练习 1
#
# A hash ties a manifest to a file. Write the SHA-256 of a file's bytes as hex, and return its first 8 digits as a number.


# %%
def my_fingerprint(path):
    raise NotImplementedError


from fslab.storage import sha256_file

check(my_fingerprint, lambda p: int(sha256_file(p)[:8], 16), (home / "ada.png",), (home / "swap.png",))

# %% [markdown]
# ## 4 Can a network tell? · 网络能分辨吗？
#
# Detectors are trained on swaps and untouched frames. Here: a tiny one, on faces of the packaged clip, tested on later frames, then on the same faces
# compressed.
#
# **Predict.** How well does it do on frames like its training? And after JPEG at quality 40?

# %%
frames = read_clip("ada_target.mp4", 24 if FAST else 72, 3 if FAST else 1)
swapper, real, fake = Swapper(packaged_run(), "dan"), [], []
for picture in frames:
    frame = RgbFrame(picture.copy())
    face = find_faces(frame)[0]
    matrix = align_matrix(face.landmarks, 96, 0.64)
    real.append(crop_from_frame(frame, matrix, 96))
    swapper.blend(frame, swapper.convert([swapper.align(frame, face)])[0])
    fake.append(crop_from_frame(frame, matrix, 96))

# %%
x = torch.from_numpy(np.stack([*real, *fake])).permute(0, 3, 1, 2).float() / 255
y = torch.cat([torch.zeros(len(real)), torch.ones(len(fake))])
n, torch_seed = len(real), torch.manual_seed(0)
first = torch.cat([torch.arange(n * 2 // 3), n + torch.arange(n * 2 // 3)])
later = torch.cat([torch.arange(n * 2 // 3, n), n + torch.arange(n * 2 // 3, n)])

# %%
detector = nn.Sequential(
    nn.Conv2d(3, 16, 5, 2),
    nn.ReLU(),
    nn.Conv2d(16, 32, 5, 2),
    nn.ReLU(),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Linear(32, 1),
)

# %%
optimizer = torch.optim.AdamW(detector.parameters(), 3e-3)
for _ in range(60 if FAST else 150):
    loss = nn.functional.binary_cross_entropy_with_logits(detector(x[first])[:, 0], y[first])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


# %%
def my_jpeg(batch, quality):
    out = []
    for p in (batch.permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8):
        _, data = cv2.imencode(".jpg", p, [cv2.IMWRITE_JPEG_QUALITY, quality])
        out.append(cv2.imdecode(data, cv2.IMREAD_COLOR))
    return torch.from_numpy(np.stack(out)).permute(0, 3, 1, 2).float() / 255


# %%
def my_right(batch, wanted):
    with torch.inference_mode():
        return float(((detector(batch)[:, 0] > 0) == (wanted > 0.5)).float().mean())


print(
    f"later frames: {my_right(x[later], y[later]):.0%} right; the same at JPEG 40: {my_right(my_jpeg(x[later], 40), y[later]):.0%}"
)
sharper = (x[later] + 0.8 * (x[later] - nn.functional.avg_pool2d(x[later], 3, 1, 1))).clamp(0, 1)
print(f"sharpened a little: {my_right(sharper, y[later]):.0%}")

# %% [markdown]
# It learnt how soft this network draws, not what a swap is. Detectors carry over badly to other tools, other people, other compression: a mark that says
# so honestly is worth more than a guess.
#
# ### Exercise 2 · 练习 2
#
# The area under the ROC curve is the chance that a random fake scores higher than a random real one. Write it for two arrays of scores (ties count half).


# %%
def my_auc(real_scores, fake_scores):
    raise NotImplementedError


def my_auc_reference(a, b):
    return np.mean((b[:, None] > a[None]) + 0.5 * (b[:, None] == a[None]))


scores = np.random.default_rng(0).normal(size=(2, 40)).round(1)
check(my_auc, my_auc_reference, (scores[0], scores[1] + 0.5), (scores[0], scores[0]))

# %% [markdown]
# ## 5 The law in one page · 一页法律
#
# | where | what it asks | source |
# |---|---|---|
# | EU | whoever makes or spreads a deepfake discloses it, and the output is marked in a machine-readable way | Regulation (EU) 2024/1689 (AI Act), Article 50 |
# | China | visible and metadata labels on generated content; the label's size and place are prescribed | GB 45438-2025; Measures for labelling AI-generated content (2025) |
# | China | separate consent of the person whose face is edited | Provisions on deep synthesis (2022), Article 14 |
# | UK, many US states | intimate deepfakes without consent are a crime | Online Safety Act 2023; TAKE IT DOWN Act (2025) |
#
# This is no legal advice: read the texts, ask somebody who knows. The rule that never fails: the people shown agreed to this, and whoever watches can tell.

# %%
source_of(require_consent)

# %% [markdown]
# ## Summary · 小结
#
# 1. Consent is data: who, what for, until when; code can check it, and does.
# 2. Marks are made in layers, because each is lost in another way.
# 3. Verification says what it found, never "this is real".
# 4. A detector learns one tool's fingerprints.
# 5. The law asks for what decency asks for.
#
# **中文小结**
#
# 1. 同意是数据：谁、为了什么、到何时；代码可以、也确实会检查。
# 2. 标记分层，因为每一层的丢失方式不同。
# 3. 验证只说发现了什么，从不说“这是真的”。
# 4. 检测器学到的是某个工具的指纹。
# 5. 法律的要求就是体面的要求。
#
# ## Questions · 思考题
#
# 1. Who should be able to revoke a consent, and what must happen to files that exist?
# 2. What does "no mark found" allow you to conclude?
# 3. Where would you put the label if the platform crops to a square?
#
# ## Further reading · 延伸阅读
#
# - C2PA, *Content Credentials: technical specification*, <https://c2pa.org>
# - IPTC, *Digital Source Type vocabulary*, <https://cv.iptc.org/newscodes/digitalsourcetype/>
# - Regulation (EU) 2024/1689, Article 50; GB 45438-2025
#
# Next: [12 ship](12_ship.ipynb), how it reaches others.
