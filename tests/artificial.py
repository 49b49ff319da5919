"""Random predictions, for tests of what is reported about them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hpcdd.artifacts.predictions import SplitPredictions


def make_predictions(
    n: int = 60,
    num_subdomains: int = 4,
    num_classes: int = 3,
    *,
    strategies: Sequence[str] = ("average", "majority", "log_pool", "dnn", "coherent_transfer"),
    image_shape: tuple[int, ...] = (1, 12, 12),
    dataset: str = "artificial",
    seed: int = 0,
) -> SplitPredictions:
    """All samples of a small split: local CNNs that are correct half of the time, and ever better strategies."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % num_classes
    correct = generator.random((n, num_subdomains)) < 0.5
    local = np.where(correct, labels[:, None], generator.integers(0, num_classes, (n, num_subdomains)))
    probabilities = {}
    for number, name in enumerate(strategies):
        logits = generator.normal(size=(n, num_classes))
        logits[np.arange(n), labels] += 0.5 + 0.5 * number
        probabilities[name] = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)
    moved = [name for name in strategies if name in ("average", "dnn") or name.startswith("coherent")]
    attribution = {name: generator.normal(0, 0.2, (n, num_subdomains)).astype(np.float32) for name in moved}
    shown = np.arange(min(n, 3 * num_classes))
    return SplitPredictions(
        dataset=dataset,
        split="test",
        class_names=tuple(f"class {k}" for k in range(num_classes)),
        samples=n,
        features="logits",
        rows=np.arange(n),
        labels=labels,
        local=local.astype(np.int32),
        confidence=generator.uniform(1 / num_classes, 1, (n, num_subdomains)).astype(np.float32),
        strategies=probabilities,
        ablation=attribution,
        gradient={name: 2 * values for name, values in attribution.items() if name != "average"},
        shown=shown,
        images=generator.integers(0, 256, (len(shown), *image_shape)).astype(np.uint8),
        reasons=tuple(("example", "rescued", "lost")[i % 3] for i in range(len(shown))),
    )
