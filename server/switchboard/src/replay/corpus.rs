//! Conversations as they are replayed: users interned, messages in order.

use std::collections::HashMap;

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// Index into [`Corpus::users`].
    pub(crate) from: usize,
    /// Index into [`Corpus::users`].
    pub(crate) to: usize,
    /// When it was written, Unix seconds.
    pub(crate) at: i64,
    /// May be empty.
    pub(crate) text: String,
}

/// The messages of one conversation between two users, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conversation {
    /// The name it has in the file.
    pub(crate) name: String,
    /// In order of `n`.
    pub(crate) messages: Vec<Message>,
}

/// All conversations of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Corpus {
    /// Every user who writes or is written to, in order of first appearance.
    pub(crate) users: Vec<String>,
    /// In order of first appearance.
    pub(crate) conversations: Vec<Conversation>,
}

impl Corpus {
    /// How many messages there are in all.
    pub(crate) fn messages(&self) -> usize {
        self.conversations.iter().map(|c| c.messages.len()).sum()
    }

    /// Keeps the first conversations, up to `messages_max` messages in all; the last one is cut.
    pub(crate) fn limit(self, messages_max: usize) -> Corpus {
        let mut kept = CorpusBuilder::default();
        let mut left = messages_max;
        for conversation in &self.conversations {
            for message in conversation.messages.iter().take(left) {
                let user = |index: usize| self.users.get(index).map_or("", String::as_str);
                kept.push(
                    &conversation.name,
                    user(message.from),
                    user(message.to),
                    message.at,
                    message.text.clone(),
                );
            }
            left = left.saturating_sub(conversation.messages.len());
        }
        kept.finish()
    }
}

/// Collects messages that arrive in any interleaving of conversations.
#[derive(Debug, Default)]
pub(crate) struct CorpusBuilder {
    corpus: Corpus,
    users: HashMap<String, usize>,
    conversations: HashMap<String, usize>,
}

impl CorpusBuilder {
    /// Adds the next message of a conversation.
    pub(crate) fn push(&mut self, conversation: &str, from: &str, to: &str, at: i64, text: String) {
        let message = Message { from: self.user(from), to: self.user(to), at, text };
        let next = self.corpus.conversations.len();
        let index = *self.conversations.entry(conversation.to_owned()).or_insert(next);
        if index == next {
            self.corpus
                .conversations
                .push(Conversation { name: conversation.to_owned(), messages: Vec::new() });
        }
        if let Some(conversation) = self.corpus.conversations.get_mut(index) {
            conversation.messages.push(message);
        }
    }

    /// What was collected.
    pub(crate) fn finish(self) -> Corpus {
        self.corpus
    }

    fn user(&mut self, name: &str) -> usize {
        if let Some(index) = self.users.get(name) {
            return *index;
        }
        let index = self.corpus.users.len();
        self.corpus.users.push(name.to_owned());
        self.users.insert(name.to_owned(), index);
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaved_conversations_are_told_apart() {
        let mut builder = CorpusBuilder::default();
        builder.push("x", "alice", "bob", 1, "1".into());
        builder.push("y", "carol", "alice", 2, "2".into());
        builder.push("x", "bob", "alice", 3, "3".into());
        let corpus = builder.finish();
        assert_eq!(corpus.users, ["alice", "bob", "carol"]);
        assert_eq!(corpus.messages(), 3);
        let x = &corpus.conversations[0];
        assert_eq!(x.name, "x");
        assert_eq!(x.messages.iter().map(|m| m.text.as_str()).collect::<Vec<_>>(), ["1", "3"]);
    }

    #[test]
    fn a_limit_cuts_the_last_conversation_and_forgets_users_who_are_gone() {
        let mut builder = CorpusBuilder::default();
        for n in 0..4 {
            builder.push("x", "alice", "bob", n, String::new());
        }
        builder.push("y", "carol", "dave", 9, String::new());
        let corpus = builder.finish().limit(3);
        assert_eq!(corpus.messages(), 3);
        assert_eq!(corpus.users, ["alice", "bob"]);
    }
}
