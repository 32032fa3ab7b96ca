"""What a figure may depend on is in the record, so that runs that differ in it are rows of their own."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import torch

import harness.models
from harness.leaderboard.record import record_json, settings_digest
from harness.models.small import SmallTwoStream
from harness.plugins import Catalogue

SHIPPED = Path(harness.models.__file__).parent / "weights" / "small_mild100.safetensors"
METHOD = {"plugins": ("baseline",), "catalogue": Catalogue(), "recipe": {"epochs": 1, "iterations": 1}}


def test_options_of_the_encoder_that_are_not_its_defaults(run) -> None:
    changed = run("changed", model={"backbone": "small-vit", "drop_path": 0.25}, **METHOD).record
    usual = run("usual", model={"backbone": "small-vit"}, **METHOD).record
    assert changed.encoder.options == {"drop_path": 0.25}
    assert (changed.encoder.weights, changed.encoder.weights_sha256) == ("pretrained", None)
    assert "drop_path" not in record_json(usual)
    assert settings_digest(changed) != settings_digest(usual)


def test_the_file_that_the_encoder_started_from_by_name_and_content(run, tmp_path) -> None:
    weights = tmp_path / "mine.safetensors"
    shutil.copy(SHIPPED, weights)
    encoder = run(model={"backbone": "small", "weights": str(weights)}, **METHOD).record.encoder
    assert encoder.weights == "mine.safetensors"
    assert encoder.weights_sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert encoder.options == {}


def test_how_image_and_mirror_image_are_averaged_for_clustering(run) -> None:
    small = {"backbone": "small", "pretrained": False}
    scaled = run("scaled", model=small, **METHOD).record
    unscaled = run("unscaled", model=small, features={"flip_mean_renorm": False}, **METHOD).record
    assert (scaled.extraction.flip_mean_renorm, unscaled.extraction.flip_mean_renorm) == (True, False)
    assert "flip_mean_renorm" not in record_json(scaled)
    assert settings_digest(scaled) != settings_digest(unscaled)


def test_that_memory_had_no_room_for_the_images_asked_for(run, monkeypatch) -> None:
    forward = SmallTwoStream.forward

    def refusing(encoder, images, modality):
        if not encoder.training and len(images) > 32:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(encoder, images, modality)

    monkeypatch.setattr(SmallTwoStream, "forward", refusing)
    record = run(model={"backbone": "small", "pretrained": False}, features={"batch": 64}, **METHOD).record
    assert [text for text in record.warnings if "no room" in text] == [
        "Memory had no room for features of 64 images at a time: 32 were taken (features.batch)."
    ]
