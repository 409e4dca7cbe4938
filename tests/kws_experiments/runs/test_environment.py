"""What a run writes down about its environment, its code and its clips."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from kws_data.clip_format import ClipFormat
from kws_data.corpus import NoiseFolder, NoiseFolders, UnknownFolder, build_corpus
from kws_data.errors import KwsError
from kws_data.splits import HashSplit
from kws_data.task import Task
from kws_experiments.config.compose import compose, fingerprint
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.runs import environment
from kws_experiments.runs.clip_table import (
    CLASSES,
    clip_table,
    data_changes,
    read_clip_table,
    recorded_root,
    summary,
    write_clip_table,
)
from kws_experiments.runs.code_state import code_state, own_code
from kws_experiments.runs.folder import RunFolder
from tests.conftest import ROOT, SAMPLE_RATE, MakeFolder, tone

X86 = """processor\t: 0
model name\t: AMD EPYC
flags\t\t: sse2 avx2 fma

processor\t: 1
model name\t: another
flags\t\t: sse2
"""
ARM = """processor\t: 0
BogoMIPS\t: 50.00
Features\t: fp asimd sve
CPU implementer\t: 0x41
CPU part\t: 0xd40
"""
INTEL_MAC = """machdep.cpu.brand_string: Intel(R) Core(TM) i7
machdep.cpu.features: FPU SSE2
machdep.cpu.leaf7_features: AVX2
hw.optional.avx2_0: 1
hw.optional.avx512f: 0
"""
APPLE = """machdep.cpu.brand_string: Apple M2
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_SME: 0
"""


def test_processors_of_every_kind() -> None:
    assert environment.parse_cpuinfo(X86) == ("AMD EPYC", ["avx2", "fma", "sse2"])
    assert environment.parse_cpuinfo(ARM) == ("0x41 0xd40", ["asimd", "fp", "sve"])
    assert environment.parse_sysctl(INTEL_MAC) == ("Intel(R) Core(TM) i7", ["avx2", "avx2_0", "fpu", "sse2"])
    assert environment.parse_sysctl(APPLE) == ("Apple M2", ["arm.FEAT_DotProd"])
    assert environment.parse_cpuinfo("") == ("", [])
    here = environment.processor()
    assert here["model"]
    assert here["flags"]
    assert here["cores"] >= 1


def test_variables_of_arithmetic_are_kept_and_secrets_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(environment.numeric_variables()):
        monkeypatch.delenv(name)
    for name in ("TF_ENABLE_ONEDNN_OPTS", "OMP_NUM_THREADS", "PYTHONHASHSEED"):
        monkeypatch.setenv(name, "1")
    for name in ("TF_VAR_password", "TF_CPP_MIN_LOG_LEVEL", "CUDA_VISIBLE_DEVICES", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "1")

    assert list(environment.numeric_variables()) == ["OMP_NUM_THREADS", "PYTHONHASHSEED", "TF_ENABLE_ONEDNN_OPTS"]


def test_packages_are_what_is_installed() -> None:
    found = environment.packages()
    assert found["numpy"] == np.__version__
    assert {"tensorflow", "keras", "hydra-core", "pyarrow"} <= set(found)


def test_a_session_that_changes_nothing_is_not_noted_and_another_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, config = RunFolder(tmp_path), compose([])
    arithmetic = Experiment(config).arithmetic
    changed: tuple[dict[str, Any], str | None] = ({"sources": "1", "commit": None}, None)
    monkeypatch.setattr(environment, "_accelerators", list)
    monkeypatch.setattr(environment, "code_state", lambda: changed)
    environment.record_environment(folder, config, arithmetic)
    before = folder.environment.read_bytes()

    monkeypatch.chdir("/")
    environment.record_environment(folder, config, arithmetic)
    assert folder.environment.read_bytes() == before

    changed = ({"sources": "2", "commit": None}, "a difference\n")
    environment.record_environment(folder, config, arithmetic)
    sessions = environment.read_sessions(folder)
    assert [each["code"]["sources"] for each in sessions] == ["1", "2"]
    assert (tmp_path / sessions[1]["code"]["diff"]).read_text() == "a difference\n"
    assert sessions[0]["settings"]["deterministic"] is True

    environment.record_environment(folder, config, arithmetic)
    assert len(environment.read_sessions(folder)) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no environment.json"),
        ("", "is missing or damaged: start over"),
        ('{"schema_version": 1, "sessions": [', "is missing or damaged: start over"),
        ("[]", "is missing or damaged: start over"),
        ('{"schema_version": 1, "sessions": [{}]}', "is damaged: it lacks packages, processor or code"),
        ('{"schema_version": 99, "sessions": [{}]}', "has schema version 99, not 1"),
    ],
)
def test_an_environment_that_cannot_be_read_is_one_line(tmp_path: Path, content: str | None, message: str) -> None:
    folder = RunFolder(tmp_path)
    if content is not None:
        folder.environment.write_text(content)
    with pytest.raises(KwsError, match=message) as caught:
        environment.read_sessions(folder)
    assert "\n" not in str(caught.value)


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with the project's shape."""
    root = tmp_path / "checkout"
    (root / "kws_data").mkdir(parents=True)
    (root / "train.py").write_text("print(1)\n")
    (root / "kws_data" / "a.py").write_text("A = 1\n")
    git(root.parent, "init", "-q", str(root))
    git(root, "add", ".")
    git(root, "commit", "-qm", "first")
    return root


