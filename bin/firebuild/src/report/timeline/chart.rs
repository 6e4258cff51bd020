//! What the picture shows: a bar for each task, in lanes by stage, and the path that the time depended on.

use std::collections::{BTreeMap, BTreeSet};

use crate::report::progress::{Kind, Model, State};

/// Everything in milliseconds since the beginning.
#[derive(Debug)]
pub(super) struct Chart {
    pub(super) bars: Vec<Bar>,
    pub(super) groups: Vec<Group>,
    /// When the last task ended.
    pub(super) total: f64,
    /// Time of the tasks on the critical path.
    pub(super) critical: f64,
}

/// A task.
#[derive(Debug)]
pub(super) struct Bar {
    pub(super) number: usize,
    pub(super) name: String,
    pub(super) group: usize,
    pub(super) lane: usize,
    pub(super) sort: Sort,
    pub(super) state: &'static str,
    pub(super) start: f64,
    pub(super) end: f64,
    pub(super) bytes: Option<u64>,
    pub(super) inputs: Vec<usize>,
    pub(super) is_critical: bool,
    pub(super) failure: Option<String>,
}

/// Lanes with a name: a stage, or what is outside of stages.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) lanes: usize,
}

/// What a task does, as far as its colour goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sort {
    Run,
    Copy,
    Source,
    Export,
    Other,
}

impl Sort {
    pub(super) const ALL: [Self; 5] = [
        Self::Run,
        Self::Copy,
        Self::Source,
        Self::Export,
        Self::Other,
    ];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Copy => "copy",
            Self::Source => "source",
            Self::Export => "export",
            Self::Other => "other",
        }
    }

    /// Names of steps begin with `[stage 2/5] ` and, of triggers, `ONBUILD `.
    fn of(name: &str, kind: Kind) -> Self {
        if kind == Kind::Item {
            return if name.starts_with("export") || name.starts_with("push") {
                Self::Export
            } else {
                Self::Source
            };
        }
        let bare = match name.strip_prefix('[') {
            Some(rest) => rest.split_once("] ").map_or(name, |(_, bare)| bare),
            None => name,
        };
        let bare = bare.strip_prefix("ONBUILD ").unwrap_or(bare);
        match bare.split_whitespace().next().unwrap_or_default() {
            "RUN" => Self::Run,
            "COPY" | "ADD" | "LINK" => Self::Copy,
            "FROM" | "load" => Self::Source,
            _ => Self::Other,
        }
    }
}

impl Bar {
    pub(super) fn duration(&self) -> f64 {
        self.end - self.start
    }
}

impl Chart {
    pub(super) fn new(model: &Model) -> Self {
        let now = model.elapsed();
        let millis = |time: std::time::Duration| time.as_secs_f64() * 1e3;
        let mut names: Vec<String> = Vec::new();
        let mut bars = Vec::new();
        for task in model.tasks() {
            let Some(start) = task.started else { continue };
            let sort = Sort::of(&task.name, task.kind);
            let group = match (task.kind, task.stage.as_str(), sort) {
                (Kind::Item, _, Sort::Export) => "exports",
                (Kind::Item, ..) => "transfers",
                (Kind::Step, "", Sort::Source) => "sources",
                (Kind::Step, "", _) => label(&task.name).unwrap_or("build"),
                (Kind::Step, stage, _) => stage,
            };
            let at = names.iter().position(|name| name == group);
            let group = at.unwrap_or_else(|| {
                names.push(group.to_owned());
                names.len() - 1
            });
            let (state, failure) = match &task.state {
                State::Cached => ("cached", None),
                State::Failed(message) => ("failed", Some(message.clone())),
                State::Running | State::Waiting => ("stopped", None),
                State::Done => ("done", None),
            };
            bars.push(Bar {
                number: task.number,
                name: task.name.clone(),
                group,
                lane: 0,
                sort,
                state,
                start: millis(start),
                end: millis(task.ended.unwrap_or(now)),
                bytes: task.bytes.map(|(done, _)| done).filter(|done| *done > 0),
                inputs: task.inputs.clone(),
                is_critical: false,
                failure,
            });
        }
        let lanes = lanes(&mut bars, names.len());
        let critical = critical(&mut bars);
        let groups = names.into_iter().zip(lanes);
        Self {
            total: bars.iter().map(|bar| bar.end).fold(0.0, f64::max),
            groups: groups.map(|(name, lanes)| Group { name, lanes }).collect(),
            bars,
            critical,
        }
    }

