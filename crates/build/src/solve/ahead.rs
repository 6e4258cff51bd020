//! Looking ahead: what steps will need is made while what comes before them is computed.

use std::collections::HashSet;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::graph::{Graph, NetworkMode, Op, VertexId};

/// Knows which results lead to steps with the default network, and the steps. Where one of these has to be computed, such a
/// step will hardly be found in the cache.
pub(super) struct Ahead {
    towards: HashSet<VertexId>,
    tell: SyncSender<()>,
}

impl Ahead {
    /// Looks at a graph. The other end hears, once, that such a step is to be expected; it ends with the solver.
    pub(super) fn of(graph: &Graph) -> (Self, Receiver<()>) {
        let (tell, expected) = sync_channel(1);
        let mut towards = HashSet::new();
        let mut todo: Vec<VertexId> = Vec::new();
        for id in graph.needed() {
            let vertex = graph.vertex(id);
            if let Op::Exec(exec) = &vertex.op
                && exec.network == NetworkMode::Default
            {
                todo.push(id);
            }
        }
        while let Some(id) = todo.pop() {
            if towards.insert(id) {
                todo.extend(&graph.vertex(id).inputs);
            }
        }
        (Self { towards, tell }, expected)
    }

    /// A vertex was not found and is computed now.
    pub(super) fn computed(&self, id: VertexId) {
        if self.towards.contains(&id) {
            // Once it has been told, or where nobody listens any more, there is nothing to tell.
            let _ = self.tell.try_send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::TryRecvError;

    use super::Ahead;
    use crate::graph::{ExecOp, Graph, MkdirOp, NetworkMode, Op, Vertex, VertexId};

    /// Two steps on each other with a directory between them, and a directory on top that leads nowhere.
    fn graph(network: NetworkMode) -> Graph {
        let step = || {
            Op::Exec(ExecOp {
                network,
                ..ExecOp::default()
            })
        };
        let directory = || {
            Op::Mkdir(MkdirOp {
                path: "/w".to_owned(),
                user: String::new(),
            })
        };
        let ops = [Op::Scratch, step(), directory(), step(), directory()];
        let vertices = (0..)
            .zip(ops)
            .map(|(index, op)| Vertex {
                op,
                inputs: (0..index).rev().take(1).map(VertexId).collect(),
                name: String::new(),
                stage: String::new(),
                span: None,
            })
            .collect();
        Graph {
            vertices,
            target: VertexId(4),
        }
    }

    #[test]
    fn what_leads_to_a_step_with_a_network_tells_once() {
        let graph = graph(NetworkMode::Default);
        for (computed, told) in [(1, true), (2, true), (3, true), (4, false)] {
            let (ahead, expected) = Ahead::of(&graph);
            ahead.computed(VertexId(computed));
            assert_eq!(expected.try_recv().is_ok(), told, "{computed}");
            // Nobody listens to a second one, and nobody waits for longer than the solver lives.
            drop(expected);
            ahead.computed(VertexId(computed));
        }
        let (ahead, expected) = Ahead::of(&graph);
        drop(ahead);
        assert!(expected.recv().is_err());
    }

    #[test]
    fn a_step_without_a_network_expects_none() {
        for network in [NetworkMode::None, NetworkMode::Host] {
            let (ahead, expected) = Ahead::of(&graph(network));
            (0..5).for_each(|index| ahead.computed(VertexId(index)));
            assert_eq!(expected.try_recv(), Err(TryRecvError::Empty));
        }
    }
}