def test_a_clean_checkout_is_its_commit(checkout: Path) -> None:
    state, diff = code_state(checkout)
    assert len(state["commit"]) == 40
    assert state["dirty"] is False
    assert state["untracked"] == []
    assert diff is None


def test_uncommitted_changes_are_kept_and_can_be_applied(checkout: Path) -> None:
    clean, _ = code_state(checkout)
    (checkout / "kws_data" / "a.py").write_text("A = 2\n")
    (checkout / "new.txt").write_text("known by its name only")

    state, diff = code_state(checkout)

    assert state["dirty"] is True
    assert state["commit"] == clean["commit"]
    assert state["sources"] != clean["sources"]
    assert state["untracked"] == ["new.txt"]
    assert diff is not None
    assert state["diff_sha256"] == hashlib.sha256(diff.encode()).hexdigest()
    git(checkout, "checkout", "-q", ".")
    (checkout.parent / "code.diff").write_text(diff)
    git(checkout, "apply", str(checkout.parent / "code.diff"))
    assert (checkout / "kws_data" / "a.py").read_text() == "A = 2\n"


def test_a_large_change_is_told_by_its_hash_alone(checkout: Path) -> None:
    (checkout / "kws_data" / "a.py").write_text("A = 1\n" * 300_000)
    state, diff = code_state(checkout)
    assert diff is None
    assert state["diff_bytes"] > 1_000_000
    assert state["diff_sha256"]


def test_code_without_a_repository_of_its_own_is_told_by_its_sources(checkout: Path) -> None:
    inner = checkout / "copy"  # not tracked by the repository around it
    (inner / "kws_data").mkdir(parents=True)
    (inner / "train.py").write_text("print(1)\n")
    (inner / "kws_data" / "a.py").write_text("A = 1\n")
    state, diff = code_state(inner)
    assert (state["commit"], diff) == (None, None)
    assert state["sources"] == code_state(checkout)[0]["sources"]


def test_the_users_own_modules_and_files_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_net.py").write_text("net = 1\n")
    (tmp_path / "rooms").mkdir()
    soundfile.write(tmp_path / "rooms" / "a.wav", tone(300), SAMPLE_RATE)
    monkeypatch.syspath_prepend(tmp_path)
    __import__("my_own_net")
    config = compose(["+augment/waveform=reverb", f"augment.waveform.reverb.impulse_dir={tmp_path / 'rooms'}"])
    config["model"] = {"_target_": "my_own_net.net"}

    before = own_code(config)
    assert list(before) == ["augment.waveform.reverb.impulse_dir", "my_own_net"]
    (tmp_path / "my_own_net.py").write_text("net = 2\n")
    (tmp_path / "rooms" / "b.wav").write_bytes(b"")
    after = own_code(config)
    assert all(after[key] != before[key] for key in before)
    assert own_code(compose(["+augment/waveform=audiomentations"])) == {}


def clips_of(root: Path, tmp_path: Path) -> pd.DataFrame:
    corpus = build_corpus(
        root, HashSplit(), ClipFormat(SAMPLE_RATE, SAMPLE_RATE), data_seed=0,
        folders=[UnknownFolder(tmp_path / "unknown")],
        noise_folders=NoiseFolders([NoiseFolder(tmp_path / "hiss", 0.5)]),
    )  # fmt: skip
    task = Task(["yes", "no"], unknown_dirs=[tmp_path / "unknown"])
    return clip_table(corpus, task.examples(corpus, 0), task.labels(corpus))


