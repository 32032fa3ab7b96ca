"""The page: whole and small, of any run, and safe whatever the files hold."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from markupsafe import Markup, escape
from safetensors.numpy import load_file, save_file

import toy_observers
from harness.cli import cli
from harness.errors import RunError
from harness.leaderboard.record import read_record, write_record
from harness.report import Choices, write_report
from harness.report.page import MOST_BYTES, Report
from harness.report.plots import Drawing
from toy_parts import toy_catalogue
from toy_runs import run_toy

SECTIONS = ("figures", "curves", "cost", "retrieval", "map", "clusters", "settings", "warnings")
HOSTILE = "</style><script>alert(1)</script><img src=http://example.com/x>\x1b[31m$x_1$"


class Seen(HTMLParser):
    """Elements with their attributes, and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def report(out: Path, *runs: Path, observers: tuple[str, ...] = (), **how) -> tuple[Report, str, Seen]:
    known = toy_catalogue(noting=toy_observers.Noting, hostile=toy_observers.Hostile)
    made = write_report(runs, out / "page.html", choices=Choices(observers=observers), catalogue=known, **how)
    text = made.page.read_text(encoding="utf-8")
    return made, text, Seen(text)


def require_alone(seen: Seen) -> None:
    """Nothing runs, nothing is fetched."""
    for tag, attributes in seen.elements:
        assert tag not in ("script", "iframe", "object", "embed", "base", "form"), tag
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href", "data", "action"):
                assert str(value).startswith(("#", "data:")), (tag, value)


@pytest.fixture(scope="module")
def made(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, str, Seen]:
    return report(tmp_path_factory.mktemp("page"), finished)


def test_every_section_is_there_and_nothing_is_missing(made, finished: Path) -> None:
    found, text, seen = made
    assert found.notes == ()
    ids = {attributes.get("id") for _, attributes in seen.elements}
    assert set(SECTIONS) <= ids
    record = read_record(finished / "record.json")
    for protocol, figures in record.protocols.items():
        assert protocol in seen.text
        assert f"{100 * figures.mAP:.2f} ±" in seen.text
    assert "None: see the notes" not in text
    assert found.size == len(text.encode()) < MOST_BYTES


def test_it_runs_nothing_and_fetches_nothing(made) -> None:
    _, text, seen = made
    require_alone(seen)
    assert not re.search(r"url\((?!data:|#)", text)
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_links_within_the_page_lead_somewhere(made) -> None:
    _, _, seen = made
    ids = {attributes["id"] for _, attributes in seen.elements if attributes.get("id")}
    links = {str(a["href"]) for tag, a in seen.elements if tag == "a"}
    assert {link[1:] for link in links} <= ids


def test_each_thumbnail_is_in_the_file_once_and_shown(made) -> None:
    _, text, seen = made
    names = re.findall(r"^\.(i\d+)\{background-image", text, flags=re.MULTILINE)
    shown = [name for _, a in seen.elements for name in str(a.get("class", "")).split() if re.fullmatch(r"i\d+", name)]
    assert len(names) == len(set(names)) > 20
    assert set(shown) == set(names)
    assert len(shown) > len(names)


def test_right_and_wrong_are_told_by_a_mark_and_words_too(made) -> None:
    _, text, _ = made
    right, wrong = (len(re.findall(f'<figure class="{kind}">', text)) for kind in ("right", "wrong"))
    assert right > 0
    assert wrong > 0
    assert (text.count("<b>✓</b>"), text.count("<b>✗</b>")) == (right, wrong)


def test_drawings_have_words_axes_with_units_and_the_colours_of_the_page(made) -> None:
    _, text, seen = made
    drawings = [attributes for tag, attributes in seen.elements if tag == "svg"]
    assert len(drawings) >= 12
    assert all(a["role"] == "img" and a["aria-label"] and a["viewbox"] for a in drawings)
    for unit in (
        "percent of images",
        "seconds",
        "cosine similarity (no unit)",
        "% of variance)",
        "epoch",
        "percent of pairs",
    ):
        assert unit in seen.text
    assert "var(--series-1)" in text
    for svg in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL):
        assert not re.search(r"#0072b2|#c24e00|#1b1b1a|#5a5a56", svg)


