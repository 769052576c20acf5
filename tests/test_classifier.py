"""The scikit-learn face of a network."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_networks import joint, published, sample
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import (
    check_dataframe_column_names_consistency,
    estimator_checks_generator,
    parametrize_with_checks,
)

import bnpipe
from bnpipe import BayesNetClassifier
from bnpipe.errors import DataError, KnowledgeError, SchemaError

DOCS = Path(__file__).resolve().parent.parent / "docs" / "classifier.md"

FAILS_ON_NUMBERS = {
    "check_dtype_object": "text is allowed, so a dict among numbers is found by bnpipe and not by numpy's conversion: "
    "SchemaError instead of TypeError",
    "check_estimators_nan_inf": "a missing cell is unobserved and not refused; infinity is refused",
}
"""Checks that fail where scikit-learn is told that only complete numbers are taken, and why."""

WEIGHTS = "there is no `sample_weight`: a Dataset counts rows"
ARRAYS = "pandas and numpy only, as all of bnpipe"
OUTPUTS = "one target; fit another classifier for another target"
NOT_ASKED = {
    "check_all_zero_sample_weights_error": WEIGHTS,
    "check_array_api_mixed_inputs": ARRAYS,
    "check_array_api_same_namespace": ARRAYS,
    "check_class_weight_balanced_linear_classifier": "not linear",
    "check_class_weight_classifiers": "there is no `class_weight`: the posterior is a probability; decide by its costs",
    "check_classifier_multioutput": OUTPUTS,
    "check_classifiers_multilabel_output_format_decision_function": OUTPUTS,
    "check_classifiers_multilabel_output_format_predict": OUTPUTS,
    "check_classifiers_multilabel_output_format_predict_proba": OUTPUTS,
    "check_classifiers_multilabel_representation_invariance": OUTPUTS,
    "check_estimators_nan_inf": FAILS_ON_NUMBERS["check_estimators_nan_inf"],
    "check_sample_weight_equivalence_on_dense_data": WEIGHTS,
    "check_sample_weight_equivalence_on_sparse_data": WEIGHTS,
    "check_sample_weights_list": WEIGHTS,
    "check_sample_weights_not_an_array": WEIGHTS,
    "check_sample_weights_not_overwritten": WEIGHTS,
    "check_sample_weights_pandas_series": WEIGHTS,
    "check_sample_weights_shape": WEIGHTS,
    "check_sparsify_coefficients": "there are no coefficients",
}
"""Checks that scikit-learn asks of its own linear model or tree and, by the tags and the signature, not of this one."""


class NumbersOnly(BayesNetClassifier):
    """The same classifier, whose tags make scikit-learn check it on continuous numbers, not on rounded ones."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = tags.input_tags.string = tags.input_tags.allow_nan = False
        return tags


def check_names(*estimators) -> set[str]:
    """Names of the checks that scikit-learn has for estimators."""
    checks = [check for estimator in estimators for _, check in estimator_checks_generator(estimator)]
    return {check.func.__name__ if hasattr(check.func, "__name__") else check.func.func.__name__ for check in checks}


def rows_of_doc(heading: str) -> dict[str, str]:
    """The two columns of the table below a heading of docs/classifier.md."""
    section = DOCS.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", section, flags=re.MULTILINE))


@pytest.fixture(scope="module")
def patients() -> tuple[pd.DataFrame, pd.Series]:
    """1 500 rows of the network asia: features with declared categories, and who is short of breath."""
    frame = sample(published("asia"), 1500, seed=5).to_pandas()
    return frame.drop(columns="dysp"), frame["dysp"]


def holes(frame: pd.DataFrame, share: float, seed: int) -> pd.DataFrame:
    """The frame with a share of its cells missing."""
    return frame.mask(np.random.default_rng(seed).random(frame.shape) < share)


