"""The two-stream AGW ResNet-50 (checks B and G of baseline.md, and its parameter counts)."""

from __future__ import annotations

from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import ResNet50_Weights, resnet50

from harness.errors import ContractError, SettingsError, WeightsError
from harness.models.agw import AgwResNet50, build_agw
from harness.models.layers import BNNeck, GeM, GroupedBatchNorm1d, GroupedBatchNorm2d, NonLocalBlock


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def plain():
    return build_agw(seed=0, pretrained=False)


def images(count, *, height=64, width=32, seed=0):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def codes(*modality):
    return torch.tensor(modality)


def parameters(module, *, trainable=False):
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)


def test_parameter_counts_are_those_of_the_specification(plain):
    assert parameters(plain.visible_stem) == parameters(plain.infrared_stem) == 9_536
    assert parameters(plain.trunk) == 23_498_496
    assert parameters(plain.neck) == 4_096
    assert parameters(plain.neck, trainable=True) == 2_048
    assert parameters(plain) == 23_521_664
    with_non_local = AgwResNet50(non_local="rank1")
    assert parameters(with_non_local.non_local) == 28_687
    assert parameters(with_non_local) == 23_550_351


def test_shapes_at_288_x_144_and_unit_norm_after_normalisation(plain):
    plain.eval()
    batch = images(2, height=288, width=144)
    with torch.no_grad():
        stem = plain.visible_stem(batch)
        out = plain(batch, codes(0, 1))
        assert stem.shape == (2, 64, 72, 36)
        assert plain._trunk(stem[:1]).shape == (1, 2048, 18, 9)
    assert out.keys() == {"main"}
    assert out["main"].shape == (2, plain.embedding_dims["main"])
    assert plain.input_size == (288, 144)
    norms = torch.nn.functional.normalize(out["main"]).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(2))


@torch.no_grad()
def test_both_modalities_give_the_same_output_at_initialisation(plain):
    plain.eval()
    batch = images(2)
    assert torch.equal(plain(batch, codes(0, 0))["main"], plain(batch, codes(1, 1))["main"])


@torch.no_grad()
def test_the_stems_are_separate_copies(plain):
    model = AgwResNet50().eval()
    model.load_state_dict(plain.state_dict())
    batch = images(2)
    before = model(batch, codes(0, 1))["main"]
    model.infrared_stem.conv1.weight.mul_(2)
    after = model(batch, codes(0, 1))["main"]
    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[1], after[1])


@torch.no_grad()
def test_mixed_modalities_come_back_in_the_order_of_the_input():
    model = build_agw(seed=1, pretrained=False).double().eval()
    model.infrared_stem.conv1.weight.mul_(3)
    batch = images(5).double()
    modality = codes(1, 0, 0, 1, 0)
    out = model(batch, modality)["main"]
    alone = torch.cat([model(batch[i : i + 1], modality[i : i + 1])["main"] for i in range(5)])
    torch.testing.assert_close(out, alone, atol=1e-9, rtol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["rank1", "half"])
def test_the_non_local_net_equals_the_plain_net_at_initialisation(plain, kind):
    plain.eval()
    model = AgwResNet50(non_local=kind).eval()
    model.load_state_dict(plain.state_dict(), strict=False)
    assert sorted(model.non_local) == ["layer2_2", "layer2_3", "layer3_3", "layer3_4", "layer3_5"]
    batch = images(2)
    assert torch.equal(model(batch, codes(0, 1))["main"], plain(batch, codes(0, 1))["main"])


@torch.no_grad()
@pytest.mark.parametrize("inner", [1, 3])
def test_a_non_local_block_is_the_pairwise_formula(inner):
    torch.manual_seed(0)
    block = NonLocalBlock(6, inner=inner).eval()
    block.bn.weight.fill_(0.7)
    x = torch.randn(2, 6, 4, 3)
    for sample in range(2):
        theta, phi, g = (conv(x[sample : sample + 1])[0].flatten(1) for conv in (block.theta, block.phi, block.g))
        pairs = theta.T @ phi / 12
        y = (pairs @ g.T).T.view(1, inner, 4, 3)
        expected = x[sample : sample + 1] + block.bn(block.out(y))
        torch.testing.assert_close(block(x[sample : sample + 1]), expected)


@pytest.mark.parametrize(
    ("values", "pooled"), [([1, 2, 3, 4], 2.924018), ([0, 0, 0, 8], 5.039684), ([0, 0, 0, 0], 1e-4)]
)
def test_gem_gives_the_worked_values(values, pooled):
    x = torch.tensor(values, dtype=torch.float32).view(1, 1, 2, 2)
    assert GeM(3)(x).item() == pytest.approx(pooled, rel=1e-6)
    assert GeM(3)(x.to(torch.bfloat16)).dtype == torch.float32


def test_gem_has_finite_gradients_at_zero():
    x = torch.zeros(1, 2, 2, 2, requires_grad=True)
    GeM(3)(x).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_the_neck_starts_near_one_with_a_bias_that_stays_zero():
    torch.manual_seed(0)
    neck = BNNeck(2048)
    assert neck.weight.mean().item() == pytest.approx(1, abs=2e-3)
    assert neck.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert not neck.bias.any()
    assert not neck.bias.requires_grad


