"""Where the speech is in a clip, estimated from its level."""

import numpy as np

_FRAME_S = 0.01
_BELOW_PEAK_DB = 30.0  # the quietest sounds of a word are hardly further below its loudest
_ABOVE_FLOOR_DB = 10.0  # ... but the noise of a noisy clip may be closer
_NEAREST_TO_PEAK_DB = 10.0


def speech_extent(samples: np.ndarray, sample_rate: int) -> tuple[int, int]:
    """(first sample, end) of the loud part of a clip: an estimate of where the word is.

    A frame of 10 ms is loud if it is less than 30 dB below the loudest frame and at least 10 dB above the level that a
    tenth of the frames don't reach (that threshold is at most 10 dB below the loudest). A silent clip, or one shorter
    than two frames, counts as speech from start to end.
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
