//! The status page: one table, no script, nothing to click.

use std::fmt::Write as _;

use switchboard_api::v1::StatusResponse;

/// The page for a node's status. Nothing in it comes from users, so nothing needs escaping.
pub(crate) fn render(status: &StatusResponse) -> String {
    let mut page = String::from(
        "<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=5>\
         <title>Switchboard store</title><style>body{font:15px system-ui;margin:2em auto;\
         max-width:60em;color:#1b2130}table{border-collapse:collapse;width:100%}th,td{padding:.3em \
         .8em;text-align:right;border-bottom:1px solid #d8dee9}th{color:#6b7488;font-weight:600}\
         p{color:#6b7488}</style>",
    );
    let (node, version, uptime) = (status.node_id, &status.version, status.uptime_ms / 1000);
    let log_mib = status.log_bytes >> 20;
    // Writing to a String cannot fail.
    let _ = write!(
        page,
        "<h1>Node {node}</h1><p>version {version} · up {uptime} s · log {log_mib} MiB in {} \
         segments · <a href=/metrics>metrics</a></p><table><tr><th>shard<th>term<th>leader\
         <th>applied<th>checkpoint<th>users<th>sessions<th>messages<th>bytes",
        status.log_segments
    );
    for shard in &status.shards {
        let _ = write!(
            page,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}",
            shard.shard,
            shard.term,
            shard.leader_node_id,
            shard.applied_index,
            shard.checkpoint_index,
            shard.users,
            shard.sessions,
            shard.messages,
            shard.message_bytes
        );
    }
    page.push_str("</table></html>\n");
    page
}
