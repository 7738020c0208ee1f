# transfergen with what `make setup` installs. `make docker` builds it.
FROM python:3.11-slim

# For an image that uses no GPU, and is gigabytes smaller: an index of torch's CPU wheels.
ARG TORCH_INDEX=""

WORKDIR /opt/transfergen
COPY requirements.lock ./
# torch and torchvision in one command: builds of two indexes do not fit each other. The lock then finds them installed.
RUN if [ -n "$TORCH_INDEX" ]; then \
        grep -oE '^torch(vision)?==[0-9.]+' requirements.lock > torch.txt && \
        pip install --no-cache-dir --no-deps --index-url "$TORCH_INDEX" --requirement torch.txt && \
        awk '/^[^ ]/ { kept = !/^(nvidia-|cuda-|triton)/ } kept' requirements.lock > cpu.lock && \
        mv cpu.lock requirements.lock; \
    fi && \
    pip install --no-cache-dir --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY conf conf
COPY src src
RUN pip install --no-cache-dir --no-deps .

# The reader's folder is mounted here. Caches go into it, whoever the user is.
WORKDIR /work
ENV HOME=/work USER=transfergen
ENTRYPOINT ["transfergen"]
CMD ["--help"]
