"""The `kws` command, as typed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from PIL import Image

from kws_data import catalog
from kws_data.errors import KwsError
from kws_data.second_opinion import Opinion
from kws_data.splits import hash_split
from kws_experiments.cli import main as cli
from kws_experiments.config.compose import compose
from kws_experiments.experiment.data import prepare_data
from kws_experiments.experiment.experiment import Experiment
from tests.conftest import ROOT, SAMPLE_RATE, MakeFolder, tone
from tests.kws_experiments.conftest import Kws


def test_list_names_every_published_set(kws: Kws) -> None:
    result = kws("data", "list")

    assert result.status == 0
    for name in ("v0.01", "v0.02", "mini", "test_set_v0.02", "synthetic"):
        assert name in result.out


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_catalog(kws: Kws, make_folder: MakeFolder, tmp_path: Path, suffix: str) -> None:
    root, out = make_folder(), tmp_path / f"catalog{suffix}"
    (root / "yes" / "broken_nohash_0.wav").write_bytes(b"")

    result = kws("data", "catalog", root, "--split", "hash", "--out", out)

    assert result.status == 0, result.err
    table = pd.read_csv(out, keep_default_na=False) if suffix == ".csv" else pd.read_parquet(out)
    assert len(table) == 20 * 3 + 2 + 1
    assert list(table.loc[table["error"] != "", "path"]) == ["yes/broken_nohash_0.wav"]
    good = table[table["error"] == ""]
    assert set(good.loc[good["word"] != "_background_noise_", "num_samples"]) == {SAMPLE_RATE}
    for row in table.itertuples():
        assert row.split == hash_split(str(row.speaker), 10, 10)
    assert "63 files, 1 of them set aside" in result.out


def test_catalog_of_real_clips_obeys_their_lists(kws: Kws, real_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "catalog.parquet"

    assert kws("data", "catalog", real_data, "--split", "lists", "--out", out).status == 0

    counts = pd.read_parquet(out).query("word != '_background_noise_'")["split"].value_counts()
    assert counts.to_dict() == {"training": 2599, "testing": 521, "validation": 348}


def test_describe_prints_and_draws(kws: Kws, make_folder: MakeFolder, tmp_path: Path) -> None:
    figure = tmp_path / "clips.png"

    result = kws("data", "describe", make_folder(), "--split", "speaker", "--figure", figure)

    assert "clips: 60; speakers: 20; hours: 0.02; noise recordings: 2" in result.out
    assert Image.open(figure).size[0] > 500


def test_describe_prints_the_cautions_of_a_training_on_the_same_clips(
    kws: Kws, real_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    overrides = ["dataset=folder", f"dataset.path={real_data}", "task=custom", "task.silence=false"]
    with caplog.at_level("INFO"):
        prepare_data(Experiment(compose([*overrides, "task.unknown=false"])))
    _, *of_training, _ = caplog.messages  # between what is decoded, and what there is
    assert [line.split()[0] for line in of_training] == ["testing_list.txt", "no", "no", "very", "94%"]

    result = kws("data", "describe", real_data)

    _, *lines = result.out[result.out.index("\nclips: ") + 1 :].splitlines()
    assert lines == of_training


def test_describe_names_the_split_without_which_nothing_is_trained(kws: Kws, make_folder: MakeFolder) -> None:
    root = make_folder(speakers=1)
    with pytest.raises(KwsError, match="no clip of the task's words is for training"):
        prepare_data(Experiment(compose(["dataset=folder", f"dataset.path={root}", "task=custom"])))

    assert kws("data", "describe", root).out.splitlines()[-1].startswith("no clip is for training: nothing can be")


def test_options_are_expanded_as_the_shell_expands_arguments(
    kws: Kws, make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    result = kws("data", "catalog", make_folder(), "--split", "hash", "--out=~/catalog.csv")
    assert result.status == 0, result.err
    assert (tmp_path / "catalog.csv").is_file()


def test_verify_lists_what_cannot_be_used(kws: Kws, make_folder: MakeFolder) -> None:
    root = make_folder()
    assert kws("data", "verify", root).status == 0

    soundfile.write(root / "no" / "nan.wav", np.full(100, np.nan), SAMPLE_RATE, subtype="FLOAT")
    result = kws("data", "verify", root)

    assert result.status == 1
    assert "no/nan.wav: holds samples that are not finite" in result.out


def test_verify_prints_second_opinions(kws: Kws, make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder(words=("yes",), speakers=4)
    names = [path.relative_to(root).as_posix() for path in sorted((root / "yes").iterdir())]

    def found(folder: Path, paths: list[str]) -> list[Opinion]:
        assert folder == root
        assert set(names) < set(paths)
        others = [Opinion(path) for path in paths if path not in names]
        return [Opinion(names[0], difference="3 samples here, 4 there"), Opinion(names[1], "not supported: x"),
                Opinion(names[2], "empty", ours=False), Opinion(names[3]), *others]  # fmt: skip

    monkeypatch.setattr("kws_data.second_opinion.require_tensorflow_io", lambda option: None)
    monkeypatch.setattr("kws_data.second_opinion.opinions", found)
    result = kws("data", "verify", root, "--decoder", "tensorflow-io")

    assert result.status == 1
    assert f"{names[0]}: tensorflow-io differs: 3 samples here, 4 there" in result.out
    assert f"{names[1]}: tensorflow-io cannot decode it: not supported: x" in result.out
    assert f"{names[2]}: tensorflow-io" not in result.out
    assert "tensorflow-io: 3 files are the same, 1 differ, 1 it cannot decode, 1 are refused by both" in result.out


def test_verify_says_what_a_second_decoder_needs(
    kws: Kws, make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder(words=("yes",), speakers=2)
    assert "--decoder must be tensorflow-io, got 'ffmpeg'" in kws("data", "verify", root, "--decoder", "ffmpeg").err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = kws("data", "verify", root, "--decoder", "tensorflow-io")
    assert "--decoder tensorflow-io needs tensorflow-io" in result.err
    assert "pip install -e '.[io]'" in result.err


def test_features_are_one_array_in_sorted_order(kws: Kws, make_folder: MakeFolder, tmp_path: Path) -> None:
    root, out = make_folder(words=("b", "a"), noise=False, speakers=3), tmp_path / "features.npy"

    result = kws("data", "features", root / "b", root / "a", "--features", "mfcc", "--out", out)

    assert result.status == 0, result.err
    array = np.load(out)
    assert array.shape == (6, 98, 40)
    assert array.dtype == np.float32
    alone = tmp_path / "alone.npy"
    first = sorted((root / "a").iterdir())[0]
    kws("data", "features", first, "--features", "mfcc", "--out", alone)
    np.testing.assert_allclose(np.load(alone)[0], array[0], atol=1e-4)


def test_verify_decodes_everything_anew(
    kws: Kws, real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = catalog._walk
    # as on a file system without inodes and change times
    monkeypatch.setattr(catalog, "_walk", lambda *a, **o: ((*row[:3], 0, 0, row[5]) for row in walk(*a, **o)))
    for word in ("yes", "no"):
        shutil.copytree(real_data / word, tmp_path / "clips" / word)
    assert kws("data", "verify", tmp_path / "clips").status == 0
    clip = next((tmp_path / "clips" / "yes").iterdir())
    status = clip.stat()
    clip.write_bytes(b"no sound" * (status.st_size // 8) + b"n" * (status.st_size % 8))
    os.utime(clip, ns=(status.st_atime_ns, status.st_mtime_ns))
    result = kws("data", "verify", tmp_path / "clips")
    assert result.status == 1
    assert f"yes/{clip.name}: cannot be decoded" in result.out


def test_folders_of_splits_are_described_by_their_words(kws: Kws, make_folder: MakeFolder, tmp_path: Path) -> None:
    out = tmp_path / "catalog.csv"
    for split in ("training", "testing"):
        make_folder(f"both/{split}", words=("yes", "no"), noise=split == "training")

    assert kws("data", "catalog", tmp_path / "both", "--out", out).status == 0
    assert set(pd.read_csv(out)["word"]) == {"yes", "no", "_background_noise_"}
    assert kws("data", "catalog", tmp_path / "both", "--out", out, "--layout", "words").status == 0
    assert set(pd.read_csv(out)["word"]) == {"training", "testing"}


def test_a_list_of_more_than_the_folder_is_shown_not_refused(kws: Kws, make_folder: MakeFolder) -> None:
    root = make_folder(words=("yes",))
    for name in ("validation_list.txt", "testing_list.txt"):
        (root / name).write_text("yes/absent.wav\n")

    result = kws("data", "describe", root, "--split", "lists")

    assert result.status == 0
    assert "1 of 1 lines name no file: line 1: 'yes/absent.wav'" in result.log


def test_features_of_a_folder_without_what_systems_leave_behind(
    kws: Kws, make_folder: MakeFolder, tmp_path: Path
) -> None:
    root = make_folder(words=("yes",), noise=False, speakers=3)
    (root / "yes" / "._a.wav").write_bytes(b"\0\5\x16\7")
    (root / "__MACOSX").mkdir()
    (root / "__MACOSX" / "b.wav").touch()

    assert kws("data", "features", root, "--out", tmp_path / "x.npy").status == 0
    assert len(np.load(tmp_path / "x.npy")) == 3


def test_features_of_files_whose_names_are_not_utf8(kws: Kws, make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder(words=("yes",), noise=False, speakers=3)
    try:
        shutil.copy(next((root / "yes").iterdir()), os.fsencode(root) + b"/yes/caf\xe9.wav")
    except OSError:
        pytest.skip("this disk holds UTF-8 names only")

    result = kws("data", "features", root, "--out", tmp_path / "x.npy")

    assert "caf\\xe9.wav: left out, since its name is not UTF-8" in result.log
    assert len(np.load(tmp_path / "x.npy")) == 3


def test_features_draw_and_report_what_cannot_be_read(kws: Kws, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "good.flac", tone(440, 0.5, 44100), 44100)
    (tmp_path / "bad.wav").write_bytes(b"RIFFxxxx")

    result = kws("data", "features", tmp_path, "--features", "stft", "--out", tmp_path / "x.png")

    assert result.status == 1
    assert "bad.wav: cut short" in result.log
    assert "1 x 124 x 129" in result.out
    assert Image.open(tmp_path / "x.png").size[0] > 200


def test_synthesize_any_words(kws: Kws, tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")

    result = kws("data", "synthesize", "--words", "boo,shoo", "--clips-per-word", 3, "--voices", 3, "--no-noise",
                 "--out", tmp_path / "ghosts")  # fmt: skip

    assert result.status == 0, result.err
    assert sorted(path.parent.name for path in (tmp_path / "ghosts").glob("*/*.wav")) == ["boo"] * 3 + ["shoo"] * 3


def test_cache_shows_and_clears(kws: Kws, make_folder: MakeFolder, cache: Path) -> None:
    kws("data", "verify", make_folder())
    assert "stores" in kws("data", "cache").out
    assert list((cache / "stores").iterdir())

    result = kws("data", "cache", "--clear", "--kind", "stores")

    assert "freed" in result.out
    assert not list((cache / "stores").glob("[!.]*"))
    assert list((cache / "catalogs").iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["catalog", "/nowhere", "--out", "x.csv"], "dataset.path: no folder '/nowhere'"),
        (["catalog", ".", "--out", "x.txt"], "error: --out: 'x.txt' must end in .parquet or .csv"),
        (["catalog", ".", "--out", "x.csv", "--split", "luck"], "luck"),
        (["features", "/nowhere", "--out", "x.npy"], "error: no such file or folder: '/nowhere'"),
        (["features", ".", "--features", "luck", "--out", "x.npy"], "luck"),
        (["download", "v9"], "v9"),
        (["describe", ""], "error: an argument is empty"),
        (["describe", ".", "--layout", "luck"], "error: --layout must be one of auto, words, splits, got 'luck'"),
    ],
)
def test_mistakes_are_one_line(
    kws: Kws, arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert message in kws("data", *arguments).error()


def test_a_folder_without_clips(kws: Kws, tmp_path: Path) -> None:
    (tmp_path / "yes").mkdir()
    shutil.copy(__file__, tmp_path / "yes" / "clip.wav")

    assert "holds no usable clip" in kws("data", "describe", tmp_path).err
    assert "holds no usable clip" in kws("data", "verify", tmp_path).err


@pytest.mark.parametrize(
    "command", ["evaluate", "report", "export --format=tflite", "label", "stream", "evaluate-stream"]
)
@pytest.mark.parametrize("there", [False, True])
def test_a_wrong_folder_is_refused_before_slow_imports(tmp_path: Path, command: str, there: bool) -> None:
    folder = tmp_path / "other"
    if there:
        folder.mkdir()
    (tmp_path / "x.wav").touch()
    more = [tmp_path / "x.wav"] if command in ("label", "stream", "evaluate-stream") else []
    name, *options = command.split()
    done, imported = imported_by("-m", "kws_experiments.cli.main", name, folder, *more, *options)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert line.startswith("error: '")
    assert str(folder) in line
    assert not imported & SLOW


@pytest.mark.parametrize(
    "command",
    [
        ["train.py", "--help"],
        ["train.py", "--cfg", "job"],
        *(
            ["-m", "kws_experiments.cli.main", *name.split(), "--help"]
            for name in ("", "models", "label", "stream", "make-stream", "evaluate-stream")
        ),
    ],
)
def test_help_and_composing_do_without_slow_imports(command: list[str]) -> None:
    done, imported = imported_by(*command)
    assert done.returncode == 0, done.stderr
    assert imported & {"hydra", "typer"}
    assert not imported & SLOW


SLOW = {"tensorflow", "keras", "matplotlib", "sklearn", "librosa", "pandas", "scipy", "soundfile"}


def imported_by(*arguments: object) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """What a Python process printed, and the modules that it imported."""
    command = [sys.executable, "-X", "importtime", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done, {
        line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")
    }


def test_an_unforeseen_end_of_a_file_is_not_called_an_abort(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its traceback is worth seeing, as that of any error that nobody foresaw."""
    monkeypatch.setattr("sys.argv", ["kws", "data", "cache"])

    def ends() -> None:
        raise EOFError("no data left")

    monkeypatch.setattr("kws_data.storage.cache.cache_dir", ends)
    with pytest.raises(RuntimeError, match="ended too early: no data left"):
        cli.main()