@parametrize_with_checks([BayesNetClassifier()], expected_failed_checks={}, xfail_strict=True)
def test_scikit_learns_checks_pass(estimator, check):
    """Every check that scikit-learn has for a classifier of categories with missing cells passes."""
    check(estimator)


@parametrize_with_checks([NumbersOnly()], expected_failed_checks=lambda _: FAILS_ON_NUMBERS, xfail_strict=True)
def test_scikit_learns_checks_pass_on_continuous_numbers(estimator, check):
    """Numbers go through bins, and but for what is listed that passes the checks too."""
    check(estimator)


def test_scikit_learns_array_check_passes_where_it_runs():
    """The one check that scikit-learn skips without SCIPY_ARRAY_API=1, and all others with it."""
    code = (
        "import bnpipe; from sklearn.utils.estimator_checks import check_estimator\n"
        "done = check_estimator(bnpipe.BayesNetClassifier(), on_skip=None, on_fail=None)\n"
        "print(len(done) > 40, [check['check_name'] for check in done if check['status'] != 'passed'])"
    )
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "SCIPY_ARRAY_API": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split("\n")[0] == "True []"


def test_what_scikit_learn_does_not_ask_is_listed():
    """Tags and signature leave out the checks of the list and no others."""
    asked_of_its_own = check_names(LogisticRegression(), DecisionTreeClassifier())
    assert asked_of_its_own - check_names(BayesNetClassifier()) == set(NOT_ASKED)


def test_the_documentation_lists_the_same_checks_and_reasons():
    """docs/classifier.md and this file say the same."""
    assert rows_of_doc("Checks that are not asked") == NOT_ASKED
    assert rows_of_doc("Checks that fail on numbers") == FAILS_ON_NUMBERS


def test_column_names_are_kept_and_checked():
    """Columns renamed, missing or in another order are refused in scikit-learn's words."""
    check_dataframe_column_names_consistency("BayesNetClassifier", BayesNetClassifier())


def test_probabilities_are_those_of_the_whole_joint_table(patients):
    """With any cells missing, the answer is the conditional of the product of all CPDs."""
    X, y = patients
    classifier = BayesNetClassifier().fit(X, y)
    table, nodes = joint(classifier.network_), classifier.network_.nodes
    questions = holes(X.head(60), 0.4, seed=1)
    answers = classifier.predict_proba(questions)
    for place, row in enumerate(questions.to_dict("records")):
        known = {node: classifier.network_.schema[node].states.index(v) for node, v in row.items() if pd.notna(v)}
        cut = table[tuple(known.get(node, slice(None)) for node in nodes)]
        rest = [node for node in nodes if node not in known]
        weights = cut.sum(axis=tuple(axis for axis, node in enumerate(rest) if node != "dysp"))
        assert answers[place] == pytest.approx(weights / weights.sum(), abs=1e-9)


def test_it_is_bnpipes_own_learning(patients):
    """Graph, CPDs and answers are those of learn_structure, fit and compile with the same options."""
    X, y = patients
    options = {"max_parents": 2, "tabu": 3, "restarts": 1}
    classifier = BayesNetClassifier(
        structure_score="bdeu", equivalent_sample_size=4, random_state=7, n_jobs=2, **options
    ).fit(X, y)
    data = bnpipe.Dataset.from_pandas(X.assign(dysp=y.astype(str)))
    found = bnpipe.learn_structure(data, score="bdeu", equivalent_sample_size=4, seed=7, **options)
    network = bnpipe.fit(data, found.parents, 4)
    assert classifier.target_name_ == "dysp"
    assert classifier.structure_.parents == found.parents
    assert classifier.network_.content_hash == network.content_hash
    expected = bnpipe.compile(network).posterior(X, targets=["dysp"])["dysp"]
    np.testing.assert_array_equal(classifier.predict_proba(X), expected)


