"""Folders of more clips of the task's words: their splits, their classes, and which of them a network is trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import soundfile

from kws_data.catalog import UNKNOWN
from kws_data.errors import KwsError
from kws_data.pipeline import batches, training_plan
from kws_data.splits import TESTING, TRAINING, VALIDATION
from kws_data.streams.source import StreamSource
from kws_data.task import Task
from kws_experiments.config.compose import compose
from kws_experiments.experiment.data import Data, prepare_data
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.streaming.open_source import open_source
from tests.conftest import SAMPLE_RATE, MakeFolder, folder_maker, tone


def add(root: Path, paths: list[str], frequency: float = 2000) -> Path:
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / path, tone(frequency + 7 * number), SAMPLE_RATE)
    return root


def experiment_of(root: Path, word_dirs: list[Any], words: str = "yes,no,marvin", *overrides: str) -> Experiment:
    task = ["task=custom", "task.unknown=true", f"task.words=[{words}]"]
    config = compose(["dataset=folder", f"dataset.path={root}", *task, *overrides])
    config["task"]["word_dirs"] = word_dirs
    return Experiment(config)


def counts(data: Data, folder: str) -> dict[tuple[str, str], int]:
    """Examples from a folder by (label, split)."""
    rows = data.examples[data.examples["folder"] == folder]
    return rows.groupby([rows["label"].map(dict(enumerate(data.labels))), "split"]).size().to_dict()


def test_clips_join_their_words_and_others_the_unknown_class_of_training(
    make_folder: MakeFolder, tmp_path: Path
) -> None:
    """All for training; at any depth; noise and files beside the words' folders are passed over."""
    root = make_folder()
    mine = add(tmp_path / "mine", ["marvin/anna/1.wav", "marvin/2.wav", "yes/1.wav", "shop/1.wav", "9.wav"])
    add(mine / "_background_noise_", ["hum.wav"])
    data = prepare_data(experiment_of(root, [str(mine)]))
    assert counts(data, "mine") == {("marvin", TRAINING): 2, ("yes", TRAINING): 1, (UNKNOWN, TRAINING): 1}
    assert data.labels == ["_silence_", UNKNOWN, "yes", "no", "marvin"]


def test_lists_are_kept_to_but_real_clips_are_not_joined_by_others_to_judge_on(tmp_path: Path) -> None:
    """Of a word that the data set has held-out clips of, those of a folder beside it are not used."""
    root = folder_maker(tmp_path)()
    mine = add(tmp_path / "mine", [f"{word}/{name}.wav" for word in ("yes", "marvin", "shop") for name in "abc"])
    for split, name in ((VALIDATION, "a"), (TESTING, "b")):
        lines = "".join(f"{word}/{name}.wav\n" for word in ("yes", "marvin", "shop"))
        (mine / f"{split}_list.txt").write_text(lines)
    plain = prepare_data(experiment_of(root, [], "yes,no"))
    data = prepare_data(experiment_of(root, [str(mine)]))
    assert counts(data, "mine") == {
        ("yes", TRAINING): 1, ("marvin", TRAINING): 1, (UNKNOWN, TRAINING): 1,
        ("marvin", VALIDATION): 1, ("marvin", TESTING): 1,
    }  # fmt: skip
    before = plain.examples[plain.examples["split"] != TRAINING]
    after = data.examples[(data.examples["split"] != TRAINING) & (data.examples["folder"] == "")]
    assert set(before["path"]) <= set(after["path"])
    for split, others in ((TRAINING, {"bed", "shop"}), (VALIDATION, {"bed"}), (TESTING, {"bed"})):
        stream = StreamSource.of_split(data.corpus, {"yes", "no", "marvin"}, split)
        assert set(data.corpus.clips["word"][stream.unknown]) == others
        assert "marvin" in set(data.corpus.clips["word"][stream.keywords])


def test_streams_have_the_clips_of_unknown_folders(make_folder: MakeFolder, tmp_path: Path) -> None:
    """Those of word folders that aren't the task's words are for training."""
    strange = add(tmp_path / "strange", ["train/1.wav", "test/2.wav"])
    mine = add(tmp_path / "mine", ["train/shop/1.wav", "test/shop/2.wav", "test/yes/1.wav"], frequency=2500)
    folders = [f"task.unknown_dirs=[{strange}]", f"task.word_dirs=[{mine}]"]
    data = ["dataset=folder", f"dataset.path={make_folder()}", "task=custom", "task.words=[yes,no]"]
    source = open_source([*data, *folders])
    assert set(source.corpus.clips["folder"][source.unknown]) == {"", "strange"}


def test_folders_of_splits_above_the_words_are_no_words(tmp_path: Path) -> None:
    """Their test clips would be trained on, as unknown."""
    mine = add(tmp_path / "mine", [f"{split}/marvin/{split}.wav" for split in ("train", "val", "test")])
    add(mine, ["train/shop/1.wav", "test/shop/2.wav"], frequency=2500)
    data = prepare_data(experiment_of(folder_maker(tmp_path)(), [str(mine)]))
    assert counts(data, "mine") == {
        ("marvin", TRAINING): 1, ("marvin", VALIDATION): 1, ("marvin", TESTING): 1, (UNKNOWN, TRAINING): 1,
    }  # fmt: skip


