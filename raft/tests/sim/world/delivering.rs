//! Letters that arrive: at a node, as its transport and its service would hand them over; at a client.

use switchboard_raft::simulation::vote_parts;
use switchboard_raft::{NodeId, PeerRequest, PeerResponse};

use super::{Voting, World};
use crate::clients::{Answer, Said, serve};
use crate::net::Letter;

impl World {
    pub(super) fn deliver(&mut self, letter: Letter) {
        self.note(format_args!("{}", letter.describe()));
        let net = self.net.clone();
        match letter {
            Letter::Request { from, to, group, request, call } => {
                let Some(group) = self.group(to as usize - 1, group) else {
                    return net.refuse(call);
                };
                if !matches!(request, PeerRequest::Clock | PeerRequest::Append(_)) {
                    self.counts.votes += 1;
                }
                let (votes, life) = (self.votes.clone(), self.processes[to as usize - 1].lives);
                let asked = candidature(&request);
                self.processes[to as usize - 1].spawn(async move {
                    let by = (to, group.id());
                    match group.receive(request).await {
                        Ok(answer) => {
                            if let Some(vote) = asked.filter(|_| grants(&answer)) {
                                votes.lock().push(Voting::Granted { by, vote, life });
                            }
                            net.send(Letter::Answer { from: to, to: from, answer, call });
                        }
                        Err(_) => net.refuse(call),
                    }
                });
            }
            Letter::Answer { answer, call, .. } => net.resolve(call, answer),
            // What is on the way is read from the sender's disk, so it ends with the sender.
            Letter::Snapshot { from, call, .. } if !self.processes[from as usize - 1].is_up() => {
                net.refuse(call);
            }
            Letter::Snapshot { from, to, group, vote, file, call } => {
                let Some(group) = self.group(to as usize - 1, group) else {
                    return net.refuse(call);
                };
                self.processes[to as usize - 1].spawn(async move {
                    match group.receive_snapshot(vote, file).await {
                        Ok(vote) => {
                            net.send(Letter::SnapshotAnswer { from: to, to: from, vote, call });
                        }
                        Err(_) => net.refuse(call),
                    }
                });
            }
            Letter::SnapshotAnswer { vote, call, .. } => {
                self.counts.snapshots += 1;
                net.resolve_vote(call, vote);
            }
            Letter::Ask { to, ask } => {
                let process = &self.processes[to as usize - 1];
                let (client, attempt) = (ask.client, ask.attempt);
                let Some(node) = process.node() else {
                    let said = Said::NotHere(None);
                    let answer = Answer { client, attempt, said };
                    return net.send(Letter::Told { from: to, answer });
                };
                process.spawn(async move {
                    let said = serve(node, ask).await;
                    let answer = Answer { client, attempt, said };
                    net.send(Letter::Told { from: to, answer });
                });
            }
            Letter::Told { answer, .. } => {
                let nodes = self.processes.len() as u64;
                let (now_ms, client) = (self.now(), answer.client as usize - 1);
                self.clients[client].told(answer, now_ms, &mut self.history, nodes);
            }
        }
    }
}

/// The term and the candidate, if a vote is asked for.
fn candidature(request: &PeerRequest) -> Option<(u64, NodeId)> {
    match request {
        PeerRequest::Vote(asked) => Some(vote_parts(&asked.vote)),
        _ => None,
    }
}

fn grants(answer: &PeerResponse) -> bool {
    matches!(answer, PeerResponse::Vote(answered) if answered.vote_granted)
}
