//! Reading an `--output`.

use firebuild_dockerfile::nearest;
use firebuild_oci::{Platform, Reference};

use super::attrs::Attrs;
use super::{
    Annotation, Compression, Dest, ImageForm, Output, OutputError, OutputKind, Packing, Publication,
};

/// All words of `type=`.
const TYPES: [&str; 12] = [
    "ext4",
    "erofs",
    "initrd",
    "oci",
    "docker",
    "image",
    "registry",
    "tar",
    "local",
    "dir",
    "cacheonly",
    "cpio",
];

impl Output {
    /// Reads an `--output`.
    ///
    /// # Errors
    /// When the type or an attribute is unknown, a value is wrong, or `dest` is missing.
    pub fn parse(text: &str) -> Result<Self, OutputError> {
        parse(text).map_err(|why| OutputError {
            text: text.to_owned(),
            why,
        })
    }
}

fn parse(text: &str) -> Result<Output, String> {
    if text == "-" {
        return Ok(Output::new(OutputKind::Tar, Dest::Stdout));
    }
    if !text.contains('=') {
        if text.is_empty() {
            return Err("it is empty".to_owned());
        }
        let kind = OutputKind::Dir { delete: false };
        return Ok(Output::new(kind, Dest::Path(text.into())));
    }
    let mut attrs = Attrs::parse(text)?;
    let word = attrs
        .take(&["type"])
        .ok_or("type= is missing")?
        .to_ascii_lowercase();
    let kind = kind(&word, &mut attrs)?;
    let dest = dest(kind, &mut attrs)?;
    let mut output = Output::new(kind, dest);
    output.rewrite_timestamp = attrs.flag("rewrite-timestamp")?.unwrap_or(false);
    if matches!(
        kind,
        OutputKind::Oci { .. } | OutputKind::Docker { .. } | OutputKind::Image(_)
    ) {
        output.image = image(kind, &mut attrs)?;
    }
    attrs.finish(&word)?;
    check(&output)?;
    Ok(output)
}

fn kind(word: &str, attrs: &mut Attrs) -> Result<OutputKind, String> {
    Ok(match word {
        "ext4" => OutputKind::Ext4,
        "erofs" => OutputKind::Erofs,
        "initrd" | "cpio" => OutputKind::Initrd(packing(attrs, Compression::Uncompressed)?),
        "oci" => OutputKind::Oci {
            tar: attrs.flag("tar")?.unwrap_or(true),
        },
        "docker" => OutputKind::Docker {
            tar: attrs.flag("tar")?.unwrap_or(true),
        },
        "image" | "registry" => OutputKind::Image(Publication {
            push: attrs.flag("push")?.unwrap_or(word == "registry"),
            by_digest: attrs.flag("push-by-digest")?.unwrap_or(false),
            insecure: attrs.flag("registry.insecure")?.unwrap_or(false),
            unrecorded: !attrs.flag("store")?.unwrap_or(true),
        }),
        "tar" => OutputKind::Tar,
        "local" | "dir" => {
            // One platform is built, so there is nothing to split.
            attrs.flag("platform-split")?;
            let delete = match attrs.take(&["mode"]).as_deref() {
                None | Some("copy") => false,
                Some("delete") => true,
                Some(other) => return Err(format!("mode={other}: copy or delete")),
            };
            OutputKind::Dir { delete }
        }
        "cacheonly" => OutputKind::CacheOnly,
        other => {
            let hint = match nearest(other, TYPES) {
                Some(near) => format!("did you mean {near}?"),
                None => {
                    "ext4, erofs, initrd, oci, docker, image, registry, tar, local or cacheonly"
                        .to_owned()
                }
            };
            return Err(format!("unknown type {other:?} ({hint})"));
        }
    })
}

fn dest(kind: OutputKind, attrs: &mut Attrs) -> Result<Dest, String> {
    if matches!(kind, OutputKind::Image(_) | OutputKind::CacheOnly) {
        return Ok(Dest::Within);
    }
    let streams = matches!(
        kind,
        OutputKind::Tar
            | OutputKind::Initrd(_)
            | OutputKind::Oci { tar: true }
            | OutputKind::Docker { tar: true }
    );
    match attrs.take(&["dest", "dst", "destination"]).as_deref() {
        Some("-" | "/dev/stdout" | "/dev/fd/1" | "/proc/self/fd/1") | None if streams => {
            Ok(Dest::Stdout)
        }
        Some("-") => Err("this type cannot go to standard output".to_owned()),
        None if kind == OutputKind::Ext4 => Ok(Dest::Within),
        Some("") | None => Err("dest= is missing".to_owned()),
        Some(path) => Ok(Dest::Path(path.into())),
    }
}