    /// Time of all tasks together.
    pub(super) fn work(&self) -> f64 {
        self.bars.iter().map(Bar::duration).sum()
    }
}

/// What a stage without a name is called in the names of its steps: `[stage-1 2/5] RUN …`.
fn label(name: &str) -> Option<&str> {
    let (inside, _) = name.strip_prefix('[')?.split_once(']')?;
    inside
        .split_once(' ')
        .map(|(label, _)| label)
        .filter(|label| label.starts_with("stage-"))
}

/// Gives each bar the first lane of its group that is free; gives the number of lanes of each group.
fn lanes(bars: &mut [Bar], groups: usize) -> Vec<usize> {
    let mut free: Vec<Vec<f64>> = vec![Vec::new(); groups];
    let mut order: Vec<usize> = (0..bars.len()).collect();
    order.sort_by(|a, b| bars[*a].start.total_cmp(&bars[*b].start));
    for at in order {
        let lanes = &mut free[bars[at].group];
        let lane = lanes.iter().position(|end| *end <= bars[at].start);
        let lane = lane.unwrap_or_else(|| {
            lanes.push(0.0);
            lanes.len() - 1
        });
        lanes[lane] = bars[at].end;
        bars[at].lane = lane;
    }
    free.iter().map(Vec::len).collect()
}

/// Marks the path: from the task that ended last, back to the input that ended last, and so on. Tasks outside of the
/// graph follow what ended last before them.
fn critical(bars: &mut [Bar]) -> f64 {
    let by_number: BTreeMap<usize, usize> = bars
        .iter()
        .enumerate()
        .map(|(at, bar)| (bar.number, at))
        .collect();
    let later = |a: &usize, b: &usize| bars[*a].end.total_cmp(&bars[*b].end);
    let mut path = BTreeSet::new();
    let mut next = (0..bars.len()).max_by(later);
    while let Some(at) = next {
        if !path.insert(at) {
            break;
        }
        let inputs = bars[at].inputs.iter();
        let input = inputs
            .filter_map(|number| by_number.get(number).copied())
            .max_by(later);
        next = input.or_else(|| {
            (0..bars.len())
                .filter(|other| bars[*other].end <= bars[at].start && !path.contains(other))
                .max_by(later)
        });
    }
    for at in &path {
        bars[*at].is_critical = true;
    }
    path.iter().map(|at| bars[*at].duration()).sum()
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use firebuild_engine::build::{BuildEvent, VertexId};

    use super::{Chart, Sort};
    use crate::report::progress::{Kind, Model};

    /// Two branches and a step that needs both; the second branch takes longer.
    pub(crate) fn build() -> Model {
        let mut model = Model::new();
        let steps = [
            ("[a 1/2] RUN short", "a", vec![]),
            ("[b 1/2] RUN long", "b", vec![]),
            ("[b 2/2] COPY <script>alert(1)</script> /", "b", vec![0, 1]),
        ];
        for (id, (name, stage, inputs)) in (0..).zip(&steps) {
            model.apply(BuildEvent::Planned {
                id: VertexId(id),
                name: (*name).to_owned(),
                stage: (*stage).to_owned(),
                inputs: inputs.iter().copied().map(VertexId).collect(),
            });
        }
        let start = |model: &mut Model, id| model.apply(BuildEvent::Started { id: VertexId(id) });
        let end = |model: &mut Model, id| {
            std::thread::sleep(Duration::from_millis(2));
            model.apply(BuildEvent::Finished {
                id: VertexId(id),
                cached: id == 0,
                elapsed: Duration::ZERO,
            })
        };
        start(&mut model, 0);
        start(&mut model, 1);
        end(&mut model, 0);
        end(&mut model, 1);
        start(&mut model, 2);
        end(&mut model, 2);
        model
    }

    #[test]
    fn lanes_and_the_critical_path() {
        let chart = Chart::new(&build());
        let critical: Vec<usize> = chart
            .bars
            .iter()
            .filter(|bar| bar.is_critical)
            .map(|bar| bar.number)
            .collect();
        assert_eq!(critical, [2, 3]);
        assert_eq!(chart.groups.len(), 2);
        assert_eq!(chart.groups[1].lanes, 1);
        assert!(chart.critical <= chart.total + 1e-6 && chart.work() > chart.critical);
        assert_eq!(Sort::of("[x 1/2] ONBUILD RUN a", Kind::Step), Sort::Run);
        assert_eq!(Sort::of("exporting ext4", Kind::Item), Sort::Export);
    }
}
