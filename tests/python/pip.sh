#!/usr/bin/env bash
# The Python package as users install it, in fresh virtual environments: `pip install .` of this tree, and a wheel from
# its source distribution. Two builds of the library. Needs PyPI; code 77 where it cannot be reached.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

# A module without PYTHONPATH, of an installation and not of this tree.
solves() {
  (cd "$root" && env -u PYTHONPATH "$1/bin/python" - "$OLDPWD/examples/data/words-4096" <<'PYTHON'
import sys

import attnreg
import numpy as np

assert attnreg.__file__.startswith(sys.prefix), attnreg.__file__
A, b = (np.load(f"{sys.argv[1]}/{name}.npy") for name in "Ab")
result = attnreg.solve(A, b, w=1e-4)
assert result.success and abs(result.fun - 4.58954471e-4) < 1e-10, result
print(attnreg.__version__, result.message)
PYTHON
  )
}

/usr/bin/python3 -m venv "$root/clone"
if ! "$root/clone/bin/pip" download -q --no-deps --dest "$root" scikit-build-core > /dev/null 2>&1; then
  echo 'SKIPPED: PyPI cannot be reached'
  exit 77
fi
# Without a build directory of its own the installation would find what an earlier one left.
seconds=$SECONDS
"$root/clone/bin/pip" install -q . --config-settings=build-dir="$root/build"
echo "pip install .: $((SECONDS - seconds)) s"
solves "$root/clone"

/usr/bin/python3 -m venv "$root/sdist"
"$root/sdist/bin/pip" install -q build
"$root/sdist/bin/python" -m build -q --sdist --outdir "$root/dist" .
seconds=$SECONDS
"$root/sdist/bin/pip" wheel -q --no-deps --wheel-dir "$root/dist" "$root"/dist/attnreg-*.tar.gz
echo "a wheel from the source distribution: $((SECONDS - seconds)) s"
/usr/bin/python3 -m venv "$root/fresh"
"$root/fresh/bin/pip" install -q "$root"/dist/attnreg-*.whl
solves "$root/fresh"
ls -l "$root"/dist
