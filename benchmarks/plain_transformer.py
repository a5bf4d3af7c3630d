"""A minimal causal transformer over item ids in torch: the reference for anyrec's transformer.

    python benchmarks/plain_transformer.py --data ml-100k|ml-1m --epochs N --seed N

Two gated blocks with SwiGLU (LiGR, as in eSASRec, arXiv 2508.06450), dimension 64, two heads, each user's last 100
training items padded to 100, learned positions, tied item table, softmax over all items at the positions that are not
padding, AdamW. Sequences are not bucketed and options are not tuned. It uses anyrec only to read data. Protocol P1.
Prints the seconds of training and the validation ndcg@10 of each epoch, and at the end the test ndcg@10 at the best
validation epoch, trained on the training part.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import torch
from common import DATA, argument_parser
from torch import Tensor, nn
from torch.nn import functional as F

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "0")  # torch's default; anyrec enables huge pages

from anyrec.core.hardware import multiplies_bf16
from anyrec.data.dataset import Dataset
from anyrec.data.order import time_order

DIM, HEADS, BLOCKS, WINDOW, BATCH, DROPOUT, RATE = 64, 2, 2, 100, 128, 0.2, 1e-3
BF16 = multiplies_bf16(torch.device("cpu"))


class Block(nn.Module):
    """x + sigmoid(W x) * sublayer(norm(x)), for causal attention and then SwiGLU."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(DIM) for _ in range(2))
        self.gates = nn.ModuleList(nn.Linear(DIM, DIM) for _ in range(2))
        self.qkv, self.out = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)
        self.up, self.down = nn.Linear(DIM, 8 * DIM, bias=False), nn.Linear(4 * DIM, DIM, bias=False)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, window, dim) to the same shape."""
        x = x + torch.sigmoid(self.gates[0](x)) * self.dropout(self.attend(self.norms[0](x)))
        gate, value = self.up(self.norms[1](x)).chunk(2, -1)
        return x + torch.sigmoid(self.gates[1](x)) * self.dropout(self.down(F.silu(gate) * value))

    def attend(self, x: Tensor) -> Tensor:
        """Return causal self-attention of (batch, window, dim)."""
        batch, length, _ = x.shape
        query, key, value = self.qkv(x).view(batch, length, 3, HEADS, DIM // HEADS).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, DIM))


class Transformer(nn.Module):
    """Blocks over the vectors of items and positions; the item table is tied to the output."""

    def __init__(self, num_items: int):
        super().__init__()
        self.items = nn.Embedding(num_items + 1, DIM, padding_idx=num_items)
        self.positions = nn.Embedding(WINDOW, DIM)
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.norm, self.dropout = nn.LayerNorm(DIM), nn.Dropout(DROPOUT)
        for table in (self.items, self.positions):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, items: Tensor) -> Tensor:
        """Map (batch, window) items to (batch, window, dim). Padding is at the end: no real position attends to it."""
        return self.norm(self.blocks(self.dropout(self.items(items) + self.positions.weight[: items.shape[1]])))

    def logits(self, hidden: Tensor) -> Tensor:
        """Return scores of all items: (..., dim) to (..., items)."""
        return hidden @ self.items.weight[:-1].T


def main() -> None:
    parser = argument_parser(__doc__, required=True)
    parser.add_argument("--epochs", type=int, default=28)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    items, offsets, num_items = read(DATA / arguments.data)
    inputs, targets = training_windows(items, offsets, num_items)
    model = Transformer(num_items)
    optimizer = torch.optim.AdamW(model.parameters(), RATE)
    best, seconds = (-1.0, 0, 0.0), []
    for epoch in range(1, arguments.epochs + 1):
        started, busy = time.perf_counter(), time.process_time()
        loss = train(model, optimizer, inputs, targets)
        seconds.append(time.perf_counter() - started)
        timing = f"epoch {epoch} seconds {seconds[-1]:.2f} cpu {time.process_time() - busy:.2f}"
        validation, test = (ndcg(model, items, offsets, num_items, left) for left in (2, 1))
        best = max(best, (validation, epoch, test))
        print(f"{timing} loss {loss:.4f} validation ndcg@10 {validation:.4f}", flush=True)
    number = "bf16" if BF16 else "float32"
    print(
        f"{arguments.data} seed {arguments.seed} {number}: median epoch {np.median(seconds):.2f} s; "
        f"best epoch {best[1]}: validation ndcg@10 {best[0]:.4f}, test {best[2]:.4f}"
    )


def read(folder: Path) -> tuple[Tensor, Tensor, int]:
    """Return (interactions,) item rows by user and time, (users + 1,) offsets, and the number of items."""
    data = Dataset.read(folder)
    order = time_order(data)
    occurring, items = np.unique(data.item_rows[order], return_inverse=True)
    counts = np.bincount(data.user_rows)
    return torch.from_numpy(items), torch.from_numpy(np.append(0, np.cumsum(counts[counts > 0]))), len(occurring)


def window(items: Tensor, begin: Tensor, end: Tensor, length: int, padding: int) -> Tensor:
    """Return (users, length), the last items of each user before `end`, aligned left and filled up with `padding`.

    Args:
        items: (interactions,) item rows.
        begin: (users,) where each user begins.
        end: (users,) where each window ends, exclusive.
        length: Length of the window.
        padding: Row of the padding.
    """
    places = torch.maximum(begin, end - length)[:, None] + torch.arange(length)
    return torch.where(places < end[:, None], items[places.clamp(max=len(items) - 1)], padding)


def training_windows(items: Tensor, offsets: Tensor, num_items: int) -> tuple[Tensor, Tensor]:
    """Return inputs and targets (users, WINDOW), without the last two interactions of each user."""
    begin, end = offsets[:-1], offsets[1:] - 2
    both = window(items, begin, end, WINDOW + 1, num_items)[end - begin > 1]
    return both[:, :-1], both[:, 1:]


def train(model: Transformer, optimizer: torch.optim.Optimizer, inputs: Tensor, targets: Tensor) -> float:
    """Train one epoch and return its mean loss."""
    model.train()
    losses = []
    for rows in torch.randperm(len(inputs)).split(BATCH):
        wanted = targets[rows]
        real = wanted < model.items.padding_idx
        with torch.autocast("cpu", torch.bfloat16, enabled=BF16):
            logits = model.logits(model(inputs[rows])[real])
        loss = F.cross_entropy(logits.float(), wanted[real])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return float(np.mean(losses))


@torch.no_grad()
def ndcg(model: Transformer, items: Tensor, offsets: Tensor, num_items: int, left: int) -> float:
    """Return the mean ndcg@10 of each user's interaction `left` places from the end.

    Items that the user had before are excluded; a tie counts half a place.
    """
    model.eval()
    begin, end, gains = offsets[:-1], offsets[1:] - left, []
    for users in torch.arange(len(begin))[end > begin].split(256):
        history = window(items, begin[users], end[users], WINDOW, num_items)
        last = (history < num_items).sum(1) - 1
        scores = model.logits(model(history)[torch.arange(len(users)), last])
        target = scores.gather(1, items[end[users], None])
        for row, user in enumerate(users):
            scores[row, items[begin[user] : end[user]]] = -torch.inf
        scores.scatter_(1, items[end[users], None], target)
        ranks = 1 + (scores > target).sum(1) + ((scores == target).sum(1) - 1) / 2
        gains.append(torch.where(ranks <= 10, 1 / torch.log2(ranks + 1), 0.0))
    return torch.cat(gains).mean().item()


if __name__ == "__main__":
    main()
