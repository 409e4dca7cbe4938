"""A TensorFlow Lite model as C source for TensorFlow Lite Micro, a header and an array: C11 and C++11."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kws_data.errors import KwsError
from kws_data.text import printable
from kws_experiments.export.tflite_stream import EXTERNAL, INTERNAL, form_name

if TYPE_CHECKING:
    from kws_experiments.export.artifact import Artifact, Port
    from kws_experiments.runs.listening import Listening

_BYTES_A_LINE = 16
_SETTINGS = ("hop_ms", "average_window_ms", "suppression_ms", "release", "repeat_ms")
_LONG_AUDIO = (
    "Long audio: real scores of windows hop_ms apart are averaged over average_window_ms. A keyword is detected where",
    "its average is above its threshold (of low, medium or high sensitivity), if none was in the last suppression_ms,",
    "and its average has been below release * threshold since it was detected itself, or that is repeat_ms ago.",
)
_STATES = {
    INTERNAL: "The interpreter keeps its states: tflite::MicroResourceVariables::Create(allocator, {states}).",
    EXTERNAL: "Its other {states} inputs are states: real zeros (zero points: states in export.json), then the outputs"
    " of the call before.",
}
_IRREGULAR = {"BATCH_MATMUL": "BatchMatMul", "CUMSUM": "CumSum", "PADV2": "PadV2"}


def own_prefix(run_name: str, fingerprint: str | None, quantize: str, state: str | None = None) -> str:
    """The prefix of an export's names in C: the run's name, and what tells its exports apart."""
    words = [run_name, (fingerprint or "")[:6], "float" if quantize == "none" else quantize, form_name(state)]
    prefix = re.sub(r"[^a-z0-9]+", "_", "_".join(filter(None, words)).lower()).strip("_")
    return prefix if prefix[0].isalpha() else f"kws_{prefix}"


def check_prefix(prefix: str) -> None:
    """Refuse a prefix that is no C identifier.

    Raises:
        KwsError: so it is.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,62}", prefix):
        raise KwsError(f"--c-name must be letters, digits and _, a letter first, such as my_words; got '{prefix}'")


