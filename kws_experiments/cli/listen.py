"""`kws label`, `demo`, `stream`, `make-stream`, `evaluate-stream` and `tune`: a model on clips and on long audio."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kws_data.errors import KwsError
from kws_experiments.console.output import say, say_document

if TYPE_CHECKING:
    from kws_experiments.streaming.listener import Detection, Listener
    from kws_experiments.streaming.recognize import RecognizerSettings

Model = Annotated[Path, typer.Argument(help="the folder of a finished run, or of an export")]
HopMs = Annotated[float, typer.Option(help="from window to window; a multiple of the front end's step saves most work")]
Sensitivity = Annotated[
    str | None,
    typer.Option(help="low, medium or high, as kws tune chose them; default: medium if it did, else the original's"),
]
AverageWindowMs = Annotated[
    float | None, typer.Option(help="scores of this stretch of time are averaged; the original's: 500")
]
Threshold = Annotated[float | None, typer.Option(help="of all words: an averaged score above it; the original's: 0.7")]
SuppressionMs = Annotated[
    float | None, typer.Option(help="no other detection for this time after one; the original's: 500")
]
MinimumCount = Annotated[int | None, typer.Option(help="averages of fewer windows are ignored; the original's: 4")]
Rule = Annotated[str | None, typer.Option(help="when a word is new: per-word, or original, with its settings")]


def label(
    model: Annotated[Path, typer.Argument(help="the folder of a finished run, or of an export")],
    files: Annotated[list[Path], typer.Argument(help="WAV, FLAC, Ogg or MP3 files, or folders; in alphabetical order")],
    top: Annotated[int, typer.Option(min=1, help="classes to print for each file")] = 3,
    csv: Annotated[bool, typer.Option("--csv", help="print CSV")] = False,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    out: Annotated[Path | None, typer.Option(help="write to this .csv or .json file instead of printing")] = None,
    figures: Annotated[
        Path | None, typer.Option(help="a folder for a PNG of each file: a bar chart of the scores, the spectrogram")
    ] = None,
) -> None:
    """Label audio files: the classes with the highest scores. Files that can't be read are listed (status 1)."""
    if csv + json + (out is not None) > 1:
        raise KwsError("--csv, --json, --out: choose one")
    if out is not None and out.suffix not in (".csv", ".json"):
        raise KwsError(f"--out: '{out}' must end in .csv or .json")
    _check_model(model)
    from kws_experiments.inference import label as label_files

    labelled, failed = label_files.label(model, files, top=top, figures=figures)
    if out is not None:
        label_files.write(out, labelled)
        say(out)
    elif csv:
        say_document(label_files.as_csv(labelled))
    elif json:
        say_document(label_files.as_json(labelled))
    else:
        label_files.show(labelled)
    raise typer.Exit(1 if failed else 0)


