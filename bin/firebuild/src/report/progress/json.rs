//! Progress for programs: one JSON object a line. The fields are a format: docs/formats/progress.md.

use std::time::Duration;

use firebuild_engine::build::{BuildEvent, Stream};
use serde_json::{Value, json};

use crate::report::finding;

/// An event as one line.
pub(super) fn line(event: &BuildEvent, now: Duration) -> String {
    let mut value = value(event);
    // Milliseconds are plenty, and keep the line short.
    value["time"] = json!((now.as_secs_f64() * 1e3).round() / 1e3);
    value.to_string()
}

fn value(event: &BuildEvent) -> Value {
    match event {
        BuildEvent::Planned {
            id,
            name,
            stage,
            inputs,
        } => {
            let inputs: Vec<u32> = inputs.iter().map(|input| input.0).collect();
            json!({"event": "planned", "id": id.0, "name": name, "stage": stage, "inputs": inputs})
        }
        BuildEvent::Started { id } => json!({"event": "started", "id": id.0}),
        BuildEvent::Output { id, stream, data } => json!({
            "event": "output", "id": id.0,
            "stream": if *stream == Stream::Stdout { "stdout" } else { "stderr" },
            "data": String::from_utf8_lossy(data),
        }),
        BuildEvent::Finished {
            id,
            cached,
            elapsed,
        } => json!({
            "event": "finished", "id": id.0, "cached": cached, "seconds": elapsed.as_secs_f64(),
        }),
        BuildEvent::Failed { id, message } => {
            json!({"event": "failed", "id": id.0, "message": message})
        }
        BuildEvent::Progress {
            item,
            current,
            total,
            done,
        } => json!({
            "event": "progress", "item": item, "current": current, "total": total, "done": done,
        }),
        BuildEvent::Warning(warned) => {
            json!({"event": "warning", "line": warned.line, "warning": finding::value(warned)})
        }
        BuildEvent::Notice { message } => json!({"event": "notice", "message": message}),
    }
}
