"""The clips that a model got wrong most confidently, kept beside an evaluation, so that a report can play them.

What is kept is what the model heard, generated silence too; so a report needs neither the data set nor TensorFlow.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kws_data.errors import KwsError
from kws_data.storage.atomic import replace_file
from kws_experiments.runs.files import open_arrays

if TYPE_CHECKING:
    from kws_data.features.base import FeatureLayer
    from kws_data.pipeline import ClipSource

FILE = "worst_clips.npz"
MOST_CLIPS = 12
MOST_BYTES = 1_000_000  # of all their samples: a page holds them in base64


@dataclass(frozen=True)
class HeardClip:
    """One clip as the model heard it.

    Attributes:
        samples: [samples] int16.
        features: [frames, bins] float32.
        sample_rate: Hz.
    """

    samples: np.ndarray
    features: np.ndarray
    sample_rate: int


def keep(folder: Path, source: ClipSource, features: FeatureLayer, split: str, wrong: pd.DataFrame) -> None:
    """Write `worst_clips.npz`: the first of `wrong`, as many as there is room for.

    Args:
        folder: of the evaluation.
        source: fills batches with samples.
        features: the model's own feature layer.
        split: that was evaluated.
        wrong: rows with `clip`, `offset` and `folder`, the most confident first.
    """
    from kws_data.audio import INT16_SCALE

    examples = source.examples[source.examples["split"] == split]
    key = ["folder", "path", "start"]
    id_of = pd.Series(examples.index, pd.MultiIndex.from_frame(examples[key])).groupby(level=key).first()
    worst = wrong.head(MOST_CLIPS)
    arrays: dict[str, np.ndarray] = {"sample_rate": np.array(source.corpus.sample_rate)}
    room = MOST_BYTES
    for place, row in enumerate(worst.itertuples()):
        ids = np.array([id_of[row.folder, row.clip, row.offset]])
        batch = source.gather(split, ids, epoch=0)
        # what the clip's fixed length cuts off is not heard; where it is padded, the padding need not be kept
        samples = batch.pcm[0, : batch.lengths[0]]
        room -= samples.nbytes
        if room < 0:
            break
        heard = features(batch.pcm.astype(np.float32) / INT16_SCALE)
        arrays |= {f"samples_{place}": samples, f"features_{place}": np.asarray(heard)[0]}
    arrays["clips"] = worst["clip"].to_numpy(str)[: sum(name.startswith("samples_") for name in arrays)]
    with replace_file(folder / FILE) as temporary:
        np.savez_compressed(temporary, **arrays)


def read(folder: Path, wrong: pd.DataFrame) -> list[HeardClip]:
    """The clips of the first rows of `wrong`; none where an evaluation of an older version kept none.

    Raises:
        KwsError: the file is damaged, or of another evaluation.
    """
    path = folder / FILE
    if not path.is_file():
        return []
    with open_arrays(path, "evaluate again") as arrays:
        names, sample_rate = arrays["clips"].tolist(), int(arrays["sample_rate"])
        clips = [
            HeardClip(arrays[f"samples_{index}"], arrays[f"features_{index}"], sample_rate)
            for index in range(len(names))
        ]
    if names != wrong["clip"].tolist()[: len(names)]:
        raise KwsError(f"'{path}' is not of the evaluation beside it; evaluate again")
    return clips
