//! Reading and writing files of conversations.
//!
//! Two forms are read, gzipped or not, told apart by what they hold: JSON lines
//! `{"conversation", "n", "at", "from", "to", "text"}` (one message each, any interleaving, `n` ascending
//! from 0 within a conversation), and the `dataset.json` described in [`super::chitchat`]. JSON lines are
//! written.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use switchboard_api::limits::{BODY_BYTES_MAX, USER_BYTES_MAX};
use thiserror::Error;

use super::chitchat;
use super::corpus::{Corpus, CorpusBuilder};
use crate::limits::CORPUS_BYTES_MAX;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Why a file of conversations cannot be used.
#[derive(Debug, Error)]
pub(crate) enum LoadError {
    /// The file cannot be opened or read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// More bytes than any real corpus has.
    #[error("{path} holds more than {CORPUS_BYTES_MAX} bytes; split it")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A line is not of the form.
    #[error("line {line}: {source}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What serde says.
        source: serde_json::Error,
    },
    /// The file is one document, but not a `dataset.json`.
    #[error(
        "neither JSON lines of {{\"conversation\", \"n\", \"at\", \"from\", \"to\", \"text\"}} nor the \
         dataset.json of chitchat-dataset: {0}"
    )]
    Document(serde_json::Error),
    /// A timestamp is not RFC 3339.
    #[error("conversation {conversation}: bad timestamp: {source}")]
    Time {
        /// Its name in the file.
        conversation: String,
        /// What is wrong.
        source: chrono::ParseError,
    },
    /// A message that cannot be sent as it stands.
    #[error("conversation {conversation}, message {n}: {what}")]
    Message {
        /// Its name in the file.
        conversation: String,
        /// Its position.
        n: u64,
        /// What is wrong with it.
        what: &'static str,
    },
}

#[derive(Serialize, Deserialize)]
struct Line {
    conversation: String,
    n: u64,
    at: i64,
    from: String,
    to: String,
    text: String,
}

/// Reads all conversations of a file.
pub(crate) fn load(path: &Path) -> Result<Corpus, LoadError> {
    let failed = |source| LoadError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mut raw = Vec::new();
    file.take(CORPUS_BYTES_MAX + 1).read_to_end(&mut raw).map_err(failed)?;
    let mut text = String::new();
    if raw.starts_with(&GZIP_MAGIC) {
        let decoder = MultiGzDecoder::new(raw.as_slice());
        decoder.take(CORPUS_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    } else {
        raw.as_slice().read_to_string(&mut text).map_err(failed)?;
    }
    if u64::try_from(text.len()).is_ok_and(|bytes| bytes > CORPUS_BYTES_MAX) {
        return Err(LoadError::TooLarge { path: path.to_owned() });
    }
    parse(&text)
}

fn parse(text: &str) -> Result<Corpus, LoadError> {
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("");
    let corpus = if serde_json::from_str::<Line>(first).is_ok() || text.trim().is_empty() {
        parse_lines(text)?
    } else {
        chitchat::parse(text)?
    };
    check(&corpus)?;
    Ok(corpus)
}

fn parse_lines(text: &str) -> Result<Corpus, LoadError> {
    let mut corpus = CorpusBuilder::default();
    let mut expected = std::collections::HashMap::<String, u64>::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let line: Line = serde_json::from_str(line)
            .map_err(|source| LoadError::Line { line: index + 1, source })?;
        let next = expected.entry(line.conversation.clone()).or_default();
        if line.n != *next {
            return Err(LoadError::Message {
                conversation: line.conversation,
                n: line.n,
                what: "out of order: n counts from 0 within a conversation",
            });
        }
        *next += 1;
        corpus.push(&line.conversation, &line.from, &line.to, line.at, line.text);
    }
    Ok(corpus.finish())
}

fn check(corpus: &Corpus) -> Result<(), LoadError> {
    for conversation in &corpus.conversations {
        for (n, message) in (0u64..).zip(&conversation.messages) {
            let user_fits = |index: usize| {
                corpus.users.get(index).is_some_and(|u| (1..=USER_BYTES_MAX).contains(&u.len()))
            };
            let what = if !user_fits(message.from) || !user_fits(message.to) {
                "a user's name has 1 to 64 bytes"
            } else if message.text.len() > BODY_BYTES_MAX {
                "the text has more than 64 KiB"
            } else {
                continue;
            };
            return Err(LoadError::Message { conversation: conversation.name.clone(), n, what });
        }
    }
    Ok(())
}

