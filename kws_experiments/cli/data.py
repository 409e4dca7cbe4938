"""`kws data …`: get data sets, look into them, and use the catalog and the features on their own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kws_data.errors import KwsError
from kws_experiments.console.output import say

if TYPE_CHECKING:
    import pandas as pd

    from kws_data.layout import Naming
    from kws_data.splits import SplitPolicy

app = typer.Typer(
    no_args_is_help=True, help="Data sets: list, get, make, check and describe them; catalogs and features."
)

SpeakerPattern = Annotated[str | None, typer.Option(help="for names without _nohash_")]
Layout = Annotated[str, typer.Option(help="auto, words, or splits (folders such as training/ above the words')")]
Overrides = Annotated[list[str] | None, typer.Argument(help="overrides as train.py takes them: dataset=… split=…")]


@app.command("list")
def list_() -> None:
    """List the published data sets, and which are here."""
    from kws_data.sources.archives import ARCHIVES
    from kws_data.storage.cache import datasets_dir
    from kws_experiments.console.tables import by_column, print_table

    headings, rows = ("name", "clips", "archive", "here"), []
    for name, archive in ARCHIVES.items():
        size = "" if archive.bytes is None else f"{archive.bytes / 1e6:,.0f} MB"
        here = datasets_dir() / name
        clips = f"{archive.clips:,}" if archive.clips else ""
        rows.append((name, clips, size, str(here) if here.is_dir() else "no"))
    rows.append(("synthetic", "3,000", "made by text-to-speech", "kws data synthesize, or by training"))
    print_table(by_column(headings, rows), keep=headings)


@app.command()
def download(name: Annotated[str, typer.Argument(help="v0.01, v0.02, mini, test_set_v0.01 or test_set_v0.02")]) -> None:
    """Download, verify and extract a published data set into the cache folder (KWS_DATA); goes on where it stopped."""
    from kws_data.sources.archives import named
    from kws_data.sources.download import fetch

    archive = named(name)
    say(fetch(archive))
    say(f"licence: {archive.licence}")
    say(f"please cite: {archive.citation}")


@app.command()
def synthesize(
    out: Annotated[Path, typer.Option(help="the folder to make; must not hold anything yet")],
    words: Annotated[str | None, typer.Option(help="comma-separated; default: the 30 words of v0.01")] = None,
    clips_per_word: Annotated[int, typer.Option(min=1)] = 100,
    voices: Annotated[int, typer.Option(min=1)] = 100,
    seed: int = 0,
    sample_rate: Annotated[int, typer.Option(min=4000, help="Hz")] = 16000,
    noise: Annotated[bool, typer.Option(help="add a _background_noise_ folder")] = True,
) -> None:
    """Make a data set of any words by text-to-speech, in the layout of Speech Commands."""
    from kws_data.sources.synthesis import synthesize as make
    from kws_data.sources.words import V001_WORDS

    chosen = list(V001_WORDS) if words is None else [word.strip() for word in words.split(",")]
    make(
        out, words=chosen, clips_per_word=clips_per_word, voices=voices, seed=seed, sample_rate=sample_rate,
        noise_seconds=60.0 if noise else 0.0,
    )  # fmt: skip
    say(out)


@app.command()
def catalog(
    folder: Annotated[Path, typer.Argument(help="a folder of word folders")],
    out: Annotated[Path, typer.Option(help="a .parquet or .csv file")],
    split: Annotated[str, typer.Option(help="hash, lists, speaker or random (conf/split/)")] = "hash",
    speaker_pattern: SpeakerPattern = None,
    layout: Layout = "auto",
) -> None:
    """Write the catalog of a folder: a row per file with word, speaker, length, rate, split, and what is wrong."""
    from kws_data.catalog import set_aside
    from kws_data.storage.atomic import replace_file
    from kws_data.text import to_csv

    if out.suffix not in (".parquet", ".csv"):
        raise KwsError(f"--out: '{out}' must end in .parquet or .csv")
    _, table = _split_catalog(folder, _policy(split), _naming(speaker_pattern, layout))
    with replace_file(out) as temporary:
        if out.suffix == ".csv":
            temporary.write_text(to_csv(table), encoding="utf-8")
        else:
            table.to_parquet(temporary, index=False)
    say(f"{len(table)} files, {len(set_aside(table))} of them set aside (column error): {out}")


@app.command()
def describe(
    folder: Annotated[Path, typer.Argument(help="a folder of word folders")],
    split: Annotated[str, typer.Option(help="hash, lists, speaker or random (conf/split/)")] = "hash",
    figure: Annotated[Path | None, typer.Option(help="a .png: clips per word and split, and their lengths")] = None,
    speaker_pattern: SpeakerPattern = None,
    layout: Layout = "auto",
) -> None:
    """Print clips, speakers and hours per word and split, and what is wrong with their numbers, as a training does."""
    from kws_data import describe as tables
    from kws_data.catalog import BACKGROUND_NOISE, set_aside, usable
    from kws_experiments.console.tables import by_column, print_table
    from kws_experiments.experiment.cautions import cautions_of_words, clips_by_split, unread_lists

    if figure is not None and figure.suffix != ".png":
        raise KwsError(f"--figure: '{figure}' must end in .png")
    policy = _policy(split)
    root, table = _split_catalog(folder, policy, _naming(speaker_pattern, layout))
    is_noise = table["word"] == BACKGROUND_NOISE
    good = usable(table[~is_noise])
    if good.empty:
        raise KwsError(f"'{root}' holds no usable clip")
    headings = ("word", "split", "clips", "speakers", "hours")
    rows = [
        (row.word, row.split, str(row.clips), str(row.speakers), f"{row.hours:.3f}")
        for row in tables.summary(good).itertuples()
    ]
    print_table(by_column(headings, rows), title=str(root), keep=headings)
    hours = (good["num_samples"] / good["sample_rate"]).sum() / 3600
    say(
        f"clips: {len(good)}; speakers: {good['speaker'].nunique()}; hours: {hours:.2f};"
        f" noise recordings: {len(usable(table[is_noise]))}; files set aside: {len(set_aside(table))}"
    )
    if unread := unread_lists(root, policy):
        say(unread)
    for line in cautions_of_words(clips_by_split(good["word"], good["split"], sorted(good["word"].unique())), policy):
        say(line)
    if figure is not None:
        from kws_experiments.plots.clips import dataset
        from kws_experiments.plots.style import save

        save(dataset(good), figure)
        say(figure)


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="a folder of word folders")],
    split: Annotated[str, typer.Option(help="hash, lists, speaker or random (conf/split/)")] = "hash",
    speaker_pattern: SpeakerPattern = None,
    layout: Layout = "auto",
    decoder: Annotated[
        str | None,
        typer.Option(help="tensorflow-io: decode every file with that too (needs the extra io), and compare"),
    ] = None,
) -> None:
    """Decode every file anew; list what can't be used, and training clips that are held out too. Status 1 if any."""
    from kws_data.clip_format import ClipFormat
    from kws_data.corpus import build_corpus
    from kws_data.second_opinion import TENSORFLOW_IO, require_tensorflow_io

    if decoder is not None:
        if decoder != TENSORFLOW_IO:
            raise KwsError(f"--decoder must be {TENSORFLOW_IO}, got '{decoder}'")
        require_tensorflow_io(f"--decoder {decoder}")
    form, naming = ClipFormat(16000, 16000), _naming(speaker_pattern, layout)
    corpus = build_corpus(folder, _policy(split), form, data_seed=0, naming=naming, renew=True)
    for row in corpus.set_aside.itertuples():
        say(f"{row.path}: {row.error}")
    say(f"{len(corpus.clips)} clips are good, {len(corpus.set_aside)} files are set aside")
    differing = 0 if decoder is None else _print_second_opinions(folder)
    raise typer.Exit(1 if len(corpus.set_aside) or differing else 0)


