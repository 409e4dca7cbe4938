"""TensorFlow's complex tensors for tf2onnx: in ONNX, real tensors whose last axis is [real, imaginary].

By itself tf2onnx knows only a Fourier transform whose magnitude is taken at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from tf2onnx.utils import make_name


def _rfft(ctx: Any, node: Any, name: str, args: Any) -> None:
    """RFFT of [..., samples], as long as the FFT itself → DFT [..., bins, 2]."""
    del args
    shape, source, outputs = ctx.get_shape(node.input[0]), node.input[0], node.output
    last = ctx.make_const(make_name("last_axis"), np.array([-1], np.int64))
    ctx.remove_node(node.name)
    real = ctx.make_node("Unsqueeze", [source, last.output[0]])
    ctx.make_node(
        "DFT", [real.output[0]], attr={"axis": len(shape) - 1, "onesided": 1}, outputs=outputs, name=name,
        dtypes=[onnx.TensorProto.FLOAT], shapes=[[*shape[:-1], shape[-1] // 2 + 1, 2]],
    )  # fmt: skip


def _part(ctx: Any, node: Any, name: str, args: Any) -> None:
    """Real or Imag: one index of the last axis."""
    del args
    source, outputs, shape = node.input[0], node.output, ctx.get_shape(node.input[0])
    index = ctx.make_const(make_name("part"), np.array(["Real", "Imag"].index(node.type), np.int64))
    ctx.remove_node(node.name)
    ctx.make_node(
        "Gather", [source, index.output[0]], attr={"axis": -1}, outputs=outputs, name=name,
        dtypes=[onnx.TensorProto.FLOAT], shapes=[shape[:-1]],
    )  # fmt: skip


HANDLERS: dict[str, tuple[Any, list[Any]]] = {"RFFT": (_rfft, []), "Real": (_part, []), "Imag": (_part, [])}
