//! `metadata.json`: what the original keeps beside a root file system, with its keys.

use std::collections::{BTreeMap, BTreeSet};

use firebuild_oci::{ContainerConfig, ImageConfig};
use serde::Serialize;
use serde_json::Value;

use super::Place;

/// What kind of image it is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A base operating system.
    BaseOs,
    /// An application, and what it was built from.
    Rootfs(BuildConfig),
}

/// What an application was built from.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct BuildConfig {
    /// Names of the build arguments. Their values are masked: the file is readable by everybody.
    pub build_args: BTreeMap<String, String>,
    /// The Dockerfile as it was given.
    pub dockerfile: String,
    /// The image that was taken instead of a Dockerfile.
    pub docker_image: String,
    /// What that image was made from, as the caller said.
    pub docker_image_base: String,
    /// Commands before the first instruction of the target stage.
    pub pre_build_commands: Vec<String>,
    /// Commands behind its last one.
    pub post_build_commands: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Image<'a> {
    org: &'a str,
    image: &'a str,
    version: &'a str,
}

#[derive(Serialize)]
struct BaseOs<'a> {
    #[serde(rename = "CreatedAtUTC")]
    created: i64,
    #[serde(rename = "Image")]
    image: Image<'a>,
    #[serde(rename = "Labels")]
    labels: &'a BTreeMap<String, String>,
    #[serde(rename = "Type")]
    kind: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct EntrypointInfo<'a> {
    cmd: &'a [String],
    entry_point: &'a [String],
    env: BTreeMap<&'a str, &'a str>,
    shell: &'a [String],
    user: &'a str,
    workdir: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Rootfs<'a> {
    build_config: &'a BuildConfig,
    #[serde(rename = "CreatedAtUTC")]
    created: i64,
    entrypoint_info: EntrypointInfo<'a>,
    image: Image<'a>,
    labels: &'a BTreeMap<String, String>,
    parent: Option<&'a Value>,
    ports: &'a BTreeSet<String>,
    tag: &'a str,
    #[serde(rename = "Type")]
    kind: &'static str,
    volumes: &'a BTreeSet<String>,
}

/// The text of the file. `created` is in seconds since 1970.
pub(super) fn text(
    place: &Place,
    tag: &str,
    kind: &Kind,
    config: &ImageConfig,
    parent: Option<&Value>,
    created: i64,
) -> serde_json::Result<Vec<u8>> {
    let config: &ContainerConfig = &config.config;
    let image = Image {
        org: &place.org,
        image: &place.image,
        version: &place.version,
    };
    let mut text = match kind {
        Kind::BaseOs => serde_json::to_vec_pretty(&BaseOs {
            created,
            image,
            labels: &config.labels,
            kind: "baseos",
        }),
        Kind::Rootfs(build_config) => serde_json::to_vec_pretty(&Rootfs {
            build_config,
            created,
            entrypoint_info: EntrypointInfo {
                cmd: config.cmd.as_deref().unwrap_or_default(),
                entry_point: config.entrypoint.as_deref().unwrap_or_default(),
                env: config
                    .env
                    .iter()
                    .filter_map(|entry| entry.split_once('='))
                    .collect(),
                shell: config.shell.as_deref().unwrap_or_default(),
                user: &config.user,
                workdir: &config.working_dir,
            },
            image,
            labels: &config.labels,
            parent,
            ports: &config.exposed_ports,
            tag,
            kind: "rootfs",
            volumes: &config.volumes,
        }),
    }?;
    text.push(b'\n');
    Ok(text)
}
