//! The files `images/baselines/measure-X.Y.txt`: that of the newest release has the answer to every question, the others
//! have those that differ from it.
//!
//! A line is the question, a tab, and the answer as [`Answer::encode`](super::Answer::encode) gives it. In front stand two
//! lines: the release's own name, and which questions it was asked.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::{Question, VERSIONS, questions};

/// Where baselines are.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/baselines")
}

fn path(version: &str) -> PathBuf {
    directory().join(format!("measure-{version}.txt"))
}

fn newest() -> &'static str {
    VERSIONS[VERSIONS.len() - 1]
}

/// How many questions there are, and a number that changes with any of them (FNV-1a).
fn asked(questions: &[Question]) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in questions.iter().flat_map(|question| (question.name() + "\n").into_bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("# {} questions, {hash:016x}", questions.len())
}

/// The questions of a release, each with the answer that is stored for it.
///
/// # Panics
///
/// If a baseline is missing, or is not of the questions that are asked today.
pub fn load(version: &str) -> Vec<(Question, String)> {
    let questions = questions(version);
    let own = read(version, &questions);
    let base =
        if version == newest() { BTreeMap::new() } else { read(newest(), &super::questions(newest())) };
    let answer = |question: Question| {
        let name = question.name();
        let answer = own.get(&name).or(base.get(&name));
        let answer = answer.unwrap_or_else(|| panic!("{version} was not asked: {name}")).clone();
        (question, answer)
    };
    questions.into_iter().map(answer).collect()
}

/// The lines of one file.
fn read(version: &str, questions: &[Question]) -> BTreeMap<String, String> {
    let path = path(version);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut lines = text.lines();
    let release = lines.next().unwrap_or_default();
    assert!(release.starts_with(&format!("# qemu-img version {version}.")), "{}: {release}", path.display());
    let asked = asked(questions);
    assert_eq!(lines.next(), Some(&*asked), "{} is not of these questions: record it again", path.display());
    let answers = lines.map(|line| line.split_once('\t').expect("a question and an answer"));
    answers.map(|(question, answer)| (question.to_owned(), answer.to_owned())).collect()
}

/// Stores the answers of a release that says its `name`, of the newest one first.
pub fn store(version: &str, name: &str, answers: &[(Question, String)]) {
    let questions: Vec<Question> = answers.iter().map(|(question, _)| question.clone()).collect();
    let base =
        if version == newest() { BTreeMap::new() } else { read(newest(), &super::questions(newest())) };
    let mut text = format!("# {name}\n{}\n", asked(&questions));
    for (question, answer) in answers {
        let question = question.name();
        if base.get(&question) != Some(answer) {
            text.push_str(&format!("{question}\t{answer}\n"));
        }
    }
    fs::write(path(version), text).unwrap();
}
