"""Two processes that divide the items of a softmax and the rows of tables compute what one process does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anyrec.classifier import sliced_softmax
from anyrec.classifier.losses import FullSoftmax
from anyrec.core import sharded_tables as tables
from anyrec.core.discovery import discover
from anyrec.core.processes import ALONE, Processes
from anyrec.core.ragged import Ragged
from anyrec.core.sharded_tables import (
    ShardedTable,
    join_tables,
    lookup,
    make_table,
    mean_of_rows,
    sharded_tables,
    whole_tables,
)
from benchmarks.scale_simulation import compare
from tests.gloo import run
from tests.test_distributed import FEATURES, HEADS, HISTORY, IDS, IN_BATCH, SET, WEIGHTS, dataset, trained

USERS, ITEMS, ROWS, DIM = 23, 31, 9, 6


def problem(seed: int, shared: bool) -> dict[str, Tensor]:
    """Return users, items, and positives that users predict: one each, or several users with many."""
    draw = torch.Generator().manual_seed(seed)
    users = torch.randn(USERS, DIM, generator=draw, dtype=torch.float64) * 3
    items = torch.randn(ITEMS, DIM, generator=draw, dtype=torch.float64)
    owners = torch.randint(USERS, (50,), generator=draw).sort().values if shared else torch.arange(USERS)
    target = torch.randint(ITEMS, owners.shape, generator=draw)
    weight = torch.rand(len(owners), generator=draw, dtype=torch.float64)
    mask = (torch.rand(USERS, ITEMS, generator=draw) < 0.4) * torch.tensor(-1e30, dtype=torch.float64)
    return {"users": users, "items": items, "owners": owners, "target": target, "weight": weight, "mask": mask}


def gradients(loss: Tensor, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of 3 times the loss: as if the loss were scaled afterwards."""
    to_users, to_items = torch.autograd.grad(3 * loss, (users, items))
    return to_users, to_items


def softmax_over_slices(processes: Processes, shared: bool, weighted: bool, bounds: list[int]) -> None:
    """Compare the loss over slices with the one over the whole catalogue. bounds: where the slices begin and end."""
    whole = problem(1, shared)
    weight, mask = whole["weight"] if weighted else None, whole["mask"]
    loss = FullSoftmax(FullSoftmax.Params(temperature=0.7))
    users, items = (whole[name].clone().requires_grad_() for name in ("users", "items"))
    expected = loss.over_catalogue(
        users,
        items,
        whole["target"],
        lambda low, high, scores: scores.copy_(mask[low:high]),
        weight,
        whole["owners"] if shared else None,
    )
    to_users, to_items = gradients(expected, users, items)

    own, (first, last) = processes.share(USERS), bounds[processes.rank : processes.rank + 2]
    here = (whole["owners"] >= own.start) & (whole["owners"] < own.stop)
    users, items = (part.clone().requires_grad_() for part in (whole["users"][own], whole["items"][first:last]))
    found = loss.over_slice(
        users,
        items,
        first,
        whole["target"][here],
        whole["owners"][here] - own.start,
        lambda low, high, scores: scores.copy_(mask[low:high, first:last]),
        None if weight is None else weight[here],
        processes,
    )
    assert torch.allclose(processes.sum(found.detach().clone()), expected, rtol=1e-12, atol=0)
    for got, wanted in zip(gradients(found, users, items), (to_users[own], to_items[first:last]), strict=True):
        assert torch.allclose(got, wanted, rtol=0, atol=1e-14)


def first_values(rows: int, dim: int) -> None:
    """Compare the initial values with those of a whole table, and the random numbers drawn after it."""
    found = []
    for shard_rows in (None, rows):
        torch.manual_seed(5)
        found.append((make_table(rows, dim, std=0.3, shard_rows=shard_rows), torch.rand(1)))
    (whole, then), (part, later) = found
    assert isinstance(part, ShardedTable)
    assert not isinstance(whole, ShardedTable)
    first, last = part.bounds[part.processes.rank :][:2]
    assert torch.equal(part.weight, whole.weight[first:last])
    assert torch.equal(then, later)


