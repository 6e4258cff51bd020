use super::{Device, Mount, MountSharing, MountType, ResolvedMount, split_fields};
use crate::instruction::Word;
use crate::span::Span;

fn parse(text: &str) -> Result<Mount, String> {
    Mount::parse(&Word::new(text, Span::new(0, text.len()))).map_err(|e| e.to_string())
}

/// `$X` becomes `x`.
fn resolve(text: &str) -> Result<ResolvedMount, String> {
    parse(text)?
        .resolve(|value| Ok::<_, String>(value.replace("$X", "x")))?
        .map_err(|e| e.to_string())
}

#[test]
fn fields() {
    let mount = resolve(
        "type=Cache,TARGET=/a$X,id=$X,sharing=Locked,mode=0750,uid=1,gid=2,from=base,source=/s",
    )
    .unwrap();
    assert_eq!(
        mount,
        ResolvedMount {
            kind: MountType::Cache,
            from: "base".to_owned(),
            source: "/s".to_owned(),
            target: "/ax".to_owned(),
            id: "x".to_owned(),
            sharing: Some(MountSharing::Locked),
            mode: Some(0o750),
            uid: Some(1),
            gid: Some(2),
            ..ResolvedMount::default()
        }
    );
    assert_eq!(
        resolve("type=tmpfs,target=/a,size=64m").unwrap().size,
        64 << 20
    );
    assert_eq!(
        resolve("type=secret,id=a,env=").unwrap().env.as_deref(),
        Some("")
    );
}

#[test]
fn read_only_defaults() {
    for (text, read_only) in [
        ("target=/a", true),
        ("target=/a,rw", false),
        ("target=/a,rw=false", true),
        ("target=/a,ro=0", false),
        ("type=cache,target=/a", false),
        ("type=cache,target=/a,readonly", true),
        ("type=tmpfs,target=/a", false),
        ("type=secret,id=a", true),
    ] {
        assert_eq!(resolve(text).unwrap().read_only, read_only, "{text}");
    }
}

#[test]
fn required() {
    for (text, required) in [
        ("type=secret,id=a", false),
        ("type=secret,id=a,required", true),
        ("type=ssh,required=true", true),
        ("type=ssh,required=false", false),
    ] {
        assert_eq!(resolve(text).unwrap().required, required, "{text}");
    }
}

#[test]
fn errors() {
    for (text, message) in [
        (
            "type=bnd",
            "unsupported mount type \"bnd\" (did you mean bind?)",
        ),
        ("type=$X", "unsupported mount type \"x\""),
        (
            "type=bind,from=$X",
            "'from' doesn't support variable expansion, define alias stage instead",
        ),
        (
            "type=bind,uid=1",
            "uid not allowed for \"bind\" type mounts",
        ),
        (
            "type=tmpfs,mode=1",
            "mode not allowed for \"tmpfs\" type mounts",
        ),
        (
            "type=cache,sharing=none",
            "unsupported sharing value \"none\"",
        ),
        ("sharing=locked", "invalid cache sharing set for bind mount"),
        (
            "type=secret",
            "invalid secret mount. one of source, target required",
        ),
        (
            "type=secret,id=a,source=b",
            "both source and id can't be set",
        ),
        (
            "type=secret,id=a,from=b",
            "secret mount should not have a from",
        ),
        (
            "type=bind,required",
            "unexpected key 'required' for mount type 'bind'",
        ),
        (
            "size=1,type=tmpfs",
            "unexpected key 'size' for mount type 'bind'",
        ),
        ("type=tmpfs,size=many", "invalid value for size: many"),
        (
            "type=cache,mode=9",
            "invalid value 9 for mode, expected octal up to 07777",
        ),
        ("type=cache,uid=-1", "invalid value -1 for uid"),
        (
            "targt=/a",
            "unexpected key 'targt' in 'targt=/a' (did you mean target?)",
        ),
        ("target", "invalid field 'target' must be a key=value pair"),
        ("ro=maybe", "invalid value for ro: maybe"),
        ("", "invalid mount: empty value"),
        (
            "a\"b",
            "invalid mount: a quote inside a field that does not start with one",
        ),
        ("\"a", "invalid mount: a quoted field is not closed"),
        ("\"a\"b", "invalid mount: text behind a quoted field"),
    ] {
        assert_eq!(resolve(text).unwrap_err(), message, "{text}");
    }
    // A dollar sign at the end is none of a variable.
    assert!(resolve("from=a$").is_ok());
}

#[test]
fn csv() {
    assert_eq!(
        split_fields("a,\"b,c\",\"d\"\"e\"").unwrap(),
        ["a", "b,c", "d\"e"]
    );
    assert_eq!(split_fields("a,").unwrap(), ["a", ""]);
    assert_eq!(split_fields("a,\"\"").unwrap(), ["a", ""]);
    assert_eq!(split_fields("a,\"b\",").unwrap(), ["a", "b", ""]);
}

#[test]
fn devices() {
    let device = |text: &str| {
        Device::parse(&Word::new(text, Span::at(0)))
            .map(|device| (device.name, device.required))
            .map_err(|e| e.to_string())
    };
    assert_eq!(
        device("vendor.com/class=dev,required").unwrap(),
        ("vendor.com/class=dev".to_owned(), true)
    );
    assert_eq!(
        device("name=x,required=false").unwrap(),
        ("x".to_owned(), false)
    );
    assert!(device("required").is_err());
    assert!(device("a,b").is_err());
    assert!(device("name=a,name=b").is_err());
}
