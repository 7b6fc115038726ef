"""A small training run as a process of its own, which the tests of checkpoints kill.

`live` trains with checkpoints in a folder and writes a digest of all that the run left behind.
Its plan, HOW and STEP, says where SIGKILL strikes once STEP optimizer steps are done: ``step``
there and then, ``write`` with the next checkpoint's bytes half on disk, ``rename`` just before
it gets its name, ``renamed`` just after. ``full`` leaves files no room from then on instead.
"""

import hashlib
import json
import os
import resource
import signal
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from bigmodel_utils import training
from bigmodel_utils.training import _loop

NUM_EPOCHS, BATCH_SIZE, NUM_EXAMPLES = 4, 8, 60  # 8 steps an epoch, the last of them short
NUM_STEPS = NUM_EPOCHS * -(-NUM_EXAMPLES // BATCH_SIZE)
SETTINGS = training.TrainingSettings(NUM_EPOCHS, BATCH_SIZE, seed=3, compile_mode="plain")


def build():
    """Everything that a resume can forget: dropout's seed, moments, moving averages."""
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    schedule = keras.optimizers.schedules.CosineDecay(0.05, NUM_STEPS)
    optimizer = keras.optimizers.Adam(schedule)
    model.compile(optimizer, "categorical_crossentropy", metrics=["accuracy"])
    return model


def make_data():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(NUM_EXAMPLES, 4)).astype("float32")
    return x, np.eye(2, dtype="float32")[(x.sum(axis=1) > 0).astype(int)]


def run(directory, **options):
    x, y = make_data()
    checkpoints = training.CheckpointSettings(directory, **{"num_steps_between": 3, **options})
    return training.train(
        build, (x, y), validation_data=(x[:20], y[:20]), settings=SETTINGS, checkpoints=checkpoints
    )


def describe(finished):
    """Digest of the weights and the history without its times."""
    digest = hashlib.sha256()
    for weights in finished.model.get_weights():
        digest.update(weights.tobytes())
    epochs = [[epoch.training, epoch.validation] for epoch in finished.epochs]
    return {"weights": digest.hexdigest(), "epochs": epochs, "best_epoch": finished.best_epoch}


def plan_death(how, step):
    """Arranges for SIGKILL to strike this process."""

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    make_step_runner, done = _loop.make_step_runner, {"steps": 0}

    def make_counting_runner(*args, **options):
        run_steps = make_step_runner(*args, **options)

        def run_one_by_one(batches):
            losses = []
            for batch in batches:
                losses.append(run_steps([batch]))
                done["steps"] += 1
                if how == "step" and done["steps"] == step:
                    die()
                if how == "full" and done["steps"] == step:
                    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
            return np.concatenate(losses)

        return run_one_by_one

    _loop.make_step_runner = make_counting_runner
    fsync, replace = os.fsync, Path.replace

    def die_in_fsync(handle):
        if done["steps"] >= step:
            os.ftruncate(handle, os.fstat(handle).st_size // 2)
            die()
        fsync(handle)

    def die_in_replace(path, target):
        if done["steps"] < step or how == "renamed":
            replace(path, target)
        if done["steps"] >= step:
            die()

    if how == "write":
        os.fsync = die_in_fsync
    if how in {"rename", "renamed"}:
        Path.replace = die_in_replace


def live(directory, result, errors, *plan):
    """A whole process: trains, or dies on the way; its standard error goes into a pipe."""
    os.dup2(errors.fileno(), sys.stderr.fileno())
    if plan:
        plan_death(*plan)
    Path(result).write_text(json.dumps(describe(run(directory))), encoding="utf-8")
