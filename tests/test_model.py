import logging
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import timm
import torch
from safetensors.torch import load_file

from fslab.decoders import Decoder, DecoderShape, ResBlock, Upsample, count_doublings, icnr_
from fslab.encoders import (
    TimmEncoder,
    _hub_answers,
    _is_cached,
    backbone_stages,
    drop_unused,
    load_pretrained,
    probe_encoder,
)
from fslab.errors import RunError
from fslab.model import PRESETS, ModelConfig, SwapAutoencoder, build_encoder
from fslab.weights import weights_path

MOBILENET = "mobilenetv2_100"


def count_mflop(model, size):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.zeros(1, 3, size, size), model.identities[0])
    return counter.get_total_flops() / 1e6


def test_the_classic_encoder_has_the_classic_layers():
    encoder = build_encoder(PRESETS["fakeapp"][0])
    convs = [encoder.conv1, encoder.conv2, encoder.conv3]
    assert [c.weight.shape for c in convs] == [(64, 3, 3, 3), (128, 64, 3, 3), (256, 128, 3, 3)]
    assert all(c.stride == (1, 1) and c.padding == (1, 1) for c in convs)
    assert encoder.code.weight.shape == (64, 256, 1, 1)
    with torch.inference_mode():
        assert encoder(torch.zeros(1, 3, 256, 256)).shape == (1, 64, 32, 32)


def test_the_classic_decoder_has_the_classic_layers():
    decoder = SwapAutoencoder(PRESETS["fakeapp"][0], ["ada"]).decoders[0]
    ups = [m.conv for m in decoder.ups if isinstance(m, Upsample)]
    assert [type(u) for u in ups] == [torch.nn.ConvTranspose2d] * 3
    assert [u.out_channels for u in ups] == [256, 128, 64]
    assert decoder.head.kernel_size == (1, 1)


def test_icnr_starts_as_nearest_neighbour_enlargement():
    up = Upsample("shuffle", 4, 3)
    small = torch.randn(1, 4, 5, 5)
    with torch.inference_mode():
        large = up(small)
    assert torch.allclose(large, large[:, :, ::2, ::2].repeat_interleave(2, 2).repeat_interleave(2, 3), atol=1e-6)


def test_icnr_keeps_the_shape_and_fills_in_place():
    weight = torch.zeros(8, 2, 3, 3)
    assert icnr_(weight) is weight
    assert float(weight.abs().min()) > 0


@pytest.mark.parametrize("kind", ["shuffle", "bilinear", "transpose"])
def test_every_decoder_doubles_the_code_to_full_size(kind):
    decoder = Decoder(DecoderShape(16, 8, kind, 4, blocks=1, dropout=0.1))
    assert decoder(torch.zeros(2, 8, 4, 4)).shape == (2, 4, 64, 64)


@pytest.mark.parametrize("patch", [2, 4, 5, 6])
def test_finer_blocks_give_finer_pictures_from_the_same_code(patch):
    config = ModelConfig(size=32 * patch, patch=patch, width=8, latent_channels=16)
    model = SwapAutoencoder(config, ["ada"]).eval()
    x = torch.rand(1, 3, 32 * patch, 32 * patch)
    assert model.encode(x).shape == (1, 16, 8, 8)
    assert model(x, "ada")[0].shape == x.shape
    with pytest.raises(ValueError, match="multiple of 4 times patch"):
        replace(config, size=32 * patch + 4)


def test_a_residual_block_starts_as_its_activation():
    x = torch.rand(1, 3, 4, 4)
    assert torch.allclose(ResBlock(3)(x), x)


