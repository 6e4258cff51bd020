//! One store for many processes: builds beside builds, beside prunes, and killed at any moment.

use firebuild_e2e::{Done, Home, firebuild, run, with_base};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

fn json(done: &Done) -> serde_json::Value {
    serde_json::from_slice(&done.stdout).expect("the output is JSON")
}

/// A command with the home of `home`, for other threads.
fn command(home: &Home, args: &[&str]) -> Command {
    let mut command = Command::new(firebuild());
    command
        .args(args)
        .env("FIREBUILD_HOME", home.path().join("home"))
        .env_remove("SOURCE_DATE_EPOCH");
    command
}

/// Nothing in the store is damaged.
fn whole(home: &Home) {
    let _ = home.fb(["du", "--verify"]).ok();
}

/// What the steps of a Dockerfile wrote into the cache mount `log`.
fn log(home: &Home) -> String {
    let dockerfile: &[u8] = b"FROM base:1\nRUN --mount=type=cache,id=log,target=/log cat /log/log > /log.copy || true\n\
        FROM scratch\nCOPY --from=0 /log.copy /log\n";
    let context = home.context("log", &[("Dockerfile", dockerfile)]);
    let out = home.path().join("log-out");
    let _ = home
        .fb([
            "build",
            "--no-cache",
            "--output",
            &format!("type=dir,dest={}", out.display()),
            &context.display().to_string(),
        ])
        .ok();
    fs_err::read_to_string(out.join("log")).expect("the build made it")
}

#[test]
fn du_says_why_and_prune_keeps_what_is_needed() {
    let Some(home) = with_base("du_says_why_and_prune_keeps_what_is_needed") else {
        return;
    };
    let dockerfile: &[u8] =
        b"FROM base:1 AS tools\nRUN --mount=type=cache,target=/c echo heavy > /tool\n\
        FROM base:1\nCOPY --from=tools /tool /tool\n";
    let context = home.context("ctx", &[("Dockerfile", dockerfile)]);
    let _ = home.build("t/x:1", &context).ok();
    let table = home.fb(["du"]).ok().out();
    for text in [
        "image t/x:1",
        "RUN ",
        "mounts/",
        "cache mount /c",
        "snapshot",
        "total",
        "reclaimable",
    ] {
        assert!(table.contains(text), "{text}\n{table}");
    }
    let before = json(&home.fb(["du", "--format", "json"]).ok());
    let item = |text: &str| {
        let items = before["items"].as_array().expect("a list");
        let found = items.iter().find(|item| {
            item["type"] == "layer"
                && item["description"]
                    .as_str()
                    .is_some_and(|it| it.contains(text))
        });
        found.unwrap_or_else(|| panic!("{text}\n{before}")).clone()
    };
    assert_eq!(item("heavy")["state"], "reclaimable");
    assert_eq!(
        item("COPY --from=tools")["images"],
        serde_json::json!(["t/x:1"])
    );
    assert!(before["reclaimable"].as_u64() < before["size"].as_u64());
    // Nobody has agreed.
    let mut asked = command(&home, &["prune"]);
    asked.stdin(Stdio::null());
    let asked = run(&mut asked, Duration::from_secs(60)).exits(2);
    assert!(asked.err().contains("--force"), "{}", asked.err());
    let dry = json(&home.fb(["prune", "--dry-run", "--format", "json"]).ok());
    let freed = json(&home.fb(["prune", "--force", "--format", "json"]).ok());
    assert_eq!(dry["size"], freed["size"]);
    let kinds: Vec<_> = freed["totals"].as_object().expect("kinds").keys().collect();
    assert_eq!(kinds, ["layer", "record", "snapshot"]);
    // What the image needs is there, and so is its own cache: nothing but the tool has to be made again.
    let again = home.build("t/x:1", &context).ok();
    assert!(
        again.err().matches("CACHED").count() >= 1,
        "{}",
        again.err()
    );
    let young = home
        .fb(["prune", "--all", "--force", "--filter", "until=24h"])
        .ok();
    assert!(young.out().starts_with("0 things"), "{}", young.out());
    let _ = home
        .fb(["prune", "--all", "--force", "--keep-storage", "1k"])
        .ok();
    let left = json(&home.fb(["du", "--format", "json"]).ok());
    let kinds: Vec<_> = left["totals"].as_object().expect("kinds").keys().collect();
    assert_eq!(kinds, ["image", "layer"]);
    assert_eq!(left["reclaimable"], 0);
    let tree = home.fb(["image", "tree", "t/x:1"]).ok().out();
    assert!(tree.contains("/tool"), "{tree}");
    let _ = home.fb(["prune", "--filter", "age=1"]).exits(2);
    whole(&home);
}

