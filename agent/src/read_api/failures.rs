//! Failures in words: what is wrong, where, and what to do. Pure.

use sockeye_read_api::{Failure, FailureReason};

use crate::{control::inspection::Missing, kernel::pages::PageError};

pub(super) fn failure(reason: FailureReason, message: impl Into<String>) -> Failure {
    Failure { reason, message: message.into() }
}

/// A defect, reported instead of a panic.
pub(super) fn defect(message: impl std::fmt::Display) -> Failure {
    failure(FailureReason::Other, format!("defect in sockeye: {message}"))
}

/// Says why the controller has nothing to answer about a BpfProgram, or its map.
pub(super) fn missing(missing: Missing, program: &str, map: Option<&str>) -> Failure {
    let (reason, message) = match missing {
        Missing::Node => (
            FailureReason::Unavailable,
            "the agent has not looked at the whole node since it was started: ask again in a moment".to_owned(),
        ),
        Missing::Program => (
            FailureReason::ProgramNotFound,
            format!("this node has no BpfProgram {program}: /v1/node lists those it has"),
        ),
        Missing::Map => {
            let map = map.unwrap_or_default();
            let message = format!("BpfProgram {program} has no map {map} here: /v1/programs/{program} lists its maps");
            (FailureReason::MapNotFound, message)
        }
        Missing::VerifierLog => (
            FailureReason::LogNotFound,
            format!("the verifier has rejected nothing of BpfProgram {program} since the agent was started"),
        ),
    };
    failure(reason, message)
}

/// Says why the entries of a map can't be read.
pub(super) fn page(error: PageError, map: &str, map_type: &str) -> Failure {
    match error {
        PageError::Unreadable(why) => {
            failure(FailureReason::NotReadable, format!("map {map} (type {map_type}) can't be read: {why}"))
        }
        PageError::Cursor => failure(
            FailureReason::BadRequest,
            format!("after is no cursor of map {map}: use next of the page before, or leave it out"),
        ),
        PageError::Sys(error) => {
            failure(FailureReason::Refused, format!("the kernel does not read map {map}: {error}"))
        }
    }
}
