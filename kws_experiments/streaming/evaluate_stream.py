"""How well a model listens to a long recording of which it is known what is said when (`kws evaluate-stream`)."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from kws_data.catalog import SILENCE, UNKNOWN
from kws_data.errors import KwsError
from kws_data.storage.atomic import replace_file
from kws_experiments.runs.folder import RunFolder, write_text
from kws_experiments.streaming.audio_file import check_file, file_blocks
from kws_experiments.streaming.curve import detect, operating_points, smooth, threshold_curve
from kws_experiments.streaming.listener import Detection
from kws_experiments.streaming.matching import CORRECT, FALSE_ACCEPT, NOTHING, WRONG, Matching, Spoken, match
from kws_experiments.streaming.recognize import RecognizerSettings
from kws_experiments.streaming.truth import AUDIO, TRUTH, read_truth
from kws_experiments.streaming.windows import WindowScorer, open_windows

log = logging.getLogger(__name__)


def evaluate(
    model: Path, recording: Path, settings: RecognizerSettings, *, hop_ms: float, tolerance_ms: float, out: Path | None
) -> tuple[dict[str, Any], Path]:
    """Listen to `stream.wav` of a folder, hold the detections against its `truth.csv`, and write what comes out.

    Args:
        model: the folder of a finished run, or an export.
        recording: the folder, as `kws make-stream` makes it.
        settings: of the recognizer.
        hop_ms: from window to window.
        tolerance_ms: see `match`.
        out: the folder to write; None: `streams/<recording's name>` in the run's.

    Returns:
        the metrics, and the folder with `metrics.json`, `detections.csv`, `words.csv`, `curve.parquet` and a picture.

    Raises:
        KwsError: there is no model or no recording, or nothing in it is a word of the model's.
    """
    if tolerance_ms < 0:
        raise KwsError(f"--tolerance-ms must not be negative, got {tolerance_ms:g}")
    if not recording.is_dir():
        raise KwsError(f"no folder '{recording}': give one that kws make-stream made")
    check_file(recording / AUDIO)
    truth = [Spoken(*row) for row in read_truth(recording / TRUTH).itertuples(index=False, name=None)]
    if out is None and not RunFolder(model).config.is_file():
        raise KwsError(f"--out: give a folder to write to; '{model}' is no run's folder, which would take it")
    out = out or RunFolder(model).streams / recording.resolve().name
    windows = open_windows(model, hop_ms)
    keywords = _known(windows.labels, truth, recording / TRUTH)
    heard = _listen(windows, recording / AUDIO)
    smoothed = smooth(heard.times_ms, heard.scores, settings)
    detections = detect(smoothed, windows.labels, settings)
    matching = match([(time_ms, word) for time_ms, word, _ in detections], truth, keywords, tolerance_ms)
    hours = heard.seconds / 3600
    curve = threshold_curve(smoothed, windows.labels, settings, truth, hours=hours, tolerance_ms=tolerance_ms)
    told = asdict(settings) | {"hop_ms": hop_ms, "tolerance_ms": tolerance_ms, "hours": hours}
    result = told | figures_of(detections, matching, truth, keywords, hours)
    result["operating_points"] = operating_points(curve)
    _write(out, result, curve, detections, matching, truth)
    log.info(
        "%.0f s of audio in %.1f s: real-time factor %.3f", heard.seconds, heard.took_s, heard.took_s / heard.seconds
    )
    return result, out


class _Heard(NamedTuple):
    """Every window of a recording: times, scores [windows, labels], the recording's length, and how long it took."""

    times_ms: list[int]
    scores: np.ndarray
    seconds: float
    took_s: float


def _listen(windows: WindowScorer, audio: Path) -> _Heard:
    began, samples = time.perf_counter(), 0
    ends, scores = [], []
    for block in file_blocks(audio, windows.sample_rate):
        samples += len(block)
        scored = windows.feed(block)
        ends.extend(scored.ends.tolist())
        scores.append(scored.scores)
    if not ends:
        raise KwsError(f"'{audio}' is shorter than one window of the model")
    times_ms = [round(1000 * end / windows.sample_rate) for end in ends]
    return _Heard(times_ms, np.concatenate(scores), samples / windows.sample_rate, time.perf_counter() - began)


def _known(labels: Sequence[str], truth: Sequence[Spoken], path: Path) -> list[str]:
    """The labels that are keywords.

    Raises:
        KwsError: none of them is said.
    """
    keywords = [label for label in labels if label not in (SILENCE, UNKNOWN)]
    said = {row.word for row in truth}
    if not said & set(keywords):
        raise KwsError(f"'{path}' holds no word of the model's ({', '.join(keywords)}), but {', '.join(sorted(said))}")
    unsaid = [word for word in keywords if word not in said]
    if unsaid:
        log.warning("the recording has none of %s: nothing is known of their misses", ", ".join(unsaid))
    return keywords


