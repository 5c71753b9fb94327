# The rerank service: docs/serving.md. A GPU needs PyTorch's CUDA build: give TORCH_INDEX=https://pypi.org/simple.
FROM python:3.11-slim

# `small` as well for models of GGUF files; `calibrate` is not needed to serve a calibrated ranker.
ARG EXTRAS=local,openai,serve
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN useradd --create-home --uid 10001 r1ranker
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY r1ranker_ir r1ranker_ir
COPY training training
COPY eval eval
# That index may lack the versions that torch needs; of torch itself, its +cpu counts as the newer one.
RUN pip install --no-cache-dir --constraint constraints.txt torch \
        --index-url "$TORCH_INDEX" --extra-index-url https://pypi.org/simple \
    && pip install --no-cache-dir --constraint constraints.txt ".[$EXTRAS]"

# By number, so that Kubernetes can tell that it is not root.
USER 10001
WORKDIR /home/r1ranker
EXPOSE 8080
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health', timeout=10)"]
# As the first process: it gets SIGTERM itself.
ENTRYPOINT ["r1ranker", "serve", "--host", "0.0.0.0", "--port", "8080"]
CMD ["--reranker", "small=r1ranker-iterative-tiny", "--no-cache"]
