//! In what order, and how many at once.
//!
//! The scheduler knows vertices by number and nothing of what they do: it gives each one to a worker as soon as all its
//! inputs are done, at most `parallelism` at a time, lowest number first. The first failure stops the hand-out; work that
//! is under way ends by itself (the caller raises its `Cancel` inside `work`). It is tested with counters, no container.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What the workers share.
struct State<T, E> {
    ready: BTreeSet<usize>,
    waiting: Vec<usize>,
    results: Vec<Option<T>>,
    running: usize,
    left: usize,
    failure: Option<(usize, E)>,
}

/// Computes `needed` vertices, inputs before users.
///
/// `inputs` gives the inputs of each vertex by number; every input of a needed vertex must be needed too. `work` gets a
/// vertex and the results of its inputs in order. The answer holds a result for each needed vertex, or the first failure.
pub(crate) fn run<T, E, W>(
    inputs: &[Vec<usize>],
    needed: &[usize],
    parallelism: NonZeroUsize,
    work: W,
) -> Result<Vec<Option<T>>, (usize, E)>
where
    T: Clone + Send,
    E: Send,
    W: Fn(usize, Vec<T>) -> Result<T, E> + Sync,
{
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); inputs.len()];
    let mut waiting = vec![0; inputs.len()];
    for &vertex in needed {
        for &input in &inputs[vertex] {
            users[input].push(vertex);
            waiting[vertex] += 1;
        }
    }
    let ready = needed
        .iter()
        .copied()
        .filter(|vertex| waiting[*vertex] == 0)
        .collect();
    let state = Mutex::new(State {
        ready,
        waiting,
        results: (0..inputs.len()).map(|_| None).collect(),
        running: 0,
        left: needed.len(),
        failure: None,
    });
    let changed = Condvar::new();
    let workers = parallelism.get().min(needed.len().max(1));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| worker(inputs, &users, &state, &changed, &work));
        }
    });
    let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    match state.failure {
        Some(failure) => Err(failure),
        None => Ok(state.results),
    }
}

fn lock<S>(mutex: &Mutex<S>) -> MutexGuard<'_, S> {
    // A worker that panics takes the scope down with it; the others only need to see a consistent list until then.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn worker<T, E, W>(
    inputs: &[Vec<usize>],
    users: &[Vec<usize>],
    state: &Mutex<State<T, E>>,
    changed: &Condvar,
    work: &W,
) where
    T: Clone + Send,
    E: Send,
    W: Fn(usize, Vec<T>) -> Result<T, E> + Sync,
{
    let mut guard = lock(state);
    loop {
        if guard.failure.is_some() || guard.left == 0 {
            changed.notify_all();
            return;
        }
        let Some(vertex) = guard.ready.pop_first() else {
            if guard.running == 0 {
                // Nothing runs and nothing is ready: only a panicked worker leaves this behind.
                changed.notify_all();
                return;
            }
            guard = changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        let given = inputs[vertex]
            .iter()
            .map(|input| {
                guard.results[*input]
                    .clone()
                    .expect("a ready vertex has all inputs")
            })
            .collect();
        guard.running += 1;
        drop(guard);
        let result = work(vertex, given);
        guard = lock(state);
        guard.running -= 1;
        match result {
            Ok(value) => {
                guard.results[vertex] = Some(value);
                guard.left -= 1;
                for &user in &users[vertex] {
                    guard.waiting[user] -= 1;
                    if guard.waiting[user] == 0 {
                        guard.ready.insert(user);
                    }
                }
            }
            Err(error) => {
                if guard.failure.is_none() {
                    guard.failure = Some((vertex, error));
                }
            }
        }
        changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::run;
    use std::num::NonZeroUsize;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn many(count: usize) -> NonZeroUsize {
        NonZeroUsize::new(count).unwrap()
    }

    #[test]
    fn a_diamond_is_computed_once_each() {
        let inputs = vec![vec![], vec![0], vec![0], vec![1, 2], vec![0]];
        let calls = AtomicUsize::new(0);
        let results = run::<usize, (), _>(&inputs, &[0, 1, 2, 3], many(4), |vertex, given| {
            calls.fetch_add(1, Ordering::SeqCst);
            Ok(vertex + given.iter().sum::<usize>())
        })
        .unwrap();
        assert_eq!(results, [Some(0), Some(1), Some(2), Some(6), None]);
        assert_eq!(calls.into_inner(), 4);
    }

    #[test]
    fn independent_vertices_run_at_once() {
        // Each of the two waits for the other: only a parallel run ends.
        let meeting = Barrier::new(2);
        let results = run::<(), (), _>(&[vec![], vec![]], &[0, 1], many(2), |_, _| {
            meeting.wait();
            Ok(())
        });
        assert!(results.is_ok());
    }

    #[test]
    fn a_failure_stops_what_follows() {
        let inputs = vec![vec![], vec![0], vec![1]];
        let last = AtomicUsize::new(0);
        let error = run::<(), &str, _>(&inputs, &[0, 1, 2], many(2), |vertex, _| {
            last.fetch_max(vertex, Ordering::SeqCst);
            if vertex == 1 { Err("no") } else { Ok(()) }
        })
        .unwrap_err();
        assert_eq!(error, (1, "no"));
        assert_eq!(last.into_inner(), 1);
    }

    #[test]
    fn a_long_chain_with_one_worker() {
        let inputs: Vec<Vec<usize>> = (0..10_000)
            .map(|vertex: usize| vertex.checked_sub(1).into_iter().collect())
            .collect();
        let needed: Vec<usize> = (0..10_000).collect();
        let results = run::<usize, (), _>(&inputs, &needed, many(1), |_, given| {
            Ok(given.iter().sum::<usize>() + 1)
        });
        assert_eq!(results.unwrap()[9_999], Some(10_000));
    }
}
