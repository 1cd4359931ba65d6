# Every service, and the command line, in one image: `tides run <service>`. It runs as any user, with a read-only root.
# BASE_IMAGE needs python3 (3.11 or newer) with venv and pip; give it by digest where builds must repeat exactly.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python3 -m venv /opt/tides
WORKDIR /src
COPY requirements.lock ./
RUN /opt/tides/bin/pip install --require-hashes -r requirements.lock
COPY pyproject.toml ./
COPY libs ./libs
COPY services ./services
RUN /opt/tides/bin/pip install --no-deps --no-build-isolation . \
    && /opt/tides/bin/python -m compileall -q /opt/tides/lib

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="Tides" \
      org.opencontainers.image.description="Lends the unused capacity of a private cloud to science"
COPY --from=build /opt/tides /opt/tides
# A user without a name in /etc/passwd has no home folder: nothing is kept outside of the database.
RUN mkdir -p /var/lib/tides && chmod 0770 /var/lib/tides && chown 10001:0 /var/lib/tides
ENV PATH=/opt/tides/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp \
    TIDES_HOST=0.0.0.0 TIDES_PORT=8080 TIDES_DATA_DIR=/var/lib/tides
USER 10001:0
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/readyz', timeout=4)"]
ENTRYPOINT ["tides"]
CMD ["run", "all"]
