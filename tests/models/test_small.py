"""The small two-stream encoder and its shipped weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from harness.builtin import SmallOptions
from harness.errors import WeightsError
from harness.models.small import SmallTwoStream, from_options, load_small_weights, pack_small_weights


@pytest.fixture
def model() -> SmallTwoStream:
    return SmallTwoStream(generator=torch.Generator().manual_seed(0))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(6, 3, 64, 32, generator=torch.Generator().manual_seed(1))


MIXED = torch.tensor([1, 0, 0, 1, 0, 1])


def embed(model: SmallTwoStream, images: torch.Tensor, modality: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(images, modality)["main"]


def shift_stem(model: SmallTwoStream) -> None:
    with torch.no_grad():
        model.stem_infrared[0].weight.add_(0.1)


def test_it_tells_its_embeddings_and_input_size(model: SmallTwoStream, images: torch.Tensor) -> None:
    assert model.embedding_dims == {"main": 1024}
    assert model.input_size == (64, 32)
    assert embed(model.eval(), images, MIXED).shape == (6, 1024)


def test_both_stems_start_equal_and_are_apart(model: SmallTwoStream) -> None:
    visible, infrared = model.stem_visible[0].weight, model.stem_infrared[0].weight
    assert torch.equal(visible, infrared)
    assert visible.data_ptr() != infrared.data_ptr()


def test_a_mixed_batch_equals_one_pass_per_modality(model: SmallTwoStream, images: torch.Tensor) -> None:
    shift_stem(model.eval())
    together = embed(model, images, MIXED)
    for code in (0, 1):
        rows = code == MIXED
        alone = embed(model, images[rows], MIXED[rows])
        torch.testing.assert_close(together[rows], alone, atol=1e-5, rtol=1e-4)


def test_the_order_of_a_batch_does_not_matter(model: SmallTwoStream, images: torch.Tensor) -> None:
    shift_stem(model.eval())
    order = torch.tensor([3, 5, 0, 1, 4, 2])
    torch.testing.assert_close(
        embed(model, images[order], MIXED[order]), embed(model, images, MIXED)[order], atol=1e-5, rtol=1e-4
    )


def test_in_training_the_trunk_normalises_over_both_modalities(model: SmallTwoStream, images: torch.Tensor) -> None:
    features = embed(model.train(), images, MIXED)
    torch.testing.assert_close(features.mean(0), torch.zeros(1024), atol=1e-4, rtol=0)
    assert features[MIXED == 0].mean(0).abs().max() > 0.05


def test_a_training_batch_may_hold_one_modality_only(model: SmallTwoStream, images: torch.Tensor) -> None:
    assert embed(model.train(), images, torch.ones(6, dtype=torch.int64)).shape == (6, 1024)


def test_brightness_and_contrast_of_an_image_do_not_matter(model: SmallTwoStream, images: torch.Tensor) -> None:
    model.eval()
    torch.testing.assert_close(embed(model, images * 3 - 1, MIXED), embed(model, images, MIXED), atol=1e-3, rtol=1e-3)


def test_every_image_needs_a_modality(model: SmallTwoStream, images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="one code per image"):
        model(images, torch.tensor([0, 1, 2, 0, 1, 0]))


def test_it_has_about_310_000_parameters(model: SmallTwoStream) -> None:
    # Two stems 2 * (864 + 64); blocks 18,560 + 57,728 + 230,144; neck 2,048.
    assert sum(parameter.numel() for parameter in model.parameters()) == 310_336
    assert not model.neck.bias.requires_grad


def test_one_seed_gives_one_model() -> None:
    options = SmallOptions(pretrained=False)
    first, again, other = (from_options(options, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["stem_visible.0.weight"], other["stem_visible.0.weight"])


def test_the_shipped_weights_fill_both_stems() -> None:
    first, other = from_options(SmallOptions(), 1), from_options(SmallOptions(), 2)
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in first.state_dict().items())
    assert torch.equal(first.stem_visible[0].weight, first.stem_infrared[0].weight)
    assert torch.equal(first.stem_visible[1].running_mean, first.stem_infrared[1].running_mean)
    assert first.stem_visible[0].weight.dtype == torch.float32


def test_packed_weights_load_again(model: SmallTwoStream, images: torch.Tensor, tmp_path: Path) -> None:
    save_file(pack_small_weights(model), tmp_path / "w.safetensors")
    loaded = from_options(SmallOptions(weights=tmp_path / "w.safetensors"), 5)
    torch.testing.assert_close(
        embed(loaded.eval(), images, MIXED), embed(model.eval(), images, MIXED), atol=0.02, rtol=0.02
    )


def test_a_missing_or_unfit_weights_file_is_named(model: SmallTwoStream, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent\.safetensors does not exist"):
        load_small_weights(model, tmp_path / "absent.safetensors")
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_small_weights(model, tmp_path / "text.safetensors")
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="do not fit SmallTwoStream"):
        load_small_weights(model, tmp_path / "other.safetensors")
