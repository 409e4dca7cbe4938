"""Open the test clips and the noise of a run, or of a configuration, to make a stream of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kws_data.catalog import UNKNOWN
from kws_data.streams.source import StreamSource
from kws_experiments.config.compose import compose
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.runs.files import GIVE_RUN
from kws_experiments.runs.folder import RunFolder, no_run


def open_source(source: Sequence[str]) -> StreamSource:
    """Catalog, split and decode the data of a run's folder, or of overrides for train.py.

    Raises:
        KwsError: `source` is neither, or no clip of the task's words is for testing.
    """
    experiment = Experiment(_config(source))
    corpus = experiment.corpus()
    origin = {"root": str(corpus.roots[0]), "split": experiment.part("split"), "data_seed": experiment.data_seed}
    return StreamSource.of_split(corpus, set(experiment.task.labels(corpus)) - {UNKNOWN}, origin=origin)


def _config(source: Sequence[str]) -> dict[str, Any]:
    if len(source) == 1 and "=" not in source[0]:
        folder = Path(source[0])
        if not folder.is_dir():
            raise no_run(source[0], f"{GIVE_RUN}, or overrides such as dataset=v0.02")
        return RunFolder(folder).read_config()
    return compose(list(source))
