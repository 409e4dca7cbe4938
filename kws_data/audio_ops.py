"""Decode and resample audio files inside a TensorFlow graph, by tensorflow-io: WAV, FLAC, Ogg Vorbis and MP3.

`tfio.audio.AudioIOTensor`, which would know the rate too, keeps one file for all calls of a graph: of calls at the same
time, some get another file's rate. So the rate is read from the header here, and only `decode_…`, which keep nothing,
are used. Nor is `tfio.audio.resample`, whose output lags.
"""

from __future__ import annotations

import math

import tensorflow as tf
import tensorflow_io as tfio

from kws_data.audio import INT16_SCALE

# Looking this name up registers tensorflow-io's ops, which importing it alone does not: `pkgutil.resolve_name(…)`.
REGISTERS_OPS = "tensorflow_io.python.ops.core_ops.io_audio_decode_wav"

_HEAD_BYTES = 4096
_LONGEST_HEAD = 64  # bytes that are read at one position
_MIN_RATE, _MAX_RATE = 1000, 768_000
# The filter is that of soxr's quality HQ: it passes this part of the band up to the lower Nyquist frequency.
_PASSED = 0.9136
_REJECTION_DB = 126.4
# by Kaiser's formulas: the shape of his window, and the taps at the lower rate
_BETA = 0.1102 * (_REJECTION_DB - 8.7)
_TAPS = (_REJECTION_DB - 7.95) / (2.285 * math.pi * (1 - _PASSED))


def read(content: tf.Tensor, sample_rate: int) -> tf.Tensor:
    """A file's bytes → [samples] float32 at `sample_rate` Hz: mono and in steps of 16 bits, as clips are stored."""
    samples, rate = decode(content)
    mono = tf.debugging.check_numerics(tf.reduce_mean(samples, axis=-1), "the file")
    mono = tf.cond(tf.equal(rate, sample_rate), lambda: mono, lambda: resample(mono, rate, sample_rate))
    steps = tf.clip_by_value(tf.round(mono * INT16_SCALE), -INT16_SCALE, INT16_SCALE - 1)
    return steps / INT16_SCALE


