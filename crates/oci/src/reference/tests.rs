use super::*;

const SHA: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn reference(text: &str) -> Reference {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn normalised_like_docker() {
    let pinned = format!("docker.io/library/debian@{SHA}");
    let both = format!("docker.io/library/debian:12@{SHA}");
    for (text, canonical, familiar) in [
        ("debian", "docker.io/library/debian:latest", "debian:latest"),
        ("debian:12", "docker.io/library/debian:12", "debian:12"),
        (
            "library/debian",
            "docker.io/library/debian:latest",
            "debian:latest",
        ),
        (
            "docker.io/debian",
            "docker.io/library/debian:latest",
            "debian:latest",
        ),
        ("index.docker.io/a/b", "docker.io/a/b:latest", "a/b:latest"),
        ("org/name:1.0", "docker.io/org/name:1.0", "org/name:1.0"),
        ("a/b/c", "docker.io/a/b/c:latest", "a/b/c:latest"),
        ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
        (
            "localhost:5000/x:y",
            "localhost:5000/x:y",
            "localhost:5000/x:y",
        ),
        (
            "127.0.0.1:5000/a/b",
            "127.0.0.1:5000/a/b:latest",
            "127.0.0.1:5000/a/b:latest",
        ),
        ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
        (
            "[2001:db8::1]/a",
            "[2001:db8::1]/a:latest",
            "[2001:db8::1]/a:latest",
        ),
        ("ghcr.io/o/n", "ghcr.io/o/n:latest", "ghcr.io/o/n:latest"),
        (
            "Reg.Example/o:V_1.x-y",
            "Reg.Example/o:V_1.x-y",
            "Reg.Example/o:V_1.x-y",
        ),
        (
            "a__b/c-----d/e.f_g",
            "docker.io/a__b/c-----d/e.f_g:latest",
            "a__b/c-----d/e.f_g:latest",
        ),
        (
            "library/a/b",
            "docker.io/library/a/b:latest",
            "library/a/b:latest",
        ),
        // Without a slash a dot or a number makes no registry.
        (
            "foo.com",
            "docker.io/library/foo.com:latest",
            "foo.com:latest",
        ),
        ("foo.com:80", "docker.io/library/foo.com:80", "foo.com:80"),
        (
            "localhost",
            "docker.io/library/localhost:latest",
            "localhost:latest",
        ),
        (
            "docker.io/localhost/x",
            "docker.io/localhost/x:latest",
            "docker.io/localhost/x:latest",
        ),
        (&format!("debian@{SHA}"), &pinned, &format!("debian@{SHA}")),
        (
            &format!("debian:12@{SHA}"),
            &both,
            &format!("debian:12@{SHA}"),
        ),
    ] {
        let parsed = reference(text);
        assert_eq!(parsed.canonical(), canonical, "{text}");
        assert_eq!(parsed.familiar(), familiar, "{text}");
        assert_eq!(reference(canonical), parsed, "{text}");
        assert_eq!(reference(familiar), parsed, "{text}");
        let json = serde_json::to_string(&parsed).unwrap();
        assert_eq!(serde_json::from_str::<Reference>(&json).unwrap(), parsed);
    }
}

#[test]
fn errors_name_the_part() {
    use ReferenceErrorKind as Kind;
    let long_tag = format!("a:{}", "t".repeat(129));
    let long_name = "a/".repeat(130) + "a";
    let id = "0".repeat(64);
    for (text, kind, says) in [
        ("", Kind::Empty, "empty"),
        (" a", Kind::Character, "' '"),
        ("a\nb", Kind::Character, "'\\n'"),
        ("é", Kind::Character, "'é'"),
        ("Foo", Kind::Uppercase, "'F'"),
        ("Foo/bar", Kind::Uppercase, "'F'"),
        ("org/Name:1", Kind::Uppercase, "'N'"),
        ("a:", Kind::Tag, "empty"),
        (":a", Kind::Repository, "missing"),
        ("a:b:c", Kind::Tag, "':'"),
        ("a:-x", Kind::Tag, "start"),
        ("a:.x", Kind::Tag, "start"),
        ("a:x+y", Kind::Tag, "'+'"),
        (&long_tag, Kind::Tag, "129"),
        (&long_name, Kind::TooLong, "255"),
        ("a//b", Kind::Repository, "empty"),
        ("/a", Kind::Repository, "empty"),
        ("a/", Kind::Repository, "empty"),
        ("-a", Kind::Repository, "start and end"),
        ("a-", Kind::Repository, "start and end"),
        ("a..b", Kind::Repository, "\"..\""),
        ("a___b", Kind::Repository, "\"___\""),
        ("a._b", Kind::Repository, "\"._\""),
        ("a$b", Kind::Repository, "'$'"),
        ("../a", Kind::Registry, "empty"),
        ("a/../b", Kind::Repository, "start and end"),
        ("http://x.y/a", Kind::Registry, "scheme"),
        ("x.y:port/a", Kind::Registry, "port"),
        ("x.y:99999/a", Kind::Registry, "port"),
        ("x.y:/a", Kind::Registry, "port"),
        ("x.-y/a", Kind::Registry, "'-'"),
        ("x_y.z/a", Kind::Registry, "'_'"),
        ("[::1/a:b", Kind::Registry, "']'"),
        ("[zz::1]/a", Kind::Registry, "IPv6"),
        ("[::1]x:1/a", Kind::Registry, "']'"),
        ("a@", Kind::Digest, "sha256"),
        ("a@sha256:12", Kind::Digest, "64"),
        ("a@sha512:12", Kind::Digest, "sha512"),
        ("a@b@c", Kind::Digest, "sha256"),
        (&id, Kind::Repository, "image ID"),
    ] {
        let error = text.parse::<Reference>().unwrap_err();
        assert_eq!(error.kind(), kind, "{text}: {error}");
        assert!(error.to_string().contains(says), "{text}: {error}");
    }
}

#[test]
fn pinning() {
    let digest: Digest = SHA.parse().unwrap();
    let tagged = reference("org/n:1");
    let pinned = tagged.with_digest(digest);
    assert_eq!(pinned.tag(), Some("1"));
    assert_eq!(pinned.digest(), Some(&digest));
    assert_eq!(pinned.without_digest(), tagged);
    assert_eq!(
        reference(&format!("org/n@{SHA}")).without_digest(),
        reference("org/n:latest")
    );
    assert_eq!(tagged.with_tag("2").unwrap(), reference("org/n:2"));
    assert!(tagged.with_tag("a/b").is_err());
}
