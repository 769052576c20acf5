"""Answers remembered by version and evidence."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable


class AnswerCache:
    """The answers used last; a version's answers never change, so none is ever stale.

    Parameters
    ----------
    size : int
        Answers kept; 0 keeps none.
    most_bytes : int
        Of all answers together.
    """

    def __init__(self, size: int, most_bytes: int = 64_000_000) -> None:
        self.size, self.most_bytes = size, most_bytes
        self._answers: OrderedDict[Hashable, bytes] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable) -> bytes | None:
        """Give a remembered answer."""
        found = self._answers.get(key)
        if found is not None:
            self._answers.move_to_end(key)
        return found

    def put(self, key: Hashable, answer: bytes) -> None:
        """Remember an answer."""
        before = self._answers.pop(key, None)
        self._answers[key] = answer
        self._bytes += len(answer) - (0 if before is None else len(before))
        while len(self._answers) > self.size or self._bytes > self.most_bytes:
            _, oldest = self._answers.popitem(last=False)
            self._bytes -= len(oldest)

    def __len__(self) -> int:
        return len(self._answers)
