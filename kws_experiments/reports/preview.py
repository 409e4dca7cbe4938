"""Clips before and after augmentation, as a picture and as sound (`kws data preview`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from kws_data.audio import to_int16
from kws_data.errors import KwsError
from kws_data.splits import TRAINING
from kws_data.storage.atomic import replace_dir
from kws_experiments.evaluation.worst_clips import KeptClip
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.reports.html import as_html
from kws_experiments.reports.page import Clips, Page, Section, Text
from kws_experiments.reports.pictures import Picture, draw
from kws_experiments.reports.players import Player, player

if TYPE_CHECKING:
    from kws_data.pipeline import ClipSource

PICTURE, PAGE = "preview.png", "index.html"


def write(config: dict[str, Any], out: Path, *, clips: int, epoch: int) -> None:
    """Write into `out`: `preview.png`, a WAV of each clip before and after, and `index.html`, which plays them.

    Args:
        config: resolved, as for a training.
        out: a folder that does not exist yet, or an earlier preview.
        clips: how many, from the first training example of the epoch on.
        epoch: counted from 0.

    Raises:
        KwsError: the configuration or the data are wrong, or `out` is not a preview.
    """
    if out.exists() and not (out / PAGE).is_file():
        raise KwsError(f"--out: '{out}' exists and is not a preview; give a new folder")
    experiment = Experiment(config)
    experiment.start_tensorflow()
    from kws_data.pipeline import unwrap_errors
    from kws_experiments.experiment.data import prepare_data
    from kws_experiments.plots.clips import clips as draw_clips

    data = prepare_data(experiment.check())
    labels, source = data.labels, experiment.clip_source(data.corpus, data.examples, targets=None)
    try:
        with unwrap_errors():
            before, after = _batches(experiment, source, clips, epoch)
    finally:
        experiment.augmentation.close()
    with replace_dir(out.absolute()) as folder:
        titles, players = [], []
        for index, label in enumerate(after["labels"]):
            for kind, batch, title in (
                ("before", before, labels[label]), ("after", after, f"→ {_title(after, index, labels)}")
            ):  # fmt: skip
                name, clip = f"{index:02d}_{labels[label]}_{kind}.wav", _clip(batch, index, experiment.sample_rate)
                soundfile.write(folder / name, clip.samples, clip.sample_rate)
                titles.append(title)
                players.append(player(clip, title, name))
        pairs = [np.stack([before[key], after[key]], axis=1) for key in ("inputs", "features")]
        waveforms, features = (pair.reshape(-1, *pair.shape[2:]) for pair in pairs)
        picture = draw(
            "preview", "Waveforms and features of each clip, before and after",
            lambda: draw_clips(waveforms, features, titles, experiment.sample_rate), svg=False,
        )  # fmt: skip
        (folder / PICTURE).write_bytes(picture.png)
        (folder / PAGE).write_text(as_html(_page(experiment, players, picture)), encoding="utf-8")


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
        waveforms = FrontEnd(None, augmentation)(drawn)
        features = FrontEnd(experiment.features, augmentation)(drawn)["inputs"]
        return tf.nest.map_structure(lambda tensor: tensor.numpy(), {**waveforms, "features": features})

    return batch(NO_AUGMENTATION), batch(experiment.augmentation)


def _clip(batch: dict[str, Any], index: int, sample_rate: int) -> KeptClip:
    samples = to_int16(batch["inputs"][index][: batch["lengths"][index]])
    return KeptClip(samples, batch["features"][index], sample_rate)


def _title(batch: dict[str, Any], index: int, labels: list[str]) -> str:
    label, second, weight = (batch[key][index] for key in ("labels", "second_labels", "label_weights"))
    return labels[label] if weight == 1 else f"{labels[label]} {weight:.2f} + {labels[second]} {1 - weight:.2f}"


def _page(experiment: Experiment, players: list[Player], picture: Picture) -> Page:
    stages = [*experiment.augmentation.waveform, *experiment.augmentation.features]
    title, about = "Augmentation preview", "Training clips before and after augmentation, which is the model's input."
    sections = [Section("clips", "Clips", [Clips(players)]), Section("picture", "Waveforms and features", [picture])]
    return Page(title, title, [Text(f"Stages: {', '.join(stages) or 'none'}. {about}")], sections)
