"""Made-up predictions, as Hypothesis strategies: many ties, few clips, classes without any."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from kws_experiments.evaluation.metrics import predictions_table

LABELS = ["_silence_", "_unknown_", "yes", "no"]


def table_of(logits: np.ndarray, truth: np.ndarray, speakers: list[str], levels_db: np.ndarray) -> pd.DataFrame:
    """Predictions of the clips as `evaluation.predictions_table` makes them."""
    clips = len(truth)
    examples = pd.DataFrame(
        {
            "label": truth, "path": [f"{LABELS[label]}/{place}.wav" for place, label in enumerate(truth)],
            "word": [LABELS[label] for label in truth], "speaker": speakers, "folder": "",
            "start": 0, "length": np.full(clips, 16000),
        }
    )  # fmt: skip
    return predictions_table(examples, LABELS, logits, np.arange(clips), levels_db)


@st.composite
def predicted(draw: st.DrawFn, most: int = 40) -> pd.DataFrame:
    """A table of 1 to `most` clips: of one class or several, all right, all wrong or mixed, of one speaker or more."""
    clips = draw(st.integers(1, most))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    classes = draw(st.sampled_from([[0], [2], [2, 3], [0, 1, 2, 3]]))
    truth = generator.choice(classes, clips)
    logits = generator.normal(0, draw(st.sampled_from([0.1, 3, 60])), (clips, 4))
    logits = np.round(logits, draw(st.integers(0, 8)))
    kind = draw(st.sampled_from(["mixed", "right", "wrong"]))
    if kind != "mixed":
        logits[np.arange(clips), truth] = logits.max(axis=1) + 1 if kind == "right" else logits.min(axis=1) - 1
    names = draw(st.sampled_from([["a"], ["a", ""], [""], ["a", "b"], [f"{n}" for n in range(9)]]))
    speakers = generator.choice(names, clips).tolist()
    levels = np.where(generator.random(clips) < 0.1, np.nan, generator.uniform(-90, 0, clips))
    return table_of(logits.astype(np.float32), truth, speakers, levels)
