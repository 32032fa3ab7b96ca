"""The two-stream, two-embedding ViT, and how it reads weights."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, gelu, layer_norm, linear
from torch.testing import assert_close

from harness.builtin import SmallVitOptions, VitOptions
from harness.data.rendered import render_image
from harness.engine.extraction import pixel_statistics
from harness.errors import ContractError, WeightsError
from harness.models.small import SmallTwoStream, load_small_weights, pack_small_weights
from harness.models.state import shipped_weights
from harness.models.vit import (
    BASE,
    SMALL,
    InstanceBatchNorm,
    TwoStreamVit,
    VitShape,
    from_options,
    load_vit_weights,
    pack_vit_weights,
    resize_position,
    small_from_options,
)

TINY = VitShape((32, 16), patch=4, width=12, depth=3, heads=3, stem_channels=4)
MIXED = torch.tensor([1, 0, 0, 1, 0, 1])


@pytest.fixture
def model() -> TwoStreamVit:
    torch.manual_seed(0)
    vit = TwoStreamVit(TINY)
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return vit


@pytest.fixture
def images() -> Tensor:
    return torch.rand(6, 3, 32, 16, generator=torch.Generator().manual_seed(1))


def naive_attention(x_TD: Tensor, weights: dict[str, Tensor], heads: int) -> Tensor:
    """One image at a time, one head at a time, by the formula."""
    rows = linear(x_TD, weights["qkv.weight"], weights["qkv.bias"])
    query, key, value = rows.split(x_TD.shape[1], dim=1)
    size, seen = x_TD.shape[1] // heads, []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        share = (query[:, part] @ key[:, part].T / size**0.5).softmax(dim=1)
        seen.append(share @ value[:, part])
    return linear(torch.cat(seen, dim=1), weights["proj.weight"], weights["proj.bias"])


def naive_block(x_TD: Tensor, block: nn.Module, heads: int) -> Tensor:
    w = {name: tensor.double() for name, tensor in block.state_dict().items()}
    attn = {name.removeprefix("attn."): tensor for name, tensor in w.items() if name.startswith("attn.")}
    normed = layer_norm(x_TD, x_TD.shape[1:], w["norm1.weight"], w["norm1.bias"], 1e-6)
    x_TD = x_TD + naive_attention(normed, attn, heads)
    normed = layer_norm(x_TD, x_TD.shape[1:], w["norm2.weight"], w["norm2.bias"], 1e-6)
    hidden = gelu(linear(normed, w["mlp.fc1.weight"], w["mlp.fc1.bias"]))
    return x_TD + linear(hidden, w["mlp.fc2.weight"], w["mlp.fc2.bias"])


def naive_embedding(model: TwoStreamVit, patches_TD: Tensor) -> dict[str, Tensor]:
    """hil.md 3.1 for one image, in float64, from the stem's patches."""
    tokens = torch.cat([model.class_token[0], patches_TD]).double() + model.position[0].double()
    hidden = tokens
    for block in model.blocks:
        hidden = naive_block(hidden, block, TINY.heads)
    shallow = torch.cat([hidden[:1], tokens[1:]])
    return {
        name: getattr(model, f"{name}_neck").double()(
            getattr(model, f"{name}_norm").double()(naive_block(rows, getattr(model, f"{name}_block"), TINY.heads)[:1])
        )[0]
        for name, rows in (("deep", hidden), ("shallow", shallow))
    }


def test_it_computes_both_embeddings_as_defined(model: TwoStreamVit, images: Tensor) -> None:
    model.eval()
    found = model(images, MIXED)
    patches = [
        (model.infrared_stem if code else model.visible_stem)(image[None])[0].detach()
        for image, code in zip(images, MIXED, strict=True)
    ]
    for row, patches_TD in enumerate(patches):
        for name, expected in naive_embedding(model, patches_TD).items():
            assert_close(found[name][row].double(), expected, atol=1e-4, rtol=1e-4)


def test_main_is_deep_beside_shallow(model: TwoStreamVit, images: Tensor) -> None:
    found = model.eval()(images, MIXED)
    assert torch.equal(found["main"], torch.cat([found["deep"], found["shallow"]], dim=1))
    assert {name: tensor.shape[1] for name, tensor in found.items()} == dict(model.embedding_dims)


