"""How runs listen: what a person experiences as words missed and as reactions to talk.

    python -m benchmarks.listening RUN… [--split validation] [--seeds 100,101] [--minutes 30] [--snrs-db 15,0]
        [--speech FOLDER] [--speech-hours 0.5] [--csv FILE]

The runs of a recipe, one for each training seed; rows hold each and the mean. Clips, noise and speakers are of
`--split`; `--split testing` is for the very end. Measured for each run:

- *clips*: accuracy, and recall of other words, of the split's clips;
- *missed at 1 %*: keywords missed by the score that 1 % of other words pass; these are all clips of other words, 20
  variants each, with a drawn offset, level and noise (5 to 30 dB below the speech). Its interval is by the speakers of
  both: other speakers of other words, another threshold;
- streams as `kws make-stream` makes them, of `--minutes` for each of `--seeds` and each of `--snrs-db`, at medium
  sensitivity, which `kws tune` chose before on other streams (of seeds 0, 1, 2): keywords missed, and false accepts an
  hour; and *at 2 an hour*: the fewest misses of any one threshold with at most 2 false accepts an hour on these very
  streams;
- *talk*: running speech without a keyword, synthetic or from `--speech`, at medium: events an hour, at 15 dB.

95 % intervals: over speakers (bootstrap) for misses in streams, exact (Poisson) for rates, which stand with their
hours. `--csv` keeps the row of a run as soon as it is measured: the same command, started again, goes on behind it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pandas as pd
import typer
from tqdm import tqdm

from benchmarks.options import run as run_benchmark
from benchmarks.options import table
from kws_data.audio import INT16_SCALE
from kws_data.catalog import UNKNOWN
from kws_data.draws import Draws
from kws_data.errors import KwsError
from kws_data.splits import SPLITS
from kws_data.streams.plan import StreamSettings
from kws_data.streams.source import StreamSource
from kws_data.streams.speech import SYNTHETIC
from kws_data.streams.speech_extent import speech_extent
from kws_experiments.console.tables import Console
from kws_experiments.evaluation.intervals import claim, false_accepts
from kws_experiments.runs.files import read_table
from kws_experiments.runs.folder import write_text

if TYPE_CHECKING:
    from kws_experiments.export.scorer import Scorer
    from kws_experiments.streaming.tune import Scored

VARIANTS, PASS_SHARE = 20, 0.01
LEVEL_DB, SNR_DB = (-40.0, -14.0), (5.0, 30.0)
FALSE_ACCEPTS_AN_HOUR, TALK_SNR_DB, RESAMPLES = 2.0, 15.0, 1000


def main(
    runs: Annotated[list[Path], typer.Argument(help="folders of finished and tuned runs")],
    split: Annotated[str, typer.Option(help="of clips, noise and voices")] = "validation",
    seeds: Annotated[str, typer.Option(help="of the streams, commas between")] = "100,101",
    minutes: Annotated[float, typer.Option(help="of each stream")] = 30.0,
    snrs_db: Annotated[str, typer.Option(help="speech above noise, commas between")] = "15,0",
    speech: Annotated[str, typer.Option(help="'synthetic', or a folder of recordings without a keyword")] = SYNTHETIC,
    speech_hours: Annotated[float, typer.Option(min=0, help="of running speech; 0: none")] = 0.5,
    csv: Annotated[Path | None, typer.Option(help="a table that rows are added to")] = None,
) -> None:
    if split not in SPLITS:
        raise KwsError(f"--split must be one of {', '.join(SPLITS)}, got '{split}'")
    stream_seeds, snrs = [int(seed) for seed in numbers("--seeds", seeds)], numbers("--snrs-db", snrs_db)
    options = f"{split}, seeds {seeds}, {minutes:g} min, {snrs_db} dB, {speech_hours:g} h of {speech}"
    kept = [] if csv is None else rows_of(csv)
    rows = []
    for path in runs:
        key = {"run": str(path), "measured on": options}
        row = next((row for row in kept if key.items() <= row.items()), None)
        if row is None:
            row = key | measure(path, split, stream_seeds, minutes, snrs, speech, speech_hours)
            if csv is not None:
                if kept and list(kept[0]) != list(row):
                    raise KwsError(f"--csv: '{csv}' has other columns; give another file")
                kept.append(row)
                write_text(csv, pd.DataFrame(kept).to_csv(index=False))
        rows.append(row)
    show(pd.DataFrame(rows))


def rows_of(csv: Path) -> list[dict[str, Any]]:
    """The rows of a table that an earlier call wrote; none if there is no table.

    Raises:
        KwsError: it is no such table.
    """
    if not csv.exists():
        return []
    return read_table(csv, "give another file to --csv", ["run", "measured on"], float_precision="round_trip").to_dict(
        "records"
    )


def numbers(option: str, text: str) -> list[float]:
    """Numbers with commas between.

    Raises:
        KwsError: one is none.
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise KwsError(f"{option} must be numbers with commas between, got '{text}'") from None


