//! What `rootfs` builds from: paths, addresses, standard input, a text, or an image.

use firebuild_engine::build::SourcePlace;
use firebuild_oci::Reference;

use crate::args::RootfsArgs;
use crate::failure::Failure;

/// Where the Dockerfile and the context are.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) dockerfile: Option<SourcePlace>,
    pub(super) context: Option<SourcePlace>,
}

impl Source {
    /// Whether a repository is fetched over SSH.
    pub(super) fn is_over_ssh(&self) -> bool {
        [&self.context, &self.dockerfile]
            .into_iter()
            .any(|place| match place {
                Some(SourcePlace::Address(text)) => {
                    let text = text.strip_prefix("git+").unwrap_or(text);
                    text.starts_with("ssh://") || (text.contains('@') && !text.contains("://"))
                }
                _ => false,
            })
    }
}

/// Finds the source that the flags name.
pub(super) fn find(args: &RootfsArgs) -> Result<Source, Failure> {
    if let Some(image) = &args.docker_image {
        let image: Reference = image.parse().map_err(|error| Failure::new(error).code(2))?;
        return Ok(Source {
            dockerfile: Some(SourcePlace::Text(format!("FROM {}\n", image.canonical()))),
            context: None,
        });
    }
    let context = args.path.as_ref().or(args.context.as_ref());
    let context = context.map(|text| SourcePlace::parse(text));
    if let Some(text) = &args.dockerfile_inline {
        // On a command line the last line seldom has an end.
        return Ok(Source {
            dockerfile: Some(SourcePlace::Text(format!("{text}\n"))),
            context,
        });
    }
    let dockerfile = match &args.dockerfile {
        None => None,
        Some(text) => Some(dockerfile(text)?),
    };
    if dockerfile.is_none() && context.is_none() {
        return Err(
            Failure::usage("neither a build context nor a Dockerfile was given")
                .hint("firebuild build . builds the Dockerfile in this directory"),
        );
    }
    Ok(Source {
        dockerfile,
        context,
    })
}

/// A `--dockerfile`. The original took a text in place of a path, and a misspelt path for a text.
pub(super) fn dockerfile(text: &str) -> Result<SourcePlace, Failure> {
    if text.contains('\n') && !std::path::Path::new(text).exists() {
        return Err(Failure::usage(
            "--dockerfile was given a text, and takes a path, an address or -",
        )
        .hint("give the text with --dockerfile-inline"));
    }
    Ok(SourcePlace::parse(text))
}
