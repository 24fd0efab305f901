#!/usr/bin/env bash
# What has to be run on a machine with a GPU, as one command: build, tests, sanitizer, figures, instruction counts.
#
#   bash benchmarks/gpu/run.sh                        # all of it
#   bash benchmarks/gpu/run.sh build tests            # some stages, in the order given
#
# GRADTAIL_GPU_RESULTS   folder for logs and tables (default ./gpu-results)
# GRADTAIL_GPU_WHEELS    folder of wheels to install first, for what the machine's Python lacks
# GRADTAIL_GPU_MINUTES   time that the figures may take (default 8)
#
# No network is used. Needed: Linux, an NVIDIA driver, nvcc, a C++17 compiler, and a Python with pip, torch (CUDA),
# numpy, scipy, ml_dtypes, pytest, hypothesis, scikit-build-core, pybind11, cmake and ninja.
set -uo pipefail
exec </dev/null
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
root=$PWD
results=${GRADTAIL_GPU_RESULTS:-$root/gpu-results}
minutes=${GRADTAIL_GPU_MINUTES:-8}
wheels=${GRADTAIL_GPU_WHEELS:-}
python=${PYTHON:-python3}
site=$root/build/gpu/site
known="build tests sanitize figures sass"
case " $* " in
  *" -h "* | *" --help "*) sed -n '2,14s/^# \{0,1\}//p' benchmarks/gpu/run.sh; exit 0 ;;
esac
stages=${*:-$known}
for stage in $stages; do
  case " $known " in
    *" $stage "*) ;;
    *) echo "run.sh: expected stages out of: $known, got $stage" >&2; exit 2 ;;
  esac
done

unset GRADTAIL GRADTAIL_BACKEND GRADTAIL_NATIVE GRADTAIL_CUDA_FROM_PYPI GRADTAIL_NUM_THREADS PYTEST_ADDOPTS
export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1
export PATH=$PATH:/usr/local/cuda/bin
mkdir -p "$results" "$site"
log=$results/log.txt
summary=$results/summary.txt
: >"$summary"
: >"$log"

say() { echo "$*" | tee -a "$log"; }
say "Stages: $stages"
say "  build     compile gradtail for this device, 2 to 10 minutes"
say "  tests     pytest -m gpu, 15 minutes at most"
say "  sanitize  engine tests under the four tools of compute-sanitizer, 5 minutes each at most"
say "  figures   every figure of the table, $minutes minutes and some"
say "  sass      registers and instructions of the kernels, 2 minutes"
say "Results: $results"

failed=0
# run NAME SECONDS COMMAND...: one stage with a limit; the others go on when it fails.
run() {
  local name=$1 limit=$2 began=$SECONDS status
  shift 2
  say "=== $name: $*"
  timeout --kill-after=30 "$limit" "$@" 2>&1 | tee -a "$log"
  status=${PIPESTATUS[0]}
  say "=== $name: status $status after $((SECONDS - began)) s"
  echo "$name: status $status, $((SECONDS - began)) s" >>"$summary"
  [ "$status" = 0 ] || failed=1
}

# As in sm_90: the first device's.
capability() { nvidia-smi --query-gpu=compute_cap --format=csv,noheader --id=0 2>/dev/null | tr -d '. \n'; }

build() {
  if [ -n "$wheels" ]; then
    run wheels 600 "$python" -m pip install -q --no-index --no-deps --no-compile --upgrade --target "$site" "$wheels"/*.whl
  fi
  export GRADTAIL_CUDA=ON GRADTAIL_CUDA_ARCHS=$(capability)  # empty: all that nvcc knows
  run build 1200 "$python" -m pip install -v --no-index --no-deps --no-build-isolation --no-compile --upgrade \
    --target "$site" "$root"
  run info 120 "$python" -m gradtail info
  run imported 120 "$python" -c "import gradtail, sys; print(gradtail.__file__); \
    sys.exit(not gradtail.__file__.startswith('$site') and 'another gradtail is installed and comes first')"
}

for stage in $stages; do
  case $stage in
    build) build ;;
    tests) run tests 900 "$python" -m pytest -m gpu -p no:cacheprovider tests ;;
    sanitize) run sanitize 1260 "$python" -m benchmarks.gpu.sanitize --minutes 5 ;;
    figures)
      run figures $((minutes * 60 + 300)) "$python" -m benchmarks.gpu.figures --minutes "$minutes" \
        --json "$results/figures.json"
      cp benchmarks/gpu/FIGURES.md "$results/" 2>/dev/null
      ;;
    sass)
      run sass 900 "$python" benchmarks/gpu/sass.py --output "$results/SASS.md" "sm_$(capability)"
      ;;
  esac
done

say "Summary:"
tee -a "$log" <"$summary"
exit $failed
