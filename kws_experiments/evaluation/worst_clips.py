"""The most confidently wrong clips, kept beside an evaluation, so that a report can play them.

The file holds the model's input, generated silence too, so that a report needs neither the data set nor TensorFlow.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
class KeptClip:
    """One clip as the model's input.

    Attributes:
        samples: [samples] int16.
        features: [frames, bins] float32.
        sample_rate: Hz.
    """

    samples: np.ndarray
    features: np.ndarray
    sample_rate: int


def keep(folder: Path, source: ClipSource, features: FeatureLayer, split: str, wrong: pd.DataFrame) -> None:
    """Write `worst_clips.npz`: the first of `wrong`, as many as MOST_CLIPS and MOST_BYTES allow.

    Args:
        folder: of the evaluation.
        source: fills batches with samples.
        features: the model's own feature layer.
        split: the one that was evaluated.
        wrong: rows with `clip`, `offset` and `folder`, the most confident first.
    """
    from kws_data.audio import INT16_SCALE

    examples = source.examples[source.examples["split"] == split]
    key = ["folder", "path", "start"]
    id_of = pd.Series(examples.index, pd.MultiIndex.from_frame(examples[key])).groupby(level=key).first()
    worst = wrong.head(MOST_CLIPS)
    arrays: dict[str, Any] = {"sample_rate": np.array(source.corpus.sample_rate)}
    room = MOST_BYTES
    kept = 0
    for row in worst.itertuples():
        ids = np.array([id_of[row.folder, row.clip, row.offset]])
        batch = source.gather(split, ids, epoch=0)
        # the part that the clip's fixed length cuts off is not input; padding need not be kept
        samples = batch.pcm[0, : batch.lengths[0]]
        room -= samples.nbytes
        if room < 0:
            break
        computed = features(batch.pcm.astype(np.float32) / INT16_SCALE)
        arrays |= {f"samples_{kept}": samples, f"features_{kept}": np.asarray(computed)[0]}
        kept += 1
    arrays["clips"] = worst["clip"].to_numpy(str)[:kept]
    with replace_file(folder / FILE) as temporary:
        np.savez_compressed(temporary, **arrays)


def read(folder: Path, wrong: pd.DataFrame) -> list[KeptClip]:
    """The clips of the first rows of `wrong`; [] if the evaluation is of an older version, which kept no clips.

    Raises:
        KwsError: the file is damaged, or of another evaluation.
    """
    path = folder / FILE
    if not path.is_file():
        return []
    with open_arrays(path, "evaluate again") as arrays:
        names, sample_rate = arrays["clips"].tolist(), int(arrays["sample_rate"])
        clips = [
            KeptClip(arrays[f"samples_{index}"], arrays[f"features_{index}"], sample_rate)
            for index in range(len(names))
        ]
    if names != wrong["clip"].tolist()[: len(names)]:
        raise KwsError(f"'{path}' is not of the evaluation beside it; evaluate again")
    return clips
