"""The synthetic data set: spoken words in the layout of Speech Commands v0.01, made by text-to-speech.

`synthesize` writes `<word>/<speaker>_nohash_<n>.wav` (one second, 16-bit mono), `_background_noise_/`,
`validation_list.txt`, `testing_list.txt`, `README.md` and `LICENSE`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
from tqdm import tqdm

from kws_data.audio import write_wav
from kws_data.checks import check_whole, require
from kws_data.errors import KwsError
from kws_data.sources.speech_engine import SpeechEngine
from kws_data.sources.synthetic_noise import background_noises
from kws_data.sources.synthetic_voices import SPLIT_PERCENTAGE, Voice, draw_voices, place, random_stream, say
from kws_data.sources.words import V001_WORDS
from kws_data.splits import TESTING, VALIDATION, hash_split
from kws_data.storage.atomic import replace_dir

# Part of the name of cached data sets: increase it when the same arguments give other bytes.
VERSION = 1

BACKGROUND_NOISE_DIR = "_background_noise_"

# The engine speaks on one thread at a time; the other resamples and writes meanwhile.
_THREADS = 2
_UNSAFE = set('/\\:*?"<>|')
_LONGEST_NAME = 100  # bytes; file systems take 255

_README = """\
# Synthetic spoken words

{words} words by {voices} artificial voices, in the layout of Speech Commands: one-second WAV files
`<word>/<speaker>_nohash_<n>.wav`, background noises, and the lists of the validation and testing clips, which follow
from the speakers by the release's own file-name hash at 10 and 10 %.

Nobody was recorded: the text-to-speech engine espeak-ng {version} spoke the words (seed {seed}), and the noises are
computed. Results on these clips say that a pipeline works, not how well it does on people.