fn packing(attrs: &mut Attrs, unless_told: Compression) -> Result<Packing, String> {
    let compression = match attrs.take(&["compression"]).as_deref() {
        None => unless_told,
        Some("gzip") => Compression::Gzip,
        Some("zstd") => Compression::Zstd,
        Some("uncompressed") => Compression::Uncompressed,
        Some("estargz") => {
            return Err(
                "compression=estargz is not written: gzip, zstd or uncompressed".to_owned(),
            );
        }
        Some(other) => {
            return Err(format!(
                "unknown compression {other:?}: gzip, zstd or uncompressed"
            ));
        }
    };
    let most = match compression {
        Compression::Gzip => 9,
        Compression::Zstd => 22,
        Compression::Uncompressed => 0,
    };
    let level = attrs
        .take(&["compression-level"])
        .map(|text| {
            text.parse()
                .ok()
                .filter(|level| *level <= most)
                .ok_or_else(|| format!("compression-level={text}: 0 to {most}"))
        })
        .transpose()?;
    Ok(Packing { compression, level })
}

fn image(kind: OutputKind, attrs: &mut Attrs) -> Result<ImageForm, String> {
    let mut names = Vec::new();
    let by_digest = matches!(kind, OutputKind::Image(image) if image.by_digest);
    if let Some(text) = attrs.take(&["name"]) {
        for name in text.split(',').filter(|name| !name.is_empty()) {
            let last = name.rsplit('/').next().unwrap_or(name);
            if by_digest && last.contains(':') {
                return Err(format!(
                    "push-by-digest=true: name={name} has a tag; a digest is all the name that it gets"
                ));
            }
            let name: Reference = name
                .parse()
                .map_err(|error| format!("name={name}: {error}"))?;
            names.push(name);
        }
    }
    let docker = matches!(kind, OutputKind::Docker { .. });
    let form = ImageForm {
        names,
        packing: packing(attrs, Compression::Gzip)?,
        force: attrs.flag("force-compression")?.unwrap_or(false),
        docker_types: !attrs.flag("oci-mediatypes")?.unwrap_or(!docker),
        annotations: annotations(attrs)?,
    };
    if attrs.flag("unpack")? == Some(true) {
        return Err(
            "unpack=true is for containerd; firebuild unpacks layers when a step needs them".into(),
        );
    }
    if form.docker_types && !form.annotations.is_empty() {
        return Err("annotations need oci-mediatypes=true".to_owned());
    }
    Ok(form)
}

/// `annotation[-WHERE][[PLATFORM]].KEY`; BuildKit, `exporter/containerimage/exptypes/annotations.go`.
fn annotations(attrs: &mut Attrs) -> Result<Vec<Annotation>, String> {
    let mut found = Vec::new();
    for (rest, value) in attrs.take_prefixed("annotation") {
        let whole = || format!("cannot understand annotation{rest}=");
        let (place, key) = rest.split_once('.').ok_or_else(whole)?;
        let (place, platform) = match place.split_once('[') {
            Some((place, platform)) => {
                let platform = platform.strip_suffix(']').ok_or_else(whole)?;
                let platform: Platform = platform
                    .parse()
                    .map_err(|error| format!("annotation{rest}: {error}"))?;
                (place, Some(platform))
            }
            None => (place, None),
        };
        let descriptor = match place {
            "" | "-manifest" => false,
            "-descriptor" | "-manifest-descriptor" => true,
            "-index" | "-index-descriptor" => {
                return Err(format!(
                    "annotation{place}: an image of one platform has no index; use annotation-manifest.{key}="
                ));
            }
            _ => return Err(whole()),
        };
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(whole());
        }
        found.push(Annotation {
            descriptor,
            platform,
            key: key.to_owned(),
            value,
        });
    }
    Ok(found)
}

