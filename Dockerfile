# anyrec as a server, and for the command line, training and scoring jobs: CPU only, without root.
#
#     docker build --tag anyrec .
#     docker run --rm --publish 127.0.0.1:8000:8000 --volume "$PWD/models/shop:/model" anyrec
#     docker run --rm --volume "$PWD:/work" anyrec train --data data.json
#
# The GPU builds of torch are 3 GB; this image takes the CPU build. Build with
# `--build-arg TORCH_INDEX=https://pypi.org/simple` for the usual one.

FROM python:3.12-slim AS build

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

RUN python -m venv /opt/anyrec
ENV PATH=/opt/anyrec/bin:$PATH

WORKDIR /source
# torch changes rarely: a layer of its own is reused when the code changes.
COPY constraints.txt .
RUN pip install --index-url "$TORCH_INDEX" --extra-index-url https://pypi.org/simple \
    --constraint constraints.txt torch torchvision

COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY anyrec anyrec
COPY encoders encoders
COPY interaction interaction
COPY classifier classifier
COPY schemas schemas
RUN pip install --extra-index-url "$TORCH_INDEX" --constraint constraints.txt ".[serve]"


FROM python:3.12-slim

# OpenMP, which faiss and torch load.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home anyrec \
    && install --directory --owner anyrec /events

COPY --from=build /opt/anyrec /opt/anyrec
ENV PATH=/opt/anyrec/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    ANYREC_CACHE=/home/anyrec/.cache/anyrec

USER anyrec
WORKDIR /work
VOLUME /events
EXPOSE 8000
# Only what is published can be reached from outside of the container. Publish it to other machines with API keys:
# add `serve ... --api-key-file /model/keys.json` to the command, without `--insecure`.
HEALTHCHECK --start-period=60s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/readyz')"]
ENTRYPOINT ["anyrec"]
CMD ["serve", "--model_path", "/model", "--host", "0.0.0.0", "--insecure", "--events", "/events"]
