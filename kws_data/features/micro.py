"""The fixed-point front end of TensorFlow Lite Micro, which micro_speech and microWakeWord run on the device."""

from typing import Any

import keras
import tensorflow as tf
from tensorflow.lite.experimental.microfrontend.python.ops.audio_microfrontend_op import audio_microfrontend

from kws_data.checks import check_probability, require
from kws_data.features.base import FeatureLayer, fft_size_for, frame_samples, in_chunks
from kws_data.features.mel import check_bands


@keras.saving.register_keras_serializable(package="kws")
class MicroFrontend(FeatureLayer):
    """TensorFlow's ``audio_microfrontend`` op on int16 PCM, × 10/256: [batch, frames, num_mel_bins].

    Filter bank, noise reduction, automatic gain control (PCAN) and logarithm in integers. Noise reduction and gain
    carry state from frame to frame and start afresh with every clip, so features of a stream and of its windows differ.
    The defaults are those of TFLite Micro's micro_speech (micro_features_generator.cc), which microWakeWord shares.

    The op runs clip by clip, on the CPU only, has no gradient, and does not convert to TFLite. Only a process that has
    imported this module can read a SavedModel with this op.

    Args:
        sample_rate: Hz.
        window_ms: Hann window, in whole milliseconds.
        hop_ms: from frame to frame, in whole milliseconds.
        num_mel_bins: channels of the filter bank.
        lower_hz: the lowest channel's lower edge.
        upper_hz: the highest channel's upper edge.
        smoothing_bits: precision of the noise estimate.
        even_smoothing: the noise estimate's smoothing in even channels.
        odd_smoothing: the same in odd channels.
        min_signal_remaining: the part of the signal that noise reduction always leaves.
        enable_pcan: per-channel automatic gain control.
        pcan_strength: its exponent.
        pcan_offset: its denominator's offset.
        gain_bits: its fractional bits.
        enable_log: take the logarithm.
        scale_shift: the logarithm's scale, as a power of two.
        normalise: per channel, by the training split's mean and variance.
    """

    op_module = audio_microfrontend.__module__
    output_scale = 10.0 / 256.0  # micro_speech's, of uint16 to floats from 0 to about 26

    def __init__(
        self,
        sample_rate: int = 16000,
        window_ms: int = 30,
        hop_ms: int = 20,
        num_mel_bins: int = 40,
        lower_hz: float = 125.0,
        upper_hz: float = 7500.0,
        smoothing_bits: int = 10,
        even_smoothing: float = 0.025,
        odd_smoothing: float = 0.06,
        min_signal_remaining: float = 0.05,
        enable_pcan: bool = True,
        pcan_strength: float = 0.95,
        pcan_offset: float = 80.0,
        gain_bits: int = 21,
        enable_log: bool = True,
        scale_shift: int = 6,
        normalise: bool = False,
        **kwargs: Any,
    ) -> None:
        require(window_ms == int(window_ms), "window_ms", "whole milliseconds", window_ms)
        require(hop_ms == int(hop_ms), "hop_ms", "whole milliseconds", hop_ms)
        frame_length, frame_step = frame_samples(window_ms, hop_ms, sample_rate)
        require(frame_step <= frame_length, "hop_ms", f"at most window_ms ({window_ms})", hop_ms)
        check_bands(sample_rate, num_mel_bins, lower_hz, upper_hz)
        super().__init__(sample_rate, frame_length, frame_step, fft_size_for(None, frame_length), normalise, **kwargs)
        self.window_ms = int(window_ms)
        self.hop_ms = int(hop_ms)
        self.num_mel_bins = num_mel_bins
        self.lower_hz = lower_hz
        self.upper_hz = upper_hz
        self.smoothing_bits = smoothing_bits
        self.even_smoothing = check_probability("even_smoothing", even_smoothing)
        self.odd_smoothing = check_probability("odd_smoothing", odd_smoothing)
        self.min_signal_remaining = check_probability("min_signal_remaining", min_signal_remaining)
        self.enable_pcan = bool(enable_pcan)
        self.pcan_strength = pcan_strength
        self.pcan_offset = pcan_offset
        self.gain_bits = gain_bits
        self.enable_log = bool(enable_log)
        self.scale_shift = scale_shift

    @property
    def num_bins(self) -> int:
        """Channels."""
        return self.num_mel_bins

    def extract(self, waveform: tf.Tensor) -> tf.Tensor:
        """Front-end output of ``[clips, samples]``, each clip from a fresh state."""
        pcm = tf.saturate_cast(tf.round(waveform * 32768.0), tf.int16)
        # The op's shape function claims 0 frames where the length is unknown, and tf.map_fn would believe it, so
        # the shape is set here.
        rows = in_chunks(lambda clip: self._frontend(tf.reshape(clip, [-1])), pcm, 1)
        return tf.reshape(rows, [-1, self.num_frames(tf.shape(pcm)[1]), self.num_bins]) * self.output_scale

    def _frontend(self, pcm: tf.Tensor) -> tf.Tensor:
        """[samples] int16 to [frames, channels], unscaled."""
        return audio_microfrontend(
            pcm,
            sample_rate=self.sample_rate,
            window_size=self.window_ms,
            window_step=self.hop_ms,
            num_channels=self.num_mel_bins,
            upper_band_limit=float(self.upper_hz),
            lower_band_limit=float(self.lower_hz),
            smoothing_bits=self.smoothing_bits,
            even_smoothing=self.even_smoothing,
            odd_smoothing=self.odd_smoothing,
            min_signal_remaining=self.min_signal_remaining,
            enable_pcan=self.enable_pcan,
            pcan_strength=self.pcan_strength,
            pcan_offset=self.pcan_offset,
            gain_bits=self.gain_bits,
            enable_log=self.enable_log,
            scale_shift=self.scale_shift,
            out_type=tf.float32,
        )