def measure(
    path: Path, split: str, seeds: list[int], minutes: float, snrs_db: list[float], speech: str, speech_hours: float
) -> dict[str, Any]:
    """The values of one run, by name; intervals are text beside them."""
    from kws_experiments.experiment.experiment import Experiment
    from kws_experiments.export.load import load_run
    from kws_experiments.runs.finished import FinishedRun
    from kws_experiments.streaming.listener import HOP_MS
    from kws_experiments.streaming.open_source import source_of_run
    from kws_experiments.streaming.sensitivity import settings_of
    from kws_experiments.streaming.tune import score
    from kws_experiments.streaming.windows import open_windows

    run = FinishedRun.open(path)
    if not run.listening.tuned:
        raise KwsError(f"'{path}' is not tuned; `kws tune {path}` does it")
    source = _of_data_set(source_of_run(run, Experiment(run.config), split, speech if speech_hours else None))
    found = on_clips(load_run(path), source, run.labels)
    medium = settings_of(path, "medium")
    for snr_db in snrs_db:
        streams = [StreamSettings(minutes, (snr_db, snr_db), seed=seed, speech_percentage=0) for seed in seeds]
        scored = [score(source, open_windows(path, HOP_MS), [stream]) for stream in streams]
        speakers = [_speakers(source, stream) for stream in streams]
        found |= {f"{snr_db:g} dB: {name}": value for name, value in on_words(scored, speakers, medium).items()}
    if speech_hours:
        talk = StreamSettings(60 * speech_hours, (TALK_SNR_DB, TALK_SNR_DB), seed=seeds[0])
        events = _outcomes(score(source, open_windows(path, HOP_MS), [talk]), medium)[1]
        rate = false_accepts(events, speech_hours)
        low, high = rate["false_accepts_per_hour_95"]
        found |= {
            "talk: events an hour": rate["false_accepts_per_hour"], "talk: interval": f"{low:.1f} to {high:.1f}",
            "talk: hours": speech_hours,
        }  # fmt: skip
    return found


def _of_data_set(source: StreamSource) -> StreamSource:
    """Without the clips of folders beside the data set: the same for all runs."""
    own = set(source.corpus.clips.index[source.corpus.clips["folder"] == ""])
    keywords, unknown = ([row for row in rows if row in own] for rows in (source.keywords, source.unknown))
    return replace(source, keywords=np.array(keywords, int), unknown=np.array(unknown, int))


