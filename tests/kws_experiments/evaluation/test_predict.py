"""Predictions of a split, batch by batch."""

import numpy as np
import tensorflow as tf

from kws_experiments.evaluation.predict import Inference, predict
from tests.kws_models.test_every_model import network_and_inputs


def test_each_pass_uses_the_weights_of_its_time() -> None:
    model, inputs = network_and_inputs("ds_cnn_s", any_length=False)
    count = len(inputs)
    clips = {"inputs": inputs, "labels": np.arange(count, dtype=np.int32), "ids": np.arange(count)}
    batches = tf.data.Dataset.from_tensor_slices(clips).batch(2)
    infer = Inference(model, batches)
    before, labels, ids = predict(infer, batches)
    assert labels.tolist() == ids.tolist() == list(range(count))
    for weight in model.weights:
        weight.assign(weight + 0.1)
    after, _, _ = predict(infer, batches)
    assert abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, model(inputs, training=False), rtol=1e-4, atol=1e-4)
