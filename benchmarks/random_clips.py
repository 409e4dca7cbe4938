"""Clips of random samples, for what depends on their number and length alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from kws_data.pipeline import ClipSource

CLIPS = 1000


def random_clips(num_labels: int, rate: int) -> ClipSource:
    """CLIPS training clips of a second, with noise; the labels take turns."""
    from kws_data.corpus import Corpus
    from kws_data.noise import NoiseBank
    from kws_data.pipeline import ClipSource
    from kws_data.splits import TRAINING

    pcm = np.random.default_rng(0).integers(-8000, 8000, CLIPS * rate).astype(np.int16)
    examples = pd.DataFrame(
        {
            "split": TRAINING, "label": np.arange(CLIPS) % num_labels, "source": 0, "path": "", "word": "a",
            "speaker": "", "folder": "", "offset": np.arange(CLIPS) * rate, "length": rate, "start": 0, "content": "",
        }
    )  # fmt: skip
    corpus = Corpus(examples, examples.head(0), [pcm], [Path("random")], NoiseBank([pcm[: 60 * rate]]), rate)
    return ClipSource(
        corpus, examples, clip_samples=rate, silence_samples=rate, silence_kind="noise", data_seed=0, seed=0
    )