def figures_of(
    detections: Sequence[Detection], matching: Matching, truth: Sequence[Spoken], keywords: Sequence[str], hours: float
) -> dict[str, Any]:
    """The metrics at one threshold.

    Returns:
        `keywords` and `unknown_words` said; `correct`, `missed`, `wrong` (where another keyword was said, or the word
        once more than said) and `false_accepts` (where no keyword was), of these `false_accepts_on_other_words`;
        `miss_rate`, `false_accepts_per_hour`, `latency_ms` (from a word's end to its detection) and `per_word`.
    """
    outcomes, said = np.array(matching.outcomes, dtype=object), [row for row in truth if row.word in set(keywords)]
    correct, false = outcomes == CORRECT, outcomes == FALSE_ACCEPT
    words = np.array([detection.word for detection in detections], dtype=object)
    counts = {word: sum(row.word == word for row in said) for word in keywords}
    per_word = {
        word: {
            "said": counts[word],
            "correct": int(np.sum(correct & (words == word))),
            "wrong": int(np.sum((outcomes == WRONG) & (words == word))),
            "false_accepts": int(np.sum(false & (words == word))),
        }
        for word in keywords
    }
    latency = latencies(detections, matching, truth)
    return {
        "keywords": len(said),
        "unknown_words": len(truth) - len(said),
        "correct": int(correct.sum()),
        "missed": len(said) - int(correct.sum()),
        "wrong": matching.count(WRONG),
        "false_accepts": int(false.sum()),
        "false_accepts_on_other_words": int(np.sum(false & matching.on_speech)),
        "miss_rate": 1 - int(correct.sum()) / len(said),
        "false_accepts_per_hour": int(false.sum()) / hours,
        "latency_ms": {
            name: float(np.percentile(latency, part)) if len(latency) else None
            for name, part in (("median", 50), ("p90", 90), ("max", 100))
        },
        "per_word": per_word,
    }


def latencies(detections: Sequence[Detection], matching: Matching, truth: Sequence[Spoken]) -> np.ndarray:
    """[correct detections] ms from the word's end; negative where it was detected before."""
    pairs = zip(detections, matching.spoken.tolist(), strict=True)
    return np.array([found.time_ms - truth[place].end_ms for found, place in pairs if place != NOTHING], np.float64)


def _write(
    out: Path,
    result: dict[str, Any],
    curve: pd.DataFrame,
    detections: Sequence[Detection],
    matching: Matching,
    truth: Sequence[Spoken],
) -> None:
    """Write everything, the metrics last."""
    from kws_experiments.plots.streams import stream_figure
    from kws_experiments.plots.style import save

    heard = pd.DataFrame(detections, columns=list(Detection._fields)).assign(outcome=matching.outcomes)
    words = pd.DataFrame(truth, columns=list(Spoken._fields)).assign(
        detected_ms=pd.array([pd.NA] * len(truth), "Int64")
    )
    for detection, place in zip(detections, matching.spoken, strict=True):
        if place != NOTHING:
            words.loc[place, "detected_ms"] = detection.time_ms
    write_text(out / "detections.csv", heard.round({"score": 4}).to_csv(index=False))
    write_text(out / "words.csv", words.to_csv(index=False))
    with replace_file(out / "curve.parquet") as temporary:
        curve.to_parquet(temporary, index=False)
    save(stream_figure(curve, result, latencies(detections, matching, truth)), out / "stream.png")
    write_text(out / "metrics.json", json.dumps(result, indent=2) + "\n")


def show(result: dict[str, Any]) -> None:
    """Print the figures."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("false accepts an hour, at most", title="Fewest misses", title_justify="left")
    table.add_column("missed", justify="right")
    table.add_column("threshold", justify="right")
    for point in result["operating_points"]:
        if point["threshold"] is not None:
            allowed, missed = point["false_accepts_per_hour_at_most"], f"{point['miss_rate']:.1%}"
            table.add_row(f"{allowed:g}", missed, f"{point['threshold']:g}")
    console.print(table)
    if result["hours"] < 1:
        console.print(f"one false accept in {60 * result['hours']:.3g} minutes is {1 / result['hours']:.3g} an hour")
    console.print(
        f"threshold {result['detection_threshold']:g}: of {result['keywords']} keywords {result['correct']} correct, "
        f"{result['missed']} missed ([bold]{result['miss_rate']:.1%}[/bold]); {result['wrong']} wrong detections; "
        f"{result['false_accepts']} false accepts ([bold]{result['false_accepts_per_hour']:.1f} an hour[/bold]), "
        f"{result['false_accepts_on_other_words']} of them on other words"
    )
    if result["latency_ms"]["median"] is not None:
        median, p90 = result["latency_ms"]["median"], result["latency_ms"]["p90"]
        console.print(f"detected {median:.0f} ms after the word's end (median; 90 % within {p90:.0f} ms)")
