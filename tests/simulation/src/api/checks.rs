//! The promises that each write is checked against, as it is sent and as it comes. A broken one ends the world.

use std::time::Duration;

use http::Method;
use serde_json::Value;
use sockeye_crds::names;
use sockeye_operator::leader::lease::LEASE;
use tokio::time::Instant;

use super::{Api, answer::Request, kind::Kind, text};

/// No watch lags for so long. What has been so throughout this time is known to everyone who may write.
pub const SETTLED: Duration = Duration::from_secs(45);

/// No request is on its way to the API server for so long.
const LONGEST_WAY: Duration = Duration::from_secs(2);

/// The beginning of the names of operators.
pub const OPERATOR: &str = "operator";

impl Api {
    /// Records a broken promise.
    pub fn violate(&mut self, what: String) {
        self.violations.push(what);
        self.notify();
    }

    /// Checks a request as it is sent: an operator that does not lead writes nothing, and each of its writes to an
    /// object that exists names its UID and its version.
    pub fn check_sending(&mut self, request: &Request) {
        let Some(target) = request.target() else { return };
        let is_write = request.method != Method::GET
            && request.sender.starts_with(OPERATOR)
            && matches!(target.kind, Kind::Program | Kind::Revision | Kind::ConfigMap);
        if !is_write {
            return;
        }
        let holder = self.get(Kind::Lease, LEASE).map(|lease| text(&lease["spec"]["holderIdentity"]).to_owned());
        if holder.as_deref() != Some(request.sender.as_str()) {
            self.violate(format!("{} writes {}, and {holder:?} leads", request.sender, request.path));
        }
        let based_on = match request.method {
            Method::POST => return,
            Method::DELETE => &request.body["preconditions"],
            _ => &request.body["metadata"],
        };
        if text(&based_on["uid"]).is_empty() || text(&based_on["resourceVersion"]).is_empty() {
            self.violate(format!("{} {} names no UID or no version", request.method, request.path));
        }
    }

    /// Checks a creation as it comes: a revision's bytes are stored, its BpfProgram has the finalizer, and its content
    /// is another than that of the revision before.
    pub fn check_creation(&mut self, request: &Request, kind: Kind) {
        if kind != Kind::Revision {
            return;
        }
        let (body, name) = (&request.body, text(&request.body["metadata"]["name"]));
        if self.get(kind, name).is_some() {
            return;
        }
        let program = text(&body["spec"]["programRef"]["name"]);
        let Some(owner) = self.get(Kind::Program, program) else { return };
        if owner["metadata"]["uid"] != body["spec"]["programRef"]["uid"] {
            return;
        }
        let is_finalized = has_finalizer(owner);
        let digest = text(&body["spec"]["template"]["digest"]);
        // Somebody may have deleted them since.
        let stored = names::object_config_map(digest);
        let is_stored = self.log().iter().any(|change| change.kind == Kind::ConfigMap && change.name == stored);
        let is_same = self.newest(program).is_some_and(|newest| content(newest) == content(body));
        let broken = [
            (!is_finalized, "is created before its BpfProgram has the finalizer"),
            (!is_stored, "is created before its bytes are stored"),
            (is_same, "is the same as the one before"),
        ];
        for (_, what) in broken.into_iter().filter(|(is_broken, _)| *is_broken) {
            self.violate(format!("revision {name} {what}"));
        }
    }

    /// Checks a patch as it comes: the finalizer stays while a live node holds the BpfProgram, or may hold it.
    pub fn check_patch(&mut self, request: &Request, kind: Kind, name: &str) {
        let sets_finalizers = request.body["metadata"].get("finalizers").is_some();
        let Some(program) = self.get(kind, name).filter(|_| kind == Kind::Program && sets_finalizers) else { return };
        if !has_finalizer(program) || has_finalizer(&request.body) {
            return;
        }
        let uid = text(&program["metadata"]["uid"]).to_owned();
        let now = Instant::now();
        let settled = self.live_since.iter().filter(|(_, since)| now.duration_since(**since) >= SETTLED);
        let holders = settled.map(|(node, _)| node.clone()).filter(|node| self.may_hold(node, name, &uid));
        let holders: Vec<String> = holders.collect();
        if !holders.is_empty() {
            self.violate(format!("{name} goes while {} may hold it", holders.join(", ")));
        }
        // One that was on its way for longest while its sender died may come in between.
        let begin = now.checked_sub(LONGEST_WAY);
        let is_known = |name: &str| {
            let mut changes = self.log().iter().filter(|change| change.kind == Kind::Revision && change.name == name);
            changes.next().zip(begin).is_some_and(|(created, begin)| created.at < begin)
        };
        let newest = self.newest(name).filter(|revision| revision["spec"]["programRef"]["uid"] == *uid);
        let newest = newest.map(|revision| text(&revision["metadata"]["name"]).to_owned());
        if let Some(revision) = newest.filter(|revision| is_known(revision)) {
            self.violate(format!("{name} goes while agents may run its revision {revision}"));
        }
    }

    /// Checks that a node may remove what it has of a BpfProgram: its revision is there for all nodes for as long as it
    /// was not deleted, unless it selects some of them.
    pub fn check_removal(&mut self, node: &str, program: &str, uid: &str) {
        let is_there = self.get(Kind::Program, program).is_some_and(|object| object["metadata"]["uid"] == uid);
        if is_there && !self.removable.contains(uid) {
            self.violate(format!("{node} removes {program}, which nobody deleted"));
        }
    }

    /// Returns whether a node's report has named a BpfProgram, or has been missing, for so long that everyone knows.
    fn may_hold(&self, node: &str, program: &str, uid: &str) -> bool {
        let names_it = |report: Option<&Value>| match report.map(|report| &report["status"]) {
            None | Some(Value::Null) => true,
            Some(status) => text(&status["programs"][program]).contains(&format!("\"uid\":\"{uid}\"")),
        };
        let begin = Instant::now().checked_sub(SETTLED);
        let mut states = vec![None];
        for change in self.log().iter().filter(|change| change.kind == Kind::Report && change.name == node) {
            if begin.is_some_and(|begin| change.at < begin) {
                states.clear();
            }
            states.push(Some(&change.object).filter(|_| !change.is_deletion));
        }
        states.into_iter().all(names_it)
    }

    /// Returns the newest revision of a BpfProgram that agents may run.
    pub fn newest(&self, program: &str) -> Option<&Value> {
        let revisions = self.list(Kind::Revision).map(|(_, revision)| revision);
        let live = revisions.filter(|revision| {
            revision["spec"]["programRef"]["name"] == program && revision["spec"]["state"] == "Active"
        });
        live.max_by_key(|revision| revision["spec"]["sequence"].as_i64())
    }
}

fn has_finalizer(object: &Value) -> bool {
    let mut finalizers = object["metadata"]["finalizers"].as_array().into_iter().flatten();
    finalizers.any(|finalizer| finalizer == names::FINALIZER)
}

/// Returns what a revision asks agents for, and whose it is.
fn content(revision: &Value) -> (Value, Value) {
    let mut template = revision["spec"]["template"].clone();
    if let Some(fields) = template.as_object_mut() {
        fields.remove("requires");
        fields.remove("signedBy");
    }
    (revision["spec"]["programRef"].clone(), template)
}
