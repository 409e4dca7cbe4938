"""The microphone as a stream of samples; needs the extra `microphone` (sounddevice, over PortAudio)."""

from __future__ import annotations

import logging
import queue
from collections.abc import Iterator
from typing import Any

import numpy as np

from kws_data.errors import KwsError

log = logging.getLogger(__name__)

_WAIT_S = 10  # a device that gives nothing for so long has gone
_BEHIND_S = 10  # what has been heard but not yet been looked at; more comes of a model that is too slow


def microphone_blocks(sample_rate: int, block_samples: int, device: str | int | None = None) -> Iterator[np.ndarray]:
    """Yield what the microphone hears, [block_samples] float32 at `sample_rate` Hz, until the caller stops.

    Args:
        sample_rate: Hz; the sound system resamples.
        block_samples: of a block.
        device: a number or a part of the name, as `python -m sounddevice` lists them; None: the system's default.

    Raises:
        KwsError: the extra isn't installed, there is no microphone, it stopped, or the caller is too slow for it.
    """
    sound = _sounddevice()
    blocks: queue.Queue[np.ndarray] = queue.Queue()

    def take(samples: np.ndarray, count: int, time: Any, status: Any) -> None:
        del count, time
        if status:
            log.warning("microphone: %s", status)
        blocks.put(samples[:, 0].copy())

    try:
        stream = sound.InputStream(
            samplerate=sample_rate, blocksize=block_samples, channels=1, dtype="float32", device=device, callback=take
        )
        with stream:
            while blocks.qsize() * block_samples < _BEHIND_S * sample_rate:
                yield blocks.get(timeout=_WAIT_S)
        raise KwsError(f"--microphone: the model is {_BEHIND_S} s behind; a longer --hop-ms asks less of it")
    except queue.Empty:
        raise KwsError(f"--microphone: nothing came for {_WAIT_S} s; is the device still there?") from None
    except (sound.PortAudioError, ValueError) as error:  # ValueError: no device of that name
        reason = " ".join(str(error).split())
        raise KwsError(f"--microphone: no sound from it: {reason}; python -m sounddevice lists the devices") from error


def _sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError as error:
        raise KwsError("--microphone needs sounddevice: pip install -e '.[microphone]'") from error
    except OSError as error:  # it is there, but the library that it wraps isn't
        raise KwsError(f"--microphone needs PortAudio ({error}): on Debian, apt install libportaudio2") from error
    return sounddevice