/// What is right by itself and wrong together.
fn check(output: &Output) -> Result<(), String> {
    let OutputKind::Image(publication) = output.kind else {
        return Ok(());
    };
    let names = &output.image.names;
    if publication.by_digest {
        if !publication.push {
            return Err("push-by-digest=true needs push=true".to_owned());
        }
        if names.is_empty() {
            return Err("push-by-digest=true needs name=REPOSITORY".to_owned());
        }
    }
    if let Some(named) = names.iter().find(|name| name.digest().is_some()) {
        return Err(format!(
            "name={}: a digest is the result of a build",
            named.familiar()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Dest {
        Dest::Path(text.into())
    }

    #[test]
    fn forms() {
        let parse = |text| Output::parse(text).unwrap();
        assert_eq!(parse("type=ext4,dest=a b.img").dest, path("a b.img"));
        assert_eq!(parse("type=ext4").dest, Dest::Within);
        assert!(parse("type=ext4").needs_tag());
        assert_eq!(parse("out").kind, OutputKind::Dir { delete: false });
        assert_eq!(parse("-"), Output::new(OutputKind::Tar, Dest::Stdout));
        assert_eq!(
            parse("type=local,dest=x,mode=delete").kind,
            OutputKind::Dir { delete: true }
        );
        let oci = parse(
            "type=oci,tar=false,\"dest=a,b\",compression=zstd,compression-level=19,force-compression=true",
        );
        assert_eq!(oci.kind, OutputKind::Oci { tar: false });
        assert_eq!(oci.dest, path("a,b"));
        assert_eq!(
            oci.image.packing,
            Packing {
                compression: Compression::Zstd,
                level: Some(19)
            }
        );
        assert!(parse("type=oci,dest=x,rewrite-timestamp=true").rewrite_timestamp);
        assert!(parse("type=docker").is_stream() && parse("type=docker").image.docker_types);
        assert!(!parse("type=oci").image.docker_types);
        let image = parse("type=registry,\"name=a/b:1,c/d\",registry.insecure=true");
        let OutputKind::Image(publication) = image.kind else {
            panic!("{image:?}")
        };
        assert!(publication.push && publication.insecure);
        assert_eq!(image.image.names.len(), 2);
        assert!(!image.needs_tag() && parse("type=image").needs_tag());
        assert_eq!(parse("type=cacheonly").dest, Dest::Within);
    }

    #[test]
    fn annotations_have_a_place_and_a_platform() {
        let output = Output::parse(
            "type=oci,annotation.org.Title=A b,annotation-manifest-descriptor[linux/amd64].x=y",
        )
        .unwrap();
        let platform: Platform = "linux/amd64".parse().unwrap();
        let other: Platform = "linux/arm64".parse().unwrap();
        assert_eq!(
            output.image.annotations(false, &platform)["org.Title"],
            "A b"
        );
        assert_eq!(output.image.annotations(true, &platform)["x"], "y");
        assert!(output.image.annotations(true, &other).is_empty());
    }

    #[test]
    fn mistakes_are_named() {
        for (text, why) in [
            ("type=qcow3,dest=x", "unknown type"),
            ("type=dokcer", "did you mean docker?"),
            ("type=erofs", "dest= is missing"),
            ("dest=x", "type= is missing"),
            ("type=tar,dest=x,foo=1", "it takes dest, destination, dst"),
            ("type=tar,dset=x", "did you mean"),
            ("type=ext4,compression=gzip", "no attribute \"compression\""),
            ("type=dir,dest=-", "standard output"),
            ("type=tar,\"dest=x", "quote"),
            ("type=tar,dest=a,dest=b", "twice"),
            ("type=oci,compression=lz4", "gzip, zstd or uncompressed"),
            ("type=oci,compression-level=10", "0 to 9"),
            ("type=oci,tar=maybe", "neither true nor false"),
            ("type=oci,name=A", "name=A"),
            ("type=oci,annotation-index.a=b", "no index"),
            ("type=oci,annotation-foo.a=b", "cannot understand"),
            ("type=docker,annotation.a=b", "oci-mediatypes"),
            ("type=image,push-by-digest=true", "needs push=true"),
            ("type=registry,push-by-digest=true,name=a/b:1", "has a tag"),
            ("type=local,dest=x,mode=move", "copy or delete"),
        ] {
            let message = Output::parse(text).unwrap_err().to_string();
            assert!(message.contains(why), "{text}: {message}");
        }
    }
}
