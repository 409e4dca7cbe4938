"""Where in a clip the word is, by the power of its frames."""

from __future__ import annotations

import numpy as np

_FRAME_MS = 20  # about a syllable's detail
_BELOW_LOUDEST = 1e-3  # of the loudest frame's power: 30 dB
_ABOVE_FLOOR = 4.0  # times the power of the quiet frames: 6 dB
_QUIET = 0.1  # the share of frames that count as quiet


def active_regions(pcm: np.ndarray, lengths: np.ndarray, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """From the first to past the last frame of 20 ms that is within 30 dB of the loudest and above the clip's noise.

    Args:
        pcm: [batch, samples] int16.
        lengths: [batch] samples of each clip; what follows is padding.
        sample_rate: Hz.

    Returns:
        starts and ends, each [batch] samples; both 0 for a silent clip.
    """
    size = sample_rate * _FRAME_MS // 1000
    width = -(-pcm.shape[1] // size) * size
    samples = np.zeros((len(pcm), width), np.float32)
    samples[:, : pcm.shape[1]] = pcm
    frames = samples.reshape(len(pcm), -1, size)
    power = np.einsum("bfs,bfs->bf", frames, frames)
    counts = -(-lengths // size)
    power[np.arange(power.shape[1]) >= counts[:, None]] = np.inf  # padding is not the clip's noise
    quiet = np.take_along_axis(np.sort(power, axis=1), (_QUIET * counts).astype(int)[:, None], axis=1)
    power[np.isinf(power)] = 0
    loudest = power.max(axis=1, keepdims=True)
    floor = _ABOVE_FLOOR * quiet
    # In a clip that is equally loud everywhere, the noise can't be told apart.
    least = np.maximum(_BELOW_LOUDEST * loudest, np.where(floor < loudest, floor, 0))
    active = (power >= least) & (power > 0)
    starts = active.argmax(axis=1) * size
    ends = np.minimum((active.shape[1] - active[:, ::-1].argmax(axis=1)) * size, lengths)
    heard = active.any(axis=1)
    return np.where(heard, starts, 0), np.where(heard, ends, 0)
