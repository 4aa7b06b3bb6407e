"""Nobody watching: the Progress of what is too quick, or too quiet, to be shown."""

from __future__ import annotations


class NoProgress:
    """Nobody is watching."""

    def begin(self, files: int, size: int, /) -> None:
        """Ignore it."""

    def advance(self, size: int, origin: str, /) -> None:
        """Ignore it."""

    def finish_file(self, path: str, /) -> None:
        """Ignore it."""
