//! The same question to several agents: so many at once, each within its time. One that does not answer hides no other.

use futures::{StreamExt as _, stream};
use serde::de::DeserializeOwned;
use sockeye_read_api::Route;

use super::{Agent, AgentError};

/// So many agents are asked at once. Each is a connection through the API server.
const AT_ONCE: usize = 16;

/// An agent's answer.
#[derive(Clone, Debug)]
pub struct Answer<T> {
    /// The node.
    pub node: String,
    /// The answer, or why there is none.
    pub answer: Result<T, AgentError>,
}

/// Asks all agents, and returns their answers by node.
pub async fn ask<T: DeserializeOwned>(agents: &[Agent], route: &Route) -> Vec<Answer<T>> {
    each(agents, |agent| async move { agent.get(route).await }).await
}

/// Does something with all agents, and returns what came of it by node.
pub async fn each<T, F>(agents: &[Agent], work: impl Fn(Agent) -> F) -> Vec<Answer<T>>
where
    F: Future<Output = Result<T, AgentError>>,
{
    let ask = |agent: Agent| {
        let node = agent.node.clone();
        let work = work(agent);
        async move { Answer { answer: work.await, node } }
    };
    let questions: Vec<_> = agents.iter().cloned().map(ask).collect();
    let mut answers: Vec<Answer<T>> = stream::iter(questions).buffer_unordered(AT_ONCE).collect().await;
    answers.sort_by(|a, b| a.node.cmp(&b.node));
    answers
}

/// Returns the answers that there are, and a line for each that there is not.
pub fn split<T>(answers: Vec<Answer<T>>) -> (Vec<(String, T)>, Vec<String>) {
    let (mut given, mut notes) = (Vec::new(), Vec::new());
    for Answer { node, answer } in answers {
        match answer {
            Ok(answer) => given.push((node, answer)),
            Err(error) => notes.push(format!("node {node}: {error}")),
        }
    }
    (given, notes)
}
