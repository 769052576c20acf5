"""The scikit-learn face: a network over features and target, learned by `fit`, asked by `predict_proba`.

Everything here is translation: columns become variables, the class becomes one more, and the rest is
`learn_structure`, `fit` and `compile`.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

try:
    from joblib import effective_n_jobs
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import assert_all_finite, check_consistent_length, check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        "bnpipe.BayesNetClassifier needs scikit-learn, which a base install leaves out: "
        "pip install 'bnpipe[train]', or scikit-learn alone"
    ) from error

from bnpipe.data import Dataset
from bnpipe.errors import DataError, SchemaError, shorten
from bnpipe.inference import Engine, compile  # noqa: A004
from bnpipe.parameters import fit
from bnpipe.schema import MISSING, Schema, Variable, bin_labels, quantile_edges, state_name
from bnpipe.structure import LearnedStructure, learn_structure

if TYPE_CHECKING:
    from bnpipe.knowledge import Knowledge
    from bnpipe.network import Network

_NUMBERS: Final = frozenset({"integer", "floating", "mixed-integer-float", "decimal"})


class BayesNetClassifier(ClassifierMixin, BaseEstimator):
    """Classify by a Bayesian network learned over the features and the class together.

    The graph is learned by hill climbing, as any of bnpipe's; the class is a node like the others. So the
    network can be read, drawn and audited, and it answers whatever part of a row is known.

    Columns are taken as follows. A categorical keeps its declared categories as states. Numbers with more
    than `bins` distinct values are put into quantile bins learned by `fit`. Everything else has its distinct
    values as states. A missing cell is unobserved, and so is a value that `fit` did not see.

    Parameters
    ----------
    structure_score : {"bic", "aic", "bdeu", "bds", "k2", "ll"}
        What the search climbs; `score` of `learn_structure`, a name that is a method here.
    max_parents : int or None
        Of each node. Lower it where inference is refused as too dense.
    knowledge : Knowledge or None
        Required and forbidden arcs, tiers, by the names of the columns and `target_name`.
    tabu : int
        Non-improving moves that the walk goes on from an optimum.
    restarts : int
        How often to disturb the best graph at random and climb again.
    equivalent_sample_size : float
        Rows' worth of the BDeu prior, of the CPDs and of the scores ``bdeu`` and ``bds``. 0.0 is maximum likelihood
        (and 10 in those scores): rows may then be impossible; they get the class prior, with a warning.
    bins : int
        2 to 254. Quantile bins of a column of numbers that has more distinct values.
    missing : {"unobserved", "state"}
        What a missing cell says. "unobserved": nothing; the graph is then learned from the complete rows only,
        each CPD from the rows where its family is observed. "state": it is a state of every column that
        has missing cells in `fit`.
    target_name : str or None
        What the class is called in the graph. None: the name of `y` where it is a Series, else "target"; with
        underscores behind it if a column has that name.
    random_state : int, RandomState or None
        Of the search. An int is the seed of `learn_structure`.
    n_jobs : int or None
        Threads that count during `fit`, None is 1 and -1 one a core. They change no result.

    Attributes
    ----------
    classes_ : array (classes,)
        Sorted, of the dtype of `y`.
    n_features_in_ : int
    feature_names_in_ : array of str (features,)
        Where `X` has text for column names. Otherwise the network calls the columns x0, x1, …
    target_name_ : str
        The node of the class.
    structure_ : LearnedStructure
        The graph and how it was found.
    network_ : Network
        The fitted network.
    engine_ : Engine
        The compiled network.

    See Also
    --------
    bnpipe.learn_structure, bnpipe.fit, bnpipe.compile : What it is made of.

    References
    ----------
    Friedman, N., Geiger, D. & Goldszmidt, M. (1997). Bayesian network classifiers. Machine Learning 29, 131-163.

    Examples
    --------
    >>> import pandas as pd
    >>> from bnpipe import BayesNetClassifier
    >>> days = pd.DataFrame({"sky": ["clear", "clouds", "clouds", "clear"] * 25, "wind": [3.5, 3.5, 9.0, 9.0] * 25})
    >>> rain = pd.Series(["no", "yes", "yes", "no"] * 25, name="rain")
    >>> classifier = BayesNetClassifier().fit(days, rain)
    >>> classifier.predict(pd.DataFrame({"sky": ["clouds", None], "wind": [None, 9.0]}))
    array(['yes', 'no'], dtype=object)
    >>> classifier.predict_proba(days.head(1)).round(2)
    array([[0.95, 0.05]])
    """

    classes_: NDArray[Any]
    n_features_in_: int
    feature_names_in_: NDArray[Any]
    target_name_: str
    structure_: LearnedStructure
    network_: Network
    engine_: Engine

    def __init__(
        self,
        *,
        structure_score: str = "bic",
        max_parents: int | None = None,
        knowledge: Knowledge | None = None,
        tabu: int = 0,
        restarts: int = 0,
        equivalent_sample_size: float = 10.0,
        bins: int = 5,
        missing: Literal["unobserved", "state"] = "unobserved",
        target_name: str | None = None,
        random_state: int | np.random.RandomState | None = 0,
        n_jobs: int | None = None,
    ) -> None:
        self.structure_score = structure_score
        self.max_parents = max_parents
        self.knowledge = knowledge
        self.tabu = tabu
        self.restarts = restarts
        self.equivalent_sample_size = equivalent_sample_size
        self.bins = bins
        self.missing = missing
        self.target_name = target_name
        self.random_state = random_state
        self.n_jobs = n_jobs

    def fit(self, X: Any, y: ArrayLike) -> BayesNetClassifier:
        """Learn the graph and the CPDs.

        Parameters
        ----------
        X : DataFrame or array-like (rows, features)
            Text, numbers, booleans and categoricals, with or without missing cells.
        y : array-like (rows,)

        Returns
        -------
        BayesNetClassifier
            Itself.

        Raises
        ------
        ValueError
            What scikit-learn refuses: other lengths, no rows, infinite numbers, a continuous or missing `y`.
        SchemaError
            A column or `y` has more than 255 states, or values that have none, such as dates.
        DataError
            No row is complete where `missing` is "unobserved", or a parameter is out of its range.
        TooDenseError
            The learned graph is too dense for exact inference.
        """
        self._check_parameters()
        labels = y.to_numpy() if isinstance(y, pd.Series) and not y.hasnans else y  # else Int64 would become float
        labels = validate_data(self, y=labels)  # before X, whose column names it would clear
        check_classification_targets(labels)
        frame = self._frame(X, reset=True)
        check_consistent_length(frame, labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        self.target_name_ = self._name_target(y, list(frame.columns))
        target = Variable(self.target_name_, _class_states(self.classes_))
        features = [_variable(name, frame[name], self.bins, self.missing) for name in frame.columns]
        frame[self.target_name_] = np.array(target.states, dtype=object)[codes]
        self._learn(Dataset.from_pandas(frame, Schema((*features, target))))
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Give the posterior of the class, from whatever cells of a row are known.

        Returns
        -------
        float64 (rows, classes)
            Columns in the order of `classes_`.
        """
        check_is_fitted(self)
        posterior = self.engine_.posterior(self._frame(X, reset=False), targets=[self.target_name_])
        probabilities = posterior[self.target_name_]
        if posterior.impossible.any():
            warnings.warn(
                f"{int(posterior.impossible.sum())} of {len(probabilities)} rows are impossible under the network and "
                "get the class prior; fit with equivalent_sample_size above 0",
                stacklevel=2,
            )
            nothing = pd.DataFrame(index=range(1))
            prior = self.engine_.posterior(nothing, targets=[self.target_name_])[self.target_name_]
            probabilities = np.where(posterior.impossible[:, None], prior, probabilities)
        return probabilities

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """Give the logarithm of :meth:`predict_proba`, float64 (rows, classes) in nats."""
        with np.errstate(divide="ignore"):
            logs: NDArray[np.float64] = np.log(self.predict_proba(X))
        return logs

    def predict(self, X: Any) -> NDArray[Any]:
        """Give the most probable class of each row, (rows,) of the dtype of `classes_`."""
        places = self.predict_proba(X).argmax(axis=1)
        labels: NDArray[Any] = self.classes_[places]
        return labels

    def _check_parameters(self) -> None:
        """Check what is used here; the rest is checked by what it is handed to."""
        if not isinstance(self.bins, int | np.integer) or not 2 <= self.bins < MISSING:
            raise DataError(f"bins must be a whole number from 2 to {MISSING - 1}, not {self.bins!r}")
        if not self.equivalent_sample_size >= 0:
            raise DataError(f"equivalent_sample_size must be 0 or more, not {self.equivalent_sample_size!r}")
        if self.missing not in {"unobserved", "state"}:
            raise DataError(f'missing must be "unobserved" or "state", not {self.missing!r}')

    def _frame(self, X: Any, *, reset: bool) -> pd.DataFrame:
        """Check X as scikit-learn does and give its columns the names of the network's variables; X stays as it is."""
        if isinstance(X, pd.DataFrame):
            if not X.columns.is_unique:
                raise SchemaError(f"columns given twice: {shorten(X.columns[X.columns.duplicated()].unique())}")
            # Not check_array: it would make one array of all columns and lose the categories.
            validate_data(self, X, reset=reset, skip_check_array=True)
            _check_filled(X, type(self).__name__)
            frame = X.copy(deep=False)
        else:
            array = validate_data(self, X, reset=reset, dtype=None, ensure_all_finite="allow-nan")
            frame = pd.DataFrame(array)
        frame.columns = pd.Index(getattr(self, "feature_names_in_", [f"x{place}" for place in range(frame.shape[1])]))
        return frame

    def _name_target(self, y: ArrayLike, columns: list[str]) -> str:
        if self.target_name is not None:
            if self.target_name in columns:
                raise SchemaError(f"target_name {self.target_name!r} is also a column of X; choose another")
            return self.target_name
        own = getattr(y, "name", None)
        name = own if isinstance(own, str) and own else "target"
        if name == own and name in columns:
            warnings.warn(
                f"X has a column {name!r}, which is the name of y too: drop it if it is the target itself; "
                "otherwise choose target_name",
                stacklevel=3,
            )
        return _unused(name, columns)

    def _learn(self, data: Dataset) -> None:
        if not data.complete.any():
            raise DataError(
                f"none of {data.rows} rows is complete, and the graph is learned from complete rows; "
                'fill cells in, drop the emptiest columns or pass missing="state"'
            )
        self.structure_ = learn_structure(
            data,
            score=self.structure_score,
            max_parents=self.max_parents,
            knowledge=self.knowledge,
            tabu=self.tabu,
            restarts=self.restarts,
            seed=_seed(self.random_state),
            threads=effective_n_jobs(self.n_jobs),
            equivalent_sample_size=self.equivalent_sample_size or 10.0,
        )
        self.network_ = fit(data, self.structure_.parents, self.equivalent_sample_size)
        self.engine_ = compile(self.network_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        tags.input_tags.allow_nan = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """Leave the engine out: it follows from the network, whose pickled form is smaller and lasts longer."""
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name != "engine_"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if hasattr(self, "network_"):
            self.engine_ = compile(self.network_)


def _seed(random_state: int | np.random.RandomState | None) -> int:
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


def _check_filled(frame: pd.DataFrame, asker: str) -> None:
    """Refuse what scikit-learn's check_array refuses of an array, in its words."""
    for axis, what in enumerate(("sample", "feature")):
        if not frame.shape[axis]:
            raise ValueError(
                f"Found array with 0 {what}(s) (shape={frame.shape}) while a minimum of 1 is required by {asker}."
            )
    for place, name in enumerate(frame.columns):
        if isinstance(frame.dtypes.iloc[place], np.dtype) and frame.dtypes.iloc[place].kind == "f":
            assert_all_finite(frame.iloc[:, place].to_numpy(), allow_nan=True, input_name=str(name))


def _class_states(classes: NDArray[Any]) -> tuple[str, ...]:
    if len(classes) > MISSING:
        raise SchemaError(f"y: {len(classes)} classes, at most {MISSING} are allowed; join rare ones")
    return tuple(state_name(label) for label in classes.tolist())


def _variable(name: str, values: pd.Series[Any], bins: int, missing: str) -> Variable:
    """Decide how a column becomes states."""
    nulls = values.isna()
    if nulls.all():
        return Variable(name, ("missing",), missing="missing")  # a constant, which the search leaves alone
    edges = None
    if isinstance(values.dtype, pd.CategoricalDtype):
        states = tuple(state_name(category) for category in values.cat.categories)
    else:
        uniques = _uniques(name, values)
        if len(uniques) > bins and pd.api.types.infer_dtype(uniques) in _NUMBERS:
            edges = quantile_edges(values[~nulls].to_numpy(dtype=np.float64), bins)
            states = bin_labels(edges)
        else:
            states = tuple(dict.fromkeys(state_name(value) for value in uniques))
    null_state = None
    if missing == "state" and nulls.any():
        null_state = _unused("missing", states)
        states = (*states, null_state)
    if len(states) > MISSING:
        raise SchemaError(
            f"{name}: {len(states)} states, at most {MISSING} are allowed; join rare values, or drop the column"
        )
    return Variable(name, states, edges=edges, missing=null_state)


def _uniques(name: str, values: pd.Series[Any]) -> list[Any]:
    """Give the distinct values that are not null, sorted."""
    if values.dtype.kind in "mMc":
        raise SchemaError(f"{name}: {values.dtype} has no states; make a variable of it, such as hour or month")
    try:
        uniques: list[Any] = values.dropna().unique().tolist()
    except TypeError as error:
        raise SchemaError(f"{name}: can't compare its values: {shorten([error])}") from error
    try:
        return sorted(uniques)
    except TypeError:
        return sorted(uniques, key=state_name)


def _unused(name: str, taken: tuple[str, ...] | list[str]) -> str:
    while name in taken:
        name += "_"
    return name
