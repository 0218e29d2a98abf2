#!/usr/bin/env bash
# Check minglow on one NVIDIA GPU, within 8 minutes. Nothing is installed, nothing is downloaded.
#
#     tests/tools/gpu_check.sh              on a GPU
#     tests/tools/gpu_check.sh --dry-run    on a CPU: versions, collection of the tests, a tiny benchmark
#
# It needs Python with minglow's requirements, CuPy, PyTorch, pytest, pytest-xdist and Hypothesis; minglow
# itself need not be installed. PYTHON=... names another interpreter than python3. A part that fails does
# not stop the next ones. The exit code is that of the first part that failed; 124 means that its time ran
# out. The dry run needs neither CuPy nor pytest-xdist.
set -uo pipefail
[ "${GPU_CHECK_GUARD:-}" ] || GPU_CHECK_GUARD=1 exec timeout --kill-after=5 480 bash "$0" "$@"
cd "$(dirname "$0")/../.." || exit

python=${PYTHON:-python3}
dry=${1:-}
export PYTHONPATH=".${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 CUPY_TF32=0
LIMIT=460      # seconds for all parts
BENCHMARK=110  # of them for the last part
TESTS=tests/arrays/test_device.py
# CuPy's results beside NumPy's in float64: forward, log_det, inverse and every gradient of each layer,
# net, kernel and model that can be on a device.
AGREEMENT=(
  "$TESTS::test_host_and_device_agree"
  "$TESTS::test_conditioners_agree_on_host_and_device"
  "$TESTS::test_every_kernel_on_the_device"
  "$TESTS::test_a_flow_on_the_device"
  "$TESTS::test_other_models_and_inference_on_the_device"
  tests/tools/test_gpu_check.py::test_every_gradient_of_a_flow_agrees
)

case $dry in
  --dry-run) pytest=("$python" -m pytest -qq -p no:cacheprovider --collect-only) ;;
  "")
    reason=$("$python" -c 'from minglow.arrays import device; device.cupy()' 2>&1) || {
      echo "gpu_check.sh: no GPU to check: ${reason##*$'\n'}" >&2
      exit 2
    }
    # A warning of a library is no failure here, since any versions may be installed.
    pytest=("$python" -m pytest -q -p no:cacheprovider -p no:benchmark -W default --tb=short
            --durations=5 -n 8 --dist worksteal)
    ;;
  *) echo "gpu_check.sh: expected --dry-run or no argument, got $dry" >&2; exit 2 ;;
esac
selected=gpu
"$python" -c 'import safetensors' 2> /dev/null || selected="gpu and not files_from_host_and_device"

code=0 times=()
part() {  # part LIMIT NAME COMMAND...: run a command for at most LIMIT seconds
  local limit=$1 name=$2 start=$SECONDS result=0
  shift 2
  echo "== $name"
  timeout --foreground --signal=INT --kill-after=15 "$limit" "$@" || result=$?
  times+=("$name: exit code $result, $((SECONDS - start)) s")
  echo "== ${times[-1]}"
  [ "$code" -ne 0 ] || code=$result
}

part 40 "card and versions" "$python" - "$dry" << 'PYTHON'
import platform
import shutil
import subprocess
import sys

print("python", platform.python_version())
for name in "numpy", "numba", "cupy", "torch":
    try:
        print(name, __import__(name).__version__)
    except ImportError as error:
        print(name, "cannot be imported:", error)
if not sys.argv[1]:
    import cupy

    runtime = cupy.cuda.runtime
    print("card", runtime.getDeviceProperties(0)["name"].decode())
    print("CUDA", runtime.runtimeGetVersion(), "of CuPy,", runtime.driverGetVersion(), "of the driver")
    if shutil.which("nvidia-smi"):
        subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv"])
PYTHON
part 120 "agreement of CuPy with NumPy" "${pytest[@]}" -k "not stand-in" "${AGREEMENT[@]}"
part $((LIMIT - BENCHMARK - SECONDS)) "other tests on the device" "${pytest[@]}" \
  -k "$selected or has_only_functions" "${AGREEMENT[@]/#/--deselect=}" "$TESTS"
part "$BENCHMARK" "training step beside PyTorch" "$python" -m benchmarks.gpu ${dry:+"$dry"}

printf '%s\n' "" "${times[@]}" "all parts: exit code $code, $SECONDS s"
exit "$code"
