"""Export a trained run (`kws export`): convert, check against the original, put beside the run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from filelock import Timeout

from kws_data.errors import KwsError
from kws_data.storage.atomic import lock_for, replace_dir, scratch_dir
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.export.artifact import Artifact
from kws_experiments.export.formats.base import Options, Request, find_format
from kws_experiments.export.scorer import run_facts
from kws_experiments.runs.folder import RunFolder
from kws_experiments.runs.listening import Listening
from kws_experiments.runs.trust import sign

log = logging.getLogger(__name__)

# (the run, its sensitivities, the export's folder, its contents) → sensitivities found on the export's own scores
Tune = Callable[[Path, Listening, Path, Artifact], Listening]

CALIBRATION_CLIPS = 300
_QUANTIZATION_LOSS = 0.01  # of accuracy; the user is warned of a greater one


def export_run(run: Path, options: Options, *, check: bool = True, tune: Tune | None = None) -> tuple[Artifact, Path]:
    """Write `RUN/exports/<format>-<quantize>/`, whole or not at all; an older one is replaced.

    The folder is `…-all` where a SavedModel decodes all files, `…-streaming` or `…-streaming-external` with a streaming
    form, and `…-<word>` where the models know one word.

    Args:
        run: the folder of a finished run.
        options: what to write.
        check: try the exported files on the test split, beside the original.
        tune: finds sensitivities on an export's own scores, for quantized files that are tried, and for formats that
            have no other.

    Returns:
        the contents of export.json, and the folder.

    Raises:
        KwsError: the options do not go together, the run is not finished or damaged, its data are gone (where they
            are needed), or the conversion failed.
    """
    chosen, folder = find_format(options.format), RunFolder(run)
    folder.read_finished_record()
    experiment = Experiment(folder.read_config())
    if not folder.model.is_file():
        raise KwsError(f"'{run}' holds no model.keras: give the folder of a finished run")
    clip_samples = chosen.check_choice(options, experiment)
    chosen.labels_of(run_facts(run).labels, options.word)  # raises where a file is damaged
    listening = Listening.read(run)
    if chosen.tunes and not listening.tuned:
        raise KwsError(f"--format {chosen.name} needs sensitivities for long audio: kws tune '{run}'")
    quantize = options.quantize or chosen.quantizations[0]

    experiment.start_tensorflow(intra_op=1, inter_op=1)  # latency is measured on one thread
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")  # and for a processor

    from kws_experiments.export.check import calibration_clips, checked, run_clips
    from kws_experiments.export.convert import convert_in_child

    source = run_clips(folder, experiment, clip_samples) if check or quantize == "int8" else None
    calibration = None
    if source is not None and quantize == "int8":
        calibration = calibration_clips(source, CALIBRATION_CLIPS, experiment.data_seed)
    out = folder.exports / options.folder_name(quantize)
    try:
        with lock_for(out, timeout_s=0), scratch_dir(out) as scratch, replace_dir(out) as temporary:
            request = Request(
                run, temporary, options.format, quantize, clip_samples, calibration, options.decode, options.c_name,
                options.state, options.hop_ms, options.word,
            )  # fmt: skip
            artifact = convert_in_child(request, scratch)
            if source is not None and check:
                artifact = checked(artifact, temporary, run, source, experiment.false_accept_rate)
            listening = listening.with_clips(thresholds=artifact.thresholds)
            if chosen.tunes and tune is not None:
                listening = tune(run, listening, temporary, artifact)
            elif listening.tuned and quantize != "none":
                windows = check and not artifact.streaming
                listening, artifact = _retuned(run, listening, temporary, artifact, tune if windows else None)
            listening.write(temporary)
            artifact = replace(artifact, sensitivities=list(listening.sensitivities))
            chosen.write_extras(artifact, temporary)
            artifact.write(temporary)
            sign(temporary)
    except Timeout as error:
        raise KwsError(f"'{out}': another process is writing this export") from error
    _warn(artifact)
    return artifact, out


def _retuned(
    run: Path, listening: Listening, out: Path, artifact: Artifact, tune: Tune | None
) -> tuple[Listening, Artifact]:
    """Sensitivities on the scores of a quantized export; where they can't be found, the run's, and a note."""
    reason = ""
    if tune is not None:
        try:
            return tune(run, listening, out, artifact), artifact
        except KwsError as error:
            reason = f": {error}"
    note = f"{', '.join(listening.tuned)} sensitivity: tuned on the scores of the run's own model{reason}"
    return listening, replace(artifact, notes=[*artifact.notes, note])


def _warn(artifact: Artifact) -> None:
    """Log what the user should know, and what is worse than it should be."""
    for note in artifact.notes:
        log.warning("%s", note)
    for file in artifact.files:
        clips = file.micro.get("clips", 0)
        if different := clips - file.micro.get("same_label", 0):
            log.warning(
                "%s gives another label in TensorFlow Lite Micro on %d of %d %s", file.file, different, clips,
                artifact.tried,
            )  # fmt: skip
        if not file.check:
            continue
        disagreements, clips = file.check["disagreements"], file.check["clips"]
        if artifact.quantize == "none" and disagreements:
            log.warning("%s disagrees with the original on %d of %d clips", file.file, disagreements, clips)
        loss = file.check["original"]["accuracy"] - file.check["accuracy"]
        if loss > _QUANTIZATION_LOSS:
            log.warning("%s loses %.1f points of accuracy", file.file, 100 * loss)
    highest = artifact.files[-1].output.highest_score
    too_high = [label for label, threshold in artifact.thresholds.items() if threshold > highest]
    if too_high:
        log.warning("no score reaches the thresholds of %s: choose thresholds of your own", ", ".join(too_high))
