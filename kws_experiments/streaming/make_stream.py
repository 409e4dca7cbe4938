"""Write long recordings to test on, with a table of the words in them (`kws make-stream`).

Clips, noise and synthetic voices are those of the testing split. See `kws_data.streams` for how they are mixed.
"""

from __future__ import annotations

import json
import wave
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from kws_data.errors import KwsError
from kws_data.folders import find_folder
from kws_data.storage.atomic import replace_dir
from kws_data.streams.mix import render
from kws_data.streams.plan import NOTHING, SPEECH_DB, StreamSettings, plan_words
from kws_data.streams.rooms import NO_ROOM, SYNTHETIC
from kws_data.streams.speech import SPEECH
from kws_data.text import to_csv
from kws_experiments.streaming.label_track import write_label_track
from kws_experiments.streaming.open_source import open_source
from kws_experiments.streaming.truth import AUDIO, CONDITIONS, FACTS, TRACK, TRUTH


def parse_range(name: str, text: str) -> tuple[float, float]:
    """'15' → (15, 15); '5,20' → (5, 20).

    Raises:
        ValueError: naming it.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2):
        raise ValueError(f"{name} must be a number, or LOW,HIGH, got '{text}'")
    return numbers[0], numbers[-1]


def write_stream(
    source: Sequence[str], out: Path, settings: StreamSettings, *, speech: str | None = None, loop: bool = False
) -> str:
    """Write `stream.wav`, `truth.csv`, `labels.txt` (an Audacity label track) and `stream.json` into `out`.

    Args:
        source: the folder of a run, or overrides as train.py takes them.
        out: a folder that does not exist yet, or an older stream.
        settings: see StreamSettings.
        speech: running speech, and whether it is used again; see `open_source`.
        loop: see `speech`.

    Returns:
        a line for the console: length, words, clips and utterances.

    Raises:
        KwsError: the source is wrong, or `out` exists and is not a stream.
    """
    if out.exists() and not (out / FACTS).is_file():
        raise KwsError(f"--out: '{out}' exists and is not a stream; give a new folder")
    for kind in settings.rooms:
        if kind not in (NO_ROOM, SYNTHETIC):
            find_folder(Path(kind), "--rooms", f"; give {NO_ROOM}, {SYNTHETIC}, or a folder of impulse responses")
    data = open_source(source, speech, loop=loop)
    plan = plan_words(data, settings)
    rate = data.corpus.sample_rate
    spoken = plan[["time_ms", "end_ms", "word", *CONDITIONS]]
    utterances = int((plan["word"] == SPEECH).sum())
    facts = {
        **asdict(settings), "sample_rate": rate, "words": len(plan) - utterances,
        "keywords": int(plan["keyword"].sum()), "different_clips": int(plan["row"][plan["row"] != NOTHING].nunique()),
        "utterances": utterances, "speech_db": SPEECH_DB, "data": data.origin,
        "speech": data.speech.origin if data.speech is not None else None,
        "noise": "generated" if data.corpus.noise.generated else "recorded",
    }  # fmt: skip
    with replace_dir(out.absolute()) as folder:
        with (folder / AUDIO).open("wb") as file, wave.open(file, "wb") as sound:
            sound.setnchannels(1)
            sound.setsampwidth(2)
            sound.setframerate(rate)
            for block in render(data, plan, settings):
                sound.writeframes(block.astype("<i2").tobytes())
        (folder / TRUTH).write_text(to_csv(spoken), encoding="utf-8")
        write_label_track(folder / TRACK, spoken[["time_ms", "end_ms", "word"]].itertuples(index=False, name=None))
        (folder / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    summary = (
        f"{settings.minutes:g} min, {facts['words']} words ({facts['keywords']} keywords) of "
        f"{facts['different_clips']} different clips"
    )
    return f"{summary}, {utterances} utterances of running speech" if utterances else summary