@pytest.mark.parametrize("value_range", ["0..1", "-1..1"])
@pytest.mark.parametrize("size", [64, 80])
def test_pictures_and_masks_are_of_full_size_and_in_range(size, value_range):
    config = ModelConfig(size=size, width=8, latent_channels=16, value_range=value_range)
    model = SwapAutoencoder(config, ["ada", "dan"]).eval()
    rgb, mask = model(torch.rand(2, 3, size, size), "dan")
    assert rgb.shape == (2, 3, size, size)
    assert mask.shape == (2, 1, size, size)
    for tensor in (rgb, mask):
        assert 0 <= tensor.min().item() <= tensor.max().item() <= 1


def test_each_person_has_a_decoder_and_all_share_the_encoder():
    model = SwapAutoencoder(ModelConfig(size=64, width=8, latent_channels=16), ["ada", "dan", "eve.2"]).eval()
    x = torch.rand(1, 3, 64, 64)
    z = model.encode(x)
    pictures = [model.decode(z, name)[0] for name in model.identities]
    assert not torch.allclose(pictures[0], pictures[1])
    assert not torch.allclose(pictures[1], pictures[2])
    model.decode(z, "dan")[0].sum().backward()
    has_gradient = [next(d.parameters()).grad is not None for d in model.decoders]
    assert has_gradient == [False, True, False]
    assert next(model.encoder.parameters()).grad is not None


def test_without_a_mask_channel_the_mask_is_one_everywhere():
    model = SwapAutoencoder(ModelConfig(size=64, width=8, draw_mask=False), ["ada"])
    assert float(model(torch.rand(1, 3, 64, 64), "ada")[1].min()) == 1


def test_dropout_acts_in_training_only():
    model = SwapAutoencoder(ModelConfig(size=64, width=8, dropout=0.5), ["ada"])
    x = torch.rand(1, 3, 64, 64)
    assert not torch.equal(model.train()(x, "ada")[0], model(x, "ada")[0])
    assert torch.equal(model.eval()(x, "ada")[0], model(x, "ada")[0])


def test_the_tiny_preset_stays_cheap_and_every_preset_can_be_built():
    tiny = PRESETS["tiny"][0]
    assert tiny.size == 128
    assert count_mflop(SwapAutoencoder(tiny, ["ada"]).eval(), tiny.size) <= 800
    assert [PRESETS[n][0].size for n in ("small", "full", "fakeapp")] == [160, 256, 256]
    for config, _ in PRESETS.values():
        SwapAutoencoder(replace(config, pretrained=False), ["ada", "dan"])


@pytest.mark.parametrize("size", [64, 80, 96, 128])
def test_mobilenet_is_probed_to_a_map_of_at_least_four_by_four(size):
    probe = probe_encoder(MOBILENET, size)
    assert probe.stride == (16 if size // 16 >= 4 else 8)
    assert size // probe.stride >= 4
    assert probe.mean == pytest.approx((0.485, 0.456, 0.406))
    assert probe.std == pytest.approx((0.229, 0.224, 0.225))


def test_a_backbone_of_other_normalisation_brings_its_own():
    probe = probe_encoder("tf_efficientnet_lite0", 64)
    assert probe.mean == probe.std == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("swin_tiny_patch4_window7_224", "swin_tiny"),
        ("vit_tiny_patch16_224", "vit_tiny"),
        ("no_such_net", "no_such_net"),
        ("vgg11_tf_unknown", "vgg11_tf_unknown"),
    ],
)
def test_unfit_backbones_are_refused_in_one_sentence(name, message):
    with pytest.raises(RunError, match=message) as error:
        probe_encoder(name, 80)
    assert "\n" not in str(error.value)


def test_maps_with_channels_last_are_refused_and_not_misread():
    with pytest.raises(RunError, match=r"swin_tiny.*\(1, 56, 56, 96\), not \(B, 96, H, H\)"):
        probe_encoder("swin_tiny_patch4_window7_224", 224)


def test_mobilenet_uses_the_weights_that_ship_and_normalises_inside():
    encoder = TimmEncoder(MOBILENET, 64, 32, pretrained=True)
    assert encoder.weights == "packaged"
    x = torch.rand(1, 3, 64, 64)
    seen = []
    encoder.net.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    assert encoder(x).shape == (1, 32, 4, 4)
    assert torch.allclose(seen[0][0, 0], (x[0, 0] - 0.485) / 0.229, atol=1e-5)


