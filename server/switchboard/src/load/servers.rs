//! What the servers of this machine use: CPU time and memory, from `/proc`.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::time::Duration;

use serde::Serialize;

/// The state of a listening socket in `/proc/net/tcp`.
const LISTENING: &str = "0A";

/// One server process at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Usage {
    pub(crate) pid: u32,
    pub(crate) name: String,
    /// User and system time so far, in steps of 10 ms.
    pub(crate) cpu: Duration,
    pub(crate) rss_bytes: u64,
}

/// What a server process used between two moments.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Used {
    pub(crate) pid: u32,
    pub(crate) name: String,
    pub(crate) cpu_seconds: f64,
    pub(crate) rss_bytes_before: u64,
    pub(crate) rss_bytes: u64,
}

/// A process as it is now; `None` if there is none.
pub(crate) fn usage(pid: u32) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned();
    let ticks = cpu_ticks(&stat)? as f64;
    let cpu = Duration::from_secs_f64(ticks / rustix::param::clock_ticks_per_second() as f64);
    Some(Usage { pid, name, cpu, rss_bytes: rss_bytes(&status)? })
}

/// All of some processes that are there.
pub(crate) fn usages(pids: &[u32]) -> Vec<Usage> {
    pids.iter().filter_map(|pid| usage(*pid)).collect()
}

/// What each process that was there at both moments used between them.
pub(crate) fn used(before: &[Usage], after: &[Usage]) -> Vec<Used> {
    let used = |before: &Usage| {
        let after = after.iter().find(|after| after.pid == before.pid)?;
        Some(Used {
            pid: before.pid,
            name: before.name.clone(),
            cpu_seconds: after.cpu.saturating_sub(before.cpu).as_secs_f64(),
            rss_bytes_before: before.rss_bytes,
            rss_bytes: after.rss_bytes,
        })
    };
    before.iter().filter_map(used).collect()
}

/// The processes of this machine that listen on the ports of these `host:port` addresses, as far as
/// this user may look.
pub(crate) fn listening_on(addresses: &[String]) -> Vec<u32> {
    let ports: BTreeSet<u16> =
        addresses.iter().filter_map(|address| address.rsplit_once(':')?.1.parse().ok()).collect();
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    let inodes: HashSet<String> =
        tables.iter().flatten().flat_map(|table| listeners(table, &ports)).collect();
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let mut pids: Vec<u32> = processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != std::process::id() && holds(*pid, &inodes))
        .collect();
    pids.sort_unstable();
    pids
}

/// The inodes of sockets that listen on one of the ports.
fn listeners(table: &str, ports: &BTreeSet<u16>) -> Vec<String> {
    let inode = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, port) = fields.get(1)?.rsplit_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        let is_asked_for = *fields.get(3)? == LISTENING && ports.contains(&port);
        Some((*fields.get(9)?).to_owned()).filter(|_| is_asked_for)
    };
    table.lines().filter_map(inode).collect()
}

fn holds(pid: u32, inodes: &HashSet<String>) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    files.flatten().filter_map(|file| fs::read_link(file.path()).ok()).any(|target| {
        let inode = target.to_str().and_then(|target| {
            target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'))
        });
        inode.is_some_and(|inode| inodes.contains(inode))
    })
}

/// User and system time: fields 14 and 15, counted from behind the name, which may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn rss_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_by_a_port_that_it_listens_on() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let inodes: HashSet<String> =
            listeners(&table, &BTreeSet::from([address.port()])).into_iter().collect();
        assert_eq!(inodes.len(), 1);
        assert!(holds(std::process::id(), &inodes));
        // The load generator itself is no server.
        assert!(!listening_on(&[address.to_string()]).contains(&std::process::id()));
    }

    #[test]
    fn use_is_the_difference_of_two_moments() {
        let before = usage(std::process::id()).unwrap();
        let mut after = before.clone();
        after.cpu += Duration::from_millis(1500);
        let used = used(&[before], &[after]);
        assert_eq!(used.len(), 1);
        assert!((used[0].cpu_seconds - 1.5).abs() < 1e-9);
        assert!(used[0].rss_bytes > 0);
    }
}
