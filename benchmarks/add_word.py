"""What `kws add-word` gives from few clips: misses and false accepts on speakers that the clips are not of.

    python -m benchmarks.add_word RUN… DATA [--words yes,stop,left] [--steps 1000] [--draws 8] [--split validation]

Each RUN was trained without these words, several with different seeds; DATA is a data set with list files that has
them, such as the one that RUN was trained on with the words' folders added. Each word is added by `kws add-word`
without clips, in the current folder (below `runs/`, so that a second call trains nothing). The network does not depend
on the few clips: only the word's output does, which is then fitted to sets of clips as the command does it, drawn from
the training split: 3 and 5 of one speaker, and 10 of as many speakers.

Judged on a split of DATA: misses on the word's clips, all of other speakers, at the threshold that the run sets on its
own validation clips; false accepts on the other new words, which set no threshold; and the accuracy of the other words.
Beside them stand misses on the other clips of the one speaker, and what leaving out each clip in turn promised. A
second table has the accuracy of the other words, before and after, on clips as they are and on variants of each,
augmented as for training, with the interval of the difference (Student's t, over the clips, of each the mean over the
runs).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import pandas as pd
import typer
from scipy.stats import ttest_1samp

from benchmarks.options import chosen, machine, run, table
from kws_data.draws import text_order
from kws_data.splits import SPLITS, TRAINING, VALIDATION
from kws_experiments.add_word import AddWordSettings, add_word
from kws_experiments.console.tables import Console
from kws_experiments.evaluation.thresholds import lowest_threshold
from kws_experiments.experiment.data import prepare_data
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.runs.finished import FinishedRun
from kws_experiments.runs.saved_model import features_of, load_model, network_of

if TYPE_CHECKING:
    from kws_data.pipeline import ClipSource
    from kws_experiments.training.new_words import Head, Material

SETS = {"3 of one speaker": (3, True), "5 of one speaker": (5, True), "10 of ten speakers": (10, False)}
VARIANTS = 8  # of each clip, in which other words are judged
MOST_FROM = 60  # clips of a word, by speakers with many, and as many of others, that sets are drawn from


@dataclass(frozen=True)
class Judges:
    """Inputs of the last layer.

    Attributes:
        validation: of the run's own clips for validation without the new word, which set thresholds.
        own: of its own clips of the split that judges, without the new word.
        truth: labels of these.
        word: of the new word.
        foreign: of the other new words.
    """

    validation: np.ndarray
    own: np.ndarray
    truth: np.ndarray
    word: np.ndarray
    foreign: np.ndarray


@dataclass(frozen=True)
class Added:
    """What was measured of a word and a run.

    Attributes:
        sets: a row per set of clips, by kind.
        others: of the run's own clips, as they are and in variants: a row per clip, how often it is right `before` and
            `after`, there without few clips.
    """

    sets: dict[str, pd.DataFrame]
    others: dict[str, pd.DataFrame]


def main(
    bases: Annotated[list[Path], typer.Argument(help="folders of runs trained without the words", metavar="RUN…")],
    data: Annotated[Path, typer.Argument(help="a folder of clips with them, and with list files")],
    words: Annotated[str, typer.Option(help="with commas between")] = "yes,stop,left",
    steps: Annotated[int, typer.Option(min=10, help="of each training")] = 1000,
    draws: Annotated[int, typer.Option(min=1, help="sets of clips of each kind, and run")] = 8,
    split: Annotated[str, typer.Option(help="which judges")] = VALIDATION,
) -> None:
    """What kws add-word gives from few clips, on speakers that the clips are not of."""
    (split,) = chosen("--split", split, SPLITS)
    names = words.split(",")
    found = {word: [measure(base, data, word, names, steps, draws, split) for base in bases] for word in names}
    headings = ["missed", "promised", "missed of the same speaker", "false accepts", "other words"]
    title = f"{split}: {draws} sets of each kind and run, {len(bases)} runs; mean (lowest to highest)"
    printed = table(title, ["word", "clips"], headings)
    for word, runs in found.items():
        for kind in runs[0].sets:
            rows = pd.concat([added.sets[kind] for added in runs])
            printed.add_row(word, kind, *(_spread(rows[heading]) for heading in headings))
    Console().print(printed)
    headings = ["clips", "before, by run", "after, by run", "difference, points", "95 % interval"]
    printed = table("the other words right, without few clips", ["clips are", "word"], headings)
    for kind in found[names[0]][0].others:
        changes = {word: [added.others[kind] for added in runs] for word, runs in found.items()}
        for word in names:
            printed.add_row(kind, word, *_difference([changes[word]]))
        printed.add_row(kind, "mean", *_difference(list(changes.values())))
    Console().print(printed)
    print(machine())


def _difference(words: Sequence[Sequence[pd.DataFrame]]) -> Iterator[str]:
    before = 100 * np.array([[clips["before"] for clips in runs] for runs in words])  # [words, runs, clips]
    after = 100 * np.array([[clips["after"] for clips in runs] for runs in words])
    yield str(before.shape[2])
    for right in (before, after):
        yield " ".join(f"{mean:.1f}" for mean in right.mean(axis=(0, 2)))
    by_clip = (after - before).mean(axis=(0, 1))
    low, high = ttest_1samp(by_clip, 0).confidence_interval()
    yield f"{by_clip.mean():+.2f}"
    yield f"{low:+.1f} to {high:+.1f}"


def measure(base: Path, data: Path, word: str, words: list[str], steps: int, draws: int, split: str) -> Added:
    """What adding one word to one run gives."""
    path = add_word(base, word, [], AddWordSettings(steps))
    from kws_experiments.training.new_words import Head, HeadInputs

    opened, network = FinishedRun.open(path), network_of(load_model(path))
    index = opened.labels.index(word)
    with tempfile.TemporaryDirectory(prefix="kws-add-word-") as temporary:
        config = _changed(opened.config, "dataset", path=str(data))
        everything = Experiment(_changed(config, "task", unknown_percentage=1000))  # all clips of other words
        whole = prepare_data(everything)
        clips = whole.corpus.clips
        pool = _pool(clips[(clips["word"] == word) & (clips["split"] == TRAINING)])
        for clip in pool["path"]:
            link = Path(temporary, "few", clip)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(whole.corpus.roots[0] / clip)
        few_dirs = [*opened.config["task"]["word_dirs"], {"path": str(Path(temporary, "few")), "few": True}]
        few = Experiment(_changed(opened.config, "task", word_dirs=few_dirs))
        own = prepare_data(few)
        source = few.clip_source(own.corpus, own.examples)
        inputs = HeadInputs(few, source, network)
        held_out, labels, _ = inputs.of_split(VALIDATION)
        held_out = held_out[labels != index]
        own_inputs, truth, _ = inputs.of_split(split)
        kept = dict(_other_words(base, path, few, source, split, source.labels == index))
        material = inputs.material(word, np.flatnonzero(source.apart))
        source = everything.clip_source(whole.corpus, whole.examples)
        others, labels, ids = HeadInputs(everything, source, network).of_split(split)
        foreign = source.examples["word"].isin(set(words) - {word}).to_numpy()[ids]
        judges = Judges(
            held_out, own_inputs[truth != index], truth[truth != index], others[labels == index], others[foreign]
        )
    head = Head(network)
    rows = {"none": [_judged(head, index, head.rows[index], judges)]}
    for kind, (size, of_one) in SETS.items():
        rows[kind] = [_of_set(head, index, material, clips, judges) for clips in _sets(material, size, of_one, draws)]
    return Added({kind: pd.DataFrame(found) for kind, found in rows.items()}, kept)


def _other_words(
    base: Path, path: Path, experiment: Experiment, source: ClipSource, split: str, new: np.ndarray
) -> Iterator[tuple[str, pd.DataFrame]]:
    """How often the clips of a split are right in two runs, the second with a word more; `new` [examples] has its."""
    from kws_data.augment.augmentation import Augmentation
    from kws_data.batches import BatchPlan
    from kws_data.pipeline import EVALUATION_BATCH, batches
    from kws_experiments.training.new_words import without_other_labels

    runs = [(np.array(FinishedRun.open(folder).labels), load_model(folder)) for folder in (base, path)]
    labels, features = runs[1][0], features_of(runs[1][1])
    ids = source.ids(split)
    plan = BatchPlan(ids[~new[ids]], EVALUATION_BATCH, seed=source.seed)
    kinds = {"as they are": (Augmentation(), 1), "augmented": (without_other_labels(experiment.augmentation), VARIANTS)}
    for kind, (augmentation, epochs) in kinds.items():
        stream = batches(
            source, split, plan, augmentation=augmentation, features=features,
            steps=epochs * plan.steps_per_epoch, threads=1,
        )  # fmt: skip
        rows = []
        for batch in stream:
            logits = [network_of(model)(batch["inputs"], training=False).numpy() for _, model in runs]
            named = [names[values.argmax(axis=1)] for (names, _), values in zip(runs, logits, strict=True)]
            right = [names == labels[batch["labels"].numpy()] for names in named]
            rows.append(pd.DataFrame({"id": batch["ids"].numpy(), "before": right[0], "after": right[1]}))
        yield kind, pd.concat(rows).groupby("id").mean()


def _changed(config: dict, key: str, **values: object) -> dict:
    return config | {key: config[key] | values}


def _pool(clips: pd.DataFrame) -> pd.DataFrame:
    """Clips to draw from: all of the speakers with the most, and one of others."""
    counts = clips.groupby("speaker")["path"].transform("size")
    many = clips[counts >= 5].sort_values(["speaker", "path"])
    return pd.concat([many.head(MOST_FROM), clips[counts < 5].drop_duplicates("speaker").head(MOST_FROM)])


def _sets(material: Material, size: int, of_one: bool, draws: int) -> Iterator[np.ndarray]:
    """[clips] indices of the clips of each set."""
    speakers = pd.Series(material.speakers)
    for draw in range(draws):
        drawn = text_order([f"{name}" for name in speakers.unique()], draw, "speakers")
        names = speakers.unique()[drawn]
        if of_one:
            enough = [name for name in names if (speakers == name).sum() > size] or [
                name for name in names if (speakers == name).sum() == size
            ]
            clips = speakers.index[speakers == enough[0]].to_numpy()
            yield clips[text_order([str(clip) for clip in clips], draw, "clips")[:size]]
        else:
            yield np.array([speakers.index[speakers == name][0] for name in names[:size]])


def _of_set(head: Head, index: int, material: Material, chosen: np.ndarray, judges: Judges) -> dict[str, float]:
    from kws_experiments.training.new_words import RowFit, expected

    speakers = material.speakers[chosen]
    part = replace(material, plain=material.plain[chosen], variants=material.variants[chosen], speakers=speakers)
    fit = RowFit(head, index, part)
    row = fit.row(np.ones(len(chosen), bool))
    assert row is not None
    promised = expected(fit, part, judges.validation, 0.01)["by_clip"]["miss_rate"]
    result = _judged(head, index, row, judges) | {"promised": promised}
    rest = np.setdiff1d(np.flatnonzero(np.isin(material.speakers, speakers)), chosen)
    if len(set(speakers)) == 1 and len(rest):
        threshold = lowest_threshold(fit.scores(row, judges.validation), 0.01)
        result["missed of the same speaker"] = float((fit.scores(row, material.plain[rest]) < threshold).mean())
    return result


def _judged(head: Head, index: int, row: np.ndarray, judges: Judges) -> dict[str, float]:
    threshold = lowest_threshold(head.scores_with(index, row, judges.validation), 0.01)
    foreign = head.scores_with(index, row, judges.foreign) >= threshold
    own = head.logits(judges.own)
    own[:, index] = head.extended(judges.own) @ row
    return {
        "missed": float((head.scores_with(index, row, judges.word) < threshold).mean()),
        "promised": np.nan,
        "missed of the same speaker": np.nan,
        "false accepts": float(foreign.mean()) if len(foreign) else np.nan,
        "other words": float((own.argmax(axis=1) == judges.truth).mean()),
    }


def _spread(values: pd.Series) -> str:
    known = values.dropna()
    if known.empty:
        return "–"
    mean = f"{known.mean():.1%}"
    return mean if known.min() == known.max() else f"{mean} ({known.min():.0%} to {known.max():.0%})"


if __name__ == "__main__":
    run(main)
