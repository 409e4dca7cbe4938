"""Export a trained run (`kws export`): convert, check against the original, put beside the run."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from filelock import Timeout

from kws_data.errors import KwsError
from kws_data.storage.atomic import lock_for, replace_dir, scratch_dir
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.export.artifact import Artifact
from kws_experiments.export.formats.base import Request, find_format
from kws_experiments.export.scorer import run_facts
from kws_experiments.runs.folder import RunFolder
from kws_experiments.runs.listening import Listening
from kws_experiments.runs.trust import sign

log = logging.getLogger(__name__)

CALIBRATION_CLIPS = 300
_QUANTIZATION_LOSS = 0.01  # of accuracy; the user is warned of a greater one


def export_run(
    run: Path,
    *,
    format: str,
    quantize: str = "none",
    decode: str = "wav",
    clip_ms: float | None = None,
    c_name: str | None = None,
    check: bool = True,
) -> tuple[Artifact, Path]:
    """Write `RUN/exports/<format>-<quantize>/`, whole or not at all; an older one is replaced.

    Args:
        run: the folder of a finished run.
        format: a module of `kws_experiments.export.formats`.
        quantize: none; dynamic or float16 weights; or int8, everything. Not every format has all of them.
        decode: the files whose names a SavedModel takes: wav; or all, in a folder `…-all`.
        clip_ms: the length of a clip, for a run that keeps its clips' lengths.
        c_name: the prefix of names in C source; None: one from the run's name.
        check: try the exported files on the test split, beside the original.

    Returns:
        the contents of export.json, and the folder.

    Raises:
        KwsError: the options do not go together, the run is not finished or damaged, its data are gone (where they
            are needed), or the conversion failed.
    """
    chosen, folder = find_format(format), RunFolder(run)
    folder.read_finished_record()
    experiment = Experiment(folder.read_config())
    if not folder.model.is_file():
        raise KwsError(f"'{run}' holds no model.keras: give the folder of a finished run")
    clip_samples = chosen.check_choice(quantize, decode, experiment, clip_ms, c_name)
    run_facts(run)  # raises where a file is damaged

    experiment.start_tensorflow(intra_op=1, inter_op=1)  # latency is measured on one thread
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")  # and for a processor

    from kws_experiments.export.check import calibration_clips, checked, run_clips
    from kws_experiments.export.convert import convert_in_child

    source = run_clips(folder, experiment, clip_samples) if check or quantize == "int8" else None
    calibration = None
    if source is not None and quantize == "int8":
        calibration = calibration_clips(source, CALIBRATION_CLIPS, experiment.data_seed)
    out = folder.exports / (f"{format}-{quantize}" + ("" if decode == "wav" else f"-{decode}"))
    try:
        with lock_for(out, timeout_s=0), scratch_dir(out) as scratch, replace_dir(out) as temporary:
            request = Request(run, temporary, format, quantize, clip_samples, calibration, decode, c_name)
            artifact = convert_in_child(request, scratch)
            if source is not None and check:
                artifact = checked(artifact, temporary, run, source, experiment.false_accept_rate)
            artifact = _with_listening(artifact, run, temporary)
            chosen.write_extras(artifact, temporary)
            artifact.write(temporary)
            sign(temporary)
    except Timeout as error:
        raise KwsError(f"'{out}': another process is writing this export") from error
    _warn(artifact)
    return artifact, out


def _with_listening(artifact: Artifact, run: Path, out: Path) -> Artifact:
    """Write the run's listening.json into an export, with the export's own thresholds of clips."""
    listening = Listening.read(run).with_clips(thresholds=artifact.thresholds)
    listening.write(out)
    notes = artifact.notes
    if listening.tuned and artifact.quantize != "none":
        notes = [*notes, f"{', '.join(listening.tuned)} sensitivity: tuned on the scores of the run's own model"]
    return replace(artifact, sensitivities=list(listening.sensitivities), notes=notes)


def _warn(artifact: Artifact) -> None:
    """Log what the user should know, and what is worse than it should be."""
    for note in artifact.notes:
        log.warning("%s", note)
    for file in artifact.files:
        clips = file.micro.get("clips", 0)
        if different := clips - file.micro.get("same_label", 0):
            log.warning(
                "%s gives another label in TensorFlow Lite Micro on %d of %d clips", file.file, different, clips
            )
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
