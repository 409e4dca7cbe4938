"""What a stream's speech has gone through before it is heard, such as a telephone."""

from __future__ import annotations

import numpy as np

CLEAN, TELEPHONE, CLIPPED = CHANNELS = ("clean", "telephone", "clipped")

_BAND_HZ = (300.0, 3400.0)  # of telephones (ITU-T G.712)
_MU = 255  # of their logarithmic 8 bits (ITU-T G.711)
_CLIP_SHARE = 0.02  # of the samples of the speech, those that are clipped


def send(channel: str, sound: np.ndarray, sample_rate: int) -> np.ndarray:
    """[samples] float64 → the same, through a channel; a louder sound only comes out louder.

    Args:
        channel: TELEPHONE (its band, and 8 bits on a logarithmic scale), CLIPPED (an overdriven microphone: what is
            above the level that 2 % of the samples exceed is cut off), or CLEAN, which changes nothing.
        sound: of any level.
        sample_rate: Hz.
    """
    if channel == CLEAN or not sound.any():
        return sound
    if channel == CLIPPED:
        most = np.quantile(np.abs(sound), 1 - _CLIP_SHARE) or np.abs(sound).max()
        return np.clip(sound, -most, most)
    from scipy.signal import butter, sosfiltfilt  # here, as it takes half a second, and few streams need it

    low, high = _BAND_HZ
    sos = butter(4, (low, min(high, 0.45 * sample_rate)), "bandpass", fs=sample_rate, output="sos")
    band = sosfiltfilt(sos, sound, padlen=min(len(sound) - 1, sample_rate // 10))
    peak = np.abs(band).max() or 1.0
    coded = np.sign(band) * np.log1p(_MU * np.abs(band) / peak) / np.log1p(_MU)
    decoded = np.rint(coded * 127) / 127
    return np.sign(decoded) * peak * np.expm1(np.abs(decoded) * np.log1p(_MU)) / _MU
