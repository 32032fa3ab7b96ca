"""A made-up board for the tests of the page: three tables, hostile and long names, missing values."""

from __future__ import annotations

from dataclasses import replace

from harness.leaderboard.board import Board, Curve, Difference, Estimate, Row, RowCost, Table

HOSTILE = "<script>document.title='taken'</script>\"'&</title>"
LONG = "a-method-with-a-very-long-name,and-another-part-with-a-long-name,and-a-third-one-that-is-no-shorter"
NAMES = [
    "chcr", "ecul", "dmic", "hil", "pclhd", "baseline", "pgm", "chcr,tsmem", LONG, HOSTILE,
]  # fmt: skip
PUBLISHED = [
    "ADCA", "H2H", "OTLA", "NGLR", "MBCCM", "CCLNet", "PGM", "CHCR", "MMM+PCLHD", "RPNR (independent reproduction)",
    "SDCL", "N-ULC", HOSTILE,
]  # fmt: skip
SOURCES = [
    "secondary: arXiv:2609.34294 (SMC) Table 1",
    "repository log at https://example.org/a/b.log, final 10-trial averages",
    f"javascript:alert(1) {HOSTILE}",
    "",
]


def estimate(mean, width=4.0, **changes):
    return (
        Estimate(mean, sd_seeds=width / 3, sd_trials=width / 7, low=mean - width / 2, high=mean + width / 2)
        if not (changes)
        else Estimate(mean, **changes)
    )


def figures(rank1, **changes):
    names = ("rank1", "rank5", "rank10", "rank20", "mAP", "mINP")
    steps = (0.0, 22.5, 33.25, 41.125, -0.55, -9.5)
    return {name: estimate(rank1 + step, **changes) for name, step in zip(names, steps, strict=True)}


def curves(rank1):
    epochs = tuple(range(1, 13))
    falling = tuple(4.6 - 0.27 * epoch + rank1 / 100 for epoch in epochs)
    return (
        Curve("loss contrast/joint", epochs, falling),
        Curve("loss modality-contrast", epochs, tuple(value / 3 for value in falling)),
        Curve("rank-1", (4, 8, 12), (rank1 - 9, rank1 - 2, rank1)),
        Curve("mAP", (4, 8, 12), (rank1 - 11, rank1 - 4, rank1 - 1)),
        Curve("labels ARI visible", epochs, tuple(0.3 + 0.05 * epoch for epoch in epochs)),
        Curve("labels ARI infrared", epochs, tuple(0.25 + 0.045 * epoch for epoch in epochs)),
        Curve("labels precision visible>infrared", epochs, tuple(0.2 + 0.03 * epoch for epoch in epochs)),
    )


def run_row(table, name, rank1, index, **changes):
    fields = {
        "identifier": f"{table}--row-{index}",
        "kind": "run",
        "method": name,
        "figures": figures(rank1),
        "verified": ("run", "re-scored", "retrained")[index % 3],
        "parts": (("clusterer", "chc"), ("memory", "tsmem"), ("loss", "contrast"), ("loss", "modality-contrast")),
        "options": (("tsmem", "step2_momentum", "0.2"), ("chc", "threshold", "0.6"), ("chc", "<b>", HOSTILE)),
        "encoder": "small",
        "weights": "shipped start",
        "extra_information": ("camera labels",) if index % 2 else (),
        "seeds": (0, 1, 2),
        "trials": 10,
        "selection": "last",
        "world_size": 1,
        "bn_batch": 64,
        "cost": RowCost(
            0.02 * (index + 1), "CPU-hours", "cpu", 1361.0, {"training": 48.9, "clustering": 12.25, "extraction": 9.0}
        ),
        "group": 1 + index // 3,
        "curves": curves(rank1),
        "settings": f"{index:08x}" + "0" * 56,
        "records": tuple(f"{table}-{index}-{seed}.json" for seed in (0, 1, 2)),
    }
    return Row(**(fields | changes))


def published_row(table, name, rank1, index):
    only = {"rank1": Estimate(rank1), "mAP": Estimate(rank1 - 3)} if index % 2 else {"rank1": Estimate(rank1)}
    return Row(
        identifier=f"{table}--published-{index}",
        kind="published",
        method=name,
        figures=only if index % 4 else figures(rank1, sd_seeds=None),
        verified="published",
        source=SOURCES[index % len(SOURCES)],
        paper="Augmented Dual-Contrastive Aggregation Learning for Visible-Infrared Person Re-Identification",
        venue="ACM MM" if index % 3 else "",
        year=2022 if index % 3 else None,
        secondary=index % 2 == 0,
        marks=("secondary source",) if index % 2 == 0 else (),
        extra_information=("labelled visible re-identification data for pre-training",) if index == 1 else (),
    )


def with_pairs(rows):
    """Run rows with the paired differences of each to every other."""

    def differences(row, other):
        gap = row.figures["rank1"].mean - other.figures["rank1"].mean
        return {
            "rank1": Estimate(gap, low=gap - 3, high=gap + 3),
            "mAP": Estimate(gap / 2, low=gap / 2 - 1, high=gap / 2 + 1),
        }

    return [
        replace(row, pairs={other.identifier: differences(row, other) for other in rows if other is not row})
        for row in rows
    ]


def example_board():
    """SYSU-MM01 with two runs and twelve published rows, RegDB with eight published ones, rendered with ten runs."""
    rendered = [run_row("rendered", name, 46.5 - 1.9 * index, index) for index, name in enumerate(NAMES)]
    rendered[5] = replace(
        rendered[5], marks=("figures of the epoch that was best on the test set",), selection="oracle"
    )
    rendered[8] = replace(
        rendered[8], seeds=(0,), figures=figures(31.3, sd_trials=1.25), cost=None, curves=(), group=None
    )
    reference = run_row(
        "rendered",
        "supervised",
        51.9,
        10,
        reference="supervised",
        group=None,
        marks=("reference, no unsupervised method",),
    )
    sysu = [run_row("sysu", name, 58.2 - 3 * index, index) for index, name in enumerate(("pgm", "hil"))]
    gpu = [
        replace(row, cost=RowCost(3.5 + index, "GPU-hours", "NVIDIA H200", 22_000.0, {"training": 9000.0}))
        for index, row in enumerate(sysu)
    ]
    gap = Difference(57.27, 0.93, -0.4, 2.26, SOURCES[1])
    gpu[0] = replace(gpu[0], differences={"rank1": gap, "mAP": replace(gap, low=None, high=None)})
    published = [published_row("sysu", name, 64.5 - 2.5 * index, index) for index, name in enumerate(PUBLISHED)]
    regdb = [published_row("regdb", name, 90.5 - 3.5 * index, index) for index, name in enumerate(PUBLISHED[:8])]
    about = "All-search, single-shot, galleries drawn as most repositories draw them; 3803 queries, 301 gallery images."
    return Board(
        (
            Table("sysu", "SYSU-MM01, all-search, single-shot", "SYSU-MM01", "sysu-mm01/all/single/S/v1", about,
                  (*with_pairs(gpu), *published), tuple(name for name in PUBLISHED if name != "PGM")),
            Table("regdb", "RegDB, visible to infrared", "RegDB", "regdb/visible-infrared/v1", "Means of ten trials.",
                  tuple(regdb), tuple(PUBLISHED[:8])),
            Table("rendered", "Rendered (small, seed 0), all-search, single-shot", "rendered",
                  "rendered/all/single/S/v1", "", tuple(with_pairs([*rendered, reference]))),
        )
    )  # fmt: skip