/// Writes a corpus as JSON lines in order of time, gzipped if the name ends in `.gz`.
pub(crate) fn save(corpus: &Corpus, path: &Path) -> std::io::Result<()> {
    let file = BufWriter::new(File::create(path)?);
    if path.extension().is_some_and(|extension| extension == "gz") {
        let mut encoder = GzEncoder::new(file, Compression::default());
        write_lines(corpus, &mut encoder)?;
        encoder.finish()?.flush()
    } else {
        let mut file = file;
        write_lines(corpus, &mut file)?;
        file.flush()
    }
}

fn write_lines(corpus: &Corpus, out: &mut impl Write) -> std::io::Result<()> {
    let user = |index: usize| corpus.users.get(index).cloned().unwrap_or_default();
    let mut lines: Vec<Line> = Vec::with_capacity(corpus.messages());
    for conversation in &corpus.conversations {
        for (n, message) in (0u64..).zip(&conversation.messages) {
            lines.push(Line {
                conversation: conversation.name.clone(),
                n,
                at: message.at,
                from: user(message.from),
                to: user(message.to),
                text: message.text.clone(),
            });
        }
    }
    lines.sort_by_key(|line| line.at);
    // A conversation whose clock went backwards keeps its order all the same.
    let in_order = lines
        .iter()
        .try_fold(std::collections::HashMap::<&str, u64>::new(), |mut next, line| {
            let expected = next.entry(&line.conversation).or_default();
            let fits = line.n == *expected;
            *expected += 1;
            fits.then_some(next)
        })
        .is_some();
    if !in_order {
        lines.sort_by(|a, b| (&a.conversation, a.n).cmp(&(&b.conversation, b.n)));
    }
    for line in lines {
        serde_json::to_writer(&mut *out, &line)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = concat!(
        r#"{"conversation":"x","n":0,"at":5,"from":"a","to":"b","text":"one"}"#,
        "\n\n",
        r#"{"conversation":"y","n":0,"at":6,"from":"c","to":"a","text":""}"#,
        "\n",
        r#"{"conversation":"x","n":1,"at":7,"from":"b","to":"a","text":"zwei é"}"#,
        "\n",
    );

    #[test]
    fn lines_survive_a_round_trip_plain_and_gzipped() {
        let corpus = parse(LINES).unwrap();
        assert_eq!((corpus.messages(), corpus.users.len()), (3, 3));
        let dir = tempfile::tempdir().unwrap();
        for name in ["plain.jsonl", "packed.jsonl.gz"] {
            let path = dir.path().join(name);
            save(&corpus, &path).unwrap();
            assert_eq!(load(&path).unwrap(), corpus, "{name}");
        }
        assert!(
            std::fs::read(dir.path().join("packed.jsonl.gz")).unwrap().starts_with(&GZIP_MAGIC)
        );
    }

    #[test]
    fn a_clock_that_went_backwards_does_not_change_the_order() {
        let corpus = parse(&LINES.replace(r#""at":7"#, r#""at":1"#)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.jsonl");
        save(&corpus, &path).unwrap();
        assert_eq!(load(&path).unwrap().conversations, corpus.conversations);
    }

    #[test]
    fn faults_name_their_place() {
        let gap = LINES.replace(r#""n":1"#, r#""n":2"#);
        assert!(parse(&gap).unwrap_err().to_string().contains("conversation x, message 2"));
        let torn = format!("{LINES}{{\"conversation\":\n");
        assert!(parse(&torn).unwrap_err().to_string().starts_with("line 5:"));
        let nobody = LINES.replace(r#""from":"c""#, r#""from":"""#);
        assert!(parse(&nobody).unwrap_err().to_string().contains("1 to 64 bytes"));
        assert!(parse("[1, 2]").unwrap_err().to_string().contains("dataset.json"));
    }
}
