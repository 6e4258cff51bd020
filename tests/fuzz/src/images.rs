//! A world of images for lowering: every name is known, some bring triggers.

use firebuild_build::lower::{LowerError, Lowered, Options, Outcome, lower};
use firebuild_build::resolve::{ImageRequest, MAX_ROUNDS, Resolved, ResolvedImage};
use firebuild_dockerfile::{Dockerfile, Span};
use firebuild_oci::{Digest, ImageConfig, Platform, Reference};

pub(crate) fn options() -> Options {
    Options {
        build_platform: Platform::linux("amd64"),
        ..Options::default()
    }
}

/// Lowers with every image that is asked for; `None` when it asks for names that are none, or without end.
pub(crate) fn lowered(file: &Dockerfile, options: &Options) -> Option<Result<Lowered, LowerError>> {
    let mut resolved = Resolved::default();
    for _ in 0..MAX_ROUNDS {
        let needed = match lower(file, &resolved, options) {
            Ok(Outcome::Lowered(lowered)) => return Some(Ok(*lowered)),
            Ok(Outcome::Needs(needed)) => needed,
            // The time of a source: there is none here.
            Ok(Outcome::NeedsTime(_)) => return None,
            Err(error) => return Some(Err(error)),
        };
        assert!(!needed.is_empty());
        for (request, _) in needed {
            let image = image(&request)?;
            assert!(
                resolved.images.insert(request, image).is_none(),
                "no image is asked for twice"
            );
        }
    }
    None
}

fn image(request: &ImageRequest) -> Option<ResolvedImage> {
    let reference: Reference = request.reference.parse().ok()?;
    let mut config = ImageConfig::new(Platform::linux("amd64"));
    config.config.env = vec!["PATH=/bin".to_owned(), "a=x y".to_owned()];
    // By the length of the name, so that the fuzzer can choose.
    config.config.on_build = match request.reference.len() % 5 {
        0 => vec!["RUN triggered".to_owned(), "ARG a=b".to_owned()],
        1 => vec!["COPY --from=other a b".to_owned()],
        _ => Vec::new(),
    };
    let manifest = Digest::of(request.reference.as_bytes());
    Some(ResolvedImage {
        reference: reference.with_digest(manifest),
        manifest,
        layers: vec![manifest],
        config,
    })
}

/// What holds for every graph.
pub(crate) fn check_graph(lowered: &Lowered, source: &str) {
    let graph = &lowered.graph;
    assert!((graph.target.0 as usize) < graph.vertices.len());
    for (number, vertex) in graph.vertices.iter().enumerate() {
        for input in &vertex.inputs {
            assert!((input.0 as usize) < number, "inputs precede their users");
        }
        assert!(vertex.span.is_none_or(|span| usable(source, span)));
    }
    assert_eq!(
        graph.needed().len(),
        graph.vertices.len(),
        "nothing that is not needed"
    );
}

pub(crate) fn usable(source: &str, span: Span) -> bool {
    source.get(span.range()).is_some()
}
