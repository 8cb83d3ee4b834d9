//! `cluster upgrade`: the last step of a rolling upgrade.

use clap::Args;
use serde::Serialize;
use switchboard_api::v1;

use crate::cli::Global;
use crate::command::operator::{StoreArgs, failure};
use crate::output::{Failure, table};

/// Raise the format that the cluster is written in, once every node can read it
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard cluster upgrade --dry-run      what would be done, and which node is in the way
  switchboard cluster upgrade                to the newest format that any node reads
  switchboard cluster upgrade --to 2 --output json

Run it when every node has been restarted with the new release. It cannot be taken back: a node of
an older release refuses to start from then on.")]
pub(super) struct Upgrade {
    /// The format to raise it to [default: the newest that any node reads]
    #[arg(long, value_name = "N")]
    to: Option<u32>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, Serialize)]
struct Raised {
    format_before: u32,
    format_active: u32,
    dry_run: bool,
    nodes: Vec<NodeFormats>,
}

#[derive(Debug, Serialize)]
struct NodeFormats {
    node_id: u64,
    address: String,
    version: String,
    format_oldest: u32,
    format_newest: u32,
}

impl Upgrade {
    pub(super) async fn run(self, global: Global) -> Result<(), Failure> {
        let client = self.store.connect().await?;
        let (to_format, dry_run) = (self.to.unwrap_or(0), self.dry_run);
        let request = v1::UpgradeRequest { to_format, dry_run };
        let raised = client.upgrade(request).await.map_err(|error| failure(&error))?;
        let node = |said: v1::NodeFormats| {
            let v1::NodeInfo { node_id, address } = said.node.unwrap_or_default();
            let (format_oldest, format_newest) = (said.format_oldest, said.format_newest);
            NodeFormats { node_id, address, version: said.version, format_oldest, format_newest }
        };
        let (format_before, format_active) = (raised.format_before, raised.format_active);
        let nodes = raised.nodes.into_iter().map(node).collect();
        let raised = Raised { format_before, format_active, dry_run, nodes };
        global.output.print(&raised, |raised| {
            let mut table = table(["node", "address", "version", "reads", "cluster"]);
            for node in &raised.nodes {
                table.add_row([
                    node.node_id.to_string(),
                    node.address.clone(),
                    node.version.clone(),
                    format!("{} to {}", node.format_oldest, node.format_newest),
                    change(raised),
                ]);
            }
            table
        })
    }
}

/// What has become of the cluster's format, in words.
fn change(raised: &Raised) -> String {
    let Raised { format_before, format_active, dry_run, .. } = raised;
    match (format_before == format_active, dry_run) {
        (true, _) => format!("format {format_active}, nothing to raise"),
        (false, true) => format!("format {format_before}, would be {format_active}"),
        (false, false) => format!("format {format_active}, was {format_before}"),
    }
}
