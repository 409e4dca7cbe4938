"""One training, top to bottom: configuration → data → model → training → evaluation → report."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from kws_data.errors import KwsError
from kws_data.splits import TRAINING, VALIDATION
from kws_data.storage.atomic import lock_for, remove_leftovers_below
from kws_data.text import to_csv
from kws_experiments.config import tensorflow_setup
from kws_experiments.config.command import command_of_hydra, overridden, quoted
from kws_experiments.config.compose import fingerprint, run_folder
from kws_experiments.config.exit import as_line
from kws_experiments.evaluation.cost import write_cost
from kws_experiments.experiment.data import Data, balancing_weights, prepare_data, write_data_tables
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.runs.environment import feature_identity, record_environment
from kws_experiments.runs.folder import DONE, PRUNED, TRAINED, UNFINISHED, RunFolder, write_text
from kws_experiments.runs.listening import Listening
from kws_experiments.runs.saved_model import save_model, weights_digest
from kws_experiments.runs.seal import seal
from kws_experiments.runs.trust import sign
from kws_experiments.training.loggers import Pruned, RunLogger, build_loggers
from kws_experiments.training.start_from import find_origin

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from kws_data.batches import BatchPlan
    from kws_data.feature_cache import CachedBatches
    from kws_data.front_end import FrontEnd
    from kws_data.pipeline import ClipSource
    from kws_experiments.training.loop import Diverged, Trainer

log = logging.getLogger(__name__)

_POLL_S = 1.0


def train(
    config: dict[str, Any], path: Path, data: Data | None = None, *, loggers: Sequence[RunLogger] = ()
) -> dict[str, Any]:
    """Train and evaluate the model of a resolved configuration in the folder `path`.

    An unfinished run is resumed; a run that lacks only its report or its loggers' end gets those; a run that is done
    stays as it is. One that was pruned begins anew.

    Args:
        config: resolved.
        path: the run's folder.
        data: the result of `prepare_data`, if that was called already.
        loggers: some beside the configuration's.

    Returns:
        the metrics on the test split (on validation if there is no test split).

    Raises:
        KwsError: the configuration or the data are wrong; the message is one line.
        KeyboardInterrupt: the state was saved; the same call resumes.
        Pruned: one of `loggers` ended the training.
    """
    with _locked(path):
        remove_leftovers_below(path)
        folder = RunFolder(path)
        record = folder.read_record()
        try:
            experiment = Experiment(config)
            if record is None or record["status"] in (UNFINISHED, PRUNED):
                _train(experiment, folder, record, data, loggers)
            elif record["status"] == TRAINED or _lacks(experiment, folder):
                _finish(folder, experiment)
            else:
                log.info("this configuration is trained already; if the data changed since, add force=true: %s", path)
        except Pruned:
            folder.write_record(status=PRUNED)
            folder.training.state.unlink(missing_ok=True)
            raise
        except KwsError:
            folder.discard_unbegun()
            raise
        folder.training.state.unlink(missing_ok=True)
        return folder.read_metrics()


def finish(path: Path) -> None:
    """Do what a run still lacks that is trained and evaluated, unless another process is about to."""
    folder = RunFolder(path)
    if folder.read_finished_record()["status"] == TRAINED:
        with suppress(Running), _locked(path):
            _finish(folder, Experiment(folder.read_config()))


def _finish(folder: RunFolder, experiment: Experiment) -> None:
    lacks = _lacks(experiment, folder)
    loggers: list[RunLogger] = []
    if (folder.read_record() or {})["status"] == TRAINED:
        with _not_fatal("the loggers are left as they are"):
            loggers = build_loggers(experiment.config)
            for logger in loggers:
                logger.begin(folder, experiment.config)
        lacks += ["the end of its loggers"] if loggers else []
    what = " and ".join(lacks) or "its mark as done"
    log.info("this configuration is trained already; adding what is missing (%s): %s", what, folder.path)
    _end(folder, experiment, loggers)


def _lacks(experiment: Experiment, folder: RunFolder) -> list[str]:
    """What a trained run should have beside its results, and doesn't."""
    untuned = experiment.tuning is not None and not Listening.read(folder.path).tuned
    unreported = experiment.report and not folder.report.is_file()
    return ["its tuning"] * untuned + ["its report"] * unreported