def demo(
    run: Annotated[Path, typer.Argument(help="the folder of a finished run")],
    host: Annotated[str, typer.Option(help="the address to serve at; 0.0.0.0 lets others in")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 7860,
) -> None:
    """Serve a page that records or takes a file, shows scores and features, and listens; until Ctrl-C."""
    _check_model(run)
    from kws_experiments.inference import demo_page

    demo_page.serve(run, host=host, port=port)


def stream(
    model: Model,
    audio: Annotated[Path | None, typer.Argument(help="a WAV, FLAC, Ogg or MP3 file of any length")] = None,
    microphone: Annotated[bool, typer.Option("--microphone", help="listen to it until Ctrl-C")] = False,
    device: Annotated[str | None, typer.Option(help="of the microphone: a number, or part of its name")] = None,
    hop_ms: HopMs = 40.0,
    sensitivity: Sensitivity = None,
    average_window_ms: AverageWindowMs = None,
    threshold: Threshold = None,
    suppression_ms: SuppressionMs = None,
    minimum_count: MinimumCount = None,
    rule: Rule = None,
    unknown: Annotated[bool, typer.Option("--unknown", help="print _unknown_ as well")] = False,
    json_lines: Annotated[bool, typer.Option("--json", help="print a JSON object a line")] = False,
    labels: Annotated[Path | None, typer.Option(help="also write an Audacity label track to this file")] = None,
) -> None:
    """Find words in long audio: print the time, word and score of each as soon as it is found.

    The time is that of the end of the window that decided, from the beginning of the audio.
    """
    if (audio is None) != microphone:
        raise KwsError("give one audio file, or --microphone")
    _check_model(model)
    settings = _settings(
        model, sensitivity, average_window_ms=average_window_ms, detection_threshold=threshold,
        suppression_ms=suppression_ms, minimum_count=minimum_count, rule=rule,
    )  # fmt: skip
    if audio is not None:
        from kws_experiments.streaming.audio_file import check_file

        check_file(audio)
    from kws_experiments.streaming.label_track import write_label_track
    from kws_experiments.streaming.listener import open_listener

    listener = open_listener(model, settings, hop_ms=hop_ms, unknown=unknown)
    detections = _from_microphone(listener, device) if audio is None else _from_file(listener, audio)
    found = []
    try:
        for detection in detections:
            found.append((detection.time_ms, detection.time_ms, detection.word))
            if json_lines:
                say(json.dumps(detection._asdict() | {"score": round(detection.score, 4)}))
            else:
                say(f"{detection.time_ms / 1000:10.2f} s  {detection.word:<12} {detection.score:.3f}")
    finally:  # also of a file that ends badly
        if labels is not None:
            write_label_track(labels, found)


def _check_model(path: Path, *, exports: bool = True) -> None:
    """Refuse a folder that holds neither a run nor, if they are of use, an export, before the slow imports."""
    from kws_experiments.runs.files import GIVE_MODEL, GIVE_RUN
    from kws_experiments.runs.folder import RunFolder, no_run

    if not path.exists():
        raise no_run(path, GIVE_MODEL if exports else GIVE_RUN)
    if path.is_dir() and not any((folder / "export.json").is_file() for folder in (path, path.parent)):
        RunFolder(path).read_config()


def _settings(model: Path, sensitivity: str | None, **changes: Any) -> RecognizerSettings:
    from kws_experiments.streaming.sensitivity import settings_of

    with _option_named(detection_threshold="threshold"):
        return settings_of(model, sensitivity, **changes)


@contextmanager
def _option_named(**options: str) -> Iterator[None]:
    """Turn a settings' ValueError, which opens with a parameter's name, into one that opens with the option's."""
    try:
        yield
    except ValueError as error:
        name, _, rest = str(error).partition(" ")
        raise KwsError(f"--{options.get(name, name).replace('_', '-')} {rest}") from error


def _from_file(listener: Listener, audio: Path) -> Iterator[Detection]:
    from kws_experiments.streaming.audio_file import file_blocks

    began, samples = time.perf_counter(), 0
    for block in file_blocks(audio, listener.sample_rate):
        samples += len(block)
        yield from listener.feed(block)
    yield from listener.finish()
    seconds, taken = samples / listener.sample_rate, time.perf_counter() - began
    if seconds:
        say(f"{seconds:.1f} s of audio in {taken:.1f} s: real-time factor {taken / seconds:.3f}", error=True)


def _from_microphone(listener: Listener, device: str | None) -> Iterator[Detection]:
    from kws_experiments.streaming.microphone import microphone_blocks

    number = int(device) if device is not None and device.isdigit() else device
    try:
        for count, block in enumerate(microphone_blocks(listener.sample_rate, listener.windows.hop_samples, number)):
            if not count:  # there is a microphone, and it gives sound
                say("listening; Ctrl-C ends", error=True)
            yield from listener.feed(block)
    except KeyboardInterrupt:
        yield from listener.finish()


def make_stream(
    source: Annotated[
        list[str], typer.Argument(help="the folder of a run, or overrides as train.py takes them: dataset=… split=…")
    ],
    out: Annotated[Path, typer.Option(help="the folder to make, or an older stream")],
    minutes: Annotated[float, typer.Option(help="length")] = 30.0,
    snr_db: Annotated[str, typer.Option(help="speech above noise in dB: a number, or LOW,HIGH")] = "15",
    gap_ms: Annotated[str, typer.Option(help="from clip to clip: a number, or LOW,HIGH")] = "1000,3000",
    unknown_percentage: Annotated[float, typer.Option(help="words outside the task, of all words")] = 30.0,
    seed: Annotated[int, typer.Option(help="another seed, another stream")] = 0,
    speech: Annotated[
        str | None, typer.Option(help="running speech without keywords: 'synthetic', or a folder of recordings")
    ] = None,
    loop: Annotated[bool, typer.Option("--loop", help="use the recordings of --speech again and again")] = False,
    speech_percentage: Annotated[
        float | None, typer.Option(help="running speech, of all items; the rest are words; default: 100")
    ] = None,
    inside_percentage: Annotated[float, typer.Option(help="words inside running speech, of all words")] = 0.0,
    repeat_percentage: Annotated[float, typer.Option(help="words said twice in a row, of all words")] = 0.0,
    rooms: Annotated[
        list[str] | None,
        typer.Option(help="none (default), synthetic, or a folder of impulse responses; of several, one is drawn"),
    ] = None,
    channel: Annotated[
        list[str] | None, typer.Option(help="clean (default), telephone or clipped; of several, one is drawn")
    ] = None,
    level_db: Annotated[
        str, typer.Option(help="of the loudest words, of full scale: a number, or LOW,HIGH for a level that changes")
    ] = "-26",
) -> None:
    """Make a long recording to test on: words and running speech over noise, with a table of what is said when."""
    for option, given in (("--speech-percentage", speech_percentage is not None), ("--loop", loop)):
        if given and speech is None:
            raise KwsError(f"{option} is of running speech: give --speech, 'synthetic' or a folder of recordings")
    from kws_experiments.streaming.make_stream import StreamSettings, parse_range, write_stream

    with _option_named(channels="channel"):
        snr, gap, level = (
            parse_range(name, text) for name, text in (("snr_db", snr_db), ("gap_ms", gap_ms), ("level_db", level_db))
        )
        settings = StreamSettings(
            minutes, snr, gap, unknown_percentage, seed, level,
            100.0 if speech_percentage is None else speech_percentage, inside_percentage, repeat_percentage,
            tuple(rooms or ["none"]), tuple(channel or ["clean"]),
        )  # fmt: skip
    summary = write_stream(source, out, settings, speech=speech, loop=loop)
    say(f"{summary}: {out}")


def evaluate_stream(
    model: Model,
    recordings: Annotated[
        list[Path], typer.Argument(help="folders that kws make-stream made, or with the same files; all count together")
    ],
    hop_ms: HopMs = 40.0,
    sensitivity: Sensitivity = None,
    average_window_ms: AverageWindowMs = None,
    threshold: Threshold = None,
    suppression_ms: SuppressionMs = None,
    minimum_count: MinimumCount = None,
    rule: Rule = None,
    tolerance_ms: Annotated[
        float, typer.Option(help="how long before a word or after it a detection still counts as its own")
    ] = 750.0,
    out: Annotated[Path | None, typer.Option(help="the folder to write; default: RUN/streams/<their names>")] = None,
) -> None:
    """Compare detections with what was said: misses, false accepts an hour, latency; over all thresholds.

    Recordings that can't be used are listed (status 1).
    """
    _check_model(model)
    settings = _settings(
        model, sensitivity, average_window_ms=average_window_ms, detection_threshold=threshold,
        suppression_ms=suppression_ms, minimum_count=minimum_count, rule=rule,
    )  # fmt: skip
    from kws_experiments.reports.run_report import renew_run_report
    from kws_experiments.reports.stream_page import write_stream_page
    from kws_experiments.streaming.evaluate_stream import evaluate, show

    result, table, folder = evaluate(model, recordings, settings, hop_ms=hop_ms, tolerance_ms=tolerance_ms, out=out)
    write_stream_page(folder)
    if out is None:
        renew_run_report(model)
    show(result, table)
    say(folder)
    raise typer.Exit(1 if result["set_aside"] else 0)


def tune(
    run: Annotated[Path, typer.Argument(help="the folder of a finished run")],
    false_accepts_per_hour: Annotated[
        str, typer.Option(help="at most so many with low, medium and high sensitivity")
    ] = "0.5,2,10",
    snr_db: Annotated[str, typer.Option(help="speech above noise in dB: a stream for each")] = "0,10,20",
    minutes: Annotated[float, typer.Option(help="length of each stream; longer ones can show lower rates")] = 15.0,
    seed: Annotated[int, typer.Option(help="another seed, other streams")] = 0,
    repeat_percentage: Annotated[float, typer.Option(help="words said twice in a row, of all words")] = 10.0,
    speech: Annotated[
        str | None,
        typer.Option(help="also running speech without keywords: 'synthetic', or a folder of recordings"),
    ] = None,
    speech_minutes: Annotated[float, typer.Option(help="length of each stream of running speech")] = 15.0,
) -> None:
    """Choose how a run listens, on streams of its validation clips: smoothing, suppression, a threshold per word.

    What is chosen goes to RUN/listening.json as low, medium and high sensitivity.
    """
    _check_model(run, exports=False)
    from kws_data.streams.speech import check_speech
    from kws_experiments.experiment.settings import TuneSettings

    with _option_named(snrs_db="snr_db"):
        rates, snrs = (
            _numbers(name, text)
            for name, text in (("false_accepts_per_hour", false_accepts_per_hour), ("snr_db", snr_db))
        )
        settings = TuneSettings(rates, snrs, minutes, seed, repeat_percentage, speech, speech_minutes)
    check_speech(speech, "--speech")
    from kws_experiments.reports.run_report import renew_run_report
    from kws_experiments.streaming import tune as tuning

    sensitivities = tuning.tune(run, settings)
    renew_run_report(run)
    tuning.show(sensitivities)
    say(run / "listening.json")


def mine(
    run: Annotated[Path, typer.Argument(help="the folder of a finished run")],
    snr_db: Annotated[str, typer.Option(help="speech above noise in dB: a stream for each")] = "5,15",
    minutes: Annotated[float, typer.Option(help="length of each stream of words")] = 15.0,
    speech: Annotated[
        str | None,
        typer.Option(help="also running speech without keywords: 'synthetic', or a folder of recordings to train on"),
    ] = None,
    speech_minutes: Annotated[float, typer.Option(help="length of each stream of running speech")] = 60.0,
    most: Annotated[int, typer.Option(help="windows of false accepts, and of missed words, to train with")] = 300,
    epochs: Annotated[int, typer.Option(help="of the training")] = 20,
    seed: Annotated[int, typer.Option(help="another seed, other streams")] = 0,
) -> None:
    """Train a run further, as a new run, with what it hears wrongly in streams of its training clips."""
    _check_model(run, exports=False)
    from kws_data.streams.speech import check_speech
    from kws_experiments.mine import MineSettings, show
    from kws_experiments.mine import mine as train_further

    with _option_named():
        settings = MineSettings(_numbers("snr_db", snr_db), minutes, speech, speech_minutes, most, epochs, seed)
    check_speech(speech, "--speech")
    show(train_further(run, settings), run)


def _numbers(name: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{name} must be numbers with commas between, got '{text}'") from None
