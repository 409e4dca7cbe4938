"""Evaluate a model on a long recording whose words are known (`kws evaluate-stream`)."""

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

from kws_data.errors import KwsError
from kws_data.storage.atomic import replace_file
from kws_data.text import to_csv
from kws_experiments.console.output import say
from kws_experiments.evaluation.intervals import as_text, false_accepts
from kws_experiments.runs.folder import RunFolder, write_text
from kws_experiments.streaming.audio_file import check_file, file_blocks
from kws_experiments.streaming.curve import detect, operating_points, smooth, threshold_curve
from kws_experiments.streaming.listener import Detection
from kws_experiments.streaming.matching import CORRECT, FALSE_ACCEPT, NOTHING, WRONG, Spoken, match
from kws_experiments.streaming.recognize import RecognizerSettings, keywords_of
from kws_experiments.streaming.truth import AUDIO, TRUTH, read_truth
from kws_experiments.streaming.windows import WindowScorer, open_windows

log = logging.getLogger(__name__)


def evaluate(
    model: Path, recording: Path, settings: RecognizerSettings, *, hop_ms: float, tolerance_ms: float, out: Path | None
) -> tuple[dict[str, Any], Path]:
    """Detect keywords in `stream.wav` of a folder, compare them with its `truth.csv`, and write the results.

    Args:
        model: the folder of a finished run, or an export.
        recording: the folder, as `kws make-stream` makes it.
        settings: of the recognizer.
        hop_ms: from window to window.
        tolerance_ms: see `match`.
        out: the folder to write to; None means `streams/<recording's name>` in the run's folder.

    Returns:
        the metrics, and the folder with `metrics.json`, `detections.csv`, `words.csv`, `curve.parquet` and a picture.

    Raises:
        KwsError: the model or the recording is missing, or no word in it is a keyword of the model.
    """
    if tolerance_ms < 0:
        raise KwsError(f"--tolerance-ms must not be negative, got {tolerance_ms:g}")
    truth = _read_recording(recording)
    if out is None and not RunFolder(model).config.is_file():
        raise KwsError(f"--out: give a folder to write to; '{model}' is not a run's folder, which is the default")
    out = out or RunFolder(model).streams / recording.resolve().name
    windows = open_windows(model, hop_ms)
    keywords = keywords_of(windows.labels)
    _require_keywords(keywords, truth, recording / TRUTH)
    times_ms, scores, seconds = _score(windows, recording / AUDIO)
    hours = seconds / 3600
    smoothed = smooth(times_ms, scores, settings)
    compared = compare(detect(smoothed, windows.labels, settings), truth, keywords, tolerance_ms)
    curve = threshold_curve(smoothed, windows.labels, settings, truth, hours=hours, tolerance_ms=tolerance_ms)
    result = {
        **asdict(settings), "hop_ms": hop_ms, "tolerance_ms": tolerance_ms, "hours": hours,
        **compute_metrics(compared, keywords, hours), "operating_points": operating_points(curve),
    }  # fmt: skip
    _write(out, result, curve, compared)
    return result, out


def _read_recording(recording: Path) -> list[Spoken]:
    """The words of a folder that also has readable audio."""
    if not recording.is_dir():
        raise KwsError(f"no folder '{recording}': give one that kws make-stream made")
    check_file(recording / AUDIO)
    return [Spoken(*row) for row in read_truth(recording / TRUTH).itertuples(index=False, name=None)]


def _require_keywords(keywords: Sequence[str], truth: Sequence[Spoken], path: Path) -> None:
    """Refuse a recording without any of the keywords; warn if some are missing."""
    words = {word.word for word in truth}
    if not words & set(keywords):
        raise KwsError(f"'{path}' holds no word of the model's ({', '.join(keywords)}), but {', '.join(sorted(words))}")
    missing = [word for word in keywords if word not in words]
    if missing:
        log.warning("the recording has none of %s: their misses are not measured", ", ".join(missing))


def _score(windows: WindowScorer, audio: Path) -> tuple[list[int], np.ndarray, float]:
    """(ends of all windows in ms, their scores [windows, labels], the recording's length in seconds)."""
    began, samples = time.perf_counter(), 0
    ends, scores = [], []
    for block in file_blocks(audio, windows.sample_rate):
        samples += len(block)
        scored = windows.feed(block)
        ends.extend(scored.ends.tolist())
        scores.append(scored.scores)
    if not ends:
        raise KwsError(f"'{audio}' is shorter than one window of the model")
    seconds, taken = samples / windows.sample_rate, time.perf_counter() - began
    log.info("%.0f s of audio in %.1f s: real-time factor %.3f", seconds, taken, taken / seconds)
    return [round(1000 * end / windows.sample_rate) for end in ends], np.concatenate(scores), seconds


