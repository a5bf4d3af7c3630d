"""Config of the processes that share a training or a batch of lists."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from anyrec.core.config.keys import MAX_ROWS, Section
from anyrec.core.outside import Outside


class ClusterConfig(Section):
    """Where a command runs. Nothing of it changes what a model is, and a saved model does not use it."""

    type: Literal["none", "ray"] = Field(
        default="none",
        description="none: this process, or the processes that torchrun starts. ray: workers on a Ray cluster (pip "
        "install 'anyrec[scale]').",
    )
    address: Annotated[str | None, Outside("an address", "check")] = Field(
        default=None,
        pattern=r"^(auto|[\w.\[\]:-]+:[0-9]{1,5})$",
        description="Running Ray cluster: `auto` on one of its machines, or `host:port`. null starts Ray on this "
        "machine and stops it at the end.",
    )
    workers: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="Processes that share the work; null: as many as the cluster has resources for.",
    )
    cpus: int = Field(default=1, ge=1, le=1024, description="CPU cores of each worker, and its number of threads.")
    gpus: int = Field(default=0, ge=0, le=16, description="GPUs of each worker.")
    max_restarts: int = Field(
        default=3,
        ge=0,
        le=1000,
        description="How often a training is started again from its last checkpoint after a worker died.",
    )
    shard_rows: int = Field(
        default=1_000_000,
        ge=1,
        le=MAX_ROWS,
        description="Tables of ids with at least this many rows are divided over the processes of a training, with the "
        "state of their optimizer; each process has a copy of the smaller ones.",
    )
