"""What a network costs: counts made by hand, for the project's models, Keras's layers and a user's own."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras import layers
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from kws_models.conv import conv
from kws_models.cost import Cost, inference_cost
from kws_models.ds_cnn import ds_cnn
from kws_models.sub_spectral import sub_spectral_norm
from kws_models.svdf import SVDF


def network(shape: tuple[int, ...], *stack) -> keras.Model:
    inputs = x = keras.Input(shape)
    for layer in stack:
        x = layer(x)
    return keras.Model(inputs, x)


# --- the project's models


def test_conv() -> None:
    first, second, dense = 98 * 40 * 64 * (20 * 8), 49 * 20 * 64 * (10 * 4 * 64), (49 * 20 * 64) * 12
    cost = inference_cost(conv((98, 40), 12))
    assert cost.multiply_adds == first + second + dense
    assert cost.weights == 926_860
    assert cost.biases == 64 + 64 + 12
    assert cost.float32_bytes == 4 * 926_860
    assert cost.int8_bytes == 926_860 + 3 * (64 + 64 + 12)


def test_ds_cnn_s_is_hello_edges() -> None:
    cost = inference_cost(ds_cnn((49, 10), 12))
    block = 25 * 5 * 64 * (3 * 3) + 25 * 5 * 64 * 64
    assert cost.multiply_adds == 25 * 5 * 64 * (10 * 4) + 4 * block + 64 * 12
    assert cost.weights == 22_604  # of the paper's code, batch normalisation folded
    # The paper's 5.4 million operations: multiplications, additions, and the biases of the nine convolutions.
    operations = 2 * cost.multiply_adds + 9 * 25 * 5 * 64
    assert round(operations / 1e6, 1) == 5.4


def test_clips_of_any_length_cost_the_same() -> None:
    any_length, one = inference_cost(ds_cnn((None, 10), 12), frames=49), inference_cost(ds_cnn((49, 10), 12))
    assert replace(any_length, activations=0) == replace(one, activations=0)


@pytest.mark.parametrize("return_sequences", [False, True])
def test_svdf_filters_every_frame_once(return_sequences: bool) -> None:
    cost = inference_cost(network((20, 6), SVDF(3, 8, rank=2, return_sequences=return_sequences)))
    bins_and_frames = 20 * 6 + 20 * 8 if return_sequences else 8 * 6 + 8  # the last 8 frames are enough
    assert replace(cost, activations=0) == Cost(3 * 2 * bins_and_frames, kernels=3 * 2 * (6 + 8) + 3, biases=0)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("sub_bands", "stays"), [(1, 0), (2, 4 * 6 * 3), (6, 4 * 6 * 3)])
def test_a_norm_by_sub_bands_folds_only_when_there_is_one(sub_bands: int, stays: int, masked: bool) -> None:
    inputs, num_frames = keras.Input((4, 6, 2)), keras.Input((), dtype="int32")
    x = layers.Conv2D(3, 1, use_bias=False)(inputs)
    x = sub_spectral_norm(x, num_frames if masked else None, sub_bands)
    cost = inference_cost(keras.Model([inputs, num_frames], x))
    assert cost.multiply_adds == 4 * 6 * 2 * 3 + stays
    assert (cost.kernels, cost.biases) == (2 * 3 + (3 * sub_bands if stays else 0), 3 * sub_bands)


def test_weights_are_those_that_tensorflow_lite_keeps() -> None:
    model = ds_cnn((49, 10), 12, filters=8)
    generator = np.random.default_rng(0)
    for variable in model.variables:  # equal ones would be kept once
        variable.assign(generator.uniform(0.5, 1, variable.shape))
    graph = tf.function(lambda x: model(x, training=False)).get_concrete_function(tf.TensorSpec((1, 49, 10)))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([convert_variables_to_constants_v2(graph)], model)
    interpreter = Interpreter(model_content=converter.convert())
    interpreter.allocate_tensors()
    computed = {place for op in interpreter._get_ops_details() for place in op["outputs"]}
    computed |= {tensor["index"] for tensor in interpreter.get_input_details()}
    used = {place for op in interpreter._get_ops_details() for place in op["inputs"]}
    kept = [
        int(np.prod(tensor["shape"]))
        for tensor in interpreter.get_tensor_details()
        if tensor["index"] in used - computed and tensor["dtype"] == np.float32
    ]
    assert sum(kept) == inference_cost(model).weights


# --- layers


@pytest.mark.parametrize(
    ("shape", "layer", "multiply_adds", "weights"),
    [
        ((20, 6), layers.Conv1D(8, 5), 16 * 8 * (5 * 6), 5 * 6 * 8 + 8),
        ((20, 6), layers.Conv1D(8, 3, padding="causal", dilation_rate=2), 20 * 8 * (3 * 6), 3 * 6 * 8 + 8),
        ((9, 7, 6), layers.Conv2D(4, 3, groups=2, use_bias=False), 7 * 5 * 4 * (3 * 3 * 3), 3 * 3 * 3 * 4),
        ((9, 7, 6), layers.Conv2D(4, (3, 1), strides=2, padding="same"), 5 * 4 * 4 * (3 * 6), 3 * 6 * 4 + 4),
        ((5, 4, 3, 2), layers.Conv3D(4, 2, use_bias=False), 4 * 3 * 2 * 4 * (8 * 2), 8 * 2 * 4),
        ((9, 7, 6), layers.Conv2DTranspose(4, 3, use_bias=False), 9 * 7 * 6 * (3 * 3 * 4), 3 * 3 * 4 * 6),
        ((9, 7, 6), layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False), 7 * 5 * 12 * 9, 9 * 12),
        ((9, 7, 6), layers.DepthwiseConv2D(3, dilation_rate=4, padding="same"), 9 * 7 * 6 * 9, 9 * 6 + 6),
        ((20, 6), layers.SeparableConv1D(8, 3), 18 * 6 * 3 + 18 * 6 * 8, 3 * 6 + 6 * 8 + 8),
        ((20, 6), layers.Dense(5), 20 * 6 * 5, 6 * 5 + 5),
        ((20, 6), layers.EinsumDense("bti,ijk->btjk", (None, 2, 3)), 20 * 6 * 2 * 3, 6 * 2 * 3),
        ((20, 6), layers.GRU(8), 20 * 3 * 8 * (6 + 8), 3 * 8 * (6 + 8 + 2)),
        ((20, 6), layers.LSTM(8, return_sequences=True), 20 * 4 * 8 * (6 + 8), 4 * 8 * (6 + 8 + 1)),
        (
            (20, 6),
            layers.Bidirectional(layers.GRU(8, reset_after=False)),
            2 * 20 * 3 * 8 * (6 + 8),
            2 * 3 * 8 * (6 + 8 + 1),
        ),
        ((20, 6), layers.PReLU(shared_axes=[1]), 20 * 6, 6),
        ((20, 6), layers.BatchNormalization(), 20 * 6, 2 * 6),
        ((20, 6), layers.LayerNormalization(), 20 * 6, 2 * 6),
        ((9, 7, 6), layers.GroupNormalization(2, scale=False), 0, 6),
        ((20, 6), keras.Sequential([layers.Dense(5, activation="relu"), layers.Dense(2)]), 20 * (30 + 10), 35 + 12),
        ((20,), layers.Embedding(10, 3), 0, 10 * 3),
        ((9, 7, 6), layers.Normalization(mean=1.0, variance=2.0), 0, 0),
        ((9, 7, 6), layers.AveragePooling2D(2), 0, 0),
        ((9, 7, 6), layers.Dropout(0.5), 0, 0),
    ],
    ids=lambda value: value.name if isinstance(value, layers.Layer) else "",
)
def test_a_layer(shape: tuple[int, ...], layer: layers.Layer, multiply_adds: int, weights: int) -> None:
    cost = inference_cost(network(shape, layer))
    assert cost.multiply_adds == multiply_adds
    assert cost.weights == weights


def test_attention_counts_products_of_activations() -> None:
    inputs = keras.Input((20, 6))
    attention = layers.MultiHeadAttention(num_heads=2, key_dim=4)
    model = keras.Model(inputs, attention(inputs, inputs))
    projections = 4 * 20 * 6 * (2 * 4)
    assert inference_cost(model).multiply_adds == projections + 2 * 2 * 20 * 20 * 4
    assert inference_cost(model).weights == model.count_params()


# --- what folds


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(4, 3, use_bias=False),
        layers.Conv2D(4, 3),  # its bias and the offset become one
        layers.DepthwiseConv2D(3, dilation_rate=2, use_bias=False),
        layers.Conv1D(4, 3),
        layers.Dense(4),
    ],
    ids=lambda layer: layer.name,
)
@pytest.mark.parametrize("norm", [{}, {"scale": False}, {"center": False}])
def test_batch_norm_behind_a_product_folds(layer: layers.Layer, norm: dict[str, bool]) -> None:
    layer = layer.__class__.from_config(layer.get_config())
    shape = (9, 4) if isinstance(layer, layers.Conv1D) else (9, 7, 4)
    alone = inference_cost(network(shape, layer))
    cost = inference_cost(network(shape, layer, layers.BatchNormalization(**norm), layers.ReLU()))
    assert cost.multiply_adds == alone.multiply_adds
    assert (cost.kernels, cost.biases) == (alone.kernels, 4)


@pytest.mark.parametrize("between", [layers.ReLU(), layers.MaxPooling2D(2)], ids=["relu", "pooling"])
def test_batch_norm_elsewhere_stays(between: layers.Layer) -> None:
    before = network((9, 7, 3), layers.Conv2D(4, 3), between)
    cost, alone = inference_cost(network((9, 7, 3), before, layers.BatchNormalization())), inference_cost(before)
    positions = int(np.prod(before.output.shape[1:3]))
    assert cost.multiply_adds == alone.multiply_adds + positions * 4
    assert cost.weights == alone.weights + 2 * 4


def test_what_others_use_too_does_not_fold() -> None:
    inputs = keras.Input((9, 7, 3))
    x = layers.Conv2D(4, 3, use_bias=False)(inputs)
    model = keras.Model(inputs, layers.Add()([x, layers.BatchNormalization()(x)]))
    assert inference_cost(model).weights == 3 * 3 * 3 * 4 + 2 * 4


def test_shared_weights_are_kept_once_and_multiplied_twice() -> None:
    shared = layers.Dense(6)
    cost = inference_cost(network((20, 6), shared, layers.ReLU(), shared))
    assert cost.multiply_adds == 2 * 20 * 6 * 6
    assert cost.weights == 6 * 6 + 6


# --- a user's own layers and operations


class Own(layers.Layer):
    """x @ w."""

    def build(self, shape) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], 5), name="kernel")

    def call(self, x):
        return x @ self.kernel


class Counted(Own):
    def multiply_adds(self, input_shape, output_shape):
        return int(np.prod(output_shape)) * input_shape[-1]


class Subclassed(keras.Model):
    def build(self, shape) -> None:
        self.dense = layers.Dense(3)
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x)


def test_a_layer_says_its_own_multiply_adds() -> None:
    own = inference_cost(network((4, 6), Counted(), layers.BatchNormalization()))
    assert replace(own, activations=0) == Cost(4 * 6 * 5 + 4 * 5, kernels=6 * 5 + 5, biases=5)


def test_products_of_activations_count_by_operator_or_layer() -> None:
    inputs = keras.Input((4, 6))
    by_operator = keras.Model(inputs, keras.ops.matmul(inputs, keras.ops.transpose(inputs, (0, 2, 1))))
    by_layer = keras.Model(inputs, layers.Dot(2)([inputs, inputs]))
    for model in (by_operator, by_layer):
        assert replace(inference_cost(model), activations=0) == Cost(4 * 4 * 6, 0, 0)


def test_activations_are_what_must_be_kept_at_once() -> None:
    inputs = keras.Input((10, 4))
    wide = layers.ReLU()(layers.BatchNormalization()(layers.Conv1D(16, 1)(inputs)))  # in place
    narrow = layers.Conv1D(2, 1)(wide)
    assert inference_cost(keras.Model(inputs, narrow)).activations == 10 * 16 + 10 * 4
    with_skip = layers.Add()([layers.Conv1D(4, 1)(narrow), inputs])  # the input is needed to the end
    assert inference_cost(keras.Model(inputs, with_skip)).activations == 10 * 4 + 10 * 16 + 10 * 2


def variable_times(x):
    return x * keras.Variable([2.0] * 6, name="scales")


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Own(name="mine"), "mine: layers of the type Own are not counted; give the class a method multiply_adds"),
        (Subclassed(name="net"), "net: layers of the type Subclassed are not counted"),
        (layers.RNN(layers.StackedRNNCells([layers.GRUCell(2)]), name="stack"), "stack: layers of the type RNN"),
        (lambda x: keras.ops.einsum("bti,bti->bt", x, x), "einsum.*: operations of the type Einsum are not counted"),
        (variable_times, "multiply.*: operations on variables are not counted; use a layer"),
    ],
)
def test_what_is_not_known_is_refused_by_name(layer, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        inference_cost(network((4, 6), layer))


def test_a_model_without_a_graph_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^net: only functional and sequential models are counted, got Subclassed$"):
        inference_cost(Subclassed(name="net"))


def test_an_unknown_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^the shape of '.*' is not known, got .*: how many frames are there\?$"):
        inference_cost(ds_cnn((None, 10), 3))
