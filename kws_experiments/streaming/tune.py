"""Tune how a run listens (`kws tune`): smoothing, suppression and a threshold per word, on validation streams.

The streams are made of the validation clips and the validation part of the noise, and of running speech by voices for
validation, so that nothing that later judges the run takes part. They are scored once and kept nowhere; all else
follows from the scores.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kws_data.audio import INT16_SCALE
from kws_data.splits import VALIDATION
from kws_data.streams.mix import render
from kws_data.streams.plan import StreamSettings, plan_words
from kws_data.streams.source import StreamSource
from kws_experiments.evaluation.intervals import as_text, false_accepts, not_shown
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.experiment.settings import TuneSettings
from kws_experiments.runs.finished import FinishedRun
from kws_experiments.runs.listening import TUNED
from kws_experiments.streaming.choose_thresholds import Peaks, thresholds_by_price
from kws_experiments.streaming.curve import Smoothed, detect, smooth
from kws_experiments.streaming.listener import HOP_MS
from kws_experiments.streaming.matching import FALSE_ACCEPT, NOTHING, WRONG, Spoken, match
from kws_experiments.streaming.open_source import source_of_run
from kws_experiments.streaming.recognize import PER_WORD, RecognizerSettings, keywords_of
from kws_experiments.streaming.windows import WindowScorer, in_pieces, open_windows

log = logging.getLogger(__name__)

TOLERANCE_MS = 750.0
AVERAGE_WINDOWS_MS = (100.0, 200.0, 300.0, 400.0, 500.0)
SUPPRESSIONS_MS = (300.0, 500.0)  # shorter would split one word, longer swallow the next


@dataclass(frozen=True)
class Scored:
    """All streams, one after the other, with the scores of their windows.

    Attributes:
        labels: class names.
        times_ms: [windows] ends.
        scores: [windows, labels].
        truth: the spoken words.
        snr_db: [spoken words] of their streams.
        hours: length.
        window_ms: length of a window.
        speech_ms: where the streams of words end and those of running speech begin; beyond the end without these.
    """

    labels: list[str]
    times_ms: list[int]
    scores: np.ndarray
    truth: list[Spoken]
    snr_db: np.ndarray
    hours: float
    window_ms: float
    speech_ms: float = math.inf

    @property
    def hours_of_words(self) -> float:
        """Those of streams of words."""
        return min(self.speech_ms / 3_600_000, self.hours)


def tune(run: Path, settings: TuneSettings) -> dict[str, dict[str, Any]]:
    """Choose low, medium and high sensitivity, and keep them in the run's `listening.json`.

    Args:
        run: the folder of a finished run.
        settings: see TuneSettings.

    Returns:
        the sensitivities by name, as `runs.listening` describes them.

    Raises:
        KwsError: `run` is no finished run, its data changed, no clip of its words is for validation, or there is no
            such running speech.
    """
    opened = FinishedRun.open(run)
    experiment = Experiment(opened.config)
    source = source_of_run(opened, experiment, VALIDATION, settings.speech)
    streams = settings.streams()
    clips, minutes = len(source.keywords) + len(source.unknown), sum(stream.minutes for stream in streams)
    spoken = " and running speech" if source.speech else ""
    log.info("listening to %d streams, %g min in all, of %d validation clips%s", len(streams), minutes, clips, spoken)
    scored = score(source, open_windows(run, HOP_MS), streams)
    chosen = choose(scored, settings.false_accepts_per_hour)
    tuned_on = {
        "split": VALIDATION, "data": source.origin, "hop_ms": HOP_MS, "tolerance_ms": TOLERANCE_MS,
        "streams": [asdict(stream) for stream in streams],
        "different_clips": len(source.keywords), "different_unknown_clips": len(source.unknown),
        "speech": source.speech.origin if source.speech else None,
    }  # fmt: skip
    listening = opened.listening
    replace(listening, sensitivities=listening.sensitivities | chosen, tuned_on=tuned_on).write(run)
    return chosen


def score(source: StreamSource, windows: WindowScorer, streams: Sequence[StreamSettings]) -> Scored:
    """Make the streams, those of running speech last, and score their windows, piece by piece: no stream is kept."""
    from tqdm import tqdm

    rate, samples, speech_ms = windows.sample_rate, 0, math.inf
    truth: list[Spoken] = []
    snrs_db: list[float] = []
    ends, scores = [], []
    minutes = sum(stream.minutes for stream in streams)
    with tqdm(total=round(60 * minutes), unit="s", desc="listening", disable=None, leave=False) as bar:
        for stream in streams:
            plan = plan_words(source, stream)
            begin_ms = 1000 * samples / rate
            if source.speech and stream.speech_percentage:
                speech_ms = min(speech_ms, begin_ms)
            truth += [
                Spoken(begin_ms + row.time_ms, begin_ms + row.end_ms, row.word) for row in plan.itertuples(index=False)
            ]
            snrs_db += plan["snr_db"].tolist()
            for block in in_pieces(render(source, plan, stream), rate):
                scored = windows.feed(block / np.float32(INT16_SCALE))
                ends.append(scored.ends)
                scores.append(scored.scores)
                samples += len(block)
                bar.update(len(block) / rate)
    times_ms = np.rint(1000 * np.concatenate(ends) / rate).astype(int).tolist()
    return Scored(
        windows.labels, times_ms, np.concatenate(scores), truth, np.array(snrs_db), samples / rate / 3600,
        1000 * windows.clip_samples / rate, speech_ms,
    )  # fmt: skip


def choose(
    scored: Scored, rates: Sequence[float], averages_ms: Sequence[float] = AVERAGE_WINDOWS_MS
) -> dict[str, dict[str, Any]]:
    """The sensitivities for these rates of false accepts an hour.

    The rates are of all hours together, those of words and those of running speech. All sensitivities have the same
    smoothing and suppression: those with the fewest misses and wrong detections at all rates together, of equals the
    first. Only thresholds differ, so that a slider from low to high changes nothing else.
    """
    best: list[Choice] = []
    for settings, smoothed, ladder in _ladders(scored, averages_ms):
        choices = [_within(scored, settings, smoothed, ladder, rate) for rate in rates]
        if not best or sum(choice.cost for choice in choices) < sum(choice.cost for choice in best):
            best = choices
    return {
        name: {
            "settings": _kept(choice.settings),
            "thresholds": dict(choice.settings.thresholds),
            "false_accepts_per_hour_asked": rate,
            "false_accepts_per_hour_expected": choice.expected,
            "measured": _measured(scored, choice, rate),
        }
        for name, choice, rate in zip(TUNED, best, rates, strict=True)
    }


@dataclass(frozen=True)
class Choice:
    """One way to listen, and what it detects.

    Attributes:
        settings: of the recognizer.
        expected: false accepts an hour, by the model of `choose_thresholds`.
        missed: [spoken words] bool, for keywords.
        outcomes: of the detections, see `match`.
        in_speech: false accepts in streams of running speech.
    """

    settings: RecognizerSettings
    expected: float
    missed: np.ndarray
    outcomes: list[str]
    in_speech: int

    @property
    def cost(self) -> int:
        """Misses and wrong detections."""
        return int(self.missed.sum()) + self.outcomes.count(WRONG)


def _ladders(
    scored: Scored, averages_ms: Sequence[float]
) -> Iterator[tuple[RecognizerSettings, Smoothed, tuple[np.ndarray, np.ndarray]]]:
    """All smoothings and suppressions, each with the averages and the thresholds worth choosing."""
    columns = {word: scored.labels.index(word) for word in keywords_of(scored.labels)}
    for average_ms in averages_ms:
        # one window is enough: the average is over those that there are, and a stream's first moments are silent
        settings = RecognizerSettings(average_ms, minimum_count=1, rule=PER_WORD, repeat_ms=scored.window_ms)
        smoothed = smooth(scored.times_ms, scored.scores, settings)
        peaks = Peaks.of(smoothed, columns, scored.truth, TOLERANCE_MS, scored.window_ms + average_ms)
        ladder = thresholds_by_price(peaks)
        for suppression_ms in SUPPRESSIONS_MS:
            yield replace(settings, suppression_ms=suppression_ms), smoothed, ladder


def _within(
    scored: Scored, settings: RecognizerSettings, smoothed: Smoothed, ladder: tuple[np.ndarray, np.ndarray], rate: float
) -> Choice:
    """The first thresholds of the ladder that keep to the rate, both by the model and as counted; else the last."""
    keywords, allowed = keywords_of(scored.labels), rate * scored.hours
    for thresholds, expected in zip(*ladder, strict=True):
        if expected > allowed and expected > ladder[1][-1]:
            continue
        tried = replace(settings, thresholds=dict(zip(keywords, thresholds.tolist(), strict=True)))
        found = detect(smoothed, scored.labels, tried)
        matching = match(found, scored.truth, keywords, TOLERANCE_MS)
        missed = np.array([word.word in keywords for word in scored.truth])
        missed[matching.spoken[matching.spoken != NOTHING]] = False
        in_speech = sum(
            outcome == FALSE_ACCEPT and detection.time_ms > scored.speech_ms
            for detection, outcome in zip(found, matching.outcomes, strict=True)
        )
        choice = Choice(tried, expected / scored.hours, missed, matching.outcomes, in_speech)
        if choice.outcomes.count(FALSE_ACCEPT) <= allowed:
            break
    return choice


def _kept(settings: RecognizerSettings) -> dict[str, Any]:
    values = asdict(settings)
    return {name: values[name] for name in values if name not in ("detection_threshold", "thresholds", "sensitivity")}


def _measured(scored: Scored, choice: Choice, rate: float) -> dict[str, Any]:
    """What is detected in the streams that it was chosen on."""
    keywords = keywords_of(scored.labels)
    words = pd.DataFrame({"snr_db": scored.snr_db, "missed": choice.missed})
    words = words[[word.word in keywords for word in scored.truth]]
    by_snr = words.groupby("snr_db")["missed"].agg(["size", "sum"])
    accepts, hours = choice.outcomes.count(FALSE_ACCEPT), scored.hours_of_words
    apart = {}
    if hours < scored.hours:
        apart = {
            "words": false_accepts(accepts - choice.in_speech, hours),
            "speech": false_accepts(choice.in_speech, scored.hours - hours),
        }
    return {
        "keywords": len(words),
        "missed": int(words["missed"].sum()),
        "miss_rate": float(words["missed"].mean()),
        "wrong": choice.outcomes.count(WRONG),
        **false_accepts(accepts, scored.hours, rate),
        "apart": apart,
        "by_snr": [
            {"snr_db": float(snr_db), "keywords": int(size), "missed": int(missed), "miss_rate": float(missed / size)}
            for snr_db, size, missed in by_snr.itertuples()
        ],
    }


def show(sensitivities: dict[str, dict[str, Any]]) -> None:
    """Print what was measured, the claims that the hours can't carry, and the thresholds."""
    from kws_experiments.console.output import say
    from kws_experiments.console.tables import by_column, print_table

    measured = {name: values["measured"] for name, values in sensitivities.items()}
    snrs = [row["snr_db"] for row in next(iter(measured.values()))["by_snr"]]
    headings = ("sensitivity", "asked, an hour", "false accepts", *(f"missed at {snr:g} dB" for snr in snrs), "wrong")
    rows = [
        (
            name, f"{sensitivities[name]['false_accepts_per_hour_asked']:g}", as_text(values),
            *(f"{row['miss_rate']:.1%}" for row in values["by_snr"]), str(values["wrong"]),
        )
        for name, values in measured.items()
    ]  # fmt: skip
    print_table(by_column(headings, rows), title="On the streams that they were chosen on", keep=headings)
    thresholds = [values["thresholds"] for values in sensitivities.values()]
    words = [(word, *(f"{each[word]:.3f}" for each in thresholds)) for word in thresholds[0]]
    print_table(by_column(("word", *sensitivities), words), title="Thresholds", numeric=list(sensitivities))
    settings = next(iter(sensitivities.values()))["settings"]
    say(f"scores averaged over {settings['average_window_ms']:g} ms; {settings['suppression_ms']:g} ms suppression")
    for name, values in measured.items():
        if values["apart"]:
            in_words, in_speech = (as_text(values["apart"][kind]) for kind in ("words", "speech"))
            say(f"{name}: among words {in_words}; in running speech {in_speech}")
        if not values["shown"]:
            asked = sensitivities[name]["false_accepts_per_hour_asked"]
            say(f"{name}: {not_shown(values, asked)}")
