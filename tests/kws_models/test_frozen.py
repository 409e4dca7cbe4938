"""Frozen inference; that it computes what each model computes is part of the contract in test_every_model.py."""

import keras
import numpy as np
import tensorflow as tf

from kws_models.frozen import frozen


def test_later_weights_have_no_effect_and_a_batch_may_have_any_size() -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, kernel_initializer="ones")])
    infer = frozen(lambda inputs: model(inputs, training=False), tf.TensorSpec([None, 3]))

    model.set_weights([np.zeros((3, 2)), np.zeros(2)])

    for batch in (1, 4):
        np.testing.assert_array_equal(infer(np.ones((batch, 3), np.float32)), np.full((batch, 2), 3))


def test_a_dict_of_inputs_is_taken_by_name() -> None:
    signature = {"b": tf.TensorSpec([None]), "a": tf.TensorSpec([None])}
    infer = frozen(lambda inputs: inputs["a"] - inputs["b"], signature)

    np.testing.assert_array_equal(infer({"a": np.float32([5]), "b": np.float32([2])}), [3])
    np.testing.assert_array_equal(infer({"b": np.float32([2]), "a": np.float32([5])}), [3])