| speaker | engine's voice | pitch | words a minute | formants × |
| --- | --- | --- | --- | --- |
{table}
"""

_LICENSE = """\
These clips are synthetic: text-to-speech by espeak-ng, and computed noises. They contain no recording of a person or
place, and no part of espeak-ng, which is itself licensed under GPL-3.0. Whoever made them with this program may use
them without condition, as under CC0 1.0 (https://creativecommons.org/publicdomain/zero/1.0/).
"""


def synthesize(
    directory: Path,
    *,
    words: Sequence[str] = V001_WORDS,
    clips_per_word: int = 100,
    voices: int = 100,
    seed: int = 0,
    sample_rate: int = 16_000,
    noise_seconds: float = 60.0,
    progress: bool = True,
) -> None:
    """Write a data set of spoken `words` to `directory`, whole or not at all.

    The same arguments give the same bytes; a clip's bytes don't depend on the other words.

    Args:
        directory: absent or empty; its parents are made.
        words: the words to say; the folder of a phrase has `_` for its spaces.
        clips_per_word: the voices take turns to say each word; each word starts with another voice.
        voices: speakers; a tenth of them each, and at least one of three, are for validation and for testing.
        seed: from 0.
        sample_rate: of the files, Hz.
        noise_seconds: length of each background noise; 0 makes none.
        progress: show a bar on stderr, if that is a terminal.

    Raises:
        KwsError: a number out of range, `directory` in use, no speech engine, or a word that can't be a folder or said
            in a second.
    """
    try:
        check_whole("clips_per_word", clips_per_word, 1)
        check_whole("voices", voices, 1)
        check_whole("seed", seed, 0)
        check_whole("sample_rate", sample_rate, 4_000, 48_000)
        good_noise = noise_seconds == 0 or 1 <= noise_seconds <= 3600
        require(good_noise, "noise_seconds", "0, or from 1 to 3600", noise_seconds)
    except ValueError as error:
        raise KwsError(str(error)) from error
    folders = folder_names(words)
    directory = Path(directory).resolve()
    _check_unused(directory)
    engine = SpeechEngine()
    speakers = draw_voices(voices, seed)
    clips = [clip for folder in folders for clip in _plan(folder, clips_per_word, speakers, seed)]
    try:
        with replace_dir(directory) as root:
            for folder in [*folders, *([BACKGROUND_NOISE_DIR] if noise_seconds else [])]:
                (root / folder).mkdir()
            jobs = [_clip_job(root, clip, folders[clip[0]], engine, seed, sample_rate) for clip in clips]
            if noise_seconds:
                for name, make in background_noises(noise_seconds, sample_rate, seed, engine).items():
                    jobs.insert(0, _noise_job(root / BACKGROUND_NOISE_DIR / f"{name}.wav", make, sample_rate))
            _run(jobs, progress)
            _write_lists(root, clips)
            _write_notes(root, folders, speakers, seed, engine.version)
            _check_unused(directory)
    except OSError as error:
        raise KwsError(f"cannot write the synthetic data set to '{directory}': {error.strerror or error}") from error


def folder_names(words: Sequence[str]) -> dict[str, str]:
    """From the folder of each word to the text to say, in the order given.

    Raises:
        KwsError: there is no word, a word can't be a folder of a data set, or two words would share a folder.
    """
    if isinstance(words, str):
        raise KwsError(f"words must be a list, got the single text '{words}'")
    if not words:
        raise KwsError("words is empty; give at least one word to say")
    folders: dict[str, str] = {}
    seen: dict[str, str] = {}
    for word in words:
        name = "_".join(unicodedata.normalize("NFC", str(word)).split())
        if not name:
            raise KwsError("words holds an empty word; leave it out")
        wrong = [c for c in name if c in _UNSAFE or not c.isprintable()]
        if wrong or name[0] in "_." or name[-1] == "." or len(name.encode()) > _LONGEST_NAME:
            raise KwsError(
                f"words: {str(word)!r} cannot be the name of a folder; leave out {' '.join(sorted(_UNSAFE))} and"
                f" control characters, '_' and '.' at the start, '.' at the end, and stay within {_LONGEST_NAME} bytes"
            )
        # Some file systems ignore case.
        if (earlier := seen.setdefault(name.casefold(), str(word))) != str(word) or name in folders:
            raise KwsError(f"words: {earlier!r} and {str(word)!r} would share a folder; give each word once")
        folders[name] = name.replace("_", " ")
    return folders


_Clip = tuple[str, Voice, int]  # folder, speaker, how often this speaker has said the word before


def _plan(folder: str, count: int, speakers: Sequence[Voice], seed: int) -> list[_Clip]:
    """Who says a word. Each word starts with another voice, so that few clips of many words still use all voices."""
    first = int(random_stream(seed, "first voice", folder).integers(len(speakers)))
    return [(folder, speakers[(first + turn) % len(speakers)], turn // len(speakers)) for turn in range(count)]


def _relative_path(clip: _Clip) -> str:
    folder, voice, number = clip
    return f"{folder}/{voice.speaker}_nohash_{number}.wav"


def _clip_job(
    root: Path, clip: _Clip, text: str, engine: SpeechEngine, seed: int, sample_rate: int
) -> Callable[[], None]:
    def job() -> None:
        folder, voice, number = clip
        rng = random_stream(seed, "clip", folder, voice.speaker, number)
        word = say(engine, text, voice, rng, sample_rate)
        write_wav(root / _relative_path(clip), place(word, voice, rng, sample_rate), sample_rate)

    return job


def _noise_job(path: Path, make: Callable[[], np.ndarray], sample_rate: int) -> Callable[[], None]:
    return lambda: write_wav(path, make(), sample_rate)


def _run(jobs: Sequence[Callable[[], None]], progress: bool) -> None:
    """Run `jobs` on threads.

    Python handles Ctrl-C on the main thread, so it can't get lost in the engine's callback.
    """
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="synthesis")
    try:
        futures = [pool.submit(job) for job in jobs]
        # disable=None: no bar where stderr is no terminal
        bar = tqdm(as_completed(futures), "synthesising", len(jobs), unit="file", disable=None if progress else True)
        for future in bar:
            future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _write_lists(root: Path, clips: Sequence[_Clip]) -> None:
    for split, name in ((VALIDATION, "validation_list.txt"), (TESTING, "testing_list.txt")):
        lines = sorted(
            _relative_path(clip)
            for clip in clips
            if hash_split(clip[1].speaker, SPLIT_PERCENTAGE, SPLIT_PERCENTAGE) == split
        )
        (root / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _write_notes(root: Path, folders: dict[str, str], speakers: Sequence[Voice], seed: int, version: str) -> None:
    table = "\n".join(
        f"| {voice.speaker} | {voice.engine_voice} | {voice.pitch} | {voice.rate_wpm} | {voice.formant_scale:.2f} |"
        for voice in speakers
    )
    readme = _README.format(words=len(folders), voices=len(speakers), version=version, seed=seed, table=table)
    (root / "README.md").write_text(readme, encoding="utf-8")
    (root / "LICENSE").write_text(_LICENSE, encoding="utf-8")


def _check_unused(directory: Path) -> None:
    if directory.exists() and not directory.is_dir():
        raise KwsError(f"'{directory}' is a file; give a new or an empty folder for the synthetic data set")
    if directory.is_dir() and any(directory.iterdir()):
        raise KwsError(f"'{directory}' is not empty; give a new or an empty folder for the synthetic data set")
