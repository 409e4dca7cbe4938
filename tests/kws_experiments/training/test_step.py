"""One step of training, compared with the same arithmetic in NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax, softmax

from kws_data.errors import KwsError
from kws_experiments.config.compose import compose
from kws_experiments.experiment.data import balancing_weights
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.experiment.settings import TrainerSettings
from kws_experiments.training.distillation import Distillation
from kws_experiments.training.step import TrainingStep, WeightAverage, clip_losses
from kws_experiments.training.word_outputs import WordOutputs

SHAPE, LABELS = (6, 4), 3


def settings(**changes: Any) -> TrainerSettings:
    trainer = compose([])["trainer"]
    del trainer["_target_"]
    return TrainerSettings(**{**trainer, "tensorboard": False, **changes})


def batch(size: int, seed: int = 0, *, mixed: bool = False) -> dict[str, tf.Tensor]:
    """A batch as the pipeline yields it; the labels can be predicted from the inputs."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, LABELS, size).astype(np.int32)
    second = generator.integers(0, LABELS, size).astype(np.int32) if mixed else labels
    weights = generator.uniform(0.5, 1, size) if mixed else np.ones(size)
    inputs = generator.normal(0, 0.3, (size, *SHAPE)) + labels[:, None, None]
    return {
        "inputs": tf.constant(inputs, tf.float32),
        "labels": tf.constant(labels),
        "second_labels": tf.constant(second),
        "label_weights": tf.constant(weights, tf.float32),
        "ids": tf.range(size, dtype=tf.int64),
        "lengths": tf.ones(size, tf.int32),
    }


SPEC = {name: tf.TensorSpec([None, *value.shape[1:]], value.dtype) for name, value in batch(1).items()}


def linear(l2: float = 0.0, *, seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    regularizer = keras.regularizers.L2(l2) if l2 else None
    dense = keras.layers.Dense(LABELS, kernel_regularizer=regularizer, dtype="float32")
    return keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), dense])


def training_step(
    model: keras.Model, optimizer: Any, class_weights: Sequence[float] = (1,) * LABELS, **changes: Any
) -> TrainingStep:
    optimizer.build(model.trainable_variables)
    return TrainingStep(
        model, optimizer, settings(**changes),
        spec=SPEC, front_end=None, class_weights=class_weights,
    )  # fmt: skip


def numpy_losses(
    logits: np.ndarray, batch: dict[str, tf.Tensor], smoothing: float, class_weights: np.ndarray
) -> np.ndarray:
    """Cross-entropy with explicit targets: one-hot, mixed, smoothed; each label's part times its class weight."""
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    total = np.zeros(len(logits))
    first = batch["label_weights"].numpy()
    for labels, part in ((batch["labels"].numpy(), first), (batch["second_labels"].numpy(), 1 - first)):
        target = (1 - smoothing) * np.eye(LABELS)[labels] + smoothing / LABELS
        total += part * class_weights[labels] * -(target * log_p).sum(1)
    return total


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("class_weights", [[1, 1, 1], [0.2, 3, 1]])
def test_losses_are_the_cross_entropies(smoothing: float, mixed: bool, class_weights: list[float]) -> None:
    some, logits = batch(50, mixed=mixed), np.random.default_rng(1).normal(0, 3, (50, LABELS))

    losses = clip_losses(tf.constant(logits, tf.float32), some, smoothing, tf.constant(class_weights, tf.float32))

    np.testing.assert_allclose(losses, numpy_losses(logits, some, smoothing, np.array(class_weights)), rtol=1e-4)


