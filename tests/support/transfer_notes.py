"""Keeps what a transfer says."""

from __future__ import annotations


class Notes:
    """A listener of downloads.

    Args:
        total: bytes that the transfer is to announce.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.notes: list[str] = []
        self.steps: list[int] = []

    def reached(self, done: int, total: int) -> None:
        assert total == self.total
        self.steps.append(done)

    def note(self, text: str) -> None:
        self.notes.append(text)