def test_knowledge_is_kept(patients):
    """Arcs are named by columns and the target's name."""
    X, y = patients
    knowledge = bnpipe.Knowledge(required=(("smoke", "ill"),), tiers=(("ill",),))
    classifier = BayesNetClassifier(knowledge=knowledge, target_name="ill").fit(X, y)
    assert ("smoke", "ill") in classifier.structure_.arcs
    with pytest.raises(KnowledgeError, match="no variable is named 'ill'"):
        clone(classifier).set_params(target_name=None).fit(X, y)


@pytest.mark.parametrize("random_state", [3, None, np.random.RandomState(3)])
def test_threads_change_nothing_and_the_seed_is_scikit_learns(patients, random_state):
    """An int repeats itself on any number of threads; None and a generator are allowed."""
    X, y = patients
    classifier = BayesNetClassifier(restarts=1, random_state=random_state).fit(X, y)
    assert classifier.classes_.tolist() == ["no", "yes"]
    if random_state == 3:
        again = clone(classifier).set_params(n_jobs=2).fit(X, y)
        assert again.network_.content_hash == classifier.network_.content_hash


def test_it_is_at_home_in_a_pipeline_a_grid_and_cross_validation(patients):
    """Parameters are searched through a pipeline, in processes too, and the best beats the share of the majority."""
    X, y = patients
    pipeline = make_pipeline(make_column_transformer(("drop", ["xray"]), remainder="passthrough"), BayesNetClassifier())
    grid = {
        "bayesnetclassifier__max_parents": [0, 2],
        "bayesnetclassifier__structure_score": ["bic", "k2"],
    }
    search = GridSearchCV(pipeline, grid, cv=3, scoring="neg_log_loss", error_score="raise").fit(X, y)
    assert search.best_params_["bayesnetclassifier__max_parents"] == 2
    assert search.score(X, y) > search.cv_results_["mean_test_score"][0]
    accuracy = cross_val_score(pipeline, X, y, cv=3, n_jobs=2)
    assert accuracy.mean() > y.value_counts(normalize=True).max() + 0.1


def test_numbers_are_classified_through_bins():
    """Measurements of flowers and of cells, in cross-validation: as good as their bins allow."""
    flowers, cells = (load(return_X_y=True, as_frame=True) for load in (load_iris, load_breast_cancer))
    assert cross_val_score(BayesNetClassifier(), *flowers).mean() > 0.85
    assert cross_val_score(BayesNetClassifier(), *cells).mean() > 0.9
    binned = make_pipeline(
        KBinsDiscretizer(4, encode="ordinal", quantile_method="averaged_inverted_cdf"), BayesNetClassifier()
    )
    assert cross_val_score(binned, *flowers).mean() > 0.9


@pytest.mark.parametrize(
    "labels",
    [
        np.array([3, 1, 2]),
        np.array([1.0, 2.0, 5.0]),
        np.array([True, False, True]),
        np.array(["b", "a", "c"]),
        pd.Series(["b", "a", "c"], dtype=object),
        pd.Series(["b", "a", "c"], dtype="category"),
        pd.Series(["b", "a", "c"], dtype="string"),
        pd.Series([3, 1, 2], dtype="Int64"),
    ],
    ids=lambda labels: f"{type(labels).__name__}-{labels.dtype}",
)
def test_classes_keep_their_type(labels):
    """What comes out of predict is what went into fit."""
    y = labels[np.tile([0, 1, 2], 30)] if isinstance(labels, np.ndarray) else labels.iloc[np.tile([0, 1, 2], 30)]
    X = pd.DataFrame({"a": np.tile(["u", "v", "w"], 30)})
    classifier = BayesNetClassifier().fit(X, y)
    assert classifier.classes_.tolist() == sorted(set(labels.tolist()))
    assert classifier.classes_.dtype == np.asarray(y.to_numpy() if isinstance(y, pd.Series) else y).dtype
    assert (classifier.predict(X) == np.asarray(y)).all()
    assert classifier.score(X, y) == 1.0


