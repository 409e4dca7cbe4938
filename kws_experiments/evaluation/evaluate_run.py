"""Evaluate a trained run again (`kws evaluate`): on its own splits, a canonical test set, or any folder of clips."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from kws_data.errors import KwsError
from kws_data.splits import SPLITS
from kws_data.storage.atomic import lock_for, replace_dir
from kws_experiments.evaluation import worst_clips
from kws_experiments.evaluation.clips import Clips, find_dataset, other_clips, own_clips
from kws_experiments.evaluation.files import EvaluationFiles
from kws_experiments.evaluation.metrics import evaluate, with_interval
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.runs.finished import FinishedRun

if TYPE_CHECKING:
    from kws_experiments.evaluation.predict import Predictor


def evaluate_run(
    run: Path,
    dataset: str | None = None,
    *,
    split: str | None = None,
    snrs_db: Sequence[float] | None = None,
    out: Path | None = None,
) -> tuple[dict[str, Any], Path]:
    """Predict clips with a finished run's model, and write metrics and tables below the run's folder.

    Args:
        run: its folder.
        dataset: a folder of word folders, or the name of a downloaded test set; None means the run's own data. A folder
            with the name of one of the run's labels holds clips of it (also `_silence_` and `_unknown_`); all other
            words are unknown words, or left out if the run has no unknown class.
        split: of the run's own data; None means testing, or validation if the run has no test clips.
        snrs_db: the ratios of speech to noise to evaluate too; None means the configuration's `evaluation.snr_db`. The
            noise is from the data set's own recordings (the last tenth, which is never used for training), else from
            the run's.
        out: a new folder to write to; None means one below `RUN/evaluations/`, which replaces an earlier evaluation.

    Returns:
        the metrics, as of `evaluation`, and the folder with them.

    Raises:
        KwsError: `run` is not a finished run, its own data changed, or `dataset` has no clip of its labels.
    """
    opened = FinishedRun.open(run)
    experiment = Experiment(opened.config)
    _check(dataset, split, out)
    root = None if dataset is None else find_dataset(dataset)
    experiment.start_tensorflow()
    snrs_db = experiment.snrs_db if snrs_db is None else snrs_db
    predictor, clips = _open(opened, experiment, root, dataset, split=split, noise=bool(snrs_db))
    result, tables = _evaluate(opened, predictor, clips, snrs_db)

    def write(folder: Path) -> None:
        """Write all files or none: on a full disk an earlier evaluation stays as it was."""
        from kws_experiments.plots import evaluations

        with replace_dir(folder) as temporary:
            EvaluationFiles(temporary).write(result, tables)
            worst_clips.keep(temporary, clips.source, predictor.features, clips.split, tables["confidently_wrong"])
            evaluations.draw(temporary / "figures", result, tables)

    if out is not None:
        write(out)
        return result, out
    folder = _folder_for(opened, clips)
    with lock_for(folder):
        write(folder)
    return result, folder


def _check(dataset: str | None, split: str | None, out: Path | None) -> None:
    if dataset is not None and split is not None:
        raise KwsError("--split is of the run's own data: all clips of --dataset are evaluated; leave one of them out")
    if split not in (None, *SPLITS):
        raise KwsError(f"--split must be one of {', '.join(SPLITS)}, got '{split}'")
    if out is not None and (out.is_file() or any(out.glob("*"))):
        raise KwsError(f"--out: '{out}' is not empty; give a new folder")


def _open(
    run: FinishedRun, experiment: Experiment, root: Path | None, dataset: str | None, *, split: str | None, noise: bool
) -> tuple[Predictor, Clips]:
    """The run's model, and the clips to evaluate."""
    from kws_experiments.evaluation.predict import Predictor
    from kws_experiments.runs.saved_model import features_of, load_model, network_of

    model = load_model(run.folder.path)
    network = network_of(model)
    if network.output_shape[-1] != len(run.labels):
        raise KwsError(
            f"'{run.folder.labels}' names {len(run.labels)} labels, and the model has {network.output_shape[-1]}"
        )
    clips = (
        own_clips(run, experiment, split)
        if root is None
        else other_clips(run, experiment, root, str(dataset), noise=noise)
    )
    return Predictor(clips.source, features_of(model), network, run.labels, experiment.pipeline_threads), clips


def _evaluate(
    run: FinishedRun, predictor: Predictor, clips: Clips, snrs_db: Sequence[float]
) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """The metrics and the tables."""
    from kws_data.pipeline import unwrap_errors
    from kws_experiments.evaluation.evaluate_network import data_facts

    with unwrap_errors():
        metrics, tables = evaluate(predictor.predictions(clips.split), run.labels, run.listening.thresholds)
        noise = predictor.in_noise(clips.noise_splits, snrs_db)
    if clips.heard_in_training is not None:  # all clips of another data set, in one split
        noise["split"] = clips.name
    result = {
        "split": clips.name,
        "parameters": predictor.network.count_params(),
        **metrics,
        "accuracy_at_snr": with_interval(noise),
        **data_facts(clips.source.corpus, clips.licence, clips.citation),
    }
    if clips.heard_in_training is not None:
        result["heard_in_training"] = clips.heard_in_training
    return result, {**tables, "noise": noise}


def _folder_for(run: FinishedRun, clips: Clips) -> Path:
    """The folder below `evaluations/` with the clips' name; a longer name if it is taken by clips of another root."""
    folder = run.folder.evaluations / re.sub(r"[^\w.-]", "_", clips.folder)
    root = str(clips.source.corpus.roots[0])
    try:
        taken = EvaluationFiles(folder).read_metrics()["audio"]["roots"][""] != root
    except (KwsError, KeyError):  # no evaluation yet, or a damaged one
        taken = False
    return folder.with_name(f"{folder.name}-{hashlib.sha256(root.encode()).hexdigest()[:8]}") if taken else folder
