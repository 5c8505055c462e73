# One file for every service: docker build --build-arg SERVICE=proxy .
#
#   from-source    (the default) compiles in the builder image
#   from-binaries  takes dist/<service>/, which scripts/dist.sh makes from target/release
#
# Both end in the same runtime stage. A classic builder runs the stages above its target in order, so the one that needs
# no compiler comes first.
ARG RUNTIME_IMAGE=debian:bookworm-slim
ARG BUILDER_IMAGE=rust:1.95-bookworm

FROM ${RUNTIME_IMAGE} AS runtime
RUN useradd --system --uid 10001 --home-dir /var/lib/mobula --create-home mobula
# Allocators give freed memory back: glibc from so many bytes on, mimalloc after so many ms. As `mobula up` has it
# (cli/src/up/service.rs).
ENV MALLOC_TRIM_THRESHOLD_=131072 \
    MALLOC_MMAP_THRESHOLD_=32768 \
    MIMALLOC_PURGE_DELAY=20
ENV MOBULA_LOG_FORMAT=json \
    ORT_DYLIB_PATH=/opt/onnxruntime/lib/libonnxruntime.so
USER 10001
WORKDIR /var/lib/mobula

FROM runtime AS from-binaries
ARG SERVICE
COPY dist/${SERVICE}/ /
RUN ["/usr/local/bin/service", "--version"]
ENTRYPOINT ["/usr/local/bin/service"]

FROM ${BUILDER_IMAGE} AS build
ARG SERVICE
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-pip && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --package "mobula-${SERVICE}" && bash scripts/dist.sh "${SERVICE}"

FROM runtime AS from-source
ARG SERVICE
COPY --from=build /src/dist/${SERVICE}/ /
RUN ["/usr/local/bin/service", "--version"]
ENTRYPOINT ["/usr/local/bin/service"]
