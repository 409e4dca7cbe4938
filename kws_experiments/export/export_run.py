"""A trained run in another format (`kws export`): convert, check against the original, and put beside it."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import Timeout

from kws_data.errors import KwsError
from kws_data.splits import TESTING, VALIDATION
from kws_data.storage.atomic import lock_for, remove_leftovers, replace_dir
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.export.artifact import Artifact, content_hash, model_file
from kws_experiments.export.choice import checked_choice
from kws_experiments.runs.folder import RunFolder, write_text

if TYPE_CHECKING:
    from kws_data.pipeline import ClipSource

log = logging.getLogger(__name__)

ORIGINAL = "model.keras"
CALIBRATION_CLIPS = 300
_INT8_LOSS = 0.01  # of accuracy, beyond which the user is warned
_HEADERS = ("none", "int8")  # TensorFlow Lite Micro runs no hybrid operators


def export_run(
    run: Path, *, format: str, quantize: str = "none", clip_ms: float | None = None, check: bool = True
) -> tuple[Artifact, Path]:
    """Write `RUN/exports/<format>-<quantize>/`, whole or not at all; an older one is replaced.

    Args:
        run: the folder of a finished run.
        format: saved_model, tflite or onnx.
        quantize: none; dynamic or float16 weights; or int8, everything. Not every format has all.
        clip_ms: the length of a clip, for a run that keeps its clips' lengths.
        check: try the exported files on the test split, beside the original.

    Returns:
        what export.json says, and the folder.

    Raises:
        KwsError: the choice makes no sense, the run isn't finished or damaged, its data are gone (where they are
            needed), or the conversion failed.
    """
    folder = RunFolder(run)
    clip_samples = checked_choice(folder, format, quantize, clip_ms)
    experiment = Experiment(folder.read_config())
    experiment.start_tensorflow(intra_op=1, inter_op=1)  # latency is measured on one thread
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")  # and for a processor

    from kws_experiments.export import check as checks
    from kws_experiments.export.convert import convert_in_child

    source = calibration = None
    if check or quantize == "int8":
        source = run_clips(folder, experiment, clip_samples)
    if quantize == "int8":
        assert source is not None
        assert clip_samples is not None
        calibration = checks.calibration_clips(source, CALIBRATION_CLIPS, experiment.data_seed, clip_samples)
    out = folder.exports / f"{format}-{quantize}"
    try:
        with lock_for(out, timeout_s=0), folder.scratch() as scratch:
            remove_leftovers(out)
            with replace_dir(out) as temporary:
                converted = convert_in_child(
                    run, temporary, scratch, format=format, quantize=quantize, clip_samples=clip_samples,
                    calibration=calibration,
                )  # fmt: skip
                artifact = described(folder, experiment, clip_samples, format, quantize, converted, temporary)
                if check:
                    assert source is not None
                    artifact = _checked(artifact, temporary, run, source, experiment.false_accept_rate)
                _write_headers(artifact, temporary)
                artifact.write(temporary)
    except Timeout as error:
        raise KwsError(f"'{out}': another process is writing this export") from error
    _warn(artifact)
    return artifact, out


def run_clips(folder: RunFolder, experiment: Experiment, clip_samples: int | None) -> ClipSource:
    """The run's own clips, prepared as it prepared them, of the length that the export takes."""
    from kws_experiments.experiment.data import prepare_data

    try:
        data = prepare_data(experiment)
    except KwsError as error:
        raise KwsError(f"{error} (the run's clips are needed to check the export and for int8; --no-check)") from error
    if data.labels != folder.read_labels():
        raise KwsError(f"'{folder.labels}' names other labels than the run's data: {', '.join(data.labels)}")
    record = folder.read_record() or {}
    if data.fingerprint != record.get("data_fingerprint"):
        log.warning("the data changed since the run was trained: the results below are of the clips that are there now")
    silence_samples = min(experiment.nominal_samples, clip_samples or experiment.nominal_samples)
    return experiment.clip_source(
        data.corpus, data.examples, clip_samples=clip_samples, silence_samples=silence_samples
    )


