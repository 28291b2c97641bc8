# syntax=docker/dockerfile:1
#
#   docker build --tag condmix .                                             the pipeline (the last stage below)
#   docker run --rm --gpus all --volume "$PWD:/workspace" condmix            dvc repro on this checkout; drop --gpus all for a CPU
#   docker run --rm --volume "$PWD:/workspace" condmix dvc exp show          any other command
#   docker build --target mlflow .                                           the tracking server of compose.yaml

FROM python:3.11-slim AS python
ENV PYTHONUNBUFFERED=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_CACHE_DIR=/var/cache/pip \
    MLFLOW_DISABLE_TELEMETRY=true
# Files that a run writes to a mounted checkout belong to this user: --build-arg UID="$(id -u)" where yours is not 1000.
ARG UID=1000
RUN useradd --create-home --uid "$UID" condmix


FROM python AS mlflow
WORKDIR /server
COPY constraints.txt .
RUN --mount=type=cache,target=/var/cache/pip \
    pip install --constraint constraints.txt mlflow psycopg2-binary boto3
# said again, for a stage inherits no ARG: Docker lets it through, buildah does not
ARG UID=1000
USER $UID
EXPOSE 5000
CMD ["mlflow", "server", "--host", "0.0.0.0"]


# NVIDIA's "base" and not its "runtime" flavour: both have the CUDA runtime and the settings by which the container
# toolkit knows which driver is needed, but PyTorch's wheels bring the libraries (cuDNN, cuBLAS, NCCL) they were built
# with, which "runtime" would hold a second time.
FROM nvidia/cuda:13.1.1-base-ubuntu24.04 AS train
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONUNBUFFERED=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_CACHE_DIR=/var/cache/pip \
    MLFLOW_DISABLE_TELEMETRY=true \
    DVC_NO_ANALYTICS=true \
    VENV=/opt/venv \
    PATH=/opt/venv/bin:$PATH
# git for DVC's experiments, whose commits need an author, and for the commit in every model card (a mounted checkout
# belongs to a user of the host, which git would refuse), make for `make test`, g++ for our operation on CPUs.
# Unpinned: the archive keeps only a package's newest version, a pin soon fails.
# Ubuntu's image has a user of its own with UID 1000.
ARG UID=1000
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ git make python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && git config --system --add safe.directory /workspace \
    && git config --system user.name condmix \
    && git config --system user.email condmix@localhost \
    && python3 -m venv /opt/venv \
    && userdel --remove ubuntu \
    && useradd --create-home --uid "$UID" condmix

WORKDIR /workspace
RUN chown condmix /workspace
# The dependencies alone first, so that only a change of these files installs them again; the tests' among them, and
# the mark by which `make` knows that they are there. The install is editable:
# it points to src/, whose other files arrive below or are mounted. pyproject.toml names README.md; an empty one will do.
COPY --chown=condmix pyproject.toml constraints.txt ./
COPY --chown=condmix src/condmix/__init__.py src/condmix/
RUN --mount=type=cache,target=/var/cache/pip \
    touch README.md \
    && pip install --constraint constraints.txt --editable '.[dev]' \
    && touch /opt/venv/.installed

COPY docker/entrypoint.sh /usr/local/bin/
COPY --chown=condmix . .
USER $UID
ENTRYPOINT ["entrypoint.sh"]
CMD ["dvc", "repro"]
