"""A TensorFlow Lite model as a C array, for TensorFlow Lite Micro: C11 and C++11."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from kws_data.text import printable
from kws_experiments.export.artifact import ModelFile, Port
from kws_experiments.runs.listening import Listening

_BYTES_A_LINE = 16


def c_header(
    model: bytes,
    file: ModelFile,
    *,
    labels: Sequence[str],
    thresholds: Mapping[str, float],
    about: Sequence[str],
    listening: Listening | None = None,
) -> str:
    """The text of the header: `g_model`, `g_model_len`, labels, thresholds, shapes and quantization.

    Args:
        model: the .tflite file's content.
        file: its description.
        labels: class names.
        thresholds: each keyword's decision threshold; labels without one get a value that no score reaches.
        about: lines for the comment at the head.
        listening: the sensitivities for long audio, if it was tuned for that.
    """
    quantized = file.output.scale is not None
    limits = [_threshold(thresholds.get(label, math.inf), file.output) for label in labels]
    lines = [
        "/*",
        *(f" * {printable(line).replace('*/', '* /')}" for line in about),
        f" * Operators: {', '.join(file.operators)}",
        " */",
        "#ifndef KWS_MODEL_H_",
        "#define KWS_MODEL_H_",
        "",
        "#ifdef __cplusplus",
        "#define KWS_ALIGN_16 alignas(16)",
        "#else",
        "#define KWS_ALIGN_16 _Alignas(16)",
        "#endif",
        "",
        f"static const char* const g_labels[] = {{{', '.join(map(c_string, labels))}}};",
        f"static const int g_num_labels = {len(labels)};",
        "",
        f"static const int g_input_frames = {file.input.shape[1]};",
        f"static const int g_input_bins = {file.input.shape[2]};",
    ]
    if quantized:
        lines.append("/* real = scale * (quantized - zero point) */")
        for name, port in (("input", file.input), ("output", file.output)):
            lines.append(f"static const float g_{name}_scale = {_c_float(port.scale)};")
            lines.append(f"static const int g_{name}_zero_point = {port.zero_point};")
    lines += [
        "/* A keyword is detected where its output reaches this; the outputs of other labels can't. */",
        f"static const {'int' if quantized else 'float'} g_thresholds[] = {{{', '.join(limits)}}};",
        *(_sensitivities(listening, labels) if listening and listening.tuned else []),
        "",
        f"static const int g_model_len = {len(model)};",
        "KWS_ALIGN_16 static const unsigned char g_model[] = {",
        *_array(model),
        "};",
        "",
        "#endif  // KWS_MODEL_H_",
    ]
    return "\n".join(lines) + "\n"


def _sensitivities(listening: Listening, labels: Sequence[str]) -> list[str]:
    """What `kws tune` chose: how to average scores, and the thresholds of each sensitivity."""
    settings = next(iter(listening.tuned.values()))["settings"]
    lines = [
        "/* Long audio: real scores of windows g_hop_ms apart are averaged over g_average_window_ms. A keyword is",
        "   detected where its average is above its threshold, if none was in the last g_suppression_ms, and its",
        "   average has been below g_release of the threshold since it was detected itself, or that is g_repeat_ms",
        "   ago. */",
    ]
    values = {"hop_ms": listening.tuned_on["hop_ms"]} | settings
    lines += [
        f"static const float g_{name} = {_c_float(values[name])};"
        for name in ("hop_ms", "average_window_ms", "suppression_ms", "release", "repeat_ms")
    ]
    for name, sensitivity in listening.tuned.items():
        limits = ", ".join(_c_float(sensitivity["thresholds"].get(label, 2.0)) for label in labels)
        lines.append(f"static const float g_thresholds_{name}[] = {{{limits}}};")
    return lines


def c_string(text: str) -> str:
    """A C string literal: UTF-8, all but plain characters as octal escapes."""
    plain = set(range(0x20, 0x7F)) - set(b'"\\?')
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text.encode()) + '"'


def _threshold(threshold: float, output: Port) -> str:
    """On the scale of the model's output: where that has integers, rounded up to one."""
    if output.scale is None or output.zero_point is None:
        return _c_float(min(threshold, 2.0))
    beyond = 128 - output.zero_point  # one above int8's largest
    return str(math.ceil(min(threshold / output.scale, beyond)) + output.zero_point)


def _c_float(value: float | None) -> str:
    assert value is not None
    return f"{value:.9e}f"


def _array(model: bytes) -> list[str]:
    digits = [f"0x{byte:02x}" for byte in range(256)]
    return [
        "  " + ", ".join(digits[byte] for byte in model[start : start + _BYTES_A_LINE]) + ","
        for start in range(0, len(model), _BYTES_A_LINE)
    ]
