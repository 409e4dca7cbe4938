"""The test clips and the noise that a stream is made of: those of a run, or of a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kws_data.catalog import SILENCE, UNKNOWN
from kws_data.corpus import Corpus
from kws_data.errors import KwsError
from kws_data.splits import TESTING
from kws_experiments.config.compose import compose
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.runs.folder import RunFolder


@dataclass(frozen=True)
class StreamSource:
    """Test clips by the rows of `corpus.clips`.

    Attributes:
        corpus: clips and noise.
        keywords: [clips] rows of the task's words.
        unknown: [clips] rows of all other words.
        told: where they are from, as the stream's record keeps it.
    """

    corpus: Corpus
    keywords: np.ndarray
    unknown: np.ndarray
    told: dict[str, Any]


def open_source(source: Sequence[str]) -> StreamSource:
    """Catalog, split and decode the data of a run's folder, or of overrides as train.py takes them.

    Raises:
        KwsError: neither, or no clip of the task's words is for testing.
    """
    experiment = Experiment(_config(source))
    corpus = experiment.corpus()
    testing = corpus.clips[(corpus.clips["split"] == TESTING) & (corpus.clips["word"] != SILENCE)]
    wanted = testing["word"].isin(set(experiment.task.labels(corpus)) - {UNKNOWN})
    if not wanted.any():
        raise KwsError(
            f"split: no clip of the task's words in '{corpus.roots[0]}' is for testing; choose another split="
        )
    told = {"root": str(corpus.roots[0]), "split": experiment.part("split"), "data_seed": experiment.data_seed}
    return StreamSource(corpus, testing.index[wanted].to_numpy(), testing.index[~wanted].to_numpy(), told)


def _config(source: Sequence[str]) -> dict[str, Any]:
    if len(source) == 1 and "=" not in source[0]:
        folder = Path(source[0]).expanduser()
        if not folder.is_dir():
            raise KwsError(f"'{source[0]}': no such folder; give a run's, or overrides such as dataset=v0.02")
        return RunFolder(folder).read_config()
    return compose(list(source))
