"""Add the reverberation of rooms."""

from __future__ import annotations

import functools
import logging

import numpy as np
import scipy.fft

from kws_data.audio import INT16_SCALE, UnreadableAudioError, read_pcm
from kws_data.augment.stage import ClipBatch, Shapes, StageContext, Tensor, WaveformStage
from kws_data.checks import check_path, check_probability, check_range
from kws_data.draws import Draws
from kws_data.errors import KwsError
from kws_data.folders import as_stored, audio_files

log = logging.getLogger(__name__)

_LONGEST_S = 1.0  # of an impulse response; the rest is inaudible after one-second clips
_SYNTHESIZED = 64


class Reverb(WaveformStage):
    """Convolve a fraction `probability` of the clips with an impulse response.

    Responses come from the files in `impulse_dir`, or are synthesized: a direct path, then noise that decays by 60 dB
    in a time uniform in `rt60_s` = [low, high] seconds, at `direct_to_reverberant_db` below the direct path. What
    precedes a response's peak is removed, so that words keep their time; each is scaled to unit energy, so that levels
    change little.

    Raises:
        KwsError: `impulse_dir` holds no usable file. A warning is logged for each unusable one.
    """

    def __init__(
        self,
        sample_rate: int,
        rt60_s: tuple[float, float] = (0.1, 0.6),
        direct_to_reverberant_db: tuple[float, float] = (0.0, 12.0),
        impulse_dir: str | None = None,
        probability: float = 0.3,
    ) -> None:
        self.sample_rate = sample_rate
        self.rt60_s = check_range("rt60_s", rt60_s, 0.02, 5.0)
        self.ratio_db = check_range("direct_to_reverberant_db", direct_to_reverberant_db, -20, 40)
        self.impulse_dir = None if impulse_dir is None else check_path("impulse_dir", impulse_dir)
        self.probability = check_probability("probability", probability)
        if self.impulse_dir is not None:
            _ = self.rooms  # read now, so that an unusable folder is an error here and not inside the graph

    @functools.cached_property
    def impulses(self) -> np.ndarray:
        """[responses, samples] float32, each of unit energy."""
        responses = [response for _, response in self.rooms]
        longest = max(map(len, responses))
        return np.stack([np.pad(response, (0, longest - len(response))) for response in responses]).astype(np.float32)

    @functools.cached_property
    def rooms(self) -> list[tuple[str, np.ndarray]]:
        """The name of each room, its file's or its reverberation time, and its response: [samples] of unit energy."""
        return self._read() if self.impulse_dir is not None else self._synthesize()

    def _read(self) -> list[tuple[str, np.ndarray]]:
        assert self.impulse_dir is not None
        rooms = []
        for path in audio_files(as_stored(self.impulse_dir)):
            try:
                response = read_pcm(path, self.sample_rate) / INT16_SCALE
                if not response.any():
                    raise UnreadableAudioError("is silent")
            except UnreadableAudioError as error:
                log.warning("impulse response '%s' is left out: %s", path, error)
                continue
            response = response[np.abs(response).argmax() :][: round(_LONGEST_S * self.sample_rate)]
            rooms.append((path.stem, response / np.sqrt((response**2).sum())))
        if not rooms:
            raise KwsError(f"impulse_dir: '{self.impulse_dir}' holds no usable impulse response")
        return rooms

    def _synthesize(self) -> list[tuple[str, np.ndarray]]:
        generator = np.random.Generator(np.random.Philox(key=0))
        time = np.arange(round(min(self.rt60_s[1], _LONGEST_S) * self.sample_rate)) / self.sample_rate
        rooms = []
        for _ in range(_SYNTHESIZED):
            rt60, ratio_db = generator.uniform(*self.rt60_s), generator.uniform(*self.ratio_db)
            tail = generator.standard_normal(len(time)) * 10 ** (-3 * time / rt60)
            tail[0] = 0.0
            response = tail * 10 ** (-ratio_db / 20) / np.sqrt((tail**2).sum())
            response[0] = 1.0
            rooms.append((f"{rt60:.1f} s", response / np.sqrt((response**2).sum())))
        return rooms

    def prepare(self, batch: ClipBatch, draws: Draws, context: StageContext) -> dict[str, np.ndarray]:
        """`impulse`: [batch] int32, index of the response, or -1 for dry clips; `length`: [batch] int32, samples."""
        chosen = (draws.uniform("reverb")[:, 0] < self.probability) & ~batch.silence
        impulse = np.where(chosen, draws.integers("impulse", len(self.impulses)), -1)
        return {"impulse": impulse.astype(np.int32), "length": context.room(batch).astype(np.int32)}

    def parameter_shapes(self) -> Shapes:
        """See `prepare`."""
        return {"impulse": ("int32", ()), "length": ("int32", ())}

    def apply(self, waveform: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """[batch, samples] float32 → the same shape; reverberation after the clip's end is cut."""
        import tensorflow as tf

        rows = tf.where(parameters["impulse"] >= 0)
        chosen = tf.gather_nd(waveform, rows)
        count = tf.shape(waveform)[1]
        indices = tf.gather_nd(parameters["impulse"], rows)
        if waveform.shape[1] is not None:  # one length for all: the responses are transformed once
            size = scipy.fft.next_fast_len(waveform.shape[1] + self.impulses.shape[1] - 1, real=True)
            response = tf.gather(tf.constant(np.fft.rfft(self.impulses, size).astype(np.complex64)), indices)
        else:
            needed = tf.cast(count + self.impulses.shape[1] - 1, tf.float32)
            size = 2 ** tf.cast(tf.math.ceil(tf.math.log(needed) / tf.math.log(2.0)), tf.int32)
            impulses = tf.gather(tf.constant(self.impulses), indices)
            response = tf.signal.rfft(tf.pad(impulses, [[0, 0], [0, size - self.impulses.shape[1]]]), [size])
        # Padded here, as rfft neither pads nor accepts an empty batch, which occurs when all clips stay dry.
        chosen = tf.pad(chosen, [[0, 0], [0, size - count]])
        clip = tf.sequence_mask(tf.gather_nd(parameters["length"], rows), count, tf.float32)
        wet = tf.signal.irfft(tf.signal.rfft(chosen, [size]) * response, [size])[:, :count] * clip
        return tf.tensor_scatter_nd_update(waveform, rows, wet)
