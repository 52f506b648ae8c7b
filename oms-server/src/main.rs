//! The program is a thin shell: everything is in the library beside it, where tests reach it.

/// A request allocates hundreds of small pieces on whichever thread it runs, and a log-in's password hash megabytes, which
/// the system's allocator keeps.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    oms_server::cli::main()
}
