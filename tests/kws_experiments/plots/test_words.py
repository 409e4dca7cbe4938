"""Words in pictures are text, whatever they look like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kws_experiments.plots import clips, evaluations
from kws_experiments.plots.style import plt, save

WORDS = [r"$\frac$", "$", "_bed", "1", "語"]


@pytest.mark.parametrize("draw", [evaluations.roc, evaluations.det])
def test_legends_name_every_keyword(draw: object) -> None:
    points = {"threshold": [1.0, 0.5], "false_accept_rate": [0.0, 1.0], "false_reject_rate": [1.0, 0.0]}
    curves = pd.concat(
        [pd.DataFrame(points | {"keyword": word, "true_positive_rate": [0.0, 1.0]}) for word in WORDS[:4]]
    )
    figure = draw(curves, dict.fromkeys(WORDS[:4], 0.25))  # type: ignore[operator]
    (legend,) = figure.legends
    assert sorted(text.get_text() for text in legend.get_texts()) == sorted(f"25.0 %: {word}" for word in WORDS[:4])
    plt.close(figure)


def test_words_are_no_formulas(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (5, 1600))
    catalog = pd.DataFrame({"word": WORDS, "split": "training", "num_samples": 1600, "sample_rate": 16000})
    for number, figure in enumerate(
        [
            clips.clips(noise, noise.reshape(5, 40, 40), WORDS, 16000),
            clips.labelled_clip(WORDS[0], noise[0], [(word, 0.1) for word in WORDS], 16000),
            clips.dataset(catalog),
        ]
    ):
        axes = figure.axes
        save(figure, tmp_path / f"{number}.png")  # a formula that is none would raise
        texts = [
            text.get_text() for axis in axes for text in [axis.title, *axis.get_xticklabels(), *axis.get_yticklabels()]
        ]
        assert set(WORDS) <= set(texts)
        assert not any("mathdefault" in text for text in texts)
