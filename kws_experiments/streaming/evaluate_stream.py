"""Evaluate a model on long recordings whose words are known (`kws evaluate-stream`)."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from kws_data.errors import KwsError
from kws_data.storage.atomic import replace_file
from kws_data.streams.speech import SPEECH
from kws_data.text import to_csv
from kws_experiments.console.output import say
from kws_experiments.evaluation.intervals import (
    as_text,
    claim,
    false_accepts,
    not_shown,
    poisson_rate,
    wilson,
    wilson_each,
)
from kws_experiments.runs.folder import RunFolder, write_text
from kws_experiments.streaming.audio_file import check_file, file_blocks
from kws_experiments.streaming.by_condition import by_condition, worst_speakers
from kws_experiments.streaming.curve import detect, operating_points, smooth, threshold_curve
from kws_experiments.streaming.listener import Detection
from kws_experiments.streaming.matching import CORRECT, FALSE_ACCEPT, NOTHING, WRONG, Spoken, match
from kws_experiments.streaming.recognize import RecognizerSettings, keywords_of
from kws_experiments.streaming.sensitivity import asked_of
from kws_experiments.streaming.truth import AUDIO, CONDITIONS, TRUTH, read_truth
from kws_experiments.streaming.windows import WindowScorer, open_windows

log = logging.getLogger(__name__)

_COUNTS = ["correct", "wrong", "false_accepts"]
_SMALLEST_SHARE = 0.01  # of a recording: if all words are in this first part, times are probably in seconds
_LONGEST_NAME = 100  # bytes of a folder's name; file systems take 255


def evaluate(
    model: Path,
    recordings: Sequence[Path],
    settings: RecognizerSettings,
    *,
    hop_ms: float,
    tolerance_ms: float,
    out: Path | None,
) -> tuple[dict[str, Any], pd.DataFrame, Path]:
    """Detect keywords in `stream.wav` of folders, compare them with their `truth.csv`, and write the results.

    A recording that cannot be used is set aside with a warning, unless none is left.

    Args:
        model: the folder of a finished run, or an export.
        recordings: the folders, as `kws make-stream` makes them; what is found in all counts together.
        settings: of the recognizer.
        hop_ms: from window to window.
        tolerance_ms: see `match`.
        out: the folder to write to; None means `streams/<the recordings' names>` in the run's folder.

    Returns:
        the metrics, the table of `by_condition`, and the folder with `metrics.json`, `by_condition.csv`,
        `detections.csv`, `words.csv`, `curve.parquet` and a picture.

    Raises:
        KwsError: the model is missing, or no recording can be used.
    """
    if tolerance_ms < 0:
        raise KwsError(f"--tolerance-ms must not be negative, got {tolerance_ms:g}")
    names = _distinct_names(recordings)
    bad: dict[str, str] = {}
    truths: dict[str, pd.DataFrame] = {}
    for name, folder in names.items():
        with _set_aside(name, bad):
            truths[name] = _read_recording(folder)
    _require_some(truths, bad)
    if out is None and not RunFolder(model).config.is_file():
        raise KwsError(f"--out: give a folder to write to; '{model}' is not a run's folder, which is the default")
    parts = []
    for name, truth in truths.items():
        windows = open_windows(model, hop_ms)  # each recording begins with new ones
        with _set_aside(name, bad):
            parts.append(_listen(windows, name, names[name] / AUDIO, truth, settings, tolerance_ms))
    _require_some(parts, bad)
    for name, reason in bad.items():
        log.warning("'%s' is set aside: %s", name, reason)
    keywords = keywords_of(windows.labels)
    hours = {part.name: part.hours for part in parts}
    compared = Compared(
        *(pd.concat(tables, ignore_index=True) for tables in zip(*(part.compared for part in parts), strict=True))
    )
    _warn_of_missing(keywords, compared.words["word"])
    metrics = compute_metrics(compared, keywords, sum(hours.values()), asked_of(model, settings.sensitivity))
    curve = _pooled([part.curve for part in parts], metrics["keywords"], metrics["hours"])
    table = by_condition(*compared, keywords, hours)
    result = {
        **asdict(settings), "hop_ms": hop_ms, "tolerance_ms": tolerance_ms, **metrics,
        "operating_points": _with_intervals(operating_points(curve), curve, metrics["hours"]),
        "worst_speakers": worst_speakers(table), "recordings": list(hours), "set_aside": bad,
    }  # fmt: skip
    out = out or RunFolder(model).streams / _folder_name(list(hours))
    _write(out, result, curve, compared, table)
    return result, table, out


class _Part(NamedTuple):
    """What is found in one recording."""

    name: str
    hours: float
    compared: Compared
    curve: pd.DataFrame


def _listen(
    windows: WindowScorer,
    name: str,
    audio: Path,
    truth: pd.DataFrame,
    settings: RecognizerSettings,
    tolerance_ms: float,
) -> _Part:
    times_ms, scores, seconds = _score(windows, audio)
    beyond = truth[truth["time_ms"] >= 1000 * seconds]
    if len(beyond):
        raise KwsError(
            f"'{audio.parent / TRUTH}' has '{beyond['word'].iloc[0]}' at {beyond['time_ms'].iloc[0]:g} ms, and"
            f" '{audio}' is {1000 * seconds:g} ms long: the table must be of this recording, and in milliseconds"
        )
    last_ms = truth["end_ms"].max()
    if len(truth) > 1 and last_ms < _SMALLEST_SHARE * 1000 * seconds:
        log.warning("'%s': all words are in the first %g ms; times must be in milliseconds", name, last_ms)
    labels, hours = windows.labels, seconds / 3600
    spoken = [Spoken(*row) for row in truth[list(Spoken._fields)].itertuples(index=False, name=None)]
    smoothed = smooth(times_ms, scores, settings)
    found, words = compare(detect(smoothed, labels, settings), spoken, keywords_of(labels), tolerance_ms)
    conditions = truth.reindex(columns=list(CONDITIONS), fill_value="")
    compared = Compared(found.assign(recording=name), pd.concat([words, conditions], axis=1).assign(recording=name))
    curve = threshold_curve(smoothed, labels, settings, spoken, hours=hours, tolerance_ms=tolerance_ms)
    return _Part(name, hours, compared, curve)


def _distinct_names(recordings: Sequence[Path]) -> dict[str, Path]:
    """The folders by name, or by path where two have one name; a folder given twice counts once."""
    folders = list(dict.fromkeys(recording.expanduser().resolve() for recording in recordings))
    short = [folder.name for folder in folders]
    return {folder.name if short.count(folder.name) == 1 else str(folder): folder for folder in folders}


def _folder_name(names: Sequence[str]) -> str:
    """The name of the folder for the results of these recordings."""
    last = [Path(name).name for name in names]
    joined = "+".join(last)
    return joined if len(joined.encode()) <= _LONGEST_NAME else f"{last[0]}+{len(last) - 1}_more"


@contextmanager
def _set_aside(name: str, bad: dict[str, str]) -> Iterator[None]:
    try:
        yield
    except KwsError as error:
        bad[name] = str(error)


def _require_some(usable: Collection[Any], bad: Mapping[str, str]) -> None:
    if not usable:
        reason, *others = bad.values()
        raise KwsError(reason + (f" (nor can the other {len(others)} recordings be used)" if others else ""))


def _read_recording(recording: Path) -> pd.DataFrame:
    """The words of a folder that also has readable audio."""
    if not recording.is_dir():
        raise KwsError(f"no folder '{recording}': give one that kws make-stream made")
    check_file(recording / AUDIO)
    if not (recording / TRUTH).exists():
        raise KwsError(f"no '{recording / TRUTH}'; if no keyword is said there, write one with the line time_ms,word")
    return read_truth(recording / TRUTH)


def _warn_of_missing(keywords: Sequence[str], words: pd.Series) -> None:
    said = words[~words.isin(keywords) & (words != SPEECH)].unique()
    folded = {keyword.casefold(): keyword for keyword in keywords}
    for word in said:
        if word.casefold() in folded:
            log.warning("'%s' is not the keyword '%s': upper and lower case differ", word, folded[word.casefold()])
    missing = [word for word in keywords if word not in words.to_numpy()]
    if len(missing) < len(keywords):
        if missing:
            log.warning("the recording has none of %s: their misses are not measured", ", ".join(missing))
    elif len(said):
        log.warning(
            "no word of the model's (%s) is said, but %s: only false accepts are counted",
            ", ".join(keywords), ", ".join(sorted(said)),
        )  # fmt: skip


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

    Of several recordings, both also have the column `recording`, and words have CONDITIONS.
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


def compute_metrics(
    compared: Compared, keywords: Sequence[str], hours: float, asked: float | None = None
) -> dict[str, Any]:
    """The metrics at one threshold.

    Args:
        compared: detections beside the truth.
        keywords: those of the model.
        hours: length of all recordings.
        asked: the false accepts an hour that the thresholds were to keep to, if any.

    Returns:
        `keywords` and `unknown_words` spoken; `correct`, `missed`, `wrong` (another keyword is spoken there, or the
        word was detected already) and `false_accepts` (no keyword is spoken there) with their rate, of these
        `false_accepts_on_other_words` (or running speech); `miss_rate` with Wilson's 95 % interval, None if no keyword
        is spoken; `latency_ms` (from a word's end to its detection) and `per_word`.
    """
    found, words = compared
    words = words[words["word"] != SPEECH]
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
        "miss_rate": 1 - correct / said if said else None,
        "miss_rate_95": wilson(said - correct, said) if said else None,
        **false_accepts(accepts, hours, asked),
        "false_accepts_per_hour_asked": asked,
        "latency_ms": dict(zip(("median", "p90", "max"), percentiles, strict=True)),
        "per_word": per_word.to_dict("index"),
    }


def _pooled(curves: Sequence[pd.DataFrame], said: int, hours: float) -> pd.DataFrame:
    """The curve of all recordings together, with the 95 % intervals of both rates: `…_low` and `…_high`."""
    curve = pd.concat(curves).groupby("threshold", as_index=False)[["correct", "wrong", "false_accepts"]].sum()
    missed = said - curve["correct"]
    misses = wilson_each(missed.to_numpy(), np.full(len(curve), said))
    accepts = np.array([poisson_rate(events, hours) for events in curve["false_accepts"]])
    return curve.assign(
        miss_rate=1 - curve["correct"] / said if said else np.nan,
        miss_rate_low=misses[:, 0], miss_rate_high=misses[:, 1], false_accepts_per_hour=curve["false_accepts"] / hours,
        false_accepts_per_hour_low=accepts[:, 0], false_accepts_per_hour_high=accepts[:, 1],
    )  # fmt: skip


def _with_intervals(points: Sequence[dict[str, Any]], curve: pd.DataFrame, hours: float) -> list[dict[str, Any]]:
    """Operating points, each with the intervals of the curve at its threshold, and what the hours say about its claim.

    None stands instead of a rate of nothing. No hours show that none at all happens, so that 0 is no claim.
    """
    by_threshold = curve.set_index("threshold")
    result = []
    for point in points:
        found: dict[str, Any] = {"miss_rate_95": None, "false_accepts_per_hour_95": None}
        if point["threshold"] is not None:
            row = by_threshold.loc[point["threshold"]]
            found = {
                "miss_rate_95": [float(row["miss_rate_low"]), float(row["miss_rate_high"])],
                **false_accepts(int(row["false_accepts"]), hours, point["false_accepts_per_hour_at_most"] or None),
            }
        result.append(point | found)
        if curve["miss_rate"].isna().any():  # no keyword is said
            result[-1] |= {"miss_rate": None, "miss_rate_95": None}
    return result


def _write(out: Path, result: dict[str, Any], curve: pd.DataFrame, compared: Compared, table: pd.DataFrame) -> None:
    """Write all files, the metrics last."""
    from kws_experiments.plots.streams import stream_figure
    from kws_experiments.plots.style import save

    detections = compared.detections.drop(columns="on_speech").round({"score": 4})
    write_text(out / "detections.csv", to_csv(detections))
    write_text(out / "words.csv", to_csv(compared.words))
    write_text(out / "by_condition.csv", to_csv(table.round(6)))
    with replace_file(out / "curve.parquet") as temporary:
        curve.to_parquet(temporary, index=False)
    save(stream_figure(curve, result, compared.latency_ms()), out / "stream.png")
    write_text(out / "metrics.json", json.dumps(result, indent=2) + "\n")


def show(result: dict[str, Any], table: pd.DataFrame) -> None:
    """Print the operating points, misses and false accepts by condition, then all at the chosen threshold."""
    from kws_experiments.console.tables import by_column, print_table
    from kws_experiments.plots.streams import chosen

    headings = ("false accepts an hour, at most", "missed", "95 %", "threshold", "false accepts an hour, 95 %", "claim")
    rows = [
        (
            f"{point['false_accepts_per_hour_at_most']:g}", _percent(point["miss_rate"]),
            _percents(point["miss_rate_95"]), f"{point['threshold']:g}", _rates(point["false_accepts_per_hour_95"]),
            claim(point, point["false_accepts_per_hour_at_most"]) if "shown" in point else "",
        )
        for point in result["operating_points"]
        if point["threshold"] is not None
    ]  # fmt: skip
    print_table(by_column(headings, rows), title="Fewest misses", numeric=headings)
    _show_conditions(result, table)
    misses = "no keyword is said"
    if result["keywords"]:
        misses = (
            f"of {result['keywords']} keywords {result['correct']} correct, {result['missed']} missed "
            f"({_percent(result['miss_rate'])}, 95 %: {_percents(result['miss_rate_95'])})"
        )
    say(
        f"{chosen(result)}: {misses}; {result['wrong']} wrong detections; {result['false_accepts']} false accepts,"
        f" {result['false_accepts_on_other_words']} of them on other words or running speech: {as_text(result)}"
    )
    if not result.get("shown", True):
        say(not_shown(result, result["false_accepts_per_hour_asked"]))
    median, p90 = result["latency_ms"]["median"], result["latency_ms"]["p90"]
    if median is not None:
        say(f"detected {median:.0f} ms after the word's end (median; 90 % within {p90:.0f} ms)")


def _show_conditions(result: dict[str, Any], table: pd.DataFrame) -> None:
    """The table by condition, in which the speakers are one row: the worst tenth."""
    from kws_experiments.console.tables import by_column, print_table

    headings = ("", "keywords", "missed", "95 %", "latency", "false accepts", "an hour", "an hour, 95 %")
    rows = [
        (
            f"{row.condition} {row.value}", str(row.said), _percent(row.miss_rate if row.said else None),
            _percents((row.miss_rate_low, row.miss_rate_high) if row.said else None),
            f"{row.latency_ms:.0f} ms" if row.said > row.missed else "", str(row.false_accepts),
            "" if np.isnan(row.hours) else f"{row.false_accepts_per_hour:.1f}",
            "" if np.isnan(row.hours) else _rates((row.false_accepts_per_hour_low, row.false_accepts_per_hour_high)),
        )
        for row in table[table["condition"] != "speaker"].itertuples()
    ]  # fmt: skip
    worst = result["worst_speakers"]
    if worst is not None:
        name = f"worst {len(worst['speakers'])} of {worst['of']} speakers"
        interval = _percents(wilson(worst["missed"], worst["said"]))
        rows.append((name, str(worst["said"]), _percent(worst["miss_rate"]), interval, "", "", "", ""))
    if rows:
        print_table(by_column(headings, rows), title="By condition", numeric=headings[1:])
    if worst is not None:
        say(f"the speakers with the most misses: {', '.join(worst['speakers'])}")


def _percent(fraction: float | None) -> str:
    return "none said" if fraction is None else f"{fraction:.1%}"


def _percents(interval: Sequence[float] | None) -> str:
    return "" if interval is None else " to ".join(f"{100 * bound:.1f}" for bound in interval)


def _rates(interval: Sequence[float]) -> str:
    return " to ".join(f"{bound:.1f}" for bound in interval)