def test_what_columns_become():
    """Declared categories stay, few values are states, many numbers are bins, and x0 is the first nameless column."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame(
        {
            "declared": pd.Categorical(rng.choice(["lo", "hi"], 200), categories=["lo", "mid", "hi"], ordered=True),
            "text": rng.choice(["b", "a"], 200),
            "truth": rng.random(200) < 0.5,
            "few": rng.choice([0.5, 2.0, 1.0], 200),
            "many": rng.integers(0, 100, 200),
            "objects": pd.Series([*rng.normal(size=199), None], dtype=object),
            "nullable": pd.array([*rng.integers(0, 100, 199), None], dtype="Int64"),
        }
    )
    before = X.copy()
    schema = BayesNetClassifier(bins=4).fit(X, rng.choice(["p", "q"], 200)).network_.schema
    pd.testing.assert_frame_equal(X, before)
    assert schema.names == (*X.columns, "target")
    assert schema["declared"].states == ("lo", "mid", "hi")
    assert schema["text"].states == ("a", "b")
    assert schema["truth"].states == ("false", "true")
    assert schema["few"].states == ("0.5", "1", "2")
    for name in ("many", "objects", "nullable"):
        assert len(schema[name].edges) == 3
    assert schema["target"].states == ("p", "q")
    nameless = BayesNetClassifier(bins=4).fit(X[["few", "many"]].to_numpy(), X["text"])
    assert nameless.network_.schema.names == ("x0", "x1", "text")
    numbered = BayesNetClassifier(bins=4).fit(X[["few", "many"]].set_axis([7, 8], axis=1), X["text"])
    assert numbered.network_.content_hash == nameless.network_.content_hash


def test_bins_are_learned_once():
    """Rows to predict from fall into the bins of the rows learned from."""
    x = np.linspace(0, 1, 400)
    classifier = BayesNetClassifier(bins=4).fit(x[:, None], x > 0.5)
    assert classifier.network_.schema["x0"].edges == pytest.approx((0.25, 0.5, 0.75), abs=0.005)
    assert classifier.predict([[0.6], [0.9], [77.0], [-3.0]]).tolist() == [True, True, True, False]


def test_unknown_cells_are_unobserved(patients):
    """None, an unseen category and a column of nothing say the same: nothing."""
    X, y = patients
    classifier = BayesNetClassifier().fit(X.astype(object), y)
    blank = X.head(5).astype(object)
    nothing = classifier.predict_proba(blank.assign(bronc=None))
    np.testing.assert_array_equal(nothing, classifier.predict_proba(blank.assign(bronc="perhaps")))
    np.testing.assert_array_equal(nothing, classifier.predict_proba(blank.assign(bronc=np.nan)))
    assert not np.allclose(nothing, classifier.predict_proba(blank))


def test_missing_cells_can_be_a_state():
    """Where their absence tells the class, a state finds it; unobserved they say nothing."""
    rng = np.random.default_rng(1)
    y = rng.random(600) < 0.5
    x = pd.Series(rng.normal(size=600)).mask(pd.Series(y & (rng.random(600) < 0.8)))
    X = pd.DataFrame({"x": x, "missing": rng.choice(["missing", "there"], 600)})
    X.loc[0, "missing"] = None
    as_state = BayesNetClassifier(missing="state").fit(X, y)
    assert as_state.network_.schema["missing"].states == ("missing", "there", "missing_")
    assert as_state.structure_.rows == 600
    assert as_state.score(X, y) > 0.8
    unobserved = BayesNetClassifier().fit(X, y)
    assert unobserved.structure_.rows == X.notna().all(axis=1).sum()
    assert unobserved.score(X, y) < 0.75


def test_a_column_of_nothing_says_nothing(patients):
    """An empty column neither stops the learning nor leaves it without rows."""
    X, y = patients
    empty = X.assign(nothing=np.nan, no_category=pd.Categorical([None] * len(X), categories=["a", "b"]))
    classifier = BayesNetClassifier().fit(empty, y)
    plain = BayesNetClassifier().fit(X, y)
    assert classifier.structure_.rows == len(X)
    assert set(classifier.structure_.arcs) == set(plain.structure_.arcs)
    filled = empty.assign(nothing=1.0, no_category="a")
    np.testing.assert_allclose(classifier.predict_proba(filled), plain.predict_proba(X), atol=1e-12)


def test_rows_without_a_complete_one_are_refused_with_a_way_out():
    """The graph is learned from complete rows; as a state the same rows will do."""
    X = pd.DataFrame({"a": ["u", None] * 20, "b": [None, "v"] * 20})
    y = [0, 1] * 20
    with pytest.raises(DataError, match=r'none of 40 rows is complete.*missing="state"'):
        BayesNetClassifier().fit(X, y)
    assert BayesNetClassifier(missing="state").fit(X, y).score(X, y) == 1.0


def test_a_column_with_the_targets_name_is_another_variable(patients):
    """A clash is told, since it may be the target itself; a name that was chosen must be free."""
    X, y = patients
    clash = X.rename(columns={"asia": "dysp", "tub": "target", "lung": "target_"})
    with pytest.warns(UserWarning, match="X has a column 'dysp', which is the name of y too"):
        classifier = BayesNetClassifier().fit(clash, y)
    assert classifier.target_name_ == "dysp_"
    assert BayesNetClassifier().fit(clash, y.to_numpy()).target_name_ == "target__"
    with pytest.raises(SchemaError, match="target_name 'smoke' is also a column"):
        BayesNetClassifier(target_name="smoke").fit(X, y)
    with pytest.raises(SchemaError, match="columns given twice: smoke"):
        BayesNetClassifier().fit(X.rename(columns={"asia": "smoke"}), y)


def test_too_little_to_learn_from_still_answers():
    """One class, constant columns, one row, and a class that nothing tells anything of."""
    X = pd.DataFrame({"a": ["u"] * 6, "b": ["v", "w"] * 3})
    assert BayesNetClassifier().fit(X, ["only"] * 6).predict_proba(X).tolist() == [[1.0]] * 6
    assert BayesNetClassifier().fit(X.head(1), [7]).predict(X).tolist() == [7] * 6
    prior = BayesNetClassifier(equivalent_sample_size=2).fit(X, [0, 0, 0, 1, 1, 1])
    assert prior.structure_.arcs == ()
    np.testing.assert_allclose(prior.predict_proba(X), 0.5)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([f"v{i}" for i in range(300)], "c: 300 states, at most 255 are allowed; join rare values"),
        (pd.Categorical(["v0"] * 300, categories=[f"v{i}" for i in range(256)]), "c: 256 states, at most 255"),
        (pd.date_range("2013-01-01", periods=300), "c: datetime64.* has no states; make a variable of it"),
        ([["a", "list"]] * 300, "c: can't compare its values"),
    ],
)
def test_columns_that_have_no_states_are_refused_by_name(column, message):
    """The message names the column and what to do."""
    with pytest.raises(SchemaError, match=message):
        BayesNetClassifier().fit(pd.DataFrame({"c": column}), [0, 1] * 150)


def test_too_many_classes_are_refused():
    """A class is a state, of which there are 255."""
    with pytest.raises(SchemaError, match="y: 300 classes, at most 255 are allowed"):
        BayesNetClassifier().fit(np.zeros((900, 1)), np.tile(np.arange(300), 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bins": 1}, "bins must be a whole number from 2 to 254, not 1"),
        ({"bins": 2.5}, "bins must be a whole number"),
        ({"missing": "drop"}, "missing must be .*, not 'drop'"),
        ({"equivalent_sample_size": -1}, "equivalent_sample_size must be 0 or more, not -1"),
        ({"structure_score": "best"}, "best"),
        ({"max_parents": -1}, "max_parents"),
    ],
)
def test_parameters_out_of_range_are_refused_by_fit(options, message):
    """As scikit-learn wants it, not by the constructor."""
    classifier = BayesNetClassifier(**options)
    with pytest.raises(DataError, match=message):
        classifier.fit([[0], [1]] * 5, [0, 1] * 5)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (pd.DataFrame({"a": [1.0, np.inf]}), "Input a contains infinity"),
        (np.array([[1.0], [np.inf]]), "Input X contains infinity"),
        (pd.DataFrame({"a": []}), "0 sample"),
        (pd.DataFrame(index=range(2)), "0 feature"),
        (pd.DataFrame({"a": [1, 2, 3]}), "inconsistent numbers of samples"),
    ],
)
def test_what_scikit_learn_refuses_is_refused_of_frames_too(X, message):
    """Frames don't go through check_array, and are held to the same."""
    with pytest.raises(ValueError, match=message):
        BayesNetClassifier().fit(X, [0, 1][: len(X)] if len(X) < 3 else [0, 1])


