# One image for every process: `serve`, `worker` and the other commands of `oms-server`. Works with the classic builder.
FROM rust:1.95-bookworm AS build
# What rust-toolchain.toml asks for would be downloaded on top of the image's own toolchain.
ENV RUSTUP_TOOLCHAIN=1.95.0 CARGO_TERM_COLOR=never
RUN rustup target add wasm32-wasip2
WORKDIR /src

# The dependencies alone, in a layer that changes with the manifests only: they take most of the time.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY oms-core/Cargo.toml oms-core/
COPY oms-server/Cargo.toml oms-server/
COPY plugins/sdk/Cargo.toml plugins/sdk/
COPY plugins/adyen/Cargo.toml plugins/adyen/
COPY plugins/manual/Cargo.toml plugins/manual/
COPY plugins/mock/Cargo.toml plugins/mock/
COPY plugins/paypal/Cargo.toml plugins/paypal/
COPY plugins/standard-webhooks/Cargo.toml plugins/standard-webhooks/
COPY plugins/stripe/Cargo.toml plugins/stripe/
COPY xtask/Cargo.toml xtask/
RUN for crate in oms-core oms-server plugins/* xtask; do mkdir -p $crate/src && touch $crate/src/lib.rs; done \
    && mkdir -p oms-core/benches oms-core/examples \
    && for program in oms-server/src/main xtask/src/main oms-core/benches/pure oms-core/examples/plugin_figures \
        oms-core/examples/plugin_attack; do \
        echo 'fn main() {}' > $program.rs; done \
    && cargo build --release --locked -p oms-server --features otel

COPY . .
# The empty files of the layer before are younger than the real ones.
RUN find oms-core oms-server plugins xtask -name '*.rs' -exec touch {} + \
    && cargo build --release --locked -p oms-server --features otel \
    && cargo xtask plugins

FROM debian:bookworm-slim
COPY --from=build /src/target/release/oms-server /usr/local/bin/oms-server
COPY --from=build /src/target/plugins /usr/local/share/oms/plugins
RUN useradd --system --uid 10001 --home-dir /var/lib/oms oms && mkdir -p /var/lib/oms && chown oms: /var/lib/oms && chmod 700 /var/lib/oms
USER oms
# The only folder that is written to: the root file system may be read-only.
VOLUME /var/lib/oms
WORKDIR /var/lib/oms
ENV OMS_LISTEN=0.0.0.0:8000 OMS_DATA_DIR=/var/lib/oms OMS_PLUGIN_DIR=/usr/local/share/oms/plugins
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=6s --start-period=30s --retries=3 CMD ["oms-server", "health"]
ENTRYPOINT ["oms-server"]
CMD ["serve"]
