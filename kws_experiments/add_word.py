"""Add a word to a run (`kws add-word`): a new run that starts from the other and is trained for a short time."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from kws_data.audio import AUDIO_SUFFIXES, AudioFile, UnreadableAudioError
from kws_data.catalog import SILENCE, UNKNOWN
from kws_data.clip_format import ClipFormat
from kws_data.errors import KwsError
from kws_data.folders import audio_files, is_litter, nfc
from kws_data.sources.datasets import Synthetic
from kws_data.sources.similar_words import similar_words
from kws_data.sources.speech_engine import SpeechEngine
from kws_data.sources.synthesis import folder_names
from kws_data.storage.atomic import replace_dir
from kws_experiments.config.command import quoted
from kws_experiments.config.compose import run_folder
from kws_experiments.console.output import say
from kws_experiments.experiment.data import Data, prepare_data
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.experiment.further import with_word
from kws_experiments.runs.code_state import file_sha256
from kws_experiments.runs.files import START_OVER, read_table
from kws_experiments.runs.finished import FinishedRun
from kws_experiments.runs.folder import RunFolder
from kws_experiments.runs.listening import Listening

log = logging.getLogger(__name__)

FEWEST = 3  # clips, without a warning
SIMILAR_WORDS, VOICES = 20, 100
SMALLER = 10  # clips of each other word, to one of the new word
WORSE = 0.005  # accuracy of other words, of which a warning tells
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class AddWordSettings:
    """How much is trained.

    Attributes:
        steps: of 100 clips.
        synthetic_clips: of the word, by the speech engine; 0: none at all.
    """

    steps: int = 1000
    synthetic_clips: int = 300


def add_word(run: Path, word: str, clips: Sequence[Path], settings: AddWordSettings) -> Path:
    """Train a run with one more word.

    Args:
        run: the folder of a finished run.
        word: the new one; of a phrase, `_` takes the place of spaces.
        clips: files and folders, of a few clips of the word; there may be none.
        settings: see AddWordSettings.

    Returns:
        the new run's folder.

    Raises:
        KwsError: `run` is no finished run or has the word already, there is neither a clip nor a speech engine.
    """
    opened = FinishedRun.open(run)
    (label,) = folder_names([nfc(word)])
    words = [name for name in opened.labels if name not in (SILENCE, UNKNOWN)]
    if label in opened.labels:
        raise KwsError(f"'{run}' has the word '{label}' already; its words are {', '.join(words)}")
    files = _usable(_files(clips), label, Experiment(opened.config).clip_form)
    word_dirs: list[Any] = [{"path": str(_kept(files, label)), "few": True}] if files else []
    try:
        word_dirs += _synthetic(label, words, settings.synthetic_clips) if settings.synthetic_clips else []
    except KwsError as error:
        if not word_dirs and not _in_data_set(opened, label):
            raise KwsError(f"no clip of '{label}' is given, and none can be made: {error}") from error
        log.warning("without synthetic clips: %s", error)
    if not word_dirs and not _in_data_set(opened, label):
        raise KwsError(f"no clip of '{label}' is given, and --synthetic-clips 0 makes none; give some")
    config = with_word(opened.config, [*words, label], word_dirs, start_from=str(run.resolve()), steps=settings.steps)
    experiment = Experiment(config)
    data = prepare_data(experiment)
    if files:
        _warn_of_few(label, data, experiment)
    path = Path(run_folder(config))
    from kws_experiments.train import train  # TensorFlow, only now

    train(config, path, data)
    return path


def _files(clips: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for path in clips:
        if path.is_dir():
            files += audio_files(path)
        elif path.is_file():
            files.append(path)
        else:
            raise KwsError(f"no such file or folder: '{path}'; give audio files, or folders of them")
    if clips and not files:
        raise KwsError(f"no audio file in {', '.join(map(str, clips))} ({', '.join(sorted(AUDIO_SUFFIXES))})")
    return files


def _usable(files: Sequence[Path], label: str, form: ClipFormat) -> dict[str, Path]:
    """The files that can be decoded, each content once, by the SHA-256 of it; the others are listed.

    Raises:
        KwsError: there is none.
    """
    found: dict[str, Path] = {}
    for path in files:
        problem = "its name is that of a hidden file" * is_litter(path.name)
        try:
            for _ in AudioFile(path, form.sample_rate, form.rules).blocks():
                pass
            digest = file_sha256(path)
            if digest in found:  # leaving one out in turn would leave the other in
                problem = f"the same as {found[digest]}"
        except UnreadableAudioError as error:
            problem = str(error)
        if problem:
            log.warning("set aside: %s: %s", path, problem)
        else:
            found[digest] = path
    if files and not found:
        raise KwsError(f"none of the {len(files)} clips of '{label}' can be used; the last: {path}: {problem}")
    return found


def _kept(files: Mapping[str, Path], label: str) -> Path:
    """Copy the clips to where the run finds them again: `runs/add_word/clips/<word>-<hash>/<word>/`."""
    names: dict[str, Path] = {}
    for number, path in enumerate(files.values()):
        name = path.name
        while name in names:
            name = f"{number}_{name}"
        names[name] = path
    digest = hashlib.sha256(b"\0".join(map(os.fsencode, [*files, *names]))).hexdigest()[:12]
    folder = Path("runs", "add_word", "clips", f"{label}-{digest}").resolve()
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with replace_dir(folder) as temporary:
            (temporary / label).mkdir()
            for name, path in names.items():
                shutil.copyfile(path, temporary / label / name)
    return folder


def _synthetic(label: str, words: Sequence[str], clips: int) -> list[dict[str, Any]]:
    """The word by the speech engine, and by the same voices the other words and some that sound like it.

    So nothing that the voices have in common tells the word from others.

    Raises:
        KwsError: there is no engine, or it can't say one of the words.
    """
    others = [*words, *similar_words(label.replace("_", " "), SIMILAR_WORDS, words, SpeechEngine())]
    found = []
    for spoken, count in (([label], clips), (others, max(1, clips // SMALLER))):
        Synthetic(spoken, count, VOICES).locate()
        found.append(
            {
                "_target_": f"{Synthetic.__module__}.{Synthetic.__qualname__}",
                "words": spoken, "clips_per_word": count, "voices": VOICES, "seed": 0,
            }
        )  # fmt: skip
    return found


def _in_data_set(run: FinishedRun, label: str) -> bool:
    """Whether the run's data set has clips of the word, which it was trained on as unknown, or not at all."""
    table = run.folder.data / "catalog_summary.csv"
    return label in read_table(table, START_OVER, ["word"], dtype=str, keep_default_na=False)["word"].tolist()


