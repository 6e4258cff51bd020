//! Texts of instructions to typed ones, form by form.

use crate::{
    Command, Dockerfile, HealthTest, Instruction, InstructionKind, ParseErrorKind, Script,
    parse_instruction,
};

mod commands;
mod files;
mod transfers;
mod values;

fn file(source: &str) -> Dockerfile {
    Dockerfile::parse(source).unwrap_or_else(|e| panic!("{source:?}: {:?}", e.all()))
}

/// The instructions behind `FROM scratch`.
fn body(source: &str) -> Vec<Instruction> {
    file(&format!("FROM scratch\n{source}"))
        .stages
        .remove(0)
        .instructions
}

fn one(source: &str) -> InstructionKind {
    let mut instructions = body(source);
    assert_eq!(instructions.len(), 1, "{source:?}");
    instructions.remove(0).kind
}

fn first_error(source: &str) -> String {
    match Dockerfile::parse(source) {
        Ok(file) => panic!("{source:?}: {file:?}"),
        Err(errors) => errors.first().to_string(),
    }
}

fn body_error(source: &str) -> String {
    first_error(&format!("FROM scratch\n{source}"))
}

fn texts(words: &[crate::Word]) -> Vec<&str> {
    words.iter().map(|word| word.text.as_str()).collect()
}

fn show(command: &Command) -> String {
    match command {
        Command::Exec(words) => format!("exec {:?}", texts(words)),
        Command::Shell(word) => format!("shell {}", word.text),
    }
}
