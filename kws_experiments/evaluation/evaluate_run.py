"""A trained run evaluated again (`kws evaluate`): on its own splits, a canonical test set, or any folder of clips."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kws_data.errors import KwsError
from kws_data.splits import SPLITS
from kws_data.storage.atomic import lock_for, remove_leftovers, replace_dir
from kws_experiments.evaluation import worst_clips
from kws_experiments.evaluation.clips import Clips, find_dataset, other_clips, own_clips
from kws_experiments.evaluation.files import EvaluationFiles
from kws_experiments.evaluation.metrics import evaluate, with_interval
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.runs.finished import FinishedRun


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
        dataset: a folder of word folders, or the name of a downloaded test set; None takes the run's own data. A folder
            named as one of the run's labels holds clips of it (`_silence_` and `_unknown_` as well); all other words
            are unknown ones, or left out where the run has no unknown class.
        split: of the run's own data; None is testing, or validation where the run has no test clips.
        snrs_db: evaluate in noise at these ratios too; None: at the configuration's `evaluation.snr_db`. The noise is
            of the data set's own recordings (their last tenth, which no training hears), else the run's.
        out: a new folder to write to; None is one below `RUN/evaluations/`, where an earlier evaluation is replaced.

    Returns:
        the metrics, as of `evaluation`, and the folder with them.

    Raises:
        KwsError: `run` is no finished run, its own data changed, or `dataset` has no clip of its labels.
    """
    opened = FinishedRun.open(run)
    experiment = Experiment(opened.config)
    if dataset is not None and split is not None:
        raise KwsError("--split is of the run's own data: all clips of --dataset are evaluated; leave one of them out")
    if split not in (None, *SPLITS):
        raise KwsError(f"--split must be one of {', '.join(SPLITS)}, got '{split}'")
    if out is not None and (out.is_file() or any(out.glob("*"))):
        raise KwsError(f"--out: '{out}' is not empty; give a new folder")
    root = None if dataset is None else find_dataset(dataset)
    experiment.start_tensorflow()

    from kws_data.features.base import FeatureLayer
    from kws_data.pipeline import unwrap_errors
    from kws_experiments.evaluation.evaluate_network import data_facts
    from kws_experiments.evaluation.predict import Predictor
    from kws_experiments.plots import evaluations
    from kws_experiments.runs.saved_model import load_model, network_of

    model = load_model(run)
    network = network_of(model)
    if network.output_shape[-1] != len(opened.labels):
        raise KwsError(
            f"'{opened.folder.labels}' names {len(opened.labels)} labels, and the model has {network.output_shape[-1]}"
        )
    snrs_db = experiment.snrs_db if snrs_db is None else snrs_db
    clips = own_clips(opened, split) if root is None else other_clips(opened, root, str(dataset), noise=bool(snrs_db))
    features = next(layer for layer in model.layers if isinstance(layer, FeatureLayer))
    predictor = Predictor(clips.source, features, network, opened.labels, experiment.pipeline_threads)
    with unwrap_errors():
        metrics, tables = evaluate(predictor.predictions(clips.split), opened.labels, opened.thresholds)
        noise = predictor.in_noise(clips.noise_splits, snrs_db)
    if root is not None:
        noise["split"] = clips.name
    result = {
        "split": clips.name,
        "parameters": network.count_params(),
        **metrics,
        "accuracy_at_snr": with_interval(noise),
        **data_facts(clips.source.corpus, clips.licence, clips.citation),
    }
    if clips.heard_in_training is not None:
        result["heard_in_training"] = clips.heard_in_training
    tables["noise"] = noise

    def write(folder: Path) -> None:
        """All files or none: on a full disk an earlier evaluation stays as it was."""
        with replace_dir(folder) as temporary:
            EvaluationFiles(temporary).write(result, tables)
            worst_clips.keep(temporary, clips.source, features, clips.split, tables["confidently_wrong"])
            evaluations.draw(temporary / "figures", result, tables)

    if out is not None:
        write(out)
        return result, out
    folder = _folder_for(opened, clips)
    with lock_for(folder):
        remove_leftovers(folder)
        write(folder)
    return result, folder


def _folder_for(run: FinishedRun, clips: Clips) -> Path:
    """Below `evaluations/`, by the clips' name; clips of another place with the same name have their own."""
    folder = run.folder.evaluations / re.sub(r"[^\w.-]", "_", clips.folder)
    root = str(clips.source.corpus.roots[0])
    try:
        taken = EvaluationFiles(folder).read_metrics()["audio"]["roots"][""] != root
    except (KwsError, KeyError):  # none yet, or none of any worth
        taken = False
    return folder.with_name(f"{folder.name}-{hashlib.sha256(root.encode()).hexdigest()[:8]}") if taken else folder