def _warn_of_few(label: str, data: Data, experiment: Experiment) -> None:
    """List the clips that can't be used; warn if few are left, or their lengths say that they hold more."""
    aside, roots = data.corpus.set_aside, data.corpus.roots
    for row in aside[[str(roots[source]).endswith(_few(experiment)) for source in aside["source"]]].itertuples():
        log.warning("set aside: %s: %s", Path(row.path).name, row.error)
    count = int((data.examples["folder"] == _few(experiment)).sum())
    if count < FEWEST:
        log.warning("%d clips of '%s' are very few: %d to 20 are better", count, label, FEWEST)


def _few(experiment: Experiment) -> str:
    return experiment.task.few_folders[-1]


def show(path: Path) -> None:
    """Print what can be expected of the new word, and what to do next."""
    found = RunFolder(path).read_new_words()
    word, values = list(found["words"].items())[-1]
    if others := found.get("others"):
        line = "the other words, on {clips} validation clips: {before:.1%} right before, {after:.1%} now"
        say(f"{line} ({{lost}} lost, {{gained}} gained)".format(**others))
        if others["before"] - others["after"] > WORSE:
            # McNemar's exact test: of clips that changed, as many are lost as gained if nothing is worse
            chance = binomtest(others["lost"], others["lost"] + others["gained"]).pvalue >= SIGNIFICANT
            log.warning("the other words lost more than half a point%s", ", which can be chance" if chance else "")
    at = f"at a threshold that {found['false_accept_rate']:.0%} of other validation clips pass"
    expected = {
        "each clip left out in turn": values.get("by_clip"),
        "each speaker left out in turn": values.get("by_speaker"),
        "synthetic voices, which says little about people"
        if values["validation_is_synthetic"]
        else "clips for validation": values["validation"],
    }
    for what, misses in expected.items():
        if misses:
            low, high = misses["miss_rate_95"]
            say(
                f"'{word}' missed {at}: {misses['missed']} of {misses['clips']} ({what}),"
                f" {misses['miss_rate']:.0%}, 95 % interval {low:.0%} to {high:.0%}"
            )
    if not values["clips"]:
        say(f"no clip of a person: how often '{word}' is missed of people is not known")
    if windows := values.get("windows"):
        say("found by mistake in {after} of {windows} windows of other speech ({before} before)".format(**windows))
    say(path)
    tune = [] if Listening.read(path).tuned else [("tune", path)]
    for command in (*tune, ("stream", path, "--microphone")):
        say(f"next: {quoted('kws', *command)}")