def test_one_list_without_the_other_is_refused_and_unmatched_lines_are(tmp_path: Path) -> None:
    root = folder_maker(tmp_path)()
    mine = add(tmp_path / "mine", [f"marvin/{name}.wav" for name in "abc"])
    (mine / "testing_list.txt").write_text("marvin\\b.wav\nmarvin/gone.wav\n")
    with pytest.raises(KwsError, match=r"task\.word_dirs: .*mine' has only one of validation_list.txt and testing"):
        prepare_data(experiment_of(root, [str(mine)]))
    (mine / "validation_list.txt").touch()
    with pytest.raises(KwsError, match=r"1 of 2 lines name no file: line 2: 'marvin/gone.wav'"):
        prepare_data(experiment_of(root, [str(mine)]))
    lists = ["split=lists", "split.unmatched_percentage=100"]
    for split in (VALIDATION, TESTING):
        (root / f"{split}_list.txt").write_text(
            "".join(
                f"{w}/{p.name}\n"
                for w in ("yes", "no")
                for p in sorted((root / w).iterdir())[:: 5 if split == VALIDATION else 7]
            )
        )
    data = prepare_data(experiment_of(root, [str(mine)], "yes,no,marvin", *lists))
    assert counts(data, "mine") == {("marvin", TRAINING): 2, ("marvin", TESTING): 1}


def test_clips_recorded_as_unknown_join_the_unknown_class(make_folder: MakeFolder, tmp_path: Path) -> None:
    mine = add(tmp_path / "mine", [f"{UNKNOWN}/1.wav", f"{UNKNOWN}/2.wav", "marvin/1.wav"])
    data = prepare_data(experiment_of(make_folder(), [str(mine)]))
    assert counts(data, "mine") == {("marvin", TRAINING): 1, (UNKNOWN, TRAINING): 2}


def test_clips_of_a_word_that_was_unknown_become_the_words(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder(words=("yes", "no", "bed", "marvin"))
    mine = add(tmp_path / "mine", ["marvin/1.wav"])
    data = prepare_data(experiment_of(root, [str(mine)]))
    rows = data.examples[data.examples["word"] == "marvin"]
    assert len(rows) == 21
    assert set(rows["label"]) == {data.labels.index("marvin")}


def test_the_network_is_never_given_the_few_clips(make_folder: MakeFolder, tmp_path: Path) -> None:
    """Neither as examples, nor mixed into others."""
    mine = add(tmp_path / "mine", [f"marvin/{number}.wav" for number in range(4)], frequency=3000)
    overrides = ["augment=small_data", "augment.waveform.mixup.probability=1"]
    entry = {"path": str(mine), "few": True}
    experiment = experiment_of(make_folder(), [entry], "yes,no,marvin", *overrides)
    data = prepare_data(experiment)
    assert counts(data, "mine") == {("marvin", TRAINING): 4}
    source = experiment.clip_source(data.corpus, data.examples)
    few = set(data.examples.index[data.examples["folder"] == "mine"])
    plan = training_plan(source, 50)
    for batch in batches(source, TRAINING, plan, augmentation=experiment.augmentation, steps=4, threads=1):
        assert few.isdisjoint(batch["ids"].numpy().tolist())
        assert data.labels.index("marvin") not in batch["second_labels"].numpy()
    everything = experiment_of(source.corpus.roots[0], [str(mine)], "yes,no,marvin", *overrides)
    everything_data = prepare_data(everything)
    assert few < set(everything.clip_source(everything_data.corpus, everything_data.examples).ids(TRAINING))


def test_unreadable_clips_are_set_aside_and_none_at_all_is_the_users_mistake(
    make_folder: MakeFolder, tmp_path: Path
) -> None:
    root, mine = make_folder(), add(tmp_path / "mine", ["marvin/1.wav"])
    (mine / "marvin" / "2.wav").write_bytes(b"no sound")
    data = prepare_data(experiment_of(root, [str(mine)]))
    assert data.corpus.set_aside["path"].tolist() == ["marvin/2.wav"]
    (mine / "marvin" / "1.wav").unlink()
    with pytest.raises(KwsError, match=r"task\.word_dirs: .*mine' holds no usable clip \(first of 1 set aside"):
        prepare_data(experiment_of(root, [str(mine)]))
    with pytest.raises(KwsError, match=r"task\.word_dirs: no folder .*nowhere"):
        prepare_data(experiment_of(root, [str(tmp_path / "nowhere")]))
    with pytest.raises(KwsError, match=r"word_dirs: .*is inside"):
        prepare_data(experiment_of(root, [str(root / "yes")]))


@pytest.mark.parametrize(
    ("dirs", "message"),
    [
        ([{"few": True}], r"word_dirs must list paths"),
        ([{"path": "a", "share": 1}], r"word_dirs must list paths"),
        ([{"path": "a", "few": "yes"}], r"word_dirs: few of 'a' must be true or false"),
        (["a/x", "b/x"], r"unknown_dirs and word_dirs must have different names"),
        ("a", r"word_dirs must be a list"),
    ],
)
def test_wrong_entries_are_refused_by_name(dirs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Task(["yes"], word_dirs=dirs)


def test_a_made_data_set_is_an_entry_and_nothing_else_with_a_target_is() -> None:
    from kws_experiments.config.allowed import refused_in_config

    made = {"_target_": "kws_data.sources.datasets.Synthetic", "words": ["marvin"], "clips_per_word": 10}
    experiment = experiment_of(Path("nowhere"), [made])
    assert experiment.task.word_folders[0].dataset.words == ["marvin"]
    assert refused_in_config(experiment.config) is None
    foreign = experiment_of(Path("nowhere"), [{"_target_": "os.system", "command": "true"}])
    assert "task.word_dirs.0 names os.system" in (refused_in_config(foreign.config) or "")
