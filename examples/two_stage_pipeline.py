"""Put a pipeline behind a trained model: candidates from several sources, a ranker, and rules without code.

python examples/two_stage_pipeline.py
"""

from anyrec import Recommender
from anyrec.data.synthetic.generate import generate

PIPELINE = {
    "retrieve": {"k": 40, "sources": [{"type": "model"}, {"type": "popularity", "k": 10}]},
    "rank": {"type": "mlp", "k": 20, "training": {"epochs": 2}},
    "rerank": {
        "rules": [
            {"type": "where", "where": {"item.continuous.price": {"lt": 60}}},
            {"type": "diversity", "method": "max_per_category", "feature": "item.categorical.category", "max": 1},
        ]
    },
}


def main() -> None:
    dataset = generate(users=400, items=60, interactions=6000, seed=0).dataset
    config = {"defaults": "fixed", "features": {"image": None}, "training": {"epochs": 6}}
    alone = Recommender.from_config(config).fit(dataset, progress=False)
    staged = alone.with_pipeline(PIPELINE, progress=False)  # the same model; sources and ranker are trained now

    items = {row["item_id"]: row for row in dataset.items.to_pylist()}
    for name, recommender in (("model alone", alone), ("pipeline", staged)):
        answer = recommender.answer(["user1"], k=4, trace=True)
        print(f"{name}: stages {', '.join(answer.latency)}")
        for row in answer.table.to_pylist():
            item = items[row["item_id"]]
            print(f"  {row['rank']}. {row['item_id']}: {item['categorical.category']}, {item['continuous.price']}")
    last = answer.table["item_id"][-1].as_py()
    print(f"what each stage did with {last}:")
    for event in answer.trace.to_pylist():
        if event["item_id"] == last:
            print(f"  {event['event']} by {event['by']}, rank {event['rank']}")


if __name__ == "__main__":
    main()
