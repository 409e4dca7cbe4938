"""Where in a clip the speech is, as far as its level tells."""

import numpy as np

_FRAME_S = 0.01
_BELOW_PEAK_DB = 30.0  # a word's quietest sounds are hardly further below its loudest
_ABOVE_FLOOR_DB = 10.0  # ... and a noisy clip's noise stands less far below
_NEAREST_TO_PEAK_DB = 10.0


def speech_extent(samples: np.ndarray, sample_rate: int) -> tuple[int, int]:
    """The first sample and the one after the last of what is loud in a clip: an estimate of where the word is.

    Loud are frames of 10 ms less than 30 dB below the loudest and at least 10 dB above the level that a tenth of the
    frames don't reach (at most 10 dB below the loudest). A clip without a sound, or of one frame, is all speech.
    """
    frame = round(_FRAME_S * sample_rate)
    count = len(samples) // frame
    if count < 2 or not np.any(samples):
        return 0, len(samples)
    frames = np.asarray(samples[: count * frame], np.float64).reshape(count, frame)
    level_db = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-9)
    peak = level_db.max()
    floor = min(np.percentile(level_db, 10) + _ABOVE_FLOOR_DB, peak - _NEAREST_TO_PEAK_DB)
    loud = np.flatnonzero(level_db >= max(floor, peak - _BELOW_PEAK_DB))
    return int(loud[0]) * frame, (int(loud[-1]) + 1) * frame
