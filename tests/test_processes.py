"""Processes that exchange tensors get what one process computes."""

import pytest
import torch

from anyrec.core.errors import AnyrecError
from anyrec.core.processes import ALONE, Processes, joined, processes
from tests.gloo import run


def exchange(processes: Processes) -> None:
    """Check every exchange. Called in each process."""
    rank, size = processes.rank, processes.size
    assert processes.sum(torch.tensor([rank + 1.0])).item() == size * (size + 1) / 2
    assert processes.broadcast(torch.tensor([rank]), 1).item() == 1
    assert processes.agree({"rank": rank}, 1) == {"rank": 1}
    for dtype in (torch.bool, torch.int64, torch.float64, torch.bfloat16):
        whole = torch.cat([torch.full((length, 2), length % 2, dtype=dtype) for length in range(size)])
        part = torch.full((rank, 2), rank % 2, dtype=dtype)  # rank 0 has no row
        assert torch.equal(processes.gather(part), whole)
        assert torch.equal(processes.gather(part, list(range(size))), whole)
    assert processes.gather(torch.empty(0, 3)).shape == (0, 3)
    for count in (0, 1, 7, 8):
        values = torch.arange(3.0 * count, dtype=torch.float64).view(count, 3).requires_grad_()
        other = torch.linspace(1, 2, 3 * count, dtype=torch.float64).view(count, 3)
        whole = processes.join(values[processes.share(count)] * 2, processes.shares(count))
        assert torch.equal(whole, values * 2)
        (whole * other)[processes.share(count)].sum().backward()  # each process computes a part of the loss
        assert values.grad is not None
        expected = torch.zeros_like(other)
        expected[processes.share(count)] = 2 * other[processes.share(count)]
        assert torch.equal(values.grad, expected)


@pytest.mark.parametrize("network", [False, True])
def test_processes_exchange_tensors_of_different_lengths_with_gradients(network: bool) -> None:
    run(exchange, 3, network=network)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 5, 14])
def test_shares_cover_all_rows_once_and_differ_by_one_at_most(size: int, count: int) -> None:
    parts = [Processes(rank, size).share(count) for rank in range(size)]
    lengths = [part.stop - part.start for part in parts]
    assert [row for part in parts for row in range(count)[part]] == list(range(count))
    assert lengths == Processes(0, size).shares(count)
    assert max(lengths) - min(lengths) <= 1


def test_one_process_exchanges_nothing() -> None:
    part = torch.ones(3, 2, requires_grad=True)
    with joined() as alone:
        assert alone == processes() == ALONE
    assert alone.gather(part) is part
    assert alone.join(part, [3]) is part
    assert alone.sum(part) is part
    assert alone.broadcast(part) is part
    assert alone.agree({"a": 1}) == {"a": 1}


def test_fewer_gpus_than_processes_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "WORLD_SIZE": "2",
        "RANK": "1",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "x",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(AnyrecError, match=r"fewer GPUs \(1\).*at most 1"), joined():
        pass


def test_a_launcher_without_an_address_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with (
        pytest.raises(AnyrecError, match="MASTER_ADDR, MASTER_PORT is not set"),
        joined(),
    ):
        pass
