//! Files that are made to cost: an error that says why or the right result, in bounded memory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;

use firebuild_dockerfile::{Dockerfile, IgnorePatterns, expand_word};

/// What this process has held at most so far, in MiB.
fn peak_mib() -> usize {
    let status = fs_err::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line
        .and_then(|line| line.split_whitespace().nth(1))
        .unwrap();
    kib.parse::<usize>().unwrap() / 1024
}

/// The first error of a file, with memory bounded by some times its size.
fn refused(text: &str) -> String {
    let error = Dockerfile::parse(text).expect_err("a file above the limits");
    assert!(error.all().len() <= 1000, "{} errors", error.all().len());
    let peak = peak_mib();
    let bound = 96 + 24 * (text.len() >> 20);
    assert!(peak < bound, "{peak} MiB for {} bytes", text.len());
    error.first().to_string()
}

#[test]
fn a_line_of_four_megabytes() {
    let text = format!("FROM a\nRUN {}\n", "x".repeat(4 << 20));
    let error = refused(&text);
    assert!(error.contains("65535") || error.contains("long"), "{error}");
}

#[test]
fn a_hundred_thousand_instructions() {
    let text = format!("FROM a\n{}", "RUN true\n".repeat(100_000));
    let error = refused(&text);
    assert!(error.contains("20000"), "{error}");
}

#[test]
fn a_hundred_thousand_stages() {
    let mut text = String::new();
    for number in 0..100_000 {
        writeln!(text, "FROM a AS s{number}").unwrap();
    }
    let error = refused(&text);
    assert!(error.contains("2000"), "{error}");
}

#[test]
fn a_file_above_the_limit() {
    let error = refused(&format!("FROM a\n{}", "#\n".repeat(9 << 20)));
    assert!(
        error.contains("16777216") || error.contains("MiB"),
        "{error}"
    );
}

#[test]
fn a_huge_heredoc_is_itself() {
    let body = "echo line\n".repeat(1_000_000);
    let text = format!("FROM a\nRUN <<EOF\n{body}EOF\n");
    let file = Dockerfile::parse(&text).unwrap();
    assert_eq!(file.stages[0].instructions.len(), 1);
    assert!(peak_mib() < 256, "{} MiB", peak_mib());
}

#[test]
fn triggers_of_triggers_and_endless_continuations() {
    refused(&format!("FROM a\n{}RUN true\n", "ONBUILD ".repeat(5_000)));
    // A line that goes on for ever is one instruction, or too long.
    let text = format!("FROM a\nRUN true{}\n", " \\\n  && true".repeat(100_000));
    let _ = Dockerfile::parse(&text);
    assert!(peak_mib() < 192, "{} MiB", peak_mib());
}

#[test]
fn nested_expansions_and_long_patterns() {
    let deep = format!("{}x{}", "${a:-".repeat(100_000), "}".repeat(100_000));
    expand_word(&deep, '\\', |_| None).expect_err("too deep");
    let value = "ab".repeat(4_000);
    let pattern = format!("${{v##{}}}", "*a".repeat(2_000));
    // Right or refused, not for hours.
    let _ = expand_word(&pattern, '\\', |_| Some(value.as_str()));
    let doubling = format!("${{v//a/{}}}", "$v".repeat(1_000));
    let _ = expand_word(&doubling, '\\', |_| Some(value.as_str()));
    let patterns = "**/a/**/b/**/c*\n".repeat(100_001);
    IgnorePatterns::parse(patterns.as_bytes()).expect_err("too many");
    assert!(peak_mib() < 128, "{} MiB", peak_mib());
}
