use proptest::prelude::*;
use sockeye_crds::Reason;

use super::*;
use crate::images::{key::Unsigned, pulled::PulledObject};

const INTERVAL: Duration = Duration::from_secs(600);

fn pulls() -> (Pulls, Instant) {
    (Pulls::new(INTERVAL, |time| time), Instant::now())
}

fn key(reference: &str) -> ImageKey {
    ImageKey { reference: reference.to_owned(), secret: None, pinned: None }
}

fn want(reference: &str, known: &[&str], follows: bool) -> Want {
    let known = known.iter().map(|digest| (*digest).to_owned()).collect();
    Want { key: key(reference), generation: 1, known, follows, unsigned: None }
}

fn image(digest: &str, bytes: usize) -> Arc<PulledImage> {
    let object = PulledObject {
        architecture: String::new(),
        digest: "sha256:object".to_owned(),
        bytes: vec![0; bytes].into(),
        manifest: Arc::default(),
        layer: None,
    };
    Arc::new(PulledImage {
        repository: "r.example/a".to_owned(),
        digest: digest.to_owned(),
        index: None,
        objects: vec![object],
        signatures: Vec::new(),
    })
}

fn failure(message: &str) -> Outcome {
    let refusal = Refusal { reason: Reason::ImagePullFailed, message: message.to_owned() };
    Outcome::Failed { refusal, retry_after: None }
}

/// Returns the references of the pulls that begin.
fn begun(effects: &[Effect]) -> Vec<String> {
    let reference = |effect: &Effect| match effect {
        Effect::Pull(job) => Some(job.key.reference.clone()),
        Effect::Changed(_) => None,
    };
    effects.iter().filter_map(reference).collect()
}

fn changed(effects: &[Effect]) -> Vec<String> {
    let programs = |effect: &Effect| match effect {
        Effect::Changed(programs) => programs.iter().cloned().collect(),
        Effect::Pull(_) => Vec::new(),
    };
    effects.iter().flat_map(programs).collect()
}

fn finish(pulls: &mut Pulls, reference: &str, outcome: Outcome, now: Instant) -> Vec<Effect> {
    pulls.step(Event::Finished(key(reference), outcome), now)
}

#[test]
fn an_image_is_pulled_once_for_all_that_want_it_and_held_until_they_have_it() {
    let (mut pulls, now) = pulls();
    for program in ["a", "b"] {
        pulls.want(program, want("r.example/x:v1", &[], false), now);
    }
    assert_eq!(begun(&pulls.step(Event::Tick, now)), ["r.example/x:v1"]);
    assert_eq!(pulls.answer("a"), Answer::default(), "nobody waits for it");
    let pulled = Outcome::Pulled(image("sha256:1", 7));
    assert_eq!(changed(&finish(&mut pulls, "r.example/x:v1", pulled, now)), ["a", "b"]);
    pulls.want("a", want("r.example/x:v1", &["sha256:1"], false), now);
    assert!(matches!(pulls.answer("b").latest, Some(Latest::Pulled(_))), "b has not taken it");
    pulls.want("b", want("r.example/x:v1", &["sha256:1"], false), now);
    for program in ["a", "b"] {
        assert_eq!(pulls.answer(program).latest, Some(Latest::Known("sha256:1".to_owned())));
    }
    assert!(begun(&pulls.step(Event::Tick, now + 9 * INTERVAL)).is_empty(), "a tag is resolved once");
}

