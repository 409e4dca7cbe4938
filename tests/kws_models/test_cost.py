"""What a network costs: counts made by hand, for the project's models and for layers of anyone's."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from kws_models.conv import conv
from kws_models.cost import Cost, inference_cost
from kws_models.ds_cnn import ds_cnn


def cost_of(model: keras.Model) -> Cost:
    return inference_cost(model, tf.TensorSpec((1, *model.input.shape[1:])))


def network(shape: tuple[int, ...], *stack) -> keras.Model:
    inputs = x = keras.Input(shape)
    for layer in stack:
        x = layer(x)
    return keras.Model(inputs, x)


# --- the project's models


def test_conv() -> None:
    first, second, dense = 98 * 40 * 64 * (20 * 8), 49 * 20 * 64 * (10 * 4 * 64), (49 * 20 * 64) * 12
    cost = cost_of(conv((98, 40), 12))
    assert cost.multiply_adds == first + second + dense
    assert cost.weights == 926_860
    assert cost.biases == 64 + 64 + 12
    assert cost.float32_bytes == 4 * 926_860
    assert cost.int8_bytes == 926_860 + 3 * (64 + 64 + 12)


def test_ds_cnn_s_is_hello_edges() -> None:
    cost = cost_of(ds_cnn((49, 10), 12))
    block = 25 * 5 * 64 * (3 * 3) + 25 * 5 * 64 * 64
    assert cost.multiply_adds == 25 * 5 * 64 * (10 * 4) + 4 * block + 64 * 12
    assert cost.weights == 22_604  # of the paper's code, batch normalisation folded
    # The paper's 5.4 million operations: multiplications, additions, and the biases of the nine convolutions.
    operations = 2 * cost.multiply_adds + 9 * 25 * 5 * 64
    assert round(operations / 1e6, 1) == 5.4


def test_clips_of_any_length_cost_the_same() -> None:
    inputs = {"features": tf.TensorSpec((1, 49, 10)), "num_frames": tf.TensorSpec((1,), tf.int32)}
    assert inference_cost(ds_cnn((None, 10), 12), inputs) == cost_of(ds_cnn((49, 10), 12))


def test_weights_are_those_that_tensorflow_lite_keeps() -> None:
    model = ds_cnn((49, 10), 12, filters=8)
    generator = np.random.default_rng(0)
    for variable in model.variables:  # equal ones would be kept once
        variable.assign(generator.uniform(0.5, 1, variable.shape))
    graph = tf.function(lambda x: model(x, training=False)).get_concrete_function(tf.TensorSpec((1, 49, 10)))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([convert_variables_to_constants_v2(graph)], model)
    interpreter = tf.lite.Interpreter(model_content=converter.convert())
    interpreter.allocate_tensors()
    computed = {place for op in interpreter._get_ops_details() for place in op["outputs"]}
    computed |= {tensor["index"] for tensor in interpreter.get_input_details()}
    used = {place for op in interpreter._get_ops_details() for place in op["inputs"]}
    kept = [
        int(np.prod(tensor["shape"]))
        for tensor in interpreter.get_tensor_details()
        if tensor["index"] in used - computed and tensor["dtype"] == np.float32
    ]
    assert sum(kept) == cost_of(model).weights


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
        ((9, 7, 6), layers.AveragePooling2D(2), 0, 0),
        ((9, 7, 6), layers.Dropout(0.5), 0, 0),
    ],
    ids=lambda value: value.name if isinstance(value, layers.Layer) else "",
)
def test_a_layer(shape: tuple[int, ...], layer: layers.Layer, multiply_adds: int, weights: int) -> None:
    cost = cost_of(network(shape, layer))
    assert cost.multiply_adds == multiply_adds
    assert cost.weights == weights


def test_attention_counts_products_of_activations() -> None:
    inputs = keras.Input((20, 6))
    attention = layers.MultiHeadAttention(num_heads=2, key_dim=4)
    model = keras.Model(inputs, attention(inputs, inputs))
    projections = 4 * 20 * 6 * (2 * 4)
    assert cost_of(model).multiply_adds == projections + 2 * 2 * 20 * 20 * 4
    assert cost_of(model).weights == model.count_params()


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
    alone = cost_of(network(shape, layer))
    cost = cost_of(network(shape, layer, layers.BatchNormalization(**norm), layers.ReLU()))
    assert cost.multiply_adds == alone.multiply_adds
    assert (cost.kernels, cost.biases) == (alone.kernels, 4)


@pytest.mark.parametrize("between", [layers.ReLU(), layers.MaxPooling2D(2)], ids=["relu", "pooling"])
def test_batch_norm_elsewhere_stays(between: layers.Layer) -> None:
    before = network((9, 7, 3), layers.Conv2D(4, 3), between)
    cost, alone = cost_of(network((9, 7, 3), before, layers.BatchNormalization())), cost_of(before)
    positions = int(np.prod(before.output.shape[1:3]))
    assert cost.multiply_adds == alone.multiply_adds + positions * 4
    assert cost.weights == alone.weights + 2 * 4


def test_what_others_use_too_does_not_fold() -> None:
    inputs = keras.Input((9, 7, 3))
    x = layers.Conv2D(4, 3, use_bias=False)(inputs)
    model = keras.Model(inputs, layers.Add()([x, layers.BatchNormalization()(x)]))
    assert cost_of(model).weights == 3 * 3 * 3 * 4 + 2 * 4


def test_shared_weights_are_kept_once_and_multiplied_twice() -> None:
    shared = layers.Dense(6)
    cost = cost_of(network((20, 6), shared, layers.ReLU(), shared))
    assert cost.multiply_adds == 2 * 20 * 6 * 6
    assert cost.weights == 6 * 6 + 6


# --- layers made by hand


class ShiftedProducts(layers.Layer):
    """A depthwise convolution along frames, as a sum of shifted products."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def build(self, shape) -> None:
        self.kernel = self.add_weight(shape=(self.size, shape[-1]))

    def call(self, x):
        frames = x.shape[1] - self.size + 1
        return sum(x[:, shift : shift + frames] * self.kernel[shift] for shift in range(self.size))


