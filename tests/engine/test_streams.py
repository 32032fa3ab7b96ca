"""Batches, random streams, features and checkpoints on their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.contracts import Draw, PseudoLabels, TrainIndex
from harness.engine import checkpoint
from harness.engine.checkpoint import Found, list_checkpoints, load_latest, save_checkpoint
from harness.engine.cost import Clock
from harness.engine.epoch import Epoch, FeatureStore
from harness.engine.extraction import extract_features
from harness.engine.input import DrawStream, ImageSource
from harness.engine.randomness import derive_seed, numpy_stream, torch_stream
from harness.engine.train import make_extract
from harness.errors import ContractError, RunError, SettingsError
from harness.settings import FeatureSettings
from toy_parts import TOY_RECIPE, ToyEncoder

VISIBLE, INFRARED = 14, 10
TRAIN = TrainIndex(
    torch.tensor([0] * VISIBLE + [1] * INFRARED),
    torch.tensor([1, 2] * (VISIBLE // 2) + [3, 6] * (INFRARED // 2)),
)
IMAGES = torch.randint(0, 256, (len(TRAIN), 3, 16, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
SOURCE = ImageSource(lambda index: IMAGES[index].clone(), (), TRAIN, torch.device("cpu"), (0.5,) * 3, (0.5,) * 3)
LABELS = PseudoLabels(TRAIN, {"joint": torch.arange(len(TRAIN)) % 5})


def batches(
    labels: PseudoLabels = LABELS, *, recipe=TOY_RECIPE, seed: int = 3, epoch: int = 0, draw: int = 0, take: int = 3
):
    stream = DrawStream(SOURCE, labels, draw=labels.draws[draw], recipe=recipe, seed=seed, epoch=epoch)
    return [stream.next() for _ in range(take)]


class TestStreams:
    def test_names_and_seed_give_the_stream(self) -> None:
        assert derive_seed(0, "a", 1) == derive_seed(0, "a", "1")
        seeds = {derive_seed(s, *names) for s in (0, 1) for names in [("a",), ("b",), ("a", 1), ("a", "1", "")]}
        assert len(seeds) == 8
        assert all(0 <= seed < 2**63 for seed in seeds)
        assert numpy_stream(1, "x").integers(1 << 40) == numpy_stream(1, "x").integers(1 << 40)
        assert torch_stream(1, "x").initial_seed() != torch_stream(1, "y").initial_seed()

    def test_each_part_and_epoch_has_a_stream_of_its_own(self) -> None:
        def first(part: str, index: int) -> int:
            epoch = Epoch(
                index=index, epochs=4, stage="s", stage_number=0, stages=1, epoch=index, stage_epochs=4, cross=True,
                dataset="d", train=TRAIN, seed=5, store=FeatureStore(lambda *_: {}, encoders=("online",)),
            )  # fmt: skip
            return int(epoch.bound_to(part).rng.integers(1 << 60))

        draws = [first(part, index) for part in ("a", "b") for index in (0, 1)]
        assert len(set(draws)) == 4
        assert draws == [first(part, index) for part in ("a", "b") for index in (0, 1)]


class TestDraws:
    def test_are_a_function_of_seed_and_epoch(self) -> None:
        first = batches()
        for again, other in zip(first, batches(), strict=True):
            assert again[0].index.equal(other[0].index)
            assert again[1].equal(other[1])
        for changed in (batches(seed=4), batches(epoch=1)):
            assert not all(a[0].index.equal(b[0].index) for a, b in zip(first, changed, strict=True))

    def test_do_not_depend_on_the_global_generators(self) -> None:
        torch.manual_seed(1)
        np.random.seed(1)  # noqa: NPY002 - the point of the test
        first = batches()
        torch.manual_seed(2)
        np.random.seed(2)  # noqa: NPY002
        assert all(a[1].equal(b[1]) for a, b in zip(first, batches(), strict=True))

    def test_order_is_visible_view_by_view_then_infrared(self) -> None:
        recipe = TOY_RECIPE.model_copy(update={"visible_views": ("plain", "exchange"), "infrared_views": ("infrared",)})
        batch, pixels = batches(recipe=recipe, take=1)[0]
        size = recipe.visible_clusters * recipe.instances
        assert batch.modality.tolist() == [0] * 2 * size + [1] * size
        assert batch.view.tolist() == [0] * size + [1] * size + [0] * size
        assert batch.index[:size].equal(batch.index[size : 2 * size])
        assert pixels.shape == (3 * size, 3, 16, 8)
        assert pixels.dtype == torch.float32

    def test_say_what_is_known_of_each_image(self) -> None:
        for batch, _ in batches():
            assert batch.modality.equal(TRAIN.modality[batch.index])
            assert batch.camera.equal(TRAIN.camera[batch.index])
            assert set(batch.labels) == {"joint", "visible", "infrared"}
            for name, labels in batch.labels.items():
                assert labels.equal(LABELS[name].labels[batch.index])
            assert bool((batch.labels["joint"] >= 0).all())

    def test_take_a_modality_from_the_first_partition_that_labels_it(self) -> None:
        visible = torch.where(TRAIN.visible & (TRAIN.camera == 1), 0, -1)
        whole = torch.arange(len(TRAIN)) % 2
        labels = PseudoLabels(TRAIN, {"visible": visible, "mine": whole}, draws=(Draw(("visible", "mine")),))
        batch, _ = batches(labels, take=1)[0]
        assert bool((TRAIN.camera[batch.index[batch.modality == 0]] == 1).all())
        assert bool((batch.modality == 1).any())

    def test_a_modality_without_clusters_is_left_out(self) -> None:
        labels = PseudoLabels(TRAIN, {"visible": torch.where(TRAIN.visible, 0, -1)})
        batch, _ = batches(labels, take=1)[0]
        assert bool((batch.modality == 0).all())

    def test_nothing_but_outliers_is_no_stream(self) -> None:
        labels = PseudoLabels(TRAIN, {"joint": torch.full((len(TRAIN),), -1)})
        stream = DrawStream(SOURCE, labels, draw=labels.draws[0], recipe=TOY_RECIPE, seed=0, epoch=0)
        assert not stream

    def test_an_unknown_view_suggests_the_near_ones(self) -> None:
        with pytest.raises(SettingsError, match=r"no augmented view 'exchang'.*'exchange'"):
            batches(recipe=TOY_RECIPE.model_copy(update={"visible_views": ("exchang",)}))


class TestFeatures:
    def test_are_extracted_on_first_request_once_per_encoder_and_view(self) -> None:
        calls = []

        def extract(encoder: str, view: str):
            calls.append((encoder, view))
            return {"main": torch.zeros(2, 3), "other": torch.ones(2, 3)}

        store = FeatureStore(extract, encoders=("online", "teacher"))
        assert calls == []
        first = store.get("online", "main", "plain")
        first += 7
        assert store.get("online", "main", "plain").sum() == 0
        assert store.get("online", "other", "plain").sum() == 6
        store.get("teacher", "main", "plain")
        store.get("online", "main", "red")
        assert calls == [("online", "plain"), ("teacher", "plain"), ("online", "red")]

    def test_come_too_late_once_training_has_begun(self) -> None:
        store = FeatureStore(lambda encoder, view: {"main": torch.zeros(2, 3)}, encoders=("online",))
        store.get("online", "main", "plain")
        store.close()
        assert store.get("online", "main", "plain").shape == (2, 3)
        with pytest.raises(ContractError, match=r"\(online, red\).*after the epoch's training had begun"):
            store.get("online", "main", "red")

    @pytest.mark.parametrize(
        ("request_", "complaint"),
        [
            (("teacher", "main", "plain"), "no encoder 'teacher'.*needs"),
            (("online", "extra", "plain"), "no embedding 'extra'; it has main"),
            (("online", "main", "sepia"), "no view 'sepia'; views are plain, red"),
        ],
    )
    def test_that_there_are_not_are_refused_with_what_there_is(self, request_, complaint: str) -> None:
        store = FeatureStore(lambda encoder, view: {"main": torch.zeros(2, 3)}, encoders=("online",))
        with pytest.raises(ContractError, match=complaint):
            store.get(*request_)

    def extract(self, *, notes=None, **changes):
        encoder = ToyEncoder(0)
        settings = FeatureSettings(**{"batch": 5, **changes})
        return make_extract(
            {"online": encoder},
            SOURCE,
            settings=settings,
            clock=Clock(),
            device=torch.device("cpu"),
            notes=[] if notes is None else notes,
        ), encoder

    @pytest.mark.parametrize(("view", "channel"), [("red", 0), ("green", 1), ("blue", 2)])
    def test_a_colour_view_changes_the_visible_rows_only(self, view: str, channel: int) -> None:
        extract, encoder = self.extract()
        plain, coloured = extract("online", "plain")["main"], extract("online", view)["main"]
        assert coloured[VISIBLE:].equal(plain[VISIBLE:])
        assert not torch.isclose(coloured[:VISIBLE], plain[:VISIBLE]).all(dim=1).any()
        copied = IMAGES[:, [channel] * 3]
        expected = extract_features(
            encoder, lambda index: copied[index], modality=TRAIN.modality, transforms=(), batch=64,
            device=torch.device("cpu"), flip=True, renorm=True,
        )["main"]  # fmt: skip
        torch.testing.assert_close(coloured[:VISIBLE], expected[:VISIBLE])

    def test_a_colour_view_may_be_asked_for_first(self) -> None:
        first, _ = self.extract()
        after, _ = self.extract()
        after("online", "plain")
        assert first("online", "red")["main"].equal(after("online", "red")["main"])

    def test_average_the_image_and_its_mirror_image_in_eval_mode(self) -> None:
        extract, encoder = self.extract()
        encoder.train()
        found = extract("online", "plain")["main"]
        assert encoder.training
        encoder.eval()
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        pixels = (IMAGES.float() / 255 - mean[:, None, None]) / std[:, None, None]
        with torch.no_grad():
            both = [
                torch.nn.functional.normalize(encoder(p, TRAIN.modality)["main"], dim=1)
                for p in (pixels, pixels.flip(3))
            ]
        torch.testing.assert_close(found, torch.nn.functional.normalize((both[0] + both[1]) / 2, dim=1))
        unscaled, _ = self.extract(flip_mean_renorm=False)
        torch.testing.assert_close(unscaled("online", "plain")["main"], (both[0] + both[1]) / 2)

    @pytest.mark.parametrize(
        "refusal", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("can't allocate memory: 9 bytes")]
    )
    def test_take_half_as_many_images_where_memory_has_no_room(self, monkeypatch, refusal: RuntimeError) -> None:
        whole = self.extract()[0]("online", "plain")["main"]
        sizes = self.refuse(monkeypatch, refusal, above=2)
        extract, encoder = self.extract(notes=(notes := []), batch=8)
        found = extract("online", "plain")["main"]
        assert sizes[:4] == [8, 4, 2, 2]
        assert set(sizes[2:]) == {2}
        assert encoder.training
        torch.testing.assert_close(found, whole)
        assert notes == ["Memory had no room for features of 8 images at a time: 2 were taken (features.batch)."]

    def test_give_up_where_there_is_no_room_for_one_image(self, monkeypatch) -> None:
        sizes = self.refuse(monkeypatch, torch.OutOfMemoryError("CUDA out of memory."), above=0)
        with pytest.raises(torch.OutOfMemoryError):
            self.extract()[0]("online", "plain")
        assert sizes == [5, 2, 1]

    def test_do_not_try_again_after_another_error(self, monkeypatch) -> None:
        sizes = self.refuse(monkeypatch, RuntimeError("shapes differ"), above=0)
        with pytest.raises(RuntimeError, match="shapes differ"):
            self.extract()[0]("online", "plain")
        assert sizes == [5]

    def refuse(self, monkeypatch, error: RuntimeError, *, above: int) -> list[int]:
        """Make the encoder refuse more than so many images; returns the sizes of the passes that it sees."""
        sizes, forward = [], ToyEncoder.forward

        def refusing(encoder, images, modality):
            sizes.append(len(images))
            if len(images) > above:
                raise error
            return forward(encoder, images, modality)

        monkeypatch.setattr(ToyEncoder, "forward", refusing)
        return sizes


class TestCheckpoints:
    def test_the_last_two_are_kept_and_the_newest_is_read(self, tmp_path) -> None:
        for done in (1, 2, 3):
            save_checkpoint(tmp_path, done, {"epochs_done": done})
        assert [path.name for path in list_checkpoints(tmp_path)] == ["epoch-00002.pt", "epoch-00003.pt"]
        assert load_latest(tmp_path) == Found({"epochs_done": 3})

    def test_none_at_all_is_no_error(self, tmp_path) -> None:
        assert load_latest(tmp_path / "nothing") == Found()

    @pytest.mark.parametrize("damage", ["cut", "empty", "text", "other"])
    def test_a_damaged_one_is_named_and_passed_over(self, tmp_path, damage: str) -> None:
        save_checkpoint(tmp_path, 1, {"epochs_done": 1, "x": torch.ones(1000)})
        newest = save_checkpoint(tmp_path, 2, {"epochs_done": 2, "x": torch.ones(1000)})
        raw = newest.read_bytes()
        if damage == "other":
            torch.save([1, 2], newest)
        else:
            newest.write_bytes({"cut": raw[: len(raw) // 2], "empty": b"", "text": b"no checkpoint"}[damage])
        found = load_latest(tmp_path)
        state, warnings = found.epoch, found.warnings
        assert state is not None
        assert state["epochs_done"] == 1
        assert len(warnings) == 1
        assert "epoch-00002.pt is damaged" in warnings[0]

    def test_a_checkpoint_runs_no_code_when_read(self, tmp_path) -> None:
        class Bomb:
            def __reduce__(self):
                return (print, ("boom",))

        save_checkpoint(tmp_path, 1, {"epochs_done": 1})
        torch.save({"epochs_done": 2, "bomb": Bomb()}, tmp_path / "epoch-00002.pt")
        found = load_latest(tmp_path)
        state, warnings = found.epoch, found.warnings
        assert state == {"epochs_done": 1}
        assert len(warnings) == 1

    def test_a_write_that_fails_leaves_the_earlier_one(self, tmp_path, monkeypatch) -> None:
        save_checkpoint(tmp_path, 1, {"epochs_done": 1})

        def full(state, file):
            file.write(b"half")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(checkpoint.torch, "save", full)
        with pytest.raises(RunError, match=r"No space left on device.*Earlier checkpoints are untouched"):
            save_checkpoint(tmp_path, 2, {"epochs_done": 2})
        assert [path.name for path in tmp_path.iterdir()] == ["epoch-00001.pt"]

    def test_a_half_written_file_is_not_taken_for_one(self, tmp_path) -> None:
        save_checkpoint(tmp_path, 1, {"epochs_done": 1})
        (tmp_path / "epoch-00002.tmp").write_bytes(b"half")
        assert load_latest(tmp_path) == Found({"epochs_done": 1})


def test_the_clock_counts_work_within_work_once(monkeypatch) -> None:
    ticks = iter([0.0, 1.0, 3.0, 10.0])
    monkeypatch.setattr("harness.engine.cost.time.perf_counter", lambda: next(ticks))
    clock = Clock()
    with clock("outer", images=4), clock("inner"):
        pass
    assert dict(clock.seconds) == {"outer": 1.0 + 7.0, "inner": 2.0}
    assert clock.rate("outer") == 0.5
    assert clock.rate("nothing") == 0
    other = Clock()
    other.restore(clock.state())
    assert other.seconds == clock.seconds
    assert other.images == clock.images


def test_a_stage_may_have_visible_batches_of_its_own() -> None:
    recipe = TOY_RECIPE.model_copy(update={"visible_clusters": 2, "infrared_clusters": 2})
    stage = recipe.stages[0].model_copy(update={"visible_clusters": 3})
    stream = DrawStream(SOURCE, LABELS, draw=LABELS.draws[0], recipe=recipe, stage=stage, seed=0, epoch=0)
    batch, _ = stream.next()
    counts = [len(batch.labels["joint"][batch.modality == kind].unique()) for kind in (0, 1)]
    assert counts == [3, 2]


def test_notes_of_parts_carry_their_names() -> None:
    epoch = Epoch(
        index=0, epochs=1, stage="s", stage_number=0, stages=1, epoch=0, stage_epochs=1, cross=True,
        dataset="d", train=TRAIN, seed=5, store=FeatureStore(lambda *_: {}, encoders=("online",)),
    )  # fmt: skip
    epoch.bound_to("brst").note("there are no links")
    assert epoch.notes == ["brst: there are no links"]
