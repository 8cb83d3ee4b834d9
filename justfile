# `just verify` is what a change must pass and edits nothing; `just fix` edits.
# Without just, read this as a list of plain commands.

# List the recipes.
default:
    @just --list

# Everything a change must pass.
verify: fmt-check clippy doc test

fmt-check:
    cargo fmt --all --check
    cargo fmt --manifest-path fuzz/Cargo.toml --check

clippy:
    cargo clippy --workspace --all-targets -- -D warnings

doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet

test:
    cargo test --workspace

# Fuzz the engine: just fuzz --all 600, just fuzz log_recovery 60.
fuzz *args:
    scripts/fuzz {{args}}

# Format, and apply what the lints suggest.
fix:
    cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged
    cargo fmt --all
    cargo fmt --manifest-path fuzz/Cargo.toml

# The whole messenger in one process.
dev *args:
    cargo run --release -p switchboard -- dev {{args}}

# Replay a file of conversations against `dev`: just replay FILE [options of `bench replay`].
replay file *args:
    scripts/replay-dev {{file}} {{args}}

# Replay conversations while processes are killed: just replay-kills [--short | FILE …].
replay-kills *args:
    scripts/replay-kills {{args}}

# Measure the rows of the design beside their peers: just report [--only C1,C2] [--quick] [--json FILE] [--plots DIR].
report *args:
    cargo run --release -p switchboard-benches -- report {{args}}

# Mixed traffic for some minutes, and whether anything grows: just soak [--minutes 10] [--plot FILE].
soak *args:
    cargo run --release -p switchboard-benches -- soak {{args}}

# Single operations beside their peers: just bench [--bench map].
bench *args:
    cargo bench -p switchboard-benches {{args}}
