"""Recommend to users that the model has never seen: by their features, by a history in the request, or by both.

python examples/cold_start_users.py
"""

from anyrec import Recommender
from anyrec.data.synthetic.generate import generate

NEW_USERS = [
    {"user_id": "by features", "categorical": {"occupation": "chef"}, "text": {"bio": "I love sailing small boats"}},
    {"user_id": "by history"},
    {"user_id": "by both", "categorical": {"occupation": "chef"}},
    {"user_id": "by nothing"},
]
HISTORY = [
    {"user_id": user, "item_id": item, "timestamp": f"2026-03-0{day}T12:00:00Z"}
    for user in ("by history", "by both")
    for day, item in enumerate(["item3", "item9", "item27"], start=1)
]


def main() -> None:
    dataset = generate(users=400, items=60, interactions=6000, seed=0).dataset
    categories = dict(
        zip(dataset.items["item_id"].to_pylist(), dataset.items["categorical.category"].to_pylist(), strict=True)
    )
    config = {"defaults": "fixed", "features": {"image": None, "history": {}}, "training": {"epochs": 6}}
    recommender = Recommender.from_config(config).fit(dataset, progress=False)

    lists = recommender.recommend(NEW_USERS, k=4, interactions=HISTORY)
    for user in NEW_USERS:
        items = [row["item_id"] for row in lists.to_pylist() if row["user_id"] == user["user_id"]]
        print(f"{user['user_id']:<12}", ", ".join(f"{item} ({categories[item]})" for item in items))

    # `answer` returns the same lists together with warnings about what the model could not use.
    for warning in recommender.answer(NEW_USERS, k=4, interactions=HISTORY).warnings:
        print("warning:", warning)


if __name__ == "__main__":
    main()