def test_pretrained_weights_are_not_the_random_ones():
    torch.manual_seed(0)
    random = TimmEncoder(MOBILENET, 64, 32, pretrained=False)
    packaged = TimmEncoder(MOBILENET, 64, 32, pretrained=True)
    assert random.weights == "random"
    assert float((random.net.state_dict()["bn1.weight"] - 1).abs().max()) == 0
    assert float((packaged.net.state_dict()["bn1.weight"] - 1).abs().max()) > 0


def test_batch_normalisation_of_a_backbone_never_moves():
    model = SwapAutoencoder(ModelConfig(size=64, encoder=f"timm:{MOBILENET}", width=8), ["ada"]).train()
    before = model.encoder.net.state_dict()["bn1.running_mean"].clone()
    model(torch.rand(4, 3, 64, 64), "ada")
    assert torch.equal(before, model.encoder.net.state_dict()["bn1.running_mean"])
    assert model.encoder.training


def test_pretrained_weights_stay_pretrained_and_uncalibrated():
    """Statistics measured on noise must never replace those that came with the weights."""
    shipped = load_file(weights_path(f"{MOBILENET}.safetensors"))
    state = TimmEncoder(MOBILENET, 64, 32, pretrained=True).net.state_dict()
    assert len(state) > 100
    assert all(torch.equal(v, shipped[k].to(v.dtype)) for k, v in state.items() if not k.endswith("tracked"))


@pytest.mark.parametrize("name", ["efficientnet_b0", "lcnet_100", "mobileone_s0"])
def test_a_random_backbone_neither_drowns_nor_drowns_out_what_it_sees(name):
    x = torch.nn.functional.interpolate(torch.rand(8, 3, 9, 9), (64, 64), mode="bicubic")
    torch.manual_seed(0)
    encoder = TimmEncoder(name, 64, 8, pretrained=False).train()
    bare = timm.create_model(name, pretrained=False, features_only=True, out_indices=(3,)).eval()
    with torch.inference_mode():
        spread, before = (float(net((x - encoder.mean) / encoder.std)[-1].std(0).mean()) for net in (encoder.net, bare))
    assert 0.02 < spread < 20
    assert not 0.02 < before < 20  # what it is for


def test_calibration_is_the_same_each_time_and_leaves_randomness_and_momentum_alone():
    torch.manual_seed(0)
    first = TimmEncoder("resnet10t", 64, 8, pretrained=False)
    after = torch.rand(1)
    torch.manual_seed(0)
    second = TimmEncoder("resnet10t", 64, 8, pretrained=False)
    assert torch.equal(torch.rand(1), after)
    assert all(torch.equal(a, b) for a, b in zip(first.buffers(), second.buffers()))
    assert {m.momentum for m in first.net.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.1}


@pytest.mark.parametrize("name", [MOBILENET, "mobilenetv4_conv_small", "resnet18"])
def test_blocks_behind_the_map_are_dropped_and_the_map_stays(name):
    net = timm.create_model(name, pretrained=False, features_only=True, out_indices=(3,)).eval()
    x, before = torch.rand(1, 3, 64, 64), sum(p.numel() for p in net.parameters())
    with torch.inference_mode():
        wanted = net(x)[0]
        drop_unused(net)
        assert torch.equal(net(x)[0], wanted)
    after = sum(p.numel() for p in net.parameters())
    assert after < 0.5 * before if name != "resnet18" else after == before
    net(x)[0].sum().backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize(
    ("name", "firsts"),
    [
        ("resnet18", ["conv1", "layer1", "layer2", "layer3"]),
        (MOBILENET, ["conv_stem", "blocks.1", "blocks.2", "blocks.3"]),
        ("convnext_atto", ["stem_0", "stages_1", "stages_2"]),
    ],
)
def test_stages_cut_a_backbone_where_its_maps_are(name, firsts):
    net = TimmEncoder(name, 128, 8, pretrained=False).net
    names, stages = {id(p): k for k, p in net.named_parameters()}, backbone_stages(net)
    assert [names[id(s[0])].startswith(f) for s, f in zip(stages, firsts, strict=True)] == [True] * len(firsts)
    assert sorted(names[id(p)] for s in stages for p in s) == sorted(names.values())


