"""SavedModel with the preprocessing inside, called like the one of the TensorFlow tutorial on keyword recognition."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kws_experiments.export.formats.base import Format, Options, Request, Written

if TYPE_CHECKING:
    from kws_experiments.experiment.experiment import Experiment
    from kws_experiments.export.scorer import Function
    from kws_experiments.export.trained import Trained

FOLDER = "saved_model"


class SavedModel(Format):
    """The folder `saved_model`, which TensorFlow runs."""

    about = "file names or waveforms in, `predictions`, `class_ids` and `class_names` out"
    decodes = ("wav", "all")
    any_length = True
    runs_programs = True

    def check_choice(self, options: Options, experiment: Experiment) -> int | None:
        """See Format."""
        clip_samples = super().check_choice(options, experiment)
        if options.decode == "all":
            from kws_data.second_opinion import require_tensorflow_io

            require_tensorflow_io("--decode all")
        return clip_samples

    def write(self, trained: Trained, request: Request) -> Written:
        """See Format."""
        import tensorflow as tf

        from kws_experiments.export.artifact import ModelFile, Port
        from kws_experiments.export.keyword_spotter import KeywordSpotter, read_wav

        requires = [trained.features.op_module] if trained.features.op_module else []
        read = read_wav
        if request.decode == "all":
            from kws_data.audio_ops import REGISTERS_OPS, read

            requires.append(REGISTERS_OPS)
        module = KeywordSpotter(trained, read)
        tf.saved_model.save(module, str(request.out / FOLDER), signatures=module.serving)
        lines = [f"pkgutil.resolve_name('{name}')" for name in requires]
        notes = [f"before loading {FOLDER}, register its ops: import pkgutil; {'; '.join(lines)}"] if lines else []
        ports = Port("waveform", [-1, -1], "float32"), Port("predictions", [-1, len(trained.facts.labels)], "float32")
        signatures = {
            name: {
                "inputs": [spec.name for spec in graph.structured_input_signature[0]],
                "outputs": list(graph.structured_outputs),
            }
            for name, graph in module.serving.items()
        }
        return Written([ModelFile(FOLDER, "waveform", *ports, signatures=signatures)], notes, requires)

    def load(self, path: Path) -> Function:
        """See Format."""
        import tensorflow as tf
        from scipy.special import softmax

        model = tf.saved_model.load(str(path))
        return lambda waveforms: softmax(model(waveforms)["predictions"].numpy(), axis=1)