def test_the_order_of_a_batch_and_its_other_images_do_not_matter(model: TwoStreamVit, images: Tensor) -> None:
    model.eval()
    order = torch.tensor([3, 5, 0, 1, 4, 2])
    together = model(images, MIXED)["main"]
    assert_close(model(images[order], MIXED[order])["main"], together[order], atol=1e-5, rtol=1e-4)
    assert_close(model(images[:1], MIXED[:1])["main"], together[:1], atol=1e-5, rtol=1e-4)


def test_stems_start_equal_and_apart_and_so_do_the_last_blocks() -> None:
    vit = TwoStreamVit(TINY)
    for one, other in (("visible_stem", "infrared_stem"), ("deep_block", "shallow_block")):
        first, second = getattr(vit, one).state_dict(), getattr(vit, other).state_dict()
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert all(first[name].data_ptr() != second[name].data_ptr() for name in first)
    assert not vit.deep_neck.bias.requires_grad
    assert not vit.shallow_neck.bias.requires_grad


def test_each_modality_trains_its_own_stem(model: TwoStreamVit, images: Tensor) -> None:
    model(images, torch.zeros(6, dtype=torch.int64))["main"].square().sum().backward()
    assert model.infrared_stem.proj.weight.grad is None
    assert float(model.visible_stem.proj.weight.grad.abs().sum()) > 0
    for name in ("deep_block", "shallow_block"):
        assert float(getattr(model, name).mlp.fc1.weight.grad.abs().sum()) > 0