def test_a_missing_download_is_announced_and_never_silent(monkeypatch, caplog, tmp_path):
    def offline(*args, **kwargs):
        raise OSError("no network")

    net = timm.create_model("resnet18", pretrained=False, features_only=True, out_indices=(3,))
    monkeypatch.setattr("fslab.encoders.timm.create_model", offline)
    monkeypatch.setattr("fslab.encoders._hub_answers", lambda: True)
    with caplog.at_level(logging.WARNING):
        assert load_pretrained(net, "resnet18", (3,)) == "random"
    assert "random" in caplog.text
    assert "no network" in caplog.text


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "http://nowhere.invalid", "nonsense"])
def test_a_hub_that_does_not_answer_costs_no_minute(monkeypatch, caplog, address):
    monkeypatch.setattr("fslab.encoders.ENDPOINT", address)
    net = timm.create_model("resnet10t", pretrained=False, features_only=True, out_indices=(3,))
    started = time.monotonic()
    with caplog.at_level(logging.WARNING):
        assert load_pretrained(net, "resnet10t", (3,)) == "random"
    assert time.monotonic() - started < 6
    assert "does not answer" in caplog.text


def test_any_answer_of_the_hub_is_an_answer(monkeypatch):
    class Refuse(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_error(403)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Refuse) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        monkeypatch.setattr("fslab.encoders.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        assert _hub_answers()


def test_weights_that_were_downloaded_before_are_known(monkeypatch):
    seen = []
    monkeypatch.setattr("fslab.encoders.try_to_load_from_cache", lambda *a: seen.append(a) or "there")
    assert _is_cached("resnet18")
    assert seen[0] == ("timm/resnet18.a1_in1k", "model.safetensors")


def test_a_model_says_where_its_encoder_came_from():
    config = ModelConfig(size=64, encoder=f"timm:{MOBILENET}", width=8)
    assert SwapAutoencoder(config, ["ada"]).encoder_weights == "packaged"
    assert SwapAutoencoder(replace(config, pretrained=False), ["ada"]).encoder_weights == "random"
    assert SwapAutoencoder(ModelConfig(size=64, width=8), ["ada"]).encoder_weights == "random"


def test_pictures_of_another_size_and_unknown_people_are_refused():
    model = SwapAutoencoder(ModelConfig(size=64, width=8), ["ada", "dan"])
    with pytest.raises(ValueError, match="64, 64"):
        model(torch.rand(1, 3, 80, 80), "ada")
    with pytest.raises(ValueError, match="eve"):
        model(torch.rand(1, 3, 64, 64), "eve")
    with pytest.raises(ValueError, match="distinct"):
        SwapAutoencoder(ModelConfig(size=64, width=8), ["ada", "ada"])


@pytest.mark.parametrize("change", [{"size": 70}, {"size": 16}, {"encoder": "resnet18"}, {"width": 0}, {"dropout": 1}])
def test_impossible_shapes_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(ModelConfig(), **change)


def test_a_stride_that_is_no_power_of_two_is_refused():
    assert count_doublings(16) == 4
    with pytest.raises(ValueError, match="power of two"):
        count_doublings(12)


def test_the_same_seed_gives_the_same_network():
    def build():
        torch.manual_seed(5)
        return SwapAutoencoder(ModelConfig(size=64, width=8), ["ada", "dan"])

    a, b = build().state_dict(), build().state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
