from dataclasses import replace

import pytest
import torch
from drawn_people import drawn_faceset

from fslab.base import Base, BaseModel, fit_vectors, misfits, start_from_base
from fslab.dataset import DataConfig
from fslab.decoders import Decoder, DecoderShape
from fslab.errors import RunError
from fslab.losses import LossConfig
from fslab.model import ModelConfig, SwapAutoencoder
from fslab.run import Run
from fslab.train import TrainConfig, train

TINY = ModelConfig(size=32, width=8, latent_channels=16, blocks=1, encoder_blocks=1, patch=2, pretrained=False)


def base_model(style=6, n_people=3, seed=0):
    torch.manual_seed(seed)
    model = BaseModel(TINY, style, n_people)
    for p in model.decoder.parameters():  # residual blocks start as the identity, which would hide their styles
        torch.nn.init.normal_(p, 0, 0.1)
    if style:
        torch.nn.init.normal_(model.to_style.weight, 0, 0.3)
    return model.eval().requires_grad_(False)


def test_a_base_that_is_not_there_is_told_with_what_there_is(tmp_path):
    with pytest.raises(RunError, match=r"expected a base model at .*nobody.*found none.*fslab pretrain"):
        Base.load(tmp_path / "nobody.safetensors")


@pytest.mark.parametrize("kind", ["shuffle", "bilinear", "transpose"])
def test_a_style_that_is_worked_in_draws_the_same(kind):
    torch.manual_seed(0)
    decoder = Decoder(DecoderShape(8, 12, kind, 8, 2, patch=2))
    for p in decoder.parameters():
        torch.nn.init.normal_(p, 0, 0.2)
    style = [(torch.randn(1, w, 1, 1) * 0.5, torch.randn(1, w, 1, 1) * 0.5) for w in decoder.style_widths]
    z = torch.randn(2, 12, 4, 4)
    with torch.no_grad():
        plain, wanted = decoder(z), decoder(z, style)
        decoder.fold(style)
        assert torch.allclose(decoder(z), wanted, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(plain, wanted, atol=1e-2)


def test_people_start_from_the_base_as_their_vectors_say():
    base = base_model()
    model = SwapAutoencoder(TINY, ["ada", "dan"]).eval()
    vectors = torch.randn(2, 6)
    start_from_base(model, base, vectors)
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        for i, name in enumerate(("ada", "dan")):
            wanted, mask = base.draw(base.encode(x), vectors[i : i + 1].expand(2, -1))
            rgb, own = model(x, name)
            assert torch.allclose(rgb, wanted, atol=1e-5)
            assert torch.allclose(own, mask, atol=1e-5)
        assert (model(x, "ada")[0] - model(x, "dan")[0]).abs().max() > 0.01


def test_a_fitted_vector_finds_back_whom_the_base_draws():
    base, wanted = base_model(), torch.tensor([[1.0, -0.5, 0.3, 0.8, -1.0, 0.2]])
    generator = torch.Generator().manual_seed(1)

    def batch(n, g):
        x = torch.rand((n, 3, 32, 32), generator=g)
        with torch.no_grad():
            target, _ = base.draw(base.encode(x), wanted.expand(n, -1))
        ones = torch.ones(n, 1, 32, 32)
        return type("Batch", (), {"input": x, "target": target, "weight": ones, "mask": ones})

    def error(vectors):
        own = batch(16, torch.Generator().manual_seed(2))
        with torch.no_grad():
            return float((base.draw(base.encode(own.input), vectors.expand(16, -1))[0] - own.target).abs().mean())

    found = fit_vectors(base, [batch], LossConfig(), generator)
    assert found.shape == (1, 6)
    assert error(found) < 0.5 * error(base.average()[None])
    assert fit_vectors(base_model(style=0), [batch], LossConfig(), generator) is None


def test_a_base_reads_back_in_half_precision(tmp_path):
    base = Base(base_model(), 0.6, {"people": 3})
    base.save(tmp_path / "base.safetensors")
    again = Base.load(tmp_path / "base.safetensors")
    assert (again.coverage, again.card, again.model.config) == (0.6, {"people": 3}, TINY)
    for name, value in base.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value.half().float()), name
    assert (tmp_path / "base.safetensors").stat().st_size < 2.5 * sum(p.numel() for p in base.model.parameters())


def test_what_is_no_base_is_refused(tmp_path):
    with pytest.raises(RunError, match="none"):
        Base.load(tmp_path / "nothing.safetensors")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(RunError, match="damaged"):
        Base.load(tmp_path / "text")
    base = Base(base_model(), 0.6, {})
    assert misfits(base, TINY, 0.6) == {}
    assert misfits(base, replace(TINY, width=16, dropout=0.1), 0.5) == {"width": (8, 16), "coverage": (0.6, 0.5)}


@pytest.fixture
def people(tmp_path):
    return [drawn_faceset(tmp_path / name, name, size=48) for name in ("ada", "dan")]


def config(base, **changes):
    data = DataConfig(margin=1.0)
    return TrainConfig(steps=3, batch=2, base=str(base), device="cpu", precision="fp32", data=data, **changes)


def test_training_starts_from_a_base_and_goes_on_without_it(people, tmp_path):
    path = tmp_path / "base.safetensors"
    Base(base_model(), people[0].coverage, {}).save(path)
    run = train(people, tmp_path / "run", TINY, config(path))
    assert run.encoder_weights == "base"
    frozen = train(people, tmp_path / "frozen", TINY, config(path, encoder_lr=0.0))
    for name, value in frozen.model.encoder.state_dict().items():
        assert torch.equal(value, Base.load(path).model.encoder.state_dict()[name]), name
    path.unlink()
    run = train(people, tmp_path / "run", TINY, replace(config(path), steps=5))
    assert (run.step, Run.load(tmp_path / "run").encoder_weights) == (5, "base")


def test_a_base_of_another_shape_is_refused_before_anything_is_written(people, tmp_path):
    path = tmp_path / "base.safetensors"
    Base(base_model(), people[0].coverage, {}).save(path)
    with pytest.raises(RunError, match=r"the shape of the base .* \(width 8\), found width 16; .*--base none"):
        train(people, tmp_path / "run", replace(TINY, width=16), config(path))
    assert not (tmp_path / "run").exists()
