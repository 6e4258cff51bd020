//! `firebuild mmds`: the metadata of a running VM.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use firebuild_engine::mmds;
use firebuild_engine::paths::Paths;
use serde_json::{Map, Value};

use super::Done;
use crate::args::{MmdsCommand, MmdsCommandArgs};
use crate::failure::Failure;
use crate::report::output;

/// No document is so large.
const LARGEST: u64 = 1 << 20;

/// Runs the command.
pub(crate) fn run(paths: &Paths, args: &MmdsCommandArgs) -> Done {
    match &args.command {
        MmdsCommand::Get { vm, path, .. } => {
            let document = Value::Object(mmds::get(paths, vm)?);
            let path = path.as_deref().unwrap_or_default();
            let found = path
                .split('/')
                .filter(|part| !part.is_empty())
                .try_fold(&document, |value, part| value.get(part))
                .ok_or_else(|| {
                    Failure::new(format!("there is no {path} in the metadata of {vm}"))
                })?;
            match found {
                // As a script wants it.
                Value::String(text) if !path.is_empty() => output::line(text),
                value => output::line(&serde_json::to_string_pretty(value)?),
            }
        }
        MmdsCommand::Put(document) => {
            mmds::put(paths, &document.vm, read(&document.file)?)?;
        }
        MmdsCommand::Patch(document) => {
            mmds::patch(paths, &document.vm, read(&document.file)?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<Map<String, Value>, Failure> {
    let mut text = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().take(LARGEST).read_to_end(&mut text)?;
    } else {
        fs_err::File::open(path)?
            .take(LARGEST)
            .read_to_end(&mut text)?;
    }
    serde_json::from_slice(&text).map_err(|error| {
        Failure::new(format!("{} is no JSON object: {error}", path.display()))
            .hint("{\"latest\":{\"meta-data\":{…}}}")
    })
}
