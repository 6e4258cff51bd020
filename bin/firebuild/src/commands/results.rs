//! Outputs of a build: what was asked for, and files and lines that tell what came of it.

use std::io::IsTerminal as _;

use firebuild_engine::build::{self, BuildReport, Output, OutputKind, OutputReport};
use firebuild_oci::{Descriptor, Reference};
use serde_json::{Map, Value, json};

use crate::args::RootfsArgs;
use crate::failure::Failure;

/// The outputs that the arguments ask for, the short forms included.
pub(super) fn requested(args: &RootfsArgs, tags: &[Reference]) -> Result<Vec<Output>, Failure> {
    let mut outputs: Vec<Output> = args
        .output
        .iter()
        .map(|text| Output::parse(text))
        .collect::<Result<_, _>>()
        .map_err(|error| {
            Failure::from(error).hint("firebuild build --help lists the outputs and what they take")
        })?;
    if args.push {
        // `--push` makes an image output push, or adds one, as buildx does.
        let mut found = false;
        for output in &mut outputs {
            if let OutputKind::Image(publication) = &mut output.kind {
                publication.push = true;
                found = true;
            }
        }
        if !found {
            outputs.push(Output::push());
        }
    }
    if tags.is_empty()
        && let Some(output) = outputs.iter().find(|output| output.needs_tag())
    {
        let word = output.kind.word();
        let hint = match output.kind {
            OutputKind::Ext4 => {
                "give the build a --tag ORG/NAME:VERSION, or the output a dest=FILE"
            }
            _ => "give the build a --tag REGISTRY/NAME:VERSION, or the output a name=",
        };
        return Err(Failure::usage(format!("--output type={word} has no name")).hint(hint));
    }
    if args.load && tags.is_empty() {
        return Err(
            Failure::usage("--load has no name to load the result under")
                .hint("give the build a --tag NAME:VERSION"),
        );
    }
    check_streams(&outputs)?;
    check_paths(&outputs)?;
    Ok(outputs)
}

/// Standard output takes one archive, and a terminal takes none.
fn check_streams(outputs: &[Output]) -> Result<(), Failure> {
    let streams = outputs.iter().filter(|output| output.is_stream()).count();
    if streams > 1 {
        return Err(Failure::usage(
            "more than one --output goes to standard output",
        ));
    }
    if streams == 1 && std::io::stdout().is_terminal() {
        return Err(
            Failure::usage("an --output would write an archive to the terminal")
                .hint("redirect standard output, or give the output a dest=FILE"),
        );
    }
    Ok(())
}

/// Two outputs in one place would overwrite each other.
fn check_paths(outputs: &[Output]) -> Result<(), Failure> {
    for (n, output) in outputs.iter().enumerate() {
        let firebuild_engine::build::Dest::Path(path) = &output.dest else {
            continue;
        };
        if outputs[..n].iter().any(|other| other.dest == output.dest) {
            return Err(Failure::usage(format!(
                "two outputs have the same dest={}",
                path.display()
            )));
        }
    }
    Ok(())
}

/// The last output that is an image: what `docker buildx` tells the digest of.
fn image(report: &BuildReport) -> Option<(&OutputReport, &Descriptor)> {
    report
        .outputs
        .iter()
        .rev()
        .find_map(|output| Some((output, output.exported.descriptor.as_ref()?)))
}

/// The image ID: the digest of the configuration, of the exported image if there is one.
pub(super) fn image_id(report: &BuildReport) -> String {
    image(report)
        .and_then(|(output, _)| output.exported.config)
        .unwrap_or(report.config)
        .to_string()
}

/// Each output as JSON.
pub(super) fn outputs(report: &BuildReport) -> Vec<Value> {
    report
        .outputs
        .iter()
        .map(|output| {
            let mut fields = Map::new();
            fields.insert("type".to_owned(), json!(output.kind));
            if let Some(dest) = &output.dest {
                fields.insert("dest".to_owned(), json!(dest));
            }
            if let Some(descriptor) = &output.exported.descriptor {
                fields.insert("digest".to_owned(), json!(descriptor.digest.to_string()));
            }
            if !output.exported.names.is_empty() {
                fields.insert("names".to_owned(), json!(names(&output.exported.names)));
            }
            Value::Object(fields)
        })
        .collect()
}

fn names(names: &[Reference]) -> Vec<String> {
    names.iter().map(Reference::canonical).collect()
}

/// The content of `--metadata-file`: the keys of buildx, and all outputs.
fn metadata(report: &BuildReport) -> Value {
    let mut fields = Map::new();
    let (digest, config, tags) = match image(report) {
        Some((output, descriptor)) => {
            let described = serde_json::to_value(descriptor).unwrap_or(Value::Null);
            fields.insert("containerimage.descriptor".to_owned(), described);
            (
                descriptor.digest,
                output.exported.config.unwrap_or(report.config),
                &output.exported.names,
            )
        }
        None => (report.manifest, report.config, &report.tags),
    };
    fields.insert(
        "containerimage.digest".to_owned(),
        json!(digest.to_string()),
    );
    let config = json!(config.to_string());
    fields.insert("containerimage.config.digest".to_owned(), config);
    if !tags.is_empty() {
        fields.insert("image.name".to_owned(), json!(names(tags).join(",")));
    }
    // BUILDER/NODE/ID, as buildx has it. Builds have no number here: the image names the build.
    let id: String = report.manifest.to_hex().chars().take(25).collect();
    let reference = format!("firebuild/local/{id}");
    fields.insert("buildx.build.ref".to_owned(), json!(reference));
    fields.insert("firebuild.outputs".to_owned(), json!(outputs(report)));
    Value::Object(fields)
}

/// Writes the files that tell what came of a build.
pub(super) fn files(args: &RootfsArgs, report: &BuildReport) -> Result<(), Failure> {
    if let Some(path) = &args.iidfile {
        build::write_file(path, image_id(report).as_bytes())?;
    }
    if let Some(path) = &args.metadata_file {
        let text = serde_json::to_string_pretty(&metadata(report))
            .map_err(|error| Failure::new(error.to_string()))?;
        build::write_file(path, format!("{text}\n").as_bytes())?;
    }
    Ok(())
}