def on_clips(scorer: Scorer, source: StreamSource, labels: list[str]) -> dict[str, Any]:
    """Of single clips: accuracy on words, recall of other words, and misses where 1 % of their variants pass."""
    length = scorer.clip_samples
    assert length is not None

    def whole(row: int) -> np.ndarray:
        samples = source.samples(row)[:length] / np.float32(INT16_SCALE)
        return np.pad(samples, (0, length - len(samples)))

    words = source.corpus.clips["word"]
    keywords = [label for label in labels if not label.startswith("_")]
    columns = [labels.index(word) for word in keywords]
    said = scorer.scores(np.stack([whole(row) for row in source.keywords]))
    other = scorer.scores(np.stack([whole(row) for row in source.unknown]))
    truth = words[source.keywords].map(labels.index).to_numpy()
    variants = np.concatenate(
        [scorer.scores(_variants(source, row, length)) for row in tqdm(source.unknown, "variants")]
    )
    threshold = float(np.quantile(variants[:, columns].max(axis=1), 1 - PASS_SHARE))
    best = np.where(said.argmax(axis=1) == truth, said[np.arange(len(said)), truth], 0.0)
    speakers = source.corpus.clips["speaker"]
    low, high = _missed_interval(
        best, speakers[source.keywords].to_numpy(), variants[:, columns].max(axis=1).reshape(-1, VARIANTS),
        speakers[source.unknown].to_numpy(),
    )  # fmt: skip
    return {
        "keywords right": float((said.argmax(axis=1) == truth).mean()),
        "other words right": float((other.argmax(axis=1) == labels.index(UNKNOWN)).mean()),
        "variants taken for a keyword": float(np.isin(variants.argmax(axis=1), columns).mean()),
        "missed at 1 %": float((best <= threshold).mean()),
        "missed at 1 %, interval": f"{low:.1%} to {high:.1%}",
    }


