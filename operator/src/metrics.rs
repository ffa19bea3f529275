//! The operator's metrics: their server, and its questions to the control loop. IO: one listening socket.

use std::{convert::Infallible, time::Duration};

use kube::Client;
use prometheus_client::registry::Registry;
use sockeye_metrics::{
    OperatorMetrics, Scrape,
    operator::OperatorState,
    serve::{self, Asked, Settings, Source},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};

use crate::controller::Questions;

/// The loop answers at once; before the watches are listed, it does not run.
const ANSWER: Duration = Duration::from_secs(2);

/// Serves the metrics as a task, if they are to be served. Returns where the control loop receives its questions.
pub fn start<E>(
    client: Client,
    settings: &Settings,
    (counters, metrics): (Registry, &OperatorMetrics),
    tasks: &mut JoinSet<Result<Infallible, E>>,
) -> Result<Questions, serve::Error>
where
    E: From<serve::Error> + Send + 'static,
{
    let (ask, questions) = mpsc::channel(1);
    if settings.port != 0 {
        let (protection, port) = (settings.protection(client)?, settings.port);
        let metrics = metrics.clone();
        let ask = move || {
            let scraped = scrape(ask.clone(), metrics.clone());
            Box::pin(scraped) as Asked
        };
        let source = Source { counters, ask: Box::new(ask) };
        tasks.spawn(async move { Ok(serve::serve(port, protection, source).await?) });
    }
    Ok(questions)
}

/// Asks the loop. One that does not run yet has nothing to do, and does not lead.
async fn scrape(ask: mpsc::Sender<oneshot::Sender<OperatorState>>, metrics: OperatorMetrics) -> Scrape {
    let (answer, answered) = oneshot::channel();
    let asked = async {
        ask.send(answer).await.ok()?;
        answered.await.ok()
    };
    let state = timeout(ANSWER, asked).await.ok().flatten().unwrap_or_default();
    metrics.scrape(&state)
}

#[cfg(test)]
mod tests {
    use sockeye_metrics::exposition::Format;

    use super::*;

    fn text(scrape: &Scrape) -> String {
        Format::Prometheus.write(&Registry::default(), scrape).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_scrape_asks_the_loop_and_does_without_one_that_does_not_run() {
        let (ask, mut questions) = mpsc::channel::<oneshot::Sender<OperatorState>>(1);
        let metrics = OperatorMetrics::default();
        let unanswered = text(&scrape(ask.clone(), metrics.clone()).await);
        assert!(unanswered.contains("sockeye_operator_leader 0"), "{unanswered}");
        // The question that nobody answered in time.
        drop(questions.recv().await);
        let answers = async {
            let state = OperatorState { queued: 4, leads: true, ..OperatorState::default() };
            let answer = questions.recv().await.unwrap();
            answer.send(state).unwrap();
        };
        let (answered, ()) = tokio::join!(scrape(ask, metrics), answers);
        let answered = text(&answered);
        assert!(answered.contains("sockeye_operator_queue_depth 4"), "{answered}");
        assert!(answered.contains("sockeye_operator_leader 1"), "{answered}");
    }
}
