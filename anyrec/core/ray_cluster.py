"""A Ray cluster for the time of a command: one that runs already, or one on this machine that is stopped at the end."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from anyrec.core.config import ClusterConfig
from anyrec.core.errors import AnyrecError, ConfigError, Fault, MissingDependency

VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",  # sends nothing about the use of Ray
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",  # by default 15 steps lower: other work then leaves them little time
}
"""Variables that Ray reads when it is imported or started, unless they are set."""
CONNECT = 5
"""Seconds within which the address of a cluster must accept a connection."""
PASSED_ON = ("ANYREC_", "HF_", "MLFLOW_", "WANDB_")
"""Beginnings of the names of variables that workers get."""


@contextmanager
def ray_workers(config: ClusterConfig) -> Iterator[int]:
    """Join or start a Ray cluster within the block. Ray prints nothing; its logs are in its own folder.

    Args:
        config: The section `cluster`, with `type: ray`. If the program has joined a cluster before, that one is used,
            and stays.

    Yields:
        The number of workers: `workers`, or as many as the cluster has resources for.

    Raises:
        ConfigError: If no cluster answers at the address, or it lacks the resources.
        MissingDependency: If Ray is not installed.
    """
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ModuleNotFoundError:
        raise MissingDependency("ray", "scale", "cluster.type: ray") from None
    if ray.is_initialized():
        yield _workers(config, ray.cluster_resources())
        return
    try:
        with _silent(), _own_signals():
            _start(config)
    except (OSError, OverflowError) as error:  # a ConnectionError of Ray, or one of the system
        what = f"no Ray cluster answers at '{config.address}'" if config.address else "Ray cannot be started"
        hint = "Start it with `ray start --head`, or leave the address out to start Ray on this machine."
        raise ConfigError(Fault("/cluster/address", f"{what}: {_first_line(error)}", hint, "no cluster")) from None
    except (RuntimeError, ValueError) as error:
        raise AnyrecError(f"Ray cannot be started or joined: {_first_line(error)}") from None
    try:
        yield _workers(config, ray.cluster_resources())
    finally:
        ray.shutdown()


def _start(config: ClusterConfig) -> None:
    import ray

    if config.address not in (None, "auto"):  # Ray itself tries for minutes
        host, _, port = config.address.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT).close()
    debugging = bool(os.environ.get("ANYREC_DEBUG"))
    options = {"log_to_driver": debugging, "logging_level": logging.INFO if debugging else logging.CRITICAL}
    if config.address is None:
        cores = max(os.cpu_count() or 1, config.cpus * (config.workers or 1))
        ray.init("local", num_cpus=cores, include_dashboard=False, **options)
    else:
        ray.init(config.address, runtime_env={"env_vars": passed_on()}, **options)
    if not debugging:  # Ray has no other switch for the messages of its raylet, which it prints to standard output
        vars(import_module("ray._private.worker"))["_worker_logs_enabled"] = False


@contextmanager
def _silent() -> Iterator[None]:
    """Discard what native code writes to standard error within the block: Ray reports its log level there."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the handlers of signals: Ray's own ones end the process at once, and print a stack."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in kept.items():
                signal.signal(number, handler)


def passed_on() -> dict[str, str]:
    """Return the variables of this process that its workers get."""
    return {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}


def resources(config: ClusterConfig) -> dict[str, float]:
    """Return what each worker takes of the cluster, by Ray's names."""
    return {"CPU": config.cpus, **({"GPU": config.gpus} if config.gpus else {})}


def like_the_driver(folder: str, cpus: int) -> None:
    """Set up a worker like the process that started it: the folder of relative paths, and the number of threads.

    Args:
        folder: The working directory of the driver.
        cpus: The cores that the worker may use.
    """
    import torch

    if Path(folder).is_dir():
        os.chdir(folder)
    torch.set_num_threads(cpus)


def _workers(config: ClusterConfig, available: Mapping[str, float]) -> int:
    """Return the number of workers. Raises ConfigError if the cluster has not the resources for them."""
    most = min(int(available.get(name, 0) // count) for name, count in resources(config).items())
    wanted = config.workers or 1
    if most < wanted:
        each = ", ".join(f"{count:g} {name}" for name, count in resources(config).items())
        has = ", ".join(f"{available.get(name, 0):g} {name}" for name in resources(config))
        what = f"{wanted} workers with {each} each do not fit into this cluster, which has {has}."
        hint = "Lower cluster.workers, cluster.cpus or cluster.gpus, or add machines."
        raise ConfigError(Fault("/cluster/workers", what, hint, "no resources"))
    return config.workers or most


def last_line(error: Exception) -> str:
    """Return the last line of an error of Ray, which has the error of the worker; the lines before are its stack."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
