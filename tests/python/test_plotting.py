"""Pictures, drawn without a screen; what they show is looked up in their data."""

import numpy as np
import pytest
from matplotlib import pyplot

import attnreg


@pytest.fixture(autouse=True)
def no_pictures_left():
    yield
    pyplot.close("all")


def test_result(problem, tmp_path):
    result = attnreg.solve(problem.A, problem.b, problem.w, method="newton", start="zero")
    left, right = result.plot(problem.b)
    shown = [line for line in left.lines if line.get_label() == "solve"][0]
    np.testing.assert_array_equal(shown.get_xdata(), result.history.reads)
    np.testing.assert_array_equal(shown.get_ydata(), result.history.relative_gradient)
    np.testing.assert_array_equal(right.lines[0].get_ydata(), np.sort(problem.b)[::-1])
    left.figure.savefig(tmp_path / "result.png")
    assert (tmp_path / "result.png").stat().st_size > 5000
    _, axis = pyplot.subplots()
    assert result.plot(axes=axis) == [axis]
    with pytest.raises(attnreg.DataError, match="b has 3 values"):
        result.plot([1, 2, 3])


def test_path_and_targets(problem):
    path = attnreg.path(problem.A, problem.b, [1e-1, 1e-2, 1e-3])
    left, right = path.plot()
    np.testing.assert_array_equal(left.lines[0].get_ydata(), path.fun)
    np.testing.assert_array_equal(right.lines[0].get_ydata(), np.linalg.norm(path.x, axis=1))
    targets = attnreg.solve_targets(problem.A, np.column_stack([problem.b, problem.b[::-1]]), problem.w)
    assert {line.get_label() for line in targets.plot()[0].lines} >= {"0", "1"}


def test_scores(problem):
    scores = attnreg.leverage_scores(problem.A, exact=True)
    left, right = attnreg.plot_scores(scores)
    np.testing.assert_array_equal(left.lines[0].get_ydata(), np.sort(scores.scores)[::-1])
    assert right.lines[0].get_ydata()[-1] == pytest.approx(7)
    attnreg.plot_scores(scores.scores)


def test_attention():
    F, B = np.random.default_rng(1).dirichlet(np.ones(5), (2, 4))
    axes = attnreg.plot_attention(F, B)
    assert [np.array_equal(axis.images[0].get_array(), matrix) for axis, matrix in zip(axes, (F, B, F - B))] == [True] * 3
    assert len(attnreg.plot_attention(F)) == 1
    with pytest.raises(attnreg.DataError, match="F has shape"):
        attnreg.plot_attention(F, B[1:])


def test_a_head_has_no_history():
    tokens = np.random.default_rng(1).standard_normal((30, 3))
    head = attnreg.attention(tokens, tokens, attnreg.attention_matrix(tokens, tokens, np.eye(3)), fit="heads")
    assert "recovered" in head._repr_html_()
    with pytest.raises(attnreg.DataError, match="plot_attention"):
        head.plot()
