//! Servers as processes of their own, ended with the value, on ports that were free a moment ago.

use std::{
    fs::File,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

/// How long a server may take until it listens.
const LISTENS_WITHIN: Duration = Duration::from_secs(30);
/// How long a server may take to end by itself.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// A running server.
#[derive(Debug)]
pub struct Server {
    process: Child,
}

impl Server {
    /// Starts it with its output in a file of `dir`; `None` when the program is not installed.
    pub fn start(command: &mut Command, dir: &Path) -> Result<Option<Self>> {
        let output = File::create(dir.join("output"))?;
        let errors = output.try_clone()?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        match command.spawn() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            started => {
                let program = command.get_program().to_string_lossy().into_owned();
                let process = started.with_context(|| format!("cannot start {program}"))?;
                Ok(Some(Self { process }))
            }
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Ends it at once (SIGKILL).
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Waits until somebody listens there.
    pub fn wait_listening(&mut self, address: SocketAddr) -> Result<()> {
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = self.process.try_wait()? {
                bail!("a server ended at once with {status}");
            }
            ensure!(started.elapsed() < LISTENS_WITHIN, "nobody listens at {address}");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = i32::try_from(self.process.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let asked = Instant::now();
        while asked.elapsed() < ENDS_WITHIN {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Addresses on this machine whose ports are free at this moment. Whoever takes one in between makes a
/// start fail, and is told.
pub fn free_addresses<const N: usize>() -> Result<[SocketAddr; N]> {
    let listeners =
        (0..N).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<Vec<_>>>()?;
    let addresses = listeners.iter().map(TcpListener::local_addr);
    let addresses = addresses.collect::<std::io::Result<Vec<_>>>()?;
    addresses.try_into().ok().context("as many addresses as listeners")
}
