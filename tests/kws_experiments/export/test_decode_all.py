"""`kws export --format saved_model --decode all`: what the graph decodes and resamples is what `kws label` reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from kws_data.errors import KwsError
from kws_experiments.export.artifact import Artifact, read_artifact
from kws_experiments.export.convert import convert
from kws_experiments.export.export_run import export_run
from kws_experiments.export.formats.base import Options, Request
from kws_experiments.export.load import load_scorer
from kws_experiments.export.scorer import run_facts
from kws_experiments.inference.label import label
from kws_experiments.runs.trust import sign
from tests.untrained import untrained_run

pytestmark = pytest.mark.slow

SMALL = ["model=ds_cnn_s", "model.filters=16", "model.num_blocks=2", "features=log_mel_20ms"]
# features without a logarithm, which would show the last bit of what a resampled file holds where it is silent
LINEAR = ["model=simple_audio", "features=stft"]

# A process that has neither this project nor its requirements at hand; export.json says what to look up
BARE = """
import json, pkgutil, sys
from concurrent.futures import ThreadPoolExecutor

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("kws_data", "kws_models", "kws_experiments", "soundfile", "soxr", "scipy"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NotInstalled())
import tensorflow as tf

folder, files, bad = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
for name in json.load(open(folder + "/export.json"))["requires"]:
    pkgutil.resolve_name(name)
model = tf.saved_model.load(folder + "/saved_model")
score = lambda file: tf.nn.softmax(model(tf.constant(file))["predictions"])[0].numpy().tolist()
scores = [score(file) for file in files]
with ThreadPoolExecutor(4) as pool:
    assert list(pool.map(score, files)) == scores, "calls at the same time get in each other's way"
reasons = []
for file in bad:
    try:
        model(tf.constant(file))
    except tf.errors.OpError as error:
        reasons.append(error.message)
    else:
        reasons.append("")
print(json.dumps([scores, reasons]))
"""


def exported(run: Path) -> tuple[Path, Artifact]:
    """`kws export --decode all` without its child process and without data."""
    out = run / "exports" / "saved_model-none-all"
    out.mkdir(parents=True)
    convert(Request(run, out, "saved_model", clip_samples=run_facts(run).clip_samples, decode="all")).write(out)
    return out, read_artifact(out)


def test_a_bare_process_scores_files_of_every_kind_and_rate_as_kws_label_does(real_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow_io", reason="the stack without tensorflow-io")
    run = untrained_run(tmp_path / "run", *LINEAR)
    out, artifact = exported(run)
    clips = tmp_path / "clips"
    clips.mkdir()
    sources = [sorted((real_data / word).glob("*.wav"))[0] for word in ("yes", "no", "stop")]
    for number, source in enumerate(sources):
        samples, own_rate = soundfile.read(source)
        for rate in (8000, 16000, 44100):
            at_rate = soxr.resample(samples, own_rate, rate)
            stereo = np.stack([at_rate, 0.5 * at_rate], axis=1)
            for suffix in ("wav", "flac", "ogg", "mp3"):
                soundfile.write(clips / f"{number}_{rate}.{suffix}", stereo if number == 1 else at_rate, rate)
            soundfile.write(clips / f"{number}_{rate}_24.wav", at_rate, rate, subtype="PCM_24")
            soundfile.write(clips / f"{number}_{rate}_32.wav", at_rate, rate, subtype="PCM_32")
            soundfile.write(clips / f"{number}_{rate}_float.wav", stereo, rate, subtype="FLOAT")
    bad = {
        "empty.ogg": "the file is empty",
        "text.mp3": "neither WAV, FLAC, Ogg nor MP3",
        "clip.opus": "Opus",
        "law.wav": "not supported: a WAV of encoding",
        "cut.flac": "",
    }
    (tmp_path / "empty.ogg").write_bytes(b"")
    (tmp_path / "text.mp3").write_text("not audio\n" * 100)
    soundfile.write(tmp_path / "clip.opus", samples, own_rate, format="OGG", subtype="OPUS")
    soundfile.write(tmp_path / "law.wav", samples, own_rate, subtype="ALAW")
    content = (clips / "0_16000.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(content[: len(content) // 2])

    files = sorted(clips.iterdir())
    command = ["-I", "-c", BARE, str(out), json.dumps([str(file) for file in files])]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, *command, json.dumps([str(tmp_path / name) for name in bad])],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    scores, reasons = json.loads(done.stdout)

    labels = load_scorer(run).labels
    labelled, failed = label(run, files, top=len(labels), figures=None)
    assert not failed
    expected = np.array([[dict(clip.top)[word] for word in labels] for clip in labelled])
    assert [clip.path for clip in labelled] == files
    assert np.ptp(expected, axis=0).max() > 0.3, "the clips' scores are to differ"
    apart = np.abs(np.array(scores) - expected).max(axis=1)
    for file, difference in zip(files, apart, strict=True):
        assert difference < 0.001, file.name
    for (name, wanted), reason in zip(bad.items(), reasons, strict=True):
        assert reason, name
        assert wanted in reason
    assert artifact.decode == "all"
    assert all(name in artifact.notes[0] for name in artifact.requires)


def test_what_the_front_end_needs_is_registered_too(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow_io", reason="the stack without tensorflow-io")
    out, artifact = exported(untrained_run(tmp_path / "run", *SMALL, "features=micro", "clip_ms=null"))
    assert len(artifact.requires) == 2
    sign(out)  # a SavedModel is a program
    assert load_scorer(out).scores(np.zeros((1, 16000))).shape == (1, 4)


def test_without_tensorflow_io_one_line_says_which_extra_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # pretend that nothing is installed
    with pytest.raises(KwsError, match=r"^--decode all needs tensorflow-io .*: pip install -e '.\[io\]'$"):
        export_run(untrained_run(tmp_path / "run", *SMALL), Options("saved_model", decode="all"))
