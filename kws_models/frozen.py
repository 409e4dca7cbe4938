"""Inference with the weights as constants, which TensorFlow folds into other constants and fuses into its kernels."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2


def frozen(function: Any, signature: Any) -> Callable[[Any], tf.Tensor]:
    """A function of one argument as a graph, with the variables' values of now; later ones have no effect.

    Args:
        function: such as a model's call, without dropout; of a tensor, or of a dict of tensors.
        signature: the argument's TensorSpec, or a dict of them.
    """
    traced = tf.function(function, input_signature=[signature]).get_concrete_function()
    constant = convert_variables_to_constants_v2(traced, lower_control_flow=False)

    def infer(inputs: Any) -> tf.Tensor:
        (result,) = constant(*(tf.convert_to_tensor(value) for value in tf.nest.flatten(inputs)))
        return result

    return infer
