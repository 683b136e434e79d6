# %% [markdown]
# # 12 Ship · 发布
#
# **How does it reach others?**  如何交到别人手里？
#
# A run on your disk is of use to you. Others need it small, safe to open, in a page they can use on a phone; and nobody must be able to use it for what
# the people in it did not agree to.
#
# *Time: 2 minutes on a CPU. Reads: the packaged run. Writes: a staged Space in `work/ship`.*

# %%
import json
import shutil
import struct
import time

import numpy as np
import torch

from fslab.errors import FslabError

# %%
from fslab.labs import WORK, check, packaged_run, read_clip, show_swap, source_of
from fslab.run import Run
from fslab.space import check_packaged, pack_run, stage_space
from fslab.swap import Swapper
from fslab.webapp.settings import AppSettings

home = WORK / "ship"
shutil.rmtree(home, ignore_errors=True)
home.mkdir(parents=True)
run = packaged_run()

# %% [markdown]
# ## 1 Small · 变小
#
# What training needs (optimiser, newest weights, log) stays at home. What a swap needs is the weights, and half precision is enough.
#
# **Predict.** float16 keeps 11 bits of a number. By how many grey levels do the pictures change?

# %%
pack_run(run, home / "packed")
sizes = {p.name: round(p.stat().st_size / 1e6, 2) for p in sorted((home / "packed").iterdir())}
full = sum(p.numel() for p in run.model.parameters()) * 4 / 1e6
print(f"float32 would be {full:.1f} MB; packed: {sizes}")
faces = torch.rand(2, 3, run.model_config.size, run.model_config.size)
with torch.inference_mode():
    exact = run.model(faces, "dan")[0]
    rounded = Run.load(home / "packed").model(faces, "dan")[0]
print(f"largest difference: {255 * float((exact - rounded).abs().max()):.2f} grey levels")

# %% [markdown]
# ## 2 Safe to open · 安全地打开
#
# A pickle is a program: loading one runs it. `safetensors` is a length, a JSON header and numbers. Read one by hand:

# %%
weights = next((home / "packed").glob("*.safetensors")).read_bytes()
(length,) = struct.unpack("<Q", weights[:8])
header = json.loads(weights[8 : 8 + length])
for name in list(header)[:4]:
    print(name, str(header[name])[:90])

# %% [markdown]
# **Predict.** Three files follow: cut short, with a lie in the header, with one bit flipped. Which of them load?
#
# **The failure case.** A file that was damaged, or made to do harm, must end in a sentence and not in a crash.

# %%
bad = home / "bad"
for title, change in (
    ("cut short", lambda b: b[:-1000]),
    ("a lying header", lambda b: struct.pack("<Q", 10**12) + b[8:]),
    ("one bit flipped", lambda b: b[:-5] + bytes([b[-5] ^ 1]) + b[-4:]),
):
    shutil.rmtree(bad, ignore_errors=True)
    shutil.copytree(home / "packed", bad)
    victim = next(bad.glob("*.safetensors"))
    victim.write_bytes(change(weights))
    try:
        Run.load(bad)
        print(f"{title}: loaded")
    except FslabError as refusal:
        print(f"{title}: {refusal}"[:150])

# %% [markdown]
# ### Exercise 1 · 练习 1
#
# How many numbers does a `safetensors` file hold? Write it from the header alone: the product of each tensor's `shape`, summed (`__metadata__` is no tensor).


# %%
def my_count(data):
    raise NotImplementedError


def my_answer(data):
    (n,) = struct.unpack("<Q", data[:8])
    return sum(int(np.prod(v["shape"])) for k, v in json.loads(data[8 : 8 + n]).items() if k != "__metadata__")


check(my_count, my_answer, (weights,))

# %% [markdown]
# ## 3 Whose run may be shared? · 谁的模型可以分享？
#
# `check_packaged` lets a run go to a public page only if everybody in it is synthetic and agreed to swapping and publishing.
#
# **Predict.** Change one word in ada's consent record: what is refused?

# %%
check_packaged(home / "packed")
real = home / "real"
shutil.copytree(home / "packed", real)
about = json.loads((real / "config.json").read_text())
about["consents"]["ada"]["synthetic"] = False
(real / "config.json").write_text(json.dumps(about))
try:
    check_packaged(real)
