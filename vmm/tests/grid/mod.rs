//! The grid: the questions that every release of `qemu-img` was asked (`images/baselines/record`) and that instar must
//! answer in the same words (`baselines.rs`).
//!
//! What instar means to answer otherwise is no question here: LUKS without a secret, internal snapshots that exist, and options
//! that a release does not know and answers with its help. See docs/quirks.md.
#![allow(dead_code, reason = "each test binary uses its own part")]

mod files;
mod sizes;
pub mod sources;
pub mod stored;

use crate::common::{self, Said};

/// The releases that are followed, as `--qemu-version` names them.
pub const VERSIONS: [&str; 4] = ["5.2", "7.2", "10.0", "11.1"];

/// The secret of questions that need one.
const SECRET: &str = "secret,id=sec0,data=open sesame";

/// A command line, without the command's name and the shape of the answer.
#[derive(Clone, Debug)]
pub struct Question {
    arguments: Vec<String>,
    /// Whether `qemu-img` derives a key to answer it, for seconds.
    pub slow: bool,
    /// The first release that is asked.
    since: &'static str,
}

impl Question {
    fn new<T: Into<String>>(arguments: impl IntoIterator<Item = T>) -> Self {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Self { arguments, slow: false, since: VERSIONS[0] }
    }

    fn slow(self) -> Self {
        Self { slow: true, ..self }
    }

    fn since(self, since: &'static str) -> Self {
        Self { since, ..self }
    }

    /// The question as a shell takes it: its name in a baseline.
    pub fn name(&self) -> String {
        let line = common::line(&self.arguments);
        line.trim_start_matches("qemu-img").trim_start().to_owned()
    }

    fn command<'a>(&'a self, output: &'a str) -> Vec<&'a str> {
        ["measure", "--output", output].into_iter().chain(self.arguments.iter().map(String::as_str)).collect()
    }

    /// Asks a program for human text, and for JSON if that is wanted; a slow question for human text alone.
    pub fn ask(&self, json: bool, program: impl Fn(&[&str]) -> Said) -> Answer {
        let human = program(&self.command("human"));
        let json = (json && !self.slow).then(|| program(&self.command("json")));
        Answer { human, json }
    }

    /// Whether it is this release's turn to be asked for JSON, too. The releases take turns: the shape of an answer has little to
    /// do with what is in it, so each question is asked for JSON once.
    pub fn is_turn_of(&self, version: &str) -> bool {
        let (first, letters) = (age(self.since), self.name().bytes().map(usize::from).sum::<usize>());
        age(version) == first + letters % (VERSIONS.len() - first)
    }
}

/// What a program said to a question, as human text and as JSON.
#[derive(Debug)]
pub struct Answer {
    human: Said,
    json: Option<Said>,
}

impl Answer {
    /// The answer as it is stored, one line that no other answer has: the exit code; what is told, as numbers, or `-` for
    /// nothing; and the text on stderr, escaped. Fails if the answer has another shape.
    pub fn encode(&self) -> Result<String, String> {
        let Said { code, stdout, stderr } = &self.human;
        let sizes = Sizes::read(stdout);
        let texts = sizes.as_ref().map_or_else(Default::default, |sizes| [sizes.human(), sizes.json()]);
        let [human, json] = texts.map(|stdout| Said { code: *code, stdout, stderr: stderr.clone() });
        match code {
            Some(code) if self.human == human && self.json.as_ref().is_none_or(|said| *said == json) => {
                let numbers = sizes.map_or("-".to_owned(), |sizes| sizes.numbers());
                Ok(format!("{code}\t{numbers}\t{}", stderr.escape_debug()))
            }
            _ => Err(format!("{self:?}")),
        }
    }
}

/// The numbers of an answer, and their two texts.
struct Sizes {
    required: u64,
    fully_allocated: u64,
    bitmaps: Option<u64>,
}

impl Sizes {
    fn read(human: &str) -> Option<Self> {
        let number = |name: &str| human.split_once(name)?.1.lines().next()?.parse().ok();
        Some(Self {
            required: number("required size: ")?,
            fully_allocated: number("fully allocated size: ")?,
            bitmaps: number("bitmaps size: "),
        })
    }

    fn human(&self) -> String {
        let Self { required, fully_allocated, bitmaps } = self;
        let bitmaps = bitmaps.map_or(String::new(), |bytes| format!("bitmaps size: {bytes}\n"));
        format!("required size: {required}\nfully allocated size: {fully_allocated}\n{bitmaps}")
    }

    /// JSON has signed numbers.
    fn json(&self) -> String {
        let (required, fully_allocated) = (self.required.cast_signed(), self.fully_allocated.cast_signed());
        let bitmaps = self.bitmaps.map_or(String::new(), |bytes| format!("    \"bitmaps\": {bytes},\n"));
        format!(
            "{{\n{bitmaps}    \"required\": {required},\n    \"fully-allocated\": {fully_allocated}\n}}\n"
        )
    }

    fn numbers(&self) -> String {
        let bitmaps = self.bitmaps.map_or(String::new(), |bytes| format!(" {bytes}"));
        format!("{} {}{bitmaps}", self.required, self.fully_allocated)
    }
}

/// The place of a release in [`VERSIONS`].
fn age(name: &str) -> usize {
    VERSIONS.iter().position(|version| *version == name).expect("a version that is followed")
}

/// What a release is asked, in a fixed order, no question twice.
pub fn questions(version: &str) -> Vec<Question> {
    let mut questions = [sizes::questions(), files::questions()].concat();
    questions.retain(|question| age(question.since) <= age(version));
    questions
}
