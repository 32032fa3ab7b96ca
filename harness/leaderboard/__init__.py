"""Run records and the tables made from them."""

from harness.leaderboard.record import (
    RECORD_NAME,
    SCHEMA_VERSION,
    CodeState,
    Cost,
    DatasetCard,
    EncoderCard,
    Environment,
    EpochCurve,
    EpochLabels,
    Extraction,
    Part,
    Record,
    figures_digest,
    read_record,
    settings_digest,
    write_record,
)
from harness.leaderboard.table import find_records, leaderboard, render_markdown

__all__ = [
    "RECORD_NAME",
    "SCHEMA_VERSION",
    "CodeState",
    "Cost",
    "DatasetCard",
    "EncoderCard",
    "Environment",
    "EpochCurve",
    "EpochLabels",
    "Extraction",
    "Part",
    "Record",
    "figures_digest",
    "find_records",
    "leaderboard",
    "read_record",
    "render_markdown",
    "settings_digest",
    "write_record",
]
