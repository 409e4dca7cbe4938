import builtins
import os
import signal
import subprocess
import sys
import time
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kws_data.errors import KwsError
from kws_data.sources import synthesis
from kws_data.sources.speech_engine import ENGINE_RATE, SpeechEngine
from kws_data.sources.synthesis import folder_names, synthesize
from kws_data.sources.synthetic_noise import COMPUTED_NOISES
from kws_data.sources.synthetic_voices import (
    ACCENTS,
    LONGEST_S,
    VARIANTS,
    active_span,
    draw_voices,
    place,
    random_stream,
    say,
)
from kws_data.sources.words import CORE_WORDS, V001_WORDS, V002_WORDS
from kws_data.splits import SPLITS, TESTING, TRAINING, VALIDATION, hash_split

espeakng_loader = pytest.importorskip("espeakng_loader")

NOISES = {"white_noise", "pink_noise", "brown_noise", "mains_hum", "babble", "tapping"}
SMALL = {"clips_per_word": 12, "voices": 10, "noise_seconds": 1.5, "progress": False}


def contents(root: Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


def read_wav(path: Path) -> tuple[np.ndarray, int]:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2"), file.getframerate()


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("synthetic") / "set"
    synthesize(root, words=["yes", "off", "hey marvin"], **SMALL)
    return root


@pytest.fixture(scope="module")
def engine() -> SpeechEngine:
    return SpeechEngine()


def test_word_lists():
    assert len(set(V001_WORDS)) == 30
    assert len(set(V002_WORDS)) == 35
    assert set(CORE_WORDS) < set(V001_WORDS) < set(V002_WORDS)


def test_layout_and_format(small):
    assert {entry.name for entry in small.iterdir()} == {
        *("yes", "off", "hey_marvin", "_background_noise_"),
        *("validation_list.txt", "testing_list.txt", "README.md", "LICENSE"),
    }
    for word in ("yes", "off", "hey_marvin"):
        clips = list((small / word).iterdir())
        assert len(clips) == 12
        for clip in clips:
            speaker, number = clip.stem.split("_nohash_")
            assert len(speaker) == 8
            int(speaker, 16)
            assert clip.suffix == ".wav"
            assert number in "01"  # 12 clips of 10 voices: some say the word twice
            samples, rate = read_wav(clip)
            assert (len(samples), rate) == (16_000, 16_000)
    assert "espeak-ng" in (small / "README.md").read_text()
    assert "synthetic" in (small / "LICENSE").read_text()


def test_background_noises_are_loud_but_not_clipped(small):
    files = list((small / "_background_noise_").iterdir())
    assert {file.stem for file in files} == NOISES
    for file in files:
        samples, rate = read_wav(file)
        assert (len(samples), rate) == (24_000, 16_000)
        assert np.sqrt(np.mean(np.square(samples / 32768))) > 0.01
        assert np.abs(samples.astype(int)).max() < 30_000


def test_lists_follow_the_file_name_hash(small):
    listed = {split: set((small / f"{split}_list.txt").read_text().splitlines()) for split in (VALIDATION, TESTING)}
    for clip in small.glob("[a-z]*/*.wav"):
        line, split = f"{clip.parent.name}/{clip.name}", hash_split(clip.name.split("_nohash_")[0], 10, 10)
        assert {name for name in listed if line in listed[name]} == ({split} - {TRAINING})
    assert sum(len(lines) for lines in listed.values()) >= 6  # a voice each, three words


def test_every_clip_holds_a_whole_word_over_a_noise_floor(small):
    for clip in small.glob("[a-z]*/*.wav"):
        samples, _ = read_wav(clip)
        levels = np.sqrt(np.mean(np.square(samples.astype(float).reshape(-1, 160)), axis=1))
        floor = np.sort(levels)[:5].mean()
        assert 0.5 < floor < levels.max() / 5
        active = np.flatnonzero(levels > max(4 * floor, levels.max() / 30))
        assert 0.1 <= (active[-1] - active[0] + 1) * 0.01 <= 0.95


def test_same_arguments_same_bytes_in_another_process_and_with_other_threads(small, tmp_path, monkeypatch):
    code = (
        "from pathlib import Path; from kws_data.sources import synthesis; synthesis._THREADS = 1;"
        f"synthesis.synthesize(Path({str(tmp_path / 'again')!r}), words=['yes', 'off', 'hey marvin'], **{SMALL!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
    assert contents(tmp_path / "again") == contents(small)


def test_a_word_is_the_same_whatever_else_is_said(small, tmp_path):
    synthesize(tmp_path / "alone", words=["hey marvin"], **SMALL | {"noise_seconds": 0})
    assert contents(tmp_path / "alone" / "hey_marvin") == contents(small / "hey_marvin")
    assert not (tmp_path / "alone" / "_background_noise_").exists()


def test_another_seed_gives_other_speakers_and_clips(small, tmp_path):
    synthesize(tmp_path / "other", words=["yes"], seed=1, **SMALL | {"noise_seconds": 0})
    assert not {file.name for file in (tmp_path / "other/yes").iterdir()} & {
        file.name for file in (small / "yes").iterdir()
    }


def test_telephone_rate(tmp_path):
    synthesize(tmp_path / "set", words=["boo"], sample_rate=8_000, **SMALL)
    for file in (tmp_path / "set").rglob("*.wav"):
        samples, rate = read_wav(file)
        assert rate == 8_000
        assert len(samples) == (12_000 if file.parent.name == "_background_noise_" else 8_000)


def test_more_voices_than_clips_and_words_of_other_scripts(tmp_path):
    words = ["año", "привет", "don't"]
    synthesize(tmp_path / "set", words=words, clips_per_word=4, voices=50, noise_seconds=0, progress=False)
    for word in words:
        assert len(list((tmp_path / "set" / word).iterdir())) == 4


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 150), seed=st.integers(0, 2**40))
def test_a_tenth_of_the_voices_in_validation_and_in_testing(count, seed):
    voices = draw_voices(count, seed)
    splits = [hash_split(voice.speaker, 10, 10) for voice in voices]
    share = 0 if count < 3 else max(1, (count + 5) // 10)
    assert [splits.count(split) for split in SPLITS] == [count - 2 * share, share, share]
    assert len({voice.speaker for voice in voices}) == count


def test_voices_sound_the_same_however_many_there_are():
    few, many = draw_voices(5, seed=3), draw_voices(80, seed=3)
    assert [(voice.engine_voice, voice.pitch, voice.tilt) for voice in few] == [
        (voice.engine_voice, voice.pitch, voice.tilt) for voice in many[:5]
    ]
    assert len({voice.engine_voice for voice in many}) >= 60


def test_any_run_of_voices_is_balanced():
    splits = [hash_split(voice.speaker, 10, 10) for voice in draw_voices(100, seed=0)] * 2
    for start in range(100):
        run = splits[start : start + 20]
        assert run.count(VALIDATION) == run.count(TESTING) == 2


def test_the_engine_has_every_voice():
    data = Path(espeakng_loader.get_data_path())
    assert {path.name for path in (data / "voices" / "!v").iterdir()} >= set(VARIANTS)
    assert {path.name for path in (data / "lang" / "gmw").iterdir()} >= set(ACCENTS)


def test_speech_does_not_depend_on_what_was_said_before(engine):
    before = engine.speak("marvin", "en-US+f3", pitch=60)
    engine.speak("something else", "en-GB-scotland+klatt3", rate_wpm=300, noise_seed=7)
    assert np.array_equal(engine.speak("marvin", "en-US+f3", pitch=60), before)
    assert np.array_equal(SpeechEngine().speak("marvin", "en-US+f3", pitch=60), before)


def test_variants_accents_and_settings_make_a_difference(engine):
    spoken = {engine.speak("four", f"en-US+{variant}").tobytes() for variant in VARIANTS}
    assert len(spoken) == len(VARIANTS)
    assert len({engine.speak("stop", f"{accent}+m3").tobytes() for accent in ACCENTS}) == len(ACCENTS)
    normal = engine.speak("seven", "en-US+m3")
    assert len(engine.speak("seven", "en-US+m3", rate_wpm=300)) < 0.8 * len(normal)
    assert not np.array_equal(engine.speak("seven", "en-US+m3", pitch=80)[: len(normal)], normal)


def test_the_engine_starts_from_a_deep_folder(tmp_path, monkeypatch):
    deep = tmp_path.joinpath(*["a folder of some length"] * 10, "espeak-ng-data")
    deep.parent.mkdir(parents=True)
    deep.symlink_to(espeakng_loader.get_data_path())
    monkeypatch.setattr(espeakng_loader, "get_data_path", lambda: str(deep))
    assert len(SpeechEngine().speak("yes", "en-US")) > 0.2 * ENGINE_RATE


def test_long_phrases_are_said_faster_and_words_are_never_cut(engine):
    voice = draw_voices(1, seed=0)[0]
    slow = engine.speak("backward and forward", voice.engine_voice, rate_wpm=voice.rate_wpm)
    start, stop = active_span(slow, ENGINE_RATE)
    assert (stop - start) / ENGINE_RATE / voice.formant_scale > LONGEST_S
    word = say(engine, "backward and forward", voice, random_stream(0, "test"), 16_000)
    assert len(word) < 16_000
    # The loud parts of the word stand in the clip at some offset, all of them.
    clip = place(word, voice, random_stream(0, "test"), 16_000)
    match = np.correlate(clip / 32768, word, mode="valid")
    offset = int(np.argmax(match))
    part = clip[offset : offset + len(word)] / 32768
    assert np.corrcoef(part, word)[0, 1] > 0.98


def test_too_long_a_phrase_leaves_nothing_behind(tmp_path):
    words = ["yes", "supercalifragilistic expialidocious and some more"]
    with pytest.raises(KwsError, match="expialidocious and some more' does not fit"):
        synthesize(tmp_path / "set", words=words, **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_a_word_that_the_engine_passes_over_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(SpeechEngine, "speak", lambda *args, **settings: np.zeros(500, np.int16))
    with pytest.raises(KwsError, match="nothing to say for 'yes'"):
        synthesize(tmp_path / "set", words=["yes"], **SMALL | {"noise_seconds": 0})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        *([], [""], ["  "], ["a/b"], ["a\\b"], ["_silence_"], [".hidden"], [".."], ["end."], ["a\0b"], ["what?"]),
        *(["yes", "yes"], ["yes", "Yes"], ["hey marvin", "hey_marvin"], ["x" * 300], "yes"),
    ],
)
def test_bad_words(tmp_path, words):
    with pytest.raises(KwsError, match=r"^words") as caught:
        synthesize(tmp_path / "set", words=words, **SMALL)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.text(max_size=30), max_size=4))
