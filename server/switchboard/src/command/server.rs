//! What the commands that run servers share: configuration layers, the lines on standard output,
//! and the way to an orderly end.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use switchboard_process::config::{self, Config, ConfigError};
use switchboard_process::{Shutdown, announce, ready, telemetry};

use crate::output::{Failure, print_line};

/// Options of every server.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// Read this TOML file; SWITCHBOARD_* variables and flags win over it
    #[arg(long, value_name = "FILE", env = "SWITCHBOARD_CONFIG")]
    config: Option<PathBuf>,
    /// Print the configuration that results, as TOML, and stop
    #[arg(long)]
    print_config: bool,
}

impl ConfigArgs {
    /// The configuration, with logging set up; `None` when it was only to be printed.
    pub(crate) fn load<C: Config>(
        &self,
        flags: &impl Serialize,
        log: impl FnOnce(&C) -> &telemetry::LogConfig,
    ) -> Result<Option<C>, Failure> {
        let config: C = config::load(self.config.as_deref(), flags).map_err(|e| failure(&e))?;
        if self.print_config {
            let text = config::render(&config)
                .map_err(|error| Failure::failed(format!("cannot print it: {error}")))?;
            print_line(text.trim_end())?;
            return Ok(None);
        }
        telemetry::init(log(&config))
            .map_err(|error| Failure::failed(format!("cannot log: {error}")))?;
        Ok(Some(config))
    }
}

fn failure(error: &ConfigError) -> Failure {
    let failure = Failure::usage(error.to_string());
    match error {
        ConfigError::Invalid(_) => {
            failure.help("--print-config without the fault shows every key and its default")
        }
        _ => failure,
    }
}

/// A server that runs, whichever it is.
pub(crate) trait Server {
    /// Its name in messages.
    const NAME: &'static str;

    /// The addresses bound, by the names of the contract.
    fn addresses(&self) -> Vec<(&'static str, SocketAddr)>;

    /// Resolves once it serves.
    async fn ready(&self);

    /// Resolves, with the reason, if it cannot serve any more.
    async fn wait(&mut self) -> String;

    /// Ends it in order.
    async fn shutdown(self);
}

impl Server for switchboard_store::Running {
    const NAME: &'static str = "store";

    fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        self.addresses().to_vec()
    }

    async fn ready(&self) {
        self.ready().await;
    }

    async fn wait(&mut self) -> String {
        self.wait().await.to_string()
    }

    async fn shutdown(self) {
        self.shutdown().await;
    }
}

impl Server for switchboard_chat::Running {
    const NAME: &'static str = "chat";

    fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        self.addresses()
    }

    async fn ready(&self) {
        self.ready().await;
    }

    async fn wait(&mut self) -> String {
        switchboard_chat::Running::wait(self).await;
        "it does not serve gRPC any more; see the log".to_owned()
    }

    async fn shutdown(self) {
        self.shutdown().await;
    }
}

impl Server for switchboard_gateway::Running {
    const NAME: &'static str = "gateway";

    fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        self.addresses()
    }

    async fn ready(&self) {
        self.ready().await;
    }

    async fn wait(&mut self) -> String {
        switchboard_gateway::Running::wait(self).await;
        "it does not listen any more; see the log".to_owned()
    }

    async fn shutdown(self) {
        self.shutdown().await;
    }
}

/// For flags without a value: one that is not given says nothing.
pub(crate) fn is_unset(flag: &bool) -> bool {
    !flag
}

/// Prints where a server listens.
pub(crate) fn announce_all(server: &impl Server) {
    for (name, address) in server.addresses() {
        announce(name, address);
    }
}

/// Runs one server until a signal, then ends it in order.
pub(crate) async fn run<S: Server>(mut server: S) -> Result<(), Failure> {
    let shutdown = shutdown_on_signals()?;
    announce_all(&server);
    let died = tokio::select! {
        why = until_done(&mut server) => Some(why),
        () = shutdown.triggered() => None,
    };
    server.shutdown().await;
    died.map_or(Ok(()), |why| Err(Failure::failed(format!("the {} failed: {why}", S::NAME))))
}

async fn until_done(server: &mut impl Server) -> String {
    server.ready().await;
    ready();
    server.wait().await
}

/// A shutdown that SIGTERM and SIGINT trigger.
pub(crate) fn shutdown_on_signals() -> Result<Shutdown, Failure> {
    let shutdown = Shutdown::new();
    shutdown
        .on_signals()
        .map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")))?;
    Ok(shutdown)
}