def test_impossible_rows_get_the_prior_and_are_told():
    """Without a prior some rows have probability zero whatever the class."""
    X = pd.DataFrame({"a": ["u", "v"] * 40, "b": ["u", "v"] * 40})
    y = np.array([0, 1] * 40)
    classifier = BayesNetClassifier(equivalent_sample_size=0.0).fit(X, y)
    strange = pd.DataFrame({"a": ["u", "u"], "b": ["v", "u"]})
    with pytest.warns(UserWarning, match="1 of 2 rows are impossible"):
        answers = classifier.predict_proba(strange)
    np.testing.assert_allclose(answers, [[0.5, 0.5], [1.0, 0.0]])
    assert np.isneginf(classifier.predict_log_proba(strange.tail(1))[0, 1])


def test_a_pickle_holds_the_network_and_compiles_it_again(patients):
    """Answers are the same to the bit, and the engine's layout is not part of the file."""
    X, y = patients
    classifier = BayesNetClassifier().fit(X, y)
    assert "engine_" not in classifier.__getstate__()
    restored = pickle.loads(pickle.dumps(classifier))  # noqa: S301
    np.testing.assert_array_equal(restored.predict_proba(X), classifier.predict_proba(X))
    with pytest.raises(NotFittedError):
        pickle.loads(pickle.dumps(clone(classifier))).predict(X)  # noqa: S301