def trained_table(processes: Processes, optimizer: Any, sparse: bool, max_norm: float | None) -> None:
    """Train a sharded table and a whole one on the same look-ups, and compare them after each step."""
    whole, part = (make_table(ROWS, DIM, std=1.0, sparse=sparse, shard_rows=at) for at in (None, ROWS))
    assert isinstance(part, ShardedTable)
    own = slice(*part.bounds[processes.rank : processes.rank + 2])
    with torch.no_grad():
        part.weight.copy_(whole.weight[own])
    whole.max_norm = part.max_norm = max_norm
    steps = [optimizer(table.parameters()) for table in (whole, part)]
    draw = torch.Generator().manual_seed(3)
    for step in range(6):
        high = (ROWS, 4, ROWS)[step % 3]  # sometimes all rows are of one process
        rows = torch.randint(high, (20,), generator=draw)
        factors = torch.randn(20, DIM, generator=draw, dtype=torch.float64)
        share = slice(0, 20 if processes.first else 0) if step == 4 else processes.share(20)  # or rank 1 has no rows
        expected, found = whole(rows), part(rows[share])
        assert torch.allclose(found, expected[share], rtol=0, atol=1e-12)
        for optimizer_step, loss in zip(steps, (expected * factors, found * factors[share]), strict=True):
            optimizer_step.zero_grad()
            loss.square().sum().backward()
            optimizer_step.step()
        assert torch.allclose(part.weight, whole.weight[own], rtol=0, atol=1e-12)
        bags = Ragged(rows, torch.tensor([0, 5, 5, 9, 20]))
        assert torch.allclose(mean_of_rows(part, bags), mean_of_rows(whole, bags))


def computed_rows(processes: Processes, bounds: list[int]) -> None:
    """Look up rows of a matrix that the processes computed slice by slice; gradients reach its owners."""
    matrix = torch.randn(ROWS, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(4), requires_grad=True)
    part = (matrix * 2)[bounds[processes.rank] : bounds[processes.rank + 1]]
    rows = torch.tensor([[8, 1, 1], [8, 3, 0]][processes.rank])
    found = lookup(part, rows, bounds, processes)
    assert torch.equal(found, 2 * matrix[rows])
    (found * torch.tensor([[1.0], [2.0], [3.0]])).sum().backward()
    assert matrix.grad is not None
    times = torch.zeros(ROWS, dtype=torch.float64).index_put(
        (torch.tensor([8, 1, 1, 8, 3, 0]),), torch.tensor([1.0, 2, 3, 1, 2, 3], dtype=torch.float64), accumulate=True
    )
    expected = 2 * times[:, None].expand(-1, DIM).clone()
    expected[: bounds[processes.rank]] = 0
    expected[bounds[processes.rank + 1] :] = 0
    assert torch.equal(matrix.grad, expected)


def tables_become_whole(processes: Processes) -> None:
    """Process 0 computes alone with the whole tables for a time, and at the end."""
    model = nn.ModuleDict({"a": make_table(ROWS, DIM, std=1.0, shard_rows=ROWS), "b": nn.Linear(1, 1)})
    (table,) = sharded_tables(model)
    expected = table(torch.arange(ROWS)).detach()
    with whole_tables(model):
        if processes.first:
            assert torch.equal(table(torch.arange(ROWS)), expected)
    assert table.whole is None
    join_tables(model)
    if processes.first:
        assert not sharded_tables(model)
        assert torch.equal(model.state_dict()["a.weight"], expected)


CASES = {
    "full softmax": {"loss": {"type": "full_softmax"}, "features": IDS, **WEIGHTS},
    "full softmax, sparse": {
        "loss": {"type": "full_softmax"},
        "training": {"optimizer": {"sparse": True}},
    },
    "sequence, full softmax": {"features": {**IDS, **HISTORY}, "loss": {"type": "full_softmax"}, **HEADS},
    "set, full softmax": {"features": {**IDS, **SET}, "loss": {"type": "full_softmax"}, **WEIGHTS},
    "in batch": {"features": IDS, "training": {"optimizer": {"sparse": True}}, "loss": {"type": "softmax"}, **IN_BATCH},
    "limits": {
        "features": {**IDS, **FEATURES},
        "training": {
            "optimizer": {"type": "adamw", "learning_rate": 0.01, "max_norm": 0.5, "weight_decay": 0.01},
            "gradient_clip": 0.1,
            "average_epochs": 1.0,
        },
    },
    "hard": {"negatives": {"type": "hard", "top": 8, "refresh": 3}, "loss": {"type": "bpr"}},
}
"""Trainings with sharded tables."""


