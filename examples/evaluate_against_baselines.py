"""Compare a trained model with classical models on one split.

    python examples/evaluate_against_baselines.py

`anyrec train` compares with all baselines and writes a report with every metric and confidence intervals.
"""

from anyrec import Recommender
from anyrec.data.synthetic.generate import generate

METRICS = ("ndcg@10", "recall@10", "mrr@10")


def main() -> None:
    dataset = generate(users=400, items=60, interactions=6000, seed=0).dataset
    configs = {
        "two towers": {"defaults": "fixed", "features": {"image": None}, "training": {"epochs": 6}},
        "ease": {"model": {"type": "ease"}},
        "content_knn": {"model": {"type": "content_knn"}},
        "popularity": {"model": {"type": "popularity"}},
    }
    fitted = {name: Recommender.from_config(config).fit(dataset, progress=False) for name, config in configs.items()}

    # Metrics are comparable only for the same held-out interactions: the split's name is a hash of its rows.
    assert len({recommender.split.name for recommender in fitted.values()}) == 1
    print(f"{'model':<12}", *(f"{metric:>12}" for metric in METRICS))
    for name, recommender in fitted.items():
        metrics = recommender.evaluate("test")
        print(f"{name:<12}", *(f"{metrics[metric]:>12.3f}" for metric in METRICS))


if __name__ == "__main__":
    main()
