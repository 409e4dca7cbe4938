"""One run, top to bottom: configuration → data → model → training → evaluation → what is left in its folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import Timeout

from kws_data.errors import KwsError
from kws_data.splits import TRAINING, VALIDATION
from kws_data.storage.atomic import lock_for
from kws_experiments.config import tensorflow_setup
from kws_experiments.config.command import command_of_hydra, overridden, quoted
from kws_experiments.config.compose import fingerprint
from kws_experiments.evaluation.cost import write_cost
from kws_experiments.experiment.data import (
    PreparedData,
    balancing_weights,
    clip_source,
    examples_fingerprint,
    prepare_data,
    write_data_tables,
)
from kws_experiments.experiment.experiment import Parts, build_parts, check_top_level
from kws_experiments.runs.environment import feature_identity, record_environment
from kws_experiments.runs.folder import RunFolder, write_text
from kws_experiments.runs.saved_model import save_model, weights_digest
from kws_experiments.runs.seal import seal
from kws_experiments.training.loggers import RunLogger, build_loggers
from kws_experiments.training.start_from import find_origin

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from kws_data.pipeline import ClipSource

log = logging.getLogger(__name__)


def run(config: dict[str, Any], path: Path, prepared: PreparedData | None = None) -> dict[str, Any]:
    """Train and evaluate what a resolved configuration describes, in the folder `path`.

    A folder with an unfinished run is resumed; a finished one is left as it is.

    Args:
        config: resolved.
        path: the run's folder.
        prepared: its data, where `prepare_data` has given them already.

    Returns:
        the metrics of the test split (of the validation split where there is no test split).

    Raises:
        KwsError: the configuration or the data are not right; the message is one line.
        KeyboardInterrupt: the state was saved; the same call goes on.
    """
    with _alone(path):
        return _run(config, RunFolder(path), prepared)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the run's folder; a second process with the same command is told so at once."""
    lock = lock_for(path, timeout_s=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise KwsError(f"'{path}': another process is training this configuration") from error
    with lock:
        yield


def _run(config: dict[str, Any], folder: RunFolder, prepared: PreparedData | None) -> dict[str, Any]:
    path = folder.path
    record = folder.read_record()
    if record is not None and record["status"] == "done":
        folder.training.state.unlink(missing_ok=True)
        log.info("this configuration is trained already; if the data changed since, force=true starts over: %s", path)
        return folder.read_metrics()
    folder.clear_leftovers()
    check_top_level(config)
    if config["start_from"] is not None and not folder.training.initial.is_file():
        find_origin(config["start_from"])  # before any data is read
    loggers = build_loggers(config)
    threads = config["threads"]
    tensorflow_setup.start(deterministic=config["deterministic"], seed=config["seed"], **threads)
    parts = build_parts(config)
    if parts.schedule.own_rates and "optimizer.learning_rate" in overridden():
        raise KwsError(
            f"optimizer.learning_rate={config['optimizer']['learning_rate']} would do nothing: this schedule has rates"
            f" of its own, schedule.rates={config['schedule'].get('rates')}; change those, or give schedule=constant"
        )

    corpus, examples, labels = prepared or prepare_data(config, parts)
    data_fingerprint = examples_fingerprint(examples, labels)
    if record is not None and record["data_fingerprint"] != data_fingerprint:
        raise KwsError(f"'{path}': the data changed since this run began; start over with force=true")
    folder.write_config(config)
    folder.write_record(
        status="training",
        fingerprint=fingerprint(config),
        data_fingerprint=data_fingerprint,
        command=command_of_hydra(),
    )
    write_data_tables(folder, corpus, examples, labels)
    record_environment(folder, config)

    from kws_data.pipeline import told_plainly
    from kws_experiments.evaluation.evaluate_network import draw_training_batch, evaluate_network

    source = clip_source(config, parts, corpus, examples)
    for logger in loggers:
        logger.begin(folder, config)
    try:
        with told_plainly():
            network = train_network(folder, config, parts, source, labels, loggers)
            result = evaluate_network(folder, config, parts, source, network, labels)
            draw_training_batch(folder, parts, source, labels)
    finally:
        parts.augmentation.close()
    model = save_model(folder.model, parts.features, network, parts.clip_samples)
    with _not_fatal("the run's costs are not measured"):
        write_cost(folder, config, parts, len(labels), model)
    folder.write_record(
        status="done",
        data_licence=parts.dataset.licence,
        data_citation=parts.dataset.citation,
        weights_sha256=weights_digest([*parts.features.weights, *network.weights]),
        files=seal(folder),
    )
    folder.training.state.unlink(missing_ok=True)
    for logger in loggers:
        logger.end(result)
    if config["report"]:
        write_report(path)
    return result


def write_report(path: Path) -> None:
    """Write the report of a finished run; whatever goes wrong with it, the run is done."""
    with _not_fatal(f"the run is done, but not its report; `{quoted('kws', 'report', path)}` writes it"):
        from kws_experiments.reports.run_report import write_run_report

        log.info("report: %s", write_run_report(path))


@contextmanager
def _not_fatal(lost: str) -> Iterator[None]:
    """Turn any error into a warning: what is told of a model is not worth its training."""
    try:
        yield
    except Exception as error:
        log.warning("%s (%s)", lost, " ".join(str(error).split()) or type(error).__name__)


def build_for_training(
    config: dict[str, Any], parts: Parts, num_labels: int, *, total_steps: int, steps_per_epoch: int
) -> tuple[tf.distribute.Strategy, keras.Model, keras.optimizers.Optimizer]:
    """The network with its initial weights and its optimizer, on the devices that share the work."""
    from kws_experiments.training.step import device_strategy

    strategy = device_strategy(parts.settings.strategy)
    tensorflow_setup.seed_everything(config["seed"])  # initial weights depend on nothing built before
    with strategy.scope():
        network = parts.build_network(config, num_labels)
        optimizer = parts.build_optimizer(config, network, total_steps=total_steps, steps_per_epoch=steps_per_epoch)
    return strategy, network, optimizer


def train_network(
    folder: RunFolder,
    config: dict[str, Any],
    parts: Parts,
    source: ClipSource,
    labels: list[str],
    loggers: Sequence[RunLogger] = (),
) -> keras.Model:
    """Build the network, set its initial weights, and train: the best weights."""
    from kws_data.feature_cache import cached_evaluation_batches
    from kws_data.front_end import FrontEnd
    from kws_data.pipeline import batches, host_batches, training_plan
    from kws_experiments.training.initial_weights import set_initial_weights
    from kws_experiments.training.loop import Diverged, train
    from kws_experiments.training.tensorboard_log import TensorBoardLog

    settings, threads = parts.settings, config["pipeline"]["threads"]
    plan = training_plan(source, settings.batch_size, balanced=settings.class_balance == "sampling")
    total_steps = settings.total_steps(plan.steps_per_epoch)
    strategy, network, optimizer = build_for_training(
        config, parts, len(labels), total_steps=total_steps, steps_per_epoch=plan.steps_per_epoch
    )
    set_initial_weights(folder, config, parts, source, network, labels)

    def stream(step: int) -> Any:
        arguments = {"augmentation": parts.augmentation, "start_step": step, "steps": total_steps, "threads": threads}
        if config["pipeline"]["on_device"]:
            return host_batches(source, TRAINING, plan, **arguments)
        return batches(source, TRAINING, plan, features=parts.features, **arguments)

    class_weights = np.ones(len(labels))
    if settings.class_balance == "weights":
        class_weights = balancing_weights(source.labels[source.ids(TRAINING)], len(labels))
    identity = feature_identity(config["features"])
    validation = cached_evaluation_batches(source, VALIDATION, parts.features, identity, threads=threads)
    frames, bins = parts.features.output_shape_for(parts.nominal_samples)
    megabytes = len(source.ids(VALIDATION)) * frames * bins * 4 / 1e6
    if megabytes <= config["pipeline"]["cache_memory_mb"]:
        validation = validation.cache()
    if settings.strategy == "mirrored" and strategy.num_replicas_in_sync == 1:
        log.info("trainer.strategy=mirrored: there is one device, which trains as with trainer.strategy=none")
    log.info("%s: %d parameters, %d steps", config["model"]["_target_"], network.count_params(), total_steps)
    tensorboard = [TensorBoardLog(folder.tensorboard, labels)] if settings.tensorboard else []
    try:
        train(
            network,
            optimizer,
            settings,
            schedule=parts.schedule,
            learning_rate=config["optimizer"]["learning_rate"],
            stream=stream,
            front_end=FrontEnd(parts.features, parts.augmentation, variable_length=parts.clip_samples is None)
            if config["pipeline"]["on_device"]
            else None,
            validation=validation,
            labels=labels,
            class_weights=class_weights.tolist(),
            strategy=strategy,
            steps_per_epoch=plan.steps_per_epoch,
            total_steps=total_steps,
            files=folder.training,
            callbacks=[*tensorboard, *(logger.evaluated for logger in loggers)],
        )
    except Diverged as error:
        clips = source.examples.loc[error.ids, ["path", "offset", "word", "speaker"]]
        write_text(folder.diverged, clips.to_csv(index_label="example"))
        kept = "the checkpoint from before is kept" if folder.training.state.is_file() else "no checkpoint was due"
        rates = "schedule.rates" if parts.schedule.own_rates else "optimizer.learning_rate"
        raise KwsError(
            f"training diverged: {error}, at learning rate {error.learning_rate:g}; the batch's {len(clips)} clips"
            f" are in '{folder.diverged}', and {kept}; try a lower {rates}, or"
            " optimizer.global_clipnorm=1"
        ) from error
    return network
