"""A small world for tests: every feature group but images, tastes by occupation, built in memory."""

import datetime as dt

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st
from typer.testing import CliRunner

from anyrec.cli import app as cli
from anyrec.core.errors import AnyrecError
from anyrec.data.dataset import Dataset

JOBS = ["nurse", "pilot", "baker", "clerk"]
START = dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)


def small_dataset(users=60, items=40, each=8, seed=0, order=None):
    """order: a seed to shuffle the records by; the interactions keep theirs."""
    rng = np.random.default_rng(seed)
    job, category = rng.integers(0, 4, users), rng.integers(0, 4, items)
    chance = np.where(job[:, None] == category[None, :], 8.0, 1.0)
    chosen = np.argsort(np.log(chance) + rng.gumbel(size=(users, items)), axis=1)[:, ::-1][:, :each]
    user_ids, item_ids = [f"u{i:03d}" for i in range(users)], [f"i{i:03d}" for i in range(items)]
    prices = np.where(rng.random(items) < 0.1, np.nan, rng.normal(50, 10, items))
    user_table = pa.table(
        {
            "user_id": user_ids,
            "categorical.job": [JOBS[j] for j in job],
            "continuous.age": pa.array(rng.integers(18, 80, users).astype(float)),
            "temporal.spending": pa.array([rng.normal(20, 5, rng.integers(1, 6)).tolist() for _ in range(users)]),
            "text.bio": [f"I work as a {JOBS[j]}" if rng.random() < 0.9 else None for j in job],
        }
    )
    item_table = pa.table(
        {
            "item_id": item_ids,
            "categorical.tags": pa.array([[JOBS[c], "all"] for c in category]),
            "continuous.price": pa.array(prices, from_pandas=True),
            "temporal.restocked": pa.array(
                [[START + dt.timedelta(days=int(d)) for d in np.sort(rng.integers(0, 99, 3))] for _ in range(items)],
                pa.list_(pa.timestamp("us", "UTC")),
            ),
            "text.title": [f"Thing {i} for a {JOBS[c]}" for i, c in enumerate(category)],
        }
    )
    interactions = pa.table(
        {
            "user_id": [user_ids[u] for u in range(users) for _ in range(each)],
            "item_id": [item_ids[i] for row in chosen for i in row],
            "interaction_type": [["view", "buy"][n % 2] for n in range(users * each)],
            "timestamp": pa.array(
                [START + dt.timedelta(hours=n) for _ in range(users) for n in range(each)], pa.timestamp("us", "UTC")
            ),
            "rating": pa.array(rng.integers(1, 6, users * each).astype(float)),
        }
    )
    if order is not None:
        shuffle = np.random.default_rng(order)
        user_table, item_table = (
            user_table.take(shuffle.permutation(users)),
            item_table.take(shuffle.permutation(items)),
        )
    roles = {"user.spending": "numbers", "item.restocked": "timestamps"}
    return Dataset(user_table, item_table, interactions, roles=roles)


def in_order(data):
    """The same interactions, each user's in the order of the items, so that an item tells which ones may be next."""
    times = data.interactions.column("timestamp")
    others = data.interactions.drop_columns(["timestamp"])
    sorted_ = others.sort_by([("user_id", "ascending"), ("item_id", "ascending")]).append_column("timestamp", times)
    return Dataset(data.users, data.items, sorted_, roles=data.roles)


def small_config(**changes):
    """A config that trains in about a second, by the fixed defaults."""
    return {"defaults": "fixed", "dim": 16, "training": {"epochs": 3, "batch_size": 128, "patience": None}, **changes}


def call(*arguments):
    """The command line in this process: exit code, output, message."""
    result = CliRunner().invoke(cli.app, [*map(str, arguments)])
    if isinstance(result.exception, AnyrecError):
        return result.exception.exit_code, result.stdout, str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def rewritten_from_a_target_on(users, data, same_time):
    """Draw a user and a target, and change the user's interactions from the target on.

    Args:
        users: A list of (item, second) for each user.
        data: Hypothesis data.
        same_time: With "ordered", earlier interactions at the time of the target stay; otherwise they change as well.

    Returns:
        The user, the place of the target, and all users with the changed interactions.
    """
    user = data.draw(st.integers(0, len(users) - 1))
    place = data.draw(st.integers(0, len(users[user]) - 1))
    moment = users[user][place][1]
    first = place if same_time == "ordered" else min(n for n, (_, when) in enumerate(users[user]) if when == moment)
    changed = [list(one) for one in users]
    for n in range(first, len(users[user])):
        changed[user][n] = (data.draw(st.integers(0, 29)), users[user][n][1] + (0 if n <= place else 3))
    return user, place, changed
