"""What a network's int8 form would need in TensorFlow Lite Micro, before it is trained."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from kws_data.errors import KwsError
from kws_experiments.config.compose import fingerprint
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.export.convert import convert_in_child
from kws_experiments.export.formats.base import Request
from kws_experiments.runs.folder import DONE, RunFolder, write_text
from kws_experiments.runs.listening import CLIPS, Listening
from kws_experiments.runs.saved_model import save_model
from kws_experiments.runs.trust import sign

_CLIPS = 20  # of noise, which set the ranges


def untrained_arena(experiment: Experiment, num_labels: int) -> dict[str, int | str]:
    """Export the network with its initial weights, on which sizes don't depend: see `tflm.measured`.

    Args:
        experiment: its model and features.
        num_labels: of the network.
    """
    config, samples = experiment.config, experiment.nominal_samples
    with tempfile.TemporaryDirectory() as temporary:
        folder, out, scratch = RunFolder(Path(temporary) / "run"), Path(temporary) / "out", Path(temporary) / "scratch"
        for path in (folder.path, out, scratch):
            path.mkdir()
        folder.write_config(config)
        folder.write_record(status=DONE, fingerprint=fingerprint(config))
        write_text(folder.labels, "".join(f"{number}\n" for number in range(num_labels)))
        Listening({CLIPS: {"thresholds": {}}}).write(folder.path)
        network = experiment.build_network(num_labels)
        save_model(folder.model, experiment.features, network, experiment.clip_samples)
        sign(folder.path)
        noise = np.random.default_rng(0).normal(0, 0.1, (_CLIPS, samples)).astype(np.float32)
        request = Request(folder.path, out, "tflite", "int8", clip_samples=samples, calibration=noise)
        try:
            return dict(convert_in_child(request, scratch).files[-1].micro)
        except KwsError as error:
            return {"not_measured": str(error)}
