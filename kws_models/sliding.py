"""Windows that slide over rows which arrive piece by piece."""

import numpy as np


class SlidingWindows:
    """Windows of `length` rows, `hop` rows apart, the first at the first row.

    Args:
        length: rows of a window.
        hop: from one window's start to the next one's; may be more than `length`.
    """

    def __init__(self, length: int, hop: int) -> None:
        self.length, self.hop = length, hop
        self._rows: np.ndarray | None = None  # from the next window's start on
        self._skip = 0  # rows still to come before that start

    def feed(self, rows: np.ndarray) -> np.ndarray:
        """The next rows [n, ...] → the windows that are complete now, [m, length, ...], a view to read from."""
        skipped = min(self._skip, len(rows))
        self._skip -= skipped
        rows = rows[skipped:] if self._rows is None else np.concatenate([self._rows, rows[skipped:]])
        count = max(0, (len(rows) - self.length) // self.hop + 1)
        passed = count * self.hop
        self._skip += max(0, passed - len(rows))
        self._rows = rows[passed:]
        if not count:
            return np.zeros((0, self.length, *rows.shape[1:]), rows.dtype)
        windows = np.lib.stride_tricks.sliding_window_view(rows, self.length, axis=0)[: passed : self.hop]
        return np.moveaxis(windows, -1, 1)
