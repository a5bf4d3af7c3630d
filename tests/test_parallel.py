"""Rows distributed over threads: the result and the gradients are those of one thread, and the same every time."""

import pytest
import torch
from torch import nn

from anyrec.core.parallel import by_shares, generator, on_threads, one_thread_elsewhere, shares_of


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 100, 101])
def test_the_shares_are_all_rows_once_in_order_and_equal(rows):
    shares = shares_of(rows, torch.device("cpu"))
    assert [row for share in shares for row in share] == list(range(rows))
    sizes = [len(share) for share in shares]
    assert len(sizes) == min(2, max(1, rows)) and max(sizes) - min(sizes) <= 1
    assert shares_of(rows, torch.device("cuda")) == [range(rows)]


def test_each_share_has_one_thread_of_torch_and_the_caller_has_all_again():
    assert on_threads(lambda share: (share, torch.get_num_threads()), [1, 2, 3]) == [(1, 1), (2, 1), (3, 1)]
    assert torch.get_num_threads() == 2


def test_gradients_and_precision_are_as_they_are_for_the_caller():
    values = torch.ones(4, 4, requires_grad=True)

    def run(share):
        product = values @ values
        return product.dtype, product.requires_grad

    assert on_threads(run, [1, 2]) == [(torch.float32, True)] * 2
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert on_threads(run, [1, 2]) == [(torch.bfloat16, False)] * 2


def test_an_error_of_any_share_is_the_callers():
    def run(share):
        if share == 2:
            raise ValueError("share 2")
        return share

    with pytest.raises(ValueError, match="share 2"):
        on_threads(run, [1, 2, 3])
    assert torch.get_num_threads() == 2


def test_one_thread_elsewhere_limits_all_operations_outside_of_shares():
    with one_thread_elsewhere():
        assert torch.get_num_threads() == 1
        assert len(shares_of(10, torch.device("cpu"))) == 2
        on_threads(lambda share: share, [1, 2])
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


class Lookup(nn.Module):
    """Rows of a table through a layer; one parameter is used by no share."""

    def __init__(self):
        super().__init__()
        self.layer, self.unused = nn.Linear(4, 3), nn.Parameter(torch.ones(2))

    def forward(self, rows, values):
        return self.layer(values[list(rows)]).tanh()


def shared(module, values, count, run=None):
    shares = torch.arange(11).tensor_split(count)
    return by_shares(module, run or module, [share.tolist() for share in shares], values, shares)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shares_give_the_result_and_the_gradients_of_all_rows_at_once(count):
    module, values = Lookup().double(), torch.randn(11, 4, dtype=torch.float64, requires_grad=True)

    def gradients(result):
        weights = torch.linspace(-1, 1, result.numel()).view_as(result)
        return torch.autograd.grad((result * weights).sum(), [values, *module.parameters()], allow_unused=True)

    by_share, whole = shared(module, values, count), module(range(11), values)
    torch.testing.assert_close(by_share, whole)
    found, wanted = gradients(by_share), gradients(whole)
    assert [one is None for one in found] == [one is None for one in wanted] == [False, True, False, False]
    torch.testing.assert_close([one for one in found if one is not None], [one for one in wanted if one is not None])


def test_what_needs_no_gradient_gets_none():
    module, values = Lookup(), torch.randn(11, 4)
    module.layer.bias.requires_grad_(False)
    shared(module, values, 2).sum().backward()
    assert module.layer.weight.grad is not None
    assert values.grad is None and module.layer.bias.grad is None


def test_the_same_seed_draws_the_same_whichever_thread_is_first():
    def drawn(seed):
        torch.manual_seed(seed)
        return shared(
            Lookup(), torch.zeros(11, 4), 2, lambda rows, _: torch.randn(len(rows), 50, generator=generator())
        )

    first = drawn(1)
    assert all(torch.equal(drawn(1), first) for _ in range(20))
    assert not torch.equal(drawn(2), first) and not torch.equal(first[:5], first[6:])
    assert generator() is None
