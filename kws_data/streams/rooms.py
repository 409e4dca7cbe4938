"""The rooms in which a stream's words are said."""

from __future__ import annotations

import functools

import numpy as np

from kws_data.augment.reverb import Reverb
from kws_data.draws import Draws
from kws_data.errors import KwsError

NO_ROOM, SYNTHETIC = "none", "synthetic"


class Rooms:
    """Rooms of one or several kinds; each kind is drawn equally often, and each room of a kind.

    Args:
        kinds: NO_ROOM, SYNTHETIC (those of `Reverb`), or a folder of impulse responses.
        sample_rate: Hz.

    Raises:
        KwsError: a folder holds no impulse response.
    """

    def __init__(self, kinds: tuple[str, ...], sample_rate: int) -> None:
        self._rooms: list[tuple[str, np.ndarray | None]] = []
        self._first, self._counts = [], []
        for kind in kinds:
            found = _of_kind(kind, sample_rate)
            self._first.append(len(self._rooms))
            self._counts.append(len(found))
            self._rooms.extend(found)

    def draw(self, draws: Draws) -> np.ndarray:
        """[batch] the number of a room for each."""
        kind = draws.integers("room kind", len(self._counts))
        return np.array(self._first)[kind] + draws.integers("room", np.array(self._counts)[kind])

    def name(self, number: int) -> str:
        """NO_ROOM, a reverberation time, or the name of a response's file."""
        return self._rooms[number][0]

    def reverberate(self, number: int, sound: np.ndarray) -> np.ndarray:
        """[samples] → [samples and the room's tail]; unchanged where there is no room."""
        response = self._rooms[number][1]
        if response is None:
            return sound
        from scipy.signal import oaconvolve  # here, as it takes half a second, and few streams need it

        return oaconvolve(sound, response)


@functools.lru_cache(maxsize=4)
def open_rooms(kinds: tuple[str, ...], sample_rate: int) -> Rooms:
    """See Rooms; read once."""
    return Rooms(kinds, sample_rate)


def _of_kind(kind: str, sample_rate: int) -> list[tuple[str, np.ndarray | None]]:
    if kind == NO_ROOM:
        return [(NO_ROOM, None)]
    try:
        return [*Reverb(sample_rate, impulse_dir=None if kind == SYNTHETIC else kind).rooms]
    except (KwsError, ValueError) as error:
        raise KwsError(str(error).replace("impulse_dir", "--rooms", 1)) from error