def _print_second_opinions(folder: Path) -> int:
    """Print which of a folder's audio files tensorflow-io decodes otherwise, or cannot; the number of the former."""
    from tqdm import tqdm

    from kws_data.audio import AUDIO_SUFFIXES
    from kws_data.catalog import scan
    from kws_data.folders import find_data_set
    from kws_data.second_opinion import TENSORFLOW_IO, opinions
    from kws_data.storage.parallel import show_progress

    root = find_data_set(folder)
    paths = [path for path in scan(folder)["path"] if Path(path).suffix.lower() in AUDIO_SUFFIXES]
    differing = unread = refused = 0
    shown = show_progress(len(paths))
    for opinion in tqdm(opinions(root, paths), TENSORFLOW_IO, len(paths), unit="file", disable=not shown):
        with tqdm.external_write_mode():
            if opinion.difference:
                say(f"{opinion.path}: {TENSORFLOW_IO} differs: {opinion.difference}")
            elif opinion.reason and opinion.ours:
                say(f"{opinion.path}: {TENSORFLOW_IO} cannot decode it: {opinion.reason}")
        differing += bool(opinion.difference)
        unread += bool(not opinion.difference and opinion.reason and opinion.ours)
        refused += not opinion.ours and bool(opinion.reason)
    same = len(paths) - differing - unread - refused
    say(
        f"{TENSORFLOW_IO}: {same} files are the same, {differing} differ, {unread} it cannot decode,"
        f" {refused} are refused by both"
    )
    return differing