def test_folder_names_are_single_folders_or_an_error(words):
    try:
        folders = folder_names(words)
    except KwsError:
        return
    assert len(folders) == len(words) > 0
    for name in folders:
        assert Path(name).parts == (name,)
        assert not name.startswith(("_", "."))
        assert name.isprintable()


@pytest.mark.parametrize(
    "wrong",
    [{"clips_per_word": 0}, {"voices": 0}, {"seed": -1}, {"sample_rate": 1000}, {"noise_seconds": 0.5}],
)
def test_bad_numbers(tmp_path, wrong):
    with pytest.raises(KwsError, match=f"^{next(iter(wrong))} must be"):
        synthesize(tmp_path / "set", words=["yes"], **SMALL | wrong)


def test_a_used_target_is_refused_and_kept(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("set", "file"):
        with pytest.raises(KwsError, match="new or an empty folder"):
            synthesize(tmp_path / name, words=["yes"], **SMALL)
    assert contents(tmp_path) == {"set/mine.txt": b"mine", "file": b"mine"}


def test_an_empty_target_is_filled(tmp_path):
    (tmp_path / "set").mkdir()
    synthesize(tmp_path / "set", words=["yes"], clips_per_word=2, voices=2, noise_seconds=0, progress=False)
    assert len(list((tmp_path / "set" / "yes").iterdir())) == 2
    assert (tmp_path / "set" / "validation_list.txt").read_text() == ""  # two voices: both for training


def test_an_error_in_mid_way_leaves_nothing_behind(tmp_path, monkeypatch):
    def full_disk(path, samples, sample_rate):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(synthesis, "write_wav", full_disk)
    with pytest.raises(KwsError, match="No space left"):
        synthesize(tmp_path / "set", words=["yes"], **SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_behind(tmp_path):
    target = str(tmp_path / "set")
    imports = "from pathlib import Path; from kws_data.sources.synthesis import synthesize"
    code = f"{imports}; synthesize(Path({target!r}), clips_per_word=1000)"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".set.*/*/*.wav")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "KeyboardInterrupt" in errors
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_the_error_says_what_to_install(tmp_path, monkeypatch):
    real_import = builtins.__import__

    def no_engine(name, *args, **kwargs):
        if name == "espeakng_loader":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_engine)
    with pytest.raises(KwsError, match=r"pip install -e '\.\[speech\]'"):
        synthesize(tmp_path / "set", words=["yes"], **SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "slope_db"), [("white_noise", 0), ("pink_noise", -3), ("brown_noise", -6)])
def test_noise_colours(name, slope_db):
    make = next(make for make in COMPUTED_NOISES if make.__name__ == name)
    noise = make(160_000, 16_000, random_stream(0, "test"))
    power = np.square(np.abs(np.fft.rfft(noise)))
    octaves = np.array([10 * np.log10(power[10 * low : 20 * low].mean()) for low in (125, 250, 500, 1000, 2000)])
    assert np.allclose(np.diff(octaves), slope_db, atol=0.7)
