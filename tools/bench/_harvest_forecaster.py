"""Run by `_harvest_forecast` in an environment with scikit-learn: forecasts of the next five minutes of every host.

Gradient boosting learns quantiles of how far load rises, on the first half of a trace, and is asked on the second.
It sees what a controller sees and more: lags, means and deviations over half a day, highs, how the cluster goes.
"""

import importlib
import sys
from typing import Any

import numpy as np

Rows = Any
STEP_S = 300.0
LEARNT_AFTER = 300
"""Steps of the first half that only warm the means."""
_LAGS = (0, 1, 2, 3, 5, 11)
_MEMORIES_S = (600.0, 1_800.0, 7_200.0, 43_200.0)
_HIGHS = (6, 24, 288)


def main(path: str, told: str, *quantiles: str) -> None:
    """Read owners by host and step, write what each quantile says of each host's next step in the second half."""
    owner = np.load(path)
    half = owner.shape[1] // 2
    seen = np.stack(features(owner), axis=-1).astype(np.float32)
    rise = np.roll(owner, -1, axis=1) - owner
    learnt, asked = seen[:, LEARNT_AFTER : half - 1], seen[:, half:-1]
    truth = rise[:, LEARNT_AFTER : half - 1].ravel()
    boosting = importlib.import_module("sklearn.ensemble").HistGradientBoostingRegressor
    found = []
    for quantile in map(float, quantiles):
        model = boosting(
            loss="quantile", quantile=quantile, max_iter=150, learning_rate=0.08, max_leaf_nodes=31,
            min_samples_leaf=200, l2_regularization=1.0, random_state=0,
        )  # fmt: skip
        model.fit(learnt.reshape(-1, seen.shape[-1]), truth)
        found.append(model.predict(asked.reshape(-1, seen.shape[-1])).reshape(asked.shape[:2]))
        print(f"  a forecast of {100 * quantile:g} % is learnt", file=sys.stderr, flush=True)
    np.save(told, np.sort(np.stack(found), axis=0) + owner[:, half:-1])


def features(owner: Rows) -> list[Rows]:
    """What is known at the end of each step."""
    step = owner - late(owner, 1)
    up = np.maximum(step, 0.0)
    found = [late(owner, steps) for steps in _LAGS]
    found += [mean(owner, memory_s) for memory_s in _MEMORIES_S]
    found += [np.sqrt(mean(step * step, memory_s)) for memory_s in _MEMORIES_S]
    found += [np.sqrt(mean(up * up, memory_s)) for memory_s in (1_800.0, 43_200.0)]
    found += [high(owner, steps) for steps in _HIGHS]
    found += [high(up, 288), -high(-owner, 12)]
    found += [np.broadcast_to(each.mean(axis=0), owner.shape) for each in (owner, up)]
    return found


def late(rows: Rows, steps: int) -> Rows:
    """The rows as they were some steps ago."""
    return rows[:, np.maximum(0, np.arange(rows.shape[1]) - steps)]


def mean(rows: Rows, memory_s: float) -> Rows:
    """Exponentially weighted."""
    weight, found, level = 1.0 - np.exp(-STEP_S / memory_s), np.empty_like(rows), rows[:, 0]
    for step in range(rows.shape[1]):
        level = level + weight * (rows[:, step] - level)
        found[:, step] = level
    return found


def high(rows: Rows, steps: int) -> Rows:
    """The highest of the last steps."""
    before = np.repeat(rows[:, :1], steps - 1, axis=1)
    windows = np.lib.stride_tricks.sliding_window_view(np.concatenate([before, rows], axis=1), steps, axis=1)
    return windows.max(axis=-1)


if __name__ == "__main__":
    main(*sys.argv[1:])
