# syntax=docker/dockerfile:1
# Two stages: the first compiles the wheel and installs it into /opt/penstock, the second has neither
# compiler nor pip cache. Runs as 65532 with a read-only root file system and needs no shell.
# Pin BASE_IMAGE by digest where builds must be reproducible.
ARG BASE_IMAGE=python:3.13-slim

FROM ${BASE_IMAGE} AS builder
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml setup.py README.md LICENSE ./
COPY proxy ./proxy
# The same path in both stages, so that the environment may simply be copied.
RUN python3 -m venv /opt/penstock \
 && PENSTOCK_REQUIRE_COMPILED=1 /opt/penstock/bin/python -m pip install --no-cache-dir . \
 && /opt/penstock/bin/python -m pip uninstall --yes pip \
 && /opt/penstock/bin/python -m compileall -q /opt/penstock/lib

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="penstock" \
      org.opencontainers.image.description="A pooling proxy for PostgreSQL: any number of clients, a bounded pool of sessions" \
      org.opencontainers.image.licenses="MIT"
COPY --from=builder /opt/penstock /opt/penstock
ENV PATH=/opt/penstock/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONSAFEPATH=1
USER 65532:65532
WORKDIR /
# PostgreSQL clients; probes and metrics. Both listen on 127.0.0.1 unless configured otherwise.
EXPOSE 6432 9127
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "proxy"]
CMD ["serve"]
