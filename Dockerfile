# A run as a REST server (docs/serving.md). Two variants, by the index that torch comes from:
#   docker build -t unpaired .                                                                    (CPU)
#   docker build -t unpaired --build-arg TORCH=https://download.pytorch.org/whl/cu130 .           (CUDA)
#   docker run -p 8000:8000 -v $PWD/runs/mine:/run:ro -e UNPAIRED_TOKEN=secret [--gpus all] unpaired
FROM python:3.13-slim
ARG TORCH=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --index-url ${TORCH} torch torchvision
COPY pyproject.toml hatch_build.py README.md LICENSE NOTICE /source/
COPY src /source/src
RUN pip install --no-cache-dir "/source[serve,onnx,video]" && rm -r /source \
    && useradd --create-home unpaired
USER unpaired
EXPOSE 8000
HEALTHCHECK --interval=30s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=5)"]
ENTRYPOINT ["unpaired"]
CMD ["serve", "/run", "--host", "0.0.0.0", "--port", "8000"]
