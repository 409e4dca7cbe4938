"""What the pipeline's stages are compared with: reading files anew, a bare rFFT, and Keras's own loading."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from kws_data.splits import TRAINING

if TYPE_CHECKING:
    import tensorflow as tf

    from kws_data.features.base import FeatureLayer
    from kws_data.pipeline import ClipSource

SAMPLE_RATE = CLIP_SAMPLES = 16_000  # one-second clips
BARE_CLIPS = 2_000  # clips that the bare rFFT goes round in, at most: 64 MB


def decoded_files(paths: list[str], batch_size: int, threads: int) -> tf.data.Dataset:
    """[batch, samples] float32, read and decoded anew in each epoch."""
    import tensorflow as tf

    def decode(path: tf.Tensor) -> tf.Tensor:
        return tf.audio.decode_wav(tf.io.read_file(path), desired_channels=1, desired_samples=CLIP_SAMPLES).audio[:, 0]

    dataset = tf.data.Dataset.from_tensor_slices(paths).repeat()
    dataset = dataset.map(decode, num_parallel_calls=threads).batch(batch_size)
    return dataset.prefetch(2 * threads).with_options(threading_options(threads))


def bare_rfft(source: ClipSource, features: FeatureLayer, batch_size: int, threads: int) -> tf.data.Dataset:
    """[batch, frames, fft_size / 2 + 1] complex64: the frames that `features` takes, windowed and transformed."""
    import numpy as np
    import tensorflow as tf

    ids = source.ids(TRAINING)
    ids = np.resize(ids, math.ceil(min(BARE_CLIPS, len(ids)) / batch_size) * batch_size)
    pcm = source.gather(TRAINING, ids, epoch=0).pcm.reshape(-1, batch_size, CLIP_SAMPLES)
    window = tf.signal.hann_window(features.frame_length)

    def transform(batch: tf.Tensor) -> tf.Tensor:
        waveform = tf.cast(batch, tf.float32) / 32768.0
        frames = tf.signal.frame(waveform, features.frame_length, features.frame_step)
        return tf.signal.rfft(frames * window, [features.fft_size])

    dataset = tf.data.Dataset.from_tensor_slices(pcm).repeat().map(transform, num_parallel_calls=threads)
    return dataset.prefetch(2 * threads).with_options(threading_options(threads))


def keras_stft(root: Path, words: list[str], batch_size: int, threads: int) -> tf.data.Dataset:
    """([batch, 124, 129, 1] float32, labels), as TensorFlow's simple_audio tutorial makes them, without its cache."""
    import keras
    import tensorflow as tf

    def spectrogram(audio: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        stft = tf.signal.stft(tf.squeeze(audio, axis=-1), frame_length=255, frame_step=128)
        return tf.abs(stft)[..., tf.newaxis], labels

    dataset = keras.utils.audio_dataset_from_directory(
        str(root),
        class_names=words,
        batch_size=batch_size,
        seed=0,
        output_sequence_length=CLIP_SAMPLES,
        verbose=False,
    )
    dataset = dataset.map(spectrogram, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE).repeat()
    threading = tf.data.Options()
    threading.threading.private_threadpool_size = threads  # the rest is Keras's and tf.data's own choice
    return dataset.with_options(threading)


def threading_options(threads: int) -> tf.data.Options:
    """As `kws_data.pipeline.batches` sets it: parallel over batches, one thread in each."""
    import tensorflow as tf

    threading = tf.data.Options()
    threading.threading.max_intra_op_parallelism = 1
    threading.threading.private_threadpool_size = threads
    threading.autotune.enabled = False
    return threading
