"""Off-policy estimates against a known truth: coverage of the intervals, and wrong conclusions.

Two slots are drawn in turn from lists of six items, as `explore` does, with a pool of four. Users differ in how much
they like everything, and some come on several days. All items are worth the same, so each difference that is found is a
wrong conclusion.

    python benchmarks/off_policy.py [--logs N]
"""

from __future__ import annotations

import argparse

import numpy as np

from anyrec.serving.experiments.off_policy import OffPolicy, off_policy

ITEMS, POOL = 6, 4
CANDIDATES = {"one other item": np.array([2, 0]), "two other items": np.array([1, 2])}
"""What candidates show; the policy that logs prefers 0, 1, 2, ... in this order."""
WORLDS = [(2000, 0.05, 0.3, 1), (5000, 0.02, 0.3, 1), (1000, 0.05, 0.3, 5), (20_000, 0.01, 0.3, 1)]
"""Users, mean reward, epsilon, days."""


def drawn(rng: np.random.Generator, users: int, epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (users, 2) drawn items, and the probability of those up to each."""
    order, chances, ranks = np.tile(np.arange(ITEMS), (users, 1)), np.ones((users, 2)), np.arange(ITEMS)
    for slot in range(2):
        place = np.where(rng.random(users) < epsilon, rng.integers(0, POOL, users), 0)
        chances[:, slot] = epsilon / POOL + (1 - epsilon) * (place == 0)
        last = (place + slot)[:, None]
        before = np.where(ranks == slot, last, np.where((ranks > slot) & (ranks <= last), ranks - 1, ranks))
        order = np.take_along_axis(order, before, 1)
    return order[:, :2], chances.cumprod(1)


def estimated(
    candidate: np.ndarray, seed: int, users: int, reward: float, epsilon: float, days: int
) -> tuple[OffPolicy, float]:
    """Return the estimates from one log, and the mean reward of the candidate."""
    rng = np.random.default_rng(seed)
    chance = np.minimum(reward * rng.gamma(1, 1, (users, 1)), 1)
    parts = []
    for _ in range(days):
        items, chances = drawn(rng, users, epsilon)
        parts.append((rng.random(items.shape) < chance, chances, (items == candidate).cumprod(1)))
    rewards, logged, target = (np.concatenate(part).ravel() for part in zip(*parts, strict=True))
    owners, positions = np.tile(np.repeat(np.arange(users), 2), days), np.tile([1, 2], users * days)
    return off_policy(rewards, logged, target, owners, positions), float(chance.mean())


def main() -> None:
    """Print a table with one line for each world and candidate."""
    parser = argparse.ArgumentParser(description="Off-policy estimates against a known truth.")
    parser.add_argument("--logs", type=int, default=200, help="Simulated logs of each world.")
    logs = parser.parse_args().logs
    print("| users, reward, epsilon, days | candidate | effective users | IPS | SNIPS | concluded | wrong |")
    for world in WORLDS:
        for name, candidate in CANDIDATES.items():
            found = [estimated(candidate, seed, *world) for seed in range(logs)]
            truth = float(np.mean([one for _, one in found]))
            covers = {
                key: np.mean([one.low <= truth <= one.high for one in (getattr(each, key) for each, _ in found)])
                for key in ("ips", "snips")
            }
            wrong = sum(one.enough and ("better" in one.conclusion or "worse" in one.conclusion) for one, _ in found)
            print(
                f"| {', '.join(map(str, world))} | {name} | {np.mean([one.effective for one, _ in found]):,.0f} | "
                f"{covers['ips']:.0%} | {covers['snips']:.0%} | {np.mean([one.enough for one, _ in found]):.0%} | "
                f"{wrong / logs:.1%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
