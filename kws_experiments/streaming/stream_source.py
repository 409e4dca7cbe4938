"""Open the test clips and the noise of a run, or of a configuration, to make a stream of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kws_data.catalog import UNKNOWN
from kws_data.corpus import build_corpus
from kws_data.errors import KwsError
from kws_data.streams.source import StreamSource
from kws_experiments.config.compose import compose, instantiate
from kws_experiments.experiment.experiment import build_noise_folders
from kws_experiments.runs.folder import RunFolder


def open_source(source: Sequence[str]) -> StreamSource:
    """Catalog, split and decode the data of a run's folder, or of overrides for train.py.

    Raises:
        KwsError: `source` is neither, or no clip of the task's words is for testing.
    """
    config = _config(source)
    dataset, task = instantiate(config, "dataset"), instantiate(config, "task")
    clip_ms = 1000 if config["clip_ms"] is None else config["clip_ms"]
    corpus = build_corpus(
        dataset.locate(),
        instantiate(config, "split"),
        sample_rate=config["sample_rate"],
        clip_samples=round(clip_ms * config["sample_rate"] / 1000),
        data_seed=config["data_seed"],
        unknown_folders=task.unknown_folders,
        noise_folders=build_noise_folders(config["noise"]),
        background_noise_weight=config["noise"]["background_noise_weight"],
        speaker_pattern=dataset.speaker_pattern,
    )
    origin = {"root": str(corpus.roots[0]), "split": config["split"], "data_seed": config["data_seed"]}
    return StreamSource.of_split(corpus, set(task.labels(corpus)) - {UNKNOWN}, origin=origin)


def _config(source: Sequence[str]) -> dict[str, Any]:
    if len(source) == 1 and "=" not in source[0]:
        folder = Path(source[0]).expanduser()
        if not folder.is_dir():
            raise KwsError(f"'{source[0]}': no such folder; give a run's, or overrides such as dataset=v0.02")
        return RunFolder(folder).read_config()
    return compose(list(source))
