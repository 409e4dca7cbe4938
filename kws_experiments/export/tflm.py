"""An int8 network in TensorFlow Lite Micro: `python -m kws_experiments.export.tflm MODEL INPUTS.npy`.

In a process of its own, which native code may end.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from kws_data.storage.parallel import import_path
from kws_experiments.console.output import say_document
from kws_experiments.export.formats.base import clean_lines

_ENOUGH = 64_000_000  # bytes; more than any microcontroller has


def measured(model: Path, inputs: np.ndarray) -> dict[str, int | str]:
    """What a network needs and gives in TensorFlow Lite Micro.

    Args:
        model: the file.
        inputs: [clips, …], as it takes them; of a streaming form, the calls of one stream.

    Returns:
        the `arena` in bytes, the part of it that holds `activations`, and how the scores compare with those of LiteRT's
        reference kernels: on how many of the `clips` (or calls) they are `identical` bit for bit, on how many the
        highest is of the `same_label`, and the `largest_difference` in steps of the output; or `not_measured`, why.
    """
    if importlib.util.find_spec("tflite_micro") is None:
        return {"not_measured": "needs tflite-micro, for Linux on x86-64: pip install -e '.[tflm]'"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "inputs.npy"
        np.save(path, inputs)
        command = [sys.executable, "-P", "-m", "kws_experiments.export.tflm", str(model), str(path)]
        environment = os.environ | {"PYTHONPATH": import_path()}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
    sizes = dict(re.findall(r"Arena allocation (total|head) (\d+) bytes", done.stderr))
    if done.returncode or len(sizes) < 2:
        reasons = clean_lines(done.stderr)
        reason = next((line for line in reasons if "find op" in line), (reasons or ["no reason"])[-1])
        return {"not_measured": f"TensorFlow Lite Micro does not run it: {reason[:200]}"}
    return {"arena": int(sizes["total"]), "activations": int(sizes["head"])} | json.loads(done.stdout)


def main() -> None:
    """Run each clip in both; print how the scores compare, and to standard error what was allocated."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType
    from tflite_micro.python.tflite_micro import runtime

    model, inputs = sys.argv[1], np.load(sys.argv[2])
    micro = runtime.Interpreter.from_file(model, arena_size=_ENOUGH)
    reference = Interpreter(model, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    reference.allocate_tensors()
    source, *states = reference.get_input_details()
    results = [one["index"] for one in reference.get_output_details()]
    before = [np.full(one["shape"], one["quantization"][1], one["dtype"]) for one in states]  # real zeros
    ours_before = theirs_before = before
    scores: list[list[np.ndarray]] = []
    for clip in inputs:
        for place, value in enumerate([clip[np.newaxis], *ours_before]):
            micro.set_input(value, place)
        micro.invoke()
        for one, value in zip([source, *states], [clip[np.newaxis], *theirs_before], strict=True):
            reference.set_tensor(one["index"], value)
        reference.invoke()
        ours_after, theirs_after = (
            [get(place) for place in places]
            for get, places in ((micro.get_output, range(len(results))), (reference.get_tensor, results))
        )
        scores.append([ours_after[0][0], theirs_after[0][0]])
        ours_before, theirs_before = ours_after[1:], theirs_after[1:]
    ours, theirs = np.array(scores, int).swapaxes(0, 1)
    compared = {
        "clips": len(inputs),
        "identical": int((ours == theirs).all(axis=1).sum()),
        "same_label": int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum()),
        "largest_difference": int(np.abs(ours - theirs).max()),
    }
    micro.print_allocations()
    say_document(json.dumps(compared))


if __name__ == "__main__":
    main()