def test_label_smoothing_is_keras_own() -> None:
    some, logits = batch(20), tf.constant(np.random.default_rng(1).normal(0, 3, (20, LABELS)), tf.float32)

    ours = clip_losses(logits, some, 0.1, tf.ones(LABELS))

    theirs = keras.losses.categorical_crossentropy(
        tf.one_hot(some["labels"], LABELS), logits, from_logits=True, label_smoothing=0.1
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_balancing_weights_give_every_class_the_same_total() -> None:
    labels = np.array([0] * 60 + [1] * 30 + [3] * 10)

    weights = balancing_weights(labels, 5)

    totals = np.bincount(labels, weights[labels], minlength=5)
    np.testing.assert_allclose(totals, [100 / 3, 100 / 3, 0, 100 / 3, 0])
    assert weights[2] == weights[4] == 1
    assert weights[labels].mean() == pytest.approx(1)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_step_is_gradient_descent_on_the_mean_loss_and_the_penalty(compiled: bool) -> None:
    model, some = linear(l2=0.01), batch(7)
    kernel, bias = (np.asarray(weight, np.float64) for weight in model.trainable_variables)
    step = training_step(model, keras.optimizers.SGD(0.5), [1, 2, 3], label_smoothing=0.1, jit_compile=compiled)

    step(some)
    assert not step.since_bad()

    x = some["inputs"].numpy().reshape(7, -1).astype(np.float64)
    logits = x @ kernel + bias
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = some["labels"].numpy()
    weights = np.array([1, 2, 3])[labels][:, None]
    slope = weights * (p - 0.9 * np.eye(LABELS)[labels] - 0.1 / LABELS) / 7
    np.testing.assert_allclose(model.trainable_variables[0], kernel - 0.5 * (x.T @ slope + 0.02 * kernel), atol=1e-5)
    np.testing.assert_allclose(model.trainable_variables[1], bias - 0.5 * slope.sum(0), atol=1e-5)
    taken = step.take()
    want = numpy_losses(logits, some, 0.1, np.array([1, 2, 3])).mean() + 0.01 * (kernel**2).sum()
    assert taken["loss"] == pytest.approx(want, rel=1e-4)
    assert taken["accuracy"] == pytest.approx((logits.argmax(1) == labels).mean())
    assert float(step.learning_rate) == 0.5


def test_totals_are_of_all_clips_since_they_were_taken() -> None:
    model = linear()
    step = training_step(model, keras.optimizers.SGD(0.0))
    parts = [batch(size, seed) for seed, size in enumerate((5, 2, 9))]
    for part in parts:
        step(part)

    logits = [model(part["inputs"]).numpy() for part in parts]
    losses = [numpy_losses(one, part, 0.0, np.ones(LABELS)) for one, part in zip(logits, parts, strict=True)]
    assert step.take()["loss"] == pytest.approx(np.concatenate(losses).mean(), rel=1e-5)
    step(parts[1])
    assert step.take()["loss"] == pytest.approx(losses[1].mean(), rel=1e-5)


def test_the_average_is_the_moving_one() -> None:
    model = linear()
    step = training_step(model, keras.optimizers.SGD(0.5), ema_momentum=0.6)
    assert step.average is not None
    want = [np.asarray(weight, np.float64) for weight in model.trainable_variables]
    for number in range(12):
        step(batch(8, number))
        momentum = min(0.6, (1 + number) / (10 + number))
        want = [
            momentum * average + (1 - momentum) * np.asarray(weight)
            for average, weight in zip(want, model.trainable_variables, strict=True)
        ]
    for average, value in zip(step.average.variables, want, strict=True):
        np.testing.assert_allclose(average, value, rtol=1e-4, atol=1e-6)

    trained = [np.array(weight) for weight in model.trainable_variables]
    with step.average.in_place():
        np.testing.assert_array_equal(model.trainable_variables[0], step.average.variables[0])
    for weight, value in zip(model.trainable_variables, trained, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_a_momentum_of_0_keeps_the_weights_themselves() -> None:
    model = linear()
    average = WeightAverage(model, 0.0)
    model.trainable_variables[0].assign_add(np.ones(model.trainable_variables[0].shape))

    average.update(tf.constant(100))

    np.testing.assert_allclose(average.variables[0], model.trainable_variables[0], atol=1e-6)


SMALL_NET = ("model.filters=4", "model.num_blocks=1")


def experiment_and_network(*overrides: str, model: tuple[str, ...] = SMALL_NET) -> tuple[Experiment, keras.Model]:
    config = compose(["dataset=folder", "dataset.path=/nowhere", "features=log_mel_20ms", *model, *overrides])
    experiment = Experiment(config)
    keras.utils.set_random_seed(0)
    return experiment, experiment.build_network(LABELS)


@pytest.mark.parametrize(
    ("optimizer", "model", "bias_axes", "most_axes"),
    [
        *((optimizer, SMALL_NET, 1, 4) for optimizer in ("sgd", "adam", "adamw", "adadelta")),
        # the biases of recurrent layers have two axes: one for the inputs' gates, one for the state's
        ("sgd", ("model=mhatt_rnn", "model.rnn_units=4"), 2, 4),
    ],
)
def test_weight_decay_excludes_norms_and_biases(
    optimizer: str, model: tuple[str, ...], bias_axes: int, most_axes: int
) -> None:
    experiment, network = experiment_and_network(
        f"optimizer={optimizer}", "optimizer.weight_decay=0.5", "optimizer.learning_rate=0.1", model=model
    )
    built, weights = experiment.build_optimizer(network, total_steps=10, steps_per_epoch=5), network.trainable_variables
    built.build(weights)
    for weight in weights:
        weight.assign(np.full(weight.shape, 2.0))

    built.apply([tf.zeros(weight.shape) for weight in weights], weights)

    for weight in weights:
        excluded = len(weight.shape) <= 1 or weight.name == "bias"
        np.testing.assert_allclose(weight, 2.0 if excluded else 1.9, rtol=1e-6, err_msg=weight.path)
    assert max(len(weight.shape) for weight in weights if weight.name == "bias") == bias_axes
    assert max(len(weight.shape) for weight in weights) == most_axes


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adadelta"])
def test_learning_rates_and_momenta_can_be_whole_numbers(optimizer: str) -> None:
    overrides = [f"optimizer={optimizer}", "optimizer.learning_rate=1"]
    overrides += ["optimizer.momentum=0"] if optimizer == "sgd" else []
    for schedule in ("constant", "cosine", "exponential", "plateau"):
        experiment, network = experiment_and_network(*overrides, f"schedule={schedule}")

        built = experiment.build_optimizer(network, total_steps=1000, steps_per_epoch=10)

        assert 0 < float(built.learning_rate) <= 1


def test_gradients_are_scaled_down_to_the_chosen_norm() -> None:
    before = linear()
    moved = {}
    for clip in (None, 0.01):
        model = linear()
        training_step(model, keras.optimizers.SGD(1.0, global_clipnorm=clip))(batch(8))
        changes = [np.asarray(a) - b for a, b in zip(model.weights, before.weights, strict=True)]
        moved[clip] = np.concatenate([change.ravel() for change in changes])
    assert np.linalg.norm(moved[None]) > 0.1
    assert np.linalg.norm(moved[0.01]) == pytest.approx(0.01, rel=1e-3)
    np.testing.assert_allclose(moved[0.01] / 0.01, moved[None] / np.linalg.norm(moved[None]), atol=1e-3)


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("compiled", [False, True])
def test_mixed_precision_learns_in_float32_weights(precision: str, compiled: bool) -> None:
    experiment, network = experiment_and_network(f"trainer.precision={precision}", "optimizer.learning_rate=0.03")
    assert network.compute_dtype == precision.removeprefix("mixed_")
    assert {weight.dtype for weight in network.weights} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"  # the policy applies to this network only
    optimizer = experiment.build_optimizer(network, total_steps=30, steps_per_epoch=5)
    assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer) == (precision == "mixed_float16")
    optimizer.learning_rate = 0.02  # as Plateau sets it
    assert float(optimizer.learning_rate) == pytest.approx(0.02)
    optimizer.build(network.trainable_variables)
    generator = np.random.default_rng(0)
    labels = np.arange(24, dtype=np.int32) % LABELS
    data = {
        "inputs": tf.constant(generator.normal(0, 0.5, (24, 49, 40)) + labels[:, None, None], tf.float32),
        "labels": tf.constant(labels), "second_labels": tf.constant(labels), "label_weights": tf.ones(24),
    }  # fmt: skip
    step = TrainingStep(
        network, optimizer, settings(jit_compile=compiled),
        spec={name: tf.TensorSpec([None, *value.shape[1:]], value.dtype) for name, value in data.items()},
        front_end=None, class_weights=[1] * LABELS,
    )  # fmt: skip

    losses = []
    for _ in range(30):
        step(data)
        assert not step.since_bad()
        losses.append(step.take()["loss"])

    assert losses[-1] < 0.7 * losses[0]
    assert float(step.learning_rate) == pytest.approx(0.02)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("compiled", [False, True])
def test_infinite_values_are_reported(value: float, compiled: bool) -> None:
    some = batch(4)
    some["inputs"] = tf.tensor_scatter_nd_update(some["inputs"], [[2, 3, 1]], [value])

    assert not training_step(linear(), keras.optimizers.SGD(0.1), jit_compile=compiled)(some)


class Trap(keras.layers.Layer):
    """Its outputs are its inputs; its gradients are not finite."""

    def call(self, x: Any) -> Any:
        return x + tf.sqrt(tf.abs(x) * 0.0)  # 0 forwards; backwards infinity times 0


def trapped() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Flatten(), keras.layers.Dense(LABELS), Trap()]
    return keras.Sequential([keras.Input(SHAPE), *layers])


