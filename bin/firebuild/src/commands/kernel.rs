//! `firebuild kernel import|ls|rm`

use std::process::ExitCode;

use firebuild_engine::event::Event;
use firebuild_engine::kernel::{self, Catalogue, Request, Source};
use firebuild_engine::paths::Paths;

use super::Done;
use crate::args::{Format, KernelArgs, KernelCommand, KernelImportArgs};
use crate::failure::Failure;
use crate::report::{output, table::Table};

/// Runs the command.
pub(crate) fn run(paths: &Paths, args: &KernelArgs) -> Done {
    match &args.command {
        KernelCommand::Import(args) => import(paths, args),
        KernelCommand::Ls(args) => list(paths, args.format),
        KernelCommand::Rm { ids } => {
            kernel::remove(paths, ids)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn import(paths: &Paths, args: &KernelImportArgs) -> Done {
    let source = if args.host {
        Source::Host("/".into())
    } else {
        Source::Files(args.files.clone())
    };
    let request = Request {
        source,
        id: args.id.clone(),
    };
    let mut events = |event| match event {
        Event::Stage(text) => output::note(&format!("{text} …")),
        Event::Warning(text) => output::note(&format!("warning: {text}")),
        _ => {}
    };
    let imported = kernel::import(paths, &request, &mut events)?;
    output::line(&imported.kernel.id);
    Ok(ExitCode::SUCCESS)
}

fn list(paths: &Paths, format: Format) -> Done {
    let listing = Catalogue::new(paths).list()?;
    if format == Format::Json {
        let text = serde_json::to_string_pretty(&listing.kernels).map_err(Failure::from)?;
        output::line(&text);
    } else {
        let mut table = Table::new(&["ID", "RELEASE", "MODULES", "PVH"]);
        for kernel in &listing.kernels {
            table.row(vec![
                kernel.id.clone(),
                kernel.release.clone(),
                kernel.modules.len().to_string(),
                if kernel.pvh { "yes" } else { "no" }.to_owned(),
            ]);
        }
        output::raw(table.text().as_bytes());
    }
    for broken in &listing.broken {
        output::note(&format!("warning: {broken}"));
    }
    Ok(ExitCode::SUCCESS)
}
