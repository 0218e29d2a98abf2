#!/usr/bin/env bash
# Builds the source distribution, and the wheel from it, and uses the wheel in a fresh environment.
#
#     tests/tools/wheel_check.sh
#
# No step sees the checkout: the environment, the folder and the user's layer are temporary.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH PYTEST_ADDOPTS VIRTUAL_ENV

fail() {
  echo "wheel_check: $1" >&2
  exit 1
}

# A copy without earlier builds, from whose file lists setuptools would take names.
mkdir "$folder/source" "$folder/elsewhere"
tar -C "$root" -cf - --exclude='*.egg-info' --exclude=__pycache__ setup.cfg pyproject.toml README.md LICENSE \
  minglow tests | tar -C "$folder/source" -xf -
python3 -m venv "$folder/venv"
. "$folder/venv/bin/activate"
pip install --quiet --disable-pip-version-check build
python -m build --outdir "$folder/dist" "$folder/source" > "$folder/build.log" 2>&1 ||
  { cat "$folder/build.log"; fail "the wheel cannot be built"; }

in_sdist=$(tar -tzf "$folder"/dist/minglow-*.tar.gz | cut -d/ -f2-)
for name in LICENSE README.md setup.cfg pyproject.toml minglow/py.typed minglow/data/digits.npz; do
  grep -qx "$name" <<< "$in_sdist" || fail "the source distribution has no $name"
done
in_wheel=$(python -m zipfile -l "$folder"/dist/minglow-*.whl | awk 'NR > 1 {print $1}')
for name in minglow/py.typed minglow/data/digits.npz minglow/data/digits.txt; do
  grep -qx "$name" <<< "$in_wheel" || fail "the wheel has no $name"
done
other=$(grep -vE '^minglow(-[^/]*\.dist-info)?/' <<< "$in_wheel" || true)
[ -z "$other" ] || fail "the wheel has files outside minglow: $other"
! grep -qE '(^|/)(tests?|conftest\.py)(/|$)' <<< "$in_wheel" || fail "the wheel has tests"

pip install --quiet --disable-pip-version-check "$folder"/dist/minglow-*.whl
cd "$folder/elsewhere"
python - "$folder/venv" << 'EOF'
import sys
from importlib.metadata import version

import minglow
import minglow.testing

assert minglow.__file__.startswith(sys.argv[1]), minglow.__file__
assert minglow.__version__ == version("minglow"), minglow.__version__
EOF
minglow train --steps 10
minglow sample runs/digits-1
cat > my_layer.py << 'EOF'
import numpy as np

from minglow import Bijection


class Gain(Bijection):
    """y = exp(log_gain) x for each channel, log|det dy/dx| = pixels * sum(log_gain)."""

    def __init__(self, channels):
        super().__init__()
        self.add_param("log_gain", np.zeros(channels))

    def forward(self, x):
        log_gain = self.params["log_gain"]
        pixels = x[0, ..., 0].size
        return x * np.exp(log_gain), np.full(len(x), pixels * log_gain.sum(), x.dtype), x

    def inverse(self, y):
        x = y * np.exp(-self.params["log_gain"])
        return x, x

    def backward(self, dy, dlog_det, x):
        gain = np.exp(self.params["log_gain"])
        axes = tuple(range(x.ndim - 1))
        self.grads["log_gain"] += (dy * x * gain).sum(axes) + dlog_det.sum() * x[0, ..., 0].size
        return dy * gain


class WrongSign(Gain):
    def forward(self, x):
        y, log_det, cache = super().forward(x)
        return y, -log_det, cache
EOF
minglow check my_layer:Gain
! minglow check my_layer:WrongSign > wrong.txt || fail "minglow check passes a wrong layer"
grep -q "^FAILED  log_det" wrong.txt || fail "minglow check does not name log_det: $(cat wrong.txt)"
pip install --quiet --disable-pip-version-check hypothesis
python -c "import minglow.testing.strategies"
echo "the wheel works in a fresh environment"