@pytest.fixture
def beside(tmp_path: Path) -> None:
    """A long recording in an unknown folder, behind another file, and one of noise."""
    generator = np.random.default_rng(0)
    for folder, name, seconds in (("unknown", "a", 1.5), ("unknown", "b", 30), ("hiss", "noise", 12)):
        (tmp_path / folder).mkdir(exist_ok=True)
        samples = generator.normal(0, 0.1, int(seconds * SAMPLE_RATE))
        soundfile.write(tmp_path / folder / f"{name}.wav", samples, SAMPLE_RATE)


@pytest.mark.usefixtures("beside")
def test_every_clip_used_is_told_by_its_content(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder()
    table = clips_of(root, tmp_path)

    for row in table[table["source"] >= 0].sample(12, random_state=0).itertuples():
        samples, _ = soundfile.read(Path(row.root) / row.path, dtype="int16")
        part = samples[row.start : row.start + row.length]
        assert hashlib.blake2b(part.tobytes(), digest_size=16).hexdigest() == row.content
    long = table[table["path"] == "b.wav"]
    assert sorted(long["start"]) == [second * SAMPLE_RATE for second in range(30)]
    noise = table[table["label"] == "_background_noise_"]
    assert noise["path"].tolist() == ["_background_noise_/noise_0.wav", "_background_noise_/noise_1.wav", "noise.wav"]
    assert (table.loc[table["word"] == "_silence_", "content"] == "").all()
    assert recorded_root(table) == root

    path = tmp_path / "data" / "clips.parquet"
    write_clip_table(path, table)
    assert data_changes(read_clip_table(path), table) == {}
    first = path.read_bytes()
    write_clip_table(path, table)
    assert path.read_bytes() == first
    path.write_bytes(first[:1000])
    with pytest.raises(KwsError, match=r"clips\.parquet' is missing or damaged"):
        read_clip_table(path)


@pytest.mark.usefixtures("beside")
def test_changed_and_missing_clips_are_named(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder()
    before = clips_of(root, tmp_path)
    assert data_changes(before, clips_of(root, tmp_path)) == {}
    moved = root.rename(tmp_path / "elsewhere")
    assert data_changes(before, clips_of(moved, tmp_path)) == {}

    clip, gone = sorted((moved / "yes").iterdir())[0], sorted((moved / "no").iterdir())[3]
    soundfile.write(clip, tone(999), SAMPLE_RATE)
    changes = data_changes(before, clips_of(moved, tmp_path))
    assert changes == {"changed": [f"yes/{clip.name}"]}
    assert summary(changes) == f"1 clip changed (yes/{clip.name})"

    gone.unlink()
    changes = data_changes(before, clips_of(moved, tmp_path))
    assert changes["missing"][0] == f"no/{gone.name}"
    soundfile.write(moved / "_background_noise_" / "noise_1.wav", tone(50, 20), SAMPLE_RATE)
    assert "_background_noise_/noise_1.wav" in data_changes(before, clips_of(moved, tmp_path))["changed"]


def test_changes_are_told_in_a_line() -> None:
    changes = {CLASSES: ["yes", "no"], "missing": [f"{n}.wav" for n in range(5)], "new": ["x.wav"]}
    assert summary(changes) == (
        "the classes are now yes, no; 5 clips missing (0.wav, 1.wav, 2.wav, and 2 more); 1 clip new (x.wav)"
    )


def test_another_split_class_or_order_counts() -> None:
    table = pd.DataFrame(
        {"source": 0, "path": ["a", "b"], "start": 0, "content": ["1", "2"], "split": "training", "label": "yes"}
    )
    assert data_changes(table, table.assign(split=["training", "testing"])) == {"in another split or class": ["b"]}
    assert data_changes(table, table.assign(label=["no", "yes"])) == {"in another split or class": ["a"]}
    assert data_changes(table, table.iloc[::-1]) == {"in another order": ["a", "b"]}


@pytest.mark.parametrize("experiment", sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml")))
def test_a_configuration_comes_back_from_its_file_as_it_was(tmp_path: Path, experiment: str) -> None:
    folder, config = RunFolder(tmp_path), compose([f"experiment={experiment}", "optimizer.learning_rate=1e-7"])
    folder.write_config(config)
    assert folder.read_config() == config
    assert fingerprint(folder.read_config()) == fingerprint(config)
    assert json.dumps(folder.read_config()) == json.dumps(config)
