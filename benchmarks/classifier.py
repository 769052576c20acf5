"""BayesNetClassifier beside scikit-learn's classifiers on the same rows: ``python -m benchmarks.classifier``.

Naive Bayes gets the same codes as the network (its bins, its states), so that the two differ by the graph alone; cells
without a state are skipped in both. Boosted trees get the raw columns: they say what there is to be had. The table goes
into docs/classifier.md.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import RepeatedStratifiedKFold
from sklearn.naive_bayes import CategoricalNB
from threadpoolctl import threadpool_limits

from bnpipe import MISSING, BayesNetClassifier, Dataset
from bnpipe.examples import flights

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "classifier.md"
MODELS: Final = ("BayesNetClassifier", "CategoricalNB", "HistGradientBoosting", "class shares")
PLANNED: Final = ["weekday", "hour", "carrier", "origin", "region", "distance", "departures_in_hour"]
PLANE: Final = ["plane_age", "plane_seats"]
WEATHER: Final = ["temperature_anomaly", "wind_speed", "visibility", "precipitation", "humidity", "pressure"]
FORTNIGHTS: Final = ("2013-04-10", "2013-06-05", "2013-07-31", "2013-09-25", "2013-11-20")

Split: TypeAlias = tuple[pd.DataFrame, pd.Series, pd.DataFrame, pd.Series]


@dataclass(frozen=True)
class Task:
    """One row of the table: how rows are split into those to learn from and those to predict."""

    name: str
    splits: Callable[[], Iterator[Split]]
    missing: str = "unobserved"


def folds(load: Callable[..., Any]) -> Iterator[Split]:
    """Twice five stratified folds of a table that scikit-learn ships."""
    X, y = load(return_X_y=True, as_frame=True)
    for learn, predict in RepeatedStratifiedKFold(n_splits=5, n_repeats=2, random_state=0).split(X, y):
        yield X.iloc[learn], y.iloc[learn], X.iloc[predict], y.iloc[predict]


def fortnights(feed: pd.DataFrame, columns: list[str], blank: float = 0.0) -> Iterator[Split]:
    """Ninety days to learn from and the next fourteen to predict, a share of whose cells is blanked."""
    for place, start in enumerate(FORTNIGHTS):
        first = pd.Timestamp(start)
        age = (feed["scheduled_at"] - first) / pd.Timedelta(days=1)
        learn, predict = feed[(age >= -90) & (age < 0)], feed[(age >= 0) & (age < 14)]
        X = predict[columns]
        if blank:
            X = X.mask(np.random.default_rng(place).random(X.shape) < blank)
        yield learn[columns], learn["late_arrival"], X, predict["late_arrival"]


def read_feed() -> pd.DataFrame:
    """All departures of the example, text as categories; `delay` has a state for flights that never left."""
    with tempfile.TemporaryDirectory(prefix="bnpipe-") as folder:
        flights.prepare(Path(folder))
        feed = pd.read_parquet(folder)
    text = ["weekday", "carrier", "origin", "region"]
    delay = pd.cut(feed["departure_delay"], [-np.inf, 0, 5, 15, 30, 60, np.inf], right=False).astype(str)
    return feed.assign(delay=delay).astype(dict.fromkeys([*text, "delay"], "category"))


def answers(task: Task, split: Split) -> dict[str, np.ndarray]:
    """Each model's probabilities of the classes, (rows, classes)."""
    X, y, asked, _ = split
    network = BayesNetClassifier(missing=task.missing).fit(X, y)
    with threadpool_limits(1):  # OpenMP's threads spin where others want the cores: 96 s instead of a few
        trees = HistGradientBoostingClassifier(categorical_features="from_dtype", random_state=0).fit(X, y)
    shares = y.value_counts(normalize=True).reindex(network.classes_).to_numpy()
    return {
        "BayesNetClassifier": network.predict_proba(asked),
        "CategoricalNB": naive_bayes(network, X, y, asked),
        "HistGradientBoosting": trees.predict_proba(asked),
        "class shares": np.tile(shares, (len(asked), 1)),
    }


def naive_bayes(network: BayesNetClassifier, X: pd.DataFrame, y: pd.Series, asked: pd.DataFrame) -> np.ndarray:
    """CategoricalNB on the network's codes; its own predict_proba, but for cells without a state, which add nothing."""
    schema = network.network_.schema.project(tuple(X.columns))
    learned, codes = (Dataset.from_pandas(rows, schema).codes for rows in (X, asked))
    model = CategoricalNB(min_categories=list(schema.cardinalities)).fit(learned.T, y)
    logs = np.tile(model.class_log_prior_, (len(asked), 1))
    for column, table in zip(codes, model.feature_log_prob_, strict=True):
        known = column != MISSING
        logs[known] += table.T[column[known]]
    weights = np.exp(logs - logs.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def measure(task: Task) -> pd.DataFrame:
    """Accuracy and log-loss (nats) of every model on every split."""
    found = []
    for split in task.splits():
        truth = split[3]
        for model, probabilities in answers(task, split).items():
            classes = np.unique(split[1])
            guess = classes[probabilities.argmax(axis=1)]
            loss = log_loss(truth, probabilities, labels=classes)
            found.append({"model": model, "accuracy": accuracy_score(truth, guess), "log-loss": loss})
    return pd.DataFrame(found)


def table(tasks: list[Task], column: str, results: dict[str, pd.DataFrame]) -> str:
    """Means over the splits."""
    lines = [f"| {column} | {' | '.join(MODELS)} |", "|---|" + "---:|" * len(MODELS)]
    for task in tasks:
        means = results[task.name].groupby("model")[column].mean()
        lines.append(f"| {task.name} | {' | '.join(f'{means[model]:.3f}' for model in MODELS)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, and put the tables between the marks of the page."""
    feed = read_feed()
    evening, gate = [*PLANNED, *PLANE, *WEATHER], [*PLANNED, *PLANE, *WEATHER, "departure_delay"]
    # Without the columns whose gaps mean something: a cell that was blanked at random must not look like those.
    seldom_missing = [*PLANNED, *WEATHER[:-1], "delay"]
    tasks = [
        Task("iris", lambda: folds(load_iris)),
        Task("wine", lambda: folds(load_wine)),
        Task("breast cancer", lambda: folds(load_breast_cancer)),
        Task("digits", lambda: folds(load_digits)),
        Task("flights, the evening before", lambda: fortnights(feed, evening), "state"),
        Task("flights, at departure", lambda: fortnights(feed, gate), "state"),
        Task("flights, fewer columns", lambda: fortnights(feed, seldom_missing)),
        Task("the same, 30 % of cells unknown", lambda: fortnights(feed, seldom_missing, 0.3)),
    ]
    results = {}
    for task in tasks:
        results[task.name] = measure(task)
        print(task.name, results[task.name].groupby("model").mean().round(3).to_dict(), flush=True)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("bnpipe", "scikit-learn"))
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    text = "\n\n".join(
        [*(table(tasks, column, results) for column in ("accuracy", "log-loss")), f"{today}; {versions}."]
    )
    page = PAGE.read_text(encoding="utf-8")
    marks = re.compile(r"(<!-- measured -->\n).*(<!-- /measured -->)", flags=re.DOTALL)
    PAGE.write_text(marks.sub(lambda found: f"{found[1]}\n{text}\n{found[2]}", page), encoding="utf-8")


if __name__ == "__main__":
    main()
