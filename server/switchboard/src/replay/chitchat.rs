//! The form of `dataset.json` in the MIT-licensed PyPI package `chitchat-dataset` (0.9.0): an object
//! from conversation ids to `{messages: [[{text, timestamp, sender}, …], …], …}`, a list of turns, each
//! a list of messages. Only conversations in which exactly two people speak are taken: with one
//! speaker nobody is there to receive.

use std::collections::BTreeMap;

use chrono::DateTime;
use serde::Deserialize;

use super::corpus::{Corpus, CorpusBuilder};
use super::load::LoadError;

#[derive(Deserialize)]
struct Dialogue {
    messages: Vec<Vec<Line>>,
}

#[derive(Deserialize)]
struct Line {
    text: String,
    timestamp: String,
    sender: String,
}

/// Reads a whole `dataset.json`. Conversations come in order of their first message.
pub(super) fn parse(document: &str) -> Result<Corpus, LoadError> {
    let dialogues: BTreeMap<String, Dialogue> =
        serde_json::from_str(document).map_err(LoadError::Document)?;
    let mut conversations = Vec::new();
    for (name, dialogue) in dialogues {
        let lines: Vec<Line> = dialogue.messages.into_iter().flatten().collect();
        let Some((one, other)) = two_speakers(&lines) else { continue };
        let mut messages = Vec::with_capacity(lines.len());
        for line in lines {
            let at = DateTime::parse_from_rfc3339(&line.timestamp)
                .map_err(|source| LoadError::Time { conversation: name.clone(), source })?
                .timestamp();
            let to = if line.sender == one { other.clone() } else { one.clone() };
            messages.push((at, line.sender, to, line.text));
        }
        conversations.push((messages.first().map_or(0, |m| m.0), name, messages));
    }
    conversations.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    let mut corpus = CorpusBuilder::default();
    for (_, name, messages) in conversations {
        for (at, from, to, text) in messages {
            corpus.push(&name, &from, &to, at, text);
        }
    }
    Ok(corpus.finish())
}

fn two_speakers(lines: &[Line]) -> Option<(String, String)> {
    let one = &lines.first()?.sender;
    let other = &lines.iter().find(|line| line.sender != *one)?.sender;
    let two = lines.iter().all(|line| line.sender == *one || line.sender == *other);
    two.then(|| (one.clone(), other.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r#"{
      "late":  {"start": "2018-05-03T01:38:01Z", "prompt": "?", "messages": [
        [{"text": "Hello", "timestamp": "2018-05-02T19:38:15Z", "sender": "a"},
         {"text": "", "timestamp": "2018-05-02T19:38:20Z", "sender": "a"}],
        [{"text": "Hi", "timestamp": "2018-05-02T19:38:29Z", "sender": "b"}]]},
      "alone": {"messages": [[{"text": "?", "timestamp": "2018-04-02T19:38:15Z", "sender": "c"}]]},
      "early": {"ratings": {"witty": 10}, "messages": [
        [{"text": "x", "timestamp": "2018-05-01T00:00:00Z", "sender": "b"}],
        [{"text": "y", "timestamp": "2018-05-01T00:00:01Z", "sender": "d"}]]}
    }"#;

    #[test]
    fn two_party_conversations_are_taken_in_order_of_time() {
        let corpus = parse(DOCUMENT).unwrap();
        let names: Vec<_> = corpus.conversations.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["early", "late"]);
        let late = &corpus.conversations[1].messages;
        assert_eq!(late.len(), 3);
        assert_eq!(late[0].at, 1_525_289_895);
        assert_eq!((late[2].from, late[2].to), (late[0].to, late[0].from));
        assert_eq!(late[1].text, "");
    }

    #[test]
    fn a_bad_time_names_its_conversation() {
        let document = DOCUMENT.replace("2018-05-01T00:00:01Z", "yesterday");
        assert!(parse(&document).unwrap_err().to_string().contains("early"));
    }
}
