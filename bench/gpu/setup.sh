# Sourced in the repository's root on a machine with a GPU and no network: `. bench/gpu/setup.sh`.
# Unpacks .gpu/ once (`python -m bench.gpu.pack runtime` fills it), and lets Python find everything.
export ORT_DISABLE_TELEMETRY=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
SITE=${SITE:-$HOME/gpu-site}
if [ ! -e "$SITE/.unpacked" ] && [ -f .gpu/ort.tar.xz ]; then
  mkdir -p "$SITE" && tar -C "$SITE" -xJf .gpu/ort.tar.xz &&
    python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade \
      --target "$SITE" .gpu/wheels/*.whl && touch "$SITE/.unpacked"
fi
export PYTHONPATH=$SITE:$PWD/protos/generated:$PWD/protos/python:$PWD/server:$PWD/export:$PWD/clients/python:$PWD
