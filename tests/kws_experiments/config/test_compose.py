"""Every config composes, and builds where it needs no download; wrong ones are refused in one line."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.errors import HydraException

from kws_data.errors import KwsError
from kws_experiments.config.compose import compose, fingerprint, hydra_message
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.training.loggers import build_loggers
from tests.conftest import ROOT

GROUPS = sorted(path.name for path in (ROOT / "conf").iterdir() if path.is_dir())
CHOICES = [(group, path.stem) for group in GROUPS for path in sorted((ROOT / "conf" / group).glob("*.yaml"))]
FOLDER = ["dataset=folder", "dataset.path=/"]


NEEDS = {"folder": FOLDER[1:], "cnn4": ["features=log_spectrogram"]}  # choices that can't do with the defaults


EXTRAS = {
    "sweep=slurm": ("submitit", "slurm"),
    "logger=mlflow": ("mlflow", "mlflow"),
}


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_config_composes_and_builds(group: str, choice: str) -> None:
    overrides = [f"{group}={choice}", *NEEDS.get(choice, [])]
    package, extra = EXTRAS.get(overrides[0], ("hydra", ""))
    if importlib.util.find_spec(package) is None:
        with pytest.raises(KwsError, match=rf"extra '?{extra}'?: pip install"):
            build_loggers(compose(overrides))
        return
    config = compose(overrides)

    experiment = Experiment(config).check()

    assert experiment.feature_shape()[0] >= 1
    assert len(build_loggers(config)) == (group == "logger")


def test_a_choice_whose_extra_is_missing_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(KwsError, match=r"^logger=mlflow needs the extra 'mlflow': pip install -e '\.\[mlflow\]'"):
        build_loggers(compose(["logger=mlflow"]))
    missing = HydraException("In 'sweep/slurm': Could not find 'hydra/launcher/submitit_slurm'\n\nAvailable: basic")
    assert hydra_message(missing).endswith("basic; it comes with the extra slurm: pip install -e '.[slurm]'")


@pytest.mark.parametrize(
    "group",
    [
        "dataset",
        "task",
        "split",
        "augment",
        "features",
        "model",
        "optimizer",
        "schedule",
        "trainer",
        "experiment",
        "sweep",
        "logger",
        "pretrain",
        "tune",
    ],
)
def test_the_manual_names_every_choice(group: str) -> None:
    row = re.search(
        rf"^\| .*`{group}`.* \| (.*) \|$",
        (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert row is not None
    assert {choice for g, choice in CHOICES if g == group} <= set(re.findall(r"`([\w.]+)", row.group(1)))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task.words=[]"], "task.words must name at least one word"),
        (["task.words=[[no],up]"], "task.words must be text"),
        (["task.unknown_percentage=-1"], "task.unknown_percentage must be a number from 0 to 1000"),
        (["task.training_unknown_percentage=x"], "task.training_unknown_percentage must be a number from 0 to 1000"),
        (
            ["augment.background_volume=2"],
            "augment.waveform.background_noise.background_volume must be a number",
        ),
        (["features.upper_hz=9000"], "features.upper_hz"),
        (["model=cnn4", "features=mfcc_hello_edge"], "model.input_shape: cnn4 needs at least"),
        (["model=conv", "clip_ms=null"], "model.input_shape: conv flattens"),
        (["trainer.steps=5"], "trainer.epochs and steps"),
        (["trainer.monitor=luck"], "trainer.monitor must be one of"),
        (["split.testing_percentage=95"], "split.validation_percentage and testing_percentage"),
        (["schedule=piecewise", "schedule.rates=[0.1]"], "schedule.steps and rates must be lists of one length"),
        (["clip_ms=1"], "clip_ms must be a number at least 10"),
        (["clip_from=end"], "clip_from must be one of auto, start, loudest, centre"),
        (["audio.min_rate=0"], "audio.min_rate must be a whole number"),
        (["audio.levels=louder"], "audio.levels must be one of scale, set_aside, clip"),
        (["audio.muted=maybe"], "audio.muted must be one of set_aside, keep"),
        (["+audio.most=1"], "audio must hold only min_rate"),
        (["sample_rate=100"], "sample_rate must be"),
        (["model._target_=kws_models.nothing.here"], "model: "),
        (["+model.filtres=3"], "model: "),
        (["seed=abc"], "seed must be a whole number"),
        (["seed=-1"], "seed must be a whole number from 0"),
        (["deterministic=maybe"], "deterministic must be true or false"),
        (["threads.intra_op=abc"], "threads.intra_op must be a whole number"),
        (["trainer.batch_size=1.5"], "trainer.batch_size must be a whole number at least 1"),
        (["task.silence=abc"], "task.silence must be true or false"),
        (["split.validation_percentage=abc"], "split.validation_percentage must be a number"),
        (["augment.waveform=3"], "augment.waveform must hold stages by name"),
        (["augment.clipping=luck"], "augment.clipping must be one of clip, normalise, leave"),
        (["dataset.speaker_pattern=3"], "dataset.speaker_pattern must be a regular expression"),
        (["dataset.path="], "dataset.path must be a path (the current folder is .), got ''"),
        (["dataset.path=null"], "dataset.path must be a path (the current folder is .), got None"),
        (["dataset.path=' '"], "dataset.path must be a path"),
        (["dataset.layout=folders"], "dataset.layout must be one of auto, words, splits, got 'folders'"),
        (
            ["split=lists", "split.unmatched_percentage=101"],
            "split.unmatched_percentage must be a number from 0 to 100",
        ),
        (["split=lists", "split.testing_list="], "split.testing_list must be a path"),
        (["task.unknown_dirs=['']"], "task.unknown_dirs must be a path"),
        (["task.unknown_dirs=[{path: ''}]"], "task.unknown_dirs: path must be a path"),
        (["noise.dirs=['']"], "noise.dirs must be a path"),
        (["task.unknown_dirs=[{path: a, share: 1}, b]"], "task.unknown_dirs have shares that sum to 1"),
        (["task.unknown_dirs=[{path: a, share: 0.5}]", "task.unknown_percentage=0"], "task.unknown_dirs: shares"),
        (["noise.dirs=[{path: a, wight: 2}]"], "noise.dirs must list paths"),
        (["evaluation.snr_db=5"], "evaluation.snr_db must be a list"),
        (["evaluation.false_accept_rate=2"], "evaluation.false_accept_rate must be a number from 0 to 1"),
        (["schedule=piecewise", "schedule.unit=hours"], "schedule.unit must be 'steps' or 'epochs'"),
        (["schedule=piecewise", "schedule.steps=[0,1]"], "schedule.steps must be a whole number at least 1"),
        (["schedule=piecewise", "schedule.rates=[a,b]"], "schedule.rates must be a number at least 0"),
        (["schedule=cosine", "schedule.warmup=-1"], "schedule.warmup must be a number at least 0"),
        (["schedule=cosine", "schedule.final=2"], "schedule.final must be a number from 0 to 1"),
        (["schedule=exponential", "schedule.factor=0"], "schedule.factor must be a number"),
        (["schedule=exponential", "schedule.every=null"], "schedule.every must be a number"),
        (["schedule=exponential", "schedule.staircase=1"], "schedule.staircase must be true or false"),
        (["schedule=plateau", "schedule.factor=2"], "schedule.factor must be a number"),
        (["schedule=plateau", "schedule.patience=0"], "schedule.patience must be a whole number at least 1"),
        (["schedule=plateau", "schedule.min_rate=x"], "schedule.min_rate must be a number at least 0"),
        (["schedule=plateau", "schedule.monitor=loss"], "schedule.monitor must be one of val_accuracy, val_loss"),
        (["schedule=plateau", "schedule.min_change=-1"], "schedule.min_change must be a number at least 0"),
        (["optimizer.learning_rate=null"], "optimizer.learning_rate must be a number at least 0, got None"),
        (["optimizer.learning_rate=fast"], "optimizer.learning_rate must be a number at least 0, got 'fast'"),
        (["optimizer.weight_decay=-1"], "optimizer.weight_decay must be a number at least 0"),
        (["optimizer.weight_decay=some"], "optimizer.weight_decay must be a number at least 0"),
        (["optimizer.global_clipnorm=0"], "optimizer.global_clipnorm must be a number"),
        (["optimizer.global_clipnorm=1", "+optimizer.clipnorm=1"], "optimizer: Only one of `clipnorm`"),
        (["optimizer.beta_1=1"], "optimizer.beta_1 must be a number from 0"),
        (["optimizer=sgd", "optimizer.momentum=2"], "optimizer.momentum must be a number from 0 to 1"),
        (["optimizer=sgd", "optimizer.nesterov=perhaps"], "optimizer.nesterov must be true or false"),
        (["optimizer=sgd", "optimizer.nesterov=true"], "optimizer.nesterov: true does nothing without momentum"),
        (["+optimizer.use_ema=true"], "optimizer.use_ema: Keras's average is not used here; trainer.ema_momentum"),
        (["optimizer=adamw", "optimizer.weight_decay=null"], "optimizer: "),
        (["+optimizer.momentun=1"], "optimizer: "),
        (["model.first_kernel=10"], "model.first_kernel: must be two numbers of at least 1"),
        (["model.weight_decay=some"], "model.weight_decay: must be a number, at least 0, got 'some'"),
        (["model=tc_resnet8", "model.channels=16"], "model.channels: must be a list of whole numbers, 2 or more"),
        (["model=tc_resnet8", "model.width_multiplier=wide"], "model.width_multiplier: must be a number, at least 0"),
        (["model=bc_resnet_1", "model.tau=wide"], "model.tau: must be a number, at least 0.125, got 'wide'"),
        (["model=matchboxnet_3x1x64", "model.block_kernels=13"], "model.block_kernels: must be a list of whole"),
        (["model=mhatt_rnn", "model.conv_filters=[a]"], "model.conv_filters: must be a list of whole numbers of at"),
        (["model=mhatt_rnn", "model.unroll=1"], "model.unroll: must be true or false"),
        (["model=cnn4", "features=log_spectrogram", "model.filters=3"], "model.filters: must be a list of whole"),
        (["model=res8", "model.dilated=perhaps"], "model.dilated: must be true or false, got 'perhaps'"),
        (["model=simple_audio", "model.image_size=32"], "model.image_size: must be two numbers of at least 1"),
        (["trainer.batch_size=null"], "trainer.batch_size must be a whole number at least 1"),
        (["trainer.checkpoint_every=null"], "trainer.checkpoint_every must be a whole number at least 1"),
        (["trainer.checkpoint_every=0"], "trainer.checkpoint_every must be a whole number at least 1"),
        (["trainer.eval_every=0"], "trainer.eval_every must be a whole number at least 1"),
        (["trainer.epochs=null"], "trainer.epochs and steps"),
        (["trainer.label_smoothing=1"], "trainer.label_smoothing must be a number from 0 to 0.99"),
        (["trainer.word_loss=1"], "trainer.word_loss must be a number from 0 to 0.99"),
        (["trainer.distillation=1.5", "start_from=runs/a"], "trainer.distillation must be a number from 0 to 1"),
        (["trainer.distillation=0.5"], "trainer.distillation: keeps the outputs of the run in start_from, and none is"),
        (["trainer.label_smoothing=null"], "trainer.label_smoothing must be a number"),
        (["trainer.class_balance=null"], "trainer.class_balance must be one of none, weights, sampling"),
        (["trainer.class_balance=[weights]"], "trainer.class_balance must be one of"),
        (["trainer.monitor=[val_loss]"], "trainer.monitor must be one of"),
        (["trainer.ema_momentum=1"], "trainer.ema_momentum must be a number from 0"),
        (["trainer.precision=half"], "trainer.precision must be one of float32, mixed_float16, mixed_bfloat16"),
        (["trainer.jit_compile=maybe"], "trainer.jit_compile must be true or false"),
        (["trainer.print_confusion=3"], "trainer.print_confusion must be true or false"),
    ],
)
def test_wrong_values_are_refused_before_any_data_is_read(overrides: list[str], message: str) -> None:
    with pytest.raises(KwsError) as caught:
        Experiment(compose([*FOLDER, *overrides])).check()

    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_fingerprint_names_what_is_trained() -> None:
    plain = fingerprint(compose([]))

    assert fingerprint(compose(["name=other", "force=true", "pipeline.threads=7"])) == plain
    quiet = ["trainer.print_confusion=true", "trainer.tensorboard=false", "trainer.checkpoint_every=7"]
    assert fingerprint(compose([*quiet, "logger=mlflow"])) == plain
    for trained in ("trainer.ema_momentum=0.9", "trainer.jit_compile=true"):
        assert fingerprint(compose([trained])) != plain
    workers = "augment.waveform.audiomentations.num_workers"
    one, two = (fingerprint(compose(["+augment/waveform=audiomentations", f"{workers}={n}"])) for n in (1, 2))
    assert one == two != plain
    assert fingerprint(compose(["seed=1"])) != plain
    assert fingerprint(compose(["threads.intra_op=7"])) != plain


def test_words_need_no_quotes_on_the_command_line() -> None:
    assert compose(["task.words=[yes,no,on,off,marvin]"])["task"]["words"] == ["yes", "no", "on", "off", "marvin"]


def test_missing_path_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "dataset=folder"], cwd=tmp_path, capture_output=True, text=True
    )

    assert done.returncode == 1
    assert done.stderr.strip().splitlines() == [
        "error: dataset.path: Missing mandatory value: path; give it as dataset.path=…"
    ]


def test_words_of_the_synthetic_data_set_must_be_a_list() -> None:
    with pytest.raises(KwsError, match=r"^dataset\.words must be a list, got 'yes'; write \[yes\]"):
        Experiment(compose(["dataset.words=yes"])).check()


def test_configs_of_ones_own_are_composed_too(tmp_path: Path) -> None:
    (tmp_path / "augment" / "waveform").mkdir(parents=True)
    stage = "louder:\n  _target_: kws_data.augment.gain.Gain\n  gain_db: [3, 6]\n"
    (tmp_path / "augment" / "waveform" / "louder.yaml").write_text(stage)

    config = compose(["augment=none", "+augment/waveform=louder"], tmp_path)

    assert list(Experiment(config).augmentation.waveform) == ["louder"]