class Compared(NamedTuple):
    """Detections beside the truth.

    Attributes:
        detections: `time_ms`, `word`, `score`, `outcome` (see `Matching`) and `on_speech`.
        words: `time_ms`, `end_ms`, `word` and `detected_ms`: the time of its correct detection, NA if missed.
    """

    detections: pd.DataFrame
    words: pd.DataFrame

    def latency_ms(self) -> np.ndarray:
        """[detected words] float64 from a word's end to its detection; negative where it was detected earlier."""
        return (self.words["detected_ms"] - self.words["end_ms"]).dropna().to_numpy(np.float64)


def compare(
    detections: Sequence[Detection], truth: Sequence[Spoken], keywords: Sequence[str], tolerance_ms: float
) -> Compared:
    """Match detections with the truth; see `match`."""
    matching = match(detections, truth, keywords, tolerance_ms)
    found = pd.DataFrame(detections, columns=list(Detection._fields))
    found = found.assign(outcome=matching.outcomes, on_speech=matching.on_speech)
    correct = matching.spoken != NOTHING
    detected_ms = pd.Series(found.loc[correct, "time_ms"].to_numpy(), matching.spoken[correct], "Int64")
    words = pd.DataFrame(truth, columns=list(Spoken._fields))
    return Compared(found, words.assign(detected_ms=detected_ms.reindex(words.index)))


def compute_metrics(compared: Compared, keywords: Sequence[str], hours: float) -> dict[str, Any]:
    """The metrics at one threshold.

    Returns:
        `keywords` and `unknown_words` spoken; `correct`, `missed`, `wrong` (another keyword is spoken there, or the
        word was detected already) and `false_accepts` (no keyword is spoken there) with their rate, of these
        `false_accepts_on_other_words`; `miss_rate`, `latency_ms` (from a word's end to its
        detection) and `per_word`.
    """
    found, words = compared
    spoken = words.loc[words["word"].isin(keywords), "word"].value_counts().reindex(keywords, fill_value=0)
    names = {CORRECT: "correct", WRONG: "wrong", FALSE_ACCEPT: "false_accepts"}
    outcomes = pd.crosstab(found["word"], found["outcome"]).reindex(index=keywords, columns=list(names), fill_value=0)
    per_word = outcomes.astype(int).rename(columns=names)
    per_word.insert(0, "said", spoken)
    said, correct, wrong, accepts = per_word.sum().tolist()
    latency = compared.latency_ms()
    percentiles = np.percentile(latency, (50, 90, 100)).tolist() if len(latency) else [None] * 3
    return {
        "keywords": said,
        "unknown_words": len(words) - said,
        "correct": correct,
        "missed": said - correct,
        "wrong": wrong,
        "false_accepts_on_other_words": int(((found["outcome"] == FALSE_ACCEPT) & found["on_speech"]).sum()),
        "miss_rate": 1 - correct / said,
        **false_accepts(accepts, hours),
        "latency_ms": dict(zip(("median", "p90", "max"), percentiles, strict=True)),
        "per_word": per_word.to_dict("index"),
    }


def _write(out: Path, result: dict[str, Any], curve: pd.DataFrame, compared: Compared) -> None:
    """Write all files, the metrics last."""
    from kws_experiments.plots.streams import stream_figure
    from kws_experiments.plots.style import save

    detections = compared.detections.drop(columns="on_speech").round({"score": 4})
    write_text(out / "detections.csv", to_csv(detections))
    write_text(out / "words.csv", to_csv(compared.words))
    with replace_file(out / "curve.parquet") as temporary:
        curve.to_parquet(temporary, index=False)
    save(stream_figure(curve, result, compared.latency_ms()), out / "stream.png")
    write_text(out / "metrics.json", json.dumps(result, indent=2) + "\n")


def show(result: dict[str, Any]) -> None:
    """Print the operating points, then detections and latency at the chosen threshold."""
    from kws_experiments.console.tables import by_column, print_table
    from kws_experiments.plots.streams import chosen

    headings = ("false accepts an hour, at most", "95 % interval", "missed", "threshold")
    rows = [
        (
            f"{point['false_accepts_per_hour_at_most']:g}",
            "{:.1f} to {:.1f}".format(*point["false_accepts_per_hour_95"]),
            f"{point['miss_rate']:.1%}",
            f"{point['threshold']:g}",
        )
        for point in result["operating_points"]
        if point["threshold"] is not None
    ]
    print_table(by_column(headings, rows), title="Fewest misses", numeric=headings[1:])
    say(
        f"{chosen(result)}: of {result['keywords']} keywords {result['correct']} correct, "
        f"{result['missed']} missed ({result['miss_rate']:.1%}); {result['wrong']} wrong detections; "
        f"{result['false_accepts']} false accepts, {result['false_accepts_on_other_words']} of them on other words: "
        f"{as_text(result)}"
    )
    median, p90 = result["latency_ms"]["median"], result["latency_ms"]["p90"]
    if median is not None:
        say(f"detected {median:.0f} ms after the word's end (median; 90 % within {p90:.0f} ms)")
