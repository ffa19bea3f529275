//! The corpora of the fuzz targets (ebpf/fuzz/corpus): each file reaches code that the others do not.

use std::{fs, path::PathBuf};

use sockeye_ebpf_testing::{process, roundtrip::roundtrip_all_programs, types::take_types};

use crate::{NAMES, index_of, small_kernel};

fn files(target: &str) -> Vec<PathBuf> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus")).join(target);
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let sizes: Vec<u64> = files.iter().map(|file| fs::metadata(file).unwrap().len()).collect();
    assert!(files.len() > 20 && sizes.iter().sum::<u64>() < 200 << 10, "{} files, {sizes:?}", files.len());
    files
}

/// Runs an ignored test over the files of a target, in a process of its own; each file is so many cases. Some must be
/// taken, and some refused.
fn run(test: &str, target: &str, cases: usize, names: [&'static str; process::ENDS]) {
    let tally = process::run(test, 0..(cases * files(target).len()) as u64, names);
    println!("{tally}");
    let [taken, refused, ..] = tally.ends;
    assert!(taken > 0 && refused > 0, "{tally}");
}

#[test]
fn every_corpus_file_is_accepted_or_refused_with_a_reason() {
    run("corpus::each", "object", 2, NAMES);
}

/// Runs in the child process of `every_corpus_file_is_accepted_or_refused_with_a_reason`.
#[test]
#[ignore = "run by every_corpus_file_is_accepted_or_refused_with_a_reason, in a process of its own"]
fn each() {
    let files = files("object");
    let kernels = [true, false].map(small_kernel);
    process::work(|case| {
        let bytes = fs::read(&files[case as usize / 2]).unwrap();
        index_of(&roundtrip_all_programs(&bytes, &kernels[case as usize % 2]))
    });
}

#[test]
fn every_corpus_file_of_types_is_read_or_refused() {
    run("corpus::each_of_types", "types", 1, ["types", "no types", "", ""]);
}

/// Runs in the child process of `every_corpus_file_of_types_is_read_or_refused`.
#[test]
#[ignore = "run by every_corpus_file_of_types_is_read_or_refused, in a process of its own"]
fn each_of_types() {
    let files = files("types");
    process::work(|case| usize::from(!take_types(&fs::read(&files[case as usize]).unwrap())));
}