def test_a_finite_loss_can_have_infinite_gradients() -> None:
    step = training_step(trapped(), keras.optimizers.SGD(0.1))

    step(batch(4))
    assert step.since_bad() == 1
    assert np.isfinite(step.take()["loss"])
    step(batch(4))
    assert step.since_bad() == 2


def test_half_precision_skips_overflows_and_stops_if_all_steps_overflow() -> None:
    model = trapped()
    before = np.array(model.weights[0])
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))
    step = training_step(model, optimizer, ema_momentum=0.9)

    since_bad = []
    for number in range(16):
        step(batch(4, number))
        since_bad.append(step.since_bad())

    assert since_bad == [0] * 15 + [1]
    np.testing.assert_array_equal(model.weights[0], before)
    assert step.average is not None
    np.testing.assert_allclose(step.average.variables[0], before, rtol=1e-6)
    assert int(optimizer.iterations) == 0


def test_a_step_reads_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU each read waits for all that was begun."""
    step = training_step(trapped(), keras.optimizers.SGD(0.1), ema_momentum=0.9)
    batches = [batch(4, number) for number in range(3)]
    step(batches[0])
    reads = []
    tensor = type(tf.constant(0.0))
    for name in ("numpy", "__bool__", "__float__", "__int__", "__index__", "__array__"):
        monkeypatch.setattr(tensor, name, lambda self, *args, name=name: reads.append(name))

    for made in batches:
        step(made)

    assert not reads
    tf.constant(1.0).numpy()
    assert reads == ["numpy"]


def test_the_loss_of_words_joins_that_of_labels() -> None:
    model, optimizer = linear(), keras.optimizers.SGD(0.1)
    word_labels = np.array([0, 1, 2, 1, 1], np.int32)
    data = batch(8, mixed=True)
    targets = np.array([0, 1, 2, 3, 4, 3, 1, 0], np.int32)
    data |= {"labels": tf.constant(targets), "second_labels": tf.constant(targets[::-1].copy())}
    step = TrainingStep(
        model, optimizer, settings(word_loss=0.25),
        spec=SPEC, front_end=None, class_weights=[1, 2, 3], word_labels=word_labels,
    )  # fmt: skip
    optimizer.build(step.trained)
    kernel, bias = (np.array(variable) for variable in step.trained[-2:])
    x = data["inputs"].numpy().reshape(8, -1)
    logits, word_logits = np.asarray(model(data["inputs"])), x @ kernel + bias
    labelled = data | {name: tf.constant(word_labels[data[name].numpy()]) for name in ("labels", "second_labels")}
    of_labels = numpy_losses(logits, labelled, 0.0, np.array([1, 2, 3]))
    logs, rows, weights = log_softmax(word_logits, axis=1), np.arange(8), data["label_weights"].numpy()
    of_words = -weights * logs[rows, targets] - (1 - weights) * logs[rows, targets[::-1]]
    before = [np.array(weight) for weight in model.weights]

    step(data)

    taken = step.take()
    assert taken["loss"] == pytest.approx(np.mean(0.75 * of_labels + 0.25 * of_words), rel=1e-4)
    assert taken["accuracy"] == pytest.approx((logits.argmax(1) == word_labels[targets]).mean())
    assert model.output_shape == (None, LABELS)  # the outputs of words are no part of it
    assert all(np.abs(weight - old).max() > 0 for weight, old in zip(model.weights, before, strict=True))
    assert np.abs(step.trained[-2] - kernel).max() > 0


def test_clips_of_known_labels_are_to_have_the_outputs_that_they_had() -> None:
    """Not those of a label that is new, nor clips mixed with one; and no output that is new counts."""
    known, share = np.array([True, True, False]), 0.75
    before, model = linear(seed=1), linear(seed=2)
    data = batch(60, mixed=True)
    first = np.where(np.arange(60) < 20, 1.0, data["label_weights"])  # some are not mixed
    data |= {"label_weights": tf.constant(first, tf.float32)}
    logits = np.asarray(model(data["inputs"]))
    of_labels = numpy_losses(logits, data, 0.1, np.array([1, 2, 3]))
    target = softmax(np.where(known, np.asarray(before(data["inputs"])), -np.inf), axis=1)
    kept = -(target * log_softmax(logits, axis=1)).sum(axis=1)
    both = known[data["labels"].numpy()] & (known[data["second_labels"].numpy()] | (first == 1))
    assert 10 < both.sum() < 50
    step = TrainingStep(
        model, keras.optimizers.SGD(0.1), settings(label_smoothing=0.1),
        spec=SPEC, front_end=None, class_weights=[1, 2, 3], distillation=Distillation(before, known, share),
    )  # fmt: skip
    weights = [np.array(weight) for weight in before.weights]

    step(data)

    want = np.where(both, (1 - share) * of_labels + share * kept, of_labels)
    assert step.take()["loss"] == pytest.approx(want.mean(), rel=1e-4)
    for ours, theirs in zip(before.weights, weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_network_with_nothing_new_to_learn_stays_as_it_is() -> None:
    model = linear(seed=1)
    known = np.array([True, True, True])
    step = TrainingStep(
        model, keras.optimizers.SGD(0.1), settings(),
        spec=SPEC, front_end=None, class_weights=[1, 1, 1], distillation=Distillation(linear(seed=1), known, 1.0),
    )  # fmt: skip

    for number in range(5):
        step(batch(8, number, mixed=True))

    for ours, theirs in zip(model.weights, linear(seed=1).weights, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_outputs_of_words_leave_the_networks_initial_weights() -> None:
    plain, other = linear(seed=4), linear(seed=4)
    WordOutputs(other, np.array([0, 1, 2, 1], np.int32))
    keras.utils.set_random_seed(4)
    for ours, theirs in zip(plain.weights, other.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_outputs_of_words_need_a_dense_last_layer() -> None:
    inputs = keras.Input(SHAPE)
    outputs = keras.layers.Activation("tanh")(keras.layers.Dense(LABELS)(keras.layers.Flatten()(inputs)))
    with pytest.raises(
        KwsError, match=r"^trainer\.word_loss: needs a network whose last layer is dense, .* Activation$"
    ):
        WordOutputs(keras.Model(inputs, outputs), np.array([0, 1, 2, 1], np.int32))
