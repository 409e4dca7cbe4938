"""Run a SavedModel's signatures in a session, as `saved_model_cli` and TensorFlow's C API do; a process of its own.

python -I in_session.py EXPORT WAVEFORMS.npy NAMES.json RESULTS.npz

Nothing of this project is imported: `export.json` says what registers the ops.
"""

import json
import pkgutil
import sys
from pathlib import Path

import numpy as np
import tensorflow.compat.v1 as tf

export, waveforms, results = Path(sys.argv[1]), sys.argv[2], sys.argv[4]
names = json.loads(Path(sys.argv[3]).read_text())
for name in json.loads((export / "export.json").read_text())["requires"]:
    pkgutil.resolve_name(name)
with tf.Graph().as_default(), tf.Session() as session:
    signatures = tf.saved_model.loader.load(session, ["serve"], str(export / "saved_model")).signature_def

    def run(signature: str, name: str, value: object) -> dict[str, np.ndarray]:
        ports = signatures[signature]
        fetched = {key: tensor.name for key, tensor in ports.outputs.items()}
        return session.run(fetched, {ports.inputs[name].name: value})

    answers = {
        "at_once": run("serving_default", "waveform", np.load(waveforms)),
        "by_names": run("file_names", "file_names", names),
        "by_name": run("file_names", "file_names", names[0]),
    }
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"kws_data", "kws_models", "kws_experiments"}
columns = ((f"{way} {key}", value) for way, answer in answers.items() for key, value in answer.items())
np.savez(results, **{name: value.astype(bytes) if value.dtype == object else value for name, value in columns})
