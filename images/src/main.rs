//! `images hostile DIR` writes the hostile corpus.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match &arguments[..] {
        [what, directory] if what == "hostile" => match images::hostile::write(Path::new(directory)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("images: {}: {error}", directory.display());
                ExitCode::FAILURE
            }
        },
        _ => {
            eprintln!("usage: images hostile DIR");
            ExitCode::FAILURE
        }
    }
}
