//! The program is a thin shell: everything is in the library beside it, where tests reach it.

fn main() -> std::process::ExitCode {
    oms_server::cli::main()
}