class Running(KwsError):
    """Another process holds the run's folder."""


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock the run's folder; a second process with the same command fails at once."""
    lock = lock_for(path, timeout_s=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise Running(f"'{path}': another process is training this configuration") from error
    with lock:
        yield


def _train(
    experiment: Experiment,
    folder: RunFolder,
    record: dict[str, Any] | None,
    data: Data | None,
    more_loggers: Sequence[RunLogger],
) -> None:
    # 1. find all mistakes that can be found without data
    tensorflow_setup.quiet()  # before a user's own module imports Keras
    if experiment.start_from is not None and not folder.training.initial.is_file():
        find_origin(experiment.start_from)
    loggers = [*build_loggers(experiment.config), *more_loggers]
    experiment.check_without_tensorflow()
    if data is None:
        experiment.check_folders()
    _require_effective_rate(experiment)
    log.info("starting TensorFlow")
    experiment.start_tensorflow()
    experiment.check()

    # 2. prepare the data
    log.info("preparing the data")
    data = data or prepare_data(experiment)
    if record is not None and record["data_fingerprint"] != data.fingerprint:
        raise KwsError(f"'{folder.path}': the data changed since this run began; start over with force=true")
    source = experiment.clip_source(data.corpus, data.examples)

    # 3. record what the results depend on, before there are any
    _record_start(folder, experiment, data)
    for logger in loggers:
        logger.begin(folder, experiment.config)

    # 4. train what comes first
    added_to = experiment.start_from  # a pre-training is none: all words of this run are new to it
    if not folder.training.initial.is_file():
        experiment = _after_pretraining(experiment)

    # 5. train, evaluate the best weights, and save the model
    from kws_data.pipeline import unwrap_errors
    from kws_experiments.evaluation.evaluate_network import draw_training_batch, evaluate_network
    from kws_experiments.training.new_words import fit_new_words

    try:
        with unwrap_errors():
            network = train_network(folder, experiment, source, data.labels, loggers)
            if experiment.task.few_folders or (experiment.task.word_folders and added_to is not None):
                fit_new_words(folder, experiment, source, network, data.labels, added_to=added_to)
            evaluate_network(folder, experiment, source, network, data.labels)
            draw_training_batch(folder, experiment, source, data.labels)
    finally:
        experiment.augmentation.close()
    _save_results(folder, experiment, network)

    # 6. log and report the results
    _end(folder, experiment, loggers)


def _after_pretraining(experiment: Experiment) -> Experiment:
    """The experiment as one that starts from its pre-training, which is trained first, unless that was done before.

    Runs with the same pre-training share it: `runs/<its name>/<its fingerprint>`.
    """
    before = experiment.pretraining
    if before is None:
        return experiment
    path = Path(run_folder(before.config)).resolve()
    log.info("pre-training first: %s", path)
    waiting = False
    while True:
        try:
            train(before.config, path)
            break
        except Running:
            if not waiting:
                log.info("another process pre-trains; waiting for it")
            waiting = True
            time.sleep(_POLL_S)
    log.info("pre-trained; now the run itself")
    return experiment.starting_from(path)


def _record_start(folder: RunFolder, experiment: Experiment, data: Data) -> None:
    """Write the configuration, the data's tables and the environment."""
    folder.write_config(experiment.config)
    folder.write_record(
        status=UNFINISHED,
        fingerprint=fingerprint(experiment.config),
        data_fingerprint=data.fingerprint,
        command=command_of_hydra(),
    )
    write_data_tables(folder, data)
    record_environment(folder, experiment.config, experiment.arithmetic)
    sign(folder.path)


def _save_results(folder: RunFolder, experiment: Experiment, network: keras.Model) -> None:
    """Save the model, measure its cost, and mark the run as trained."""
    model = save_model(folder.model, experiment.features, network, experiment.clip_samples)
    sign(folder.path)
    with _not_fatal("the run's costs are not measured"):
        write_cost(folder, experiment, network, model)
    folder.write_record(
        status=TRAINED,
        data_licence=experiment.dataset.licence,
        data_citation=experiment.dataset.citation,
        weights_sha256=weights_digest([*experiment.features.weights, *network.weights]),
        files=seal(folder),
    )


def _end(folder: RunFolder, experiment: Experiment, loggers: Sequence[RunLogger]) -> None:
    """End the loggers, tune, write the report, and mark the run as done; if one of these fails it stays 'trained'."""
    result = folder.read_metrics()
    for logger in loggers:
        with _not_fatal(f"the run is done, but its {type(logger).__name__} was not closed"):
            logger.end(result)
    if experiment.tuning is not None and "its tuning" in _lacks(experiment, folder):
        with _not_fatal(f"the run is trained, but not tuned; `{quoted('kws', 'tune', folder.path)}` does it"):
            from kws_experiments.streaming.tune import tune

            tune(folder.path, experiment.tuning)
    if "its report" in _lacks(experiment, folder):
        write_report(folder.path)
    if not _lacks(experiment, folder):
        folder.write_record(status=DONE)


def write_report(path: Path) -> None:
    """Write the report of a finished run; an error in it is only a warning, since the run is done."""
    with _not_fatal(f"the run is done, but not its report; `{quoted('kws', 'report', path)}` writes it"):
        from kws_experiments.reports.run_report import write_run_report

        write_run_report(path)


def _require_effective_rate(experiment: Experiment) -> None:
    """Refuse a learning rate on the command line that the schedule ignores."""
    if experiment.schedule.own_rates and "optimizer.learning_rate" in overridden():
        raise KwsError(
            f"optimizer.learning_rate={experiment.learning_rate} would do nothing: this schedule has rates of its own,"
            f" schedule.rates={experiment.part('schedule').get('rates')}; change those, or give schedule=constant"
        )


@contextmanager
def _not_fatal(consequence: str) -> Iterator[None]:
    """Turn any error into a warning, so that the training is not lost."""
    try:
        yield
    except Exception as error:
        line = as_line(error) or " ".join(str(error).split()) or type(error).__name__
        log.warning("%s (%s)", consequence, line)


def build_for_training(
    experiment: Experiment, num_labels: int, *, total_steps: int, steps_per_epoch: int
) -> tuple[keras.Model, keras.optimizers.Optimizer]:
    """The network with its initial weights, and its optimizer."""
    tensorflow_setup.seed_everything(experiment.seed)  # so that initial weights do not depend on objects built before
    network = experiment.build_network(num_labels)
    optimizer = experiment.build_optimizer(network, total_steps=total_steps, steps_per_epoch=steps_per_epoch)
    return network, optimizer


def train_network(
    folder: RunFolder,
    experiment: Experiment,
    source: ClipSource,
    labels: list[str],
    loggers: Sequence[RunLogger] = (),
) -> keras.Model:
    """Build the network, set its initial weights, and train it.

    Returns:
        the network with its best weights.

    Raises:
        KwsError: the training diverged; the message says at which step, and what to try.
        KeyboardInterrupt: the state was saved.
    """
    from kws_data.pipeline import training_plan
    from kws_experiments.training.loop import Diverged

    settings = experiment.settings
    plan = training_plan(source, settings.batch_size, balanced=settings.class_balance == "sampling")
    steps = {"steps_per_epoch": plan.steps_per_epoch, "total_steps": settings.total_steps(plan.steps_per_epoch)}
    trainer = _build_trainer(folder, experiment, source, labels, loggers, **steps)
    network, stream = trainer.model, training_stream(experiment, source, plan, steps["total_steps"])
    log.info("%s: %d parameters, %d steps", experiment.model_name, network.count_params(), steps["total_steps"])
    try:
        with validation_batches(experiment, source) as validation:
            trainer.fit(stream, validation, **steps)
    except Diverged as error:
        raise _divergence(error, folder, experiment, source) from error
    return network


def _build_trainer(
    folder: RunFolder,
    experiment: Experiment,
    source: ClipSource,
    labels: list[str],
    loggers: Sequence[RunLogger],
    *,
    total_steps: int,
    steps_per_epoch: int,
) -> Trainer:
    """A trainer of the network, which has its initial weights."""
    from kws_experiments.training.initial_weights import distillation, set_initial_weights
    from kws_experiments.training.loop import Trainer
    from kws_experiments.training.tensorboard_log import TensorBoardLog

    network, optimizer = build_for_training(
        experiment, len(labels), total_steps=total_steps, steps_per_epoch=steps_per_epoch
    )
    kept = set_initial_weights(folder, experiment, source, network, labels)
    tensorboard = [TensorBoardLog(folder.tensorboard, labels)] if experiment.settings.tensorboard else []
    return Trainer(
        network,
        optimizer,
        experiment.settings,
        schedule=experiment.schedule,
        learning_rate=experiment.learning_rate,
        labels=labels,
        class_weights=_class_weights(experiment, source, len(labels)),
        word_labels=None if source.targets is None else source.targets.labels,
        distillation=distillation(experiment, network, labels, kept),
        false_accept_rate=experiment.false_accept_rate,
        files=folder.training,
        front_end=device_front_end(experiment),
        callbacks=[*tensorboard, *(logger.evaluated for logger in loggers)],
    )


def _class_weights(experiment: Experiment, source: ClipSource, num_labels: int) -> list[float]:
    """[labels] factors on the losses."""
    if experiment.settings.class_balance != "weights":
        return [1.0] * num_labels
    return balancing_weights(source.labels[source.ids(TRAINING)], num_labels).tolist()


def _divergence(error: Diverged, folder: RunFolder, experiment: Experiment, source: ClipSource) -> KwsError:
    """The error of a training that diverged, with the clips of its last batch in a file."""
    clips = source.examples.loc[error.ids, ["path", "offset", "word", "speaker"]]
    write_text(folder.diverged, to_csv(clips.rename_axis("example").reset_index()))
    kept = "the checkpoint from before is kept" if folder.training.state.is_file() else "no checkpoint was due"
    rates = "schedule.rates" if experiment.schedule.own_rates else "optimizer.learning_rate"
    return KwsError(
        f"training diverged: {error}, at learning rate {error.learning_rate:g}; the batch's {len(clips)} clips"
        f" are in '{folder.diverged}', and {kept}; try a lower {rates}, or optimizer.global_clipnorm=1"
    )


def device_front_end(experiment: Experiment) -> FrontEnd | None:
    """The front end to compute inside the training step, or None with `pipeline.on_device=false`."""
    from kws_data.front_end import FrontEnd

    if not experiment.on_device:
        return None
    variable_length = experiment.clip_samples is None
    return FrontEnd(experiment.features, experiment.augmentation, variable_length=variable_length)


def training_stream(
    experiment: Experiment, source: ClipSource, plan: BatchPlan, total_steps: int
) -> Callable[[int], tf.data.Dataset]:
    """A function from a step to the training batches from there on: features, or samples with `pipeline.on_device`."""
    from kws_data.pipeline import batches, host_batches

    def stream(step: int) -> tf.data.Dataset:
        arguments: dict[str, Any] = {
            "augmentation": experiment.augmentation, "start_step": step, "steps": total_steps,
            "threads": experiment.pipeline_threads,
        }  # fmt: skip
        if experiment.on_device:
            return host_batches(source, TRAINING, plan, **arguments)
        return batches(source, TRAINING, plan, features=experiment.features, **arguments)

    return stream


def validation_batches(experiment: Experiment, source: ClipSource) -> CachedBatches:
    """The features of the validation clips, cached on disk, and in memory if they fit."""
    from kws_data.feature_cache import CachedBatches

    frames, bins = experiment.nominal_feature_shape()
    megabytes = len(source.ids(VALIDATION)) * frames * bins * 4 / 1e6
    return CachedBatches(
        source, VALIDATION, experiment.features, feature_identity(experiment.part("features")),
        threads=experiment.pipeline_threads, in_memory=megabytes <= experiment.cache_memory_mb,
    )  # fmt: skip
