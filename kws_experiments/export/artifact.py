"""Read a trained run in whatever format it is: its own folder, or one of its exports."""

from __future__ import annotations

from pathlib import Path

from kws_data.errors import KwsError
from kws_experiments.export.scorer import Facts, KerasScorer, Scorer
from kws_experiments.folder import RunFolder


def load_scorer(path: Path) -> Scorer:
    """What scores waveforms by the model at `path`.

    Args:
        path: the folder of a finished run, the folder of one of its exports, or a model file in such a folder.

    Raises:
        KwsError: there is none of these, or it is damaged.
    """
    path = path.expanduser()
    if not path.exists():
        raise KwsError(f"'{path}': no such folder; give the folder of a finished run or of an export")
    return _load_run(path)


def run_facts(run: Path) -> Facts:
    """What goes with a run's model.

    Raises:
        KwsError: `run` is no folder of a finished run.
    """
    folder = RunFolder(run)
    config = folder.read_config()
    clip_ms, sample_rate = config["clip_ms"], config["sample_rate"]
    clip_samples = None if clip_ms is None else round(clip_ms * sample_rate / 1000)
    return Facts(folder.read_labels(), sample_rate, clip_samples, folder.read_thresholds())


def _load_run(run: Path) -> Scorer:
    from kws_experiments.saved_model import load_model

    facts = run_facts(run)
    model = load_model(run)
    if model.output_shape[-1] != len(facts.labels):
        raise KwsError(
            f"'{RunFolder(run).labels}' names {len(facts.labels)} labels, but the model beside it has "
            f"{model.output_shape[-1]} outputs"
        )
    return KerasScorer(model, facts)