def test_a_depthwise_convolution_by_shifted_products_costs_what_the_op_does() -> None:
    by_hand = network((9, 7, 6), ShiftedProducts(3), layers.BatchNormalization())
    by_op = network((9, 7, 6), layers.DepthwiseConv2D((3, 1)), layers.BatchNormalization())
    assert cost_of(by_hand) == cost_of(by_op)


class Loop(layers.Layer):
    """x @ w, several times over: while a condition that is made by `more` holds."""

    def __init__(self, more) -> None:
        super().__init__()
        self.more = more

    def build(self, shape) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], shape[-1]))

    def call(self, x):
        def body(count, x):
            return count + 2, tf.matmul(x, self.kernel)

        return tf.while_loop(self.more, body, (tf.constant(1), x))[1]

    def compute_output_shape(self, shape):
        return shape


@pytest.mark.parametrize(
    ("more", "rounds"),
    [
        (lambda count, x: count < 10, 5),
        (lambda count, x: count <= 11, 6),
        (lambda count, x: tf.logical_and(count < 6, count < 100), 3),
        (lambda count, x: count < 1, 0),
    ],
)
def test_loops_count_by_rounds(more, rounds: int) -> None:
    cost = cost_of(network((4, 6), Loop(more)))
    assert cost.multiply_adds == rounds * 4 * 6 * 6
    assert cost.weights == 6 * 6


@pytest.mark.parametrize(
    "more", [lambda count, x: tf.reduce_sum(x) < 10, lambda count, x: tf.logical_or(count < 3, count < 9)]
)
def test_a_loop_without_a_known_end_is_refused(more) -> None:
    with pytest.raises(ValueError, match=r"the rounds of the loop '.*' do not follow from the graph"):
        cost_of(network((4, 6), Loop(more)))


def test_of_two_branches_the_costlier_counts() -> None:
    class Branches(layers.Layer):
        def build(self, shape) -> None:
            self.wide, self.narrow = self.add_weight(shape=(6, 6)), self.add_weight(shape=(6, 1))

        def call(self, x):
            return tf.cond(tf.reduce_sum(x) > 0, lambda: tf.matmul(x, self.wide), lambda: tf.matmul(x, self.narrow) + x)

        def compute_output_shape(self, shape):
            return shape

    cost = cost_of(network((4, 6), Branches()))
    assert cost.multiply_adds == 4 * 6 * 6
    assert cost.weights == 6 * 6 + 6


def test_functions_within_functions_count() -> None:
    class Inner(layers.Layer):
        def build(self, shape) -> None:
            self.kernel = self.add_weight(shape=(6, 6))
            self.product = tf.function(lambda x: tf.matmul(x, self.kernel))

        def call(self, x):
            return self.product(self.product(x))

    inputs = keras.Input((4, 6), batch_size=1)
    cost = cost_of(keras.Model(inputs, Inner()(inputs)))
    assert cost.multiply_adds == 2 * 4 * 6 * 6
    assert cost.weights == 6 * 6


def test_einsum_of_one_operand_moves_and_adds_only() -> None:
    inputs = keras.Input((5, 3))
    model = keras.Model(inputs, layers.Lambda(lambda x: tf.einsum("btc->bc", x), output_shape=(3,))(inputs))
    assert cost_of(model) == Cost(0, 0, 0)


def test_an_embedding_is_kept_and_costs_nothing() -> None:
    inputs = keras.Input((5,), dtype="int32")
    model = keras.Model(inputs, layers.Embedding(10, 3)(inputs))
    assert inference_cost(model, tf.TensorSpec((1, 5), tf.int32)) == Cost(0, 30, 0)


def test_an_unknown_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the shape of '.*' does not follow from the graph"):
        inference_cost(ds_cnn((49, 10), 3), tf.TensorSpec((None, 49, 10)))
