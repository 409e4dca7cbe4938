"""SavedModel with the preprocessing inside, called like the one of the TensorFlow tutorial on keyword recognition."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kws_experiments.export.formats.base import Format, Request, Written

if TYPE_CHECKING:
    from kws_experiments.export.scorer import Function
    from kws_experiments.export.trained import Trained

FOLDER = "saved_model"


class SavedModel(Format):
    """The folder `saved_model`, which TensorFlow runs."""

    about = "a file name or waveforms in, `predictions`, `class_ids` and `class_names` out"
    any_length = True
    runs_programs = True

    def write(self, trained: Trained, request: Request) -> Written:
        """See Format."""
        import tensorflow as tf

        from kws_experiments.export.artifact import ModelFile, Port
        from kws_experiments.export.keyword_spotter import KeywordSpotter

        module = KeywordSpotter(trained)
        tf.saved_model.save(module, str(request.out / FOLDER), signatures=module.serving)
        requires = trained.features.op_module
        notes = [f"the front end has ops of its own: import {requires} before loading {FOLDER}"] if requires else []
        logits = Port("predictions", [-1, len(trained.facts.labels)], "float32")
        return Written([ModelFile(FOLDER, "waveform", Port("waveform", [-1, -1], "float32"), logits)], notes, requires)

    def load(self, path: Path) -> Function:
        """See Format."""
        import tensorflow as tf
        from scipy.special import softmax

        model = tf.saved_model.load(str(path))
        return lambda waveforms: softmax(model(waveforms)["predictions"].numpy(), axis=1)
