"""Words that a run adds to those of the run that it starts from: few clips of them, and what can be expected.

The network is not trained on a word's few clips (`task.word_dirs: [{path: …, few: true}]`). At the end, only the word's
own output is fitted to them, beside the other outputs, which stay: one row of the last layer. That is a logistic
regression, so quick that leaving out each clip in turn, or each speaker, gives an honest estimate of what is missed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy.optimize import minimize
from scipy.special import expit, logsumexp

from kws_data.augment.augmentation import Augmentation
from kws_data.augment.impostor import Impostor
from kws_data.augment.mixup import Mixup
from kws_data.batches import BatchPlan
from kws_data.catalog import SILENCE, UNKNOWN
from kws_data.draws import permutation
from kws_data.errors import KwsError
from kws_data.front_end import FrontEnd
from kws_data.pipeline import EVALUATION_BATCH, ClipSource, batches, evaluation_batches
from kws_data.splits import TRAINING, VALIDATION
from kws_data.streams.mix import render
from kws_data.streams.plan import StreamSettings, plan_words
from kws_data.streams.source import StreamSource
from kws_data.streams.synthetic_speech import SyntheticSpeech
from kws_experiments.evaluation.intervals import wilson
from kws_experiments.evaluation.predict import Inference, Predictor, predict
from kws_experiments.evaluation.thresholds import lowest_threshold
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.runs.folder import RunFolder, write_text
from kws_experiments.runs.saved_model import features_of, load_model, network_of
from kws_experiments.training.start_from import find_origin

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
VARIANTS = 40  # of each of the few clips, as the training augments them
MOST_OTHERS = 4000  # clips of the training
MINUTES, HOP_S, GAP_MS = 4.0, 0.25, (0.0, 300.0)  # of each stream without the word, and of its windows
REAL_SHARE = 0.5  # of the weight of the word's clips
PENALTY = 0.002  # for moving away from the output that the network was trained to, per mean square of its inputs


def fit_new_words(
    folder: RunFolder,
    experiment: Experiment,
    source: ClipSource,
    network: keras.Model,
    labels: list[str],
    *,
    added_to: Any,
) -> None:
    """Fit the outputs of words with few clips, and write what to expect of new words to `new_words.json`.

    New are words with few clips, and words that the run which they are added to does not have. Without any, nothing is
    written.

    Args:
        folder: the run's.
        experiment: the run's.
        source: its clips.
        network: features → logits; the outputs are changed in place.
        labels: class names.
        added_to: the run that this one adds words to, as in `start_from`; None if there is none.
    """
    head = Head(network)
    inputs = HeadInputs(experiment, source, network)
    before = _before(experiment, source, added_to)
    held_out, truth, ids = inputs.of_split(VALIDATION)
    rate = experiment.false_accept_rate
    words: dict[str, Any] = {}
    for index, word in enumerate(labels):
        few = np.flatnonzero(source.apart & (source.labels == index))
        is_added = before is not None and word not in (SILENCE, UNKNOWN, *before.labels)
        if not len(few) and not is_added:
            continue
        words[word] = {"clips": len(few)}
        if len(few):
            log.info("fitting the output of '%s' to %d clips", word, len(few))
            material = inputs.material(word, few)
            fit, others = RowFit(head, index, material), held_out[truth != index]
            words[word] |= expected(fit, material, others, rate)
            before_fit = fit.fired(head.rows[index], others, rate)
            row = fit.row(np.ones(len(few), bool))
            assert row is not None  # there are few clips
            head.set_row(index, row)
            after_fit = fit.fired(head.rows[index], others, rate)
            words[word]["windows"] = {"windows": len(material.windows), "before": before_fit, "after": after_fit}
        own = truth == index
        scores = head.scores(held_out)[:, index]
        missed = int((scores[own] < lowest_threshold(scores[~own], rate)).sum())
        synthetic = bool((source.examples["folder"].to_numpy()[ids[own]] != "").all())
        words[word] |= {"validation": _misses(int(own.sum()), missed), "validation_is_synthetic": synthetic}
    if not words:
        return
    result: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "false_accept_rate": rate, "words": words}
    if before is not None:
        same = np.isin(truth, [index for index, label in enumerate(labels) if label in before.labels])
        was, now = before.correct(truth, labels)[same], (head.scores(held_out).argmax(axis=1) == truth)[same]
        result["others"] = {
            "clips": int(same.sum()), "before": float(was.mean()), "after": float(now.mean()),
            "lost": int((was & ~now).sum()), "gained": int((now & ~was).sum()),
        }  # fmt: skip
    write_text(folder.new_words, json.dumps(result, indent=2) + "\n")


class Head:
    """The last layer of a network, dense: a row of weights for each label, the bias at its end."""

    def __init__(self, network: keras.Model) -> None:
        self._layer = network.layers[-1]
        kernel, *bias = self._layer.get_weights()
        self.has_bias = bool(bias)
        self.rows = np.concatenate([kernel, *(values[None] for values in bias)]).T.astype(np.float64)

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """[clips, inputs] → [clips, labels] float64."""
        return self.extended(inputs) @ self.rows.T

    def scores(self, inputs: np.ndarray) -> np.ndarray:
        """[clips, inputs] → [clips, labels], softmax."""
        logits = self.logits(inputs)
        return np.exp(logits - logsumexp(logits, axis=1, keepdims=True))

    def scores_with(self, index: int, row: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """[clips, inputs] → [clips], of one label, if this were its row."""
        return expit(self.extended(inputs) @ row - _others_logit(self.logits(inputs), index))

    def extended(self, inputs: np.ndarray) -> np.ndarray:
        """With a 1 for the bias."""
        return np.append(inputs, np.ones((len(inputs), 1)), axis=1) if self.has_bias else inputs

    def set_row(self, index: int, row: np.ndarray) -> None:
        """Change the output of one label, in the network too."""
        self.rows[index] = row
        values = self.rows.T.astype(np.float32)
        self._layer.set_weights([values[:-1], values[-1]] if self.has_bias else [values])


@dataclass(frozen=True)
class Material:
    """What a word's output is fitted to: inputs of the last layer, [clips, inputs] each.

    Attributes:
        plain: the few clips as they are.
        variants: [clips, variants, inputs], the same, augmented.
        speakers: [clips] of the few clips.
        others: clips that the network was trained on, augmented.
        own: [others] bool, whether it is the word, too.
        windows: of running speech and of training clips in a row, without the word.
    """

    plain: np.ndarray
    variants: np.ndarray
    speakers: np.ndarray
    others: np.ndarray
    own: np.ndarray
    windows: np.ndarray


class RowFit:
    """The output of one label as a logistic regression beside the other outputs."""

    def __init__(self, head: Head, index: int, material: Material) -> None:
        self._head, self._index, self._windows = head, index, material.windows
        few, rest = material.variants, np.concatenate([material.others, material.windows])
        self._few = head.extended(few.reshape(-1, few.shape[2])).reshape(*few.shape[:2], -1)
        self._rest = head.extended(rest)
        self._few_offsets = _others_logit(head.logits(few.reshape(-1, few.shape[2])), index).reshape(few.shape[:2])
        self._rest_offsets = _others_logit(head.logits(rest), index)
        self._own = np.append(material.own, np.zeros(len(material.windows), bool))
        # the share that every label has, so that the word is taken as often as the others are
        self._share = 1 / len(head.rows)
        self._start = head.rows[index] if material.own.any() else np.zeros_like(head.rows[index])
        self._penalty = PENALTY * np.square(self._rest).sum(axis=1).mean()

    def scores(self, row: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """[clips, inputs] → [clips], of the label with this row."""
        return self._head.scores_with(self._index, row, inputs)

    def fired(self, row: np.ndarray, others: np.ndarray, rate: float) -> int:
        """In how many of the windows the word is found by mistake, at the threshold that this rate of others passes."""
        return int((self.scores(row, self._windows) >= lowest_threshold(self.scores(row, others), rate)).sum())

    def row(self, used: np.ndarray) -> np.ndarray | None:
        """The row fitted to the few clips that are used, [clips] bool; None where the word has no clip then."""
        if not used.any() and not self._own.any():
            return None
        few = self._few[used]
        x = np.concatenate([few.reshape(-1, self._rest.shape[1]), self._rest])
        offsets = np.concatenate([self._few_offsets[used].ravel(), self._rest_offsets])
        real = np.arange(len(x)) < len(x) - len(self._rest)
        synthetic = np.append(np.zeros(real.sum(), bool), self._own)
        parts = [(real, REAL_SHARE), (synthetic, 1 - REAL_SHARE)]
        total = sum(share for rows, share in parts if rows.any())
        weights = np.full(len(x), (1 - self._share) / (~real & ~synthetic).sum())
        for rows, share in parts:
            weights[rows] = self._share * share / total / max(1, rows.sum())
        target = (real | synthetic).astype(np.float64)

        def loss(row: np.ndarray) -> tuple[float, np.ndarray]:
            z, moved = x @ row - offsets, row - self._start
            value = weights @ (np.logaddexp(0, z) - target * z) + self._penalty / 2 * moved @ moved
            return float(value), x.T @ (weights * (expit(z) - target)) + self._penalty * moved

        return minimize(loss, self._start, jac=True, method="L-BFGS-B", options={"maxiter": 300}).x


def _others_logit(logits: np.ndarray, index: int) -> np.ndarray:
    """The logit of all other labels together: the score is a sigmoid of the own one minus this."""
    return logsumexp(np.delete(logits, index, axis=1), axis=1)


class HeadInputs:
    """What reaches the last layer of a network.

    Args:
        experiment: the run's.
        source: its clips.
        network: features → logits.
    """

    def __init__(self, experiment: Experiment, source: ClipSource, network: keras.Model) -> None:
        self._experiment, self._source = experiment, source
        self._network = keras.Model(network.inputs, network.layers[-1].input)
        self._infer: Any = None

    def of_split(self, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """([clips, inputs], labels [clips], example ids [clips]) of a split's clips as they are."""
        threads = self._experiment.pipeline_threads
        return self._of(evaluation_batches(self._source, split, self._experiment.features, threads=threads))

    def material(self, word: str, few: np.ndarray) -> Material:
        """All that the output of a word is fitted to.

        Args:
            word: the label.
            few: [clips] example ids, ascending.
        """
        source, seed = self._source, self._source.seed
        ids = source.ids(TRAINING)
        ids = ids[permutation(seed, 0, len(ids))[:MOST_OTHERS]]
        plain, _, _ = self._of_ids(few, Augmentation(), epochs=1)
        augmentation = without_other_labels(self._experiment.augmentation)
        variants, _, order = self._of_ids(few, augmentation, epochs=VARIANTS)
        variants = variants[np.argsort(order, kind="stable")].reshape(len(few), VARIANTS, -1)
        others, labels, _ = self._of_ids(ids, augmentation, epochs=1)
        windows = np.concatenate([self._of_windows(*stream) for stream in self._streams(word)])
        speakers = source.examples["speaker"].to_numpy()[few]
        return Material(plain, variants, speakers, others, labels == source.labels[few[0]], windows)

    def _of_ids(
        self, ids: np.ndarray, augmentation: Augmentation, *, epochs: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        plan = BatchPlan(ids, EVALUATION_BATCH, seed=self._source.seed)
        return self._of(
            batches(
                self._source, TRAINING, plan, augmentation=augmentation, features=self._experiment.features,
                steps=epochs * plan.steps_per_epoch, threads=self._experiment.pipeline_threads,
            )
        )  # fmt: skip

    def _of(self, stream: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self._infer is None:
            self._infer = Inference(self._network, stream)
        return predict(self._infer, stream)

    def _streams(self, word: str) -> Iterator[tuple[StreamSource, StreamSettings]]:
        """What the word must not be found in: training clips in a row, and running speech if there is an engine."""
        corpus, task = self._source.corpus, self._experiment.task
        clips = corpus.clips[corpus.clips["split"].eq(TRAINING) & ~corpus.clips["folder"].isin(task.few_folders)]
        clips = clips[~clips["word"].isin([word, SILENCE])]
        known = clips["word"].isin(task.words or clips["word"])
        rows = clips.index[known].to_numpy(), clips.index[~known].to_numpy()
        yield StreamSource(corpus, *rows, TRAINING), StreamSettings(MINUTES, (0, 20), GAP_MS, seed=self._source.seed)
        try:
            speech = SyntheticSpeech({word, *(task.words or ())}, TRAINING, corpus.sample_rate)
        except KwsError as error:
            log.warning("%s; without running speech", error)
            return
        yield StreamSource(corpus, *rows, TRAINING, speech=speech), StreamSettings(MINUTES, (5, 20), GAP_MS)

    def _of_windows(self, source: StreamSource, settings: StreamSettings) -> np.ndarray:
        samples = np.concatenate(list(render(source, plan_words(source, settings), settings)))
        length, rate = self._experiment.nominal_samples, self._experiment.sample_rate
        windows = np.lib.stride_tricks.sliding_window_view(samples, length)[:: round(HOP_S * rate)]
        variable = self._experiment.clip_samples is None
        front_end = FrontEnd(self._experiment.features, Augmentation(), variable_length=variable)
        parts = []
        for start in range(0, len(windows), EVALUATION_BATCH):
            pcm = np.ascontiguousarray(windows[start : start + EVALUATION_BATCH])
            inputs = front_end({"pcm": pcm, "lengths": np.full(len(pcm), length, np.int32)})["inputs"]
            parts.append(self._infer.logits(inputs).numpy())
        return np.concatenate(parts)


def without_other_labels(augmentation: Augmentation) -> Augmentation:
    """Without the stages after which a clip is no longer its word."""
    kept = {name: stage for name, stage in augmentation.waveform.items() if not isinstance(stage, Mixup | Impostor)}
    return replace(augmentation, waveform=kept)


def expected(fit: RowFit, material: Material, others: np.ndarray, rate: float) -> dict[str, Any]:
    """What is missed of clips, and of speakers, that the output was not fitted to.

    Args:
        fit: of the word's output.
        material: its.
        others: [clips, inputs] of other clips for validation, which decide the threshold.
        rate: of them, that may pass.
    """
    clips, speakers = np.arange(len(material.plain)), material.speakers
    result = {"by_clip": _left_out(fit, material.plain, clips, others, rate), "by_speaker": None}
    if 1 < len(set(speakers)) < len(clips):
        result["by_speaker"] = _left_out(fit, material.plain, speakers, others, rate)
    return result


def _left_out(
    fit: RowFit, plain: np.ndarray, groups: np.ndarray, others: np.ndarray, rate: float
) -> dict[str, Any] | None:
    missed = 0
    for group in np.unique(groups):
        row = fit.row(groups != group)
        if row is None:
            return None
        threshold = lowest_threshold(fit.scores(row, others), rate)
        missed += int((fit.scores(row, plain[groups == group]) < threshold).sum())
    return _misses(len(plain), missed)


def _misses(clips: int, missed: int) -> dict[str, Any] | None:
    if not clips:
        return None
    return {"clips": clips, "missed": missed, "miss_rate": missed / clips, "miss_rate_95": wilson(missed, clips)}


@dataclass(frozen=True)
class _Before:
    """The run that this one starts from, on this one's validation clips.

    Attributes:
        labels: its class names.
        predicted: [clips], indices into them.
    """

    labels: list[str]
    predicted: np.ndarray

    def correct(self, truth: np.ndarray, labels: Sequence[str]) -> np.ndarray:
        """[clips] bool, for the truth as indices into these labels."""
        return np.array(self.labels)[self.predicted] == np.array(labels)[truth]


def _before(experiment: Experiment, source: ClipSource, added_to: Any) -> _Before | None:
    """None where words are added to no run, or that one is gone or not finished."""
    if added_to is None:
        return None
    try:
        origin = find_origin(added_to)
        model = load_model(origin.folder.path)
    except KwsError as error:
        log.warning("%s; what other words were like before is not known", error)
        return None
    predictor = Predictor(source, features_of(model), network_of(model), origin.labels, experiment.pipeline_threads)
    return _Before(origin.labels, predictor.logits(VALIDATION)[0].argmax(axis=1))