#[test]
fn a_followed_tag_is_resolved_at_intervals_and_only_other_content_is_news() {
    let (mut pulls, now) = pulls();
    pulls.want("a", want("r.example/x:v1", &["sha256:1"], true), now);
    assert!(begun(&pulls.step(Event::Tick, now)).is_empty(), "its content is known: it waits for its turn");
    let first = now + INTERVAL;
    let effects = pulls.step(Event::Tick, first);
    let Effect::Pull(job) = &effects[0] else { panic!("{effects:?}") };
    assert!(job.known.contains("sha256:1"), "what is known need not be pulled");
    let known = Outcome::Known("sha256:1".to_owned());
    finish(&mut pulls, "r.example/x:v1", known.clone(), first);
    let second = pulls.wake(first).unwrap();
    assert!(second - first >= INTERVAL * 9 / 10 && second - first <= INTERVAL * 11 / 10);
    pulls.step(Event::Tick, second);
    assert!(changed(&finish(&mut pulls, "r.example/x:v1", known, second)).is_empty());
    let third = pulls.wake(second).unwrap();
    pulls.step(Event::Tick, third);
    let moved = Outcome::Pulled(image("sha256:2", 7));
    assert_eq!(changed(&finish(&mut pulls, "r.example/x:v1", moved, third)), ["a"]);
}

fn bundle(bytes: &[u8]) -> sockeye_image::SignatureManifest {
    let kind = sockeye_image::SignatureKind::Bundle(bytes.to_vec());
    sockeye_image::SignatureManifest { subject: sockeye_image::Digest::of(b"subject"), kind }
}

#[test]
fn what_nobody_signed_is_pulled_again_by_its_digest_and_other_signatures_are_news() {
    let (mut pulls, now) = pulls();
    pulls.want("a", want("r.example/x:v1", &[], false), now);
    pulls.step(Event::Tick, now);
    let unsigned = image("sha256:1", 7);
    finish(&mut pulls, "r.example/x:v1", Outcome::Pulled(Arc::clone(&unsigned)), now);
    let judged = |image: &PulledImage| {
        Some(Unsigned { digest: image.digest.clone(), signatures: Some(image.signatures_digest()) })
    };
    let refused =
        |image: &PulledImage| Want { unsigned: judged(image), ..want("r.example/x:v1", &["sha256:1"], false) };
    pulls.want("a", refused(&unsigned), now);
    assert_eq!(pulls.answer("a").latest, Some(Latest::Known("sha256:1".to_owned())), "nothing is held");
    assert!(begun(&pulls.step(Event::Tick, now)).is_empty(), "it waits for the interval");
    let first = now + INTERVAL;
    let job = Job { key: key("r.example/x:v1"), known: BTreeSet::new(), digest: Some("sha256:1".to_owned()) };
    assert_eq!(pulls.step(Event::Tick, first), [Effect::Pull(job)]);
    let same = finish(&mut pulls, "r.example/x:v1", Outcome::Pulled(Arc::clone(&unsigned)), first);
    assert!(changed(&same).is_empty(), "the same signatures are no news");
    let second = pulls.wake(first).unwrap();
    assert_eq!(begun(&pulls.step(Event::Tick, second)).len(), 1);
    let signed = Arc::new(PulledImage { signatures: vec![bundle(b"signed")], ..unsigned.as_ref().clone() });
    let effects = finish(&mut pulls, "r.example/x:v1", Outcome::Pulled(Arc::clone(&signed)), second);
    assert_eq!(changed(&effects), ["a"]);
    assert_eq!(pulls.answer("a").latest, Some(Latest::Pulled(Arc::clone(&signed))));
    pulls.want("a", refused(&signed), second);
    assert_eq!(pulls.answer("a").latest, Some(Latest::Known("sha256:1".to_owned())), "they were judged");
    pulls.want("a", want("r.example/x:v1", &["sha256:1"], false), second);
    let third = pulls.wake(second).unwrap();
    pulls.step(Event::Tick, third);
    finish(&mut pulls, "r.example/x:v1", Outcome::Known("sha256:1".to_owned()), third);
    assert_eq!(pulls.wake(third), None, "what is accepted is left alone");
}

