"""A network's predictions for a split: with the clips' levels, and in noise."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kws_data.errors import KwsError
from kws_experiments.evaluation.intervals import wilson_each
from kws_experiments.evaluation.metrics import predictions_table

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from kws_data.features.base import FeatureLayer
    from kws_data.pipeline import ClipSource

log = logging.getLogger(__name__)


class Predictor:
    """A network on a source's clips.

    Args:
        source: fills batches with samples.
        features: the network's own feature layer.
        network: features → logits.
        labels: class names, in the order of the logits.
        threads: batches computed at once; affects nothing but speed.
    """

    def __init__(
        self, source: ClipSource, features: FeatureLayer, network: keras.Model, labels: list[str], threads: int
    ) -> None:
        self.source, self.features, self.network = source, features, network
        self.labels, self.threads = labels, threads
        self._infer: Inference | None = None

    def logits(self, split: str, **arguments: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(logits [clips, labels], labels [clips], example ids [clips]) of a split.

        `arguments` are for `evaluation_batches`.
        """
        from kws_data.pipeline import evaluation_batches

        stream = evaluation_batches(self.source, split, self.features, threads=self.threads, **arguments)
        if self._infer is None:
            self._infer = Inference(self.network, stream)
        return predict(self._infer, stream)

    def predictions(self, split: str) -> pd.DataFrame:
        """The table of `evaluation.predictions_table`.

        Raises:
            KwsError: the model's output is not finite, so that no metric would be valid.
        """
        logits, _, ids = self.logits(split)
        if not np.isfinite(logits).all():
            wrong = self.source.examples.loc[ids[~np.isfinite(logits).all(axis=1)], "path"]
            raise KwsError(f"the model's output for {len(wrong)} clips is not finite: {wrong.iloc[0]}, …")
        return predictions_table(self.source.examples, self.labels, logits, ids, levels_db(self.source, split, ids))

    def in_noise(self, splits: Sequence[str], snrs_db: Sequence[float]) -> pd.DataFrame:
        """Accuracy with noise at each ratio, over all clips except silence.

        The noise is from the split's own part of the recordings, and the same for every run.

        Returns:
            `split`, `snr_db`, `clips`, `correct`, `accuracy`, and Wilson's interval as `accuracy_low` and
            `accuracy_high`; no rows if there are no noise recordings, or if a split has no spoken clips.
        """
        if len(snrs_db) and self.source.corpus.noise.generated:
            log.warning("accuracy in noise is not evaluated: there are no noise recordings (noise.dirs adds some)")
            snrs_db = []
        rows = [
            (split, float(snr_db), *self._correct(split, snr_db))
            for split in splits
            if len(self.source.context(split).words)
            for snr_db in snrs_db
        ]
        table = pd.DataFrame(rows, columns=["split", "snr_db", "clips", "correct"])
        table = table.astype({"split": str, "snr_db": np.float64, "clips": np.int64, "correct": np.int64})
        interval = wilson_each(table["correct"].to_numpy(), table["clips"].to_numpy())
        accuracy = table["correct"] / table["clips"]
        return table.assign(accuracy=accuracy, accuracy_low=interval[:, 0], accuracy_high=interval[:, 1])

    def _correct(self, split: str, snr_db: float) -> tuple[int, int]:
        """(number of spoken clips, number of correct ones) in noise."""
        from kws_data.augment.augmentation import Augmentation
        from kws_data.augment.background_noise import BackgroundNoise

        noise = Augmentation({"background_noise": BackgroundNoise(None, 1.0, (snr_db, snr_db))}, clipping="leave")
        logits, truth, ids = self.logits(split, augmentation=noise)
        spoken = np.isin(ids, self.source.context(split).words)
        correct = (logits.argmax(axis=1) == truth)[spoken]
        log.info("%s at %g dB SNR: %.1f %%", split, snr_db, 100 * correct.mean())
        return len(correct), int(correct.sum())


class Inference:
    """A model as a graph for the inputs of `batches`, without dropout, batch norms folded.

    One graph serves a whole training, and its validation agrees with the final test bit for bit.
    """

    def __init__(self, model: keras.Model, batches: tf.data.Dataset) -> None:
        import tensorflow as tf

        from kws_models.folding import Once, folded

        once = Once()
        self.use_weights_of_now = once.renew
        self.logits = tf.function(folded(model, once), [batches.element_spec["inputs"]], autograph=False)


def predict(infer: Inference, batches: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(logits [clips, labels] float32, labels [clips] int32, example ids [clips] int64), in the batches' order."""
    infer.use_weights_of_now()
    parts = [
        (infer.logits(batch["inputs"]).numpy(), batch["labels"].numpy(), batch["ids"].numpy()) for batch in batches
    ]
    logits, labels, ids = (np.concatenate(part) for part in zip(*parts, strict=True))
    return logits.astype(np.float32), labels, ids


def levels_db(source: ClipSource, split: str, ids: np.ndarray) -> np.ndarray:
    """Each clip's level while it is active (in frames within 30 dB of the loudest): [clips] RMS in dB of full scale.

    Clips of zeros have NaN. A full-scale square wave has 0 dB, a sine wave -3 dB.
    """
    import tensorflow as tf

    from kws_data.audio import INT16_SCALE
    from kws_data.augment.background_noise import active_power
    from kws_data.pipeline import EVALUATION_BATCH

    parts = []
    for start in range(0, len(ids), EVALUATION_BATCH):
        pcm = source.gather(split, ids[start : start + EVALUATION_BATCH], epoch=0).pcm
        parts.append(active_power(tf.cast(pcm, tf.float32) / INT16_SCALE).numpy())
    power = np.concatenate(parts).astype(np.float64)
    with np.errstate(divide="ignore"):
        return np.where(power > 0, 10 * np.log10(power), np.nan)
