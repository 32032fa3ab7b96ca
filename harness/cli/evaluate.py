"""``harness evaluate``: figures without training, of a run or of anybody's embeddings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.progress import counting
from harness.errors import SettingsError
from harness.reading import shown

if TYPE_CHECKING:
    from harness.errors import ProtocolError
    from harness.evaluation import Figures, Protocol
    from harness.evaluation.embeddings import Embeddings


@click.command()
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option("--embeddings", "file", type=click.Path(path_type=Path), help="File or folder to score instead of a run.")
@click.option("--protocol", "names", multiple=True, help="Identifier, or its beginning (sysu-mm01, regdb); repeatable.")
@click.option("--permutations", type=click.Path(path_type=Path), help="The official rand_perm_cam.mat (O protocols).")
@click.option("--trials", type=click.IntRange(1, 10), default=10, show_default=True, help="Galleries drawn.")
@click.option(
    "--distance",
    type=click.Choice(["cosine", "euclidean"]),
    default="cosine",
    show_default=True,
    help="cosine: of L2-normalised rows; euclidean: of the rows as they are.",
)
@click.option(
    "--flip/--no-flip", default=None, help="Average with `features_mirrored` (default: if the file has them)."
)
@click.option("--json", "out", type=click.Path(path_type=Path), help="Also write the figures to this file.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def evaluate(run: Path | None, file: Path | None, out: Path | None, **flags: Any) -> None:
    """Score a finished RUN again from its stored embeddings, or any embeddings of test images.

    \b
    harness evaluate runs/demo
    harness evaluate --embeddings features.npz --protocol sysu-mm01/all/single/S/v1
    harness evaluate --embeddings feature/ --protocol sysu-mm01 --permutations rand_perm_cam.mat

    An embedding file is .safetensors or .npz with `features`, `identities`, `cameras` and `paths` (in safetensors a
    JSON list in the metadata); a folder holds the official NAME_cam1.mat .. NAME_cam6.mat. `harness protocols` defines
    the protocols. Exit status 1 if a run's figures are not those of its record.
    """
    if (run is None) == (file is None):
        raise SettingsError("Give either a run's folder or --embeddings FILE; `harness evaluate --help` shows both.")
    if run is not None:
        _again(run, out, **flags)
    else:
        _foreign(Path(str(file)), out, **flags)


def _again(run: Path, out: Path | None, *, permutations: Path | None, **others: Any) -> None:
    given = [name for name, flag in (("names", "--protocol"), ("flip", "--flip")) if others[name]]
    if given or others["distance"] != "cosine" or others["trials"] != 10:
        raise SettingsError(
            "A run is scored as it was recorded: --protocol, --flip, --distance and --trials belong to --embeddings. "
            f"To score its embeddings otherwise: --embeddings {run / 'embeddings.safetensors'}"
        )
    from harness.engine.rescore import rescore

    with counting("scoring", "queries") as progress:
        found = rescore(run, permutations=permutations, progress=progress)
    _show(found.figures)
    _write(out, found.figures, run=str(found.record.name))
    if found.differing:
        click.echo(f"DIFFERENT from the record: {', '.join(found.differing)}.")
        raise SystemExit(1)
    click.echo("Identical to the record.")


def _foreign(
    file: Path,
    out: Path | None,
    *,
    names: tuple[str, ...],
    permutations: Path | None,
    trials: int,
    distance: Any,
    flip: bool | None,
    debug: bool,
) -> None:
    from harness.evaluation import evaluate_all, read_official_permutations
    from harness.evaluation.embeddings import ranked_features, read_embeddings

    embeddings = read_embeddings(file)
    features, how = ranked_features(embeddings, distance=distance, flip=flip)
    tables = None if permutations is None else read_official_permutations(permutations)
    notes = list(embeddings.notes)
    protocols = _chosen(names, embeddings)
    if tables is None and any(protocol.gallery_rule != "O" for protocol in protocols):
        kept = [protocol for protocol in protocols if protocol.gallery_rule != "O" or protocol.identifier in names]
        if len(kept) < len(protocols):
            notes.append("Galleries from the official permutations (O) need --permutations rand_perm_cam.mat.")
        protocols = kept
    undefined: list[ProtocolError] = []

    def not_defined(protocol: Protocol, error: ProtocolError) -> None:
        if protocol.identifier in names:
            raise error
        notes.append(f"{protocol.identifier} was not evaluated: {error}")
        undefined.append(error)

    with counting("scoring", "queries") as progress:
        results = evaluate_all(
            features,
            embeddings.test_set,
            protocols,
            trials=trials,
            permutations=tables,
            distance=distance,
            not_defined=not_defined,
            progress=progress,
        )
    if not results:
        raise undefined[0]
    figures = {name: result.figures() for name, result in results.items()}
    notes += _differences(embeddings, protocols)
    click.echo(f"{file}: {len(embeddings.features)} images x {embeddings.features.shape[1]}; {how}.")
    for note in notes:
        click.echo(f"note: {shown(note)}")
    _show(figures)
    _write(out, figures, embeddings=str(file), features=how, notes=notes)


def _chosen(names: tuple[str, ...], embeddings: Embeddings) -> list[Protocol]:
    from harness.evaluation import PROTOCOLS, protocols_beginning

    of_run = (embeddings.about or {}).get("protocol")
    names = names or ((of_run,) if of_run else ())
    if not names:
        datasets = ", ".join(dict.fromkeys(protocol.dataset for protocol in PROTOCOLS.values()))
        raise SettingsError(f"Add --protocol ID, or a dataset's name for all of its protocols ({datasets}).")
    return list(dict.fromkeys(protocol for name in names for protocol in protocols_beginning(name)))


def _differences(embeddings: Embeddings, protocols: list[Protocol]) -> list[str]:
    """How the test images differ from the published dataset that the protocols are of."""
    from harness.data.published import differences_of_test

    return [
        f"These are not the published test images: {difference}; figures do not compare with published ones."
        for dataset in dict.fromkeys(protocol.dataset for protocol in protocols)
        for difference in differences_of_test(dataset, embeddings.test_set)
    ]


def _show(figures: dict[str, Figures]) -> None:
    from harness.evaluation import figures_table

    click.echo(
        f"\n{figures_table(figures)}\n\nIn percent"
        + (
            "; mean ± sample standard deviation over the trials."
            if any(f.trials > 1 for f in figures.values())
            else "."
        )
    )


def _write(out: Path | None, figures: dict[str, Figures], **about: Any) -> None:
    if out is None:
        return
    from harness.files import replace_text

    content = {**about, "protocols": {name: found.model_dump(mode="json") for name, found in figures.items()}}
    replace_text(out, json.dumps(content, sort_keys=True, indent=2, ensure_ascii=False) + "\n")
    click.echo(f"Written to {out}.")
