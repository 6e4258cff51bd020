//! `firebuild image ls|tree|config|load|rm`

use std::process::ExitCode;

use firebuild_engine::cancel::on_interrupt;
use firebuild_engine::images;
use firebuild_engine::paths::Paths;

use super::Done;
use crate::args::{Format, ImageArgs, ImageCommand};
use crate::report::output;
use crate::report::table::{Table, size};

/// Runs the command.
pub(crate) fn run(paths: &Paths, args: &ImageArgs) -> Done {
    match &args.command {
        ImageCommand::Ls(args) => list(paths, args.format)?,
        ImageCommand::Tree { image } => output::raw(images::tree_text(paths, image)?.as_bytes()),
        ImageCommand::Config { image } => output::line(&images::config_text(paths, image)?),
        ImageCommand::Load { file, tag } => {
            let tag = tag.as_deref().map(super::rootfs::parse_tag).transpose()?;
            let name = images::load(paths, file, tag.as_ref(), &on_interrupt()?)?;
            output::line(&name.familiar());
        }
        ImageCommand::Rm { images } => {
            for image in images {
                images::remove(paths, image)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(paths: &Paths, format: Format) -> Result<(), crate::failure::Failure> {
    let list = images::list(paths)?;
    if format == Format::Json {
        output::line(&serde_json::to_string_pretty(&list)?);
        return Ok(());
    }
    let mut table = Table::new(&["NAME", "DIGEST", "LAYERS", "SIZE"]);
    for image in &list {
        let digest = image
            .digest
            .strip_prefix("sha256:")
            .unwrap_or(&image.digest);
        table.row(vec![
            image.name.clone(),
            digest.chars().take(12).collect(),
            image.layers.to_string(),
            size(image.size),
        ]);
    }
    output::raw(table.text().as_bytes());
    Ok(())
}