def test_half_of_the_channels_are_normalised_per_image() -> None:
    x = torch.randn(4, 6, 5, 5, generator=torch.Generator().manual_seed(0)) * 3 + 1
    y = InstanceBatchNorm(6).train()(x)
    assert_close(y[:, :3].mean(dim=(2, 3)), torch.zeros(4, 3), atol=1e-5, rtol=0)
    assert_close(y[:, 3:].mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    assert float(y[:, 3:].detach().mean(dim=(2, 3)).abs().max()) > 0.01


def test_stochastic_depth_leaves_evaluation_alone(images: Tensor) -> None:
    torch.manual_seed(0)
    vit = TwoStreamVit(TINY, drop_path=0.9)
    first = [vit(images, MIXED)["main"] for _ in range(2)]
    assert not torch.equal(*first)
    vit.eval()
    assert torch.equal(vit(images, MIXED)["main"], vit(images, MIXED)["main"])


def test_a_batch_with_other_codes_is_refused(model: TwoStreamVit, images: Tensor) -> None:
    with pytest.raises(ContractError, match="modality 0"):
        model(images, MIXED + 1)
    with pytest.raises(ContractError, match="one modality code per image"):
        model(images, MIXED[:2])


def parameters(shape: VitShape) -> int:
    """By hand: stems, positions, blocks with the last one twice, norms and necks."""
    c, d, patch = shape.stem_channels, shape.width, shape.patch // 2
    stem = 3 * c * 49 + 2 * 9 * c * c + 3 * 2 * c + c * d * patch * patch + d
    block = 4 * d * d + 4 * d + 8 * d * d + 5 * d + 4 * d
    tokens = 2 + shape.grid[0] * shape.grid[1]
    return 2 * stem + tokens * d + (shape.depth + 1) * block + 2 * 2 * d + 2 * 2 * d


@pytest.mark.parametrize("shape", [TINY, SMALL])
def test_it_has_the_parameters_of_its_shape(shape: VitShape) -> None:
    assert sum(parameter.numel() for parameter in TwoStreamVit(shape).parameters()) == parameters(shape)


def test_the_base_has_162_patches_and_two_embeddings_of_768() -> None:
    with torch.device("meta"):
        vit = TwoStreamVit(BASE)
    assert vit.position.shape == (1, 163, 768)
    assert vit.embedding_dims == {"main": 1536, "deep": 768, "shallow": 768}
    assert sum(parameter.numel() for parameter in vit.parameters()) == parameters(BASE)


def test_the_small_one_takes_rendered_images() -> None:
    vit = small_from_options(SmallVitOptions(), 3)
    assert vit.input_size == (64, 32)
    found = vit(torch.rand(4, 3, 64, 32), torch.tensor([0, 0, 1, 1]))
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == {
        "main": (4, 192),
        "deep": (4, 96),
        "shallow": (4, 96),
    }


def test_one_seed_gives_one_encoder_and_leaves_torch_alone() -> None:
    before = torch.random.get_rng_state()
    options = SmallVitOptions(pretrained=False)
    first, again, other = (small_from_options(options, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["blocks.0.attn.qkv.weight"], other["blocks.0.attn.qkv.weight"])


# Weights.


def transreid_state(model: TwoStreamVit, *, grid: tuple[int, int]) -> dict[str, Tensor]:
    """A file of TransReID-SSL with the weights of ``model``, by that code's names, on another grid."""
    state = {"head.last_layer.weight": torch.zeros(3, 3), "fc.weight": torch.zeros(2, 2)}
    for name, tensor in model.state_dict().items():
        if name.startswith("visible_stem."):
            name = name.replace("visible_stem.", "patch_embed.").replace("instance", "IN").replace("batch.", "BN.")
        name = name.replace("deep_block.", f"blocks.{len(model.blocks)}.").replace("deep_norm.", "norm.")
        name = name.replace("class_token", "cls_token").replace("position", "pos_embed")
        if not name.startswith(("infrared_stem", "shallow_", "deep_")):
            state[name] = tensor
    size = 1 + grid[0] * grid[1]
    state["pos_embed"] = torch.arange(size, dtype=torch.float32)[None, :, None].expand(1, size, TINY.width).clone()
    return state


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_file_of_transreid_fills_both_stems_and_both_last_blocks(
    model: TwoStreamVit, tmp_path: Path, wrapped: bool
) -> None:
    state = transreid_state(model, grid=(4, 2))
    if wrapped:
        state = {"teacher": {f"module.backbone.{name}": tensor for name, tensor in state.items()}, "epoch": 3}
    torch.save(state, tmp_path / "vit.pth")
    loaded = TwoStreamVit(TINY)
    load_vit_weights(loaded, tmp_path / "vit.pth", remedy="")
    found, wanted = loaded.state_dict(), model.state_dict()
    for name, tensor in found.items():
        source = name.replace("infrared_", "visible_").replace("shallow_", "deep_")
        if "_neck" not in name and name != "position":
            assert torch.equal(tensor, wanted[source]), name
    assert_close(found["position"], resize_position(state_of(state)["pos_embed"], (8, 4)))


def state_of(state: dict) -> dict[str, Tensor]:
    inner = state.get("teacher", state)
    return {name.removeprefix("module.backbone."): tensor for name, tensor in inner.items()}


def test_positions_keep_the_class_token_and_follow_the_grid() -> None:
    rows = torch.arange(8.0).repeat_interleave(4)  # constant along a row of an 8 x 4 grid
    position = torch.cat([torch.tensor([99.0]), rows])[None, :, None]
    resized = resize_position(position, (16, 8))
    assert resized.shape == (1, 129, 1)
    assert float(resized[0, 0, 0]) == 99
    maps = resized[0, 1:, 0].view(16, 8)
    assert_close(maps, maps[:, :1].expand(16, 8))
    assert bool((maps[1:, 0] >= maps[:-1, 0]).all())
    assert torch.equal(resize_position(position, (8, 4)), position)


def test_a_state_of_its_own_loads_whole(model: TwoStreamVit, images: Tensor, tmp_path: Path) -> None:
    model.train()(images, MIXED)
    save_file(model.state_dict(), tmp_path / "own.safetensors")
    loaded = TwoStreamVit(TINY)
    load_vit_weights(loaded, tmp_path / "own.safetensors", remedy="")
    assert torch.equal(loaded.eval()(images, MIXED)["main"], model.eval()(images, MIXED)["main"])


def test_packed_weights_give_the_same_to_half_precision(model: TwoStreamVit, images: Tensor, tmp_path: Path) -> None:
    model.train()(images, MIXED)
    with torch.no_grad():
        model.infrared_stem.proj.weight.zero_()
    save_file(pack_vit_weights(model), tmp_path / "packed.safetensors")
    loaded = TwoStreamVit(TINY)
    load_vit_weights(loaded, tmp_path / "packed.safetensors", remedy="")
    expected = model.state_dict()
    for name, tensor in loaded.state_dict().items():
        source = expected[name.replace("infrared_stem", "visible_stem")]
        assert torch.equal(tensor, source.half().float() if source.is_floating_point() else source), name


def test_the_small_one_starts_from_the_shipped_weights_whatever_the_seed() -> None:
    first, other = (small_from_options(SmallVitOptions(), seed) for seed in (1, 2))
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in first.state_dict().items())
    random = small_from_options(SmallVitOptions(pretrained=False), 1)
    assert not torch.equal(first.position, random.position)
    visible, infrared = first.visible_stem.state_dict(), first.infrared_stem.state_dict()
    assert all(torch.equal(visible[name], infrared[name]) for name in visible)
    assert visible["proj.weight"].data_ptr() != infrared["proj.weight"].data_ptr()
    assert not torch.equal(first.deep_block.mlp.fc1.weight, first.shallow_block.mlp.fc1.weight)
    assert first.position.dtype == torch.float32


def test_the_shipped_weights_embed_alike_by_running_and_by_batch_statistics() -> None:
    """Far apart, a training step would see other embeddings than those that were clustered."""
    vit = small_from_options(SmallVitOptions(), 0)
    images, modality = rendered_batch(identities=16)
    mean, std = (torch.tensor(values)[:, None, None] for values in pixel_statistics(vit))
    pixels = (images - mean) / std
    with torch.no_grad():
        running, batch = vit.eval()(pixels, modality), deepcopy(vit).train()(pixels, modality)
    for name in ("main", "deep", "shallow"):
        assert float(cosine_similarity(running[name], batch[name]).mean()) > 0.9, name


def rendered_batch(*, identities: int) -> tuple[Tensor, Tensor]:
    """Images float [B, 3, 64, 32] in 0..1 of the tuning dataset, every identity in every camera; modality [B]."""
    shown = [(identity, camera) for identity in range(1, identities + 1) for camera in range(1, 7)]
    images = np.stack([render_image(9, identity=i, camera=c, number=1, size=SMALL.input_size) for i, c in shown])
    modality = torch.tensor([int(camera in (3, 6)) for _, camera in shown])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, modality


def test_the_shipped_weights_are_a_small_file() -> None:
    assert shipped_weights("small_vit_mild1000.safetensors").stat().st_size < 1_500_000


def test_the_small_encoders_refuse_each_others_weights(tmp_path: Path) -> None:
    save_file(pack_small_weights(SmallTwoStream()), tmp_path / "small.safetensors")
    with pytest.raises(WeightsError, match=r"small\.safetensors.*missing.*unexpected.*--backbone small-vit"):
        small_from_options(SmallVitOptions(weights=tmp_path / "small.safetensors"), 0)
    vit = small_from_options(SmallVitOptions(pretrained=False), 0)
    save_file(pack_vit_weights(vit), tmp_path / "vit.safetensors")
    with pytest.raises(WeightsError, match=r"vit\.safetensors do not fit SmallTwoStream"):
        load_small_weights(SmallTwoStream(), tmp_path / "vit.safetensors")


def test_without_a_file_it_says_what_to_fetch() -> None:
    with pytest.raises(WeightsError, match=r"LUPerson.*vit_base_ics_cfs_lup\.pth.*model\.weights=FILE.*backbone=agw"):
        from_options(VitOptions(), 0)


def test_weights_that_do_not_fit_are_named(model: TwoStreamVit, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent\.pth does not exist\. Do this"):
        load_vit_weights(model, tmp_path / "absent.pth", remedy="Do this.")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_vit_weights(model, tmp_path / "text.pth", remedy="")
    torch.save({"a": 1}, tmp_path / "number.pth")
    with pytest.raises(WeightsError, match="does not hold a mapping"):
        load_vit_weights(model, tmp_path / "number.pth", remedy="")
    state = transreid_state(model, grid=(4, 2))
    del state["norm.weight"]
    torch.save({**state, "extra": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"2 entries missing \(deep_norm\.weight.*1 entries unexpected \(extra"):
        load_vit_weights(model, tmp_path / "other.pth", remedy="")
    torch.save(transreid_state(model, grid=(5, 3)), tmp_path / "grid.pth")
    with pytest.raises(WeightsError, match="position"):
        load_vit_weights(model, tmp_path / "grid.pth", remedy="")