def decode(content: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """A file's bytes → ([samples, channels] float32 in [-1, 1], its rate in Hz)."""
    # an empty file would end the process
    with tf.control_dependencies([tf.debugging.assert_positive(tf.strings.length(content), "the file is empty")]):
        padded = content + b"\0" * _LONGEST_HEAD
    mark = tf.strings.substr(padded, 0, 4)
    kind = tf.argmax([mark == b"RIFF", mark == b"fLaC", mark == b"OggS", True])
    decoders = [lambda decoder=decoder: decoder(content, padded) for decoder in (_wav, _flac, _vorbis, _mp3)]
    samples, rate = tf.switch_case(tf.cast(kind, tf.int32), decoders)
    checks = [
        tf.debugging.assert_positive(tf.shape(samples)[0], "the file holds no samples"),
        tf.debugging.Assert((rate >= _MIN_RATE) & (rate <= _MAX_RATE), ["the file's rate in Hz is", rate]),
    ]
    with tf.control_dependencies(checks):
        return tf.identity(samples), rate


def resample(samples: tf.Tensor, rate: tf.Tensor, sample_rate: int) -> tf.Tensor:
    """[samples] float32 at `rate` Hz → at `sample_rate` Hz, by a sinc in Kaiser's window, without delay.

    Both are applied to the spectrum, which is cut, or filled with zeros, to the other rate's length: so any two rates
    cost the same, where a filter for each phase would have as many phases as the rates have no divisor in common.
    """
    divisor = tf.experimental.numpy.gcd(rate, sample_rate)
    step_in, step_out = rate // divisor, sample_rate // divisor
    lower = tf.cast(tf.minimum(rate, sample_rate), tf.float64)
    high = tf.cast(rate, tf.float64)
    half = tf.cast(tf.math.ceil(_TAPS / 2 * high / lower), tf.int32)
    cutoff = (1 + _PASSED) / 2 * lower / high  # of the Nyquist frequency of the input
    taps = tf.cast(tf.range(-half, half + 1), tf.float64)
    window = tf.signal.kaiser_window(2 * half + 1, _BETA, tf.float64)
    kernel = cutoff * tf.experimental.numpy.sinc(cutoff * taps) * window

    count = tf.shape(samples)[0]
    steps = (count + 2 * half + step_in - 1) // step_in  # with silence around, since a spectrum's signal is a circle
    size_in, size_out = steps * step_in, steps * step_out
    kernel = tf.roll(tf.pad(kernel, [[0, size_in - 2 * half - 1]]), -half, 0)
    spectrum = tf.signal.rfft(tf.cast(samples, tf.float64), [size_in]) * tf.signal.rfft(kernel)
    bins = size_out // 2 + 1
    spectrum = tf.pad(spectrum[:bins], [[0, tf.maximum(0, bins - size_in // 2 - 1)]])
    resampled = tf.signal.irfft(spectrum, [size_out]) * tf.cast(step_out, tf.float64) / tf.cast(step_in, tf.float64)
    return tf.cast(resampled, tf.float32)[: (count * step_out + step_in - 1) // step_in]


def _wav(content: tf.Tensor, padded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    parts = tf.strings.split(tf.strings.substr(padded, 0, _HEAD_BYTES), b"fmt ", maxsplit=1)
    with tf.control_dependencies([tf.debugging.assert_equal(tf.size(parts), 2, "the WAV has no format")]):
        header = parts[1] + b"\0" * _LONGEST_HEAD
    places = ((4, 2), (6, 2), (8, 4), (16, 2), (18, 2))
    encoding, channels, rate, frame_bytes, bits = (_number(header, *place) for place in places)
    encoding = tf.where(encoding == 0xFFFE, _number(header, 28, 2), encoding)
    supported = (encoding == 1) & (bits <= 32) | (encoding == 3) & (bits == 32)
    check = tf.debugging.Assert(supported, ["not supported: a WAV of encoding", encoding, "with", bits, "bits"])
    # other frames end the process
    fits = tf.debugging.assert_equal(frame_bytes, channels * ((bits + 7) // 8), "the WAV has frames of a wrong size")
    with tf.control_dependencies([check, fits]):
        content = tf.identity(content)

    def integers(dtype: tf.DType) -> tf.Tensor:
        return _scaled(tfio.audio.decode_wav(content, dtype=dtype))

    def of_32_bits() -> tf.Tensor:
        floats = tfio.audio.decode_wav(content, dtype=tf.float32)  # also of integers
        return tf.cond(encoding == 1, lambda: _scaled(tf.bitcast(floats, tf.int32)), lambda: floats)

    branches = [lambda: integers(tf.uint8), lambda: integers(tf.int16), lambda: integers(tf.int32), of_32_bits]
    return tf.switch_case((bits + 7) // 8 - 1, branches), rate


def _flac(content: tf.Tensor, padded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    field = _bytes(padded, 18, 4)  # 20 bits of the rate, 3 of the channels, 5 of the bits of a sample
    rate = field[0] * 4096 + field[1] * 16 + field[2] // 16
    bits = field[2] % 2 * 16 + field[3] // 16 + 1
    dtypes = (tf.uint8, tf.int16, tf.int32)
    branches = [lambda dtype=dtype: _scaled(tfio.audio.decode_flac(content, dtype=dtype)) for dtype in dtypes]
    return tf.switch_case((bits + 7) // 8 - 1, branches), rate


def _vorbis(content: tf.Tensor, padded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    name = tf.strings.substr(padded, 28, 7)
    check = tf.debugging.assert_equal(name, b"\x01vorbis", "not supported: an Ogg file of Opus, or not of Vorbis")
    with tf.control_dependencies([check]):
        return tfio.audio.decode_vorbis(tf.identity(content)), _number(padded, 40, 4)


def _mp3(content: tf.Tensor, padded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    size = tf.reduce_sum(_bytes(padded, 6, 4) % 128 * [1 << 21, 1 << 14, 1 << 7, 1]) + 10
    tagged = tf.strings.substr(padded, 0, 3) == b"ID3"
    begin = tf.where(tagged, tf.minimum(size, tf.strings.length(content)), 0)
    head = _bytes(padded, begin, _HEAD_BYTES)
    first, second, third = head[:-2], head[1:-1], head[2:]
    version, layer, rate = second // 8 % 4, second // 2 % 4, third // 4 % 4
    is_frame = (first == 255) & (second >= 224) & (version != 1) & (layer == 1) & (third // 16 < 15) & (rate < 3)
    check = tf.debugging.Assert(tf.reduce_any(is_frame), ["the file is neither WAV, FLAC, Ogg nor MP3"])
    place = tf.argmax(is_frame)
    of_mpeg_1 = tf.gather([44_100, 48_000, 32_000], rate[place])
    with tf.control_dependencies([check]):
        return tfio.audio.decode_mp3(tf.identity(content)), of_mpeg_1 // tf.gather([4, 1, 2, 1], version[place])


def _scaled(integers: tf.Tensor) -> tf.Tensor:
    """Integers of 8 (unsigned), 16 or 32 bits → float32 in [-1, 1]."""
    if integers.dtype == tf.uint8:
        return (tf.cast(integers, tf.float32) - 128) / 128
    return tf.cast(integers, tf.float32) / -float(integers.dtype.min)


def _bytes(content: tf.Tensor, position: tf.Tensor | int, count: int) -> tf.Tensor:
    """[count] int32 in [0, 255], fewer where the content ends."""
    return tf.cast(tf.io.decode_raw(tf.strings.substr(content, position, count), tf.uint8), tf.int32)


def _number(content: tf.Tensor, position: int, count: int) -> tf.Tensor:
    """A little-endian number; int32."""
    return tf.reduce_sum(_bytes(content, position, count) * [256**place for place in range(count)])
