//! The program is a thin shell: everything is in the library beside it, where tests reach it.

/// What it does when idle is set in `.cargo/config.toml`. Why: `docs/decisions.md`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    oms_server::cli::main()
}