def c_source(model: bytes, artifact: Artifact, listening: Listening | None = None) -> dict[str, str]:
    """The content of `<c_name>.h` and `<c_name>.c`, for the export's last file.

    Args:
        model: that file's content.
        artifact: the export, with a `c_name`.
        listening: the sensitivities for long audio, if it was tuned for that.
    """
    name, file, front_end = str(artifact.c_name), artifact.files[-1], artifact.front_end
    guard = f"KWS_{name.upper()}_H_"
    quantized = file.output.scale is not None
    kind = "int" if quantized else "float"
    sizes = {
        "model_len": len(model),
        "num_labels": len(artifact.labels),
        "input_frames": file.input.shape[1],
        "input_bins": file.input.shape[2],
        "sample_rate": artifact.sample_rate,
        "clip_samples": artifact.clip_samples,
        "window_samples": front_end["frame_length"],
        "hop_samples": front_end["frame_step"],
    }
    if "arena" in file.micro:
        sizes["arena_bytes"] = file.micro["arena"]  # measured with pointers of 64 bits, so that it is enough for 32
    scales = {"front_end_scale": front_end["scale"]}
    streaming = artifact.streaming
    about = ["Features of a window every hop go in, scores of the labels come out."]
    if streaming:
        about = [
            f"A call takes the stream's next {name}_input_frames frames, and gives scores of the clip that ends there.",
            _STATES[streaming["state"]].format_map(streaming),
        ]
    about += [
        "Features = front_end_scale * what the front end gives"
        + (", then normalised by mean and variance in export.json." if "mean" in front_end else "."),
        "A keyword is detected where its score reaches its threshold; those of other labels are out of reach.",
    ]
    if quantized:
        sizes |= {"input_zero_point": file.input.zero_point, "output_zero_point": file.output.zero_point}
        scales |= {"input_scale": file.input.scale, "output_scale": file.output.scale}
        about.append("Input and output are int8: real = scale * (quantized - zero_point).")
    tuned = listening.tuned if listening else {}
    if listening and tuned:
        settings = {"hop_ms": listening.tuned_on["hop_ms"]} | next(iter(tuned.values()))["settings"]
        scales |= {key: settings[key] for key in _SETTINGS}
        about += _LONG_AUDIO
    header = [
        *_comment(
            f"{file.file} of run {artifact.run['name']} {artifact.run['fingerprint']}: features in, scores out.",
            f"Front end: {front_end['config']['_target_']}, with the parameters in export.json.",
            f"Trained on data of licence: {artifact.data_licence or 'not stated'}",
            "",
            f"tflite::MicroMutableOpResolver<{len(file.operators)}> resolver;",
            *(f"resolver.{_add(operator)}();" for operator in file.operators),
        ),
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        *_comment(*about),
        "enum {",
        *(f"  {name}_{key} = {value}," for key, value in sizes.items()),
        "};",
        *(f"static const float {name}_{key} = {_c_float(value)};" for key, value in scales.items()),
        "",
        f"extern const char* const {name}_labels[{len(artifact.labels)}];",
        f"extern const {kind} {name}_thresholds[{len(artifact.labels)}];",
        *(f"extern const float {name}_thresholds_{one}[{len(artifact.labels)}];" for one in tuned),
        f"extern const unsigned char {name}_model[{len(model)}]; /* aligned to 16 bytes */",
        "",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "",
        f"#endif  /* {guard} */",
    ]
    limits = [_threshold(artifact.thresholds.get(label, math.inf), file.output) for label in artifact.labels]
    source = [
        f'#include "{name}.h"',
        "",
        "#ifdef __cplusplus",
        "#define KWS_ALIGN_16 alignas(16)",
        "#else",
        "#define KWS_ALIGN_16 _Alignas(16)",
        "#endif",
        "",
        f"const char* const {name}_labels[] = {{{', '.join(map(c_string, artifact.labels))}}};",
        f"const {kind} {name}_thresholds[] = {{{', '.join(limits)}}};",
        *(
            f"const float {name}_thresholds_{one}[] = {{{_floats(chosen['thresholds'], artifact.labels)}}};"
            for one, chosen in tuned.items()
        ),
        "",
        f"KWS_ALIGN_16 const unsigned char {name}_model[] = {{",
        *_array(model),
        "};",
    ]
    return {f"{name}.h": "\n".join(header) + "\n", f"{name}.c": "\n".join(source) + "\n"}


def c_string(text: str) -> str:
    """A C string literal: UTF-8, all but plain characters as octal escapes."""
    plain = set(range(0x20, 0x7F)) - set(b'"\\?')
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text.encode()) + '"'


def _comment(*lines: str) -> list[str]:
    return ["/*", *(f" * {printable(line).replace('*/', '* /')}".rstrip() for line in lines), " */"]


def _add(operator: str) -> str:
    """The method of TensorFlow Lite Micro's resolver that adds an operator: CONV_2D → AddConv2D."""
    words = (word if word[0].isdigit() else word.capitalize() for word in operator.split("_"))
    return f"Add{_IRREGULAR.get(operator) or ''.join(words)}"


def _threshold(threshold: float, output: Port) -> str:
    """On the scale of the model's output: where that has integers, rounded up to one."""
    if output.scale is None or output.zero_point is None:
        return _c_float(min(threshold, 2.0))
    beyond = 128 - output.zero_point  # one above int8's largest
    return str(math.ceil(min(threshold / output.scale, beyond)) + output.zero_point)


def _floats(thresholds: Mapping[str, float], labels: Sequence[str]) -> str:
    return ", ".join(_c_float(thresholds.get(label, 2.0)) for label in labels)


def _c_float(value: float) -> str:
    return f"{value:.9e}f"


def _array(model: bytes) -> list[str]:
    digits = [f"0x{byte:02x}" for byte in range(256)]
    return [
        "  " + ", ".join(digits[byte] for byte in model[start : start + _BYTES_A_LINE]) + ","
        for start in range(0, len(model), _BYTES_A_LINE)
    ]