def test_without_scikit_learn_the_error_says_what_to_install():
    """A base install has no scikit-learn; everything else of bnpipe works there."""
    code = "import sys; sys.modules['sklearn'] = None\nimport bnpipe; bnpipe.fit\nbnpipe.BayesNetClassifier"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ImportError: bnpipe.BayesNetClassifier needs scikit-learn" in done.stderr
    assert "pip install 'bnpipe[train]'" in done.stderr


CELLS = {
    "text": st.sampled_from(["a", "b", "", None]),
    "number": st.one_of(st.none(), st.floats(-1e6, 1e6), st.integers(-3, 3)),
    "truth": st.sampled_from([True, False, None]),
    "mixed": st.sampled_from(["1", 1, True, None]),
}


@settings(max_examples=25, deadline=None)
@given(st.data(), st.integers(1, 25))
def test_any_table_is_learned_and_answered(data, rows):
    """Whatever the cells are: distributions over the classes, the same for a row alone as among others."""
    X = pd.DataFrame(
        {
            name: pd.Series(data.draw(st.lists(cell, min_size=rows, max_size=rows)), dtype=object)
            for name, cell in CELLS.items()
        }
    )
    y = data.draw(st.lists(st.sampled_from(["p", "q", "r"]), min_size=rows, max_size=rows))
    classifier = BayesNetClassifier(missing="state", bins=3).fit(X, y)
    answers = classifier.predict_proba(X)
    assert answers.shape == (rows, len(set(y)))
    assert (answers > 0).all()
    np.testing.assert_allclose(answers.sum(axis=1), 1.0)
    np.testing.assert_allclose(classifier.predict_proba(X.tail(1)), answers[-1:], atol=1e-12)
