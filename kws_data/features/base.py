"""The base of all feature layers: framing, computation in chunks, and normalisation."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kws_data.checks import check_number, check_whole, require

# Frames are computed for this many float32 values (1.6 MB) at a time. The intermediate results of a whole batch of 100
# clips (20 MB) would miss the caches and be newly allocated each time, at half the speed.
_CHUNK_VALUES = 400_000

# A bin with a smaller variance over the training split is constant: it is centred but not scaled up.
_MIN_VARIANCE = 1e-12


class FeatureLayer(keras.layers.Layer, ABC):
    """From waveforms to features: ``[batch, samples]`` float32 in [-1, 1] to ``[batch, frames, bins]`` float32.

    Stateless and deterministic; the features of a clip don't depend on the other clips of its batch. Frames lie wholly
    inside the clip (no padding), except that a clip shorter than one window is zero-padded to one frame.

    With ``normalise=True`` the features have zero mean and unit variance per bin, once ``adapt`` has seen the training
    split; the statistics (0 and 1 before that) are weights and are saved with the model.

    A batch of a fixed, small size is computed in one piece; other batches go through a loop over chunks of clips.
    Converters, which don't support such a loop, use ``in_one_piece``.

    Subclasses implement ``extract`` and ``num_bins``, and keep each constructor argument in an attribute of that name.
    """

    op_module: str | None = None
    """The module that registers the layer's ops, needed to read a SavedModel; None if they are TensorFlow's own."""

    output_scale: float = 1.0
    """The features before normalisation, divided by this, are what the same front end on a device gives."""

    def __init__(
        self, sample_rate: int, frame_length: int, frame_step: int, fft_size: int, normalise: bool, **kwargs: Any
    ) -> None:
        kwargs.setdefault("dtype", "float32")  # whatever the global policy, as logarithms and sums need it
        super().__init__(**kwargs)
        self.supports_jit = False  # the loop over chunks has no static shapes, and XLA is slower on the CPU anyway
        self.sample_rate = sample_rate
        self.frame_length = frame_length
        self.frame_step = frame_step
        self.fft_size = fft_size
        self.normalise = bool(normalise)

    @property
    @abstractmethod
    def num_bins(self) -> int:
        """Features per frame."""

    @property
    def frames_are_independent(self) -> bool:
        """Whether a frame depends on its own samples alone, not on the rest of the clip or on earlier frames.

        Then the frames of a long recording can be used for every window that slides over it. False is always safe.
        """
        return False

    @abstractmethod
    def extract(self, waveform: tf.Tensor) -> tf.Tensor:
        """Features before normalisation, of ``[clips, samples]`` with at least one window of samples."""

    def num_frames(self, num_samples: Any) -> Any:
        """Frames of clips of ``num_samples`` (an int, a NumPy array or an integer tensor): at least one."""
        if isinstance(num_samples, int):
            return 1 + max(num_samples - self.frame_length, 0) // self.frame_step
        maximum = tf.maximum if tf.is_tensor(num_samples) else np.maximum
        return 1 + maximum(num_samples - self.frame_length, 0) // self.frame_step

    def output_shape_for(self, num_samples: int) -> tuple[int, int]:
        """(frames, bins) of a clip of ``num_samples``: the shape that a model is built for."""
        return self.num_frames(num_samples), self.num_bins

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(batch, samples) to (batch, frames, bins), for Keras; None where unknown."""
        batch, num_samples = input_shape
        return batch, None if num_samples is None else self.num_frames(num_samples), self.num_bins

    def build(self, input_shape: Any = None) -> None:
        """Create the weights of the statistics; called by Keras or by ``adapt``."""
        del input_shape  # the bins are known from the constructor
        if self.normalise:
            self.mean = self.add_weight(name="mean", shape=(self.num_bins,), initializer="zeros", trainable=False)
            self.variance = self.add_weight(
                name="variance", shape=(self.num_bins,), initializer="ones", trainable=False
            )
        self.built = True

    def call(self, waveform: tf.Tensor) -> tf.Tensor:
        """Features of ``[batch, samples]`` as ``[batch, frames, bins]``."""
        return self._normalised(self._extract_in_chunks(tf.cast(waveform, tf.float32)))

    def in_one_piece(self, waveform: tf.Tensor) -> tf.Tensor:
        """As ``call``, for clips of one known length, without the loop over chunks: for formats that have no loops."""
        missing = max(self.frame_length - waveform.shape[1], 0)
        return self._normalised(self.extract(tf.pad(waveform, [[0, 0], [0, missing]]) if missing else waveform))

    def _normalised(self, features: tf.Tensor) -> tf.Tensor:
        if not self.normalise:
            return features
        scale = tf.math.rsqrt(tf.maximum(tf.convert_to_tensor(self.variance), _MIN_VARIANCE))
        return (features - tf.convert_to_tensor(self.mean)) * scale

    def _extract_in_chunks(self, waveform: tf.Tensor) -> tf.Tensor:
        """``extract``, some clips at a time, of clips padded to at least one window."""
        batch, num_samples = waveform.shape
        if num_samples is None:
            missing = tf.maximum(self.frame_length - tf.shape(waveform)[1], 0)
            waveform = tf.pad(waveform, [[0, 0], [0, missing]])
            clip_values = self.num_frames(tf.shape(waveform)[1]) * self.fft_size
            chunk = tf.maximum(_CHUNK_VALUES // clip_values, 1)
        else:
            if num_samples < self.frame_length:
                waveform = tf.pad(waveform, [[0, 0], [0, self.frame_length - num_samples]])
            chunk = max(_CHUNK_VALUES // (self.num_frames(num_samples) * self.fft_size), 1)
        if batch is not None and isinstance(chunk, int) and batch <= chunk:
            features = self.extract(waveform)
        else:
            features = in_chunks(self.extract, waveform, chunk)
        return tf.ensure_shape(features, self.compute_output_shape((batch, num_samples)))

    def adapt(self, batches: Iterable[Any]) -> None:
        """Compute mean and variance per bin over waveforms, one batch at a time, in float64.

        Args:
            batches: ``[batch, samples]`` each, or pairs of that and the clips' true lengths ``[batch]`` in samples, so
                that the padding of shorter clips is left out.

        Raises:
            ValueError: the layer does not normalise, or there is no clip.
        """
        if not self.normalise:
            raise ValueError("normalise must be true for the features to be adapted")
        if not self.built:
            self.build()
        extract = tf.function(self._extract_in_chunks, input_signature=[tf.TensorSpec([None, None], tf.float32)])
        count, mean, squares = 0, np.zeros(self.num_bins), np.zeros(self.num_bins)
        for batch in batches:
            waveform, num_samples = batch if isinstance(batch, tuple | list) else (batch, None)
            features = extract(tf.cast(waveform, tf.float32)).numpy()
            if num_samples is None:
                rows = features.reshape(-1, self.num_bins).astype(np.float64)
            else:
                frames = self.num_frames(np.asarray(num_samples))
                rows = features[np.arange(features.shape[1]) < frames[:, None]].astype(np.float64)
            if not len(rows):
                continue
            # Chan, Golub & LeVeque's merging of (count, mean, sum of squared deviations).
            total, delta = count + len(rows), rows.mean(axis=0) - mean
            squares += ((rows - rows.mean(axis=0)) ** 2).sum(axis=0) + delta**2 * (count * len(rows) / total)
            mean += delta * (len(rows) / total)
            count = total
        if not count:
            raise ValueError("batches must hold at least one clip to adapt to")
        self.mean.assign(mean.astype(np.float32))
        self.variance.assign((squares / count).astype(np.float32))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments; ``from_config`` rebuilds the layer from them."""
        parameters = inspect.signature(type(self).__init__).parameters.values()
        own = [p.name for p in parameters if p.name != "self" and p.kind is not p.VAR_KEYWORD]
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


@keras.saving.register_keras_serializable(package="kws")
class NumFrames(keras.layers.Layer):
    """From lengths in samples to lengths in frames, as a feature layer computes them."""

    def __init__(self, frame_length: int, frame_step: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.frame_length = frame_length
        self.frame_step = frame_step

    def call(self, num_samples: tf.Tensor) -> tf.Tensor:
        """[batch] int32 → [batch] int32."""
        return 1 + tf.maximum(num_samples - self.frame_length, 0) // self.frame_step

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "frame_length": self.frame_length, "frame_step": self.frame_step}


def in_chunks(extract: Any, waveform: tf.Tensor, chunk: Any) -> tf.Tensor:
    """Call ``extract`` on ``chunk`` clips at a time and concatenate the results along the first axis.

    An empty batch still runs one (empty) step, which gives the result its other dimensions.
    """
    steps = tf.maximum((tf.shape(waveform)[0] + chunk - 1) // chunk, 1)
    results = tf.TensorArray(tf.float32, size=steps, infer_shape=False)

    def step(i: tf.Tensor, results: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        return i + 1, results.write(i, extract(waveform[i * chunk : (i + 1) * chunk]))

    _, results = tf.while_loop(lambda i, _: i < steps, step, (0, results), parallel_iterations=1)
    return results.concat()


def frame_samples(window_ms: float, hop_ms: float, sample_rate: int) -> tuple[int, int]:
    """Samples in window and hop, rounded down as in the original example; ValueError if either is below one."""
    check_whole("sample_rate", sample_rate, 1)
    samples = []
    for name, milliseconds in (("window_ms", window_ms), ("hop_ms", hop_ms)):
        samples.append(int(sample_rate * check_number(name, milliseconds) / 1000))
        require(samples[-1] >= 1, name, f"at least one sample long ({1000 / sample_rate:g} ms)", milliseconds)
    return samples[0], samples[1]


def fft_size_for(fft_size: int | None, frame_length: int) -> int:
    """``fft_size``, checked; for None, the next power of two from ``frame_length``."""
    if fft_size is None:
        return 1 << (frame_length - 1).bit_length()
    require(fft_size >= frame_length, "fft_size", f"null or at least the window ({frame_length} samples)", fft_size)
    return fft_size
