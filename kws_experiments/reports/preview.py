"""What augmentation does to clips, to look at and to listen to (`kws data preview`)."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from kws_data.audio import to_int16
from kws_data.errors import KwsError
from kws_data.splits import TRAINING
from kws_data.storage.atomic import replace_dir
from kws_experiments.experiment.experiment import Experiment

if TYPE_CHECKING:
    from kws_data.pipeline import ClipSource

PICTURE, PAGE = "preview.png", "index.html"


def write(config: dict[str, Any], out: Path, *, clips: int, epoch: int) -> None:
    """Write `preview.png`, a WAV of each clip before and after, and `index.html`, which plays them, into `out`.

    Args:
        config: resolved, as for a training; its first `clips` training examples of `epoch` are shown.
        out: a folder that does not exist yet, or an older preview.
        clips: how many.
        epoch: counted from 0.

    Raises:
        KwsError: the configuration or the data are not right, or `out` holds something else.
    """
    if out.exists() and not (out / PAGE).is_file():
        raise KwsError(f"--out: '{out}' exists and is no older preview; give a new folder")
    experiment = Experiment(config)
    experiment.start_tensorflow()
    from kws_data.pipeline import told_plainly
    from kws_experiments.experiment.data import prepare_data
    from kws_experiments.plots import figures

    data = prepare_data(experiment.check())
    labels, source = data.labels, experiment.clip_source(data.corpus, data.examples)
    try:
        with told_plainly():
            before, after = _batches(experiment, source, clips, epoch)
    finally:
        experiment.augmentation.close()
    titles = [_title(after, place, labels) for place in range(len(after["labels"]))]
    with replace_dir(out.absolute()) as folder:
        names = [f"{place:02d}_{labels[label]}" for place, label in enumerate(after["labels"])]
        for name, old, new, length in zip(names, before["inputs"], after["inputs"], after["lengths"], strict=True):
            soundfile.write(folder / f"{name}_before.wav", to_int16(old[:length]), experiment.sample_rate)
            soundfile.write(folder / f"{name}_after.wav", to_int16(new[:length]), experiment.sample_rate)
        pairs = [np.stack([before[key], after[key]], axis=1) for key in ("inputs", "features")]
        waveforms, features = (pair.reshape(-1, *pair.shape[2:]) for pair in pairs)
        both = [text for title in titles for text in (title.split(" ")[0], f"→ {title}")]
        figures.save(figures.clips(waveforms, features, both, experiment.sample_rate), folder / PICTURE)
        (folder / PAGE).write_text(_page(experiment, names, titles), encoding="utf-8")


def _batches(
    experiment: Experiment, source: ClipSource, clips: int, epoch: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same clips without and with augmentation: `inputs` (waveforms), `features`, labels and lengths."""
    import tensorflow as tf

    from kws_data.augment.augmentation import Augmentation
    from kws_data.front_end import FrontEnd
    from kws_data.pipeline import NO_AUGMENTATION, host_batches, training_plan

    plan = training_plan(source, clips)
    step = epoch * plan.steps_per_epoch

    def batch(augmentation: Augmentation) -> dict[str, Any]:
        stream = host_batches(
            source, TRAINING, plan, augmentation=augmentation, start_step=step, steps=step + 1, threads=1
        )
        drawn = next(iter(stream))
        heard = FrontEnd(None, augmentation)(drawn)
        seen = FrontEnd(experiment.features, augmentation)(drawn)
        return tf.nest.map_structure(lambda tensor: tensor.numpy(), {**heard, "features": seen["inputs"]})

    return batch(NO_AUGMENTATION), batch(experiment.augmentation)


def _title(batch: dict[str, Any], place: int, labels: list[str]) -> str:
    label, second, weight = (batch[key][place] for key in ("labels", "second_labels", "label_weights"))
    return labels[label] if weight == 1 else f"{labels[label]} {weight:.2f} + {labels[second]} {1 - weight:.2f}"


def _page(experiment: Experiment, names: list[str], titles: list[str]) -> str:
    def player(name: str) -> str:
        return f'<audio controls preload="none" src="{html.escape(name)}.wav"></audio>'

    rows = "\n".join(
        f"<tr><td>{html.escape(title)}</td><td>{player(f'{name}_before')}</td><td>{player(f'{name}_after')}</td></tr>"
        for name, title in zip(names, titles, strict=True)
    )
    stages = [*experiment.augmentation.waveform, *experiment.augmentation.features]
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Augmentation preview</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }}
td, th {{ padding: 0.2rem 1rem 0.2rem 0; text-align: left; }}
img {{ max-width: 100%; background: white; }}
</style>
<h1>Augmentation preview</h1>
<p>Stages: {html.escape(", ".join(stages) or "none")}. Before, and as training hears it.</p>
<table>
<tr><th>label</th><th>before</th><th>after</th></tr>
{rows}
</table>
<img src="{PICTURE}" alt="Waveforms and features of each clip, before and after">
</html>
"""
