//! What `cargo metadata` tells about the workspace and its lock file.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::Fallible;

/// A package of the lock file.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// SPDX expression; empty when the package names none.
    pub(crate) licence: String,
    /// Whether it is one of ours.
    pub(crate) member: bool,
    /// Where it comes from; empty for a path.
    pub(crate) source: String,
    /// What its manifest names, without what only tests need.
    pub(crate) dependencies: Vec<String>,
}

/// All packages.
pub(crate) fn packages(root: &Path) -> Fallible<Vec<Package>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--locked"])
        .current_dir(root)
        .output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("cargo metadata failed: {text}").into());
    }
    Ok(parse(&serde_json::from_slice(&output.stdout)?))
}

fn parse(metadata: &Value) -> Vec<Package> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let members = list(&metadata["workspace_members"]);
    let package = |package: &Value| Package {
        name: text(&package["name"]),
        version: text(&package["version"]),
        licence: text(&package["license"]),
        member: members.contains(&package["id"]),
        source: text(&package["source"]),
        dependencies: list(&package["dependencies"])
            .iter()
            .filter(|dependency| dependency["kind"] != "dev")
            .map(|dependency| text(&dependency["name"]))
            .collect(),
    };
    list(&metadata["packages"]).iter().map(package).collect()
}