#[test]
fn builds_go_on_beside_prunes() {
    let Some(home) = with_base("builds_go_on_beside_prunes") else {
        return;
    };
    let contexts: Vec<PathBuf> = (0..3)
        .map(|number| {
            let text = format!(
                "FROM base:1 AS a\nRUN echo {number} > /one\nFROM base:1\nCOPY --from=a /one /one\n\
                 RUN --mount=type=cache,target=/c cat /one > /two && echo x >> /c/x\nRUN test $(cat /two) = {number}\n"
            );
            home.context(&format!("ctx{number}"), &[("Dockerfile", text.as_bytes())])
        })
        .collect();
    let (ended, builds) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut prunes = 0;
    std::thread::scope(|scope| {
        for (number, context) in contexts.iter().enumerate() {
            let (home, ended, builds) = (&home, &ended, &builds);
            scope.spawn(move || {
                let tag = format!("t/n{number}:1");
                while !ended.load(Ordering::Relaxed) {
                    let _ = home.build(&tag, context).ok();
                    builds.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(6) {
            let done = home.fb(["prune", "--all", "--force"]);
            if done.code != 0 {
                ended.store(true, Ordering::Relaxed);
            }
            let _ = done.ok();
            prunes += 1;
        }
        ended.store(true, Ordering::Relaxed);
    });
    let builds = builds.into_inner();
    assert!(
        prunes >= 5 && builds >= 5,
        "{prunes} prunes beside {builds} builds"
    );
    whole(&home);
    for number in 0..3 {
        let tree = home
            .fb(["image", "tree", &format!("t/n{number}:1")])
            .ok()
            .out();
        assert!(tree.contains("/two file"), "{tree}");
    }
}

#[test]
fn two_processes_run_each_step_once() {
    let Some(home) = with_base("two_processes_run_each_step_once") else {
        return;
    };
    let steps: Vec<String> = (0..3)
        .map(|number| {
            format!(
                "FROM base:1 AS s{number}\nRUN --mount=type=cache,id=log,target=/log sleep 0.3; echo step-{number} >> /log/log; \
                 echo {number} > /out{number}\n"
            )
        })
        .collect();
    let text = format!(
        "{}FROM base:1\nCOPY --from=s0 /out0 /\nCOPY --from=s1 /out1 /\nCOPY --from=s2 /out2 /\n\
         RUN --mount=type=cache,id=log,target=/log cat /out0 /out1 /out2 > /all; echo step-3 >> /log/log\n",
        steps.concat()
    );
    let context = home.context("ctx", &[("Dockerfile", text.as_bytes())]);
    let done: Vec<Done> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..3)
            .map(|number| {
                let (home, context) = (&home, &context);
                scope.spawn(move || home.build(&format!("t/{number}:1"), context).ok())
            })
            .collect();
        runs.into_iter()
            .map(|run| run.join().expect("no panic"))
            .collect()
    });
    let digest = |done: &Done| done.out().split_whitespace().last().map(str::to_owned);
    assert!(digest(&done[0]).is_some());
    assert_eq!(digest(&done[0]), digest(&done[1]));
    let log = log(&home);
    let mut lines: Vec<&str> = log.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["step-0", "step-1", "step-2", "step-3"]);
}

#[test]
fn a_killed_build_loses_nothing_that_was_finished() {
    let Some(home) = with_base("a_killed_build_loses_nothing_that_was_finished") else {
        return;
    };
    let steps: String = (0..8)
        .map(|number| {
            format!("RUN --mount=type=cache,id=log,target=/log sleep 0.05; echo step-{number} >> /log/log; echo {number} > /f{number}\n")
        })
        .collect();
    let context = home.context(
        "ctx",
        &[("Dockerfile", format!("FROM base:1\n{steps}").as_bytes())],
    );
    let path = context.display().to_string();
    let mut known: Vec<String> = Vec::new();
    for round in 0..10_u64 {
        let mut child = command(&home, &["build", "--progress=json", "-t", "t/x:1", &path])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        std::thread::sleep(Duration::from_millis(60 + round * 77 % 500));
        child.kill().expect("it is ours");
        let done = child.wait_with_output().expect("it is ours");
        let text = String::from_utf8_lossy(&done.stderr).into_owned();
        let events: Vec<serde_json::Value> = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let finished = |cached: bool| -> Vec<String> {
            let found = events
                .iter()
                .filter(|event| event["event"] == "finished" && event["cached"] == cached);
            found.map(|event| event["id"].to_string()).collect()
        };
        let executed = finished(false);
        for id in &known {
            assert!(
                !executed.contains(id),
                "step {id} had been finished\n{text}"
            );
        }
        known.extend(executed);
        whole(&home);
    }
    let _ = home.build("t/x:1", &context).ok();
    whole(&home);
    let left = json(&home.fb(["du", "--format", "json"]).ok());
    let temporary = &left["totals"]["temporary"];
    assert!(temporary.is_null(), "{temporary}");
}
