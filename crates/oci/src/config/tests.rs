use super::*;

const DOCKER: &str = r#"{
  "architecture": "amd64", "os": "linux", "created": "2024-01-02T03:04:05.6Z", "docker_version": "20.10",
  "container_config": {"Hostname": "x"},
  "config": {
    "Hostname": "", "Domainname": "", "User": "postgres", "AttachStdin": false,
    "ExposedPorts": {"5432/tcp": {}}, "Env": ["PATH=/bin", "A=b=c", "EMPTY"],
    "Cmd": ["postgres"], "Entrypoint": ["docker-entrypoint.sh"], "Image": "sha256:x",
    "Volumes": {"/var/lib/postgresql/data": {}}, "WorkingDir": "", "OnBuild": null,
    "Labels": null, "StopSignal": "SIGINT", "Shell": ["/bin/bash", "-c"], "ArgsEscaped": true,
    "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 30000000000, "Retries": 3, "New": 1}
  },
  "rootfs": {"type": "layers", "diff_ids": ["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]},
  "history": [{"created": "2024-01-02T03:04:05Z", "created_by": "ADD x", "empty_layer": false},
              {"created_by": "CMD [\"postgres\"]", "empty_layer": true}]
}"#;

#[test]
fn reads_dockers_config() {
    let image = ImageConfig::parse(DOCKER.as_bytes()).unwrap();
    assert_eq!(image.platform.to_string(), "linux/amd64");
    let config = &image.config;
    assert_eq!(config.user, "postgres");
    assert!(config.exposed_ports.contains("5432/tcp"));
    assert_eq!(config.env_value("A"), Some("b=c"));
    assert_eq!(config.env_value("EMPTY"), Some(""));
    assert_eq!(config.env_value("B"), None);
    assert!(config.labels.is_empty() && config.on_build.is_empty());
    assert_eq!(config.stop_signal.as_deref(), Some("SIGINT"));
    assert!(config.args_escaped);
    let health = config.healthcheck.as_ref().unwrap();
    assert_eq!((health.interval, health.retries), (30_000_000_000, 3));
    assert_eq!(health.extra["New"], 1);
    assert!(image.history[1].empty_layer && !image.history[0].empty_layer);
    assert_eq!(image.extra["docker_version"], "20.10");
}

#[test]
fn keeps_what_it_does_not_know_and_is_stable() {
    let image = ImageConfig::parse(DOCKER.as_bytes()).unwrap();
    let bytes = image.to_bytes();
    let again = ImageConfig::parse(&bytes).unwrap();
    assert_eq!(image, again);
    assert_eq!(bytes, again.to_bytes());
    let text = String::from_utf8(bytes).unwrap();
    for kept in [
        r#""container_config":{"Hostname":"x"}"#,
        r#""AttachStdin":false"#,
        r#""ExposedPorts":{"5432/tcp":{}}"#,
    ] {
        assert!(text.contains(kept), "{text}");
    }
}

#[test]
fn bytes_are_pinned() {
    let mut image = ImageConfig::new(Platform::linux("amd64"));
    image.created = Some("1970-01-01T00:00:00Z".to_owned());
    image.config.set_env("PATH", "/bin");
    image.config.cmd = Some(vec!["sh".to_owned()]);
    image.rootfs.diff_ids.push(Digest::of(""));
    image.history.push(History {
        created_by: Some("CMD".to_owned()),
        empty_layer: true,
        ..History::default()
    });
    assert_eq!(
        String::from_utf8(image.to_bytes()).unwrap(),
        "{\"created\":\"1970-01-01T00:00:00Z\",\"architecture\":\"amd64\",\"os\":\"linux\",\
         \"config\":{\"Env\":[\"PATH=/bin\"],\"Cmd\":[\"sh\"]},\
         \"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"]},\
         \"history\":[{\"created_by\":\"CMD\",\"empty_layer\":true}]}"
    );
}

#[test]
fn null_absent_and_empty_commands() {
    for (text, wanted, written) in [
        (r#"{"Cmd":null}"#, None, "{}"),
        ("{}", None, "{}"),
        (r#"{"Cmd":[]}"#, Some(vec![]), r#"{"Cmd":[]}"#),
        (
            r#"{"Cmd":["a"]}"#,
            Some(vec!["a".to_owned()]),
            r#"{"Cmd":["a"]}"#,
        ),
    ] {
        let config: ContainerConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.cmd, wanted, "{text}");
        assert_eq!(serde_json::to_string(&config).unwrap(), written);
    }
}

#[test]
fn environment_keeps_its_order() {
    let mut config = ContainerConfig::default();
    config.set_env("A", "1");
    config.set_env("AB", "2");
    config.set_env("A", "3");
    assert_eq!(config.env, ["A=3", "AB=2"]);
}

#[test]
fn bad_configs_are_refused() {
    for (text, wanted) in [
        ("", "cannot read image config"),
        ("[]", "cannot read image config"),
        ("{}", "cannot read image config"),
        (
            r#"{"rootfs":{"type":"layers+base","diff_ids":[]}}"#,
            "layers+base",
        ),
        (
            r#"{"rootfs":{"type":"layers","diff_ids":["sha256:zz"]}}"#,
            "cannot read image config",
        ),
        (
            r#"{"rootfs":{"type":"layers"},"config":{"Env":"x"}}"#,
            "cannot read image config",
        ),
    ] {
        let error = ImageConfig::parse(text.as_bytes()).unwrap_err();
        assert!(error.to_string().contains(wanted), "{text}: {error}");
    }
    let many = vec![format!("{:?}", Digest::of("").to_string()); MAX_ENTRIES + 1].join(",");
    let text = format!(r#"{{"rootfs":{{"type":"layers","diff_ids":[{many}]}}}}"#);
    let error = ImageConfig::parse(text.as_bytes()).unwrap_err();
    assert_eq!(error.kind(), DocumentErrorKind::TooLarge);
}

#[test]
fn no_rootfs_type_means_layers() {
    let image = ImageConfig::parse(
        br#"{"os":"linux","config":null,"rootfs":{"diff_ids":null},"history":null}"#,
    )
    .unwrap();
    assert!(image.rootfs.diff_ids.is_empty());
    assert_eq!(image.platform.architecture, "");
}
