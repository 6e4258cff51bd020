use super::*;
use crate::Digest;

const SHA: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn image(media: &str, extra: &str) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{media}","config":{{"mediaType":"c","digest":"{SHA}","size":1}},
            "layers":[{{"mediaType":"l","digest":"{SHA}","size":2,"urls":["http://x/"],"data":"aGk="}}]{extra}}}"#
    )
}

#[test]
fn both_spellings() {
    for media in [media_type::OCI_MANIFEST, media_type::DOCKER_MANIFEST] {
        let text = image(media, r#","artifactType":"x""#);
        for served in ["", media, &format!("{media}; charset=utf-8")] {
            let Document::Manifest(manifest) = Document::parse(text.as_bytes(), served).unwrap()
            else {
                panic!("an image is no index");
            };
            assert_eq!(manifest.layers[0].size, 2);
            assert_eq!(manifest.layers[0].extra["data"], "aGk=");
            assert_eq!(manifest.extra["artifactType"], "x");
            let again = Document::parse(&manifest.to_bytes(), media).unwrap();
            assert_eq!(again, Document::Manifest(manifest));
        }
    }
    for media in [media_type::OCI_INDEX, media_type::DOCKER_INDEX] {
        let text = format!(r#"{{"schemaVersion":2,"mediaType":"{media}","manifests":[]}}"#);
        assert!(matches!(
            Document::parse(text.as_bytes(), "application/json").unwrap(),
            Document::Index(_)
        ));
    }
    // No media type anywhere: the fields decide.
    let text = r#"{"schemaVersion":2,"manifests":[]}"#;
    assert!(matches!(
        Document::parse(text.as_bytes(), "").unwrap(),
        Document::Index(_)
    ));
}

#[test]
fn refused() {
    let contradiction = image(media_type::OCI_MANIFEST, "");
    let both = image(media_type::OCI_MANIFEST, r#","manifests":[]"#);
    let unknown = image("application/vnd.acme+json", "");
    let many = vec![format!(r#"{{"digest":"{SHA}","size":1}}"#); MAX_ENTRIES + 1].join(",");
    let many = format!(r#"{{"schemaVersion":2,"manifests":[{many}]}}"#);
    let negative = image(media_type::OCI_MANIFEST, "").replace(r#""size":2"#, r#""size":-2"#);
    let deep = "[".repeat(100_000);
    use DocumentErrorKind as Kind;
    for (text, served, kind) in [
        ("", "", Kind::Invalid),
        ("{}", "", Kind::Unsupported),
        (
            r#"{"schemaVersion":1,"fsLayers":[]}"#,
            "",
            Kind::Unsupported,
        ),
        (&contradiction, media_type::OCI_INDEX, Kind::Invalid),
        (&both, "", Kind::Invalid),
        (&unknown, "", Kind::Unsupported),
        (&many, "", Kind::TooLarge),
        (&negative, "", Kind::Invalid),
        (&deep, "", Kind::Invalid),
    ] {
        let error = Document::parse(text.as_bytes(), served).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
    let huge = vec![b' '; usize::try_from(MAX_MANIFEST_BYTES).unwrap() + 1];
    assert_eq!(
        Document::parse(&huge, "").unwrap_err().kind(),
        Kind::TooLarge
    );
}

#[test]
fn the_best_entry_is_selected() {
    let entry = |text: &str, content: &str| {
        let mut entry = Descriptor::of(media_type::OCI_MANIFEST, content.as_bytes());
        if !text.is_empty() {
            entry.platform = Some(Platform {
                os: text.split('/').next().unwrap().to_owned(),
                architecture: text.split('/').nth(1).unwrap().to_owned(),
                variant: text.split('/').nth(2).map(str::to_owned),
                ..Platform::default()
            });
        }
        entry
    };
    let index = Index::new(vec![
        entry("unknown/unknown", "attestation"),
        entry("", "bare"),
        entry("linux/arm/v5", "armv5"),
        entry("linux/arm/v6", "armv6"),
        entry("linux/amd64", "first"),
        entry("linux/amd64", "second"),
    ]);
    for (wanted, content) in [
        ("linux/amd64", "first"),
        ("linux/amd64/v3", "first"),
        ("linux/arm/v7", "armv6"),
        ("linux/arm/v5", "armv5"),
        ("linux/s390x", "bare"),
    ] {
        let selected = index.select(&wanted.parse().unwrap()).unwrap();
        assert_eq!(selected.digest, Digest::of(content), "{wanted}");
    }
    let index = Index::new(vec![entry("unknown/unknown", "attestation")]);
    assert_eq!(index.select(&Platform::host()), None);
}