#[test]
fn a_tag_that_is_followed_is_resolved_also_while_nobody_has_signed_it() {
    let (mut pulls, now) = pulls();
    let unsigned = Some(Unsigned { digest: "sha256:1".to_owned(), signatures: None });
    pulls.want("a", Want { unsigned, ..want("r.example/x:v1", &["sha256:1"], true) }, now);
    let job = Job { key: key("r.example/x:v1"), known: BTreeSet::new(), digest: None };
    assert_eq!(pulls.step(Event::Tick, now + INTERVAL), [Effect::Pull(job)]);
}

#[test]
fn a_failure_is_retried_with_a_growing_delay_and_an_edit_ends_it() {
    let (mut pulls, mut now) = pulls();
    pulls.want("a", want("r.example/x:v1", &[], false), now);
    pulls.step(Event::Tick, now);
    let mut delays = Vec::new();
    for _ in 0..9 {
        finish(&mut pulls, "r.example/x:v1", failure("away"), now);
        let next = pulls.wake(now).unwrap();
        delays.push((next - now).as_secs());
        now = next;
        assert_eq!(begun(&pulls.step(Event::Tick, now)).len(), 1);
    }
    assert_eq!(delays, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
    assert_eq!(pulls.answer("a").failure.unwrap().message, "away");
    finish(&mut pulls, "r.example/x:v1", failure("away"), now);
    pulls.want("a", want("r.example/x:v1", &[], false), now);
    assert!(begun(&pulls.step(Event::Tick, now)).is_empty(), "another reconciliation is no edit");
    pulls.want("a", Want { generation: 2, ..want("r.example/x:v1", &[], false) }, now);
    assert_eq!(begun(&pulls.step(Event::Tick, now)).len(), 1);
}

#[test]
fn a_failure_is_news_once_and_leaves_what_was_known() {
    let (mut pulls, now) = pulls();
    pulls.want("a", want("r.example/x:v1", &["sha256:1"], true), now);
    pulls.step(Event::Tick, now + INTERVAL);
    finish(&mut pulls, "r.example/x:v1", Outcome::Known("sha256:1".to_owned()), now + INTERVAL);
    let later = now + 3 * INTERVAL;
    pulls.step(Event::Tick, later);
    assert_eq!(changed(&finish(&mut pulls, "r.example/x:v1", failure("away"), later)), ["a"]);
    assert_eq!(pulls.answer("a").latest, Some(Latest::Known("sha256:1".to_owned())));
    pulls.step(Event::Tick, later + INTERVAL);
    assert!(changed(&finish(&mut pulls, "r.example/x:v1", failure("away"), later + INTERVAL)).is_empty());
    pulls.step(Event::Tick, later + 2 * INTERVAL);
    let back = Outcome::Known("sha256:1".to_owned());
    assert_eq!(changed(&finish(&mut pulls, "r.example/x:v1", back, later + 2 * INTERVAL)), ["a"]);
    assert_eq!(pulls.answer("a").failure, None);
}

#[test]
fn a_registry_that_asks_for_patience_gets_it_within_bounds() {
    for (asked, given) in [(1, 5), (90, 90), (1_000_000, 3600)] {
        let (mut pulls, now) = pulls();
        pulls.want("a", want("r.example/x:v1", &[], false), now);
        pulls.step(Event::Tick, now);
        let Outcome::Failed { refusal, .. } = failure("busy") else { unreachable!() };
        let busy = Outcome::Failed { refusal, retry_after: Some(Duration::from_secs(asked)) };
        finish(&mut pulls, "r.example/x:v1", busy, now);
        assert_eq!((pulls.wake(now).unwrap() - now).as_secs(), given);
    }
}

#[test]
fn registries_that_hang_leave_room_for_others() {
    let (mut pulls, now) = pulls();
    for n in 0..20 {
        pulls.want(&format!("stuck-{n}"), want(&format!("stuck-{}.example/x:v{n}", n % 4), &[], false), now);
    }
    // All of them have failed once.
    let mut at = now;
    let mut running = begun(&pulls.step(Event::Tick, at));
    for _ in 0..20 {
        let next = running.remove(0);
        running.extend(begun(&finish(&mut pulls, &next, failure("hangs"), at)));
        if running.is_empty() {
            break;
        }
    }
    at += MAX_DELAY;
    assert_eq!(begun(&pulls.step(Event::Tick, at)).len(), MAX_RETRIES, "they hang again");
    pulls.want("other", want("good.example/x:v1", &[], false), at);
    assert_eq!(begun(&pulls.step(Event::Tick, at)), ["good.example/x:v1"]);
}

#[test]
fn content_that_nobody_takes_is_dropped_and_pulled_again_when_it_is_asked_for() {
    let (mut pulls, now) = pulls();
    pulls.want("a", want("r.example/x:v1", &[], false), now);
    pulls.step(Event::Tick, now);
    finish(&mut pulls, "r.example/x:v1", Outcome::Pulled(image("sha256:1", 7)), now);
    assert_eq!(pulls.wake(now), Some(now + HOLD));
    assert!(begun(&pulls.step(Event::Tick, now + HOLD)).is_empty());
    assert_eq!(pulls.answer("a").latest, None);
    pulls.want("a", want("r.example/x:v1", &[], false), now + HOLD);
    assert_eq!(begun(&pulls.step(Event::Tick, now + HOLD)).len(), 1);
}

#[test]
fn no_pull_begins_while_much_is_held() {
    let (mut pulls, now) = pulls();
    pulls.want("a", want("r.example/x:v1", &[], false), now);
    pulls.step(Event::Tick, now);
    finish(&mut pulls, "r.example/x:v1", Outcome::Pulled(image("sha256:1", MAX_HELD_BYTES)), now);
    pulls.want("b", want("r.example/y:v1", &[], false), now);
    assert!(begun(&pulls.step(Event::Tick, now)).is_empty());
    pulls.want("a", want("r.example/x:v1", &["sha256:1"], false), now);
    assert_eq!(begun(&pulls.step(Event::Tick, now)).len(), 1);
}

#[test]
fn what_is_released_is_forgotten_also_while_it_is_pulled() {
    let (mut pulls, now) = pulls();
    pulls.want("a", want("r.example/x:v1", &[], false), now);
    pulls.step(Event::Tick, now);
    pulls.release("a");
    let pulled = Outcome::Pulled(image("sha256:1", 7));
    assert!(finish(&mut pulls, "r.example/x:v1", pulled, now).is_empty());
    assert!(pulls.entries.is_empty() && pulls.keys.is_empty());
    pulls.want("a", want("r.example/x:v1", &[], false), now);
    pulls.want("a", want("r.example/y:v1", &[], false), now);
    assert_eq!(begun(&pulls.step(Event::Tick, now)), ["r.example/y:v1"], "a BpfProgram wants one image");
}

/// One thing that happens in a random run.
#[derive(Clone, Debug)]
enum Act {
    Want {
        program: u8,
        image: u8,
        follows: bool,
    },
    Release(u8),
    /// The tag means another image.
    Move(u8),
    /// A running pull ends, and succeeds if the registry is there.
    End {
        which: u8,
        is_there: bool,
    },
    Wait(u16),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0..6u8, 0..8u8, any::<bool>()).prop_map(|(program, image, follows)| Act::Want { program, image, follows }),
        (0..6u8).prop_map(Act::Release),
        (0..8u8).prop_map(Act::Move),
        (any::<u8>(), any::<bool>()).prop_map(|(which, is_there)| Act::End { which, is_there }),
        (0..900u16).prop_map(Act::Wait),
    ]
}

