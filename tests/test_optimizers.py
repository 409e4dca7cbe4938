"""The fused optimizers against Keras's own: the same weights and state, in the same places."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kws_experiments import optimizers

SHAPES = [(3, 3, 4, 1), (5,), (1, 1, 4, 6), ()]
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "adam": ("Adam", {"beta_1": 0.8, "epsilon": 1e-3}),
    "adam, everything": (
        "Adam",
        {"weight_decay": 0.1, "global_clipnorm": 0.5, "use_ema": True, "ema_overwrite_frequency": 2},
    ),
    "adam, accumulated": ("Adam", {"gradient_accumulation_steps": 2}),
    "adam, amsgrad": ("Adam", {"amsgrad": True}),
    "adamw": ("AdamW", {"weight_decay": 0.2}),
    "sgd": ("SGD", {}),
    "sgd, momentum": ("SGD", {"momentum": 0.9}),
    "sgd, nesterov": ("SGD", {"momentum": 0.7, "nesterov": True, "weight_decay": 0.05, "clipvalue": 0.3}),
}


def weights(dtype: str = "float32") -> list[keras.Variable]:
    generator = np.random.default_rng(0)
    return [keras.Variable(generator.normal(size=shape), dtype=dtype, name=f"w{len(shape)}") for shape in SHAPES]


def trained(
    optimizer: keras.optimizers.Optimizer, *, wrap: Callable[[Any], Any] = lambda function: function
) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Weights and state after six steps, the learning rate changed in between."""
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
    return [np.array(variable) for variable in variables], {v.path: np.array(v) for v in optimizer.variables}


@pytest.mark.parametrize("wrap", [lambda f: f, tf.function, lambda f: tf.function(f, jit_compile=True)],
                         ids=["eager", "graph", "compiled"])  # fmt: skip
@pytest.mark.parametrize("case", CASES)
def test_weights_and_state_are_those_of_keras(case: str, wrap: Callable[[Any], Any]) -> None:
    name, arguments = CASES[case]
    # under its own name, since the paths of the state's variables begin with it
    ours = getattr(optimizers, name)(0.1, name="optimizer", **arguments)
    theirs = getattr(keras.optimizers, name)(0.1, name="optimizer", **arguments)

    our_weights, our_state = trained(ours, wrap=wrap)
    their_weights, their_state = trained(theirs, wrap=wrap)

    assert list(our_state) == list(their_state)
    # the fused op takes 1 - beta_2 in float32, where 0.001 has an error of 5e-5
    for place, value in their_state.items():
        np.testing.assert_allclose(our_state[place], value, rtol=1e-4, atol=1e-6, err_msg=place)
    for value, want, before in zip(our_weights, their_weights, weights(), strict=True):
        np.testing.assert_allclose(value, want, rtol=1e-5, atol=2e-5)
        assert not np.allclose(value, before, atol=1e-3)


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD"])
def test_an_update_is_few_operations(name: str) -> None:
    operations = {}
    for module in (optimizers, keras.optimizers):
        optimizer, variables = getattr(module, name)(0.1), weights()
        optimizer.build(variables)
        graph = tf.function(lambda *gradients: optimizer.apply(list(gradients), variables)).get_concrete_function(  # noqa: B023
            *(tf.TensorSpec(shape) for shape in SHAPES)
        ).graph  # fmt: skip
        operations[module] = [op.type for op in graph.get_operations()]
    fused = [kind for kind in operations[optimizers] if kind.startswith("ResourceApply")]
    assert len(fused) == len(SHAPES)
    assert len(operations[optimizers]) < len(operations[keras.optimizers])


@pytest.mark.parametrize("name", ["Adam", "SGD"])
def test_sparse_gradients_take_the_way_of_keras(name: str) -> None:
    moved = []
    for module in (optimizers, keras.optimizers):
        table = keras.Variable(np.ones((4, 2), np.float32))
        optimizer = getattr(module, name)(0.1)
        optimizer.apply([tf.IndexedSlices(tf.ones((1, 2)), [2], [4, 2])], [table])
        moved.append(np.array(table))
    np.testing.assert_allclose(moved[0], moved[1], rtol=1e-6)
    assert not np.allclose(moved[0][2], 1)


def test_a_scaled_loss_skips_what_is_not_finite() -> None:
    results = []
    for module in (optimizers, keras.optimizers):
        optimizer, variables = keras.optimizers.LossScaleOptimizer(module.Adam(0.1)), weights()
        optimizer.build(variables)
        for gradient in (1e3, np.nan, 2e3):
            optimizer.apply([tf.fill(shape, gradient) for shape in SHAPES], variables)
        results.append([np.array(variable) for variable in [*variables, *optimizer.variables]])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