def _missed_interval(
    keywords: np.ndarray, who: np.ndarray, others: np.ndarray, who_else: np.ndarray
) -> tuple[float, float]:
    """95 % (bootstrap): scores of keywords [clips] and of other words [clips, VARIANTS], and their speakers."""
    generator = np.random.default_rng(0)

    def drawn(scores: np.ndarray, speakers: np.ndarray) -> np.ndarray:
        each = [scores[speakers == speaker] for speaker in np.unique(speakers)]
        return np.concatenate([each[index] for index in generator.integers(len(each), size=len(each))])

    missed = [
        (drawn(keywords, who) <= np.quantile(drawn(others, who_else), 1 - PASS_SHARE)).mean() for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(missed, [2.5, 97.5])
    return float(low), float(high)


def _variants(source: StreamSource, row: int, length: int) -> np.ndarray:
    """[VARIANTS, length] float32: a clip of another word at other times and levels, in noise of the split."""
    rate = source.corpus.sample_rate
    samples = source.samples(row).astype(np.float64) / INT16_SCALE
    begin, end = speech_extent(source.samples(row), rate)
    word = samples[begin:end][:length]
    draws = Draws(0, 0, np.arange(row * VARIANTS, (row + 1) * VARIANTS))
    noise = source.corpus.noise.windows(source.split, draws, "variant noise", np.full(VARIANTS, length)) / INT16_SCALE
    levels, ratios = (
        10 ** (sign * (low + (high - low) * draws.uniform(stage)[:, 0]) / 20)
        for stage, sign, (low, high) in (("variant level", 1, LEVEL_DB), ("variant ratio", -1, SNR_DB))
    )
    places = draws.integers("variant place", length - len(word) + 1)
    word = word / max(np.sqrt(np.mean(word**2)), 1e-9)
    result = np.zeros((VARIANTS, length))
    for number, (level, ratio, place) in enumerate(zip(levels, ratios, places, strict=True)):
        rms = np.sqrt(np.mean(noise[number] ** 2))
        result[number] = noise[number] * (level * ratio / rms if rms else 0)
        result[number, place : place + len(word)] += level * word
    return np.clip(result, -1, 1).astype(np.float32)


def on_words(scored: list[Scored], speakers: list[np.ndarray], medium: Any) -> dict[str, Any]:
    """Misses and false accepts at medium sensitivity, and the fewest misses at FALSE_ACCEPTS_AN_HOUR."""
    hours = sum(one.hours for one in scored)
    missed, accepts = zip(*(_outcomes(one, medium) for one in scored), strict=True)
    who = pd.DataFrame({"speaker": np.concatenate(speakers), "missed": np.concatenate(missed)})
    who = who[who["missed"] >= 0]
    by_speaker = who.groupby("speaker")["missed"].agg(["sum", "size"]).to_numpy()
    drawn = np.random.default_rng(0).integers(len(by_speaker), size=(RESAMPLES, len(by_speaker)))
    sums = by_speaker[drawn].sum(axis=1)
    low, high = np.percentile(sums[:, 0] / sums[:, 1], [2.5, 97.5])
    rate = false_accepts(sum(accepts), hours, FALSE_ACCEPTS_AN_HOUR)
    return {
        "keywords": len(who),
        "missed": float(who["missed"].mean()),
        "missed, interval": f"{low:.1%} to {high:.1%}",
        "false accepts an hour": rate["false_accepts_per_hour"],
        "false accepts, interval": "{:.1f} to {:.1f}".format(*rate["false_accepts_per_hour_95"]),
        "hours": hours,
        f"at most {FALSE_ACCEPTS_AN_HOUR:g} an hour": claim(rate, FALSE_ACCEPTS_AN_HOUR),
        "missed at 2 an hour": _fewest_misses(scored, medium, hours),
    }


def _fewest_misses(scored: list[Scored], medium: Any, hours: float) -> float:
    from kws_experiments.streaming.curve import smooth, threshold_curve
    from kws_experiments.streaming.recognize import keywords_of
    from kws_experiments.streaming.tune import TOLERANCE_MS

    curves = [
        threshold_curve(
            smooth(one.times_ms, one.scores, medium), one.labels, medium, one.truth, hours=one.hours,
            tolerance_ms=TOLERANCE_MS,
        )
        for one in scored
    ]  # fmt: skip
    keywords = sum(word.word in keywords_of(one.labels) for one in scored for word in one.truth)
    correct = sum(curve["correct"].to_numpy() for curve in curves)
    accepts = sum(curve["false_accepts"].to_numpy() for curve in curves)
    return float(1 - correct[accepts <= FALSE_ACCEPTS_AN_HOUR * hours].max() / keywords)


def _outcomes(scored: Scored, settings: Any) -> tuple[np.ndarray, int]:
    """([spoken words] 1 for a missed keyword, 0 for one that is not, -1 for other words; false accepts)."""
    from kws_experiments.streaming.curve import detect, smooth
    from kws_experiments.streaming.matching import CORRECT, FALSE_ACCEPT, match
    from kws_experiments.streaming.recognize import keywords_of
    from kws_experiments.streaming.tune import TOLERANCE_MS

    keywords = keywords_of(scored.labels)
    found = detect(smooth(scored.times_ms, scored.scores, settings), scored.labels, settings)
    matching = match(found, scored.truth, keywords, TOLERANCE_MS)
    missed = np.array([1 if word.word in keywords else -1 for word in scored.truth])
    outcomes = np.array(matching.outcomes, dtype=object)
    missed[matching.spoken[outcomes == CORRECT].astype(int)] = 0
    return missed, matching.outcomes.count(FALSE_ACCEPT)


def _speakers(source: StreamSource, stream: StreamSettings) -> np.ndarray:
    from kws_data.streams.plan import plan_words

    return plan_words(source, stream)["speaker"].to_numpy()


def show(rows: pd.DataFrame) -> None:
    """Print a table with a column for each run, and one for the mean."""
    printed = table("How runs listen", ["value"], [*(str(number + 1) for number in range(len(rows))), "mean"])
    for name in rows.columns.drop(["run", "measured on"]):
        values = rows[name]
        if values.map(lambda value: isinstance(value, str)).any():
            printed.add_row(name, *values, "")
            continue
        printed.add_row(name, *map(form_of(name).format, [*values, values.mean()]))
    Console().print(printed)
    for number, run in enumerate(rows["run"], 1):
        print(f"{number}: {run}")


def form_of(name: str) -> str:
    """How the numbers of a row are written: hours, rates an hour and counts as they are, all else in percent."""
    if name.endswith("hours"):
        return "{:.2f}"
    if name.endswith("keywords"):
        return "{:.0f}"
    return "{:.1f}" if "an hour" in name and "missed" not in name else "{:.1%}"


if __name__ == "__main__":
    run_benchmark(main)