/// BpfPrograms, as reconciliations see them, and registries.
struct World {
    pulls: Pulls,
    now: Instant,
    running: Vec<Job>,
    /// The number of times that each image's tag was moved.
    moves: [u32; 8],
    /// The image that each BpfProgram wants, and the content that it has.
    wants: BTreeMap<u8, (u8, bool, BTreeSet<String>)>,
}

impl World {
    fn reference(image: u8) -> String {
        format!("r{}.example/x:{image}", image % 3)
    }

    fn digest(&self, image: u8) -> String {
        format!("sha256:{image}-{}", self.moves[usize::from(image)])
    }

    fn step(&mut self, event: Event) {
        let effects = self.pulls.step(event, self.now);
        for effect in effects {
            match effect {
                Effect::Pull(job) => self.running.push(job),
                Effect::Changed(programs) => programs.iter().for_each(|program| self.reconcile(program)),
            }
        }
        assert!(self.running.len() <= MAX_PULLS);
        let of = |registry: &str| self.running.iter().filter(|job| job.key.registry() == registry).count();
        assert!(self.running.iter().all(|job| of(job.key.registry()) <= MAX_PULLS_OF_REGISTRY));
    }

    /// Says what a BpfProgram wants, and takes what there is.
    fn reconcile(&mut self, program: &str) {
        let Some((image, follows, known)) = program.parse().ok().and_then(|program: u8| self.wants.get_mut(&program))
        else {
            return;
        };
        for _ in 0..2 {
            let key = key(&Self::reference(*image));
            let want = Want { key, generation: 1, known: known.clone(), follows: *follows, unsigned: None };
            self.pulls.want(program, want, self.now);
            if let Some(Latest::Pulled(pulled)) = self.pulls.answer(program).latest {
                known.insert(pulled.digest.clone());
            }
        }
    }

