"""The EMA teacher: when it moves, what it averages, what a batch may ask of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from harness.contracts import Embeddings
from harness.engine.teacher import TeacherPass, make_teacher, update_teacher
from harness.errors import ContractError


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(3, 2, bias=False), nn.BatchNorm1d(2)

    def forward(self, images, modality):
        return {"main": self.norm(self.layer(images))}


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return Encoder()


def test_already_the_first_update_averages(encoder) -> None:
    teacher = make_teacher(encoder, decay=0.75)
    before = encoder.layer.weight.detach().clone()
    with torch.no_grad():
        encoder.layer.weight += 4
    update_teacher(teacher, encoder)
    torch.testing.assert_close(teacher.module.layer.weight, before + 1)


def test_a_following_teacher_is_a_copy_and_averages_from_there(encoder) -> None:
    teacher = make_teacher(encoder, decay=0.75)
    with torch.no_grad():
        encoder.layer.weight += 4
        encoder.norm.running_mean += 1
    update_teacher(teacher, encoder, follow=True)
    torch.testing.assert_close(teacher.module.state_dict(), encoder.state_dict())
    copied = encoder.layer.weight.detach().clone()
    with torch.no_grad():
        encoder.layer.weight += 4
    update_teacher(teacher, encoder)
    torch.testing.assert_close(teacher.module.layer.weight, copied + 1)


def test_a_teacher_that_ran_on_the_batch_keeps_its_own_running_statistics(encoder) -> None:
    teacher = make_teacher(encoder, decay=0.5)
    images = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
    asked = TeacherPass(teacher, images, torch.zeros(8, dtype=torch.int64))
    embeddings = Embeddings(encoder(images, None), teacher=asked)
    assert not asked.ran
    torch.testing.assert_close(embeddings.teacher.main, embeddings.main)
    assert asked.ran
    assert not embeddings.teacher.main.requires_grad
    own = teacher.module.norm.running_mean.clone()
    with torch.no_grad():
        encoder.norm.running_mean += 1
    update_teacher(teacher, encoder, buffers=not asked.ran)
    torch.testing.assert_close(teacher.module.norm.running_mean, own)


def test_detached_embeddings_share_the_teachers_pass(encoder) -> None:
    calls = []

    def embed():
        calls.append(1)
        return {"main": torch.ones(2, 2)}

    embeddings = Embeddings({"main": torch.zeros(2, 2)}, teacher=embed)
    assert embeddings.detach().teacher.main is embeddings.teacher.main
    assert len(calls) == 1


def test_without_a_teacher_the_error_says_how_to_have_one() -> None:
    with pytest.raises(ContractError, match=r"needs=\('teacher',\)"):
        _ = Embeddings({"main": torch.zeros(1, 1)}).teacher
