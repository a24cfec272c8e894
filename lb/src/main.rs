//! The `lb` program. See `lb --help`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::run()
}
