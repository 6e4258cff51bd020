use super::{
    Account, Channel, ConfigError, DiskRef, EnvVar, HostEntry, LogLevel, Resolver, RootLayout,
    RunConfig, SystemInit, WindowSize,
};
use crate::metadata::{Document, Metadata};
use crate::{HealthCheck, Interface, InterfaceRef, Route, Signal};

fn full() -> RunConfig {
    let mut config = RunConfig::new(
        vec!["postgres".to_owned(), "-c".to_owned(), "a b".to_owned()],
        "db".to_owned(),
        RootLayout::overlay(),
        Channel::virtio_serial(),
    );
    config.env = vec![
        EnvVar::parse("PATH=/bin:/usr/bin").unwrap(),
        EnvVar::parse("PGPASSWORD=secret=1").unwrap(),
    ];
    config.cwd = "/var/lib".to_owned();
    config.user = "postgres:postgres".to_owned();
    config.hosts = vec![HostEntry {
        address: "10.0.2.2".parse().unwrap(),
        names: vec!["gateway".to_owned()],
    }];
    config.resolver = Some(Resolver {
        nameservers: vec!["10.0.2.3".parse().unwrap()],
        search: vec!["example.org".to_owned()],
        options: vec!["ndots:1".to_owned()],
    });
    config.login_env = vec!["PGPASSWORD".to_owned()];
    config.accounts = vec![Account {
        name: "debian".to_owned(),
        keys: vec!["ssh-ed25519 AAAA me".to_owned()],
        create: true,
    }];
    config.interfaces = vec![Interface {
        select: InterfaceRef::Mac("52:54:00:12:34:56".parse().unwrap()),
        addresses: vec![
            "10.0.2.15/24".parse().unwrap(),
            "fec0::15/64".parse().unwrap(),
        ],
        routes: vec![Route::default_via("10.0.2.2".parse().unwrap())],
        mtu: Some(1500),
    }];
    config.modules = vec!["/firebuild/modules/virtio.ko".to_owned()];
    config.terminal = Some(WindowSize {
        rows: 24,
        columns: 80,
    });
    config.stdin = true;
    config.stop_signal = Signal::INT;
    config.system = Some(SystemInit {
        argv: Vec::new(),
        application: true,
    });
    config.health = Some(HealthCheck {
        argv: vec!["ok".to_owned()],
        interval_ms: 1,
        timeout_ms: 2,
        start_period_ms: 3,
        start_interval_ms: 4,
        retries: 5,
    });
    config.metadata = Some(Metadata {
        tokens: true,
        text_only: true,
        modules: vec!["/firebuild/modules/veth.ko".to_owned()],
        document: Document::from_iter([("a".to_owned(), "b".into())]),
    });
    config.clock_unix_ns = Some(1_800_000_000_000_000_000);
    config.entropy = vec![1, 2, 255];
    config.log_level = LogLevel::Debug;
    config
}

#[test]
fn the_document_round_trips() {
    let config = full();
    assert_eq!(
        RunConfig::from_json(&config.to_json().unwrap()).unwrap(),
        config
    );
    let small = RunConfig::new(
        vec!["/a".to_owned()],
        "h".to_owned(),
        RootLayout::Initrd,
        Channel::Vsock { port: 1 },
    );
    assert_eq!(
        RunConfig::from_json(&small.to_json().unwrap()).unwrap(),
        small
    );
}