def described(
    folder: RunFolder, experiment: Experiment, clip_samples: int | None, format: str, quantize: str,
    converted: dict[str, Any], out: Path,
) -> Artifact:  # fmt: skip
    """What the conversion made, before it is checked."""
    record = folder.read_record() or {}
    files = []
    for fields in converted["files"]:
        size, sha256 = content_hash(out / fields["file"])
        files.append(model_file(fields | {"bytes": size, "sha256": sha256}))
    return Artifact(
        format=format,
        quantize=quantize,
        run={"name": experiment.name} | {key: record.get(key) for key in ("fingerprint", "data_fingerprint")},
        labels=folder.read_labels(),
        sample_rate=experiment.sample_rate,
        clip_samples=clip_samples,
        front_end=converted["front_end"],
        thresholds=folder.read_thresholds(),
        thresholds_from="the original's scores of the validation clips",
        data_licence=record.get("data_licence"),
        data_citation=record.get("data_citation"),
        versions=converted["versions"],
        files=files,
        notes=converted["notes"],
        requires=converted.get("requires"),
    )


def _checked(artifact: Artifact, out: Path, run: Path, source: ClipSource, rate: float) -> Artifact:
    """The artifact with each file's figures; quantized scores get thresholds of their own."""
    from kws_data.storage.atomic import replace_file
    from kws_experiments.evaluation.thresholds import keyword_thresholds
    from kws_experiments.export import check
    from kws_experiments.export.artifact import load_export, load_run

    split = TESTING if len(source.ids(TESTING)) else VALIDATION
    clips = check.Clips.of(source, split)
    original, latency = check.measure(load_run(run, artifact.clip_samples), clips, ORIGINAL)
    whole = {"split": split, "clips": len(clips.ids)}
    own = {"accuracy": float((original.argmax(axis=1) == clips.labels).mean()), "latency_ms": latency}
    own["bytes"] = content_hash(RunFolder(run).model)[0]
    scores, files = {ORIGINAL: original}, []
    for file in artifact.files:
        scorer = load_export(out, artifact, file)
        scores[file.file], latency = check.measure(scorer, clips, file.file)
        result = whole | check.compared(original, scores[file.file], clips.labels)
        files.append(dataclasses.replace(file, check=result | {"latency_ms": latency, "original": own}))
    with replace_file(out / "predictions.parquet") as temporary:
        check.clip_by_clip(clips, artifact.labels, scores).to_parquet(temporary, index=False)
    artifact = dataclasses.replace(artifact, files=files)
    if artifact.quantize == "none":
        return artifact
    validation = check.Clips.of(source, VALIDATION)
    found, _ = check.measure(load_export(out, artifact, artifact.files[0]), validation, "thresholds")
    return dataclasses.replace(
        artifact,
        thresholds=keyword_thresholds(found, validation.labels, artifact.labels, rate),
        thresholds_from=f"the scores of {artifact.files[0].file} on the validation clips",
    )


def _write_headers(artifact: Artifact, out: Path) -> None:
    """A C header beside each model that microcontrollers can run."""
    from kws_experiments.export.c_header import c_header

    for file in artifact.files:
        if artifact.format == "tflite" and file.takes == "features" and artifact.quantize in _HEADERS:
            about = [
                f"{file.file} of run {artifact.run['name']} {artifact.run['fingerprint']}: features in, scores out.",
                "The front end's parameters are in export.json beside it.",
                f"Trained on data of licence: {artifact.data_licence or 'not stated'}",
            ]
            content = (out / file.file).read_bytes()
            text = c_header(content, file, labels=artifact.labels, thresholds=artifact.thresholds, about=about)
            write_text(out / f"{Path(file.file).stem}.h", text)


def _warn(artifact: Artifact) -> None:
    """Say what the user should know, and what is worse than it should be."""
    for note in artifact.notes:
        log.warning("%s", note)
    for file in artifact.files:
        if not file.check:
            continue
        if artifact.quantize == "none" and file.check["disagreements"]:
            log.warning(
                "%s disagrees with the original on %d of %d clips",
                file.file, file.check["disagreements"], file.check["clips"],
            )  # fmt: skip
        loss = file.check["original"]["accuracy"] - file.check["accuracy"]
        if loss > _INT8_LOSS:
            log.warning("%s loses %.1f points of accuracy", file.file, 100 * loss)
    unheard = [label for label, threshold in artifact.thresholds.items() if threshold > _highest_score(artifact)]
    if unheard:
        log.warning("no score reaches the thresholds of %s: choose thresholds of your own", ", ".join(unheard))


def _highest_score(artifact: Artifact) -> float:
    """That the files can put out: 1, or the top of an int8 output's range."""
    port = artifact.files[-1].output
    if port.scale is None or port.zero_point is None:
        return 1.0
    return (int(np.iinfo(port.dtype).max) - port.zero_point) * port.scale
