"""The microphone as a stream of samples; needs the extra `microphone` (sounddevice, over PortAudio)."""

from __future__ import annotations

import logging
import queue
from collections.abc import Iterator
from typing import Any

import numpy as np

from kws_data.errors import KwsError

log = logging.getLogger(__name__)

_WAIT_S = 10  # a device that is silent for this long is gone
_BEHIND_S = 10  # most audio that may wait to be processed; a model that is too slow exceeds it


def microphone_blocks(sample_rate: int, block_samples: int, device: str | int | None = None) -> Iterator[np.ndarray]:
    """Yield blocks from the microphone, [block_samples] float32 at `sample_rate` Hz, until the caller stops.

    Args:
        sample_rate: Hz; the sound system resamples.
        block_samples: samples per block.
        device: a number or a part of the name, as `python -m sounddevice` lists them; None means the system's default.

    Raises:
        KwsError: the extra is not installed, there is no microphone, it stopped, or the caller is too slow.
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
    except OSError as error:  # the package is installed, but not the library that it wraps
        raise KwsError(f"--microphone needs PortAudio ({error}): on Debian, apt install libportaudio2") from error
    return sounddevice