@app.command()
def features(
    paths: Annotated[list[Path], typer.Argument(help="audio files, or folders of them")],
    out: Annotated[
        Path, typer.Option(help="features.npy (one array [clips, frames, bins]), or a .png that draws them")
    ],
    features: Annotated[str, typer.Option(help="one of conf/features/")] = "log_mel",
    clip_ms: Annotated[int, typer.Option(min=10, help="files are padded or cut to this")] = 1000,
    clip_from: Annotated[str, typer.Option(help="of longer files: auto, start, loudest or centre")] = "auto",
    sample_rate: Annotated[int, typer.Option(min=1000, help="Hz")] = 16000,
) -> None:
    """Compute features of files, in sorted order: clips that can't be read are listed and left out (status 1)."""
    from kws_data.clip_format import ClipFormat
    from kws_experiments.inference import feature_files

    try:
        form = ClipFormat(sample_rate, round(clip_ms * sample_rate / 1000), clip_from)
    except ValueError as error:
        raise KwsError(f"--clip-from: {error}") from error
    failed = feature_files.write(paths, out, features=features, form=form)
    raise typer.Exit(1 if failed else 0)


@app.command()
def preview(
    out: Annotated[Path, typer.Option(help="the folder to make, or an older preview")],
    overrides: Overrides = None,
    clips: Annotated[int, typer.Option(min=1, max=64)] = 12,
    epoch: Annotated[int, typer.Option(min=0, help="draw as this pass over the data does")] = 0,
    config_dir: Annotated[Path | None, typer.Option(help="a folder of your own configs, as train.py takes it")] = None,
) -> None:
    """Draw training clips before and after augmentation, write them as WAVs, and a page that plays them."""
    from kws_experiments.config.compose import compose
    from kws_experiments.reports.preview import PAGE, write

    write(compose(overrides or [], config_dir), out, clips=clips, epoch=epoch)
    say(out / PAGE)


@app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="remove instead of showing")] = False,
    kind: Annotated[
        str | None, typer.Option(help="datasets, archives, catalogs, stores or features; default: all")
    ] = None,
    name: Annotated[str | None, typer.Option(help="one entry; default: all")] = None,
) -> None:
    """Show what the cache folder holds, or clear it."""
    from kws_data.storage import cache as store
    from kws_experiments.console.tables import by_column, print_table

    if clear:
        freed = store.clear(kind, name)
        say(f"freed {freed / 1e6:,.1f} MB in {store.cache_dir()}")
        return
    if kind is not None and kind not in store.KINDS:
        raise KwsError(f"--kind: no kind '{kind}'; there are {', '.join(store.KINDS)}")
    headings = ("kind", "name", "size", "clips", "changed")
    rows = [
        (
            entry.kind, entry.name, f"{entry.bytes / 1e6:,.1f} MB", str(entry.clips or ""),
            f"{entry.modified:%Y-%m-%d %H:%M}",
        )
        for entry in store.entries()
        if (kind or entry.kind) == entry.kind and (name or entry.name) == entry.name
    ]  # fmt: skip
    print_table(by_column(headings, rows), title=str(store.cache_dir()), keep=headings)


def _split_catalog(folder: Path, policy: SplitPolicy, naming: Naming) -> tuple[Path, pd.DataFrame]:
    from kws_data.folders import find_data_set
    from kws_data.layout import split_catalog

    table = split_catalog(folder, policy, naming)
    return find_data_set(folder), table


def _naming(speaker_pattern: str | None, layout: str) -> Naming:
    from kws_data.layout import Naming

    try:
        return Naming(speaker_pattern, layout)
    except ValueError as error:
        raise KwsError(f"--{error}") from error


def _policy(name: str) -> Any:
    """The split policy of `conf/split/<name>.yaml`; a list's lines that name no clip are only shown here."""
    from kws_data.splits import ListSplit
    from kws_experiments.config.compose import compose, instantiate

    policy = instantiate(compose([f"split={name}"]), "split")
    if isinstance(policy, ListSplit):
        policy.unmatched_percentage = 100.0
    return policy