@pytest.mark.slow
def test_equal_runs_give_equal_bytes(made, finished: Path, tmp_path: Path) -> None:
    assert report(tmp_path, finished)[1] == made[1]


@pytest.mark.slow
def test_drawings_for_a_paper_are_equal_bytes_too(finished: Path, tmp_path: Path) -> None:
    one, other = (report(tmp_path, finished, plots=tmp_path / name, formats=("svg", "pdf"))[0] for name in "ab")
    assert len(one.plots) == len(other.plots) >= 20
    assert {path.suffix for path in one.plots} == {".svg", ".pdf"}
    assert len({path.name for path in one.plots}) == len(one.plots)
    for first, second in zip(one.plots, other.plots, strict=True):
        assert first.read_bytes() == second.read_bytes()
    assert "var(--" not in one.plots[0].read_text()


@pytest.fixture
def no_drawings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn does not matter to a test, and drawing takes longest."""
    monkeypatch.setattr(Drawing, "inline", lambda self: Markup(f'<svg aria-label="{escape(self.description)}"></svg>'))


@pytest.mark.usefixtures("no_drawings")
class TestOtherRuns:
    def test_a_run_that_failed_half_way(self, unfinished: Path, tmp_path: Path) -> None:
        found, _, seen = report(tmp_path, unfinished)
        assert any("it has not finished. 4 of 4 epochs have ended" in note for note in found.notes)
        assert "not finished" in seen.text
        assert "Losses" in seen.text
        assert "Test images before training" in seen.text
        assert "Test images after training" not in seen.text
        assert "Cluster 0" in seen.text
        assert "seconds" in seen.text

    def test_a_run_that_failed_before_its_first_epoch(self, tmp_path: Path) -> None:
        folder = tmp_path / "begun"
        folder.mkdir()
        (folder / "settings.toml").write_text('dataset = "rendered"\nplugins = ["pgm"]\nseed = 3\n')
        found, _, seen = report(tmp_path, folder)
        assert "No epoch has ended." in seen.text
        assert "pgm" in seen.text
        assert any("has no record" in note for note in found.notes)

    def test_a_run_whose_images_are_gone_has_everything_but_the_sheets(
        self, finished: Path, tmp_path: Path, monkeypatch
    ) -> None:
        monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "empty"))
        found, text, seen = report(tmp_path, finished)
        (note,) = found.notes
        assert "The images of this run are no longer where they were" in note
        assert "Test images after training" in seen.text
        assert "Losses" in seen.text
        assert "Cluster 0" not in seen.text
        assert "background-image:url" not in text

    def test_a_run_with_some_images_gone_has_empty_frames(self, tiny_copy: Path, tmp_path: Path) -> None:
        folder = run_toy(tmp_path / "runs", data_root=tiny_copy, recipe={"epochs": 1, "iterations": 1}).folder
        for image in (tiny_copy / "cam6").glob("*/*.jpg"):
            image.write_bytes(b"no image")
        found, _, seen = report(tmp_path, folder)
        assert any("images could not be read" in note for note in found.notes)
        empty = [a for _, a in seen.elements if a.get("class") == "picture"]
        assert empty
        assert all("(no picture)" in str(a["aria-label"]) for a in empty)

    def test_other_training_images_than_the_run_had(self, tiny_copy: Path, tmp_path: Path) -> None:
        folder = run_toy(tmp_path / "runs", data_root=tiny_copy, recipe={"epochs": 1, "iterations": 1}).folder
        first = (tiny_copy / "exp" / "train_id.txt").read_text().split(",")[0]
        image = min((tiny_copy / "cam1" / f"{int(first):04d}").glob("*.jpg"))
        image.rename(image.with_name("9999.jpg"))
        found, _, seen = report(tmp_path, folder)
        assert any("not those that the run was trained on" in note for note in found.notes)
        assert "Cluster 0" not in seen.text

    def test_a_run_on_regdb(self, regdb: Path, tmp_path: Path) -> None:
        found, _, seen = report(tmp_path, regdb)
        assert found.notes == ()
        assert "regdb/visible-to-infrared/v1" in seen.text
        assert "trial 1" in seen.text
        assert "Trial 1, gallery of 18 images" in seen.text
        assert "Cluster 0" in seen.text

    def test_a_reference_row(self, tiny: Path, tmp_path: Path) -> None:
        folder = run_toy(tmp_path / "runs", reference="pretrained").folder
        found, _, seen = report(tmp_path, folder)
        assert found.notes == ()
        assert "reference row: pretrained" in seen.text
        assert "No epoch has ended." not in seen.text

    def test_a_run_of_an_earlier_version(self, copy: Path, tmp_path: Path) -> None:
        for name in ("start.safetensors", "labels.safetensors"):
            (copy / name).unlink()
        found, _, seen = report(tmp_path, copy)
        assert len(found.notes) == 2
        assert "Test images after training" in seen.text
        assert "toy, before training" not in seen.text
        assert "Test images before training" not in seen.text

    def test_several_runs_stand_side_by_side(self, finished: Path, unfinished: Path, tmp_path: Path) -> None:
        found, _, seen = report(tmp_path, finished, unfinished)
        assert "toy and copy" in seen.text
        assert all(note.startswith("copy: ") for note in found.notes)
        assert "Loss plain/visible" in seen.text
        assert "Where the runs differ In nothing." in seen.text

    def test_two_runs_of_one_name_are_told_apart(self, finished: Path, tmp_path: Path) -> None:
        other = Path(shutil.copytree(finished, tmp_path / "elsewhere" / finished.name))
        _, _, seen = report(tmp_path, finished, other)
        assert f"elsewhere/{finished.name}" in seen.text

    @pytest.mark.parametrize("path", ["nothing", "."])
    def test_a_folder_without_a_run_is_refused(self, tmp_path: Path, path: str) -> None:
        with pytest.raises(RunError, match=r"There is no run in .*: give the folder"):
            write_report([tmp_path / path], tmp_path / "page.html")


@pytest.mark.usefixtures("no_drawings")
class TestDamage:
    @pytest.mark.parametrize(
        "name",
        [
            "record.json",
            "metrics.jsonl",
            "settings.toml",
            "start.safetensors",
            "embeddings.safetensors",
            "labels.safetensors",
        ],
    )
    @pytest.mark.parametrize("damage", [b"", b"\xff\xfe{]", b"[" * 9999, b'{"epoch": 1e999}\n'], ids=range(4))
    def test_a_damaged_file_costs_a_note_and_no_more(
        self, copy: Path, tmp_path: Path, name: str, damage: bytes
    ) -> None:
        (copy / name).write_bytes(damage)
        found, _, seen = report(tmp_path, copy)
        require_alone(seen)
        assert found.notes or damage == b""

    def test_a_record_that_was_changed_is_left_out(self, copy: Path, tmp_path: Path) -> None:
        content = json.loads((copy / "record.json").read_text())
        content["protocols"][content["primary_protocol"]]["rank1"] = 0.99
        (copy / "record.json").write_text(json.dumps(content))
        found, _, seen = report(tmp_path, copy)
        assert any("was changed after it was written" in note for note in found.notes)
        assert "99.00" not in seen.text

    def test_embeddings_of_another_run_are_left_out(self, copy: Path, tmp_path: Path) -> None:
        (copy / "embeddings.safetensors").write_bytes((copy / "start.safetensors").read_bytes())
        found, _, _ = report(tmp_path, copy)
        assert any("is not the file that the figures were computed from" in note for note in found.notes)

    @pytest.mark.parametrize("fault", ["short", "negative", "huge", "float", "matrix"])
    def test_labels_that_cannot_be(self, copy: Path, tmp_path: Path, fault: str) -> None:
        from safetensors import safe_open

        arrays = load_file(copy / "labels.safetensors")
        with safe_open(copy / "labels.safetensors", "numpy") as file:
            metadata = file.metadata()
        spoilt = arrays["visible"]
        arrays["visible"] = {
            "short": spoilt[:-1],
            "negative": spoilt - 5,
            "huge": np.where(spoilt >= 0, 2**30, spoilt).astype(np.int32),
            "float": spoilt.astype(np.float32),
            "matrix": spoilt[None],
        }[fault]
        save_file(arrays, copy / "labels.safetensors", metadata=metadata)
        found, _, seen = report(tmp_path, copy)
        assert any(note.startswith("labels.safetensors is left out") for note in found.notes)
        assert "Cluster 0" not in seen.text

    def test_images_outside_the_dataset_are_not_shown(self, copy: Path, tiny: Path, tmp_path: Path) -> None:
        from safetensors import safe_open

        private = tmp_path / "private.jpg"
        shutil.copyfile(next(tiny.glob("cam1/*/*.jpg")), private)
        (copy / "record.json").unlink()
        arrays = load_file(copy / "embeddings.safetensors")
        with safe_open(copy / "embeddings.safetensors", "numpy") as file:
            about = json.loads(file.metadata()["harness"])
        about["paths"] = [f"{private.parent}/x/{row}/../../private.jpg" for row in range(len(about["paths"]))]
        save_file(arrays, copy / "embeddings.safetensors", metadata={"harness": json.dumps(about)})
        found, _, _ = report(tmp_path, copy)
        assert any("No test image is left" in note for note in found.notes)


class TestHostileText:
    def test_nothing_that_a_file_holds_becomes_markup(self, copy: Path, tmp_path: Path) -> None:
        record = read_record(copy / "record.json")
        spoilt = record.model_copy(
            update={
                "warnings": [HOSTILE],
                "recipe": {**record.recipe, HOSTILE: HOSTILE},
                "cost": record.cost.model_copy(update={"device": HOSTILE, "seconds": {HOSTILE: 1.0, "$a$": 2.0}}),
                "encoder": record.encoder.model_copy(update={"weights": HOSTILE}),
                "environment": record.environment.model_copy(update={"torch": HOSTILE}),
            }
        )
        write_record(copy / "record.json", spoilt)
        rows = [json.loads(line) for line in (copy / "metrics.jsonl").read_text().splitlines()]
        for row in rows:
            row["losses"] = {HOSTILE: 1.0, "_hidden": 0.5, "$\\frac{1}$": 2.0, "": 3.0}
            row["pairs"] = {HOSTILE: 0.5}
        (copy / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (copy / "settings.toml").write_text((copy / "settings.toml").read_text() + f"\n['{HOSTILE[:40]}']\na = 1\n")
        found, text, seen = report(tmp_path, copy)
        require_alone(seen)
        assert "\x1b" not in text
        assert "<script" not in text
        assert r"\x1b[31m" in seen.text
        assert found.size < MOST_BYTES

    @pytest.mark.usefixtures("no_drawings")
    def test_sections_of_observers_are_escaped_and_drawings_are_pictures(self, finished: Path, tmp_path: Path) -> None:
        _, text, seen = report(tmp_path, finished, observers=("hostile", "noting"))
        require_alone(seen)
        assert "<script" not in text
        assert "example.com" not in seen.text
        assert "Two <b>bold</b>." in seen.text
        assert "Last values by noting" in seen.text
        pictures = [a for tag, a in seen.elements if tag == "img"]
        assert [str(a["src"]).partition(",")[0] for a in pictures] == ["data:image/svg+xml;base64"] * 2


@pytest.mark.usefixtures("no_drawings")
class TestCommand:
    def test_it_writes_beside_the_run_and_says_where(self, copy: Path) -> None:
        done = CliRunner().invoke(cli, ["report", str(copy)])
        assert done.exit_code == 0, done.output
        assert f"report: {copy / 'report.html'} (" in done.output.replace("\n", "")
        assert (copy / "report.html").exists()

    @pytest.mark.slow
    def test_several_runs_go_to_this_folder(self, copy: Path, finished: Path, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.chdir(tmp_path)
        done = CliRunner().invoke(cli, ["report", str(copy), str(finished), "--plots", "figures", "--format", "pdf"])
        assert done.exit_code == 0, done.output
        assert (tmp_path / "report.html").exists()
        assert len(list((tmp_path / "figures").glob("*.pdf"))) > 10

    @pytest.mark.parametrize("arguments", [["--format", "png"], ["--format", ""], ["--protocol", "rendered/all/x"]])
    def test_what_it_cannot_do_is_said(self, finished: Path, arguments: list[str]) -> None:
        done = CliRunner().invoke(cli, ["report", str(finished), *arguments])
        assert done.exit_code != 0
        assert done.exception is not None

    def test_a_page_that_cannot_be_written_is_an_error(self, finished: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(RunError, match="cannot be written"):
            write_report([finished], tmp_path / "file" / "page.html")