@pytest.mark.parametrize(("kind", "shape"), [(GroupedBatchNorm1d, (6, 5)), (GroupedBatchNorm2d, (6, 5, 3, 2))])
def test_grouped_batch_norm_equals_explicit_splitting(kind, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    grouped, single = kind(5, groups=3), kind(5)
    out = grouped(x)
    expected = [single(part) for part in x[:2].split(2)]
    running_mean, running_var = single.running_mean.clone(), single.running_var.clone()
    expected += [single(part) for part in x[2:].split(2)]
    torch.testing.assert_close(out, torch.cat(expected))
    torch.testing.assert_close(grouped.running_mean, running_mean)
    torch.testing.assert_close(grouped.running_var, running_var)
    assert grouped.num_batches_tracked == 1
    single.load_state_dict(grouped.state_dict())
    torch.testing.assert_close(grouped.eval()(x[:1]), single.eval()(x[:1]))


def test_a_batch_that_groups_cannot_share_is_refused():
    with pytest.raises(ContractError, match="3 equal batch-norm groups"):
        GroupedBatchNorm1d(5, groups=3)(torch.randn(4, 5))


@torch.no_grad()
def test_bn_groups_emulate_replicas_that_each_hold_their_share_of_both_modalities():
    grouped = build_agw(seed=2, pretrained=False, non_local="rank1", bn_groups=2).double()
    single = build_agw(seed=2, pretrained=False, non_local="rank1").double()
    grouped.infrared_stem.conv1.weight.mul_(2)
    single.load_state_dict(grouped.state_dict())
    batch = images(8).double()
    modality = codes(0, 1, 1, 0, 0, 0, 1, 1)
    out = grouped.train()(batch, modality)["main"]
    first, second = torch.tensor([0, 3, 1, 2]), torch.tensor([4, 5, 6, 7])
    single.train()
    expected = torch.empty_like(out)
    expected[first] = single(batch[first], modality[first])["main"]
    statistics = {name: value.clone() for name, value in single.named_buffers()}
    expected[second] = single(batch[second], modality[second])["main"]
    torch.testing.assert_close(out, expected, atol=1e-9, rtol=1e-9)
    for name, value in grouped.named_buffers():
        torch.testing.assert_close(value, statistics[name], atol=1e-9, rtol=1e-9)


def test_bn_groups_must_divide_either_modality():
    model = AgwResNet50(bn_groups=2).train()
    with pytest.raises(ContractError, match="3 visible images"):
        model(images(4), codes(0, 0, 0, 1))


def test_every_trained_parameter_receives_a_gradient():
    model = build_agw(seed=0, pretrained=False).train()
    model(images(4), codes(0, 1, 0, 1))["main"].square().sum().backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert model.neck.bias.grad is None


@pytest.mark.parametrize("modality", [codes(0), codes(0, 2), codes(0, -1)])
def test_modality_codes_are_checked(plain, modality):
    with pytest.raises(ContractError):
        plain(images(2), modality)


def test_unknown_settings_are_refused():
    with pytest.raises(SettingsError, match="'rank1'"):
        AgwResNet50(non_local="full")
    with pytest.raises(SettingsError, match="bn_groups"):
        AgwResNet50(bn_groups=0)


def test_a_seed_decides_the_initial_weights_and_leaves_the_global_stream_alone(plain):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    again = build_agw(seed=0, pretrained=False)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(again.neck.weight, plain.neck.weight)
    assert torch.equal(again.trunk["layer4"][2].conv3.weight, plain.trunk["layer4"][2].conv3.weight)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_torchvision_file_fills_both_stems_and_the_trunk(tmp_path, suffix):
    torch.manual_seed(3)
    source = resnet50().state_dict()
    file = tmp_path / f"resnet{suffix}"
    if suffix == ".pth":
        source = {name: tensor for name, tensor in source.items() if not name.endswith("tracked")}
        torch.save(source, file)
    else:
        save_file(source, file)
    model = build_agw(seed=0, weights=file, non_local="rank1")
    for stem in (model.visible_stem, model.infrared_stem):
        assert torch.equal(stem.conv1.weight, source["conv1.weight"])
        assert torch.equal(stem.bn1.running_var, source["bn1.running_var"])
    assert torch.equal(model.trunk["layer4"][0].conv2.weight, source["layer4.0.conv2.weight"])


def test_a_saved_state_of_the_encoder_is_loaded_whole(tmp_path, plain):
    save_file(plain.state_dict(), tmp_path / "own.safetensors")
    model = build_agw(seed=9, weights=tmp_path / "own.safetensors")
    for name, value in model.state_dict().items():
        assert torch.equal(value, plain.state_dict()[name])
    with pytest.raises(WeightsError, match="missing"):
        build_agw(seed=9, weights=tmp_path / "own.safetensors", non_local="rank1")


def test_weights_that_cannot_be_downloaded_say_what_to_do(monkeypatch):
    def offline(self, *args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr(ResNet50_Weights, "get_state_dict", offline)
    with pytest.raises(WeightsError) as caught:
        build_agw(seed=0)
    for part in ("no route to host", "--set model.weights=FILE", "--set model.pretrained=false"):
        assert part in str(caught.value)


def test_weights_files_that_do_not_serve_are_named(tmp_path):
    with pytest.raises(WeightsError, match="does not exist"):
        build_agw(seed=0, weights=tmp_path / "none.pth")
    for name in ("junk.pth", "junk.safetensors"):
        (tmp_path / name).write_bytes(b"not weights at all")
        with pytest.raises(WeightsError, match=f"{name} cannot be read"):
            build_agw(seed=0, weights=tmp_path / name)
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "part.pth")
    with pytest.raises(WeightsError, match="entries missing"):
        build_agw(seed=0, weights=tmp_path / "part.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="mapping from names to tensors"):
        build_agw(seed=0, weights=tmp_path / "list.pth")


def test_weights_of_another_shape_are_refused(tmp_path):
    state = resnet50().state_dict()
    state["conv1.weight"] = torch.zeros(64, 1, 7, 7)
    torch.save(state, tmp_path / "gray.pth")
    with pytest.raises(WeightsError, match="do not fit"):
        build_agw(seed=0, weights=tmp_path / "gray.pth")
