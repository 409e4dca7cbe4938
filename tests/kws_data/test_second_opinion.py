from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from kws_data import second_opinion
from kws_data.errors import KwsError
from kws_data.second_opinion import Opinion, opinions

# Stands in for Python: a child that dies over some files, as tensorflow-io does over damaged ones
DIES = """#!{python}
import json, os, sys
root, *paths = json.load(sys.stdin)
print("ready", flush=True)
for path in paths:
    if "crash" in path:
        os.kill(os.getpid(), 11)
    if "endless" in path:
        sys.exit("Timeout (0:00:30)!")
    if "raises" in path:
        sys.exit("MemoryError")
    if "realtime" in path:
        os.kill(os.getpid(), 40)
    print(json.dumps({{"path": path}}), flush=True)
"""


@pytest.fixture
def clips(real_data: Path, tmp_path: Path) -> Path:
    """Real speech in every kind of file that tensorflow-io decodes."""
    folder = tmp_path / "clips" / "yes"
    folder.mkdir(parents=True)
    for number, source in enumerate(sorted((real_data / "yes").iterdir())[:3]):
        shutil.copy(source, folder / f"{number}.wav")
        samples, rate = soundfile.read(source)
        for suffix in ("flac", "ogg", "mp3"):
            soundfile.write(folder / f"{number}.{suffix}", np.stack([samples, 0.5 * samples], axis=1), rate)
        soundfile.write(folder / f"{number}_24.flac", samples, rate, subtype="PCM_24")
    return folder.parent


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*"))


def test_real_speech_is_decoded_as_tensorflow_io_decodes_it(clips: Path) -> None:
    pytest.importorskip("tensorflow_io", reason="the stack without tensorflow-io")
    samples, rate = soundfile.read(clips / "yes" / "0.wav")
    soundfile.write(clips / "yes" / "clip.opus", samples, rate, format="OGG", subtype="OPUS")
    (clips / "yes" / "empty.ogg").write_bytes(b"")
    soundfile.write(clips / "yes" / "law.wav", samples, rate, subtype="ALAW")

    found = list(opinions(clips, files(clips)))

    assert [opinion.path for opinion in found] == files(clips)
    different = {opinion.path: opinion for opinion in found if opinion != Opinion(opinion.path)}
    assert different == {
        "yes/clip.opus": Opinion("yes/clip.opus", "not supported: an Ogg file of Opus, or not of Vorbis"),
        "yes/empty.ogg": Opinion("yes/empty.ogg", "the file is empty", ours=False),
        "yes/law.wav": Opinion("yes/law.wav", "not supported: a WAV of encoding 6 with 8 bits"),
    }


@pytest.mark.parametrize(
    ("suffix", "change", "difference"),
    [
        (
            "flac",
            lambda pcm, rate: (pcm + (np.arange(len(pcm)) == 3), rate),
            "1 of 16000 samples differ, by up to 1 of",
        ),
        ("ogg", lambda pcm, rate: (pcm + (np.arange(len(pcm)) == 3), rate), ""),
        ("ogg", lambda pcm, rate: (pcm + 2, rate), "16000 of 16000 samples differ, by up to 2 of 32768"),
        ("mp3", lambda pcm, rate: (pcm[1:], rate), "15999 samples here, 16000 there"),
        ("wav", lambda pcm, rate: (pcm, 8000), "8000 Hz here, 16000 Hz there"),
        ("wav", lambda pcm, rate: None, "it decodes 16000 samples"),
    ],
)
def test_what_is_decoded_otherwise_is_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, change, difference: str
) -> None:
    tf = pytest.importorskip("tensorflow")
    generator = np.random.default_rng(0)
    pcm = generator.integers(-9000, 9000, 16000).astype(np.int16)
    path = tmp_path / f"clip.{suffix}"
    soundfile.write(path, pcm, 16000)
    monkeypatch.setattr(second_opinion, "_decoded", lambda file: change(pcm, 16000))
    theirs = tf.constant(pcm[:, np.newaxis] / 32768.0, tf.float32), tf.constant(16000)

    opinion = second_opinion._opinion(tmp_path, path.name, lambda file: theirs)

    assert opinion.difference.startswith(difference)
    assert bool(opinion.difference) == bool(difference)
    assert opinion.ours == (change(pcm, 16000) is not None)


def test_a_decoder_that_dies_or_never_ends_costs_one_file(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("1_crash.wav", "2_crash.wav", "2_endless.wav", "2_raises.wav", "2_realtime.wav"):
        shutil.copy(clips / "yes" / "0.wav", clips / "yes" / name)
    (clips / "yes" / "9_crash.wav").write_bytes(b"RIFF")
    python = tmp_path / "python"
    python.write_text(DIES.format(python=sys.executable))
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))

    found = list(opinions(clips, files(clips)))

    assert [opinion.path for opinion in found] == files(clips)
    assert {opinion.path: (opinion.reason, opinion.ours) for opinion in found if opinion.reason} == {
        "yes/1_crash.wav": ("its process ends with SIGSEGV", True),
        "yes/2_crash.wav": ("its process ends with SIGSEGV", True),
        "yes/2_endless.wav": ("it takes too long", True),
        "yes/2_raises.wav": ("its process ends with MemoryError", True),
        "yes/2_realtime.wav": ("its process ends with signal 40", True),
        "yes/9_crash.wav": ("its process ends with SIGSEGV", False),
    }


def test_a_tensorflow_io_that_does_not_work_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\necho 'Traceback …' >&2\necho 'NotImplementedError: unable to open file' >&2\nexit 1\n"
    )
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))
    with pytest.raises(KwsError, match=r"^tensorflow-io does not work here: NotImplementedError: unable to open file$"):
        list(opinions(tmp_path, ["yes/0.wav"]))
