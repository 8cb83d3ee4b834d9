//! `cert init|issue`: a certificate authority of one's own, and what it signs.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;
use switchboard_process::tls::{Authority, CertificateError, Request, Role};

use crate::cli::Global;
use crate::output::{Failure, table};

/// Make certificates for TLS and QUIC, with an authority of your own
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard cert init --dir ./certs
  switchboard cert issue gateway-1 --dir ./certs \\
      --host gateway.example.org,10.0.0.6
  switchboard gateway --listen-tls 127.0.0.1:7411 \\
      --tls-cert ./certs/gateway-1.pem --tls-key ./certs/gateway-1.key
  switchboard device --as alice --gateway tls://127.0.0.1:7411 \\
      --ca ./certs/ca.pem recv")]
pub(crate) struct Cert {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(Init),
    Issue(Issue),
}

/// Make a certificate authority: DIR/ca.pem for all to trust, DIR/ca.key to keep to yourself
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard cert init --dir ./certs
  switchboard cert init --dir ./certs --name 'Example messenger' --days 730")]
struct Init {
    /// Where to write; made if it is not there
    #[arg(long, value_name = "DIR", default_value = "certs")]
    dir: PathBuf,
    /// The authority's name in certificates
    #[arg(long, default_value = "Switchboard CA")]
    name: String,
    /// Valid for so many days
    #[arg(long, default_value_t = 3_650, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
}

/// Issue a certificate and its key: DIR/NAME.pem and DIR/NAME.key
///
/// Servers load new files by themselves: move them over the old ones, connections stay open.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard cert issue gateway-1 --dir ./certs \\
      --host gateway.example.org,10.0.0.6
  switchboard cert issue store-1 --dir ./certs --role node --host 10.0.0.1 \\
      --days 90")]
struct Issue {
    /// Whose it is; also the names of the files
    name: String,
    /// Where the authority is, and where to write
    #[arg(long, value_name = "DIR", default_value = "certs")]
    dir: PathBuf,
    /// What it is for: node, gateway, chat or operator
    #[arg(long, default_value = "gateway")]
    role: Role,
    /// Names and addresses at which it is reached
    #[arg(
        long,
        value_name = "H[,H]",
        value_delimiter = ',',
        default_value = "localhost,127.0.0.1,::1"
    )]
    host: Vec<String>,
    /// Valid for so many days
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
}

/// What was written where.
#[derive(Debug, Serialize)]
struct Written {
    name: String,
    certificate: PathBuf,
    key: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    hosts: Vec<String>,
    days: u32,
}

impl Cert {
    pub(crate) fn run(self, global: Global) -> Result<(), Failure> {
        let written = match self.command {
            Command::Init(init) => init.run(),
            Command::Issue(issue) => issue.run(),
        };
        let written = written.map_err(|error| Failure::failed(error.to_string()))?;
        global.output.print(&written, |written| {
            let mut table = table(["certificate", "private key", "for", "days"]);
            table.add_row([
                written.certificate.display().to_string(),
                written.key.display().to_string(),
                written.hosts.join(", "),
                written.days.to_string(),
            ]);
            table
        })
    }
}

impl Init {
    fn run(self) -> Result<Written, CertificateError> {
        Authority::create(&self.dir, &self.name, self.days)?;
        Ok(Written {
            name: self.name,
            certificate: self.dir.join("ca.pem"),
            key: self.dir.join("ca.key"),
            role: None,
            hosts: Vec::new(),
            days: self.days,
        })
    }
}

impl Issue {
    fn run(self) -> Result<Written, CertificateError> {
        let request =
            Request { name: self.name, role: self.role, hosts: self.host, days: self.days };
        let issued = Authority::open(&self.dir)?.issue(&request)?;
        let (certificate, key) = issued.save(&self.dir, &request.name)?;
        Ok(Written {
            name: request.name,
            certificate,
            key,
            role: Some(request.role.as_str()),
            hosts: request.hosts,
            days: request.days,
        })
    }
}