except FslabError as refusal:
    print(refusal)

# %% [markdown]
# ## 4 A page · 一个网页
#
# `fslab app` serves the whole lab to a browser on this machine. For strangers there is a preset with limits, and a Space stages itself: code, samples,
# the packaged run, a card that says what it is and is not.

# %%
own, public = AppSettings(home=home / "app"), AppSettings.for_public(home=home / "app")
for name in ("train_allowed", "max_upload_mb", "max_seconds", "keep_hours", "max_jobs_visitor", "requests_per_minute"):
    print(f"{name:>20}: at home {getattr(own, name)}, for strangers {getattr(public, name)}")

# %%
try:
    staged = stage_space(home / "space")
    print(
        f"{len(staged)} files, {sum(f.size for f in staged) / 1e6:.0f} MB; the largest:",
        *sorted((f.size, f.name) for f in staged)[-3:],
        sep="\n  ",
    )
    print((home / "space" / "README.md").read_text()[:420])
except FslabError as refusal:  # installed without its checkout
    print(refusal)

# %% [markdown]
# ### Exercise 2 · 练习 2
#
# A limit per visitor: allow `most` calls in any 60 seconds. Given the times of all calls (seconds, rising), return for each whether it is let through
# (refused calls do not count).


# %%
def my_limiter(times, most):
    raise NotImplementedError


def my_fair_limiter(times, most):
    let = []
    for t in times:
        let.append((t, sum(ok for s, ok in let if t - s < 60) < most))
    return [ok for _, ok in let]


check(my_limiter, my_fair_limiter, ([0, 1, 2, 3, 61, 62], 3), (list(range(0, 200, 7)), 4))

# %% [markdown]
# ## 5 From Python · 用 Python 调用
#
# The page's steps are endpoints. With `fslab app` running elsewhere:
#
# ```python
# from gradio_client import Client, handle_file
#
# lab = Client("http://127.0.0.1:7860")
# me = lab.predict("", api_name="/enter")[-1]
# lab.predict(me, "packaged", "dan", "ada", handle_file("ada.png"), api_name="/swap_image")
# ```
#
# And what the visitor gets, timed here without a server:

# %%
from fslab.faces import find_faces
from fslab.media import RgbFrame

frame, swapper = RgbFrame(read_clip("ada_target.mp4", 1)[0]), Swapper(Run.load(home / "packed"), "dan")
began = time.perf_counter()
swapper.blend(frame, swapper.convert([swapper.align(frame, find_faces(frame)[0])])[0])
print(f"one picture: {time.perf_counter() - began:.2f} s")
show_swap(frame.rgb(), "what a visitor gets", 300)

# %%
source_of(pack_run)

# %% [markdown]
# ## Summary · 小结
#
# 1. Ship what a swap needs and nothing else.
# 2. Formats that cannot run code, checks before trust, sentences instead of crashes.
# 3. A public page shows synthetic people; a real face stays with those who agreed.
# 4. Strangers get small limits, no training, and files that vanish.
# 5. What you publish says what it is: in the picture, in the file, on the page.
#
# **中文小结**
#
# 1. 只发布换脸所需的内容。
# 2. 用不能执行代码的格式，先检查再信任，出错给一句话而不是崩溃。
# 3. 公开页面只用虚拟人物；真人的脸留在同意者之间。
# 4. 对陌生人：限制小、不训练、文件会消失。
# 5. 发布的东西要说明自己是什么：画面里、文件里、页面上。
#
# ## Questions · 思考题
#
# 1. Why does the Space's `requirements.txt` not pin torch to the newest version?
# 2. What could a visitor learn from another visitor's file names, if they were guessable?
# 3. Which of your own runs would you share, with whom, and who has to agree?
#
# ## Further reading · 延伸阅读
#
# - Hugging Face, *Spaces* and *safetensors*, <https://huggingface.co/docs>
# - OWASP, *File upload cheat sheet*, <https://cheatsheetseries.owasp.org>
# - Mitchell et al. (2019), *Model cards for model reporting*, [arXiv:1810.03993](https://arxiv.org/abs/1810.03993)
#
# You have reached the end of the course: swap two people who agreed, and tell everybody that you did.