def same_training(processes: Processes, name: str, data: Any, registry: Any) -> None:
    """Train with whole tables in each process alone, and with sharded ones together, and compare."""
    changes = {**CASES[name], "training": {"epochs": 2, **CASES[name].get("training", {})}}
    alone, logged = trained(changes, ALONE, data, registry)
    changes["cluster"] = {"shard_rows": 1}
    together, shared = trained(changes, processes, data, registry)
    sharded = 0
    for key, value in alone.items():
        own = processes.share(len(value)) if value.shape != together[key].shape else slice(None)
        sharded += own != slice(None)
        far = float((together[key] - value[own]).abs().max())
        assert far <= 1e-10, (name, key, far)
    assert processes.first or sharded, name
    for one, other in zip(logged, shared, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-5), name
        assert one.get("validation") == other.get("validation"), name


def resumed(processes: Processes, folder: Path, data: Any, registry: Any) -> None:
    """Continue the training of two processes with one, and that of one with two."""
    changes = {**CASES["full softmax, sparse"], "split": {"validation": 0.2}}
    changes["training"] = {"epochs": 2, "evaluate_every": 1, "average_epochs": 1.0, "optimizer": {"sparse": True}}
    first, sharded = {**changes, "training": {**changes["training"], "epochs": 1}}, {"cluster": {"shard_rows": 1}}
    expected, _ = trained(changes, ALONE, data, registry)
    trained({**first, **sharded}, processes, data, registry, run_dir=folder / "two")
    if processes.first:
        trained(first, ALONE, data, registry, run_dir=folder / "one")
        found, history = trained(changes, ALONE, data, registry, run_dir=folder / "two", resume=True)
        assert len(history) == 2
        assert all(torch.allclose(found[key], value, rtol=0, atol=1e-10) for key, value in expected.items())
    processes.wait()
    found, history = trained({**changes, **sharded}, processes, data, registry, run_dir=folder / "one", resume=True)
    assert len(history) == 2
    if processes.first:
        assert all(torch.allclose(found[key], value, rtol=0, atol=1e-10) for key, value in expected.items())


def every_check(processes: Processes, folder: Path) -> None:
    """Run all checks in one start of the processes."""
    compare(processes)
    first_values(7, 3)
    tables.DRAWN_AT_A_TIME = 64
    first_values(11, 100)  # in blocks
    torch.set_default_dtype(torch.float64)
    first_values(5, 13)
    for shared in (False, True):
        for weighted in (False, True):
            softmax_over_slices(processes, shared, weighted, [0, 15, ITEMS])
    softmax_over_slices(processes, False, True, [0, 0, ITEMS])  # a process without items
    sliced_softmax.CELLS_AT_A_TIME["cpu"] = 16 * 17  # blocks of 23 and of 16 users
    softmax_over_slices(processes, True, True, [0, 9, ITEMS])
    sliced_softmax.CELLS_AT_A_TIME["cpu"] = 1  # several blocks
    softmax_over_slices(processes, True, True, [0, 15, ITEMS])
    torch.set_num_threads(2)
    softmax_over_slices(processes, True, True, [0, 15, ITEMS])
    torch.set_num_threads(1)
    for max_norm in (None, 0.5):
        trained_table(processes, torch.optim.AdamW, False, max_norm)
    trained_table(processes, torch.optim.SparseAdam, True, None)
    computed_rows(processes, [0, 5, ROWS])
    computed_rows(processes, [0, 0, ROWS])
    tables_become_whole(processes)
    torch.set_default_dtype(torch.float32)
    data, registry = dataset(), discover()
    for name in CASES:
        same_training(processes, name, data, registry)
    resumed(processes, folder, data, registry)


@pytest.mark.slow
def test_two_processes_compute_what_one_does(tmp_path: Path) -> None:
    run(every_check, 2, tmp_path, network=True)


def test_blocks_of_random_numbers_are_those_of_one_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch draws in groups of 16, and the last 16 again if the number is no multiple of 16."""
    monkeypatch.setattr(tables, "DRAWN_AT_A_TIME", 64)
    for count in (1, 15, 16, 17, 63, 64, 65, 79, 80, 81, 128, 129, 1000):
        torch.manual_seed(1)
        expected = torch.empty(count).normal_(std=0.5)
        torch.manual_seed(1)
        found = list(tables._drawn(count, 0.5))
        assert torch.equal(torch.cat([drawn for _, drawn in found]), expected)
        assert [low for low, _ in found] == [low for low in range(0, count, 64) if low == 0 or count - low >= 16]
