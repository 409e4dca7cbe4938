"""The joined update of Adam and AdamW has the same results as Keras's own, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kws_experiments.experiment import optimizers

SHAPES = [(3, 3, 4, 1), (5,), (1, 1, 4, 6), (), (1, 1, 64, 65)]
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "adam": ("Adam", {"beta_1": 0.8, "epsilon": 1e-3}),
    "adam, everything": (
        "Adam",
        {"weight_decay": 0.1, "global_clipnorm": 0.5, "use_ema": True, "ema_overwrite_frequency": 2},
    ),
    "adam, accumulated": ("Adam", {"gradient_accumulation_steps": 2}),
    "adam, amsgrad": ("Adam", {"amsgrad": True}),
    "adamw": ("AdamW", {"weight_decay": 0.2}),
}


def weights() -> list[keras.Variable]:
    generator = np.random.default_rng(0)
    return [keras.Variable(generator.normal(size=shape), dtype="float32", name=f"w{len(shape)}") for shape in SHAPES]


def trained(optimizer: keras.optimizers.Optimizer, wrap: Callable[[Any], Any]) -> dict[str, np.ndarray]:
    """Weights and state after six steps, with a change of the learning rate."""
    variables = weights()
    optimizer.build(variables)
    if optimizer.weight_decay:
        optimizer.exclude_from_weight_decay(var_list=variables[1:2])
    generator = np.random.default_rng(1)
    step = wrap(lambda *gradients: optimizer.apply(list(gradients), variables))
    for number in range(6):
        if number == 3:
            optimizer.learning_rate = 0.02
        step(*(tf.constant(generator.normal(size=shape), tf.float32) for shape in SHAPES))
    values = {f"weight {number}": np.array(variable) for number, variable in enumerate(variables)}
    return values | {variable.path: np.array(variable) for variable in optimizer.variables}


@pytest.mark.parametrize("wrap", [lambda f: f, tf.function], ids=["eager", "graph"])
@pytest.mark.parametrize("case", CASES)
def test_weights_and_state_are_those_of_keras_bit_for_bit(case: str, wrap: Callable[[Any], Any]) -> None:
    name, arguments = CASES[case]
    # with the same name, since the paths of the state's variables start with it
    ours = trained(getattr(optimizers, name)(0.1, name="optimizer", **arguments), wrap)
    theirs = trained(getattr(keras.optimizers, name)(0.1, name="optimizer", **arguments), wrap)

    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
    for number, before in enumerate(weights()):
        assert not np.allclose(ours[f"weight {number}"], before, atol=1e-3)


def test_compiled_results_are_close() -> None:
    def compiled(function: Any) -> Any:
        return tf.function(function, jit_compile=True)

    ours = trained(optimizers.Adam(0.1, name="optimizer"), compiled)
    for name, value in trained(keras.optimizers.Adam(0.1, name="optimizer"), compiled).items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_the_graph_has_the_arithmetic_once_for_all_weights(name: str) -> None:
    square_roots = {}
    for module in (optimizers, keras.optimizers):
        optimizer, variables = getattr(module, name)(0.1), weights()
        optimizer.build(variables)
        step = tf.function(lambda *gradients: optimizer.apply(list(gradients), variables))  # noqa: B023
        graph = step.get_concrete_function(*(tf.TensorSpec(shape) for shape in SHAPES)).graph
        square_roots[module] = [op.type for op in graph.get_operations()].count("Sqrt")
    assert square_roots == {optimizers: 2, keras.optimizers: 2 * len(SHAPES)}


def test_sparse_gradients_are_left_to_keras() -> None:
    moved = []
    for module in (optimizers, keras.optimizers):
        table = keras.Variable(np.ones((4, 2), np.float32))
        optimizer = module.Adam(0.1)
        optimizer.apply([tf.IndexedSlices(tf.ones((1, 2)), [2], [4, 2])], [table])
        moved.append(np.array(table))
    np.testing.assert_array_equal(moved[0], moved[1])
    assert not np.allclose(moved[0][2], 1)


def test_a_scaled_loss_skips_infinite_gradients() -> None:
    results = []
    for module in (optimizers, keras.optimizers):
        optimizer, variables = keras.optimizers.LossScaleOptimizer(module.Adam(0.1)), weights()
        optimizer.build(variables)
        for gradient in (1e3, np.nan, 2e3):
            optimizer.apply([tf.fill(shape, gradient) for shape in SHAPES], variables)
        results.append([np.array(variable) for variable in [*variables, *optimizer.variables]])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert np.isfinite(ours).all()
