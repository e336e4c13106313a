"""The scripts of examples/python, and the examples in docstrings and in the documentation."""

import ast
import doctest
import inspect
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import attnreg
import attnreg.estimators
from conftest import ROOT


def run(name, *words, ranks=None):
    command = [sys.executable, ROOT / "examples/python" / name, *words]
    if ranks:
        command = ["mpirun", "-n", str(ranks), *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_words():
    text = run("words.py")
    assert "converged" in text and "local minimum: |x - x*| <=" in text
    assert len(re.findall(r"softmax\(A x\) = 0\.\d+", text)) == 8


def test_real_head(tmp_path):
    text = run("real_head.py", tmp_path / "head.png")
    assert "rank 32; of the sequences it predicts" in text
    assert float(re.search(r"logits differ by (\S+)", text)[1]) < 0.02
    assert float(re.search(r"score on held-out sequences (\S+)", text)[1]) > 0.99
    assert (tmp_path / "head.png").read_bytes().startswith(b"\x89PNG")


def test_path(tmp_path):
    alone = run("path.py", tmp_path / "path.png")
    assert (tmp_path / "path.png").read_bytes().startswith(b"\x89PNG")
    table = lambda text: np.array([line.split()[:5] for line in text.splitlines()[2:]], float)
    assert table(alone).shape == (10, 5) and (np.diff(table(alone)[:, 1]) < 0).all()
    np.testing.assert_allclose(table(run("path.py", ranks=3)), table(alone), rtol=1e-3)


@pytest.mark.parametrize("module", [attnreg._solve, attnreg.estimators])
def test_docstrings(module):
    found = doctest.testmod(module)
    assert found.attempted > 0 and found.failed == 0


def test_every_function_is_documented():
    for name in attnreg.__all__:
        item = getattr(attnreg, name)
        if callable(item):
            assert item.__doc__ and item.__doc__.strip(), name
            parameters = getattr(item, "__kwdefaults__", None) or {}
            for parameter in parameters:
                shared = re.search("[Pp]arameters (are those|as) of `", item.__doc__) or parameter == "comm"
                assert shared or re.search(rf"\b{parameter}\b", item.__doc__), f"{name}: {parameter}"


def python_blocks(path):
    return re.findall(r"```python\n(.*?)```", (ROOT / path).read_text(), re.DOTALL)


@pytest.mark.parametrize("path", ["docs/python.md", "README.md"])
def test_documentation_runs(path, tmp_path):
    """All blocks of Python of a document, one after another, where the data of the examples are."""
    code = "\n".join(python_blocks(path))
    assert code
    (tmp_path / "code.py").write_text(code)
    done = subprocess.run([sys.executable, tmp_path / "code.py"], cwd=ROOT, capture_output=True, text=True, timeout=300,
                          env={**os.environ, "MPLBACKEND": "agg"})
    assert done.returncode == 0, done.stderr


def test_stub_is_the_package():
    """The stub has every public name, and of functions the parameters with their defaults."""
    tree = ast.parse((ROOT / "python/attnreg/__init__.pyi").read_text())
    functions = {node.name: node.args for node in tree.body if isinstance(node, ast.FunctionDef)}
    names = {*functions} | {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    names |= {node.target.id for node in tree.body if isinstance(node, ast.AnnAssign)}
    names |= {alias.asname for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(attnreg.__all__) <= names
    for name, arguments in functions.items():
        signature = inspect.signature(getattr(attnreg, name))
        positional = [argument.arg for argument in arguments.args]
        keywords = [argument.arg for argument in arguments.kwonlyargs]
        kinds = lambda *wanted: [p.name for p in signature.parameters.values() if p.kind in wanted]
        assert positional == kinds(inspect.Parameter.POSITIONAL_OR_KEYWORD), name
        assert keywords == kinds(inspect.Parameter.KEYWORD_ONLY), name
        defaults = dict(zip(positional[len(positional) - len(arguments.defaults):], arguments.defaults))
        defaults.update({key: value for key, value in zip(keywords, arguments.kw_defaults) if value is not None})
        assert {key: ast.literal_eval(value) for key, value in defaults.items()} == {
            p.name: p.default for p in signature.parameters.values() if p.default is not p.empty}, name