#[test]
fn the_text_form_is_pinned() {
    let text = String::from_utf8(full().to_json().unwrap()).unwrap();
    let expected = concat!(
        r#"{"version":1,"argv":["postgres","-c","a b"],"env":[{"name":"PATH","value":"/bin:/usr/bin"},"#,
        r#"{"name":"PGPASSWORD","value":"secret=1"}],"cwd":"/var/lib","user":"postgres:postgres","hostname":"db","#,
        r#""hosts":[{"address":"10.0.2.2","names":["gateway"]}],"resolver":{"nameservers":["10.0.2.3"],"#,
        r#""search":["example.org"],"options":["ndots:1"]},"login_env":["PGPASSWORD"],"#,
        r#""accounts":[{"name":"debian","keys":["ssh-ed25519 AAAA me"],"create":true}],"interfaces":[{"select":{"mac":"52:54:00:12:34:56"},"#,
        r#""addresses":["10.0.2.15/24","fec0::15/64"],"routes":[{"destination":"0.0.0.0/0","gateway":"10.0.2.2"}],"#,
        r#""mtu":1500}],"root":{"kind":"overlay","image":{"serial":"firebuild-root"},"filesystem":"ext4","#,
        r#""scratch":{"serial":"firebuild-scratch"}},"modules":["/firebuild/modules/virtio.ko"],"#,
        r#""terminal":{"rows":24,"columns":80},"stdin":true,"stop_signal":2,"system":{"argv":[],"application":true},"#,
        r#""health":{"argv":["ok"],"interval_ms":1,"timeout_ms":2,"start_period_ms":3,"start_interval_ms":4,"retries":5},"#,
        r#""metadata":{"tokens":true,"text_only":true,"modules":["/firebuild/modules/veth.ko"],"document":{"a":"b"}},"#,
        r#""clock_unix_ns":1800000000000000000,"#,
        r#""entropy":"0102ff","log_level":"debug","channel":{"kind":"virtio-serial","name":"firebuild.channel"}}"#,
    );
    assert_eq!(text, expected);
}

#[test]
fn nothing_secret_is_shown() {
    let config = full();
    assert!(!format!("{config:?}").contains("secret=1"));
    let masked = String::from_utf8(config.masked().to_json().unwrap()).unwrap();
    assert!(
        !masked.contains("secret") && masked.contains("PGPASSWORD") && !masked.contains("0102ff")
    );
}

#[test]
fn what_the_guest_cannot_use_is_refused_by_name() {
    type Spoil = fn(&mut RunConfig);
    let broken: [(&str, Spoil); 16] = [
        ("version", |c| c.version = 2),
        ("argv", |c| c.argv.clear()),
        ("argv[1]", |c| c.argv[1] = "a\0".to_owned()),
        ("env a=b", |c| c.env[0].name = "a=b".to_owned()),
        ("env PATH", |c| c.env[0].value = "\0".to_owned()),
        ("cwd", |c| c.cwd = "a".to_owned()),
        ("user", |c| c.user = "a\nb".to_owned()),
        ("hostname", |c| c.hostname = "a b".to_owned()),
        ("hostname", |c| c.hostname = "a".repeat(65)),
        ("hosts[0]", |c| c.hosts[0].names.clear()),
        ("accounts[0]", |c| c.accounts[0].keys[0] = "a\nb".to_owned()),
        ("modules[0]", |c| c.modules[0] = "/a/../b".to_owned()),
        ("metadata.modules[0]", |c| {
            c.metadata.as_mut().unwrap().modules[0] = "veth.ko".to_owned();
        }),
        ("root", |c| {
            c.root = RootLayout::Private {
                disk: DiskRef::Index(26),
                filesystem: "ext4".to_owned(),
            }
        }),
        ("interfaces[0].select", |c| {
            c.interfaces[0].select = InterfaceRef::Name("a".repeat(16))
        }),
        ("channel.name", |c| {
            c.channel = Channel::VirtioSerial {
                name: String::new(),
            }
        }),
    ];
    for (expected, spoil) in broken {
        let mut config = full();
        spoil(&mut config);
        match config.validate() {
            Err(ConfigError::Field { field, .. }) => assert_eq!(field, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
}

#[test]
fn hostile_documents_are_errors() {
    for text in ["", "{}", "[]", "{\"version\":1}", &"[".repeat(100_000)] {
        RunConfig::from_json(text.as_bytes()).unwrap_err();
    }
    let unknown = String::from_utf8(full().to_json().unwrap())
        .unwrap()
        .replacen("{", "{\"more\":1,", 1);
    assert!(matches!(
        RunConfig::from_json(unknown.as_bytes()),
        Err(ConfigError::Json(_))
    ));
    let long = vec![b' '; super::MAX_CONFIG_BYTES + 1];
    assert!(matches!(
        RunConfig::from_json(&long),
        Err(ConfigError::TooLong { .. })
    ));
}
