"""The page: a folder of static files that says what a board says, and opens without a server or a network."""

from harness.leaderboard.site.build import build_site

__all__ = ["build_site"]
