use firebuild_build::dump::graph_to_text;
use firebuild_dockerfile::{CheckOptions, Dockerfile, LineIndex, Span, lint, parse_instruction};

use crate::images::{check_graph, lowered, options, usable};

/// Any bytes are a Dockerfile or errors; spans can be used; what can be parsed can be checked and lowered, twice alike.
pub fn dockerfile(bytes: &[u8]) {
    let (source, parsed) = Dockerfile::parse_bytes(bytes);
    let index = LineIndex::new(&source);
    let check = |span: Span| {
        assert!(usable(&source, span), "{span:?}");
        let at = index.position(span.start);
        assert!(at.line >= 1 && at.column >= 1);
    };
    let file = match parsed {
        Ok(file) => file,
        Err(errors) => {
            errors.all().iter().for_each(|error| check(error.span()));
            return;
        }
    };
    for stage in &file.stages {
        check(stage.span);
        check(stage.base.span);
        for instruction in &stage.instructions {
            check(instruction.span);
            check(instruction.keyword.span);
            assert!(instruction.span.start <= instruction.keyword.span.start);
        }
    }
    for warning in lint(&file, &CheckOptions::default()) {
        check(warning.span);
    }
    let _ = parse_instruction(&source);
    let options = options();
    match lowered(&file, &options) {
        Some(Ok(first)) => {
            check_graph(&first, &source);
            let text = graph_to_text(&first.graph);
            let again = lowered(&file, &options).unwrap().unwrap();
            assert_eq!(text, graph_to_text(&again.graph), "lowering is a function");
            assert!(first.config == again.config);
        }
        Some(Err(error)) => {
            error.span().into_iter().for_each(check);
            assert!(!error.to_string().is_empty());
        }
        None => {}
    }
}
