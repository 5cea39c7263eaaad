# The server with its built-in bundles, for cpu or gpu. Runs without root and with a read-only file system.
ARG PYTHON_IMAGE=docker.io/library/python:3.11.15-slim-bookworm
FROM ${PYTHON_IMAGE} AS build
ARG DEVICE=cpu
WORKDIR /source
RUN python3 -m venv /venv
COPY deploy/requirements requirements
RUN /venv/bin/pip install --no-cache-dir --no-deps -r requirements/${DEVICE}.txt
COPY protos protos
COPY server server
RUN /venv/bin/pip install --no-cache-dir --no-deps ./protos ./server \
    && /venv/bin/pip uninstall --yes pip setuptools

FROM ${PYTHON_IMAGE}
COPY --from=build /venv /venv
COPY bundles /attendant/bundles
COPY deploy/health_probe.py /attendant/health_probe.py
WORKDIR /attendant
# ONNX Runtime sends usage data to its makers unless it is told not to.
# Huge pages for weights and activations make large models faster (decision 0027).
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 ORT_DISABLE_TELEMETRY=1 \
    GLIBC_TUNABLES=glibc.malloc.hugetlb=1
USER 10001:10001
EXPOSE 50051 9464
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["/venv/bin/python", "/attendant/health_probe.py"]
# No shell in between, so that SIGTERM reaches the server and it can drain.
ENTRYPOINT ["/venv/bin/attendant-server"]
