//! The task that pulls: no registry delays another one, and every end triggers.

use std::{collections::BTreeSet, future::pending, time::Duration};

use sockeye_crds::{Reason, Refusal};
use sockeye_operator::{
    images::{
        Images,
        key::{ImageKey, Want},
        pulled::Outcome,
        pulls::Job,
        run::PULL_TIMEOUT,
    },
    watch::trigger::{Pace, Trigger},
};
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::{Instant, timeout},
};

fn want(reference: &str) -> Want {
    let key = ImageKey { reference: reference.to_owned(), secret: None, pinned: None };
    Want { key, generation: 1, known: BTreeSet::new(), follows: false, unsigned: None }
}

/// Hangs, panics or ends, as the registry's name says.
async fn pull(Job { key, .. }: Job) -> Outcome {
    match key.registry() {
        "hangs.example" => pending().await,
        "panics.example" => panic!("the client gave up"),
        _ => {
            let refusal = Refusal { reason: Reason::ImagePullFailed, message: "not there".to_owned() };
            Outcome::Failed { refusal, retry_after: None }
        }
    }
}

async fn next(triggered: &mut UnboundedReceiver<Trigger>) -> BTreeSet<String> {
    match timeout(2 * PULL_TIMEOUT, triggered.recv()).await {
        Ok(Some(Trigger::Programs(names, Pace::Immediate))) => names,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_hangs_delays_no_other_and_is_reported_in_the_end() {
    let (triggers, mut triggered) = unbounded_channel();
    let images = Images::new(Duration::from_secs(600));
    tokio::spawn(images.clone().run(triggers.downgrade(), pull));
    let start = Instant::now();
    for n in 0..4 {
        images.want(&format!("stuck-{n}"), want(&format!("hangs.example/a:{n}")));
    }
    images.want("good", want("good.example/a:v1"));
    assert_eq!(next(&mut triggered).await, ["good".to_owned()].into());
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(next(&mut triggered).await.iter().all(|name| name.starts_with("stuck")));
    let message = images.failure("stuck-0").or_else(|| images.failure("stuck-1")).unwrap();
    assert!(message.contains("registry hangs.example did not give the image within"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_pull_that_panics_is_a_failure_of_its_image_alone() {
    let (triggers, mut triggered) = unbounded_channel();
    let images = Images::new(Duration::from_secs(600));
    tokio::spawn(images.clone().run(triggers.downgrade(), pull));
    images.want("bad", want("panics.example/a:v1"));
    assert_eq!(next(&mut triggered).await, ["bad".to_owned()].into());
    assert!(images.failure("bad").unwrap().contains("please report it"));
    images.want("good", want("good.example/a:v1"));
    assert_eq!(next(&mut triggered).await, ["good".to_owned()].into());
}