    fn end(&mut self, which: usize, is_there: bool) {
        if self.running.is_empty() {
            return;
        }
        let job = self.running.remove(which % self.running.len());
        let image_index: u8 = job.key.reference.rsplit(':').next().unwrap().parse().unwrap();
        let digest = self.digest(image_index);
        let outcome = match (is_there, job.known.contains(&digest)) {
            (false, _) => failure("away"),
            (true, true) => Outcome::Known(digest),
            (true, false) => Outcome::Pulled(image(&digest, 5)),
        };
        self.step(Event::Finished(job.key, outcome));
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Want { program, image, follows } => {
                let known = match self.wants.remove(&program) {
                    Some((before, _, known)) if before == image => known,
                    _ => BTreeSet::new(),
                };
                self.wants.insert(program, (image, follows, known));
                self.reconcile(&program.to_string());
            }
            Act::Release(program) => {
                self.wants.remove(&program);
                self.pulls.release(&program.to_string());
            }
            Act::Move(image) => self.moves[usize::from(image)] += 1,
            Act::End { which, is_there } => self.end(which.into(), is_there),
            Act::Wait(seconds) => self.now += Duration::from_secs(seconds.into()),
        }
        self.step(Event::Tick);
    }

    /// Lets every pull succeed until nothing is due for a while.
    fn settle(&mut self) {
        for _ in 0..200 {
            self.now += Duration::from_secs(60);
            self.step(Event::Tick);
            while !self.running.is_empty() {
                self.end(0, true);
            }
        }
    }
}

proptest! {
    /// Whatever happens, the bounds hold; and once registries are there, every BpfProgram has what its tag means, or
    /// once meant if it does not follow it, and nothing is held.
    #[test]
    fn everybody_gets_an_image_in_the_end(acts in proptest::collection::vec(act(), 1..60)) {
        let (pulls, now) = pulls();
        let mut world = World { pulls, now, running: vec![], moves: [0; 8], wants: BTreeMap::new() };
        acts.into_iter().for_each(|act| world.act(act));
        world.settle();
        for (program, (image, follows, known)) in &world.wants {
            prop_assert!(!known.is_empty(), "{} has nothing of image {}", program, image);
            prop_assert!(!follows || known.contains(&world.digest(*image)), "{} lags behind", program);
            prop_assert_eq!(world.pulls.answer(&program.to_string()).failure, None);
        }
        prop_assert!(world.pulls.entries.values().all(|entry| entry.held_bytes() == 0));
    }
}
