# The rerank service: docs/serving.md. A GPU needs PyTorch's CUDA build: drop the line of the CPU's.
FROM python:3.11-slim

RUN useradd --create-home r1ranker
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY r1ranker_ir r1ranker_ir
COPY training training
COPY eval eval
RUN pip install --no-cache-dir torch --index-url https://download.pytorch.org/whl/cpu \
    && pip install --no-cache-dir ".[local,openai,serve]"

USER r1ranker
WORKDIR /home/r1ranker
EXPOSE 8080
HEALTHCHECK CMD python -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health')"
# As the first process: it gets SIGTERM itself.
ENTRYPOINT ["r1ranker", "serve", "--host", "0.0.0.0", "--port", "8080"]
CMD ["--reranker", "small=r1ranker-iterative-tiny", "--no-cache"]
